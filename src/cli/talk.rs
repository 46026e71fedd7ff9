//! stdout is data, stderr is talk; colours only where they are wanted.

use std::io::{self, Write as _};

use super::args::Color;
use crate::config::Diagnostics;

/// Decides about colours for the whole process. `auto` leaves it to anstream: a terminal, and no `NO_COLOR`.
pub(super) fn choose_color(color: Color) {
    match color {
        Color::Auto => anstream::ColorChoice::Auto,
        Color::Always => anstream::ColorChoice::Always,
        Color::Never => anstream::ColorChoice::Never,
    }
    .write_global();
}

/// Writes data to stdout.
pub(super) fn data(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes a line of talk to stderr. There is nobody to tell when that fails.
pub(super) fn say(line: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}

/// Writes a question to stderr and stays on its line.
pub(super) fn ask(question: &str) {
    let mut out = anstream::stderr().lock();
    let _ = write!(out, "{question}");
    let _ = out.flush();
}

/// Shows findings and, behind them, how many there are.
pub(super) fn show(found: &Diagnostics) {
    if found.is_empty() {
        return;
    }
    say(&found.render(true));
    let count = |number: usize, what: &str| match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    };
    let counted: Vec<String> = [(found.errors(), "error"), (found.warnings(), "warning")]
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| count(number, what))
        .collect();
    say(&format!("{}: {}", found.file(), counted.join(", ")));
}
