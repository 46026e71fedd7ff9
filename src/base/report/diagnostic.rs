//! What is wrong with a configuration, where exactly, and what to do about it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::render;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is not used.
    Error,
    /// The file is used, but probably does not do what was meant.
    Warning,
}

/// What kind of finding it is. The words are a contract of `config check --json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// Not TOML.
    Syntax,
    /// A key that does not exist here.
    UnknownKey,
    /// A value of another type than the key takes.
    WrongType,
    /// A value that cannot be understood.
    BadValue,
    /// A value outside of the allowed range.
    OutOfRange,
    /// A key that has to be there.
    Missing,
    /// Two places that contradict each other.
    Conflict,
    /// A file or directory that is not there, may not be read, or is not what it should be.
    File,
    /// Something that a later release will know.
    NotAvailable,
    /// Something that has no effect.
    NoEffect,
    /// Something that works and is unwise.
    Unsafe,
}

/// Another place that belongs to a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// Bytes of the file.
    pub span: Range<usize>,
    /// What is there.
    pub label: String,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What kind it is.
    pub code: Code,
    /// One sentence without a full stop.
    pub message: String,
    /// Bytes of the file; `None` when the file could not be read at all.
    pub span: Option<Range<usize>>,
    /// What to do: the allowed range, the key that was probably meant.
    pub help: Option<String>,
    /// Another place that belongs to it.
    pub related: Option<Related>,
}

impl Diagnostic {
    /// An error at `span`.
    pub(crate) fn error(code: Code, span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            span: Some(span),
            help: None,
            related: None,
        }
    }

    /// A warning at `span`.
    pub(crate) fn warning(code: Code, span: Range<usize>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, span, message) }
    }

    /// The same with advice.
    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same with another place.
    #[must_use]
    pub(crate) fn related(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.related = Some(Related { span, label: label.into() });
        self
    }
}

/// A line and a column, both from 1; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

/// All findings about one file, in the order of the file, with the text they point into.
#[derive(Clone, PartialEq, Eq)]
pub struct Diagnostics {
    file: Arc<str>,
    text: Arc<str>,
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Findings about `text`, which people know as `file`; sorts them by place. What stands in `secrets` is
    /// replaced by stars of the same length, so that places stay what they are.
    pub(crate) fn new(file: &str, text: &str, mut list: Vec<Diagnostic>, secrets: &[Range<usize>]) -> Self {
        list.sort_by_key(|found| {
            (found.span.as_ref().map_or(0, |span| span.start), found.severity, found.message.clone())
        });
        let mut text = text.to_owned();
        for span in secrets {
            if let Some(secret) = text.get(span.clone()) {
                // Stars for bytes: a line feed in a secret stays, for the lines to stay.
                let stars: String =
                    secret.bytes().map(|byte| if byte == b'\n' { '\n' } else { '*' }).collect();
                text.replace_range(span.clone(), &stars);
            }
        }
        Self { file: file.into(), text: text.into(), list }
    }

    /// The file's name as it was given.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The findings, sorted by place.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// Whether there is nothing to say.
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many errors there are.
    pub fn errors(&self) -> usize {
        self.iter().filter(|found| found.severity == Severity::Error).count()
    }

    /// How many warnings there are.
    pub fn warnings(&self) -> usize {
        self.list.len() - self.errors()
    }

    /// Where `found` begins; `None` when it is about the file as a whole.
    pub fn position(&self, found: &Diagnostic) -> Option<Position> {
        let start = found.span.as_ref()?.start;
        let start = self.text.floor_char_boundary(start);
        let before = self.text.get(..start)?;
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Some(Position { line, column })
    }

    /// All findings for people: file:line:column, the line, a caret, and advice. `styled` adds ANSI colours;
    /// write the result through `anstream` so that pipes and `NO_COLOR` are respected.
    pub fn render(&self, styled: bool) -> String {
        render::report(&self.file, &self.text, &self.list, styled)
    }

    /// One object for each finding, for `--json`.
    pub fn to_json(&self) -> Vec<serde_json::Value> {
        self.iter()
            .map(|found| {
                let position = self.position(found);
                serde_json::json!({
                    "file": &*self.file,
                    "line": position.map(|p| p.line),
                    "column": position.map(|p| p.column),
                    "severity": found.severity,
                    "code": found.code,
                    "message": found.message,
                    "help": found.help,
                })
            })
            .collect()
    }
}

/// The same as [`Diagnostics::render`] without colours.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_count_from_one() {
        let text = "a = 1\nä = 2\n";
        let at = text.find('=').map_or(0, |first| text[first + 1..].find('=').expect("two") + first + 1);
        let found = Diagnostic::error(Code::BadValue, at..at + 1, "no");
        let all = Diagnostics::new("x.toml", text, vec![found], &[]);
        let position = all.iter().next().and_then(|found| all.position(found));
        assert_eq!(position, Some(Position { line: 2, column: 3 }));
    }

    #[test]
    fn findings_come_in_the_order_of_the_file() {
        let text = "one\ntwo\n";
        let later = Diagnostic::warning(Code::NoEffect, 4..7, "later");
        let first = Diagnostic::error(Code::BadValue, 0..3, "first");
        let all = Diagnostics::new("x.toml", text, vec![later, first], &[]);
        assert_eq!(all.iter().map(|found| found.message.as_str()).collect::<Vec<_>>(), ["first", "later"]);
        assert_eq!((all.errors(), all.warnings()), (1, 1));
    }
}
