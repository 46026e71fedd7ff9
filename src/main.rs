//! Parse arguments, run, exit code.

use std::process::ExitCode;

use waypost::app;
use waypost::cli::{self, Starters};

fn main() -> ExitCode {
    cli::main(std::env::args_os(), Starters { serve: app::serve, demo: app::demo })
}
