//! The way to the node above: who we are there, and how long its answers may take.

use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, StatusCode};

use super::mirror::prefer;
use crate::protocol::caller::NODE_HEADER;
use crate::upstream::{FetchError, Link, Options, UpstreamError};

/// What an answer may take beyond the time that it is held for.
const PATIENCE: Duration = Duration::from_secs(20);

/// The node above.
#[derive(Debug)]
pub struct Uplink {
    link: Link,
    url: String,
    name: HeaderValue,
    token: Option<HeaderValue>,
    hold: Duration,
}

/// The node above does not answer, or not as it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// No connection, or no whole answer.
    #[error("{url} cannot be reached: {error}")]
    Unreachable {
        /// It.
        url: String,
        /// Why.
        error: FetchError,
    },
    /// It does not know us.
    #[error(
        "{url} does not know this node ({status}): give it a token, or a certificate of its [agents] client_ca"
    )]
    Unknown {
        /// It.
        url: String,
        /// What it says.
        status: StatusCode,
    },
    /// It has nothing for us.
    #[error("{url} answers {status}{hint}")]
    Status {
        /// It.
        url: String,
        /// What it says.
        status: StatusCode,
        /// What that may mean.
        hint: &'static str,
    },
}

impl AskError {
    /// What a status other than success means.
    pub fn status(uplink: &Uplink, status: StatusCode) -> Self {
        let url = uplink.url.clone();
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Unknown { url, status },
            StatusCode::NOT_FOUND => {
                Self::Status { url, status, hint: ": it has no [control], or no documents yet" }
            }
            StatusCode::LOOP_DETECTED => Self::Status { url, status, hint: ": it is this node itself" },
            _ => Self::Status { url, status, hint: "" },
        }
    }
}

impl Uplink {
    /// To the node of these options, as the node `name`, with a token where there is one.
    ///
    /// # Errors
    /// All of them are configuration.
    pub fn new(
        options: &Options,
        name: &str,
        token: Option<&[u8]>,
        hold: Duration,
    ) -> Result<Self, UpstreamError> {
        let link = Link::new(options)?;
        let bad_name = || UpstreamError::Node(name.to_owned());
        let token = token.map(|token| {
            let text = [b"Bearer ", token.trim_ascii()].concat();
            HeaderValue::from_bytes(&text).map(|mut value| {
                value.set_sensitive(true);
                value
            })
        });
        let bad_token = |_| UpstreamError::Identity {
            url: options.url.clone(),
            problem: "the token cannot stand in a header".to_owned(),
        };
        Ok(Self {
            link,
            url: options.url.clone(),
            name: HeaderValue::from_str(name).map_err(|_| bad_name())?,
            token: token.transpose().map_err(bad_token)?,
            hold,
        })
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How long a question may be held there.
    pub const fn hold(&self) -> Duration {
        self.hold
    }

    /// Asks; where `hold` is given, the answer may be held so long.
    ///
    /// # Errors
    /// No whole answer in time.
    pub async fn ask(
        &self,
        mut request: http::request::Builder,
        body: Bytes,
        hold: Option<Duration>,
        most: usize,
    ) -> Result<Response<Bytes>, AskError> {
        if let Some(prefer) = hold.and_then(prefer) {
            request = request.header("prefer", prefer);
        }
        self.ask_within(request, body, hold.unwrap_or_default() + PATIENCE, most).await
    }

    /// Asks; the whole answer has to be here within this time.
    ///
    /// # Errors
    /// As [`Uplink::ask`].
    pub async fn ask_within(
        &self,
        request: http::request::Builder,
        body: Bytes,
        within: Duration,
        most: usize,
    ) -> Result<Response<Bytes>, AskError> {
        let unreachable = |error| AskError::Unreachable { url: self.url.clone(), error };
        let mut request: Request<Bytes> = request.body(body).map_err(|_| unreachable(FetchError::Target))?;
        let headers = request.headers_mut();
        headers.insert(NODE_HEADER, self.name.clone());
        if let Some(token) = &self.token {
            headers.insert(AUTHORIZATION, token.clone());
        }
        self.link.ask(request, within, most).await.map_err(unreachable)
    }

    /// A pause, up to half longer: nodes that lost their upstream at the same moment do not all come back at once.
    pub fn spread(&self, pause: Duration) -> Duration {
        let mut random = [0; 1];
        // Without randomness they do.
        let _ = getrandom::fill(&mut random);
        pause + pause * u32::from(random[0]) / 512
    }
}
