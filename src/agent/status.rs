//! How an agent is, for people and programs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::core::Agent;
use super::select::{Class, Line};

/// One handler of the evaluated list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    /// Its order, or the number of its class of address.
    pub priority: u32,
    /// Hops to it, where known.
    pub hops: Option<u8>,
    /// How long it took to answer, in milliseconds.
    pub latency_ms: Option<f64>,
    /// `host:port`.
    pub address: String,
    /// Its name in the list.
    pub handler: String,
    /// `internal`, `external` or `installed`.
    pub class: String,
    /// Why it stands where it does.
    pub reason: String,
}

impl From<&Line> for Listed {
    fn from(line: &Line) -> Self {
        let class = match line.candidate.class {
            Class::Internal => "internal",
            Class::External => "external",
            Class::Installed => "installed",
        };
        Self {
            priority: line.priority,
            hops: line.hops(),
            latency_ms: line.latency().map(|latency| (latency.as_secs_f64() * 1e5).round() / 100.0),
            address: line.candidate.address.clone(),
            handler: line.candidate.handler.clone(),
            class: class.to_owned(),
            reason: line.reason.to_string(),
        }
    }
}

/// How an agent is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// How this is written.
    pub schema: u32,
    /// The agent.
    pub id: String,
    /// `Connected` or `No Connection`.
    pub state: String,
    /// The handler in use.
    pub handler: Option<String>,
    /// `ordered` or `nearest`.
    pub selection: String,
    /// `stream`, `tunnel` or `checkin`.
    pub contact: String,
    /// Whether stream or tunnel are open.
    pub channel_open: bool,
    /// When a check-in was acknowledged last, in milliseconds since 1970 UTC.
    pub last_checkin_ms: Option<u64>,
    /// Check-ins that were acknowledged since it started.
    #[serde(default)]
    pub check_ins: u64,
    /// Check-ins that were sent since it started: of those that were not acknowledged a handler may know all the same.
    #[serde(default)]
    pub check_ins_sent: u64,
    /// Seconds until the next check-in.
    pub next_checkin_s: Option<u64>,
    /// What went wrong last, until something goes right.
    pub last_error: Option<String>,
    /// The ETag of the sitelist.
    pub sitelist: Option<String>,
    /// The policies that are in place, by their digests.
    pub policies: BTreeMap<String, String>,
    /// What is installed.
    pub content: BTreeMap<String, String>,
    /// Whether updates are being fetched.
    pub updating: bool,
    /// The evaluated list.
    pub list: Vec<Listed>,
}

impl Status {
    pub(super) fn of(agent: &Agent) -> Self {
        let current = agent.fallback.current();
        let policies = agent.state.policies().iter();
        Self {
            schema: 1,
            id: agent.options.id.clone(),
            state: if current.is_some() { "Connected" } else { "No Connection" }.to_owned(),
            handler: current.map(|it| it.address.clone()),
            selection: agent.fallback.method().as_str().to_owned(),
            contact: agent.options.contact.as_str().to_owned(),
            channel_open: false,
            last_checkin_ms: agent.last_checkin.map(|at| at.0),
            check_ins: agent.acknowledged,
            check_ins_sent: agent.sent,
            next_checkin_s: None,
            last_error: agent.last_error.clone(),
            sitelist: agent.state.etag().map(str::to_owned),
            policies: policies.map(|(name, digest)| (name.clone(), digest.to_string())).collect(),
            content: agent.content.clone(),
            updating: agent.updater.is_none(),
            list: agent.lines().iter().map(Listed::from).collect(),
        }
    }

    pub(super) fn with_loop(mut self, channel_open: bool, next_checkin: Duration) -> Self {
        self.channel_open = channel_open;
        self.next_checkin_s = Some(next_checkin.as_secs());
        self
    }
}
