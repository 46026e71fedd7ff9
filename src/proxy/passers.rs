//! Who comes for updates, for whoever keeps the agents and wants to know of those that do not check in.
//!
//! On the way of every answer. Where nobody wants to know it is one load. Otherwise it is a hash of address and
//! `User-Agent`, and one word of a table that never grows: whoever stands there with this minute was told of already. Two
//! that share a word are told of more often, and what finds no room on the way is told of the next time.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::HeaderMap;
use http::header::USER_AGENT;
use tokio::sync::mpsc;

use super::Repository;
use crate::base::clock::Timestamp;
use crate::base::limits::{PASSERS, PASSERS_WAITING, USER_AGENT_BYTES};
use crate::protocol::caller::{AGENT_HEADER, NODE_HEADER};
use crate::server::Peer;

/// Somebody has come for updates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passer {
    /// Where from.
    pub address: IpAddr,
    /// What it calls itself; empty: nothing.
    pub user_agent: String,
    /// The catalogue it took, as the path of its root without the first slash, and in which version.
    pub took: Option<(String, String)>,
}

/// Tells of everybody about once a minute.
#[derive(Debug)]
pub struct Passers {
    wanted: AtomicBool,
    /// By hash: the upper bits of the hash, and below them the minute.
    seen: Box<[AtomicU64]>,
    seed: RandomState,
    to: mpsc::Sender<Passer>,
}

/// The bits of a word of the table that are its minute.
const MINUTE: u64 = 0xff_ffff;

impl Passers {
    /// Nobody wants to know until [`Passers::want`]; what is told comes out of the receiver.
    pub fn new() -> (Self, mpsc::Receiver<Passer>) {
        let (to, told) = mpsc::channel(PASSERS_WAITING);
        let seen = (0..PASSERS).map(|_| AtomicU64::new(0)).collect();
        (Self { wanted: AtomicBool::new(false), seen, seed: RandomState::new(), to }, told)
    }

    /// Whether anybody wants to know, from now on.
    pub fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// Whether anybody wants to know.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Somebody was given something of a repository.
    pub(super) fn came(&self, peer: &Peer, headers: &HeaderMap, now: Timestamp) {
        if self.is_wanted() {
            self.note(peer, headers, now, None);
        }
    }

    /// Somebody was given the catalogue of `root` in the version that `version` says.
    pub(super) fn took(
        &self,
        (peer, headers, now): (&Peer, &HeaderMap, Timestamp),
        repository: &Repository,
        root: &str,
        version: impl FnOnce() -> String,
    ) {
        if self.is_wanted() {
            let name = format!("{}{root}", repository.prefix.trim_start_matches('/'));
            self.note(peer, headers, now, Some((name, version())));
        }
    }

    fn note(&self, peer: &Peer, headers: &HeaderMap, now: Timestamp, took: Option<(String, String)>) {
        // Those have a way of their own to say that they are there.
        let is_known = !peer.names.is_empty()
            || [AGENT_HEADER, NODE_HEADER].iter().any(|name| headers.contains_key(*name));
        if is_known {
            return;
        }
        let address = peer.address.ip();
        let name = headers.get(USER_AGENT).map(http::HeaderValue::as_bytes).unwrap_or_default();
        let name = name.get(..USER_AGENT_BYTES).unwrap_or(name);
        let hash = self.seed.hash_one((name, address, &took));
        let Some(slot) = usize::try_from(hash).ok().and_then(|hash| self.seen.get(hash % PASSERS)) else {
            return;
        };
        let word = hash & !MINUTE | (now.0 / 60_000) & MINUTE;
        // Read before it is written: the busiest clients share this line of memory and change nothing.
        if slot.load(Ordering::Relaxed) != word {
            slot.store(word, Ordering::Relaxed);
            let user_agent = String::from_utf8_lossy(name).into_owned();
            if self.to.try_send(Passer { address, user_agent, took }).is_err() {
                slot.store(0, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::PeerName;

    fn peer(address: &str) -> Peer {
        Peer {
            address: format!("{address}:1").parse().unwrap(),
            secure: true,
            sni: None,
            names: Vec::new(),
            ttl: None,
            connection: 1,
            listener: "https",
        }
    }

    fn calls_itself(name: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(USER_AGENT, http::HeaderValue::from_static(name))])
    }

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    #[test]
    fn whoever_comes_often_is_told_of_once_a_minute() {
        let (passers, mut told) = Passers::new();
        let mut came = |address: &str, name, now| {
            passers.came(&peer(address), &calls_itself(name), now);
            told.try_recv().is_ok()
        };
        assert!(!came("10.0.0.1", "curl/8", NOW), "nobody wants to know");
        passers.want(true);
        assert!(came("10.0.0.1", "curl/8", NOW));
        assert!(!came("10.0.0.1", "curl/8", Timestamp(NOW.0 + 59_999)));
        assert!(came("10.0.0.2", "curl/8", NOW));
        assert!(came("10.0.0.1", "pip/24", NOW));
        assert!(came("10.0.0.1", "curl/8", Timestamp(NOW.0 + 60_000)));
    }

    #[test]
    fn who_has_a_way_of_its_own_to_say_so_is_left_to_it() {
        let (passers, mut told) = Passers::new();
        passers.want(true);
        let mut agent = calls_itself("waypost-agent/1");
        agent.insert(AGENT_HEADER, http::HeaderValue::from_static("pc-1"));
        passers.came(&peer("10.0.0.1"), &agent, NOW);
        let mut known = peer("10.0.0.1");
        known.names.push(PeerName::Uri("waypost:agent:pc-2".to_owned()));
        passers.came(&known, &calls_itself("x"), NOW);
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn what_finds_no_room_is_told_the_next_time() {
        let (passers, mut told) = Passers::new();
        passers.want(true);
        let come = || {
            for number in 0..=PASSERS_WAITING {
                let address = format!("10.0.{}.{}", number / 250, number % 250);
                passers.came(&peer(&address), &calls_itself("x"), NOW);
            }
        };
        come();
        while told.try_recv().is_ok() {}
        come();
        assert!(told.try_recv().is_ok(), "the last of them");
    }
}
