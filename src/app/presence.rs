//! The agents of a node, from its configuration, and what presence asks of the rest of the node.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context as _;

use crate::base::clock::Clock;
use crate::config::{CheckedConfig, PresenceConfig};
use crate::presence::{AgentId, Options, Outside, Presence, Rules, Wanted};
use crate::protocol::agent_api::CheckIn;
use crate::server::{Bound, Totals};
use crate::telemetry::Metrics;

/// The agents, where the configuration says anything about agents or nodes.
pub(super) fn open(
    config: &CheckedConfig,
    clock: &Clock,
    metrics: &Metrics,
    bound: &Bound,
) -> anyhow::Result<Option<Arc<Presence>>> {
    let Some(agents) = &config.presence else { return Ok(None) };
    let options =
        Options { node: config.server.node.clone(), dir: agents.state_dir.clone(), rules: rules(agents) };
    let house = House { totals: bound.totals(), most: config.limits.connections };
    let presence = Presence::open(options, clock.clone(), metrics.agents.clone(), house)
        .context("cannot open what is known of agents; [agents] state_dir says where it is")?;
    Ok(Some(presence))
}

/// The numbers of presence.
pub(super) fn rules(agents: &PresenceConfig) -> Rules {
    let count = |intervals: usize| u32::try_from(intervals).unwrap_or(u32::MAX);
    Rules {
        interval: agents.checkin_interval,
        ping_after: agents.ping_after,
        ping_timeout: agents.ping_timeout,
        session_timeout: agents.session_timeout,
        keep_offline: agents.keep_offline,
        late_after: count(agents.late_after),
        offline_after: count(agents.offline_after),
        stalled_after: count(agents.stalled_after),
        most: agents.most,
    }
}

/// The rest of the node.
struct House {
    totals: Arc<Totals>,
    most: usize,
}

impl Outside for House {
    fn wanted(&self, _: &AgentId, _: &CheckIn, _: Option<IpAddr>) -> Wanted {
        Wanted::default()
    }

    fn is_in_group(&self, _: &AgentId, _: &CheckIn, _: &str) -> bool {
        false
    }

    /// The part of the connections that are in use.
    #[expect(clippy::cast_precision_loss, reason = "numbers of connections are small")]
    fn load(&self) -> f64 {
        self.totals.open() as f64 / self.most as f64
    }

    fn is_draining(&self) -> bool {
        false
    }

    fn relay_wake(&self, _: &str, _: Vec<AgentId>) {}
}
