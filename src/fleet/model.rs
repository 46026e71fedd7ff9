//! What a fleet is made of: handlers, groups of them, repositories beside them, and who may enrol.

use serde::{Deserialize, Serialize};

use super::names::{AgentId, TreePath};
use crate::base::digest::Digest;

/// How a handler is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// In its place in every list.
    #[default]
    Active,
    /// Last in every list: agents leave it.
    Draining,
    /// In no list.
    Disabled,
}

impl State {
    /// All of them with their words.
    pub const ALL: [(&'static str, Self); 3] =
        [("active", Self::Active), ("draining", Self::Draining), ("disabled", Self::Disabled)];

    /// Its word in documents and sitelists.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        }
    }

    /// From its word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == word).map(|(_, state)| *state)
    }
}

/// How the members of a group are ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// As they are listed.
    #[default]
    Priority,
    /// By weight and a hash of the agent's id: the same for an agent every time.
    Balanced,
    /// All equal: agents choose at random.
    Random,
}

impl Order {
    /// Its word in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Priority => "priority",
            Self::Balanced => "balanced",
            Self::Random => "random",
        }
    }
}

/// A handler: one node that serves agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Handler {
    /// Its name; the `[server] node` of its configuration.
    pub name: String,
    /// `HOST:PORT` where agents inside reach it over HTTPS.
    pub internal: String,
    /// `HOST:PORT` where agents outside reach it.
    pub external: Option<String>,
    /// Its address, for agents whose names do not resolve.
    pub ip: Option<std::net::IpAddr>,
    /// Port of `internal`.
    pub port: u16,
    /// Its share where handlers are balanced; 0 is only used when nobody else is there.
    pub weight: u32,
    /// How it is, `states.toml` considered.
    pub state: State,
    /// Paths of repositories that it serves, without slashes around.
    pub repositories: Vec<String>,
}

/// A group of handlers and groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Its name; no handler has the same.
    pub name: String,
    /// How its members are ordered.
    pub order: Order,
    /// Its members as they are listed, by name.
    pub members: Vec<String>,
}

/// A repository that no handler of the fleet serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repository {
    /// Its name.
    pub name: String,
    /// `HOST:PORT`.
    pub server: String,
    /// Whether it speaks HTTPS.
    pub secure: bool,
    /// Path below the server, without slashes around.
    pub path: String,
    /// Whether it is the last resort; else it comes behind the handlers' own repositories.
    pub fallback: bool,
}

/// A way for agents to enrol: a token, and the place in the tree it is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// Its name.
    pub name: String,
    /// Agents that use it are at this place or below.
    pub tree: TreePath,
    /// SHA-256 of each token: an old and a new one while tokens change.
    pub tokens: Vec<Digest>,
}

impl Enrolment {
    /// Where an agent belongs that came with this token and says it is at `claimed`.
    pub fn place(&self, claimed: Option<&TreePath>) -> TreePath {
        claimed.filter(|claimed| claimed.is_within(&self.tree)).unwrap_or(&self.tree).clone()
    }
}

/// What is known of an agent. What the documents say of it wins over this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Who it is.
    pub id: AgentId,
    /// Where it says it is in the tree.
    pub tree: Option<TreePath>,
    /// The tags it says it has.
    pub tags: Vec<String>,
    /// Its addresses.
    pub addresses: Vec<std::net::IpAddr>,
}

impl Facts {
    /// Of an agent of which nothing but its id is known.
    pub const fn of(id: AgentId) -> Self {
        Self { id, tree: None, tags: Vec::new(), addresses: Vec::new() }
    }
}
