//! Wake-ups: asking agents to check in now. Pure.
//!
//! A wake-up is spread over its time, so that a fleet does not come all at once. An agent with a stream or tunnel is
//! told over it, again after the spacing, up to the attempts; any other learns of it at its next contact. Whoever
//! checks in after a wake-up was ordered has answered it, however that came about: that is also what is left of a
//! wake-up after a restart.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::AgentId;
use crate::base::clock::Timestamp;

/// Wake-ups that are kept; the oldest goes for a new one.
const KEPT: usize = 64;

/// What is ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WakeOrder {
    /// Its number: what agents are told.
    pub id: u64,
    /// When it was ordered.
    pub started: Timestamp,
    /// The time over which agents are woken.
    pub over: Duration,
    /// How often an agent is told.
    pub attempts: u32,
    /// Between two attempts.
    pub spacing: Duration,
    /// Whom.
    pub agents: Vec<AgentId>,
    /// Whether it was called off.
    pub aborted: bool,
}

/// How far a wake-up has come with one agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Its moment has not come.
    Waiting,
    /// It was told so often.
    Told(u32),
    /// It has no stream or tunnel, or does not react: it learns of it at its next contact.
    Pending,
    /// It has checked in.
    Answered(Timestamp),
    /// The wake-up was called off before.
    Aborted,
}

impl Woken {
    /// The word in JSON and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Told(_) => "told",
            Self::Pending => "pending",
            Self::Answered(_) => "answered",
            Self::Aborted => "aborted",
        }
    }
}

/// A wake-up and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Wake {
    pub(super) order: WakeOrder,
    pub(super) agents: BTreeMap<AgentId, Woken>,
}

/// All wake-ups.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    wakes: BTreeMap<u64, Wake>,
    queue: BTreeSet<(Timestamp, u64, AgentId)>,
    open: HashMap<AgentId, BTreeSet<u64>>,
}

impl Wakes {
    /// Takes an order. `checked_in` says when an agent last did. Gives the number of one that went for it.
    pub(super) fn begin(
        &mut self,
        order: WakeOrder,
        checked_in: impl Fn(&AgentId) -> Timestamp,
    ) -> Option<u64> {
        let dropped = (self.wakes.len() >= KEPT).then(|| self.wakes.first_key_value().map(|(id, _)| *id));
        let dropped = dropped.flatten();
        if let Some(id) = dropped {
            self.close(id);
            self.wakes.remove(&id);
        }
        let mut agents = BTreeMap::new();
        let count = u32::try_from(order.agents.len()).unwrap_or(u32::MAX).max(1);
        for (place, agent) in order.agents.iter().enumerate() {
            let last = checked_in(agent);
            let woken = match (last > order.started, order.aborted) {
                (true, _) => Woken::Answered(last),
                (false, true) => Woken::Aborted,
                (false, false) => Woken::Waiting,
            };
            if woken == Woken::Waiting {
                let step = order.over / count * u32::try_from(place).unwrap_or(u32::MAX);
                self.queue.insert((order.started.after(step), order.id, agent.clone()));
                self.open.entry(agent.clone()).or_default().insert(order.id);
            }
            agents.insert(agent.clone(), woken);
        }
        self.wakes.insert(order.id, Wake { order, agents });
        dropped
    }

    /// Calls one off: who was not told yet is not told any more. Nothing where there is none.
    pub(super) fn abort(&mut self, id: u64) -> Option<&WakeOrder> {
        self.close(id);
        let wake = self.wakes.get_mut(&id)?;
        wake.order.aborted = true;
        for woken in wake.agents.values_mut().filter(|it| !matches!(it, Woken::Answered(_))) {
            *woken = Woken::Aborted;
        }
        Some(&wake.order)
    }

    fn close(&mut self, id: u64) {
        self.queue.retain(|(_, wake, _)| *wake != id);
        self.open.retain(|_, wakes| {
            wakes.remove(&id);
            !wakes.is_empty()
        });
    }

