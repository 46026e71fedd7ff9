//! The handlers, groups and repositories of `fleet.toml`.

use std::collections::HashMap;

use super::model::{Group, Handler, Order, Repository, State};
use super::names::check_name;
use super::order::{Handlers, Member};
use super::read::{Names, checked, name};
use crate::base::address::{
    Wrong, check_repository_path, has_user_info, parse_host_and_port, parse_upstream_url,
};
use crate::base::limits::{GROUPS, HANDLERS, REPOSITORIES};
use crate::base::report::diagnostic::{Code, Diagnostic};
use crate::base::report::reader::{At, Context, Keys, Section};

/// The table of handlers, here and in `states.toml`.
pub(super) const HANDLER_KEYS: &str = "handler";
/// All handlers, where members are listed.
pub(super) const ALL: &str = "all";
const HANDLER: Keys = Keys {
    known: &["name", "internal", "external", "ip", "port", "weight", "state", "repositories"],
    later: &[],
};
const GROUP: Keys = Keys { known: &["name", "order", "members"], later: &[] };
const REPOSITORY: Keys = Keys { known: &["name", "url", "fallback"], later: &[] };
const ORDERS: [(&str, Order); 3] =
    [("priority", Order::Priority), ("balanced", Order::Balanced), ("random", Order::Random)];
const DEFAULT_PORT: u16 = 443;
const DEFAULT_WEIGHT: u32 = 100;
/// A handler can count for a hundred others.
const MOST_WEIGHT: u64 = 10_000;
/// Members of all groups together: each group is walked through once for its weight.
const MOST_MEMBERS: usize = 20_000;
/// Groups within each other.
const MOST_DEPTH: usize = 16;

/// Handlers and groups, joined.
pub(super) fn handlers(root: &Section<'_>, states: &HashMap<String, State>) -> Handlers {
    let mut names = Names::default();
    let mut handlers = Vec::new();
    for section in root.sections(HANDLER_KEYS, "[[handler]]", &HANDLER) {
        let named = member_name(&section, "wp-a", &mut names);
        let mut handler = handler(&section);
        if let Some(named) = named {
            named.value.clone_into(&mut handler.name);
        }
        if let Some(state) = states.get(&handler.name) {
            handler.state = *state;
        }
        handlers.push(handler);
    }
    too_many(root, HANDLER_KEYS, handlers.len(), HANDLERS);
    let sections = root.sections("group", "[[group]]", &GROUP);
    let mut groups = Vec::new();
    for section in &sections {
        let named = member_name(section, "branch7", &mut names);
        groups.push(Group {
            name: named.map_or_else(String::new, |at| at.value.to_owned()),
            order: section.word("order", &ORDERS).map_or_else(Order::default, |at| at.value),
            members: section.texts("members").iter().map(|at| at.value.to_owned()).collect(),
        });
    }
    too_many(root, "group", groups.len(), GROUPS);
    let alone = Handlers::new(handlers.clone(), groups.clone(), Vec::new());
    let members: Vec<Vec<Member>> = sections.iter().map(|section| members(section, &alone)).collect();
    let all_members = members.iter().map(Vec::len).sum();
    too_many(root, "group", all_members, MOST_MEMBERS);
    if all_members > MOST_MEMBERS || !check_loops(&sections, &groups, &members) {
        return Handlers::new(handlers, groups, Vec::new());
    }
    let all = Handlers::new(handlers, groups, members);
    warn_of_disabled(&sections, &all);
    all
}

fn too_many(root: &Section<'_>, key: &str, there: usize, allowed: usize) {
    if there > allowed {
        let span = root.key_span(key).unwrap_or_default();
        let found = Diagnostic::error(Code::OutOfRange, span, format!("`{key}` has too many"));
        root.cx.report(found.help(format!("allowed: up to {allowed}")));
    }
}

fn member_name<'a>(section: &Section<'a>, example: &str, names: &mut Names<'a>) -> Option<At<&'a str>> {
    let named = name(section, example)?;
    if named.value == ALL {
        let message = "`all` stands for all handlers and cannot be a name";
        section.cx.report(Diagnostic::error(Code::BadValue, named.span, message));
        return None;
    }
    // Handlers and groups are members alike, so they share their names.
    names.add(section.cx, "the name", &named).then_some(named)
}

