//! Doubles for tests. Never in a release binary.

pub mod content;
