//! Which agent began with which generation: it goes on with it until it asks for the catalogue again.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;

use crate::base::clock::Timestamp;
use crate::base::limits::SESSIONS;

/// Who asks, as far as a generation is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Visitor<'a> {
    /// Its connection, a number that no other has.
    pub connection: u64,
    /// Its address.
    pub address: IpAddr,
    /// Its `User-Agent`: agents behind one address are told apart by it where they have an id there.
    pub agent: Option<&'a str>,
    /// The generation it names itself (`Waypost-Generation`), as another node does while it stages.
    pub generation: Option<&'a str>,
    /// It only looks: nothing is remembered about it, and nothing is done because of it.
    pub observer: bool,
}

impl Visitor<'_> {
    /// Somebody who only looks.
    pub const fn observer() -> Self {
        Self {
            connection: 0,
            address: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
            agent: None,
            generation: None,
            observer: true,
        }
    }
}

/// The generations agents began with, by connection and by address and user agent.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    pins: Mutex<HashMap<u64, (Box<str>, Timestamp)>>,
    hasher: RandomState,
}

impl Sessions {
    fn keys(&self, scope: &str, visitor: &Visitor<'_>) -> [u64; 2] {
        [
            self.hasher.hash_one((scope, visitor.connection)),
            self.hasher.hash_one((scope, visitor.address, visitor.agent)),
        ]
    }

    /// The visitor has just got the root of `generation`. Full is full: then it gets the newest of everything.
    pub(super) fn pin(
        &self,
        scope: &str,
        visitor: &Visitor<'_>,
        generation: &str,
        now: Timestamp,
        grace: Duration,
    ) {
        let mut pins = self.pins.lock();
        if pins.len() >= SESSIONS {
            pins.retain(|_, (_, at)| now.since(*at) < grace);
        }
        for key in self.keys(scope, visitor) {
            if pins.len() < SESSIONS || pins.contains_key(&key) {
                pins.insert(key, (generation.into(), now));
            }
        }
    }

    /// The generation this visitor began with, if that is not too long ago. Its connection says more than its address.
    pub(super) fn pinned(
        &self,
        scope: &str,
        visitor: &Visitor<'_>,
        now: Timestamp,
        grace: Duration,
    ) -> Option<Box<str>> {
        let pins = self.pins.lock();
        let fresh = |key: &u64| pins.get(key).filter(|(_, at)| now.since(*at) < grace);
        self.keys(scope, visitor).iter().find_map(fresh).map(|(generation, _)| generation.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    fn visitor(connection: u64, agent: &str) -> Visitor<'_> {
        Visitor {
            connection,
            address: IpAddr::from([127, 0, 0, 1]),
            agent: Some(agent),
            generation: None,
            observer: false,
        }
    }

    #[test]
    fn an_agent_keeps_its_generation_over_its_connections() {
        let sessions = Sessions::default();
        let now = Timestamp(1_000_000);
        sessions.pin("root", &visitor(1, "a"), "one", now, GRACE);
        sessions.pin("root", &visitor(2, "b"), "two", now, GRACE);
        let pinned = |visitor| sessions.pinned("root", &visitor, now, GRACE);
        assert_eq!(pinned(visitor(1, "a")).as_deref(), Some("one"));
        assert_eq!(pinned(visitor(9, "a")).as_deref(), Some("one"), "a new connection of the same agent");
        assert_eq!(pinned(visitor(9, "b")).as_deref(), Some("two"));
        assert_eq!(pinned(visitor(9, "c")), None);
        assert_eq!(sessions.pinned("other", &visitor(1, "a"), now, GRACE), None);
        assert_eq!(sessions.pinned("root", &visitor(1, "a"), now.after(GRACE), GRACE), None);
    }

    #[test]
    fn a_connection_says_more_than_an_address() {
        let sessions = Sessions::default();
        let now = Timestamp(1_000_000);
        sessions.pin("root", &visitor(1, "same"), "one", now, GRACE);
        sessions.pin("root", &visitor(2, "same"), "two", now, GRACE);
        assert_eq!(sessions.pinned("root", &visitor(1, "same"), now, GRACE).as_deref(), Some("one"));
    }
}
