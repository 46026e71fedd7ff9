//! All agents that are known here, where they stand, and one queue of what happens by itself. Pure: events and `now`
//! go in, changes come out.
//!
//! Every agent has at most one place in the queue, at the moment [`Agent::next`] says. What comes out has to be done
//! by whoever holds the registry: links pinged and closed, changes counted, written down and told upward.

use std::collections::{BTreeSet, HashMap};

use super::AgentId;
use super::agent::{Agent, Lacks, Link, Turn};
use super::boots::Verdict;
use super::passive::Passive;
use super::state::{Cause, Rules, State};
use crate::base::clock::Timestamp;
use crate::protocol::agent_api::{CheckIn, Contact};

/// What has to be done after an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Ping this stream.
    Ping(AgentId, u64),
    /// This link is none any more.
    Close(AgentId, u64),
    /// The agent stands somewhere else, or something else of it changed that others should know.
    Changed(AgentId),
    /// A link ended for this reason, so long after its last sign of life (milliseconds).
    Ended(Cause, u64),
}

/// Why a check-in is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is not newer than what is known.
    Old {
        /// The least sequence that would be.
        expected: u64,
    },
    /// The table is full of agents that are there.
    Full,
}

/// Catalogues of one agent that are known from its traffic.
const CATALOGUES: usize = 32;

/// The table.
#[derive(Debug)]
pub(super) struct Registry {
    rules: Rules,
    agents: HashMap<AgentId, Agent>,
    queue: BTreeSet<(Timestamp, AgentId)>,
    due: HashMap<AgentId, Timestamp>,
    /// Those that make room, in this order: the gone, and then those that are known from their traffic only, who is there
    /// for longest first.
    yielding: BTreeSet<(bool, Timestamp, AgentId)>,
    counts: [[u64; Contact::ALL.len()]; State::ALL.len()],
    /// Those that have made room since somebody asked.
    dropped: Vec<AgentId>,
}

impl Registry {
    pub(super) fn new(rules: Rules) -> Self {
        let (agents, queue) = (HashMap::new(), BTreeSet::new());
        let counts = [[0; Contact::ALL.len()]; State::ALL.len()];
        Self {
            rules,
            agents,
            queue,
            due: HashMap::new(),
            yielding: BTreeSet::new(),
            counts,
            dropped: Vec::new(),
        }
    }

    pub(super) const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Other numbers are in force from now on.
    pub(super) fn rule(&mut self, rules: Rules) {
        self.rules = rules;
        let all: Vec<AgentId> = self.agents.keys().cloned().collect();
        for id in all {
            self.change(&id, |_, _| ());
        }
    }

    pub(super) fn agent(&self, id: &AgentId) -> Option<&Agent> {
        self.agents.get(id)
    }

