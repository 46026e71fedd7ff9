//! Pure HTTP rules: facts and `now` go in, decisions come out. No async, no I/O, no clock.

pub mod agent_api;
pub mod cache_control;
pub mod cache_status;
pub mod caller;
pub mod digest_field;
pub mod freshness;
pub mod headers;
pub mod multipart;
pub mod range;
pub mod reply;
pub mod request;
pub mod target;
pub mod validators;
