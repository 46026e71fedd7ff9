//! Rules in their order, found without looking at each: every rule is filed under the one of its keys that says most,
//! and an agent looks where it could be filed.

use std::collections::{BTreeSet, HashMap};

use super::address::Prefix;
use super::criteria::{Criteria, Subject};
use super::names::{AgentId, TreePath};

/// A rule: whom it is for, and what then.
#[derive(Clone, Debug)]
pub(super) struct Rule<T> {
    pub(super) name: String,
    /// The line of its document.
    pub(super) line: usize,
    pub(super) criteria: Criteria,
    pub(super) then: T,
}

/// Rules, strongest first.
#[derive(Clone, Debug)]
pub(super) struct Rules<T> {
    list: Vec<Rule<T>>,
    index: Index,
}

impl<T> Default for Rules<T> {
    fn default() -> Self {
        Self { list: Vec::new(), index: Index::default() }
    }
}

/// The numbers of rules by what they are filed under.
#[derive(Clone, Debug, Default)]
struct Index {
    agents: HashMap<AgentId, Vec<usize>>,
    prefixes: HashMap<Prefix, Vec<usize>>,
    /// How many bits are free in the subnets of `prefixes`, IPv4 and IPv6 apart.
    free: [BTreeSet<u32>; 2],
    tags: HashMap<String, Vec<usize>>,
    places: HashMap<TreePath, Vec<usize>>,
    /// Filed nowhere: for everybody, or for those without a tag.
    always: Vec<usize>,
}

impl<T> Rules<T> {
    pub(super) fn new(list: Vec<Rule<T>>) -> Self {
        let mut index = Index::default();
        for (number, rule) in list.iter().enumerate() {
            index.file(number, &rule.criteria);
        }
        Self { list, index }
    }

    pub(super) fn list(&self) -> &[Rule<T>] {
        &self.list
    }

    /// How many rules are filed for everybody.
    pub(super) const fn for_everybody(&self) -> usize {
        self.index.always.len()
    }

    /// The first rule that is for this agent, and its number.
    pub(super) fn first(&self, agent: &Subject<'_>) -> Option<(usize, &Rule<T>)> {
        self.candidates(agent).find(|(_, rule)| rule.criteria.miss(agent).is_none())
    }

    /// All rules that are for this agent, strongest first.
    pub(super) fn matching(&self, agent: &Subject<'_>) -> impl Iterator<Item = &Rule<T>> {
        self.candidates(agent).filter(|(_, rule)| rule.criteria.miss(agent).is_none()).map(|(_, rule)| rule)
    }

    /// The rules that have something in common with this agent, strongest first; among them all that are for it.
    pub(super) fn candidates(&self, agent: &Subject<'_>) -> impl Iterator<Item = (usize, &Rule<T>)> {
        let numbers = self.index.look_up(agent);
        numbers.into_iter().filter_map(|number| self.list.get(number).map(|rule| (number, rule)))
    }
}

impl Index {
    fn file(&mut self, number: usize, criteria: &Criteria) {
        let places = || criteria.tree.iter().chain(&criteria.folder);
        if !criteria.agents.is_empty() {
            for agent in &criteria.agents {
                self.agents.entry(agent.clone()).or_default().push(number);
            }
        } else if !criteria.addresses.is_empty() {
            for prefix in criteria.addresses.iter().flat_map(|range| range.prefixes()) {
                let [four, six] = &mut self.free;
                if prefix.start.is_six() { six } else { four }.insert(prefix.free);
                self.prefixes.entry(prefix).or_default().push(number);
            }
        } else if !criteria.tags.is_empty() {
            for tag in &criteria.tags {
                self.tags.entry(tag.clone()).or_default().push(number);
            }
        } else if let Some(tag) = criteria.all_tags.first() {
            self.tags.entry(tag.clone()).or_default().push(number);
        } else if places().next().is_some() {
            for place in places() {
                self.places.entry(place.clone()).or_default().push(number);
            }
        } else {
            self.always.push(number);
        }
    }

    fn look_up(&self, agent: &Subject<'_>) -> Vec<usize> {
        let mut found = self.always.clone();
        let mut add = |more: Option<&Vec<usize>>| found.extend(more.into_iter().flatten());
        add(self.agents.get(agent.id));
        for address in &agent.addresses {
            let [four, six] = &self.free;
            for free in if address.is_six() { six } else { four } {
                add(self.prefixes.get(&address.prefix(*free)));
            }
        }
        for tag in &agent.tags {
            add(self.tags.get(*tag));
        }
        for place in agent.tree.ancestors() {
            add(self.places.get(place));
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}
