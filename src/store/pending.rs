//! Changes that are true already and not committed yet: what readers must see of their own writes.
//!
//! A map, not a queue: the latest change of a key wins, so its size is bounded by the number of keys. One
//! lock, held for a look-up; memory is filled under it, so that an older entry read from the index never
//! covers a newer one.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::memory::Memory;
use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::cache::{BodyMap, Entry, EntryBody, Key, Record};

/// Changes after which the writer does not wait any longer.
const HURRY: usize = 1_000;
/// Changes that may wait. A disk that is so far behind loses them: the entries live in memory only.
const MOST: usize = 16_384;
/// Bytes of records that may wait.
const MOST_BYTES: usize = 64 << 20;

/// A change with its number: it is done when that very number was committed.
pub(super) type Numbered<T> = (u64, T);

/// What waits for a commit, taken together.
#[derive(Clone, Default)]
pub(super) struct Batch {
    pub(super) entries: Vec<(Key, Numbered<Option<Arc<Entry>>>)>,
    pub(super) partials: Vec<(Key, Numbered<Option<Arc<Record>>>)>,
    pub(super) uses: Vec<(Key, Timestamp)>,
}

impl Batch {
    pub(super) const fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.partials.is_empty() && self.uses.is_empty()
    }
}

/// How the writer was told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Commit everything first.
    Commit,
    /// At once.
    Now,
}

#[derive(Default)]
pub(super) struct Pending {
    inner: Mutex<Inner>,
    wake: Condvar,
}

#[derive(Default)]
struct Inner {
    number: u64,
    entries: HashMap<Key, Numbered<Option<Arc<Entry>>>>,
    partials: HashMap<Key, Numbered<Option<Arc<Record>>>>,
    uses: HashMap<Key, Timestamp>,
    bytes: usize,
    /// Everybody who may still read an entry: freed blocks wait for them.
    alive: HashMap<Key, Vec<Weak<Entry>>>,
    dirty: bool,
    urgent: bool,
    end: Option<End>,
    unrecorded: u64,
    superseded: Vec<Superseded>,
}

/// A change that was overtaken by the next of its key before it was committed: no record will ever name its
/// blocks for it.
pub(super) struct Superseded {
    pub(super) digests: Vec<Digest>,
    /// When that was.
    pub(super) at: Instant,
    /// Who may have begun to read it.
    pub(super) holder: Option<Weak<Entry>>,
}

/// What becomes of an entry that somebody looks at.
pub(super) enum Revision {
    /// Nothing.
    Stay,
    /// It is gone.
    Go,
    /// Another one takes its place.
    Become(Box<Entry>),
}

impl Pending {
    /// Makes `entry` true, in memory at once. Its unfinished body is history.
    pub(super) fn put(&self, entry: Entry, memory: &Memory) -> Arc<Entry> {
        let entry = Arc::new(entry);
        let key = entry.key.clone();
        let mut inner = self.inner.lock();
        inner.take(&entry, memory);
        inner.set_partial(key, None);
        self.poke(inner);
        entry
    }

    /// Looks at the entry of `key`, whichever is true at this moment, and changes it as `revise` says; whether it
    /// did. `on_disk` is asked where nothing newer is known here; nothing is committed meanwhile.
    pub(super) fn revise(
        &self,
        key: &str,
        memory: &Memory,
        on_disk: impl FnOnce() -> Option<Entry>,
        revise: impl FnOnce(&Entry) -> Revision,
    ) -> bool {
        let mut inner = self.inner.lock();
        let waiting = inner.entries.get(key).map(|(_, entry)| entry.clone());
        // Where an entry lives in memory only, what waits is the removal of its predecessor.
        let current = match waiting {
            Some(Some(entry)) => Some(entry),
            Some(None) => memory.entry(key),
            None => memory.entry(key).or_else(|| on_disk().map(Arc::new)),
        };
        let Some(current) = current else { return false };
        match revise(&current) {
            Revision::Stay => return false,
            Revision::Go => {
                memory.drop_entry(key);
                inner.set_entry(current.key.clone(), None);
            }
            Revision::Become(entry) => inner.take(&Arc::new(*entry), memory),
        }
        self.poke(inner);
        true
    }

    /// Forgets the unfinished body of `key` if what waits for a commit, or that nothing does, is as `unchanged` says.
    pub(super) fn drop_partial_if(&self, key: &str, unchanged: impl FnOnce(Option<&Record>) -> bool) {
        let mut inner = self.inner.lock();
        let same = match inner.partials.get(key) {
            Some((_, Some(record))) => unchanged(Some(record)),
            Some((_, None)) => false,
            None => unchanged(None),
        };
        if same {
            inner.set_partial(Key::from(key), None);
            self.poke(inner);
        }
    }

    /// Changes that wait for a commit.
    pub(super) fn waiting(&self) -> usize {
        let inner = self.inner.lock();
        inner.entries.len() + inner.partials.len()
    }

    /// Whether every change up to this number is on disk.
    pub(super) fn is_committed(&self, number: u64) -> bool {
        let inner = self.inner.lock();
        let entries = inner.entries.values().map(|(number, _)| *number);
        let partials = inner.partials.values().map(|(number, _)| *number);
        entries.chain(partials).all(|waiting| waiting > number)
    }

