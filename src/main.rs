//! Parse arguments, run, exit code.

use std::process::ExitCode;

use waypost::app;
use waypost::cli::{self, Starters};

/// An answer from memory makes some thirty allocations, most of them a few dozen bytes.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::main(std::env::args_os(), Starters { serve: app::serve, demo: app::demo, agent: app::agent })
}
