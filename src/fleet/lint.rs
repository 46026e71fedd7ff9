//! Rules that do nothing, or less than they seem to: an earlier rule takes all of their agents, or some of them.

use std::borrow::Cow;
use std::collections::HashMap;

use super::address::Range;
use super::compiled::Assignment;
use super::criteria::{Criteria, Subject};
use super::names::{AgentId, TreePath};
use super::policies::Policies;
use super::read::Lines;
use super::rules::{Rule, Rules};
use crate::base::report::diagnostic::{Code, Diagnostic};
use crate::base::report::reader::Context;

/// Pairs of rules that are compared. Rules that have nothing in common are none, so it is reached only where
/// thousands of rules are about the same place or tag.
const PAIRS: usize = 1_000_000;

/// Notes assignment rules that are never reached, and parts of them.
pub(super) fn assignments(cx: &Context<'_>, list: &[Rule<Assignment>], lines: &Lines) {
    let rules = Rules::new(list.to_vec());
    let Ok(nobody) = &AgentId::parse("-") else { return };
    let mut pairs = PAIRS;
    for (number, rule) in list.iter().enumerate() {
        let tell = |message: String, help: &str| {
            let at = lines.span(rule.line);
            cx.report(Diagnostic::warning(Code::NoEffect, at, message).help(help));
        };
        let earlier: Vec<&Rule<Assignment>> = rules
            .candidates(&likely(&rule.criteria, nobody))
            .take_while(|(earlier, _)| *earlier < number)
            .map(|(_, rule)| rule)
            .take(pairs)
            .collect();
        pairs -= earlier.len();
        if let Some(first) = earlier.iter().find(|first| first.criteria.covers(&rule.criteria)) {
            let message = format!("rule `{}` is never reached", rule.name);
            tell(message, &format!("rule `{}` on line {} takes all of its agents", first.name, first.line));
            continue;
        }
        for (what, by) in partly(&rule.criteria, &rules, number, nobody, &mut pairs) {
            let message = format!("rule `{}` is never reached for {what}", rule.name);
            tell(message, &format!("rule `{}` on line {} comes first and has it", by.name, by.line));
        }
    }
    crossing(cx, list, lines);
}

/// Notes policy rules of which nothing is ever used.
pub(super) fn policy_rules(cx: &Context<'_>, policies: &Policies, lines: &Lines) {
    let Ok(nobody) = AgentId::parse("-") else { return };
    let list = policies.rules.list();
    let mut pairs = PAIRS;
    for (number, rule) in list.iter().enumerate() {
        // Categories with several slots take from every rule.
        let single = |policy: &&usize| !policies.multi.contains(policies.category(**policy));
        let wanted: Vec<&str> =
            rule.then.iter().filter(single).map(|policy| policies.category(*policy)).collect();
        if wanted.len() < rule.then.len() {
            continue;
        }
        let gives = |first: &Rule<Vec<usize>>| {
            wanted.iter().all(|category| first.then.iter().any(|it| policies.category(*it) == *category))
        };
        let likely = likely(&rule.criteria, &nobody);
        let mut earlier = policies
            .rules
            .candidates(&likely)
            .take_while(|(earlier, _)| *earlier < number)
            .take(pairs)
            .inspect(|_| pairs = pairs.saturating_sub(1));
        if let Some((_, first)) =
            earlier.find(|(_, first)| gives(first) && first.criteria.covers(&rule.criteria))
        {
            let message = format!("rule `{}` never decides anything", rule.name);
            let help =
                format!("rule `{}` on line {} is stronger for all of its agents", first.name, first.line);
            let at = lines.span(rule.line);
            cx.report(Diagnostic::warning(Code::NoEffect, at, message).help(help));
        }
    }
}

