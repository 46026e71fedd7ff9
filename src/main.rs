//! Parse arguments, run, exit code.

use std::process::ExitCode;

use waypost::cli::{self, Starters};

fn main() -> ExitCode {
    cli::main(
        std::env::args_os(),
        Starters {
            serve: |_| anyhow::bail!("this build has no server"),
            demo: |_| anyhow::bail!("this build has no demonstration"),
        },
    )
}
