//! Quantities within their allowed range, and secrets by reference.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::Secret;
use super::diagnostic::{Code, Diagnostic};
use super::ranges::Allowed;
use super::reader::{At, Keys, Section, TextOrTable};
use crate::base::size::{parse_duration, parse_rate, parse_size};

const SECRET: Keys = Keys { known: &["file", "env"], later: &["credential"] };

impl Section<'_> {
    /// A duration, `"30s"`, in `range`.
    pub(super) fn duration(&self, key: &str, range: &RangeInclusive<Duration>) -> Option<At<Duration>> {
        let value = self.quantity(key, "\"30s\"", parse_duration)?;
        self.within(key, value, range, |value| render_duration(*value))
    }

    /// A duration or its default.
    pub(super) fn duration_or(&self, key: &str, allowed: &Allowed<Duration>) -> Duration {
        self.duration(key, &allowed.range).map_or(allowed.default, |at| at.value)
    }

    /// A size in bytes, `"200GiB"`, in `range`.
    pub(super) fn size(&self, key: &str, range: &RangeInclusive<u64>) -> Option<At<u64>> {
        let value = self.quantity(key, "\"200GiB\"", parse_size)?;
        self.within(key, value, range, |value| render_bytes(*value))
    }

    /// A size or its default.
    pub(super) fn size_or(&self, key: &str, allowed: &Allowed<u64>) -> u64 {
        self.size(key, &allowed.range).map_or(allowed.default, |at| at.value)
    }

    /// A rate in bytes per second, `"20MiB/s"`, or its default.
    pub(super) fn rate_or(&self, key: &str, allowed: &Allowed<u64>) -> u64 {
        self.quantity(key, "\"20MiB/s\"", parse_rate)
            .and_then(|value| {
                self.within(key, value, &allowed.range, |value| format!("{}/s", render_bytes(*value)))
            })
            .map_or(allowed.default, |at| at.value)
    }

    /// A whole number in `range`.
    pub(super) fn count(&self, key: &str, range: &RangeInclusive<u64>) -> Option<At<u64>> {
        let value = self.number(key)?;
        self.within(key, value, range, u64::to_string)
    }

    /// A whole number in its range, or its default.
    pub(super) fn count_or(&self, key: &str, allowed: &Allowed<u64>) -> usize {
        let value = self.count(key, &allowed.range).map_or(allowed.default, |at| at.value);
        usize::try_from(value).unwrap_or(usize::MAX)
    }

    /// `{ file = … }` or `{ env = … }`. A value in place of a reference is noted and not shown.
    pub(super) fn secret(&self, key: &str) -> Option<At<Secret>> {
        const HELP: &str = "write { file = \"…\" } or { env = \"…\" }";
        let section = match self.text_or_table(key, &format!("`{key}`"), &SECRET)? {
            TextOrTable::Table(section) => section,
            TextOrTable::Text(text) => {
                self.cx.hide(text.span.clone());
                let message = format!("`{key}` is a secret: say where it is, not what it is");
                self.cx.report(Diagnostic::error(Code::BadValue, text.span, message).help(HELP));
                return None;
            }
        };
        let (file, env) = (section.path("file"), section.text("env"));
        let secret = match (file, env) {
            (Some(file), None) => file.map(Secret::File),
            (None, Some(env)) if is_variable(env.value) => env.map(|name| Secret::Env(name.to_owned())),
            (None, Some(env)) => {
                let message = "that is not the name of an environment variable";
                self.cx.report(Diagnostic::error(Code::BadValue, env.span, message));
                return None;
            }
            (Some(file), Some(env)) => {
                let message = format!("`{key}` is in two places");
                let found = Diagnostic::error(Code::Conflict, env.span, message);
                self.cx.report(found.related(file.span, "the other one").help(HELP));
                return None;
            }
            (None, None) => {
                if !section.has("file") && !section.has("env") {
                    let message = format!("`{key}` says neither a file nor a variable");
                    self.cx.report(Diagnostic::error(Code::Missing, section.span, message).help(HELP));
                }
                return None;
            }
        };
        Some(secret)
    }

    fn within<T: PartialOrd>(
        &self,
        key: &str,
        at: At<T>,
        range: &RangeInclusive<T>,
        render: impl Fn(&T) -> String,
    ) -> Option<At<T>> {
        if range.contains(&at.value) {
            return Some(at);
        }
        let side = if at.value < *range.start() { "small" } else { "large" };
        self.cx.report(
            Diagnostic::error(Code::OutOfRange, at.span, format!("`{key}` is too {side}"))
                .help(allowed(&render(range.start()), &render(range.end()))),
        );
        None
    }
}

fn allowed(from: &impl Display, to: &impl Display) -> String {
    format!("allowed: {from} to {to}")
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A duration as it is written in the file, in the largest unit that keeps it whole.
pub(super) fn render_duration(time: Duration) -> String {
    const UNITS: [(u128, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let millis = time.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    UNITS
        .iter()
        .find(|(unit, _)| millis >= *unit && millis.is_multiple_of(*unit))
        .map_or_else(|| format!("{millis}ms"), |(unit, name)| format!("{}{name}", millis / unit))
}

/// A size as it is written in the file, in the largest unit that keeps it whole.
pub(super) fn render_bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    UNITS
        .iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rendered_parses_to_the_same() {
        for millis in [0, 1, 100, 1_000, 90_000, 3_600_000, 86_400_000, 86_400_001] {
            let time = Duration::from_millis(millis);
            assert_eq!(parse_duration(&render_duration(time)), Ok(time));
        }
        for bytes in [0, 1, 1 << 10, 3 << 20, 5 << 30, 1 << 40, (1 << 40) + 1] {
            assert_eq!(parse_size(&render_bytes(bytes)), Ok(bytes));
        }
    }

    #[test]
    fn the_largest_whole_unit_is_used() {
        assert_eq!(render_duration(Duration::from_mins(10)), "10m");
        assert_eq!(render_duration(Duration::from_millis(1_500)), "1500ms");
        assert_eq!(render_bytes(16 << 20), "16MiB");
    }
}
