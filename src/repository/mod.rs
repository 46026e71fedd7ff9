//! What a repository is, as rules: pure.

pub mod rules;
