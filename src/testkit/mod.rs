//! Doubles for tests. Never in a release binary.
//!
//! [`origin`] is an upstream that does what its script says, [`node`] a whole node in this process, [`fills`] its
//! fills alone, [`process`] the real program and [`stage`] the same in front of an origin, [`client`] an agent that reports how a body ended, [`corpus`] the
//! requests and replies no honest side sends, [`pki`] certificates, [`content`] bodies,
//! [`relay`] a line that stops carrying.
#![expect(clippy::expect_used, reason = "a double that cannot be set up must end its test, saying where")]

mod answer;
pub mod client;
pub mod content;
pub mod corpus;
pub mod fills;
pub mod handler;
pub mod http2;
mod link;
pub mod node;
pub mod origin;
pub mod pki;
pub mod process;
pub mod publisher;
pub mod relay;
pub mod script;
pub mod stage;
mod wait;
