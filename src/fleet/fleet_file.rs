//! `fleet.toml`: the system tree with its agents, assignment rules, enrolments, and what [`super::handler_file`] reads.

use std::collections::HashMap;

use super::compiled::{Assignment, Known};
use super::handler_file::{self, HANDLER_KEYS};
use super::model::{Enrolment, Repository, State};
use super::names::{AgentId, TreePath};
use super::order::{Handlers, Member, Targets};
use super::read::{CRITERIA, Lines, Names, Places, checked, criteria, name, parse_tag, rule_name, sorting};
use super::rules::Rule;
use super::sitelist::Selection;
use crate::base::digest::Digest;
use crate::base::limits::{FLEET_AGENTS, FLEET_RULES};
use crate::base::report::diagnostic::{Code, Diagnostic};
use crate::base::report::reader::{At, Keys, Section, TextOrTable};

/// The keys of the file.
pub(super) const ROOT: Keys = Keys {
    known: &["handler", "group", "repository", "assignment", "tree", "enrolment", "selection"],
    later: &[],
};
const TREE: Keys =
    Keys { known: &["path", "agents", "addresses", "tags", "all_tags", "without_tags"], later: &[] };
const AGENT: Keys = Keys { known: &["id", "tags"], later: &[] };
const ENROLMENT: Keys = Keys { known: &["name", "tree", "tokens"], later: &[] };
const ASSIGNMENT: Keys = Keys {
    known: &[
        "name",
        "handlers",
        "selection",
        CRITERIA[0],
        CRITERIA[1],
        CRITERIA[2],
        CRITERIA[3],
        CRITERIA[4],
        CRITERIA[5],
        CRITERIA[6],
    ],
    later: &[],
};
const SELECTIONS: [(&str, Selection); 2] = [("ordered", Selection::Ordered), ("nearest", Selection::Nearest)];

/// What the file says.
#[derive(Default)]
pub(super) struct FleetFile {
    pub(super) handlers: Handlers,
    pub(super) repositories: Vec<Repository>,
    pub(super) selection: Selection,
    pub(super) assignments: Vec<Rule<Assignment>>,
    pub(super) agents: HashMap<AgentId, Known>,
    pub(super) sorting: Vec<Rule<TreePath>>,
    pub(super) enrolments: Vec<Enrolment>,
    pub(super) places: Places,
}

/// Reads it. `states` wins over the states that it says.
pub(super) fn read(root: &Section<'_>, states: &HashMap<String, State>, lines: &Lines) -> FleetFile {
    let mut file = FleetFile {
        handlers: handler_file::handlers(root, states),
        repositories: handler_file::repositories(root),
        selection: root.word("selection", &SELECTIONS).map_or_else(Selection::default, |at| at.value),
        ..FleetFile::default()
    };
    tree(root, lines, &mut file);
    file.enrolments = enrolments(root, &file.places);
    file.assignments = assignments(root, lines, &file);
    file
}

fn tree(root: &Section<'_>, lines: &Lines, file: &mut FleetFile) {
    let (mut seen, mut agents) = (Names::default(), Names::default());
    for section in root.sections("tree", "[[tree]]", &TREE) {
        let Some(text) = section.text("path") else {
            if !section.has("path") {
                section.missing("path", "write path = \"/Branches/7\"");
            }
            continue;
        };
        let Some(path) = checked(section.cx, &text, TreePath::parse(text.value)) else { continue };
        seen.add(section.cx, "the place", &At { value: text.value.trim_end_matches('/'), span: text.span });
        file.places.add(&path);
        for agent in section.texts_or_tables("agents", "an agent, { id, tags }", &AGENT) {
            let (id, tags) = match agent {
                TextOrTable::Text(id) => (Some(id), None),
                TextOrTable::Table(table) => {
                    if !table.has("id") {
                        table.missing("id", "write { id = \"pc-1\", tags = [\"laptop\"] }");
                    }
                    (table.text("id"), table.has("tags").then(|| agent_tags(&table)))
                }
            };
            let Some(id) = id else { continue };
            let Some(parsed) = checked(section.cx, &id, AgentId::parse(id.value)) else { continue };
            if agents.add(section.cx, "the agent", &id) {
                file.agents.insert(parsed, Known { tree: path.clone(), tags });
            }
        }
        let criteria = sorting(&section);
        if !criteria.is_empty() {
            let line = lines.line(section.span.start);
            file.sorting.push(Rule { name: path.to_string(), line, criteria, then: path });
        }
    }
    if file.agents.len() > FLEET_AGENTS {
        let span = root.key_span("tree").unwrap_or_default();
        let message = format!("there are more than {FLEET_AGENTS} agents");
        root.cx.report(Diagnostic::error(Code::OutOfRange, span, message));
    }
}

/// An empty list says that the agent has no tags, whatever it says itself.
fn agent_tags(table: &Section<'_>) -> Vec<String> {
    let tags = table.texts("tags").into_iter();
    let mut tags: Vec<String> =
        tags.filter_map(|tag| checked(table.cx, &tag, parse_tag(tag.value))).collect();
    tags.sort_unstable();
    tags.dedup();
    tags
}

