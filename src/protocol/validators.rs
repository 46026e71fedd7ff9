//! x
use crate::base::clock::Timestamp;
use http::{HeaderMap, HeaderValue};
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntityTag {
    weak: bool,
    tag: String,
}
impl EntityTag {
    pub fn parse(_text: &[u8]) -> Option<Self> {
        todo!()
    }
    pub fn is_weak(&self) -> bool {
        self.weak
    }
    pub fn strong_eq(&self, _other: &Self) -> bool {
        todo!()
    }
    pub fn weak_eq(&self, _other: &Self) -> bool {
        todo!()
    }
}
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    pub etag: Option<EntityTag>,
    pub last_modified: Option<Timestamp>,
    pub date: Option<Timestamp>,
}
impl Validators {
    pub fn of(_headers: &HeaderMap) -> Self {
        todo!()
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conditional {
    Proceed,
    NotModified,
    Failed,
}
pub fn decide_conditional(_request: &HeaderMap, _current: &Validators) -> Conditional {
    todo!()
}
pub fn decide_if_range(_request: &HeaderMap, _current: &Validators) -> bool {
    todo!()
}
pub fn resume_validator(_of: &Validators) -> Option<HeaderValue> {
    todo!()
}
pub fn same_representation(_a: &Validators, _b: &Validators) -> bool {
    todo!()
}
