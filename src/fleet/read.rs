//! What several documents are read with: names, places, criteria.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::ops::Range as Span;

use super::address::Range;
use super::criteria::Criteria;
use super::names::{AgentId, TreePath, check_name};
use crate::base::limits::{RULE_NAME_BYTES, TAG_BYTES};
use crate::base::report::diagnostic::{Code, Diagnostic};
use crate::base::report::reader::{At, Context, Section};

/// Names of one kind of thing, and where each stands.
#[derive(Default)]
pub(super) struct Names<'a> {
    seen: HashMap<&'a str, Span<usize>>,
}

impl<'a> Names<'a> {
    /// Notes a second one of the same name.
    pub(super) fn add(&mut self, cx: &Context<'_>, what: &str, name: &At<&'a str>) -> bool {
        if let Some(first) = self.seen.get(name.value) {
            let message = format!("{what} `{}` is there twice", name.value.escape_debug());
            let found = Diagnostic::error(Code::Conflict, name.span.clone(), message);
            cx.report(found.related(first.clone(), "first here"));
            return false;
        }
        self.seen.insert(name.value, name.span.clone());
        true
    }
}

/// The `name` of a section that has to have one.
pub(super) fn name<'a>(section: &Section<'a>, example: &str) -> Option<At<&'a str>> {
    if !section.has("name") {
        section.missing("name", format!("write name = \"{example}\""));
        return None;
    }
    let text = section.text("name")?;
    checked(section.cx, &text, check_name(text.value)).map(|value| At { value, span: text.span })
}

/// The `name` of a rule: any text of one line.
pub(super) fn rule_name<'a>(section: &Section<'a>) -> Option<At<&'a str>> {
    if !section.has("name") {
        section.missing("name", "write name = \"what it is for\"; explanations and findings say it");
        return None;
    }
    let text = section.text("name")?;
    let trimmed = text.value.trim();
    let wrong = if trimmed.is_empty() || trimmed.len() != text.value.len() {
        "is empty, or has white space around it".to_owned()
    } else if text.value.contains(char::is_control) {
        "has control characters".to_owned()
    } else if text.value.len() > RULE_NAME_BYTES {
        format!("has more than {RULE_NAME_BYTES} bytes")
    } else {
        return Some(text);
    };
    section.cx.report(Diagnostic::error(Code::BadValue, text.span, format!("the name of a rule {wrong}")));
    None
}

/// A value, or a note what is wrong with its text.
pub(super) fn checked<T, E: Display>(cx: &Context<'_>, text: &At<&str>, value: Result<T, E>) -> Option<T> {
    value
        .map_err(|why| {
            let shown: String = text.value.chars().take(80).collect();
            let message = format!("`{}`: {why}", shown.escape_debug());
            cx.report(Diagnostic::error(Code::BadValue, text.span.clone(), message));
        })
        .ok()
}

/// The items of a list that is not empty where it is there; what is wrong is noted and left out.
pub(super) fn items<T, E: Display>(
    section: &Section<'_>,
    key: &str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Vec<At<T>> {
    if section.is_empty_list(key) {
        let span = section.key_span(key).unwrap_or_default();
        let found = Diagnostic::error(Code::BadValue, span, format!("`{key}` is empty"));
        section.cx.report(found.help("leave the key out where it is not to be looked at"));
    }
    let texts = section.texts(key).into_iter();
    texts
        .filter_map(|text| {
            let value = checked(section.cx, &text, parse(text.value))?;
            Some(At { value, span: text.span })
        })
        .collect()
}

/// A tag: any text of one line.
pub(super) fn parse_tag(text: &str) -> Result<String, &'static str> {
    let right = !text.trim().is_empty() && text.trim() == text && !text.contains(char::is_control);
    if right && text.len() <= TAG_BYTES {
        Ok(text.to_owned())
    } else {
        Err("a tag is a text of one line without white space around it, up to 128 bytes")
    }
}

/// The keys of criteria.
pub(super) const CRITERIA: [&str; 7] =
    ["tree", "folder", "addresses", "tags", "all_tags", "without_tags", "agents"];

/// The criteria of a section, with where each value stands for those who compare rules.
pub(super) fn criteria(section: &Section<'_>, places: &Places) -> Criteria {
    let (tree, folder) = (items(section, "tree", TreePath::parse), items(section, "folder", TreePath::parse));
    for place in tree.iter().chain(&folder) {
        places.check(section.cx, place);
    }
    let mut criteria = Criteria { tree: values(tree), folder: values(folder), ..sorting(section) };
    criteria.agents = values(items(section, "agents", AgentId::parse));
    criteria.agents.sort_unstable();
    criteria.agents.dedup();
    criteria
}

/// The criteria that can place an agent in the tree.
pub(super) fn sorting(section: &Section<'_>) -> Criteria {
    let tags = |key: &str| {
        let mut tags = values(items(section, key, parse_tag));
        tags.sort_unstable();
        tags.dedup();
        tags
    };
    let mut addresses = values(items(section, "addresses", Range::parse));
    addresses.sort_unstable();
    addresses.dedup();
    Criteria {
        addresses,
        tags: tags("tags"),
        all_tags: tags("all_tags"),
        without_tags: tags("without_tags"),
        ..Criteria::default()
    }
}

fn values<T>(items: Vec<At<T>>) -> Vec<T> {
    items.into_iter().map(|at| at.value).collect()
}

/// The places that the tree has, to find those that it has not.
#[derive(Default)]
pub(super) struct Places {
    known: HashSet<String>,
    folded: HashMap<String, String>,
}

impl Places {
    /// Adds a place and all above it.
    pub(super) fn add(&mut self, place: &TreePath) {
        for above in place.ancestors() {
            if !self.known.insert(above.to_owned()) {
                return;
            }
            self.folded.insert(above.to_lowercase(), above.to_owned());
        }
    }

    /// Notes a place that is not in the tree. Where no tree is written, agents say where they are.
    pub(super) fn check(&self, cx: &Context<'_>, place: &At<TreePath>) {
        if self.known.is_empty() || self.known.contains(place.value.as_str()) {
            return;
        }
        let message = format!("no [[tree]] has the place {}", place.value);
        let found = Diagnostic::warning(Code::NoEffect, place.span.clone(), message);
        cx.report(match self.folded.get(&place.value.as_str().to_lowercase()) {
            Some(meant) => found.help(format!("did you mean \"{meant}\"? Case is told apart")),
            None => found.help("agents that say they are there still are"),
        });
    }
}

/// The line of a byte of a text, without counting from the start each time.
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect())
    }

    pub(super) fn line(&self, at: usize) -> usize {
        self.0.partition_point(|feed| *feed < at) + 1
    }

    /// The bytes of a line, to point at it.
    pub(super) fn span(&self, line: usize) -> Span<usize> {
        let start = line.checked_sub(2).and_then(|before| self.0.get(before)).map_or(0, |feed| feed + 1);
        let end = line.checked_sub(1).and_then(|this| self.0.get(this)).copied();
        start..end.unwrap_or(start).max(start)
    }
}
