//! What the end-to-end bench needs around the real binary: an origin, agents, the process itself.

pub mod agent;
pub mod node;
pub mod operate;
pub mod origin;
