//! The compiled fleet, and what can be asked of it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use super::address::Address;
use super::criteria::Subject;
use super::documents::FLEET;
use super::explain::Explanation;
use super::fleet_file::FleetFile;
use super::model::{Enrolment, Facts, Group, Handler, Repository, State};
use super::names::{AgentId, TreePath};
use super::order::{Handlers, Ordered, Targets};
use super::policies::Policies;
use super::policy::{Manifest, Policy};
use super::rules::Rules;
use super::sitelist::{Selection, Sitelist};
use super::{reasons, write};
use crate::base::digest::Digest;
use crate::base::limits::FACTS;

/// Handlers, groups, rules, tree and policies, known to fit together. Immutable.
#[derive(Debug)]
pub struct Fleet {
    pub(super) handlers: Handlers,
    pub(super) repositories: Vec<Repository>,
    pub(super) selection: Selection,
    pub(super) assignments: Rules<Assignment>,
    pub(super) sorting: Rules<TreePath>,
    pub(super) policies: Policies,
    agents: HashMap<AgentId, Known>,
    enrolments: Vec<Enrolment>,
    enrolled: HashMap<Digest, usize>,
}

/// What an assignment rule gives.
#[derive(Clone, Debug)]
pub(super) struct Assignment {
    pub(super) targets: Targets,
    pub(super) selection: Option<Selection>,
}

/// What the documents say of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Where it is in the tree.
    pub tree: TreePath,
    /// Its tags, where the documents list them.
    pub tags: Option<Vec<String>>,
}

/// Who says where an agent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Locator {
    /// The tree lists it.
    Listed,
    /// It meets the criteria of that place, in its rule of sorting.
    Sorted(usize),
    /// It says so itself.
    Itself,
    /// Nobody: it is at the top.
    Nobody,
}

/// The rule that decides about an agent's handlers.
pub(super) struct Decision<'a> {
    /// Name and place; none where no rule is written for it.
    pub(super) rule: Option<usize>,
    pub(super) targets: &'a Targets,
    pub(super) selection: Selection,
}

impl Fleet {
    pub(super) fn new(file: FleetFile, policies: Policies) -> Self {
        let tokens = file.enrolments.iter().enumerate();
        let enrolled =
            tokens.flat_map(|(number, it)| it.tokens.iter().map(move |token| (*token, number))).collect();
        Self {
            handlers: file.handlers,
            repositories: file.repositories,
            selection: file.selection,
            assignments: Rules::new(file.assignments),
            sorting: Rules::new(file.sorting),
            policies,
            agents: file.agents,
            enrolments: file.enrolments,
            enrolled,
        }
    }

    /// The sitelist of an agent; `version` becomes its `GlobalVersion`. Well under a millisecond.
    pub fn sitelist(&self, facts: &Facts, version: u64) -> Sitelist {
        let (agent, _) = self.subject(facts);
        let decision = self.decide(&agent);
        let ordered = self.order(&decision, &facts.id);
        write::sitelist(self, &ordered, decision.selection, version)
    }

    /// The policies of an agent. Well under a millisecond.
    pub fn policies(&self, facts: &Facts) -> Manifest {
        self.policies.manifest(&self.subject(facts).0)
    }

    /// Why the agent gets these.
    pub fn explain(&self, facts: &Facts) -> Explanation {
        reasons::explain(self, facts)
    }

    /// The policy whose body has this digest. Where several have the same body, one of them.
    pub fn policy(&self, sha256: &Digest) -> Option<&Policy> {
        self.policies.all.get(*self.policies.by_digest.get(sha256)?)
    }

    /// The policy of this category and name.
    pub fn policy_named(&self, category: &str, name: &str) -> Option<&Policy> {
        self.policies.all.get(self.policies.find(category, name)?)
    }

    /// All policies, by category and name.
    pub fn all_policies(&self) -> &[Policy] {
        &self.policies.all
    }

    /// All handlers, in the order of the documents.
    pub fn handlers(&self) -> &[Handler] {
        self.handlers.handlers()
    }

