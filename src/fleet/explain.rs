//! Why an agent gets what it gets: the rule, the groups, the order and the policies, each with its reason. Data for
//! programs, text for people.

use serde::{Deserialize, Serialize};

use super::model::{Order, State};
use super::names::{AgentId, TreePath};
use super::policy::hex;
use super::sitelist::Selection;
use crate::base::digest::Digest;

/// The whole reasoning about one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The version of this shape; it only grows.
    pub schema: u32,
    /// Who it is about.
    pub agent: AgentId,
    /// Where it is in the tree.
    pub tree: TreePath,
    /// Why it is there.
    pub tree_because: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Why it has these.
    pub tags_because: String,
    /// Its addresses.
    pub addresses: Vec<std::net::IpAddr>,
    /// The assignment rule that decides.
    pub rule: RuleReason,
    /// Rules that come before it, have something in common with the agent, and still do not match; the first ones.
    pub passed_over: Vec<RuleReason>,
    /// How the agent is to choose.
    pub selection: Selection,
    /// The groups it was led through, in order.
    pub groups: Vec<GroupReason>,
    /// The handlers in its sitelist, in order.
    pub handlers: Vec<HandlerReason>,
    /// Handlers that the rule names and the sitelist has not.
    pub left_out: Vec<LeftOut>,
    /// The repositories behind the handlers, the last resort last.
    pub repositories: Vec<String>,
    /// Its policies.
    pub policies: Vec<PolicyReason>,
}

/// A rule, and why it matches or does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleReason {
    /// Its name.
    pub name: String,
    /// `FILE:LINE`; none for the rule that is there without being written.
    pub place: Option<String>,
    /// Why.
    pub because: String,
}

/// A group, and why it is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupReason {
    /// Its name.
    pub name: String,
    /// How its members are ordered.
    pub order: Order,
    /// Why it is looked at: the rule, or the group it is in.
    pub because: String,
}

/// A handler, and why it stands where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlerReason {
    /// Its `Order` in the sitelist; equal ones are chosen from at random.
    pub order: u32,
    /// Its name.
    pub name: String,
    /// Where agents inside reach it.
    pub internal: String,
    /// How it is.
    pub state: State,
    /// The group that brought it in.
    pub group: Option<String>,
    /// Why it stands there.
    pub because: String,
}

/// A handler that is not in the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its name.
    pub name: String,
    /// Why not.
    pub because: String,
}

/// A policy, and who gave it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyReason {
    /// Its category.
    pub category: String,
    /// Its name.
    pub name: String,
    /// SHA-256 of its body.
    #[serde(with = "hex")]
    pub sha256: Digest,
    /// Who gave it: a place in the tree, or a rule.
    pub because: String,
    /// Those it won over.
    pub instead_of: Vec<String>,
}
