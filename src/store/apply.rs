//! One write transaction: waiting changes in, victims out, and what follows from it for the blocks.
//!
//! Order of eviction: new entries stand in *probation*, an entry that was used again in *main*, a pinned one
//! in *pinned*; each by its last use. Probation goes first while it holds more than a tenth of the store, so
//! that a flood of files that are asked for once never displaces what agents come back for.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use redb::{ReadableTable, Table, WriteTransaction};

use super::index::{
    BLOCKS, ENTRIES, IndexError, META, ORDER, OrIndex, PARTIALS, PLACES, parse_row, render_row,
};
use super::ledger::{Freed, Ledger};
use super::pending::{Batch, Pending};
use super::space::{Space, disk_len};
use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::base::limits::BLOCK_BYTES;
use crate::cache::{BodyMap, Key, Record};

/// What a record costs beside its bytes: rows in three tables and their share of pages.
const RECORD_COST: u64 = 256;
/// Victims of one commit; more follow in the next. Bounds how long a commit takes.
const VICTIMS: usize = 4_096;
/// Victims picked at a time.
const PICK: usize = 16;
/// An unfinished body with progress younger than this belongs to a running fill.
const RUNNING: Duration = Duration::from_secs(600);

/// What a key names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Entry = 0,
    Partial = 1,
}

const PROBATION: u8 = 0;
const MAIN: u8 = 1;
const PINNED: u8 = 2;
const SEGMENTS: [&str; 3] = ["probation", "main", "pinned"];

/// What a commit changed, for those who keep files and accounts.
#[derive(Default)]
pub(super) struct Outcome {
    /// Bytes on disk that records name.
    pub(super) bytes: u64,
    pub(super) entries: u64,
    pub(super) partials: u64,
    /// Blocks that records of this commit name.
    pub(super) named: HashSet<Digest>,
    /// Blocks without a name now.
    pub(super) freed: Vec<Freed>,
    /// Keys that let go of blocks.
    pub(super) released: Vec<Key>,
    pub(super) evicted: Vec<(Kind, Key)>,
    /// Still over the limit.
    pub(super) more: bool,
}

/// Who is asked while a transaction is made.
pub(super) struct Around<'a> {
    pub(super) pending: &'a Pending,
    pub(super) ledger: &'a Ledger,
    pub(super) space: &'a Space,
    pub(super) now: Timestamp,
}

/// Makes the changes of `batch` and evicts what must go for them.
pub(super) fn apply(
    txn: &WriteTransaction,
    batch: &Batch,
    around: &Around<'_>,
) -> Result<Outcome, IndexError> {
    let mut change = Change::begin(txn, around)?;
    for (key, (_, entry)) in &batch.entries {
        let record = entry.as_ref().map(|entry| entry.to_record());
        change.set(Kind::Entry, key, record.as_ref())?;
    }
    for (key, (_, record)) in &batch.partials {
        change.set(Kind::Partial, key, record.as_deref())?;
    }
    for (key, at) in &batch.uses {
        change.note_use(key, *at)?;
    }
    change.evict()?;
    change.finish()
}

struct Ref {
    before: u32,
    now: u32,
    len: u32,
}

type Rows<'t> = Table<'t, &'static str, &'static [u8]>;

struct Change<'t, 'a> {
    entries: Rows<'t>,
    partials: Rows<'t>,
    places: Table<'t, (u8, &'static str), (u8, u64, u64)>,
    order: Table<'t, (u8, u64, u8, &'static str), u64>,
    blocks: Table<'t, &'static [u8; 32], (u32, u32)>,
    meta: Table<'t, &'static str, u64>,
    refs: HashMap<Digest, Ref>,
    segments: [u64; 3],
    /// Bytes loose when the transaction began, less what it names of them.
    loose: u64,
    evicted_bytes: u64,
    out: Outcome,
    around: &'a Around<'a>,
}

impl<'t, 'a> Change<'t, 'a> {
    fn begin(txn: &'t WriteTransaction, around: &'a Around<'a>) -> Result<Self, IndexError> {
        let meta = txn.open_table(META).or_index()?;
        let read = |name: &str| Ok::<_, IndexError>(meta.get(name).or_index()?.map_or(0, |v| v.value()));
        let [probation, main, pinned] = SEGMENTS;
        let segments = [read(probation)?, read(main)?, read(pinned)?];
        let out = Outcome {
            bytes: read("bytes")?,
            entries: read("entries")?,
            partials: read("partials")?,
            ..Outcome::default()
        };
        Ok(Self {
            entries: txn.open_table(ENTRIES).or_index()?,
            partials: txn.open_table(PARTIALS).or_index()?,
            places: txn.open_table(PLACES).or_index()?,
            order: txn.open_table(ORDER).or_index()?,
            blocks: txn.open_table(BLOCKS).or_index()?,
            meta,
            refs: HashMap::new(),
            segments,
            loose: around.space.loose(),
            evicted_bytes: 0,
            out,
            around,
        })
    }

