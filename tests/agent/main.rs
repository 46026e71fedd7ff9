//! The agent against scripted handlers, real nodes and origins that misbehave: it finds its handler, loses it, finds
//! the next, and what it installs is right or not installed.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may stop at the first broken assumption"
)]

mod authority;
mod contact;
mod fleet;
mod node;
mod program;
mod scene;
mod updates;
