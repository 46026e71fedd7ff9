//! The words for where an agent stands, and the numbers by which it gets there. Pure.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;

/// Where an agent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its stream or tunnel is open, and it checks in.
    Connected,
    /// Its stream or tunnel is open, and it has not checked in for too long: connected is not healthy.
    Stalled,
    /// It has no stream or tunnel, and checks in on time.
    Reporting,
    /// It has no stream or tunnel, and its check-in is overdue.
    Late,
    /// Its stream or tunnel has ended; it stays listed in case it returns.
    Grey,
    /// Gone for long enough to leave the live views.
    Offline,
    /// It said goodbye.
    Shutdown,
    /// It is at another handler.
    Moved,
    /// Known from its update traffic only.
    Passive,
}

impl State {
    /// All of them, in the order of their value.
    pub const ALL: [Self; 9] = [
        Self::Connected,
        Self::Stalled,
        Self::Reporting,
        Self::Late,
        Self::Grey,
        Self::Offline,
        Self::Shutdown,
        Self::Moved,
        Self::Passive,
    ];

    /// The word in JSON, metrics, selectors and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Stalled => "stalled",
            Self::Reporting => "reporting",
            Self::Late => "late",
            Self::Grey => "grey",
            Self::Offline => "offline",
            Self::Shutdown => "shutdown",
            Self::Moved => "moved",
            Self::Passive => "passive",
        }
    }

    /// The state of this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether it belongs in a view of what is there now.
    pub const fn is_live(self) -> bool {
        !matches!(self, Self::Offline | Self::Shutdown | Self::Moved)
    }

    /// Whether it has a stream or tunnel.
    pub const fn is_linked(self) -> bool {
        matches!(self, Self::Connected | Self::Stalled)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why an agent stands where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// It opened its stream or tunnel.
    Opened,
    /// It checked in.
    CheckedIn,
    /// It closed its stream.
    Closed,
    /// A write to its stream failed.
    WriteFailed,
    /// It sent on its stream what is no message.
    BadMessage,
    /// It did not answer a ping.
    PingTimeout,
    /// It did not poll its tunnel.
    SessionTimeout,
    /// It opened another stream or tunnel here.
    Replaced,
    /// Its check-in is overdue.
    Overdue,
    /// It said goodbye.
    Shutdown,
    /// It is at another handler.
    Moved,
    /// The handler was restarted.
    Restart,
    /// It fetched updates.
    Traffic,
}

impl Cause {
    /// All of them, in the order of their value.
    pub const ALL: [Self; 13] = [
        Self::Opened,
        Self::CheckedIn,
        Self::Closed,
        Self::WriteFailed,
        Self::BadMessage,
        Self::PingTimeout,
        Self::SessionTimeout,
        Self::Replaced,
        Self::Overdue,
        Self::Shutdown,
        Self::Moved,
        Self::Restart,
        Self::Traffic,
    ];

    /// The word in JSON, metrics and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::CheckedIn => "checked-in",
            Self::Closed => "closed",
            Self::WriteFailed => "write-failed",
            Self::BadMessage => "bad-message",
            Self::PingTimeout => "ping-timeout",
            Self::SessionTimeout => "session-timeout",
            Self::Replaced => "replaced",
            Self::Overdue => "overdue",
            Self::Shutdown => "shutdown",
            Self::Moved => "moved",
            Self::Restart => "restart",
            Self::Traffic => "traffic",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where an agent stands, why, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Where.
    pub state: State,
    /// Why.
    pub cause: Cause,
    /// Since when: not moved by further events of the same state.
    pub since: Timestamp,
}

/// The numbers of presence. An administrator may turn all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Between two check-ins of an agent.
    pub interval: Duration,
    /// A stream that was silent for this long is pinged.
    pub ping_after: Duration,
    /// A ping that was not answered for this long ends the stream.
    pub ping_timeout: Duration,
    /// A tunnel that was silent for this long has ended.
    pub session_timeout: Duration,
    /// How long an agent whose stream or tunnel has ended stays listed.
    pub keep_offline: Duration,
    /// How long an agent that is known from its update traffic only stays listed after the last of it.
    pub keep_passive: Duration,
    /// Intervals without check-in after which an agent without stream or tunnel is late.
    pub late_after: u32,
    /// Intervals without check-in after which it is offline; more than `late_after`.
    pub offline_after: u32,
    /// Intervals without check-in after which a connected agent is stalled.
    pub stalled_after: u32,
    /// Agents in the table. The ones that are gone for longest make room for new ones.
    pub most: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            interval: Duration::from_hours(1),
            ping_after: Duration::from_secs(120),
            ping_timeout: Duration::from_secs(20),
            session_timeout: Duration::from_secs(60),
            keep_offline: Duration::from_mins(30),
            keep_passive: Duration::from_hours(72),
            late_after: 2,
            offline_after: 4,
            stalled_after: 3,
            most: 100_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_its_json() {
        for state in State::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
            assert_eq!(State::parse(state.as_str()), Some(state));
        }
        for cause in Cause::ALL {
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.as_str());
        }
        assert_eq!(State::parse("gray"), None);
    }
}
