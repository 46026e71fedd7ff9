//! What an operator is told when something cannot be done: one shape, with what to do next.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

/// Why a question of an operator is not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The word for tools: a closed set, see [`Code`].
    pub code: Code,
    /// What is wrong, for people.
    pub message: String,
    /// What to do next.
    pub help: String,
}

/// The words of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The question makes no sense.
    BadRequest,
    /// A configuration has errors; nothing of it is used.
    ConfigInvalid,
    /// No or no known credentials.
    NotAuthenticated,
    /// Credentials are known and not enough.
    NotAllowed,
    /// It is not there.
    NotFound,
    /// The path exists, with other methods.
    Method,
    /// The host is not this node.
    Host,
    /// The body is no JSON.
    MediaType,
    /// The body is too large.
    TooLarge,
    /// Too much of it at once.
    Busy,
    /// It took too long.
    TimedOut,
    /// A defect of the node, or of its disk.
    Failed,
}

impl Code {
    /// Its status.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::ConfigInvalid => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NotAuthenticated => StatusCode::UNAUTHORIZED,
            Self::NotAllowed => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// The error as it is sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The shape.
    pub schema: u32,
    /// What is wrong.
    pub error: ErrorFields,
}

/// Its fields.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorFields {
    /// The word.
    pub code: Code,
    /// What is wrong, for people.
    pub message: String,
    /// What to do next.
    pub help: String,
}

impl ApiError {
    /// An error of this kind.
    pub fn new(code: Code, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: help.into() }
    }

    /// It is not there.
    pub fn not_found(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message, help)
    }

    /// The question makes no sense.
    pub fn bad(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(Code::BadRequest, message, help)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let Self { code, message, help } = self;
        let body = ErrorBody { schema: super::api::SCHEMA, error: ErrorFields { code, message, help } };
        let text = serde_json::to_string(&body).unwrap_or_default() + "\n";
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
