//! waypost: the update handler of a branch office.
//!
//! Every file crosses the WAN once, is verified, and streams to every agent while it arrives. The map:
//!
//! - leaf: [`base`]
//! - pure rules: [`cache`]
//! - adapters: [`server`], [`telemetry`]
//! - planes: [`admin`]
//!
//! Arrows point down only; `tests/source.rs` keeps them.

pub mod admin;
pub mod base;
pub mod cache;
pub mod cli;
pub mod config;
pub mod fill;
pub mod protocol;
pub mod proxy;
pub mod repository;
pub mod server;
pub mod telemetry;
