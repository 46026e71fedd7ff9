//! Documents in, a fleet or all that is wrong out.

use std::collections::HashMap;
use std::path::Path;

use bytes::Bytes;

use super::compiled::Fleet;
use super::documents::{Documents, FLEET, RULES, STATES, policy_name};
use super::fleet_file;
use super::lint;
use super::model::State;
use super::policies::Policies;
use super::policy::Policy;
use super::problem::{Problem, problems};
use super::read::Lines;
use super::rules_file;
use crate::base::digest::Digest;
use crate::base::limits::PROBLEMS;
use crate::base::report::diagnostic::{Code, Diagnostic, Diagnostics, Severity};
use crate::base::report::reader::{Context, Keys, Section, parse};

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
    let mut reports = Vec::new();
    let states = file(documents, STATES, &fleet_file::STATES_ROOT, |root, _| {
        let states = fleet_file::states(root);
        (states.iter().map(|(name, state)| (name.value.clone(), *state)).collect::<HashMap<_, _>>(), states)
    });
    let (by_name, states_read) = states.value;
    let fleet = file(documents, FLEET, &fleet_file::ROOT, |root, lines| {
        let file = fleet_file::read(root, &by_name, lines);
        if root.cx.is_right() {
            lint::assignments(root.cx, &file.assignments, lines);
        }
        file
    });
    let known = fleet.value.handlers.handlers();
    let mut states_found = states.found;
    states_found.extend(states_read.iter().filter_map(|(name, _)| rules_file::unknown_state(name, known)));
    let (mut policies, bodies) = policies(documents);
    let rules = file(documents, RULES, &rules_file::ROOT, |root, lines| {
        rules_file::read(root, &fleet.value.places, lines, &mut policies);
        if root.cx.is_right() {
            lint::policy_rules(root.cx, &policies, lines);
        }
    });
    reports.push(report(FLEET, documents.get(FLEET), fleet.found, &fleet.secrets));
    for (name, found) in bodies {
        reports.push(report(&name, documents.get(&name), vec![found], &[]));
    }
    reports.push(report(RULES, documents.get(RULES), rules.found, &rules.secrets));
    reports.push(report(STATES, documents.get(STATES), states_found, &states.secrets));
    reports.retain(|report| !report.is_empty());
    let right = reports.iter().all(|report| report.errors() == 0);
    Compiled {
        fleet: right.then(|| Fleet::new(fleet.value, policies)),
        problems: reports.iter().flat_map(problems).collect(),
        reports,
    }
}

/// What a `states.toml` says; what is wrong with it is left out.
pub(super) fn states(body: &[u8]) -> Vec<(String, State)> {
    let cx = Context::new(Path::new(""));
    let Some(table) = std::str::from_utf8(body).ok().and_then(|text| parse(text, &cx)) else {
        return Vec::new();
    };
    let root = Section::root(&table, &fleet_file::STATES_ROOT, &cx);
    fleet_file::states(&root).into_iter().map(|(name, state)| (name.value, state)).collect()
}

/// What one file said, and what is wrong with it.
struct Read<T> {
    value: T,
    found: Vec<Diagnostic>,
    secrets: Vec<std::ops::Range<usize>>,
}

/// Reads a file; one that is not there is empty.
fn file<T: Default>(
    documents: &Documents,
    name: &str,
    keys: &Keys,
    read: impl FnOnce(&Section<'_>, &Lines) -> T,
) -> Read<T> {
    let cx = Context::new(Path::new(""));
    let body = documents.get(name).map_or(&[][..], |body| body);
    let value = match std::str::from_utf8(body) {
        Ok(text) => parse(text, &cx).map(|table| read(&Section::root(&table, keys, &cx), &Lines::of(text))),
        Err(error) => {
            let valid = body.iter().take(error.valid_up_to());
            let line = valid.filter(|byte| **byte == b'\n').count() + 1;
            cx.report(whole(format!("line {line} of {name} is not UTF-8")));
            None
        }
    };
    if name == FLEET && documents.get(name).is_none() {
        cx.report(whole(format!("there is no {FLEET}")).help("it has the handlers, groups and rules"));
    }
    let (found, secrets) = cx.into_found();
    Read { value: value.unwrap_or_default(), found, secrets }
}

/// A finding about a file as a whole.
fn whole(message: String) -> Diagnostic {
    Diagnostic { span: None, ..Diagnostic::error(Code::File, 0..0, message) }
}

/// All policies, by category and name, and what is wrong with their files.
fn policies(documents: &Documents) -> (Policies, Vec<(String, Diagnostic)>) {
    let mut found = Vec::new();
    let mut all: Vec<Policy> = Vec::new();
    for (file, body) in documents.iter() {
        let Some((category, name)) = policy_name(file) else { continue };
        let policy = Policy {
            category: category.to_owned(),
            name: name.to_owned(),
            file: file.to_owned(),
            body: Bytes::clone(body),
            sha256: Digest::of(body),
        };
        found.extend(rules_file::check_body(&policy).map(|wrong| (file.to_owned(), wrong)));
        all.push(policy);
    }
    all.sort_by(|one, two| (&one.category, &one.name).cmp(&(&two.category, &two.name)));
    for [one, two] in all.array_windows() {
        if (&one.category, &one.name) == (&two.category, &two.name) {
            let wrong = whole(format!("{} and {} are the same policy", one.file, two.file));
            found.push((two.file.clone(), wrong.help("names are told apart without their ending")));
        }
    }
    all.dedup_by(|later, first| (&later.category, &later.name) == (&first.category, &first.name));
    let by_digest = all.iter().enumerate().map(|(number, policy)| (policy.sha256, number)).collect();
    (Policies { all, by_digest, ..Policies::default() }, found)
}

/// The findings about a file, bounded: errors before warnings where there are too many.
fn report(
    name: &str,
    body: Option<&Bytes>,
    mut found: Vec<Diagnostic>,
    secrets: &[std::ops::Range<usize>],
) -> Diagnostics {
    let text = body.and_then(|body| std::str::from_utf8(body).ok()).unwrap_or_default();
    if found.len() > PROBLEMS {
        found.sort_by_key(|one| (one.severity, one.span.as_ref().map_or(0, |span| span.start)));
        let more = found.len() - PROBLEMS;
        found.truncate(PROBLEMS);
        let severity = found.last().map_or(Severity::Warning, |last| last.severity);
        found.push(Diagnostic {
            severity,
            ..whole(format!("{more} more findings about {name} are not told"))
        });
    }
    if found.is_empty() {
        return Diagnostics::new(name, "", found, &[]);
    }
    Diagnostics::new(name, text, found, secrets)
}
