//! What a handler asks for before it begins: the right to act, and what was said, in our shape of errors.

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Query};
use http::request::Parts;
use http::{Request, header};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;

use super::access::{Role, Who};
use super::error::{ApiError, Code};
use crate::base::limits::ADMIN_BODY_BYTES;

/// The right to change things.
pub(super) struct AsOperator;

impl<S: Send + Sync> FromRequestParts<S> for AsOperator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let path = parts.uri.path();
        match parts.extensions.get::<Who>() {
            Some(who) if who.role >= Role::Operator => {
                tracing::info!(who = who.name, method = %parts.method, path, "an operator acts");
                Ok(Self)
            }
            Some(who) => {
                let message = format!("{} may look and not change anything", who.name);
                Err(ApiError::new(Code::NotAllowed, message, "ask somebody with the role operator"))
            }
            None => Err(ApiError::new(Code::NotAuthenticated, "nobody is known here", "log in")),
        }
    }
}

/// What the query of the URL says.
pub(super) struct Ask<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Ask<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Query::from_request_parts(parts, state).await.map(|Query(ask)| Self(ask)).map_err(|wrong| {
            let text = wrong.body_text();
            let text = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
            ApiError::bad(format!("the query: {text}"), "see /v1/openapi.json for what is understood")
        })
    }
}

/// What the body says, which is JSON and nothing else.
pub(super) struct Input<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, ApiError> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
        if !kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json")) {
            let help = "send `Content-Type: application/json`";
            return Err(ApiError::new(Code::MediaType, "the body has to be JSON", help));
        }
        let body = read(request.into_body()).await?;
        let wrong = |error: &dyn std::fmt::Display| {
            ApiError::bad(format!("the body: {error}"), "see /v1/openapi.json for what is understood")
        };
        let body: serde_json::Value = serde_json::from_slice(&body).map_err(|error| wrong(&error))?;
        if !body.is_object() {
            return Err(wrong(&"it is no JSON object"));
        }
        serde_json::from_value(body).map(Self).map_err(|error| wrong(&error))
    }
}

/// Bytes of a body that is too large that are read and thrown away: a client that is still sending would not hear why.
const DISCARDED: usize = 16 * ADMIN_BODY_BYTES;

async fn read(mut body: Body) -> Result<Vec<u8>, ApiError> {
    let (mut kept, mut length) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ApiError::bad("the body did not come whole", "send it again"))?;
        let Some(data) = frame.data_ref() else { continue };
        length += data.len();
        if length <= ADMIN_BODY_BYTES {
            kept.extend_from_slice(data);
        } else if length > DISCARDED {
            break;
        }
    }
    if length <= ADMIN_BODY_BYTES {
        return Ok(kept);
    }
    let message = format!("the body is larger than {} KiB", ADMIN_BODY_BYTES >> 10);
    Err(ApiError::new(Code::TooLarge, message, "send it in several requests"))
}
