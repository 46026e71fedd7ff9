//! Who has which policies: what the tree says, inherited, broken and locked; over it what rules say, by priority.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::criteria::Subject;
use super::names::TreePath;
use super::policy::{Manifest, ManifestEntry, Policy};
use super::rules::Rules;
use crate::base::digest::Digest;

/// All policies and who has them.
#[derive(Clone, Debug, Default)]
pub(super) struct Policies {
    /// By category and name.
    pub(super) all: Vec<Policy>,
    pub(super) by_digest: HashMap<Digest, usize>,
    /// Categories in which an agent may have several.
    pub(super) multi: BTreeSet<String>,
    pub(super) tree: HashMap<TreePath, Assigned>,
    /// What each rule gives, strongest first.
    pub(super) rules: Rules<Vec<usize>>,
}

/// What one place in the tree says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Assigned {
    pub(super) line: usize,
    /// Policies by their place in the list.
    pub(super) policies: Vec<usize>,
    /// What is not inherited from above.
    pub(super) breaks: Categories,
    /// What places below cannot change.
    pub(super) locks: Categories,
}

/// Some categories, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Categories {
    All,
    These(BTreeSet<String>),
}

impl Default for Categories {
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

impl Categories {
    pub(super) fn has(&self, category: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(some) => some.contains(category),
        }
    }
}

/// Who gave a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Giver<'a> {
    Tree(&'a str),
    Rule(&'a str),
}

/// A policy of an agent, who gave it, and what it won over.
#[derive(Clone, Debug)]
pub(super) struct Given<'a> {
    pub(super) policy: usize,
    pub(super) by: Giver<'a>,
    pub(super) instead_of: Vec<(usize, Giver<'a>)>,
}

impl Policies {
    pub(super) fn manifest(&self, agent: &Subject<'_>) -> Manifest {
        let given = self.given(agent).into_iter().filter_map(|given| self.all.get(given.policy));
        let entries = given.map(|policy| ManifestEntry {
            category: policy.category.clone(),
            name: policy.name.clone(),
            sha256: policy.sha256,
        });
        Manifest { entries: entries.collect() }
    }

    /// The policies of an agent, by category and name.
    pub(super) fn given<'a>(&'a self, agent: &'a Subject<'_>) -> Vec<Given<'a>> {
        let mut slots: BTreeMap<&str, Vec<Given<'a>>> = BTreeMap::new();
        for (policy, place) in self.in_tree(agent) {
            let given = Given { policy, by: Giver::Tree(place), instead_of: Vec::new() };
            slots.entry(self.category(policy)).or_default().push(given);
        }
        let mut decided = BTreeSet::new();
        for rule in self.rules.matching(agent) {
            for &policy in &rule.then {
                let category = self.category(policy);
                let slot = slots.entry(category).or_default();
                let by = Giver::Rule(&rule.name);
                if self.multi.contains(category) {
                    if slot.iter().all(|given| given.policy != policy) {
                        slot.push(Given { policy, by, instead_of: Vec::new() });
                    }
                } else if decided.insert(category) {
                    // The strongest rule wins over the tree.
                    let instead_of = slot.drain(..).map(|given| (given.policy, given.by)).collect();
                    slot.push(Given { policy, by, instead_of });
                } else if let Some(given) = slot.first_mut() {
                    given.instead_of.push((policy, by));
                }
            }
        }
        let mut all: Vec<Given<'a>> = slots.into_values().flatten().collect();
        // Policies are sorted by category and name, so their places are, too.
        all.sort_by_key(|given| given.policy);
        all
    }

    /// What the tree gives, each with the place that says so.
    fn in_tree<'a>(&'a self, agent: &'a Subject<'_>) -> Vec<(usize, &'a str)> {
        let mut path: Vec<&str> = agent.tree.ancestors().collect();
        path.reverse();
        let mut slots: BTreeMap<&str, Vec<(usize, &str)>> = BTreeMap::new();
        let mut locked: Vec<&Categories> = Vec::new();
        for place in path {
            let Some(assigned) = self.tree.get(place) else { continue };
            let free = |category: &str| !locked.iter().any(|lock| lock.has(category));
            slots.retain(|category, _| !(assigned.breaks.has(category) && free(category)));
            let mut replaced = BTreeSet::new();
            for &policy in &assigned.policies {
                let category = self.category(policy);
                if !free(category) {
                    continue;
                }
                let slot = slots.entry(category).or_default();
                if !self.multi.contains(category) && replaced.insert(category) {
                    slot.clear();
                }
                if slot.iter().all(|(there, _)| *there != policy) {
                    slot.push((policy, place));
                }
            }
            locked.push(&assigned.locks);
        }
        slots.into_values().flatten().collect()
    }

    pub(super) fn category(&self, policy: usize) -> &str {
        self.all.get(policy).map_or("", |policy| &policy.category)
    }

    pub(super) fn find(&self, category: &str, name: &str) -> Option<usize> {
        self.all.binary_search_by(|it| (it.category.as_str(), it.name.as_str()).cmp(&(category, name))).ok()
    }
}
