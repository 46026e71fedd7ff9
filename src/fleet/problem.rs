//! What is wrong with the control documents: in which file, on which line, and what to do about it.

use std::ops::Range;

use serde::Serialize;

use crate::base::report::diagnostic::{Code, Diagnostics, Severity};

/// One finding about one document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The document, relative to its directory.
    pub file: String,
    /// The line from 1; none where it is about the file as a whole.
    pub line: Option<usize>,
    /// The character in the line, from 1.
    pub column: Option<usize>,
    /// Bytes of the file.
    #[serde(skip)]
    pub span: Option<Range<usize>>,
    /// How bad it is. One error, and nothing of all documents is used.
    pub severity: Severity,
    /// What kind it is.
    pub code: Code,
    /// One sentence without a full stop.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

/// The findings of one file as they are told one by one.
pub(super) fn problems(found: &Diagnostics) -> impl Iterator<Item = Problem> {
    found.iter().map(|one| {
        let position = found.position(one);
        Problem {
            file: found.file().into(),
            line: position.map(|it| it.line),
            column: position.map(|it| it.column),
            span: one.span.clone(),
            severity: one.severity,
            code: one.code,
            message: one.message.clone(),
            help: one.help.clone(),
        }
    })
}
