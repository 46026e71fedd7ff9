//! The command line: one file a subcommand, no logic beyond talking and printing. stdout is data, stderr is talk.

mod args;

use std::process::ExitCode;

pub use args::{
    Cli, Color, Command, ConfigCheckArgs, ConfigCommand, ConfigInitArgs, DemoArgs, GlobalArgs, Role, ServeArgs,
};

use crate::config::CheckedConfig;

/// What the commands start. Handed in by the binary, so that the command line need not know the application.
#[derive(Clone, Copy, Debug)]
pub struct Starters {
    /// Runs a node until it is told to stop.
    pub serve: fn(CheckedConfig) -> anyhow::Result<ExitCode>,
    /// Runs the demonstration.
    pub demo: fn(DemoArgs) -> anyhow::Result<ExitCode>,
}

/// Does what `cli` says.
pub fn run(cli: Cli, starters: Starters) -> ExitCode {
    match cli.command {
        Command::Demo(args) => (starters.demo)(args).unwrap_or(ExitCode::FAILURE),
        Command::Serve(_) | Command::Config(_) => ExitCode::FAILURE,
    }
}