    pub(super) fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.agents.values()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.agents.len()
    }

    /// How many stand where, by contact.
    pub(super) fn counts(&self) -> impl Iterator<Item = (State, Contact, u64)> {
        State::ALL.into_iter().zip(self.counts).flat_map(|(state, row)| {
            Contact::ALL.into_iter().zip(row).map(move |(contact, count)| (state, contact, count))
        })
    }

    /// Puts an agent back that was written down before a restart.
    pub(super) fn restore(&mut self, mut agent: Agent, now: Timestamp) {
        if agent.handler.is_none() {
            // The clock may have been set back meanwhile: nothing is in the future.
            agent.heard = agent.heard.min(now);
            agent.checked_in = agent.checked_in.min(now);
            agent.standing.since = agent.standing.since.min(now);
            if agent.standing.state.is_linked() {
                agent.stand(State::Grey, Cause::Restart, now);
            }
        }
        agent.link = None;
        let id = agent.id.clone();
        self.insert(agent);
        self.enqueue(&id);
    }

    /// The clock was set: every moment moves by so many milliseconds.
    pub(super) fn jump(&mut self, by: i64) {
        let all: Vec<AgentId> = self.agents.keys().cloned().collect();
        for id in all {
            self.change(&id, |agent, _| agent.jump(by));
        }
    }

    /// An agent checks in.
    ///
    /// # Errors
    /// [`Refused`]; nothing has changed then.
    pub(super) fn check_in(
        &mut self,
        id: &AgentId,
        told: CheckIn,
        now: Timestamp,
    ) -> Result<Vec<Effect>, Refused> {
        let mut effects = Vec::new();
        let is_new = !self.agents.contains_key(id);
        if is_new {
            self.make_room()?;
            self.insert(Agent::new(id.clone(), now, &self.rules));
        }
        let verdict = self.change(id, |agent, rules| {
            let verdict = agent.boots.judge(&told.boot, told.sequence, now);
            if verdict != Verdict::New {
                return verdict;
            }
            agent.handler = None;
            agent.contact = agent.link.map_or(told.contact, |link| link.contact);
            agent.interval = rules.interval;
            agent.cloned = agent.boots.is_cloned(now);
            *agent.told = told;
            agent.heard = now;
            agent.checked_in = now;
            agent.check_ins += 1;
            agent.stand(agent.alive(), Cause::CheckedIn, now);
            effects.push(Effect::Changed(id.clone()));
            verdict
        });
        match verdict {
            Some(Verdict::Old { expected }) => Err(Refused::Old { expected }),
            _ => Ok(effects),
        }
    }

    /// An agent opens a stream, or its tunnel by a first poll. What was open before is closed.
    pub(super) fn open(
        &mut self,
        id: &AgentId,
        contact: Contact,
        number: u64,
        now: Timestamp,
    ) -> Result<Vec<Effect>, Refused> {
        if !self.agents.contains_key(id) {
            self.make_room()?;
            self.insert(Agent::new(id.clone(), now, &self.rules));
        }
        let mut effects = Vec::new();
        self.change(id, |agent, _| {
            if let Some(old) = agent.link.replace(Link { number, contact, opened: now, pinged: None }) {
                effects.push(Effect::Close(id.clone(), old.number));
                effects.push(Effect::Ended(Cause::Replaced, now.since(agent.heard).as_millis_u64()));
            }
            agent.handler = None;
            agent.contact = contact;
            agent.heard = now;
            agent.stand(State::Connected, Cause::Opened, now);
            effects.push(Effect::Changed(id.clone()));
        });
        Ok(effects)
    }

    /// Something arrived on a link.
    pub(super) fn heard(&mut self, id: &AgentId, number: u64, now: Timestamp) {
        self.change(id, |agent, _| {
            if let Some(link) = agent.link.as_mut().filter(|link| link.number == number) {
                link.pinged = None;
                agent.heard = now;
            }
        });
    }

    /// A link has ended. Nothing happens where it was replaced before.
    pub(super) fn close(&mut self, id: &AgentId, number: u64, cause: Cause, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.change(id, |agent, _| {
            if agent.link.is_some_and(|link| link.number == number) {
                end(agent, cause, now, &mut effects);
            }
        });
        effects
    }

    /// An agent says goodbye.
    pub(super) fn bye(&mut self, id: &AgentId, now: Timestamp) -> Vec<Effect> {
        self.leave(id, State::Shutdown, Cause::Shutdown, now)
    }

    /// An agent is known to be at another handler.
    pub(super) fn moved(&mut self, id: &AgentId, now: Timestamp) -> Vec<Effect> {
        self.leave(id, State::Moved, Cause::Moved, now)
    }

    fn leave(&mut self, id: &AgentId, state: State, cause: Cause, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.change(id, |agent, _| {
            if let Some(link) = agent.link {
                end(agent, cause, now, &mut effects);
                effects.push(Effect::Close(id.clone(), link.number));
            }
            agent.stand(state, cause, now);
            effects.push(Effect::Changed(id.clone()));
        });
        effects
    }

    /// Update traffic of an agent that does not speak our protocol; `took` is a catalogue, and the version of it.
    ///
    /// Nobody makes room for it: what it says of itself is not proven. That it was here once more is known at once, and
    /// a change only when the interval of check-ins has gone by: it must not cost more than a check-in does.
    pub(super) fn passed(
        &mut self,
        who: Passive,
        took: Option<(String, String)>,
        now: Timestamp,
    ) -> Vec<Effect> {
        let Passive { id, properties } = who;
        let mut effects = Vec::new();
        if !self.agents.contains_key(&id) {
            if self.agents.len() >= self.rules.most {
                return effects;
            }
            self.insert(Agent::new(id.clone(), now, &self.rules));
        }
        self.change(&id, |agent, rules| {
            // One that checks in says more about itself than its traffic does.
            if agent.check_ins > 0 || agent.link.is_some() {
                return;
            }
            let told = &mut agent.told;
            let is_known = agent.standing.state == State::Passive
                && agent.handler.is_none()
                && told.properties == properties
                && took.as_ref().is_none_or(|(name, version)| told.content.get(name) == Some(version));
            told.properties = properties;
            if let Some((name, version)) = took
                && (told.content.len() < CATALOGUES || told.content.contains_key(&name))
            {
                told.content.insert(name, version);
            }
            agent.handler = None;
            agent.heard = now;
            agent.stand(State::Passive, Cause::Traffic, now);
            if !is_known || now.since(agent.noted) >= rules.interval {
                agent.noted = now;
                effects.push(Effect::Changed(id.clone()));
            }
        });
        effects
    }

    /// A node below says this of an agent. Taken if it is newer than what is known; whether it was.
    pub(super) fn reported(&mut self, agent: Agent, now: Timestamp) -> (bool, Vec<Effect>) {
        let id = agent.id.clone();
        let mut effects = Vec::new();
        let Some(known) = self.agents.get(&id) else {
            if self.make_room().is_err() {
                return (false, effects);
            }
            self.insert(agent);
            self.enqueue(&id);
            return (true, vec![Effect::Changed(id)]);
        };
        let same = known.handler == agent.handler;
        let newer = agent.boots.is_newer_than(&known.boots).unwrap_or(agent.heard >= known.heard);
        if !same && !newer {
            return (false, effects);
        }
        self.change(&id, |known, _| {
            if let Some(link) = known.link {
                end(known, Cause::Moved, now, &mut effects);
                effects.push(Effect::Close(id.clone(), link.number));
            }
            *known = agent;
            effects.push(Effect::Changed(id.clone()));
        });
        (true, effects)
    }

    /// What an agent lacks that has said `sequence` last.
    pub(super) fn lacks(&mut self, id: &AgentId, sequence: u64, lacks: Lacks) {
        if let Some(agent) = self.agents.get_mut(id).filter(|agent| agent.told.sequence == sequence) {
            agent.lacks = Some(lacks);
        }
    }

    /// Forgets an agent; it may come again as a new one. Whether it was known.
    pub(super) fn forget(&mut self, id: &AgentId) -> (bool, Vec<Effect>) {
        let Some(agent) = self.remove(id) else { return (false, Vec::new()) };
        let close = agent.link.map(|link| Effect::Close(id.clone(), link.number));
        (true, close.into_iter().collect())
    }

    /// Who has made room for others since the last call.
    pub(super) fn take_dropped(&mut self) -> Vec<AgentId> {
        std::mem::take(&mut self.dropped)
    }

    /// When [`Registry::advance`] has something to do.
    #[cfg(test)]
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// Does what is due.
    pub(super) fn advance(&mut self, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some((_, id)) = self.queue.first().filter(|(due, _)| *due <= now).cloned() {
            self.change(&id, |agent, rules| turn(agent, rules, now, &mut effects));
        }
        effects
    }

    /// Changes an agent; the queue and the counts follow.
    fn change<T>(&mut self, id: &AgentId, how: impl FnOnce(&mut Agent, &Rules) -> T) -> Option<T> {
        let mut agent = self.remove(id)?;
        let done = how(&mut agent, &self.rules);
        self.insert(agent);
        self.enqueue(id);
        Some(done)
    }

    fn count(&mut self, agent: &Agent) -> Option<&mut u64> {
        self.counts.get_mut(agent.standing.state as usize)?.get_mut(agent.contact as usize)
    }

    fn insert(&mut self, agent: Agent) {
        if let Some(count) = self.count(&agent) {
            *count += 1;
        }
        self.yielding.extend(place_of(&agent));
        self.agents.insert(agent.id.clone(), agent);
    }

    fn enqueue(&mut self, id: &AgentId) {
        let due = self.agents.get(id).and_then(|agent| agent.next(&self.rules)).map(|(due, _)| due);
        if let Some(due) = due {
            self.queue.insert((due, id.clone()));
            self.due.insert(id.clone(), due);
        }
    }

    fn remove(&mut self, id: &AgentId) -> Option<Agent> {
        let agent = self.agents.remove(id)?;
        if let Some(count) = self.count(&agent) {
            *count -= 1;
        }
        if let Some(due) = self.due.remove(id) {
            self.queue.remove(&(due, id.clone()));
        }
        if let Some(place) = place_of(&agent) {
            self.yielding.remove(&place);
        }
        Some(agent)
    }

    /// Makes room for one more: who is gone for longest goes, then who is known from its traffic only.
    fn make_room(&mut self) -> Result<(), Refused> {
        while self.agents.len() >= self.rules.most {
            let (.., id) = self.yielding.first().cloned().ok_or(Refused::Full)?;
            self.remove(&id);
            self.dropped.push(id);
        }
        Ok(())
    }
}