fn handler(section: &Section<'_>) -> Handler {
    let port = in_range(section, "port", 1, u64::from(u16::MAX));
    let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(DEFAULT_PORT);
    let weight = in_range(section, "weight", 0, MOST_WEIGHT);
    if !section.has("internal") {
        section.missing("internal", "write internal = \"wp-a.branch7.example\"");
    }
    let address = |key: &str| {
        let text = section.text(key)?;
        checked(section.cx, &text, host_and_port(text.value, port))
    };
    let (internal, internal_port) = address("internal").unwrap_or_default();
    Handler {
        name: String::new(),
        internal,
        port: internal_port,
        external: address("external").map(|(external, _)| external),
        ip: section.text("ip").and_then(|text| {
            checked(section.cx, &text, text.value.parse().map_err(|_| "it is not an address"))
        }),
        weight: weight.and_then(|weight| u32::try_from(weight).ok()).unwrap_or(DEFAULT_WEIGHT),
        state: section.word("state", &State::ALL).map_or_else(State::default, |at| at.value),
        repositories: paths(section),
    }
}

/// A host, and the port behind it or else `port`.
fn host_and_port(text: &str, port: u16) -> Result<(String, u16), Wrong> {
    let text = parse_host_and_port(text)?;
    // An IPv6 address stands in brackets by now.
    match text.rsplit_once(':').filter(|(host, _)| !host.starts_with('[') || host.ends_with(']')) {
        Some((_, port)) => {
            let port = port.parse().unwrap_or(DEFAULT_PORT);
            Ok((text, port))
        }
        None => Ok((format!("{text}:{port}"), port)),
    }
}

fn in_range(section: &Section<'_>, key: &str, least: u64, most: u64) -> Option<u64> {
    let number = section.number(key)?;
    if (least..=most).contains(&number.value) {
        return Some(number.value);
    }
    let found = Diagnostic::error(Code::OutOfRange, number.span, format!("`{key}` is out of range"));
    section.cx.report(found.help(format!("allowed: {least} to {most}")));
    None
}

fn paths(section: &Section<'_>) -> Vec<String> {
    let texts = section.texts("repositories");
    too_many(section, "repositories", texts.len(), REPOSITORIES);
    let mut names = Names::default();
    let mut paths = Vec::new();
    for text in &texts {
        let path = text.value.trim_matches('/');
        if names.add(section.cx, "the repository", &At { value: path, span: text.span.clone() })
            && checked(section.cx, text, check_repository_path(&format!("/{path}/").replace("//", "/")))
                .is_some()
        {
            paths.push(path.to_owned());
        }
    }
    paths
}

fn members(section: &Section<'_>, all: &Handlers) -> Vec<Member> {
    const HELP: &str = "write members = [\"wp-a\", \"wp-b\"], handlers and groups";
    if !section.has("members") {
        section.missing("members", HELP);
    } else if section.is_empty_list("members") {
        let span = section.key_span("members").unwrap_or_default();
        section.cx.report(Diagnostic::error(Code::BadValue, span, "a group cannot be empty").help(HELP));
    }
    let mut names = Names::default();
    let mut members = Vec::new();
    for text in section.texts("members") {
        if names.add(section.cx, "the member", &text) {
            members.extend(resolve(section.cx, &text, all));
        }
    }
    members
}

/// The handler or group of that name, or a note that there is none.
pub(super) fn resolve(cx: &Context<'_>, text: &At<&str>, all: &Handlers) -> Option<Member> {
    if let Some(member) = all.named(text.value) {
        return Some(member);
    }
    let shown: String = text.value.chars().take(80).collect();
    let message = format!("there is no handler or group `{}`", shown.escape_debug());
    let found = Diagnostic::error(Code::BadValue, text.span.clone(), message);
    let folded = |name: &&str| name.eq_ignore_ascii_case(text.value);
    let names = || {
        all.handlers().iter().map(|it| it.name.as_str()).chain(all.groups().iter().map(|it| it.name.as_str()))
    };
    cx.report(match names().find(folded).or_else(|| near(text.value, names())) {
        Some(meant) => found.help(format!("did you mean \"{meant}\"?")),
        None if text.value == ALL => found.help("`all` stands alone: handlers = \"all\""),
        None if check_name(text.value).is_err() => found,
        None => found.help("write it as [[handler]] or [[group]]"),
    });
    None
}

fn near<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let some: Vec<&str> = names.take(1_000).collect();
    crate::base::report::nearest::nearest(word, &some)
}

