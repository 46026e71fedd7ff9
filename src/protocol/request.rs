//! x
use super::target::{CanonicalTarget, TargetError};
use http::{StatusCode, request::Parts};
#[derive(Clone, Copy, Debug)]
pub struct Door<'a> {
    pub sni: Option<&'a str>,
    pub names: &'a [String],
    /** the transport will deliver body bytes: `!Body::is_end_stream()` */
    pub body: bool,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    Target(TargetError),
}
impl RefusalReason {
    pub const fn as_str(self) -> &'static str {
        ""
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    pub reason: RefusalReason,
    pub close: bool,
    pub allow: bool,
}
pub fn check_request<'p>(_parts: &'p Parts, _door: &Door<'_>) -> Result<CanonicalTarget<'p>, Refusal> {
    todo!()
}
/// the answer must carry `Connection: close` (HTTP/1.0)
pub fn must_close(_parts: &Parts) -> bool {
    todo!()
}
