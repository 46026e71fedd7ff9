//! The metrics of agents.

use std::time::Duration;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::counts::{Count, Labels, Level, Reasons};
use super::histogram::Durations;

/// Who is there, and how they come and go.
#[derive(Clone, Debug)]
pub struct AgentMetrics {
    /// Check-ins, by how they were answered.
    pub checkins: Reasons,
    /// Streams and tunnels that ended, by cause.
    pub disconnects: Reasons,
    /// Whatever agents have sent: check-ins, polls, answers to pings. Connected is not healthy; this is.
    pub responses: Count,
    /// Agents whose last change is not acknowledged by the node above.
    pub unreported: Level,
    agents: Family<Labels, Gauge>,
    behind: Family<Labels, Gauge>,
    detection: Durations,
}

impl Default for AgentMetrics {
    fn default() -> Self {
        Self {
            checkins: Reasons::new("result"),
            disconnects: Reasons::new("cause"),
            responses: Count::default(),
            unreported: Level::default(),
            agents: Family::default(),
            behind: Family::default(),
            detection: Durations::default(),
        }
    }
}

impl AgentMetrics {
    pub(super) fn register(&self, to: &mut Registry) {
        to.register(
            "agents",
            "Agents, by where they stand and how they stay in contact",
            self.agents.clone(),
        );
        to.register(
            "agents_behind",
            "Agents of this node that have not what they should have, by what that is",
            self.behind.clone(),
        );
        to.register("agent_checkins", "Check-ins of agents", self.checkins.family());
        to.register(
            "agent_disconnects",
            "Streams and tunnels of agents that ended",
            self.disconnects.family(),
        );
        to.register_with_unit(
            "agent_disconnect_detection",
            "Time from an agent's last sign of life to the end of its stream or tunnel",
            Unit::Seconds,
            self.detection.clone(),
        );
        let responses = self.responses.0.clone();
        to.register("agent_responses", "Check-ins, polls and answers to pings of agents", responses);
        let unreported = self.unreported.gauge();
        to.register("agents_unreported", "Agents the node above has not heard the last of", unreported);
    }

    /// How many agents stand where, by contact.
    pub fn agents(&self, state: &'static str, contact: &'static str) -> Level {
        Level::of(&self.agents, &vec![("state", state.to_owned()), ("contact", contact.to_owned())])
    }

    /// How many agents are behind with this.
    pub fn behind(&self, what: &'static str) -> Level {
        Level::of(&self.behind, &vec![("what", what.to_owned())])
    }

    /// A stream or tunnel ended so long after the last sign of life.
    pub fn detected(&self, after: Duration) {
        self.detection.observe(after);
    }
}
