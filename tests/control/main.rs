//! The fleet's documents on their way from the authority to agents, whatever happens in between; and what nodes are told
//! to do.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a helper that fails is a test that fails"
)]

mod agents;
mod crash;
mod fixtures;
mod lies;
mod mirror;
mod orders;
mod reports;
