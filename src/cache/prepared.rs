//! What every answer from one entry has in common, made once.

use http::HeaderMap;

use super::record::Head;
use crate::base::digest::Digest;
use crate::protocol::freshness::Facts;
use crate::protocol::validators::Validators;

/// Answer headers and freshness facts of an entry.
#[derive(Debug)]
pub struct Prepared {
    /// The stored end-to-end fields as answer headers, with validators and `Repr-Digest`.
    pub headers: HeaderMap,
    /// Status code
    pub status: u16,
    /// Age and lifetime.
    pub freshness: Facts,
    /// What conditions compare with.
    pub validators: Validators,
}

impl Prepared {
    pub fn of(_head: &Head, _length: u64, _digest: &Digest) -> Self {
        todo!()
    }
}
