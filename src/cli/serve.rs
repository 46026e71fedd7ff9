//! `waypost serve`: run a node.

use std::process::ExitCode;

use super::args::{ConfigCheckArgs, GlobalArgs, ServeArgs};
use super::exit::Exit;
use super::{Starters, config_check, talk};
use crate::config::{self, LogLevel};

/// Loads the configuration and hands it to the application.
pub(super) fn run(args: &ServeArgs, global: &GlobalArgs, starters: Starters) -> anyhow::Result<ExitCode> {
    if args.check {
        let check = ConfigCheckArgs { file: None, deny_warnings: false };
        return config_check::run(&check, global).map(ExitCode::from);
    }
    let (mut config, warnings) = match config::load(&global.config) {
        Ok(loaded) => loaded,
        Err(found) => {
            talk::show(&found);
            return Ok(Exit::ConfigInvalid.into());
        }
    };
    if !global.quiet {
        talk::show(&warnings);
    }
    config.log.level = level(config.log.level, global);
    config.log.level_by_flag = global.quiet || global.verbose > 0;
    (starters.serve)(config)
}

/// `-q` and `-v` are said at this moment and win over the file; `-v` never says less than the file.
pub(super) fn level(of_file: LogLevel, global: &GlobalArgs) -> LogLevel {
    match (global.quiet, global.verbose) {
        (true, _) => LogLevel::Error,
        (false, 0) => of_file,
        (false, 1) => of_file.max(LogLevel::Debug),
        (false, _) => LogLevel::Trace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser as _;

    fn level_of(file: LogLevel, flags: &[&str]) -> LogLevel {
        let cli = Cli::try_parse_from(["waypost", "serve"].iter().chain(flags)).expect("a command line");
        level(file, &cli.global)
    }

    #[test]
    fn flags_win_over_the_file() {
        assert_eq!(level_of(LogLevel::Warn, &[]), LogLevel::Warn);
        assert_eq!(level_of(LogLevel::Warn, &["-v"]), LogLevel::Debug);
        assert_eq!(level_of(LogLevel::Trace, &["-v"]), LogLevel::Trace);
        assert_eq!(level_of(LogLevel::Info, &["-vv"]), LogLevel::Trace);
        assert_eq!(level_of(LogLevel::Info, &["-q"]), LogLevel::Error);
    }
}
