//! The reference agent: the endpoint's side. It finds its handler by itself, checks in, applies its policies, and keeps
//! directories up to date from repositories. A library for whoever builds an agent: [`Agent`] is the whole of it, the
//! modules its parts.
//!
//! - Pure: how a handler is chosen ([`select`]), how the agent falls back from one to the next ([`fallback`]), from a
//!   sitelist to candidates and sources ([`places`]), what an update consists of ([`plan`]), which names become files
//!   ([`names`]), how long to wait ([`pace`]).
//! - On disk: generations of files ([`shelf`]), what is kept through restarts ([`state`]).
//! - On the wire: HTTPS ([`link`]), the agents' API, the line between check-ins, one file ([`fetch`]), one update
//!   ([`update`]).
//! - Together: what the agent does ([`Agent`]), and when (`run`).

mod addresses;
mod channel;
mod core;
mod desk;
pub mod fallback;
pub mod fetch;
pub mod link;
pub mod names;
pub mod pace;
mod papers;
pub mod places;
pub mod plan;
mod run;
pub mod select;
pub mod shelf;
pub mod state;
mod status;
mod talk;
pub mod update;
mod updater;
mod whereabouts;

pub use self::core::{Agent, AgentError, CheckInError, Options};
pub use desk::{Done, Order, ask};
pub use papers::Papers;
pub use status::{Listed, Status};
pub use updater::{Report, Updater};
