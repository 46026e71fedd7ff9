//! The reference agent: the endpoint's side. It finds its handler by itself, checks in, and keeps directories up to
//! date from repositories.
//!
//! Pure: how a handler is chosen ([`select`]), how the agent falls back from one to the next ([`fallback`]), how long
//! it waits ([`pace`]).

pub mod fallback;
pub mod pace;
pub mod select;
