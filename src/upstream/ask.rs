//! What is asked of an upstream.

use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    RANGE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT, VIA,
};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::Empty;

use bytes::Bytes;

use crate::protocol::reply::Asked;

/// One GET. Nothing of an agent's request goes upstream but what stands in here.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// Path relative to the upstream's base, canonical and percent-encoded; a slash in front is ignored.
    pub path: String,
    /// Query without the question mark.
    pub query: Option<String>,
    /// Forwarded and conditional headers. Those that belong to the connection, the range and the coding are ours
    /// and dropped here.
    pub headers: HeaderMap,
    /// The bytes wanted.
    pub range: Option<Span>,
    /// Tokens for `CDN-Loop` (RFC 8586): those that came in, then our own.
    pub loop_tokens: Vec<String>,
}

/// A range of bytes, half-open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// First byte wanted.
    pub start: u64,
    /// First byte not wanted; `None` to the end. At least `start + 1`.
    pub end: Option<u64>,
    /// Strong validator: the whole comes instead if it no longer fits (RFC 9110 §13.1.5).
    pub if_range: Option<HeaderValue>,
}
