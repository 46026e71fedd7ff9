//! One agent as it is known here: what it said, where it stands, and when that changes by itself. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::AgentId;
use super::boots::Boots;
use super::state::{Cause, Rules, Standing, State};
use crate::base::clock::Timestamp;
use crate::protocol::agent_api::{CheckIn, Contact};

/// An agent's stream or tunnel. The number tells it from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) number: u64,
    pub(super) contact: Contact,
    pub(super) opened: Timestamp,
    /// When it was pinged without an answer so far.
    pub(super) pinged: Option<Timestamp>,
}

/// What of the documents an agent has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lacks {
    pub(super) sitelist: bool,
    pub(super) policies: bool,
}

/// One agent. What is on disk and goes to the authority is this, without its link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// The node below this one that it talks to; nothing if it talks to this one.
    pub handler: Option<String>,
    /// Where it stands.
    pub standing: Standing,
    /// The last sign of life.
    pub heard: Timestamp,
    /// The last check-in; 0 before the first.
    pub checked_in: Timestamp,
    /// Check-ins that were acknowledged, ever: here and at all nodes below.
    pub check_ins: u64,
    /// How it stays in contact.
    pub contact: Contact,
    /// The time between its check-ins.
    pub interval: Duration,
    /// What it said last.
    pub told: Box<CheckIn>,
    /// Whether another machine uses the same identity.
    pub cloned: bool,
    pub(super) boots: Boots,
    /// What each node below has told of check-ins so far: of what it tells next, the rest is counted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) counted: BTreeMap<String, u64>,
    #[serde(skip)]
    pub(super) link: Option<Link>,
    /// What it had not when the documents were compared with it last; nothing before that.
    #[serde(skip)]
    pub(super) lacks: Option<Lacks>,
    /// When what its traffic says was written down last.
    #[serde(skip)]
    pub(super) noted: Timestamp,
}

/// What the passing of time does to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Its stream is pinged.
    Ping,
    /// Its stream or tunnel is taken for ended.
    End(Cause),
    /// It stands somewhere else.
    Become(State, Cause),
}

impl Agent {
    pub(super) fn new(id: AgentId, now: Timestamp, rules: &Rules) -> Self {
        Self {
            id,
            handler: None,
            standing: Standing { state: State::Reporting, cause: Cause::CheckedIn, since: now },
            heard: now,
            checked_in: Timestamp(0),
            check_ins: 0,
            contact: Contact::Checkin,
            interval: rules.interval,
            told: Box::default(),
            cloned: false,
            boots: Boots::default(),
            counted: BTreeMap::new(),
            link: None,
            noted: Timestamp(0),
            lacks: None,
        }
    }

    /// A node below has seen so many check-ins of this agent. A number below the last one: it has begun anew.
    pub(super) fn count(&mut self, node: &str, check_ins: u64) -> bool {
        let before = self.counted.insert(node.to_owned(), check_ins).unwrap_or_default();
        let more = check_ins.checked_sub(before).unwrap_or(check_ins);
        self.check_ins = self.check_ins.saturating_add(more);
        more > 0
    }

    /// What a node below tells of this agent takes the place of what is known. An agent that has not checked in there
    /// yet has said nothing about itself there: what it said elsewhere stays.
    pub(super) fn follow(&mut self, told: Self) {
        let (check_ins, counted) = (self.check_ins, std::mem::take(&mut self.counted));
        let before = std::mem::replace(self, told);
        (self.check_ins, self.counted) = (check_ins, counted);
        if self.checked_in == Timestamp(0) {
            let Self { told, checked_in, interval, boots, cloned, .. } = before;
            (self.told, self.checked_in, self.interval) = (told, checked_in, interval);
            (self.boots, self.cloned) = (boots, cloned);
        }
    }

    /// Puts it somewhere; `since` stays where the state does.
    pub(super) fn stand(&mut self, state: State, cause: Cause, now: Timestamp) {
        if self.standing.state != state {
            self.standing = Standing { state, cause, since: now };
        }
    }

    /// Moves every time of it that is this node's. Those of an agent that stands elsewhere are of another clock.
    pub(super) fn jump(&mut self, by: i64) {
        if self.handler.is_some() {
            return;
        }
        // Before the first check-in it is none.
        if self.checked_in != Timestamp(0) {
            self.checked_in = self.checked_in.moved(by);
        }
        self.heard = self.heard.moved(by);
        self.standing.since = self.standing.since.moved(by);
        self.boots.jump(by);
        if self.noted != Timestamp(0) {
            self.noted = self.noted.moved(by);
        }
        if let Some(link) = &mut self.link {
            link.opened = link.opened.moved(by);
            link.pinged = link.pinged.map(|pinged| pinged.moved(by));
        }
    }

    /// What happens next if nothing else does, and when. Nothing for who is gone, and for who stands elsewhere: the
    /// other node turns its hands.
    pub(super) fn next(&self, rules: &Rules) -> Option<(Timestamp, Turn)> {
        if self.handler.is_some() {
            return None;
        }
        let overdue = |intervals: u32| self.checked_in.after(self.interval.saturating_mul(intervals));
        match self.standing.state {
            State::Connected | State::Stalled => {
                let link = self.link?;
                let end = end_of(&link, self.heard, rules);
                if self.standing.state == State::Stalled {
                    return Some(end);
                }
                let patience = self.interval.saturating_mul(rules.stalled_after);
                let stall = link.opened.max(self.checked_in).after(patience);
                let stalled = (stall, Turn::Become(State::Stalled, Cause::Overdue));
                Some(if stall < end.0 { stalled } else { end })
            }
            State::Reporting => Some((overdue(rules.late_after), Turn::Become(State::Late, Cause::Overdue))),
            State::Late => Some((overdue(rules.offline_after), Turn::Become(State::Offline, Cause::Overdue))),
            State::Grey => {
                let until = self.standing.since.after(rules.keep_offline);
                Some((until, Turn::Become(State::Offline, self.standing.cause)))
            }
            State::Passive => {
                Some((self.heard.after(rules.keep_passive), Turn::Become(State::Offline, Cause::Overdue)))
            }
            State::Offline | State::Shutdown | State::Moved => None,
        }
    }
}

/// When a link is pinged or given up.
fn end_of(link: &Link, heard: Timestamp, rules: &Rules) -> (Timestamp, Turn) {
    match (link.contact, link.pinged) {
        (Contact::Stream, None) => (heard.after(rules.ping_after), Turn::Ping),
        (Contact::Stream, Some(pinged)) => (pinged.after(rules.ping_timeout), Turn::End(Cause::PingTimeout)),
        _ => (heard.after(rules.session_timeout), Turn::End(Cause::SessionTimeout)),
    }
}

impl Agent {
    /// Where it stands having just checked in.
    pub(super) const fn alive(&self) -> State {
        if self.link.is_some() { State::Connected } else { State::Reporting }
    }
}
