//! `rules.toml`: which policies the places of the tree have, and the rules over them.

use std::collections::{BTreeSet, HashMap};

use super::model::Handler;
use super::names::{TreePath, check_name};
use super::policies::{Assigned, Categories, Policies};
use super::policy::Policy;
use super::read::{CRITERIA, Lines, Names, Places, checked, criteria, items, rule_name};
use super::rules::{Rule, Rules};
use crate::base::limits::FLEET_RULES;
use crate::base::report::diagnostic::{Code, Diagnostic};
use crate::base::report::nearest::nearest;
use crate::base::report::reader::{At, Keys, Section};

/// The keys of the file.
pub(super) const ROOT: Keys = Keys { known: &["multi_slot", "tree", "rule"], later: &[] };
const TREE: Keys = Keys { known: &["path", "policies", "break", "lock"], later: &[] };
const RULE: Keys = Keys {
    known: &[
        "name",
        "priority",
        "policies",
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
/// Beyond it a priority is a slip of the finger.
const MOST_PRIORITY: u64 = 1_000_000;

/// Reads it into `policies`, which has all policies by now. `root` is none where there is no such file.
pub(super) fn read(root: &Section<'_>, places: &Places, lines: &Lines, policies: &mut Policies) {
    let categories: BTreeSet<&str> = policies.all.iter().map(|policy| policy.category.as_str()).collect();
    let multi = items(root, "multi_slot", |text| check_name(text).map(str::to_owned));
    for category in multi.iter().filter(|at| !categories.contains(at.value.as_str())) {
        let message = format!("no policy has the category `{}`", category.value);
        root.cx.report(Diagnostic::warning(Code::NoEffect, category.span.clone(), message));
    }
    policies.multi = multi.into_iter().map(|at| at.value).collect();
    policies.tree = tree(root, places, lines, policies);
    let rules = rules(root, places, lines, policies);
    policies.rules = Rules::new(rules);
}

fn tree(
    root: &Section<'_>,
    places: &Places,
    lines: &Lines,
    policies: &Policies,
) -> HashMap<TreePath, Assigned> {
    let mut seen = Names::default();
    let mut assigned: HashMap<TreePath, Assigned> = HashMap::new();
    let mut spans = Vec::new();
    for section in root.sections("tree", "[[tree]]", &TREE) {
        let Some(text) = section.text("path") else {
            if !section.has("path") {
                section.missing("path", "write path = \"/Branches\"");
            }
            continue;
        };
        let Some(path) = checked(section.cx, &text, TreePath::parse(text.value)) else { continue };
        let at = At { value: path, span: text.span.clone() };
        places.check(section.cx, &at);
        seen.add(section.cx, "the place", &At { value: text.value.trim_end_matches('/'), span: text.span });
        if !["policies", "break", "lock"].iter().any(|key| section.has(key)) {
            section.missing("policies", "write policies = [\"av/base\"], or break or lock");
        }
        let here = Assigned {
            line: lines.line(section.span.start),
            policies: named(&section, policies),
            breaks: categories(&section, "break", policies),
            locks: categories(&section, "lock", policies),
        };
        spans.push((at.value.clone(), section));
        assigned.insert(at.value, here);
    }
    for (place, section) in &spans {
        warn_of_locks(place, section, &assigned, policies);
    }
    assigned
}

/// Notes what a place says and a lock above it forbids.
fn warn_of_locks(
    place: &TreePath,
    section: &Section<'_>,
    assigned: &HashMap<TreePath, Assigned>,
    policies: &Policies,
) {
    let Some(here) = assigned.get(place) else { return };
    let above: Vec<(&str, &Assigned)> =
        place.ancestors().skip(1).filter_map(|above| Some((above, assigned.get(above)?))).collect();
    let forbids = |category: &str| above.iter().find(|(_, it)| it.locks.has(category));
    let span = |key: &str| section.key_span(key).unwrap_or_else(|| section.span.clone());
    for &policy in &here.policies {
        if let Some((by, assigned)) = forbids(policies.category(policy)) {
            let category = policies.category(policy);
            let message = format!("`{category}` is locked at {by} (line {})", assigned.line);
            let found = Diagnostic::warning(Code::NoEffect, span("policies"), message);
            section.cx.report(found.help("it stays what it is there"));
        }
    }
    if let Categories::These(breaks) = &here.breaks {
        for (category, (by, assigned)) in breaks.iter().filter_map(|it| Some((it, forbids(it)?))) {
            let message = format!("`{category}` is locked at {by} (line {})", assigned.line);
            section.cx.report(Diagnostic::warning(Code::NoEffect, span("break"), message));
        }
    } else if let Some((by, assigned)) = above.iter().find(|(_, it)| it.locks != Categories::default()) {
        let message = format!("some of it is locked at {by} (line {})", assigned.line);
        section.cx.report(Diagnostic::warning(Code::NoEffect, span("break"), message));
    }
}

/// `true` or some categories.
fn categories(section: &Section<'_>, key: &str, policies: &Policies) -> Categories {
    if !section.is_list(key) {
        return if section.flag(key).is_some_and(|at| at.value) {
            Categories::All
        } else {
            Categories::default()
        };
    }
    let known = |category: &str| policies.all.iter().any(|policy| policy.category == category);
    let some = items(section, key, |text| match check_name(text) {
        Ok(name) if known(name) => Ok(name.to_owned()),
        Ok(_) => Err("no policy has this category".to_owned()),
        Err(why) => Err(why.to_string()),
    });
    Categories::These(some.into_iter().map(|at| at.value).collect())
}

/// The policies of a section, at most one of a category with one slot.
fn named(section: &Section<'_>, policies: &Policies) -> Vec<usize> {
    let mut taken: HashMap<&str, std::ops::Range<usize>> = HashMap::new();
    let mut names = Names::default();
    let mut found = Vec::new();
    for text in section.texts("policies") {
        if !names.add(section.cx, "the policy", &text) {
            continue;
        }
        let split = text.value.split_once('/');
        let Some(number) = split.and_then(|(category, name)| policies.find(category, name)) else {
            section.cx.report(unknown(&text, policies));
            continue;
        };
        let category = policies.category(number);
        if !policies.multi.contains(category)
            && let Some(first) = taken.insert(category, text.span.clone())
        {
            let message = format!("`{category}` has one slot, and this is its second policy");
            let found = Diagnostic::error(Code::Conflict, text.span.clone(), message);
            let found = found.related(first, "first here");
            section.cx.report(found.help(format!("or write multi_slot = [\"{category}\"]")));
        }
        found.push(number);
    }
    if section.is_empty_list("policies") {
        let span = section.key_span("policies").unwrap_or_default();
        section.cx.report(Diagnostic::error(Code::BadValue, span, "`policies` is empty"));
    }
    found
}

fn unknown(text: &At<&str>, policies: &Policies) -> Diagnostic {
    let shown: String = text.value.chars().take(160).collect();
    let message = format!("there is no policy `{}`", shown.escape_debug());
    let found = Diagnostic::error(Code::BadValue, text.span.clone(), message);
    let names: Vec<String> = policies.all.iter().map(|it| format!("{}/{}", it.category, it.name)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).take(1_000).collect();
    // The file's name was written, or the category forgotten.
    let meant = names.iter().find(|name| {
        text.value.strip_prefix(**name).is_some_and(|rest| rest.starts_with('.'))
            || name.strip_suffix(text.value).is_some_and(|rest| rest.ends_with('/'))
    });
    match meant.copied().or_else(|| nearest(text.value, &names)) {
        Some(meant) => found.help(format!("did you mean \"{meant}\"?")),
        None => found.help("a policy is CATEGORY/NAME: the file policies/CATEGORY/NAME without its ending"),
    }
}

fn rules(root: &Section<'_>, places: &Places, lines: &Lines, policies: &Policies) -> Vec<Rule<Vec<usize>>> {
    let (mut names, mut rules) = (Names::default(), Vec::new());
    let mut written: HashMap<u64, String> = HashMap::new();
    for (section, number) in root.sections("rule", "[[rule]]", &RULE).iter().zip(1_u64..) {
        let name = rule_name(section);
        if let Some(name) = &name {
            names.add(section.cx, "the rule", name);
        }
        let priority = section.number("priority");
        if let Some(at) = &priority {
            let name = name.as_ref().map_or("", |at| at.value);
            if !(1..=MOST_PRIORITY).contains(&at.value) {
                let found =
                    Diagnostic::error(Code::OutOfRange, at.span.clone(), "`priority` is out of range");
                section.cx.report(found.help(format!("allowed: 1 to {MOST_PRIORITY}, 1 is the strongest")));
            } else if let Some(first) = written.insert(at.value, name.to_owned()) {
                let message = format!("rule `{first}` has the same priority");
                let found = Diagnostic::warning(Code::Conflict, at.span.clone(), message);
                section.cx.report(found.help("the one that is written first is the stronger"));
            }
        }
        if !section.has("policies") {
            section.missing("policies", "write policies = [\"firewall/laptop\"]");
        }
        let policies = named(section, policies);
        let criteria = criteria(section, places);
        if let Some(name) = name {
            let line = lines.line(section.span.start);
            let rule = Rule { name: name.value.to_owned(), line, criteria, then: policies };
            rules.push((priority.map_or(number, |at| at.value), rule));
        }
    }
    if rules.len() > FLEET_RULES {
        let span = root.key_span("rule").unwrap_or_default();
        let message = format!("there are more than {FLEET_RULES} rules");
        root.cx.report(Diagnostic::error(Code::OutOfRange, span, message));
    }
    // Stable: of equal priority, the one that is written first.
    rules.sort_by_key(|(priority, _)| *priority);
    rules.into_iter().map(|(_, rule)| rule).collect()
}

/// What is wrong with the body of a policy.
pub(super) fn check_body(policy: &Policy) -> Option<Diagnostic> {
    let whole = |message: &str| Diagnostic {
        span: None,
        ..Diagnostic::error(Code::File, 0..0, format!("{} {message}", policy.file))
    };
    let Ok(text) = std::str::from_utf8(&policy.body) else {
        return Some(whole("is not UTF-8, and a policy is text"));
    };
    if text.trim().is_empty() {
        return Some(whole("is empty"));
    }
    if policy.file.ends_with(".json")
        && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text)
    {
        let line_start: usize =
            text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
        let at = (line_start + error.column().saturating_sub(1)).min(text.len());
        let why = error.to_string();
        let why = why.split(" at line ").next().unwrap_or_default();
        return Some(Diagnostic::error(Code::Syntax, at..at, format!("not valid JSON: {why}")));
    }
    None
}

/// Handlers in `states.toml` that are not in `fleet.toml` any more.
pub(super) fn unknown_state(name: &At<String>, handlers: &[Handler]) -> Option<Diagnostic> {
    if handlers.iter().any(|handler| handler.name == name.value) {
        return None;
    }
    let message = format!("there is no handler `{}` any more", name.value);
    let found = Diagnostic::warning(Code::NoEffect, name.span.clone(), message);
    Some(found.help("the next `handlers drain` or `resume` leaves it out"))
}