    /// The handler of this name.
    pub fn handler(&self, name: &str) -> Option<&Handler> {
        match self.handlers.named(name)? {
            super::order::Member::Handler(number) => self.handlers.handler(number),
            super::order::Member::Group(_) => None,
        }
    }

    /// All groups, in the order of the documents.
    pub fn groups(&self) -> &[Group] {
        self.handlers.groups()
    }

    /// The handlers behind a name: the one of that name, or those of a group and of the groups in it, each once.
    /// None where nothing has that name.
    pub fn members(&self, name: &str) -> Option<Vec<&Handler>> {
        Some(self.handlers.behind(self.handlers.named(name)?))
    }

    /// What the documents say of an agent, where they name it.
    pub fn known(&self, id: &AgentId) -> Option<&Known> {
        self.agents.get(id)
    }

    /// How many agents the documents name.
    pub fn agents(&self) -> usize {
        self.agents.len()
    }

    /// The ways to enrol, in the order of the documents.
    pub fn enrolments(&self) -> &[Enrolment] {
        &self.enrolments
    }

    /// The enrolment that a token belongs to. It is looked up by its digest: how long it takes says nothing about it.
    pub fn enrolment(&self, token: &str) -> Option<&Enrolment> {
        self.enrolments.get(*self.enrolled.get(&Digest::of(token.as_bytes()))?)
    }

    /// Whether an agent may come with the token of this enrolment: the documents do not say that it is elsewhere.
    pub fn admits(&self, enrolment: &Enrolment, id: &AgentId) -> bool {
        self.agents.get(id).is_none_or(|known| known.tree.is_within(&enrolment.tree))
    }

    /// `states.toml` after a handler's state changed; none where there is no such handler. `now` is the file as it is:
    /// what it says of handlers that are gone is left out.
    pub fn with_state(&self, now: &[u8], handler: &str, state: State) -> Option<String> {
        self.handler(handler)?;
        let mut states: BTreeMap<String, State> = super::compile::states(now)
            .into_iter()
            .filter(|(name, _)| self.handler(name).is_some())
            .collect();
        states.insert(handler.to_owned(), state);
        Some(write::states(&states))
    }

    /// An agent as rules see it, and who says where it is.
    pub(super) fn subject<'a>(&'a self, facts: &'a Facts) -> (Subject<'a>, Locator) {
        let known = self.agents.get(&facts.id);
        let tags = known.and_then(|known| known.tags.as_deref());
        let tags = tags.unwrap_or_else(|| facts.tags.get(..FACTS).unwrap_or(&facts.tags));
        let mut tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        tags.sort_unstable();
        tags.dedup();
        let addresses = facts.addresses.iter().take(FACTS).map(|address| Address::from(*address)).collect();
        let itself = facts.tree.as_ref().map_or_else(|| Cow::Owned(TreePath::root()), Cow::Borrowed);
        let mut agent = Subject { id: &facts.id, tree: itself, tags, addresses };
        let locator = if let Some(known) = known {
            agent.tree = Cow::Borrowed(&known.tree);
            Locator::Listed
        } else if let Some((number, rule)) = self.sorting.first(&agent) {
            agent.tree = Cow::Borrowed(&rule.then);
            Locator::Sorted(number)
        } else if facts.tree.is_some() {
            Locator::Itself
        } else {
            Locator::Nobody
        };
        (agent, locator)
    }

    pub(super) fn decide(&self, agent: &Subject<'_>) -> Decision<'_> {
        match self.assignments.first(agent) {
            Some((number, rule)) => Decision {
                rule: Some(number),
                targets: &rule.then.targets,
                selection: rule.then.selection.unwrap_or(self.selection),
            },
            None => Decision { rule: None, targets: &Targets::All, selection: self.selection },
        }
    }

    pub(super) fn order(&self, decision: &Decision<'_>, id: &AgentId) -> Ordered {
        self.handlers.order(decision.targets, id)
    }

    /// `FILE:LINE` of an assignment rule.
    pub(super) fn place(line: usize) -> String {
        format!("{FLEET}:{line}")
    }
}
