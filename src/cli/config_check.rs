//! `waypost config check`: all problems of a file in one run.

use super::args::{ConfigCheckArgs, GlobalArgs};
use super::exit::Exit;
use super::talk;
use crate::config::{self, Diagnostics};

/// Checks the file of `args`, or else that of `--config`.
pub(super) fn run(args: &ConfigCheckArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let path = args.file.as_deref().unwrap_or(&global.config);
    let (valid, found) = match config::load(path) {
        Ok((_, warnings)) => (!args.deny_warnings || warnings.is_empty(), warnings),
        Err(found) => (false, found),
    };
    if global.wants_json() {
        talk::data(&json(valid, &found)?)?;
    } else {
        talk::show(&found);
        if valid && !global.quiet {
            talk::data(&format!("{}: configuration is valid\n", path.display()))?;
        }
    }
    Ok(if valid { Exit::Done } else { Exit::ConfigInvalid })
}

fn json(valid: bool, found: &Diagnostics) -> serde_json::Result<String> {
    let answer = serde_json::json!({
        "schema": 1,
        "file": found.file(),
        "valid": valid,
        "errors": found.errors(),
        "warnings": found.warnings(),
        "diagnostics": found.to_json(),
    });
    serde_json::to_string_pretty(&answer).map(|text| text + "\n")
}
