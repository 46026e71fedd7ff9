//! Every step towards the disk, the process killed or the power cut there; a disk that gives errors; too little of
//! everything. Whatever was said to be done is done afterwards, and no byte is wrong.
//!
//! All that can be broken at is tried with `WAYPOST_LONG_STORM=1`; a sample of it, chosen by `WAYPOST_SEED`, without.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a helper that fails is a test that fails, and what was skipped is said"
)]

mod calls;
mod clock;
mod disk;
mod errors;
mod limits;
mod scene;
mod steps;

/// Whether everything is to be tried, however long it takes.
fn is_everything() -> bool {
    std::env::var_os("WAYPOST_LONG_STORM").is_some_and(|value| value == "1")
}

/// Says that a test cannot run here.
///
/// # Panics
/// It may not be skipped: in continuous integration all of it has to run.
fn skip(why: &str) {
    println!("SKIPPED: {why}");
    assert!(std::env::var_os("CI").is_none(), "this test may not be skipped in CI: {why}");
}
