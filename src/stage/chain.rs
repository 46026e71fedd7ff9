//! Incremental updates: the next one is fetched while an agent takes the one before it, and what a missing one costs
//! is counted.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use parking_lot::Mutex;

use super::Catalogues;
use super::fetch::Want;
use super::sessions::Visitor;
use crate::base::clock::Timestamp;
use crate::base::limits::SESSIONS;

/// An agent that does not get an incremental update asks for the full file within this time.
const ASKS_WITHIN: Duration = Duration::from_secs(600);

/// Which agents were told that there is no incremental update, and which full file they will want instead.
#[derive(Debug, Default)]
pub(super) struct MissedDeltas {
    misses: Mutex<HashMap<u64, (Box<str>, Timestamp)>>,
    hasher: RandomState,
}

/// The agent fetches this file whole because the incremental update was not to be had. Counted by
/// [`Catalogues::note_waste`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed(());

impl Catalogues {
    /// An agent asks for the incremental update `path`: the one it will ask for next is fetched meanwhile, up to the
    /// version that is shown.
    pub fn follow_chain(&self, path: &str) {
        let Some(next) = self.preset.next_delta(path) else { return };
        let Some(root) = self.preset.root_of(path) else { return };
        let name = self.preset.fold(&root);
        let scopes = self.scopes.load();
        let shown = scopes.iter().find(|scope| *scope.name == *name).and_then(|scope| scope.newest());
        // Beyond the version shown there is nothing yet.
        let Some(version) = shown.as_ref().and_then(|it| it.version.as_ref()) else { return };
        let reachable = self.preset.version_of_delta(&next).is_some_and(|it| it <= version.order);
        let Some(this) = self.this.upgrade().filter(|_| reachable) else { return };
        self.work(async move {
            let want = Want {
                key: this.key(&next),
                path: &next,
                only: None,
                expect: None,
                generation: None,
                paced: true,
            };
            if let Err(cause) = this.fetch(want).await {
                tracing::debug!(path = next, %cause, "the next incremental update cannot be fetched ahead");
            }
        });
    }

    /// Nobody has the incremental update `path` that this visitor asked for.
    pub fn note_missing_delta(&self, path: &str, visitor: &Visitor<'_>) {
        self.events.delta_missing();
        let Some(full) = self.preset.full_of(path) else { return };
        let now = self.clock.now();
        let mut misses = self.missed.misses.lock();
        if misses.len() >= SESSIONS {
            misses.retain(|_, (_, at)| now.since(*at) < ASKS_WITHIN);
        }
        if misses.len() < SESSIONS {
            misses.insert(self.missed.who(visitor), (self.preset.fold(&full).into(), now));
        }
    }

    /// Whether this visitor fetches `path` whole because an incremental update was missing. Says so once.
    pub fn take_missed(&self, path: &str, visitor: &Visitor<'_>) -> Option<Missed> {
        let mut misses = self.missed.misses.lock();
        if misses.is_empty() {
            return None;
        }
        let (now, who, name) = (self.clock.now(), self.missed.who(visitor), self.preset.fold(path));
        let hit = misses.get(&who).is_some_and(|(full, at)| **full == *name && now.since(*at) < ASKS_WITHIN);
        hit.then(|| misses.remove(&who)).flatten().map(|_| Missed(()))
    }

    /// Counts a full file of `bytes` that an incremental update would have saved.
    pub fn note_waste(&self, _missed: Missed, bytes: u64) {
        self.events.delta_waste(bytes);
    }
}

impl MissedDeltas {
    fn who(&self, visitor: &Visitor<'_>) -> u64 {
        self.hasher.hash_one((visitor.address, visitor.agent))
    }
}