/// Notes groups that are within themselves, or too deep; tells whether there are none.
fn check_loops(sections: &[Section<'_>], groups: &[Group], members: &[Vec<Member>]) -> bool {
    // How deep each group is, by what its groups are; those that never get a depth are in a loop or lead into one.
    let mut depths: Vec<Option<usize>> = vec![None; members.len()];
    loop {
        let mut changed = false;
        for (group, members) in members.iter().enumerate() {
            if depths.get(group).copied().flatten().is_some() {
                continue;
            }
            let mut within = members.iter().filter_map(|member| match member {
                Member::Group(within) => Some(depths.get(*within).copied().flatten()),
                Member::Handler(_) => None,
            });
            let depth = within.try_fold(0_usize, |most, depth| Some(most.max(depth? + 1)));
            if let (Some(slot), Some(_)) = (depths.get_mut(group), depth) {
                *slot = depth;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    let mut right = true;
    for ((section, depth), group) in sections.iter().zip(&depths).zip(0..) {
        let span = || section.key_span("members").unwrap_or_else(|| section.span.clone());
        if depth.is_none() {
            right = false;
            if let Some(path) = loop_through(group, groups, members) {
                let message = format!("groups are within each other: {path}");
                section.cx.report(Diagnostic::error(Code::Conflict, span(), message));
            }
        } else if depth.is_some_and(|depth| depth >= MOST_DEPTH) {
            right = false;
            let message = format!("groups are more than {MOST_DEPTH} deep within each other");
            section.cx.report(Diagnostic::error(Code::OutOfRange, span(), message));
        }
    }
    right
}

/// The shortest way from a group back to itself; none where it only leads into a loop of others.
fn loop_through(group: usize, groups: &[Group], members: &[Vec<Member>]) -> Option<String> {
    let mut from: HashMap<usize, usize> = HashMap::new();
    let mut next = std::collections::VecDeque::from([group]);
    while let Some(at) = next.pop_front() {
        for member in members.get(at)? {
            let Member::Group(to) = *member else { continue };
            if to == group {
                let mut way = vec![group, at];
                while let Some(before) = way.last().and_then(|last| from.get(last)) {
                    way.push(*before);
                }
                if way.last() != Some(&group) {
                    way.push(group);
                }
                way.dedup();
                let name = |number: &usize| groups.get(*number).map_or("", |group| group.name.as_str());
                let names: Vec<&str> = way.iter().rev().map(name).collect();
                return Some(match names.as_slice() {
                    [only] => format!("{only} → {only}"),
                    names => names.join(" → "),
                });
            }
            if to != group && !from.contains_key(&to) {
                from.insert(to, at);
                next.push_back(to);
            }
        }
    }
    None
}

fn warn_of_disabled(sections: &[Section<'_>], all: &Handlers) {
    for (number, section) in sections.iter().enumerate() {
        let behind = all.behind(Member::Group(number));
        if !behind.is_empty() && behind.iter().all(|handler| handler.state == State::Disabled) {
            let span = section.key_span("members").unwrap_or_else(|| section.span.clone());
            let message = "every handler of this group is disabled";
            section.cx.report(Diagnostic::warning(Code::NoEffect, span, message));
        }
    }
}

/// The repositories beside the handlers.
pub(super) fn repositories(root: &Section<'_>) -> Vec<Repository> {
    let mut names = Names::default();
    let mut found = Vec::new();
    for section in root.sections("repository", "[[repository]]", &REPOSITORY) {
        let named = name(&section, "vendor");
        if let Some(named) = &named {
            names.add(section.cx, "the repository", named);
        }
        if !section.has("url") {
            section.missing("url", "write url = \"https://update.vendor.example/Products/\"");
        }
        let fallback = section.flag("fallback").is_some_and(|at| at.value);
        let Some(url) = section.text("url") else { continue };
        if has_user_info(url.value) {
            section.cx.hide(url.span.clone());
        }
        let Some(parsed) = parse_upstream_url(url.value)
            .map_err(|why| {
                section.cx.report(Diagnostic::error(Code::BadValue, url.span, format!("`url`: {why}")));
            })
            .ok()
        else {
            continue;
        };
        let rest = parsed.url.split_once("://").map_or("", |(_, rest)| rest);
        let (server, path) = rest.split_once('/').unwrap_or((rest, ""));
        let usual = if parsed.secure { DEFAULT_PORT } else { 80 };
        let Ok((server, _)) = host_and_port(server, usual) else { continue };
        if let Some(named) = named {
            found.push(Repository {
                name: named.value.to_owned(),
                server,
                secure: parsed.secure,
                path: path.trim_end_matches('/').to_owned(),
                fallback,
            });
        }
    }
    too_many(root, "repository", found.len(), REPOSITORIES);
    found
}
