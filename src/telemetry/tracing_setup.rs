//! Diagnostics on stderr: text for people, JSON for collectors, the level changeable while running.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal as _, stderr};
use std::panic::{self, PanicHookInfo};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// How diagnostics are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why diagnostics cannot be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Not a level (`error`, `warn`, `info`, `debug`, `trace`) or filter (`info,waypost::fill=debug`).
    #[error("`{filter}` is no log level or filter: {reason}")]
    Filter {
        /// The filter as given.
        filter: String,
        /// What the parser said.
        reason: String,
    },
    /// Diagnostics were set up before in this process.
    #[error("diagnostics are already set up in this process")]
    Twice,
}

/// Changes the level while the process runs.
#[derive(Clone, Debug)]
pub struct LogHandle(reload::Handle<EnvFilter, Registry>);

impl LogHandle {
    /// Uses another level or filter from now on.
    ///
    /// # Errors
    /// The filter cannot be parsed; the old one stays.
    pub fn set(&self, filter: &str) -> Result<(), LogError> {
        let filter = parse(filter)?;
        self.0.reload(filter).map_err(|_| LogError::Twice)
    }
}

/// Sends diagnostics of the whole process to stderr, panics included. Once, from the binary.
///
/// # Errors
/// The filter cannot be parsed, or diagnostics were set up before.
pub fn init_tracing(filter: &str, format: LogFormat) -> Result<LogHandle, LogError> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let terminal = stderr().is_terminal();
    let registry = tracing_subscriber::registry().with(filter);
    let json = format == LogFormat::Json || (format == LogFormat::Auto && !terminal);
    let result = if json {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(stderr)).try_init()
    } else {
        // Colour only where somebody looks; NO_COLOR is heeded by the layer itself.
        let layer = fmt::layer().with_target(false).with_writer(stderr);
        let layer = if terminal { layer } else { layer.with_ansi(false) };
        registry.with(layer).try_init()
    };
    result.map_err(|_| LogError::Twice)?;
    // One line like any other: what the standard hook prints tears the lines that others write meanwhile.
    panic::set_hook(Box::new(report_panic));
    Ok(LogHandle(handle))
}

fn report_panic(panic: &PanicHookInfo<'_>) {
    let at = panic.location().map(ToString::to_string);
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    let reason = panic.payload_as_str();
    tracing::error!(at, reason, backtrace, "a part of the node panicked");
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    // A lone word is taken for the name of a part of the program, and everything else would be silent.
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let is_known = |word: &str| word.contains('=') || levels.contains(&word.trim().to_lowercase().as_str());
    if let Some(word) = filter.split(',').find(|word| !is_known(word)) {
        let reason = format!("`{}` is neither a level nor part=level", word.escape_debug());
        return Err(LogError::Filter { filter: filter.to_owned(), reason });
    }
    EnvFilter::builder()
        .parse(filter)
        .map_err(|error| LogError::Filter { filter: filter.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_levels_or_directives() {
        assert!(parse("info").is_ok());
        for silent in ["nonsense", "", "info,waypost::fill", "verbose"] {
            assert!(parse(silent).is_err(), "{silent:?} would silence everything else");
        }
        assert!(parse("warn,waypost::fill=debug").is_ok());
        assert!(matches!(parse("waypost=loud"), Err(LogError::Filter { .. })));
    }

    #[test]
    fn the_level_can_be_changed_and_a_bad_one_changes_nothing() {
        let (layer, handle) = reload::Layer::<_, Registry>::new(parse("info").unwrap());
        let handle = LogHandle(handle);
        handle.set("debug").unwrap();
        assert!(handle.set("waypost=loud").is_err());
        assert_eq!(handle.0.with_current(ToString::to_string).unwrap(), "debug");
        drop(layer);
    }
}
