//! The leaf: values that every part needs and that need nothing themselves.

pub(crate) mod address;
pub mod agent_id;
pub mod clock;
pub mod crash;
pub mod der;
pub mod digest;
pub mod limits;
pub mod proof;
pub mod report;
pub mod size;
