//! x
use bytes::Bytes;
use http::HeaderValue;
use std::ops::Range;
#[derive(Clone, Debug)]
pub struct Part {
    pub head: Bytes,
    pub range: Range<u64>,
}
#[derive(Clone, Debug)]
pub struct Multipart {
    pub boundary: String,
    pub parts: Vec<Part>,
    pub closing: Bytes,
    pub total_len: u64,
}
impl Multipart {
    /// seed: random bits of the caller, for the boundary
    pub fn of(
        _ranges: Vec<Range<u64>>,
        _total: u64,
        _content_type: Option<&HeaderValue>,
        _seed: u128,
    ) -> Self {
        todo!()
    }
    pub fn content_type(&self) -> HeaderValue {
        todo!()
    }
}