    /// Makes `record` what `key` names; `None` makes it name nothing.
    fn set(&mut self, kind: Kind, key: &Key, record: Option<&Record>) -> Result<(), IndexError> {
        let name = key.as_str();
        let new = record.map(|record| (render_row(name, record), blocks_of(record)));
        let rows = match kind {
            Kind::Entry => &mut self.entries,
            Kind::Partial => &mut self.partials,
        };
        let old = match &new {
            Some((bytes, _)) => rows.insert(name, bytes.as_slice()).or_index()?,
            None => rows.remove(name).or_index()?,
        };
        let old = old.map(|old| (old.value().len(), parse_row(name, old.value())));
        let old_blocks = old.as_ref().and_then(|(_, record)| record.as_ref()).map(blocks_of);
        let old_blocks = old_blocks.unwrap_or_default();
        let new_blocks = new.as_ref().map(|(_, blocks)| blocks);
        for (digest, len) in new_blocks.into_iter().flatten() {
            self.out.named.insert(*digest);
            if !old_blocks.contains_key(digest) {
                self.refer(digest, *len)?;
            }
        }
        let mut released = false;
        for digest in old_blocks.keys() {
            if new_blocks.is_none_or(|blocks| !blocks.contains_key(digest)) {
                self.release(digest)?;
                released = true;
            }
        }
        if released && kind == Kind::Entry {
            self.out.released.push(key.clone());
        }
        let cost = |len: usize| len as u64 + name.len() as u64 + RECORD_COST;
        let counter = match kind {
            Kind::Entry => &mut self.out.entries,
            Kind::Partial => &mut self.out.partials,
        };
        if let Some((len, _)) = &old {
            *counter = counter.saturating_sub(1);
            self.out.bytes = self.out.bytes.saturating_sub(cost(*len));
        }
        if let Some((bytes, _)) = &new {
            *counter += 1;
            self.out.bytes += cost(bytes.len());
        }
        let bytes = new
            .map(|(bytes, blocks)| cost(bytes.len()) + blocks.values().map(|l| u64::from(*l)).sum::<u64>());
        self.place(kind, name, bytes, record.is_some_and(|record| record.pinned))
    }

    /// Puts a key of `bytes` where it belongs in the order of eviction; `None` takes it out.
    fn place(&mut self, kind: Kind, name: &str, bytes: Option<u64>, pinned: bool) -> Result<(), IndexError> {
        let old = self.unplace(kind, name)?;
        let Some(bytes) = bytes else { return Ok(()) };
        let segment = match old {
            _ if pinned => PINNED,
            Some((MAIN, ..)) => MAIN,
            _ => PROBATION,
        };
        self.insert(kind, name, (segment, self.around.now.0, bytes))
    }

    fn unplace(&mut self, kind: Kind, name: &str) -> Result<Option<(u8, u64, u64)>, IndexError> {
        let Some(old) = self.places.remove((kind as u8, name)).or_index()?.map(|old| old.value()) else {
            return Ok(None);
        };
        let (segment, stamp, bytes) = old;
        self.order.remove((segment, stamp, kind as u8, name)).or_index()?;
        if let Some(sum) = self.segments.get_mut(usize::from(segment)) {
            *sum = sum.saturating_sub(bytes);
        }
        Ok(Some(old))
    }

    fn insert(&mut self, kind: Kind, name: &str, place: (u8, u64, u64)) -> Result<(), IndexError> {
        let (segment, stamp, bytes) = place;
        self.places.insert((kind as u8, name), place).or_index()?;
        self.order.insert((segment, stamp, kind as u8, name), bytes).or_index()?;
        if let Some(sum) = self.segments.get_mut(usize::from(segment)) {
            *sum += bytes;
        }
        Ok(())
    }

    fn note_use(&mut self, key: &Key, at: Timestamp) -> Result<(), IndexError> {
        let name = key.as_str();
        if let Some((segment, stamp, bytes)) = self.unplace(Kind::Entry, name)? {
            // Used again: out of probation.
            self.insert(Kind::Entry, name, (segment.max(MAIN), stamp.max(at.0), bytes))?;
        }
        Ok(())
    }

