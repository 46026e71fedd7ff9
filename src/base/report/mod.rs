//! What people wrote and what is wrong with it: TOML read with the place of every value, findings with line, column
//! and advice, drawn as compilers do. The configuration and the fleet's documents are read with it.

pub mod diagnostic;
pub(crate) mod nearest;
pub(crate) mod reader;
mod render;