/// An agent for whom a rule would be looked for where all rules are filed that cover this one.
fn likely<'a>(criteria: &'a Criteria, nobody: &'a AgentId) -> Subject<'a> {
    let place = criteria.tree.first().or(criteria.folder.first());
    let mut tags: Vec<&str> = criteria.tags.iter().chain(&criteria.all_tags).map(String::as_str).collect();
    tags.sort_unstable();
    Subject {
        id: criteria.agents.first().unwrap_or(nobody),
        tree: place.map_or_else(|| Cow::Owned(TreePath::root()), Cow::Borrowed),
        tags,
        addresses: criteria.addresses.first().map(|range| range.first).into_iter().collect(),
    }
}

/// The values of a rule with one key that an earlier rule with that key alone has already.
fn partly<'r>(
    criteria: &Criteria,
    rules: &'r Rules<Assignment>,
    number: usize,
    nobody: &AgentId,
    pairs: &mut usize,
) -> Vec<(String, &'r Rule<Assignment>)> {
    let mut found = Vec::new();
    for (what, alone) in single_values(criteria) {
        let likely = likely(&alone, nobody);
        let earlier = rules.candidates(&likely).take_while(|(earlier, _)| *earlier < number).take(*pairs);
        let mut looked = 0;
        let by = earlier
            .inspect(|_| looked += 1)
            .find(|(_, first)| first.criteria.keys() == 1 && first.criteria.covers(&alone));
        found.extend(by.map(|(_, first)| (what, first)));
        // What a look-up finds for everybody is work as well, whatever is compared then.
        *pairs = pairs.saturating_sub(looked + rules.for_everybody());
        if *pairs == 0 {
            break;
        }
    }
    found
}

/// Each value as criteria of its own, for those who have it whatever else is asked.
fn single_values(criteria: &Criteria) -> Vec<(String, Criteria)> {
    let mut values = Vec::new();
    if criteria.agents.len() + criteria.addresses.len() + criteria.tags.len() + criteria.tree.len() < 2 {
        return values;
    }
    for agent in &criteria.agents {
        values.push((
            format!("agent {agent}"),
            Criteria { agents: vec![agent.clone()], ..Criteria::default() },
        ));
    }
    for range in &criteria.addresses {
        values.push((range.to_string(), Criteria { addresses: vec![*range], ..Criteria::default() }));
    }
    for tag in &criteria.tags {
        values.push((format!("the tag {tag}"), Criteria { tags: vec![tag.clone()], ..Criteria::default() }));
    }
    for place in &criteria.tree {
        values.push((place.to_string(), Criteria { tree: vec![place.clone()], ..Criteria::default() }));
    }
    values
}

/// Notes ranges of two rules that cross: neither is within the other. Subnets never do.
fn crossing(cx: &Context<'_>, list: &[Rule<Assignment>], lines: &Lines) {
    let only = list.iter().enumerate().filter(|(_, rule)| rule.criteria.keys() == 1);
    let mut ranges: Vec<(Range, usize)> = only
        .flat_map(|(number, rule)| rule.criteria.addresses.iter().map(move |range| (*range, number)))
        .collect();
    ranges.sort_unstable();
    // Those that began before and have not ended.
    let mut open: Vec<(Range, usize)> = Vec::new();
    let mut told: HashMap<(usize, usize), ()> = HashMap::new();
    for (range, number) in ranges {
        open.retain(|(before, _)| before.last >= range.first);
        for (before, other) in &open {
            let crosses = before.meets(&range) && !before.covers(&range) && !range.covers(before);
            let (first, later) = (number.min(*other), number.max(*other));
            if !crosses || first == later || told.insert((first, later), ()).is_some() {
                continue;
            }
            if let (Some(first), Some(later)) = (list.get(first), list.get(later)) {
                let message =
                    format!("rules `{}` and `{}` overlap: {before} and {range}", first.name, later.name);
                let help =
                    format!("rule `{}` on line {} comes first for what both have", first.name, first.line);
                let at = lines.span(later.line);
                cx.report(Diagnostic::warning(Code::NoEffect, at, message).help(help));
            }
        }
        if open.len() < 1_000 {
            open.push((range, number));
        }
    }
}
