//! The server against raw sockets: what a client may do, and what becomes of one that does something else.

mod harness;
mod http1;
mod http2;
mod lifecycle;
mod memory;
mod upgrade;
