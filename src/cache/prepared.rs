//! What every answer from one entry has in common, made once.

use http::HeaderMap;

/// Answer headers and freshness facts of an entry.
#[derive(Debug)]
pub struct Prepared {
    /// The stored end-to-end fields as answer headers, with validators and `Repr-Digest`.
    pub headers: HeaderMap,
}
