//! A reply that passed the gate, and its body.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::BodyError;
use crate::base::clock::Timestamp;
use crate::protocol::reply::ReplyKind;

/// A reply whose head is truthful. Dropping it before the end closes its connection.
#[derive(Debug)]
pub struct Reply {
    /// What it is.
    pub kind: ReplyKind,
    /// Its status.
    pub status: StatusCode,
    /// Its header fields, as received. Store and relay only what an allow-list takes.
    pub headers: HeaderMap,
    /// When the request went out.
    pub requested_at: Timestamp,
    /// When the head was complete.
    pub received_at: Timestamp,
    /// The upstream's [`super::Upstream::name`].
    pub source: String,
}

impl Reply {
    /// The next bytes of the body, never empty; `None` at its end.
    ///
    /// The end is proven (length, last chunk) unless `kind` is `Whole { framed: false, .. }`: a body that only ends by
    /// the connection's closing is never complete.
    ///
    /// # Errors
    /// How the body broke off. After an error there is nothing more; the connection is closed.
    pub async fn frame(&mut self) -> Option<Result<Bytes, BodyError>> {
        None
    }
}