    /// An agent has checked in: the wake-ups it has answered by that.
    pub(super) fn answered(&mut self, agent: &AgentId, at: Timestamp) -> Vec<u64> {
        let Some(open) = self.open.get_mut(agent) else { return Vec::new() };
        let mut done = Vec::new();
        open.retain(|id| {
            let Some(wake) = self.wakes.get_mut(id) else { return false };
            let now = at > wake.order.started;
            if now {
                wake.agents.insert(agent.clone(), Woken::Answered(at));
                done.push(*id);
            }
            !now
        });
        if open.is_empty() {
            self.open.remove(agent);
        }
        done
    }

    /// Who is to be told now. `linked` says whether an agent can be.
    pub(super) fn advance(
        &mut self,
        now: Timestamp,
        linked: impl Fn(&AgentId) -> bool,
    ) -> Vec<(AgentId, u64)> {
        let mut told = Vec::new();
        while let Some((_, id, agent)) = self.queue.first().filter(|(due, ..)| *due <= now).cloned() {
            self.queue.pop_first();
            let Some(wake) = self.wakes.get_mut(&id) else { continue };
            let Some(woken) = wake.agents.get_mut(&agent) else { continue };
            let before = match *woken {
                Woken::Waiting | Woken::Pending => 0,
                Woken::Told(times) => times,
                Woken::Answered(_) | Woken::Aborted => continue,
            };
            if before >= wake.order.attempts || !linked(&agent) {
                *woken = Woken::Pending;
                continue;
            }
            *woken = Woken::Told(before + 1);
            self.queue.insert((now.after(wake.order.spacing), id, agent.clone()));
            told.push((agent, id));
        }
        told
    }

    /// An agent has opened a stream or tunnel: what it has missed is said at the next turn.
    pub(super) fn opened(&mut self, agent: &AgentId, now: Timestamp) {
        for id in self.open.get(agent).into_iter().flatten() {
            let pending = self.wakes.get(id).and_then(|wake| wake.agents.get(agent));
            if pending == Some(&Woken::Pending) {
                self.queue.insert((now, *id, agent.clone()));
            }
        }
    }

    /// The clock was set: every moment moves by so many milliseconds. The orders as they are then.
    pub(super) fn jump(&mut self, by: i64) -> impl Iterator<Item = &WakeOrder> {
        let queue = std::mem::take(&mut self.queue);
        self.queue = queue.into_iter().map(|(due, id, agent)| (due.moved(by), id, agent)).collect();
        for wake in self.wakes.values_mut() {
            wake.order.started = wake.order.started.moved(by);
            for woken in wake.agents.values_mut() {
                if let Woken::Answered(at) = woken {
                    *at = at.moved(by);
                }
            }
        }
        self.wakes.values().map(|wake| &wake.order)
    }

