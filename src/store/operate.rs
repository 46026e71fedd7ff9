//! What operators ask of the store: purge, count, list, pin, check, collect.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::listing::{Counted, Rows, Slice, Wants};
use super::pending::Revision;
use super::pool::Lane;
use super::purge::PurgeError;
use super::shared::{Shared, count};
use super::{Store, scrub};
use crate::base::digest::Digest;
use crate::cache::purge::{Fate, Patterns, Purge};
use crate::cache::{BodyMap, Entry, Key, Record};

/// How long one waits for changes under way to be committed before the index is read.
const COMMITTED: Duration = Duration::from_secs(1);

/// A block younger than this may belong to a fill whose record is not there yet.
const ORPHAN_AGE: Duration = Duration::from_secs(600);

/// Some stored records in the order of their keys.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// Keys and records.
    pub records: Vec<(Key, Record)>,
    /// The key to go on after, if there are more.
    pub next: Option<String>,
}

/// What one step of a check found.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// Blocks read.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that are damaged or missing. Damaged ones are dropped.
    pub bad: Vec<Digest>,
    /// The block to go on after; `None` at the end.
    pub last: Option<Digest>,
}

impl Store {
    /// Makes a purge true for every look-up from now on, and counts what it is about. What is there goes behind.
    ///
    /// # Errors
    /// [`PurgeError`]: nothing was purged.
    pub async fn purge(&self, purge: Purge) -> Result<Counted, PurgeError> {
        let shared = Arc::clone(self.shared());
        let job = move || {
            let mut made = Ok(());
            let mut was_made = false;
            let counted = shared.count_purge(&purge, &mut || {
                was_made = true;
                made = shared.purge(purge.clone());
            });
            if !was_made {
                // The index cannot be read; what is in memory has to go all the same.
                made = shared.purge(purge.clone());
            }
            made.map(|()| counted)
        };
        self.0.pool.run(Lane::Read, job).await.unwrap_or_else(|| Ok(Counted::default()))
    }

    /// Counts what a purge would be about, from the index.
    pub async fn count(&self, purge: Purge) -> Counted {
        self.settle().await;
        let shared = Arc::clone(self.shared());
        let job = move || shared.count_purge(&purge, &mut || {});
        self.0.pool.run(Lane::Read, job).await.unwrap_or_default()
    }

    /// Up to `most` entries after `after` that match, in the order of their keys.
    pub async fn list(&self, after: Option<String>, patterns: Option<Arc<Patterns>>, most: usize) -> Listed {
        self.settle().await;
        let mut listed = Listed { records: Vec::new(), next: after };
        loop {
            let (shared, patterns) = (Arc::clone(self.shared()), patterns.clone());
            let after = listed.next.take();
            let job = move || {
                let matches = |key: &str| patterns.as_ref().is_none_or(|it| it.matches(Key::path_in(key)));
                let spared = |key: &str, record: &Record| shared.is_record_spared(key, record);
                shared.index.slice(Rows::Entries, after.as_deref(), &matches, &spared)
            };
            let Some(Ok(Slice { found, next })) = self.0.pool.run(Lane::Read, job).await else {
                return listed;
            };
            for (key, record) in found {
                if listed.records.len() == most {
                    listed.next = listed.records.last().map(|(key, _)| key.as_str().to_owned());
                    return listed;
                }
                listed.records.push((Key::from(key.as_str()), record));
            }
            match next {
                Some(next) => listed.next = Some(next),
                None => return listed,
            }
        }
    }

    /// Pins an entry or releases it. Whether that changed anything.
    pub async fn pin(&self, key: &Key, pinned: bool) -> bool {
        let (shared, key) = (Arc::clone(self.shared()), key.clone());
        let job = move || {
            shared.revise(key.as_str(), |entry| {
                if entry.pinned == pinned {
                    Revision::Stay
                } else {
                    Revision::Become(Box::new(entry.marked(entry.stale, pinned)))
                }
            })
        };
        self.0.pool.run(Lane::Read, job).await.unwrap_or(false)
    }

    /// Reads some blocks after `after` and compares them with their names.
    pub async fn check_blocks(&self, after: Option<Digest>, most: usize) -> Checked {
        if after.is_none() {
            self.settle().await;
        }
        let shared = Arc::clone(self.shared());
        let job = move || {
            let mut checked = Checked::default();
            let Ok(blocks) = shared.index.blocks_after(after, most) else { return checked };
            for (digest, len) in &blocks {
                checked.blocks += 1;
                checked.bytes += u64::from(*len);
                if scrub::check(&shared, digest).is_some() {
                    checked.bad.push(*digest);
                }
            }
            checked.last = blocks.last().map(|(digest, _)| *digest);
            checked
        };
        self.0.pool.run(Lane::Write, job).await.unwrap_or_default()
    }

