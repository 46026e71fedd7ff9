//! x
use crate::base::clock::Timestamp;
use http::HeaderMap;
use std::time::Duration;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoStoreReason {
    NoStore,
    Private,
    SetCookie,
    VaryStar,
    Status,
    ContentCoding,
    ContentRange,
    Authorization,
}
impl NoStoreReason {
    pub const fn as_str(self) -> &'static str {
        ""
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storable {
    Yes,
    No(NoStoreReason),
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub lifetime: Duration,
    pub initial_age: Duration,
    pub received_at: Timestamp,
    pub swr: Option<Duration>,
    pub sie: Option<Duration>,
    pub must_revalidate: bool,
    pub no_cache: bool,
    pub immutable: bool,
    pub store: Storable,
}
impl Facts {
    pub fn age(&self, _now: Timestamp) -> Duration {
        todo!()
    }
    pub fn fresh_until(&self) -> Timestamp {
        todo!()
    }
}
pub fn assess(
    _sent: &HeaderMap,
    _status: u16,
    _headers: &HeaderMap,
    _requested_at: Timestamp,
    _received_at: Timestamp,
) -> Facts {
    todo!()
}
pub fn merge_304(_stored: &[(String, Vec<u8>)], _fresh: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    todo!()
}
