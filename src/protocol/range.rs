//! x
use http::{HeaderMap, HeaderValue};
use std::ops::Range;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeSpec {
    From { first: u64, last: Option<u64> },
    Suffix(u64),
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeWish {
    Whole,
    Ranges(Vec<RangeSpec>),
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeAnswer {
    Whole,
    One(Range<u64>),
    Many(Vec<Range<u64>>),
    Unsatisfiable,
}
pub fn parse_range(_headers: &HeaderMap) -> RangeWish {
    todo!()
}
pub fn decide_range(_wish: &RangeWish, _length: u64) -> RangeAnswer {
    todo!()
}
pub fn content_range(_range: &Range<u64>, _total: Option<u64>) -> HeaderValue {
    todo!()
}
pub fn content_range_unsatisfied(_total: u64) -> HeaderValue {
    todo!()
}