    pub(super) fn remove(&self, key: &str, memory: &Memory) {
        let mut inner = self.inner.lock();
        memory.drop_entry(key);
        inner.set_entry(Key::from(key), None);
        self.poke(inner);
    }

    pub(super) fn put_partial(&self, key: &Key, record: Option<Record>) {
        let mut inner = self.inner.lock();
        let record = record.map(Arc::new).filter(|record| {
            let fits = inner.partials.contains_key(key) || inner.has_room(weight_of_record(record));
            inner.unrecorded += u64::from(!fits);
            fits
        });
        inner.set_partial(key.clone(), record);
        self.poke(inner);
    }

    pub(super) fn note_use(&self, key: &Key, now: Timestamp) {
        let mut inner = self.inner.lock();
        // Uses are hints: losing one under load costs nothing.
        if inner.uses.len() < MOST {
            inner.uses.insert(key.clone(), now);
            self.poke(inner);
        }
    }

    /// What is known of `key` here: nothing, that it is gone, or its entry.
    pub(super) fn entry(&self, key: &str) -> Option<Option<Arc<Entry>>> {
        self.inner.lock().entries.get(key).map(|(_, entry)| entry.clone())
    }

    pub(super) fn partial(&self, key: &str) -> Option<Option<Arc<Record>>> {
        self.inner.lock().partials.get(key).map(|(_, record)| record.clone())
    }

    /// Number of the latest change, to be given to [`Self::adopt`].
    pub(super) fn number(&self) -> u64 {
        self.inner.lock().number
    }

    /// Takes an entry read from the index into memory, unless something changed since `number`: then it may
    /// be old, and the caller looks again. Somebody may have been faster; then theirs is the one.
    pub(super) fn adopt(
        &self,
        entry: Arc<Entry>,
        number: u64,
        memory: &Memory,
    ) -> Result<Arc<Entry>, Arc<Entry>> {
        let mut inner = self.inner.lock();
        if inner.number != number {
            return Err(entry);
        }
        if let Some(there) = memory.entry(entry.key.as_str()) {
            return Ok(there);
        }
        memory.keep_entry(&entry);
        inner.alive.entry(entry.key.clone()).or_default().push(Arc::downgrade(&entry));
        Ok(entry)
    }

    /// Registers a reader's entry that did not come into memory.
    pub(super) fn register(&self, entry: &Arc<Entry>) {
        self.inner.lock().alive.entry(entry.key.clone()).or_default().push(Arc::downgrade(entry));
    }

    pub(super) fn snapshot(&self) -> Batch {
        let inner = self.inner.lock();
        Batch {
            entries: inner.entries.iter().map(|(key, change)| (key.clone(), change.clone())).collect(),
            partials: inner.partials.iter().map(|(key, change)| (key.clone(), change.clone())).collect(),
            uses: inner.uses.iter().map(|(key, at)| (key.clone(), *at)).collect(),
        }
    }

    pub(super) fn take_superseded(&self) -> Vec<Superseded> {
        std::mem::take(&mut self.inner.lock().superseded)
    }

    /// Forgets what was committed and not changed again since.
    pub(super) fn committed(&self, batch: &Batch) {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        for (key, (number, _)) in &batch.entries {
            if inner.entries.get(key).is_some_and(|(now, _)| now == number) {
                inner.set_entry_gone(key);
            }
        }
        for (key, (number, _)) in &batch.partials {
            if inner.partials.get(key).is_some_and(|(now, _)| now == number) {
                inner.set_partial_gone(key);
            }
        }
        for (key, at) in &batch.uses {
            if inner.uses.get(key) == Some(at) {
                inner.uses.remove(key);
            }
        }
    }

    /// Whether a change of this key waits: then its record is not a candidate for eviction.
    pub(super) fn touches(&self, key: &str) -> bool {
        let inner = self.inner.lock();
        inner.entries.contains_key(key) || inner.partials.contains_key(key)
    }

    /// An entry left the index: takes it out of memory, unless a newer one waits.
    pub(super) fn evicted(&self, key: &str, memory: &Memory) {
        let inner = self.inner.lock();
        if !inner.entries.contains_key(key) {
            memory.drop_entry(key);
        }
    }

    /// Those who may still read blocks of `freed` through an entry of `key`.
    pub(super) fn holders(&self, key: &str, freed: &HashSet<Digest>) -> Vec<Weak<Entry>> {
        let mut inner = self.inner.lock();
        let Some(alive) = inner.alive.get_mut(key) else { return Vec::new() };
        alive.retain(|weak| weak.strong_count() > 0);
        let reads = |entry: &Arc<Entry>| match &entry.body {
            EntryBody::Inline(_) => false,
            EntryBody::Blocks(blocks) => blocks.iter().any(|block| freed.contains(&block.digest)),
        };
        alive.iter().filter(|weak| weak.upgrade().is_some_and(|entry| reads(&entry))).cloned().collect()
    }

