//! The agents as operators see them: lists, wake-ups, forgetting.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::fault::bad;
use crate::admin::agents_api::{
    AgentRow, Agents, AgentsAsk, AgentsReached, ForgetAsk, WakeAsk, WakeTold, WokenRow,
};
use crate::admin::api::{Done, SCHEMA};
use crate::admin::{ApiError, Code};
use crate::presence::{self, Agent, AgentId, Presence, Selector, Woken};

/// Agents of one answer, where nothing is said, and at most.
const LISTED: usize = 1_000;
const MOST_LISTED: usize = 10_000;
/// What is usual for a wake-up.
const ATTEMPTS: u32 = 3;
const MOST_ATTEMPTS: u32 = 20;
const SPACING: Duration = Duration::from_secs(30);
/// Over which time a wake-up may be spread, and how far apart its attempts may be.
const LONGEST: Duration = Duration::from_hours(24);

/// The agents, where the node has to do with any.
pub(super) struct FleetView {
    presence: Option<Arc<Presence>>,
    node: String,
}

impl FleetView {
    pub(super) const fn new(presence: Option<Arc<Presence>>, node: String) -> Self {
        Self { presence, node }
    }

    fn presence(&self) -> Result<&Arc<Presence>, ApiError> {
        let help = "write [agents] into its configuration, and restart it";
        self.presence
            .as_ref()
            .ok_or_else(|| ApiError::not_found("this node has nothing to do with agents", help))
    }

    fn select(&self, text: Option<&str>) -> Result<Vec<Agent>, ApiError> {
        let text = text.unwrap_or_default();
        let selector = Selector::parse(text).map_err(|error| bad(error.message.clone(), error.help))?;
        // Who is gone is looked for by name or state, not come upon.
        let gone = ["state", "id"]
            .iter()
            .any(|field| text.split(',').any(|term| term.trim().trim_start().starts_with(field)));
        let wanted =
            |agent: &Agent| (gone || agent.standing.state.is_live()) && selector.matches(agent, &self.node);
        let presence = self.presence()?;
        let mut found = presence.agents(wanted);
        if selector.asks_behind() {
            found.retain(|agent| selector.matches_behind(&presence.behind(agent).words()));
        }
        Ok(found)
    }

    pub(super) fn agents(&self, ask: &AgentsAsk) -> Result<Agents, ApiError> {
        let most = ask.limit.unwrap_or(LISTED);
        if !(1..=MOST_LISTED).contains(&most) {
            return Err(bad("`limit` is out of range", format!("allowed: 1 to {MOST_LISTED}")));
        }
        let found = self.select(ask.selector.as_deref())?;
        let after = ask.after.as_deref().unwrap_or_default();
        let mut rest = found.iter().filter(|agent| agent.id.as_str() > after);
        let agents: Vec<AgentRow> = rest.by_ref().take(most).map(|agent| self.row(agent)).collect();
        let next = rest.next().and(agents.last()).map(|last| last.id.clone());
        Ok(Agents { schema: SCHEMA, agents, next })
    }

    pub(super) fn agent(&self, id: &str) -> Result<AgentRow, ApiError> {
        let known = AgentId::parse(id).ok().and_then(|id| self.presence().ok()?.agent(&id));
        known.map(|agent| self.row(&agent)).ok_or_else(|| {
            ApiError::not_found(format!("no agent {id} is known"), "waypost fleet ls lists who is")
        })
    }

    fn row(&self, agent: &Agent) -> AgentRow {
        let told = &agent.told;
        let properties = told.properties.clone();
        let behind = self.presence.as_ref().map(|presence| presence.behind(agent)).unwrap_or_default();
        AgentRow {
            schema: SCHEMA,
            id: agent.id.to_string(),
            state: agent.standing.state.to_string(),
            cause: agent.standing.cause.to_string(),
            since: agent.standing.since.0 / 1_000,
            heard: agent.heard.0 / 1_000,
            checked_in: agent.checked_in.0 / 1_000,
            check_ins: agent.check_ins,
            contact: agent.contact.as_str().to_owned(),
            handler: agent.handler.clone().unwrap_or_else(|| self.node.clone()),
            cloned: agent.cloned,
            behind: behind.words().into_iter().map(str::to_owned).collect(),
            newer: behind.content,
            host: properties.host,
            os: properties.os,
            addresses: properties.addresses.iter().map(ToString::to_string).collect(),
            tree: properties.tree,
            tags: properties.tags,
            agent_version: properties.agent_version,
            content: told.content.clone(),
            sitelist: told.sitelist.clone(),
            policies: told.policies.clone(),
        }
    }

