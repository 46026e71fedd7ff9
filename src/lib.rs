//! waypost: the update handler of a branch office.
//!
//! Every file crosses the WAN once, is verified, and streams to every agent while it arrives. The map:
//!
//! - leaf: [`base`]
//! - pure rules: [`protocol`], [`repository`], [`cache`], [`fleet`]
//! - adapters: [`store`], [`upstream`], [`fill`], [`server`], [`telemetry`], [`stage`]
//! - planes: [`proxy`], [`control`], [`admin`]
//! - the endpoint: [`agent`]
//! - around them: [`config`], [`app`], [`cli`], [`demo`]
//!
//! Arrows point down only; `tests/source.rs` keeps them.

pub mod admin;
pub mod agent;
pub mod app;
pub mod base;
pub mod cache;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod fill;
pub mod fleet;
pub mod presence;
pub mod protocol;
pub mod proxy;
pub mod repository;
pub mod server;
pub mod stage;
pub mod store;
pub mod telemetry;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
pub mod upstream;