    /// Takes the digests that waiting changes name out of `digests`.
    pub(super) fn spare(&self, digests: &mut HashSet<Digest>) {
        let inner = self.inner.lock();
        for (_, entry) in inner.entries.values() {
            if let Some(EntryBody::Blocks(blocks)) = entry.as_ref().map(|entry| &entry.body) {
                for block in blocks {
                    digests.remove(&block.digest);
                }
            }
        }
        for (_, record) in inner.partials.values() {
            if let Some(BodyMap::Blocks(blocks)) = record.as_ref().map(|record| &record.body) {
                for digest in blocks.iter().flatten() {
                    digests.remove(digest);
                }
            }
        }
    }

    /// Forgets readers that are gone.
    pub(super) fn prune(&self) {
        self.inner.lock().alive.retain(|_, weaks| {
            weaks.retain(|weak| weak.strong_count() > 0);
            !weaks.is_empty()
        });
    }

    pub(super) fn unrecorded(&self) -> u64 {
        self.inner.lock().unrecorded
    }

    /// Wakes the writer now.
    pub(super) fn hurry(&self) {
        self.inner.lock().urgent = true;
        self.wake.notify_all();
    }

    pub(super) fn end(&self, how: End) {
        self.inner.lock().end.get_or_insert(how);
        self.wake.notify_all();
    }

    pub(super) fn ending(&self) -> Option<End> {
        self.inner.lock().end
    }

    /// Waits for work: at once if it is urgent, else until `every` after the first change, else `idle`.
    pub(super) fn wait(&self, every: Duration, idle: Duration) -> Option<End> {
        let mut inner = self.inner.lock();
        if !inner.dirty && !inner.urgent && inner.end.is_none() {
            self.wake.wait_for(&mut inner, idle);
        }
        if inner.dirty && !inner.urgent && inner.end.is_none() {
            self.wake.wait_while_for(&mut inner, |inner| !inner.urgent && inner.end.is_none(), every);
        }
        inner.dirty = false;
        inner.urgent = false;
        inner.end
    }

    fn poke(&self, mut inner: parking_lot::MutexGuard<'_, Inner>) {
        let first = !std::mem::replace(&mut inner.dirty, true);
        if !inner.urgent && inner.entries.len() + inner.partials.len() >= HURRY {
            inner.urgent = true;
        }
        let wake = first || inner.urgent;
        drop(inner);
        if wake {
            self.wake.notify_all();
        }
    }
}

impl Inner {
    fn has_room(&self, weight: usize) -> bool {
        self.entries.len() + self.partials.len() < MOST && self.bytes + weight <= MOST_BYTES
    }

    /// Makes `entry` the one of its key.
    fn take(&mut self, entry: &Arc<Entry>, memory: &Memory) {
        memory.keep_entry(entry);
        self.alive.entry(entry.key.clone()).or_default().push(Arc::downgrade(entry));
        let record = if self.has_room(weight_of_entry(entry)) {
            Some(Arc::clone(entry))
        } else {
            // The old record must go, or it would come back when this entry leaves memory.
            self.unrecorded += 1;
            None
        };
        self.set_entry(entry.key.clone(), record);
    }

    fn set_entry(&mut self, key: Key, entry: Option<Arc<Entry>>) {
        if let Some(old) = self.set_entry_gone(&key)
            && let EntryBody::Blocks(blocks) = &old.body
        {
            let digests = blocks.iter().map(|block| block.digest).collect();
            let (at, holder) = (Instant::now(), Some(Arc::downgrade(&old)));
            self.superseded.push(Superseded { digests, at, holder });
        }
        self.number += 1;
        self.bytes += entry.as_deref().map_or(0, weight_of_entry);
        self.entries.insert(key, (self.number, entry));
    }

    fn set_entry_gone(&mut self, key: &Key) -> Option<Arc<Entry>> {
        let (_, old) = self.entries.remove(key)?;
        self.bytes = self.bytes.saturating_sub(old.as_deref().map_or(0, weight_of_entry));
        old
    }

    fn set_partial(&mut self, key: Key, record: Option<Arc<Record>>) {
        if let Some(old) = self.set_partial_gone(&key)
            && let BodyMap::Blocks(blocks) = &old.body
        {
            let digests = blocks.iter().copied().flatten().collect();
            self.superseded.push(Superseded { digests, at: Instant::now(), holder: None });
        }
        self.number += 1;
        self.bytes += record.as_deref().map_or(0, weight_of_record);
        self.partials.insert(key, (self.number, record));
    }

    fn set_partial_gone(&mut self, key: &Key) -> Option<Arc<Record>> {
        let (_, old) = self.partials.remove(key)?;
        self.bytes = self.bytes.saturating_sub(old.as_deref().map_or(0, weight_of_record));
        old
    }
}

fn weight_of_entry(entry: &Entry) -> usize {
    usize::try_from(entry.weight()).unwrap_or(usize::MAX)
}

fn weight_of_record(record: &Record) -> usize {
    match &record.body {
        BodyMap::Inline(bytes) => bytes.len() + 512,
        BodyMap::Blocks(blocks) => blocks.len() * 33 + 512,
    }
}
