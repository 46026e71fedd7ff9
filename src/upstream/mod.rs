//! The way up: one HTTP/1.1 client per upstream, with health, and the gate that refuses replies that lie.
//!
//! [`Upstream::fetch`] asks and reports the outcome to the upstream's [`Health`] by itself; [`Sources`] says whom to ask next.
//! A connection goes back to its pool only when a truthful reply was read to its announced end.

mod ask;
mod client;
mod connect;
mod error;
mod health;
mod link;
mod meter;
mod options;
mod place;
mod pool;
mod reply;
mod resolve;
mod sources;
#[cfg(test)]
mod tests;
mod tls;

pub use ask::{Ask, Span};
pub use client::{Permit, Upstream};
pub use error::{BodyError, FetchError, RedirectProblem, TlsProblem};
pub use health::{Health, State, Trouble};
pub use link::Link;
pub use options::{Options, Trust, UpstreamError};
pub use reply::Reply;
pub use sources::Sources;
