//! Answers of the agents' and the nodes' API: small, whole, and short about what went wrong.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde::Serialize;

use super::Refused;

/// An answer.
pub type Reply = Response<Bytes>;

/// Text or bytes of a kind.
pub(super) fn body(kind: &'static str, bytes: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(bytes.into());
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // What one agent may know is not for a cache that others ask.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    reply
}

/// JSON.
pub(super) fn json(value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(text) => body("application/json", text),
        Err(_) => status(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// A status and its name.
pub(super) fn status(status: StatusCode) -> Reply {
    let text = format!("{}\n", status.canonical_reason().unwrap_or("error"));
    let mut reply = body("text/plain; charset=utf-8", text);
    *reply.status_mut() = status;
    reply
}

/// Not now: the client should come again.
pub(super) fn later(seconds: u64) -> Reply {
    let mut reply = status(StatusCode::SERVICE_UNAVAILABLE);
    reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
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

/// The same with its strong ETag; 304 where the client has it.
pub(super) fn tagged(headers: &HeaderMap, tag: &str, make: impl FnOnce() -> Reply) -> Reply {
    let quoted = format!("\"{tag}\"");
    let mut reply = if has(headers, &quoted) {
        let mut reply = Response::new(Bytes::new());
        *reply.status_mut() = StatusCode::NOT_MODIFIED;
        reply
    } else {
        make()
    };
    if let Ok(value) = HeaderValue::try_from(quoted) {
        reply.headers_mut().insert(ETAG, value);
    }
    reply
}

/// Whether the client says that it has this.
pub(super) fn has(headers: &HeaderMap, quoted: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|tag| {
        let tag = tag.trim();
        // Weak comparison (RFC 9110 §13.1.2).
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == quoted
    })
}
