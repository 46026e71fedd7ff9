//! Wake-ups as they are ordered, called off and asked about: here, and for agents of the nodes below.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::AgentId;
use super::ledger::Row;
use super::plane::{Inner, Presence};
use super::wake::{WakeOrder, Woken};
use crate::base::clock::Timestamp;

/// A wake-up that is asked for.
#[derive(Clone, Debug)]
pub struct WakeAsk {
    /// Whom.
    pub agents: Vec<AgentId>,
    /// The time over which they are woken.
    pub over: Duration,
    /// How often each is told.
    pub attempts: u32,
    /// Between two attempts.
    pub spacing: Duration,
}

/// A wake-up on its way to a node below.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Relayed {
    /// Whom.
    pub agents: Vec<AgentId>,
    /// Seconds over which they are woken.
    pub over_s: u64,
    /// How often each is told.
    pub attempts: u32,
    /// Seconds between two attempts.
    pub spacing_s: u64,
}

/// A wake-up and what came of it so far.
#[derive(Clone, Debug)]
pub struct WakeTold {
    /// What was ordered.
    pub order: WakeOrder,
    /// How far it has come with each agent.
    pub agents: Vec<(AgentId, Woken)>,
}

impl Presence {
    /// Does what a node above has ordered: wakes the agents in `ask`, those of them that are here.
    ///
    /// # Errors
    /// The order is not understood.
    pub fn wake_ordered(&self, ask: &serde_json::Value) -> Result<String, String> {
        let relayed: Relayed = serde_json::from_value(ask.clone()).map_err(|error| error.to_string())?;
        let Relayed { agents, over_s, attempts, spacing_s } = relayed;
        let agents: Vec<AgentId> = agents.into_iter().filter(|id| self.agent(id).is_some()).collect();
        let count = agents.len();
        let (over, spacing) = (Duration::from_secs(over_s), Duration::from_secs(spacing_s));
        self.wake(WakeAsk { agents, over, attempts, spacing });
        Ok(format!("{count} agents"))
    }

    /// Orders a wake-up; its number.
    pub fn wake(&self, ask: WakeAsk) -> u64 {
        let (order, elsewhere) = {
            let mut inner = self.inner.lock();
            let now = self.clock.now();
            let id = inner.wakes.number(now);
            let WakeAsk { agents, over, attempts, spacing } = ask;
            let order = WakeOrder { id, started: now, over, attempts, spacing, agents, aborted: false };
            let mut elsewhere: HashMap<String, Vec<AgentId>> = HashMap::new();
            for agent in order.agents.iter().filter_map(|id| inner.registry.agent(id)) {
                if let Some(handler) = &agent.handler {
                    elsewhere.entry(handler.clone()).or_default().push(agent.id.clone());
                }
            }
            let Inner { registry, wakes, .. } = &mut *inner;
            let last = |id: &AgentId| registry.agent(id).map_or(Timestamp(0), |agent| agent.checked_in);
            let dropped = wakes.begin(order.clone(), last);
            let mut rows = vec![Row::Wake(id, serde_json::to_vec(&order).unwrap_or_default())];
            rows.extend(dropped.map(Row::WakeOver));
            self.keep(&mut inner, rows);
            (order, elsewhere)
        };
        for (handler, agents) in elsewhere {
            let (over_s, spacing_s) = (order.over.as_secs(), order.spacing.as_secs());
            let attempts = order.attempts;
            self.outside.relay_wake(&handler, Relayed { agents, over_s, attempts, spacing_s });
        }
        order.id
    }

    /// Calls a wake-up off; false where there is none of this number.
    pub fn abort_wake(&self, id: u64) -> bool {
        let mut inner = self.inner.lock();
        let aborted = inner.wakes.abort(id).map(|order| serde_json::to_vec(order).unwrap_or_default());
        let known = aborted.is_some();
        self.keep(&mut inner, aborted.map(|json| Row::Wake(id, json)).into_iter().collect());
        known
    }

    /// What came of a wake-up so far.
    pub fn wake_told(&self, id: u64) -> Option<WakeTold> {
        let inner = self.inner.lock();
        let wake = inner.wakes.get(id)?;
        let agents = wake.agents.iter().map(|(id, woken)| (id.clone(), *woken)).collect();
        Some(WakeTold { order: wake.order.clone(), agents })
    }
}
