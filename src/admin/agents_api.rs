//! What is said over the admin API about agents, as types: the node and the command line share them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::api::SCHEMA;

const fn schema() -> u32 {
    SCHEMA
}

/// Which agents to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentsAsk {
    /// Such as `state=grey,tag=kiosk`. Where it says nothing about states, only agents that are live are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Agents of one answer at most; 1,000 where nothing is said, 10,000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Go on after this id, the `next` of the answer before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// One agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRow {
    /// The shape.
    #[serde(default = "schema")]
    pub schema: u32,
    /// Its id.
    pub id: String,
    /// `connected`, `stalled`, `reporting`, `late`, `grey`, `offline`, `shutdown`, `moved` or `passive`.
    pub state: String,
    /// Why.
    pub cause: String,
    /// Since when, in seconds since 1970.
    pub since: u64,
    /// The last sign of life.
    pub heard: u64,
    /// The last check-in; 0 before the first.
    pub checked_in: u64,
    /// Check-ins that were acknowledged.
    pub check_ins: u64,
    /// `stream`, `tunnel` or `checkin`.
    pub contact: String,
    /// The node it talks to.
    pub handler: String,
    /// Whether a second machine uses its identity.
    pub cloned: bool,
    /// What it should have and has not: `sitelist`, `policies`, `content`.
    pub behind: Vec<String>,
    /// The catalogues in `content` of which this node shows a newer version, and that version.
    #[serde(default)]
    pub newer: BTreeMap<String, String>,
    /// Its host name.
    pub host: String,
    /// Its operating system.
    pub os: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Its place in the system tree.
    pub tree: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// The version of the agent.
    pub agent_version: String,
    /// Installed content by `repository/catalogue`.
    pub content: BTreeMap<String, String>,
    /// The sitelist it uses.
    pub sitelist: Option<String>,
    /// The policies it has, by `category/name`.
    pub policies: BTreeMap<String, String>,
}

/// Some agents, in the order of their ids.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Agents {
    /// The shape.
    #[serde(default = "schema")]
    pub schema: u32,
    /// The agents.
    pub agents: Vec<AgentRow>,
    /// Where to go on, if there are more.
    pub next: Option<String>,
}

/// Whom to wake: by id, by a selector, or by a group of handlers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WakeAsk {
    /// These.
    #[serde(default)]
    pub agents: Vec<String>,
    /// All that it selects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// All that belong to this group of handlers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Seconds over which they are woken; 0 is all at once.
    #[serde(default)]
    pub over: u64,
    /// How often an agent is told; 3 where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Seconds between two attempts; 30 where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spacing: Option<u64>,
}

/// How far a wake-up has come with one agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WokenRow {
    /// The agent.
    pub agent: String,
    /// `waiting`, `told`, `pending`, `answered` or `aborted`.
    pub woken: String,
    /// How often it was told.
    pub attempts: u32,
    /// When it checked in, in seconds since 1970.
    pub answered: Option<u64>,
}

/// A wake-up and what came of it so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WakeTold {
    /// The shape.
    #[serde(default = "schema")]
    pub schema: u32,
    /// Its number.
    pub id: u64,
    /// When it was ordered, in seconds since 1970.
    pub started: u64,
    /// Whether it was called off.
    pub aborted: bool,
    /// Agents that were meant.
    pub total: u64,
    /// Agents that have checked in since.
    pub answered: u64,
    /// Each of them.
    pub agents: Vec<WokenRow>,
}

/// Whom to forget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForgetAsk {
    /// These; of an id that is not known nothing happens.
    pub agents: Vec<String>,
}

/// How many were reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentsReached {
    /// The shape.
    #[serde(default = "schema")]
    pub schema: u32,
    /// Whether anything is different now.
    pub changed: bool,
    /// How many agents.
    pub agents: u64,
}
