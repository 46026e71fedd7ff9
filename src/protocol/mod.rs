//! The rules of HTTP as this product applies them: facts in, decisions out. No async, I/O, locks or clock here.

pub mod cache_control;
pub mod cache_status;
pub mod digest_field;
pub mod freshness;
pub mod headers;
pub mod multipart;
pub mod range;
pub mod request;
pub mod target;
pub mod validators;