    pub(super) fn get(&self, id: u64) -> Option<&Wake> {
        self.wakes.get(&id)
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = &Wake> {
        self.wakes.values()
    }

    /// A number for a new one: later than all, and not in use after a restart.
    pub(super) fn number(&self, now: Timestamp) -> u64 {
        self.wakes.last_key_value().map_or(now.0, |(last, _)| now.0.max(last + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn id(name: &str) -> AgentId {
        AgentId::parse(name).unwrap()
    }

    fn order(agents: &[&str]) -> WakeOrder {
        WakeOrder {
            id: 1,
            started: NOW,
            over: Duration::ZERO,
            attempts: 2,
            spacing: Duration::from_secs(30),
            agents: agents.iter().map(|it| id(it)).collect(),
            aborted: false,
        }
    }

    fn words(wakes: &Wakes) -> Vec<Woken> {
        wakes.get(1).unwrap().agents.values().copied().collect()
    }

    fn seconds(seconds: u64) -> Timestamp {
        NOW.after(Duration::from_secs(seconds))
    }

    #[test]
    fn who_is_there_is_told_twice_and_then_left_for_its_next_contact() {
        let mut wakes = Wakes::default();
        wakes.begin(order(&["a", "b"]), |_| Timestamp(0));
        let linked = |agent: &AgentId| agent.as_str() == "a";
        assert_eq!(wakes.advance(NOW, linked), [(id("a"), 1)]);
        assert_eq!(words(&wakes), [Woken::Told(1), Woken::Pending]);
        assert_eq!(wakes.advance(seconds(29), linked), []);
        assert_eq!(wakes.advance(seconds(30), linked), [(id("a"), 1)]);
        assert_eq!(wakes.advance(seconds(60), linked), []);
        assert_eq!(words(&wakes), [Woken::Pending, Woken::Pending]);
        wakes.opened(&id("b"), seconds(61));
        assert_eq!(wakes.advance(seconds(61), |_| true), [(id("b"), 1)]);
        assert_eq!(wakes.answered(&id("b"), seconds(62)), [1]);
        assert_eq!(wakes.answered(&id("b"), seconds(63)), [0_u64; 0]);
        assert_eq!(words(&wakes), [Woken::Pending, Woken::Answered(seconds(62))]);
        assert_eq!(wakes.advance(seconds(1_000), |_| true), []);
    }

    #[test]
    fn a_fleet_is_woken_over_the_time_that_is_said() {
        let mut wakes = Wakes::default();
        let over = Duration::from_secs(40);
        wakes.begin(WakeOrder { over, ..order(&["a", "b", "c", "d"]) }, |_| Timestamp(0));
        let told: Vec<usize> = (0..4).map(|n| wakes.advance(seconds(n * 10), |_| true).len()).collect();
        assert_eq!(told, [1, 1, 1, 2], "the fourth, and the first for the second time");
    }

    #[test]
    fn a_clock_that_is_set_makes_nobody_wait_and_wakes_nobody_early() {
        let mut wakes = Wakes::default();
        wakes.begin(order(&["a", "b"]), |_| Timestamp(0));
        assert_eq!(wakes.advance(NOW, |_| true).len(), 2);
        assert_eq!(wakes.answered(&id("b"), seconds(1)), [1]);
        let back = |moment: Timestamp| moment.moved(-500_000);
        assert_eq!(wakes.jump(-500_000).map(|order| order.started).collect::<Vec<_>>(), [back(NOW)]);
        assert_eq!(words(&wakes), [Woken::Told(1), Woken::Answered(back(seconds(1)))]);
        assert_eq!(wakes.advance(back(seconds(29)), |_| true), []);
        assert_eq!(wakes.advance(back(seconds(30)), |_| true), [(id("a"), 1)]);
        assert_eq!(wakes.answered(&id("a"), back(seconds(31))), [1]);
    }

    #[test]
    fn what_is_called_off_is_told_to_nobody() {
        let mut wakes = Wakes::default();
        wakes.begin(order(&["a", "b"]), |_| Timestamp(0));
        wakes.answered(&id("a"), seconds(1));
        assert!(wakes.abort(1).unwrap().aborted);
        assert!(wakes.abort(2).is_none());
        assert_eq!(wakes.advance(seconds(99), |_| true), []);
        assert_eq!(words(&wakes), [Woken::Answered(seconds(1)), Woken::Aborted]);
    }

    #[test]
    fn after_a_restart_only_who_has_not_checked_in_since_is_woken() {
        let mut wakes = Wakes::default();
        wakes.begin(order(&["a", "b"]), |agent| if agent == &id("a") { seconds(5) } else { NOW });
        assert_eq!(wakes.advance(seconds(9), |_| true), [(id("b"), 1)]);
        assert_eq!(words(&wakes), [Woken::Answered(seconds(5)), Woken::Told(1)]);
    }

    #[test]
    fn wake_ups_are_kept_within_a_bound() {
        let mut wakes = Wakes::default();
        for number in 1..=KEPT as u64 {
            assert_eq!(wakes.begin(WakeOrder { id: number, ..order(&["a"]) }, |_| Timestamp(0)), None);
        }
        assert_eq!(wakes.begin(WakeOrder { id: 999, ..order(&["a"]) }, |_| Timestamp(0)), Some(1));
        assert_eq!(wakes.all().count(), KEPT);
        assert_eq!(wakes.number(NOW), NOW.0);
    }
}
