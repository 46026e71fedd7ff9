//! Blocks on disk that no committed record names: written by a running fill, or freed and still read.
//!
//! One lock. Whoever removes a block's file holds it while doing so, and whoever writes a block has entered
//! it here before looking whether the file is there: so no file is removed under a writer's eyes.

use std::collections::{HashMap, HashSet};
use std::sync::Weak;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::content::Content;
use super::pending::{Pending, Superseded};
use super::space::{Space, disk_len};
use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::cache::Entry;

/// A block that a fill wrote and named nowhere for this long belongs to no fill any more: a running one
/// records its progress every few seconds.
const UNNAMED_FOR: Duration = Duration::from_secs(6 * 3600);

#[derive(Default)]
struct Loose {
    len: u64,
    /// Whether its bytes are in `Space::loose`.
    counted: bool,
    /// When a fill wrote it: by the clock, and in the order of things. What was decided before says nothing about it.
    written: Option<(Timestamp, Instant)>,
    /// Who may still read it.
    holders: Vec<Weak<Entry>>,
}

/// A block whose last name is gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Freed {
    pub(super) digest: Digest,
    /// Bytes on disk.
    pub(super) len: u64,
    /// Named and freed by the same commit: the fill that wrote it is done with it.
    pub(super) at_once: bool,
}

#[derive(Default)]
pub(super) struct Ledger(Mutex<HashMap<Digest, Loose>>);

impl Ledger {
    /// A fill is about to write this block. Whether its bytes are accounted for already.
    pub(super) fn writing(&self, digest: Digest, len: u64, now: Timestamp) -> bool {
        let mut map = self.0.lock();
        let loose = map.entry(digest).or_default();
        loose.written = Some((now, Instant::now()));
        if !loose.counted {
            loose.len = disk_len(len);
        }
        loose.counted
    }

    /// Takes room for a block that no record names. False where there is none.
    pub(super) fn count(&self, digest: &Digest, space: &Space) -> bool {
        let mut map = self.0.lock();
        match map.get_mut(digest) {
            Some(loose) if !loose.counted => {
                loose.counted = space.take_loose(loose.len);
                loose.counted
            }
            _ => true,
        }
    }

    /// The block was not written after all; what is there of it goes with the next reaping.
    pub(super) fn not_written(&self, digest: &Digest) {
        let mut map = self.0.lock();
        if let Some(loose) = map.get_mut(digest) {
            loose.written = None;
            if !loose.counted {
                map.remove(digest);
            }
        }
    }

    /// The change that would have named these is overtaken: the fill that wrote them is done with them.
    pub(super) fn overtaken(&self, superseded: &Superseded) {
        let mut map = self.0.lock();
        for digest in &superseded.digests {
            if let Some(loose) = map.get_mut(digest) {
                loose.forget_writes_before(superseded.at);
                loose.holders.extend(superseded.holder.clone());
            }
        }
    }

    /// A record committed from what waited at `since` names these now. A fill that has written one of them again
    /// after that keeps its claim: its own record is still to come, and this one may go before.
    pub(super) fn named(&self, digests: impl Iterator<Item = Digest>, since: Instant, space: &Space) {
        let mut map = self.0.lock();
        for digest in digests {
            let Some(loose) = map.get_mut(&digest) else { continue };
            if std::mem::take(&mut loose.counted) {
                space.drop_loose(loose.len);
            }
            loose.forget_writes_before(since);
            if loose.written.is_none() {
                map.remove(&digest);
            }
        }
    }

    /// Bytes this block is accounted for here.
    pub(super) fn counted(&self, digest: &Digest) -> u64 {
        self.0.lock().get(digest).map_or(0, |loose| if loose.counted { loose.len } else { 0 })
    }

    /// No committed record names this any more, or (`at_once`) none ever did.
    pub(super) fn freed(&self, freed: &Freed, holders: &[Weak<Entry>], since: Instant, space: &Space) {
        let mut map = self.0.lock();
        let loose = map.entry(freed.digest).or_default();
        let len = freed.len;
        if freed.at_once {
            loose.forget_writes_before(since);
        }
        if !loose.counted {
            loose.counted = true;
            loose.len = len;
            space.add_loose(len);
        }
        loose.holders.extend_from_slice(holders);
    }

    /// Removes the files of blocks that nobody wants any more, and tells which.
    pub(super) fn reap(
        &self,
        pending: &Pending,
        content: &Content,
        space: &Space,
        now: Timestamp,
    ) -> Vec<Digest> {
        // Holders first, waiting changes after: a reader that lets go of an entry has put its successor before.
        let mut free: HashSet<Digest> = HashSet::new();
        self.0.lock().retain(|digest, loose| {
            loose.holders.retain(|weak| weak.strong_count() > 0);
            if loose.holders.is_empty() && !loose.is_wanted(now) {
                free.insert(*digest);
            }
            // One that is not counted was named by a record when it was written, and is that record's.
            loose.counted || loose.is_wanted(now)
        });
        let mut gone = Vec::new();
        if free.is_empty() {
            return gone;
        }
        pending.spare(&mut free);
        for digest in free {
            let mut map = self.0.lock();
            // Somebody may have begun to write it meanwhile.
            let Some(loose) = map.get(&digest) else { continue };
            let free = loose.counted && loose.holders.is_empty() && !loose.is_wanted(now);
            if !free || content.remove(&digest).is_err() {
                continue;
            }
            space.drop_loose(loose.len);
            map.remove(&digest);
            gone.push(digest);
        }
        gone
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Removes an orphan's file, unless `wanted` says otherwise or a fill or reader has it.
    pub(super) fn remove_orphan(
        &self,
        digest: &Digest,
        content: &Content,
        wanted: impl FnOnce() -> bool,
    ) -> bool {
        let map = self.0.lock();
        !map.contains_key(digest) && !wanted() && content.remove(digest).is_ok()
    }
}

impl Loose {
    fn is_wanted(&self, now: Timestamp) -> bool {
        self.written.is_some_and(|(at, _)| now.since(at) < UNNAMED_FOR)
    }

    fn forget_writes_before(&mut self, moment: Instant) {
        self.written = self.written.filter(|(_, written)| *written > moment);
    }
}
