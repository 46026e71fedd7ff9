//! Agents: who is there, in which state, since when and why; check-ins, channels, wake-ups.

mod agent;
mod boots;
mod id;
mod registry;
mod state;

pub use agent::Agent;
pub use id::AgentId;
pub use state::{Cause, Rules, Standing, State};