fn enrolments(root: &Section<'_>, places: &Places) -> Vec<Enrolment> {
    let (mut names, mut found) = (Names::default(), Vec::new());
    let mut tokens_seen: HashMap<Digest, std::ops::Range<usize>> = HashMap::new();
    for section in root.sections("enrolment", "[[enrolment]]", &ENROLMENT) {
        let name = name(&section, "branch7");
        if let Some(name) = &name {
            names.add(section.cx, "the enrolment", name);
        }
        let tree = match section.text("tree") {
            Some(text) => checked(section.cx, &text, TreePath::parse(text.value)).map(|value| {
                let at = At { value, span: text.span };
                places.check(section.cx, &at);
                at.value
            }),
            None => Some(TreePath::root()),
        };
        if !section.has("tokens") {
            let help = "write tokens = [\"…\"], the SHA-256 of each: printf %s TOKEN | sha256sum";
            section.missing("tokens", help);
        }
        let tokens = tokens(&section);
        for token in &tokens {
            if let Some(first) = tokens_seen.insert(token.value, token.span.clone()) {
                let found =
                    Diagnostic::error(Code::Conflict, token.span.clone(), "this token is there twice");
                section.cx.report(found.related(first, "first here"));
            }
        }
        let tokens = tokens.into_iter().map(|at| at.value).collect();
        if let (Some(name), Some(tree)) = (name, tree) {
            found.push(Enrolment { name: name.value.to_owned(), tree, tokens });
        }
    }
    found
}

/// Digests of tokens. What is none may be a token itself, and is not shown.
fn tokens(section: &Section<'_>) -> Vec<At<Digest>> {
    let digest = |text: At<&str>| {
        text.value
            .parse()
            .map_err(|why| {
                section.cx.hide(text.span.clone());
                let found = Diagnostic::error(Code::BadValue, text.span.clone(), format!("{why}"));
                section.cx.report(found.help("printf %s TOKEN | sha256sum"));
            })
            .ok()
            .map(|value| At { value, span: text.span.clone() })
    };
    section.texts("tokens").into_iter().filter_map(digest).collect()
}

fn assignments(root: &Section<'_>, lines: &Lines, file: &FleetFile) -> Vec<Rule<Assignment>> {
    let (mut names, mut rules) = (Names::default(), Vec::new());
    for section in root.sections("assignment", "[[assignment]]", &ASSIGNMENT) {
        let name = rule_name(&section);
        if let Some(name) = &name {
            names.add(section.cx, "the rule", name);
        }
        let targets = targets(&section, &file.handlers);
        let selection = section.word("selection", &SELECTIONS).map(|at| at.value);
        let criteria = criteria(&section, &file.places);
        let line = lines.line(section.span.start);
        if let (Some(name), Some(targets)) = (name, targets) {
            let then = Assignment { targets, selection };
            rules.push(Rule { name: name.value.to_owned(), line, criteria, then });
        }
    }
    if rules.len() > FLEET_RULES {
        let span = root.key_span("assignment").unwrap_or_default();
        let message = format!("there are more than {FLEET_RULES} rules");
        root.cx.report(Diagnostic::error(Code::OutOfRange, span, message));
    }
    rules
}

fn targets(section: &Section<'_>, handlers: &Handlers) -> Option<Targets> {
    const HELP: &str = "write handlers = \"all\", or a list of handlers and groups in order";
    if !section.has("handlers") {
        section.missing("handlers", HELP);
        return None;
    }
    let texts = section.texts("handlers");
    if section.is_empty_list("handlers") {
        let span = section.key_span("handlers").unwrap_or_default();
        section.cx.report(Diagnostic::error(Code::BadValue, span, "`handlers` is empty").help(HELP));
        return None;
    }
    if let [only] = texts.as_slice()
        && only.value == handler_file::ALL
    {
        return Some(Targets::All);
    }
    let mut members: Vec<Member> = Vec::new();
    let mut names = Names::default();
    for text in &texts {
        let member = handler_file::resolve(section.cx, text, handlers);
        if names.add(section.cx, "the member", text) {
            members.extend(member);
        }
    }
    // A group behind which nothing is has an error of its own.
    let none_active = |member: &&Member| {
        let behind = handlers.behind(**member);
        !behind.is_empty() && behind.iter().all(|handler| handler.state == State::Disabled)
    };
    if !members.is_empty() && members.iter().filter(none_active).count() == members.len() {
        let span = section.key_span("handlers").unwrap_or_default();
        let found = Diagnostic::warning(Code::NoEffect, span, "every handler of this rule is disabled");
        section.cx.report(found.help("its agents get the repositories behind the handlers only"));
    }
    Some(Targets::List(members))
}

/// Keys of a handler are those of `states.toml`, too.
pub(super) const STATE_KEYS: Keys = Keys { known: &["name", "state"], later: &[] };

/// Reads `states.toml`: what the authority itself wrote when an operator drained a handler.
pub(super) fn states(root: &Section<'_>) -> Vec<(At<String>, State)> {
    let sections = root.sections("handler", "[[handler]]", &STATE_KEYS);
    let read = |section: Section<'_>| {
        let name = name(&section, "wp-a")?;
        if !section.has("state") {
            section.missing("state", "write state = \"draining\"");
        }
        let state = section.word("state", &State::ALL)?;
        Some((name.map(str::to_owned), state.value))
    };
    sections.into_iter().filter_map(read).collect()
}

/// The keys of `states.toml`.
pub(super) const STATES_ROOT: Keys = Keys { known: &[HANDLER_KEYS], later: &[] };
