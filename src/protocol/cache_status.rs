//! x
use http::HeaderValue;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fwd {
    Bypass,
    Method,
    UriMiss,
    VaryMiss,
    Miss,
    Request,
    Stale,
    Partial,
}
#[derive(Clone, Copy, Debug, Default)]
pub struct CacheStatus<'a> {
    pub node: &'a str,
    pub hit: bool,
    pub fwd: Option<Fwd>,
    pub fwd_status: Option<u16>,
    pub ttl: Option<i64>,
    pub stored: bool,
    pub collapsed: bool,
    pub detail: Option<&'a str>,
}
impl CacheStatus<'_> {
    pub fn render(&self) -> HeaderValue {
        todo!()
    }
}