/// The place of an agent among those that make room, if it does.
fn place_of(agent: &Agent) -> Option<(bool, Timestamp, AgentId)> {
    let (state, since) = (agent.standing.state, agent.standing.since);
    let is_passive = state == State::Passive;
    (is_passive || !state.is_live()).then(|| (is_passive, since, agent.id.clone()))
}

/// An agent's link has ended.
fn end(agent: &mut Agent, cause: Cause, now: Timestamp, effects: &mut Vec<Effect>) {
    agent.link = None;
    agent.stand(State::Grey, cause, now);
    effects.push(Effect::Ended(cause, now.since(agent.heard).as_millis_u64()));
    effects.push(Effect::Changed(agent.id.clone()));
}

/// What is due for an agent.
fn turn(agent: &mut Agent, rules: &Rules, now: Timestamp, effects: &mut Vec<Effect>) {
    let Some((_, turn)) = agent.next(rules).filter(|(due, _)| *due <= now) else { return };
    match turn {
        Turn::Ping => {
            if let Some(link) = &mut agent.link {
                link.pinged = Some(now);
                effects.push(Effect::Ping(agent.id.clone(), link.number));
            }
        }
        Turn::End(cause) => {
            let number = agent.link.map(|link| link.number);
            effects.extend(number.map(|number| Effect::Close(agent.id.clone(), number)));
            end(agent, cause, now, effects);
        }
        Turn::Become(state, cause) => {
            agent.stand(state, cause, now);
            effects.push(Effect::Changed(agent.id.clone()));
        }
    }
}

/// Milliseconds as a number.
trait Millis {
    fn as_millis_u64(&self) -> u64;
}

impl Millis for std::time::Duration {
    fn as_millis_u64(&self) -> u64 {
        u64::try_from(self.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests;
