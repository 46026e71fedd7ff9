//! `waypost completion` and `man`: made from the command line itself, so they cannot be out of date.

use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::args::Cli;
use super::exit::Exit;
use super::talk;

/// Prints completions.
pub(super) fn completion(shell: Shell) -> anyhow::Result<Exit> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "waypost", &mut text);
    talk::data(&String::from_utf8_lossy(&text))?;
    Ok(Exit::Done)
}

/// Writes a page for each command.
pub(super) fn man(dir: &Path) -> anyhow::Result<Exit> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    clap_mangen::generate_to(Cli::command(), dir)
        .with_context(|| format!("cannot write manual pages to {}", dir.display()))?;
    Ok(Exit::Done)
}
