//! Answers of the agents' and the nodes' API: small, whole, and short about what went wrong.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};

use super::Refused;

/// An answer.
pub type Reply = Response<Bytes>;

/// Text or bytes of a kind.
fn body(kind: &'static str, bytes: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(bytes.into());
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // What one agent may know is not for a cache that others ask.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    reply
}

/// A status and its name.
pub(super) fn status(status: StatusCode) -> Reply {
    let text = format!("{}\n", status.canonical_reason().unwrap_or("error"));
    let mut reply = body("text/plain; charset=utf-8", text);
    *reply.status_mut() = status;
    reply
}

/// What somebody who is not known is told.
pub(super) fn refused(why: Refused) -> Reply {
    match why {
        Refused::Unknown => {
            let mut reply = status(StatusCode::UNAUTHORIZED);
            reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            reply
        }
        Refused::Other => status(StatusCode::FORBIDDEN),
    }
}
