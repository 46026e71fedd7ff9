//! What the end-to-end benches need around real servers: an origin, agents, the processes, their figures.

pub mod agent;
pub mod bare;
pub mod load;
pub mod node;
pub mod origin;
pub mod peers;
pub mod process;
pub mod server;
pub mod table;
