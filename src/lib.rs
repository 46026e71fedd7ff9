//! waypost: the update handler of a branch office.
//!
//! Every file crosses the WAN once, is verified, and streams to every agent while it arrives. The map:
//!
//! - leaf: [`base`]
//! - pure rules: [`cache`]
//! - planes: [`proxy`]
//! - shows the whole: [`demo`]
//!
//! Arrows point down only; `tests/source.rs` keeps them.

pub mod admin;
pub mod base;
pub mod cache;
pub mod demo;
pub mod proxy;
pub mod repository;
pub mod server;
pub mod telemetry;
