//! x
use super::prepared::Prepared;
use crate::base::clock::Timestamp;
use crate::repository::rules::Effective;
use http::{HeaderMap, StatusCode};
use std::time::Duration;
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    Hit,
    HitImmutable,
    NegativeHit,
    StaleWhileRevalidate,
    StaleIfError,
    StaleUpstreamDown,
    RevalidateExpired,
    RevalidateRequested,
    Miss,
    OnlyIfCached,
    UpstreamDown,
    NoUpstream,
}
impl Reason {
    pub const fn as_str(self) -> &'static str {
        ""
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Serve(Reason),
    ServeStale { reason: Reason, refresh: bool },
    Revalidate(Reason),
    Fetch(Reason),
    Refuse { status: StatusCode, reason: Reason },
}
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientWish {
    pub no_cache: bool,
    pub max_age: Option<Duration>,
    pub only_if_cached: bool,
}
impl ClientWish {
    pub fn of(_headers: &HeaderMap) -> Self {
        todo!()
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamState {
    Up,
    Down,
    None,
}
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    pub prepared: &'a Prepared,
    /** soft-purged */
    pub stale: bool,
}
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub entry: Option<Known<'a>>,
    pub effective: &'a Effective,
    pub wish: ClientWish,
    pub upstream: UpstreamState,
    pub now: Timestamp,
}
pub fn decide(_question: &Question<'_>) -> Verdict {
    todo!()
}
/// After a failed fetch or revalidation: may the entry be served instead (stale-if-error)?
pub fn decide_after_error(_question: &Question<'_>) -> Verdict {
    todo!()
}
