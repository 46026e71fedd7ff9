//! Real update clients as agents of the real program: over HTTPS with a private authority, cold and warm, with the
//! origin failing in between.
//!
//! Where a client is not installed its tests print `SKIPPED: …` with the reason and pass, except under CI (`CI` is
//! set), where they fail: `.ci/run` installs all of them.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a helper that fails is a test that fails, and what was skipped is said"
)]

mod agent;
mod apt;
mod aria2;
mod breakage;
mod curl;
mod freshclam;
mod pip;
mod presets;
mod repository;
mod stage;
mod transfer;
mod wget;
