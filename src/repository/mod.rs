//! What a repository is: its rules, what its catalogues say, and the kinds there are. Pure.

pub mod expectation;
pub mod listing;
pub mod pattern;
pub mod preset;
pub mod rules;
