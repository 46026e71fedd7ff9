//! x
use std::borrow::Cow;
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalTarget<'a> {
    path: Cow<'a, str>,
    query: Option<&'a str>,
}
impl<'a> CanonicalTarget<'a> {
    pub fn path(&self) -> &str {
        &self.path
    }
    pub fn query(&self) -> Option<&'a str> {
        self.query
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("x")]
pub enum TargetError {
    TooLong,
}
pub fn parse_target(_uri: &http::Uri) -> Result<CanonicalTarget<'_>, TargetError> {
    todo!()
}
pub fn decode_path(_path: &str) -> String {
    todo!()
}
