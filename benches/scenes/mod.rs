//! What servers are put through. Each scene starts the server it measures, and gives its figures.

pub mod cold;
pub mod entries;
pub mod hot;
pub mod operate;
