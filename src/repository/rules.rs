//! x
use std::time::Duration;
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub pattern: String,
    pub fresh_for: Option<Duration>,
    pub stale_while_revalidate: Option<Duration>,
    pub stale_if_error: Option<Duration>,
    pub immutable: Option<bool>,
    pub negative_for: Option<Duration>,
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    pub fresh_for: Option<Duration>,
    pub stale_while_revalidate: Option<Duration>,
    pub stale_if_error: Option<Duration>,
    pub immutable: Option<bool>,
    pub negative_for: Duration,
    pub revalidate_at_most: Duration,
}
#[derive(Debug)]
pub struct Rules {
    none: Effective,
}
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pattern}: {reason}")]
pub struct RuleError {
    pub index: usize,
    pub pattern: String,
    pub reason: String,
}
impl Rules {
    pub fn compile(_rules: Vec<Rule>) -> Result<Self, RuleError> {
        todo!()
    }
    pub fn effective(&self, _path: &str) -> &Effective {
        &self.none
    }
}