    fn evict(&mut self) -> Result<(), IndexError> {
        while self.is_over() {
            if self.out.evicted.len() >= VICTIMS {
                self.out.more = true;
                return Ok(());
            }
            let limit = self.around.space.limit();
            let [probation, ..] = self.segments;
            let first = if probation.saturating_mul(10) > limit { PROBATION } else { MAIN };
            let mut victims = Vec::new();
            for segment in [first, PROBATION, MAIN, PINNED] {
                victims = self.oldest(segment)?;
                if !victims.is_empty() {
                    break;
                }
            }
            if victims.is_empty() {
                return Ok(());
            }
            for (segment, stamp, kind, key) in victims {
                if !self.is_over() {
                    return Ok(());
                }
                let before = self.out.bytes;
                self.set(kind, &key, None)?;
                // In a damaged index it may stand in the order twice, or for nothing: then it would come again for ever.
                self.order.remove((segment, stamp, kind as u8, key.as_str())).or_index()?;
                self.evicted_bytes += before.saturating_sub(self.out.bytes);
                self.out.evicted.push((kind, key));
            }
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        let space = self.around.space;
        let wanted = self.out.bytes.saturating_add(self.loose).saturating_add(space.reserved());
        (!space.is_full() && wanted > space.limit()) || self.evicted_bytes < space.extra()
    }

    /// The next few of a segment that may go.
    fn oldest(&self, segment: u8) -> Result<Vec<(u8, u64, Kind, Key)>, IndexError> {
        let mut found = Vec::new();
        for row in self.order.range((segment, 0, 0, "")..(segment + 1, 0, 0, "")).or_index()? {
            let (place, _) = row.or_index()?;
            let (_, stamp, kind, name) = place.value();
            let kind = if kind == Kind::Entry as u8 { Kind::Entry } else { Kind::Partial };
            let running = kind == Kind::Partial && self.around.now.since(Timestamp(stamp)) < RUNNING;
            if running || self.around.pending.touches(name) {
                continue;
            }
            found.push((segment, stamp, kind, Key::from(name)));
            if found.len() == PICK {
                break;
            }
        }
        Ok(found)
    }

    fn refer(&mut self, digest: &Digest, len: u32) -> Result<(), IndexError> {
        let row = self.row(digest, len)?;
        row.now = row.now.saturating_add(1);
        if row.now == 1 {
            let (len, new) = (u64::from(row.len), row.before == 0);
            self.out.bytes += len;
            if new {
                self.loose = self.loose.saturating_sub(self.around.ledger.counted(digest));
            }
        }
        Ok(())
    }

    fn release(&mut self, digest: &Digest) -> Result<(), IndexError> {
        let row = self.row(digest, 0)?;
        let last = row.now == 1;
        row.now = row.now.saturating_sub(1);
        let len = u64::from(row.len);
        if last {
            self.out.bytes = self.out.bytes.saturating_sub(len);
        }
        Ok(())
    }

    fn row(&mut self, digest: &Digest, len: u32) -> Result<&mut Ref, IndexError> {
        use std::collections::hash_map::Entry;
        match self.refs.entry(*digest) {
            Entry::Occupied(row) => Ok(row.into_mut()),
            Entry::Vacant(free) => {
                let row = self.blocks.get(&digest.0).or_index()?.map(|row| row.value());
                let (before, len) = row.unwrap_or((0, len));
                Ok(free.insert(Ref { before, now: before, len }))
            }
        }
    }

    fn finish(mut self) -> Result<Outcome, IndexError> {
        for (digest, row) in &self.refs {
            if row.now == 0 {
                self.blocks.remove(&digest.0).or_index()?;
                self.out.named.remove(digest);
                let freed = Freed { digest: *digest, len: u64::from(row.len), at_once: row.before == 0 };
                self.out.freed.push(freed);
            } else if row.now != row.before {
                self.blocks.insert(&digest.0, (row.now, row.len)).or_index()?;
            }
        }
        let out = self.out;
        let counters = [("bytes", out.bytes), ("entries", out.entries), ("partials", out.partials)];
        for (name, value) in SEGMENTS.into_iter().zip(self.segments).chain(counters) {
            self.meta.insert(name, value).or_index()?;
        }
        Ok(out)
    }
}

/// The blocks a record names, each once, with their bytes on disk. Where the length is not known yet, the
/// last one is counted as a whole one.
fn blocks_of(record: &Record) -> HashMap<Digest, u32> {
    let BodyMap::Blocks(blocks) = &record.body else { return HashMap::new() };
    let whole = record.length.unwrap_or(u64::MAX);
    let mut start = 0_u64;
    let mut found = HashMap::with_capacity(blocks.len());
    for digest in blocks {
        let len = disk_len(whole.saturating_sub(start).min(BLOCK_BYTES));
        if let Some(digest) = digest {
            found.insert(*digest, u32::try_from(len).unwrap_or(u32::MAX));
        }
        start = start.saturating_add(BLOCK_BYTES);
    }
    found
}