    pub(super) fn wake(&self, ask: WakeAsk) -> Result<WakeTold, ApiError> {
        let presence = self.presence()?;
        let (over, attempts) = (Duration::from_secs(ask.over), ask.attempts.unwrap_or(ATTEMPTS));
        let spacing = ask.spacing.map_or(SPACING, Duration::from_secs);
        if over > LONGEST || spacing > LONGEST || !(1..=MOST_ATTEMPTS).contains(&attempts) {
            let help = format!("allowed: up to a day, and 1 to {MOST_ATTEMPTS} attempts");
            return Err(bad("a wake-up does not take so long, or so often", help));
        }
        let mut agents = BTreeSet::new();
        for id in &ask.agents {
            let known = AgentId::parse(id).ok().filter(|id| presence.agent(id).is_some());
            agents.insert(known.ok_or_else(|| {
                ApiError::not_found(format!("no agent {id} is known"), "waypost fleet ls lists who is")
            })?);
        }
        if ask.selector.is_some() || ask.group.is_some() {
            let selected = self.select(ask.selector.as_deref())?;
            let handlers = ask.group.as_deref().map(|group| presence.handlers_of(group));
            if handlers.as_ref().is_some_and(Vec::is_empty) {
                let group = ask.group.as_deref().unwrap_or_default();
                let message = format!("no group or handler is called {group}");
                return Err(ApiError::not_found(message, "fleet.toml says what they are called"));
            }
            let belongs = |agent: &Agent| {
                let handler = agent.handler.as_ref().unwrap_or(&self.node);
                handlers.as_ref().is_none_or(|handlers| handlers.contains(handler))
            };
            let answers = |agent: &Agent| agent.standing.state != presence::State::Passive;
            agents.extend(
                selected.into_iter().filter(|agent| belongs(agent) && answers(agent)).map(|agent| agent.id),
            );
        } else if agents.is_empty() {
            return Err(bad("nobody is named to be woken", "name agents, a selector or a group"));
        }
        let agents = agents.into_iter().collect();
        let id = presence.wake(presence::WakeAsk { agents, over, attempts, spacing });
        self.wake_told(id)
    }

    /// Does what a node above has ordered.
    pub(super) fn wake_ordered(&self, ask: &serde_json::Value) -> Result<String, String> {
        self.presence().map_err(|error| error.message)?.wake_ordered(ask)
    }

    /// Does what a node above has ordered.
    pub(super) fn forget_ordered(&self, ask: &serde_json::Value) -> Result<String, String> {
        self.presence().map_err(|error| error.message)?.forget_ordered(ask)
    }

    pub(super) fn wake_told(&self, id: u64) -> Result<WakeTold, ApiError> {
        let told = self.presence()?.wake_told(id).ok_or_else(|| no_wake(id))?;
        let row = |(agent, woken): &(AgentId, Woken)| WokenRow {
            agent: agent.to_string(),
            woken: woken.as_str().to_owned(),
            attempts: if let Woken::Told(times) = woken { *times } else { 0 },
            answered: if let Woken::Answered(at) = woken { Some(at.0 / 1_000) } else { None },
        };
        let agents: Vec<WokenRow> = told.agents.iter().map(row).collect();
        Ok(WakeTold {
            schema: SCHEMA,
            id,
            started: told.order.started.0 / 1_000,
            aborted: told.order.aborted,
            total: agents.len() as u64,
            answered: agents.iter().filter(|row| row.answered.is_some()).count() as u64,
            agents,
        })
    }

    pub(super) fn abort_wake(&self, id: u64) -> Result<Done, ApiError> {
        if self.presence()?.abort_wake(id) { Ok(Done::CHANGED) } else { Err(no_wake(id)) }
    }

    pub(super) fn forget(&self, ask: &ForgetAsk) -> Result<AgentsReached, ApiError> {
        let ids: Vec<AgentId> = ask.agents.iter().filter_map(|id| AgentId::parse(id).ok()).collect();
        let agents = self.presence()?.forget(&ids) as u64;
        tracing::info!(agents, "forgotten");
        Ok(AgentsReached { schema: SCHEMA, changed: agents > 0, agents })
    }
}

fn no_wake(id: u64) -> ApiError {
    ApiError::new(Code::NotFound, format!("there is no wake-up {id}"), "waking says its number")
}