    /// How many of these blocks are here, in memory or on disk. Looks, and reads nothing.
    pub async fn held(&self, blocks: Vec<Digest>) -> usize {
        let shared = Arc::clone(self.shared());
        let here = move |digest: &&Digest| {
            shared.memory.block(digest).is_some() || shared.content.path(digest).exists()
        };
        self.0.pool.run(Lane::Read, move || blocks.iter().filter(here).count()).await.unwrap_or(0)
    }

    /// The entries that name one of these blocks, with the places of those blocks in them.
    pub async fn owners(&self, blocks: HashSet<Digest>) -> Vec<(Arc<Entry>, Vec<usize>)> {
        let listed = self.list(None, None, usize::MAX).await;
        let mut owners = Vec::new();
        for (key, record) in listed.records {
            let BodyMap::Blocks(names) = &record.body else { continue };
            let places: Vec<usize> = names
                .iter()
                .enumerate()
                .filter(|(_, name)| name.is_some_and(|name| blocks.contains(&name)))
                .map(|(place, _)| place)
                .collect();
            if !places.is_empty()
                && let Some(entry) = self.find(key.as_str()).await
            {
                owners.push((entry, places));
            }
        }
        owners
    }

    /// Removes blocks that no record names and that are no fill's: how many, and their bytes. Counts them only,
    /// where `dry_run`.
    pub async fn collect(&self, dry_run: bool) -> (u64, u64) {
        self.settle().await;
        let (mut blocks, mut bytes) = (0, 0);
        for first in 0..=u8::MAX {
            let shared = Arc::clone(self.shared());
            let job = move || shared.collect_some(first, dry_run);
            let Some((more, size)) = self.0.pool.run(Lane::Write, job).await else { break };
            blocks += more;
            bytes += size;
        }
        (blocks, bytes)
    }

    /// Waits until what is true now is in the index, as far as the disk allows.
    async fn settle(&self) {
        let shared = self.shared();
        let number = shared.pending.number();
        let mut rounds = shared.rounds.subscribe();
        let settled = async {
            while !shared.pending.is_committed(number) {
                shared.pending.hurry();
                if rounds.changed().await.is_err() {
                    return;
                }
            }
        };
        // A disk that takes nothing is told elsewhere; then the index is what it is.
        let _ = tokio::time::timeout(COMMITTED, settled).await;
    }
}

impl Shared {
    /// Revises the entry of `key`, wherever it is; whether that changed anything.
    pub(super) fn revise(&self, key: &str, revise: impl FnOnce(&Entry) -> Revision) -> bool {
        let on_disk = || {
            let record = self.index.entry(key).ok().flatten()?;
            Entry::from_record(Key::from(key), record)
        };
        self.pending.revise(key, &self.memory, on_disk, revise)
    }

    fn is_record_spared(&self, key: &str, record: &Record) -> bool {
        self.purges_fate(key, record.head.requested_at) != Fate::Gone
    }

    fn count_purge(&self, purge: &Purge, begin: &mut dyn FnMut()) -> Counted {
        let now = self.clock.now();
        let gone = self.purges.now();
        // Nearly everything was asked for before now and is still there: only then no record has to be looked into.
        let simple = gone.is_empty() && now.since(purge.before) <= Duration::from_secs(1);
        let wants = |key: &str, record: &Record| {
            let asked = record.head.requested_at;
            asked <= purge.before && gone.judge(key, asked, now) != Fate::Gone
        };
        let wants: Option<Wants<'_>> = if simple { None } else { Some(&wants) };
        self.index.count_matching(begin, &|key| purge.matches(key), wants).unwrap_or_else(|error| {
            self.index_failed(&error);
            Counted::default()
        })
    }

    fn collect_some(&self, first: u8, dry_run: bool) -> (u64, u64) {
        let (mut blocks, mut bytes) = (0, 0);
        let old = SystemTime::now().checked_sub(ORPHAN_AGE).unwrap_or(SystemTime::UNIX_EPOCH);
        for digest in self.content.list(first, old) {
            let wanted = || {
                let mut set = HashSet::from([digest]);
                self.pending.spare(&mut set);
                // Where the index does not answer, everything is wanted.
                set.is_empty() || self.index.names(&digest).unwrap_or(true)
            };
            let size = std::fs::metadata(self.content.path(&digest)).map_or(0, |meta| meta.len());
            let gone =
                if dry_run { !wanted() } else { self.ledger.remove_orphan(&digest, &self.content, wanted) };
            if gone {
                blocks += 1;
                bytes += size;
                if !dry_run {
                    count(&self.counts.orphans);
                }
            }
        }
        (blocks, bytes)
    }
}
