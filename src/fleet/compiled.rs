//! The compiled fleet, and what can be asked of it.

use std::collections::{BTreeMap, HashMap};

use super::explain::{Explanation, RuleReason};
use super::model::{Enrolment, Facts, Group, Handler, State};
use super::names::{AgentId, TreePath};
use super::policy::{Manifest, Policy};
use super::sitelist::{Selection, Sitelist};
use crate::base::digest::Digest;

/// Handlers, groups, rules, tree and policies, known to fit together. Immutable.
#[derive(Debug, Default)]
pub struct Fleet {
    handlers: Vec<Handler>,
    groups: Vec<Group>,
    agents: HashMap<AgentId, Known>,
    policies: Vec<Policy>,
    enrolments: Vec<Enrolment>,
}

/// What the documents say of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Where it is in the tree.
    pub tree: TreePath,
    /// Its tags, where the documents list them.
    pub tags: Option<Vec<String>>,
}

impl Fleet {
    /// The sitelist of an agent; `version` becomes its `GlobalVersion`. Under a millisecond.
    pub fn sitelist(&self, _facts: &Facts, _version: u64) -> Sitelist {
        Sitelist::default()
    }

    /// The policies of an agent. Under a millisecond.
    pub fn policies(&self, _facts: &Facts) -> Manifest {
        Manifest::default()
    }

    /// Why the agent gets these.
    pub fn explain(&self, facts: &Facts) -> Explanation {
        Explanation {
            agent: facts.id.clone(),
            tree: facts.tree.clone().unwrap_or_else(TreePath::root),
            tree_because: String::new(),
            tags: facts.tags.clone(),
            tags_because: String::new(),
            addresses: facts.addresses.clone(),
            rule: RuleReason { name: String::new(), place: None, because: String::new() },
            passed_over: Vec::new(),
            selection: Selection::default(),
            groups: Vec::new(),
            handlers: Vec::new(),
            left_out: Vec::new(),
            repositories: Vec::new(),
            policies: Vec::new(),
        }
    }

    /// The policy whose body has this digest. Where two have the same body, either.
    pub fn policy(&self, sha256: &Digest) -> Option<&Policy> {
        self.policies.iter().find(|policy| policy.sha256 == *sha256)
    }

    /// The policy of this category and name.
    pub fn policy_named(&self, category: &str, name: &str) -> Option<&Policy> {
        self.policies.iter().find(|it| &*it.category == category && &*it.name == name)
    }

    /// All policies, by category and name.
    pub fn all_policies(&self) -> &[Policy] {
        &self.policies
    }

    /// All handlers, in the order of the documents.
    pub fn handlers(&self) -> &[Handler] {
        &self.handlers
    }

    /// The handler of this name.
    pub fn handler(&self, name: &str) -> Option<&Handler> {
        self.handlers.iter().find(|handler| &*handler.name == name)
    }

    /// All groups, in the order of the documents.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The handlers behind a name: the one of that name, or those of a group and of the groups in it, each once.
    /// None where nothing has that name.
    pub fn members(&self, name: &str) -> Option<Vec<&Handler>> {
        self.handler(name).map(|handler| vec![handler])
    }

    /// What the documents say of an agent, where they name it.
    pub fn known(&self, id: &AgentId) -> Option<&Known> {
        self.agents.get(id)
    }

    /// How many agents the documents name.
    pub fn agents(&self) -> usize {
        self.agents.len()
    }

    /// The enrolment that a token belongs to. Takes as long for a wrong token as for a right one.
    pub fn enrolment(&self, token: &str) -> Option<&Enrolment> {
        let digest = Digest::of(token.as_bytes());
        self.enrolments.iter().find(|enrolment| enrolment.tokens.contains(&digest))
    }

    /// `states.toml` with a handler's state changed; none where there is no such handler. States of handlers that are
    /// gone are left out.
    pub fn with_state(&self, handler: &str, state: State) -> Option<String> {
        self.handler(handler)?;
        let _ = BTreeMap::from([(handler, state)]);
        None
    }
}
