//! The index's totals, and how they are counted anew where they or a record turn out to be damaged.
//!
//! redb compares checksums when it recovers a file, not when it reads. Records carry checksums of their own; the totals
//! carry one together. A flipped bit in them would make the cache evict everything, or never anything.

use std::collections::HashMap;

use redb::{ReadableTable, Table, WriteTransaction};
use xxhash_rust::xxh3::xxh3_64;

use super::apply::{Kind, PROBATION, blocks_of, cost_of};
use super::index::{BLOCKS, ENTRIES, IndexError, META, ORDER, OrIndex, PARTIALS, PLACES, parse_row};
use super::ledger::Freed;
use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::cache::Key;

/// The names of the totals, in the order of [`Tally::values`].
const NAMES: [&str; 6] = ["bytes", "entries", "partials", "probation", "main", "pinned"];
const SUM: &str = "sum";

/// What all rows together come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Bytes on disk that records name, their own included.
    pub(super) bytes: u64,
    pub(super) entries: u64,
    pub(super) partials: u64,
    /// Bytes in each segment of the order of eviction.
    pub(super) segments: [u64; 3],
}

impl Tally {
    const fn values(&self) -> [u64; 6] {
        let [probation, main, pinned] = self.segments;
        [self.bytes, self.entries, self.partials, probation, main, pinned]
    }

    fn sum(&self) -> u64 {
        xxh3_64(&self.values().map(u64::to_le_bytes).concat())
    }

    /// From the table of totals; zero where there is none yet.
    ///
    /// # Errors
    /// [`IndexError::Totals`]: they are not what was written.
    pub(super) fn read(meta: &impl ReadableTable<&'static str, u64>) -> Result<Self, IndexError> {
        let value = |name: &str| Ok::<_, IndexError>(meta.get(name).or_index()?.map(|found| found.value()));
        let mut values = [0; 6];
        for (slot, name) in values.iter_mut().zip(NAMES) {
            *slot = value(name)?.unwrap_or_default();
        }
        let [bytes, entries, partials, segments @ ..] = values;
        let tally = Self { bytes, entries, partials, segments };
        // Files of before the sum have none.
        match value(SUM)? {
            Some(sum) if sum != tally.sum() => Err(IndexError::Totals),
            _ => Ok(tally),
        }
    }

    pub(super) fn write(&self, meta: &mut Table<'_, &'static str, u64>) -> Result<(), IndexError> {
        for (name, value) in NAMES.into_iter().zip(self.values()).chain([(SUM, self.sum())]) {
            meta.insert(name, value).or_index()?;
        }
        Ok(())
    }
}

/// What a recount found.
#[derive(Default)]
pub(super) struct Recount {
    pub(super) tally: Tally,
    /// Keys whose records were damaged: gone.
    pub(super) removed: Vec<(Kind, Key)>,
    /// Blocks that nothing names any more.
    pub(super) freed: Vec<Freed>,
}

/// Counts everything anew from the records that are whole. Walks through the whole index.
pub(super) fn recount(txn: &WriteTransaction, now: Timestamp) -> Result<Recount, IndexError> {
    let mut found = Recount::default();
    let mut refs: HashMap<Digest, (u32, u32)> = HashMap::new();
    let mut order = HashMap::new();
    {
        let places = txn.open_table(PLACES).or_index()?;
        for (kind, table) in [(Kind::Entry, ENTRIES), (Kind::Partial, PARTIALS)] {
            let mut rows = txn.open_table(table).or_index()?;
            for row in rows.iter().or_index()? {
                let (name, row) = row.or_index()?;
                let (name, row) = (name.value(), row.value());
                let Some(record) = parse_row(name, row) else {
                    found.removed.push((kind, Key::from(name)));
                    continue;
                };
                let blocks = blocks_of(&record);
                let cost = cost_of(name, row.len());
                let all = blocks.values().map(|len| u64::from(*len)).sum::<u64>() + cost;
                found.tally.bytes += cost;
                let count = match kind {
                    Kind::Entry => &mut found.tally.entries,
                    Kind::Partial => &mut found.tally.partials,
                };
                *count += 1;
                let place = places.get((kind as u8, name)).or_index()?.map(|place| place.value());
                let (segment, stamp) = match place {
                    Some((segment, stamp, _)) if usize::from(segment) < found.tally.segments.len() => {
                        (segment, stamp.min(now.0))
                    }
                    _ => (PROBATION, now.0),
                };
                order.insert((kind as u8, name.to_owned()), (segment, stamp, all));
                for (digest, len) in blocks {
                    let row = refs.entry(digest).or_insert((0, len));
                    row.0 = row.0.saturating_add(1);
                }
            }
            for (_, key) in found.removed.iter().filter(|(of, _)| *of == kind) {
                rows.remove(key.as_str()).or_index()?;
            }
        }
    }
    rebuild_order(txn, &order, &mut found.tally)?;
    rebuild_blocks(txn, &refs, &mut found)?;
    found.tally.write(&mut txn.open_table(META).or_index()?)?;
    Ok(found)
}

type Places = HashMap<(u8, String), (u8, u64, u64)>;

fn rebuild_order(txn: &WriteTransaction, order: &Places, tally: &mut Tally) -> Result<(), IndexError> {
    txn.delete_table(PLACES).or_index()?;
    txn.delete_table(ORDER).or_index()?;
    let mut places = txn.open_table(PLACES).or_index()?;
    let mut rows = txn.open_table(ORDER).or_index()?;
    for ((kind, name), place) in order {
        let (segment, stamp, bytes) = *place;
        places.insert((*kind, name.as_str()), place).or_index()?;
        rows.insert((segment, stamp, *kind, name.as_str()), bytes).or_index()?;
        if let Some(sum) = tally.segments.get_mut(usize::from(segment)) {
            *sum += bytes;
        }
    }
    Ok(())
}

fn rebuild_blocks(
    txn: &WriteTransaction,
    refs: &HashMap<Digest, (u32, u32)>,
    found: &mut Recount,
) -> Result<(), IndexError> {
    {
        let rows = txn.open_table(BLOCKS).or_index()?;
        for row in rows.iter().or_index()? {
            let (digest, row) = row.or_index()?;
            let digest = Digest(*digest.value());
            if !refs.contains_key(&digest) {
                found.freed.push(Freed { digest, len: u64::from(row.value().1), at_once: false });
            }
        }
    }
    txn.delete_table(BLOCKS).or_index()?;
    let mut rows = txn.open_table(BLOCKS).or_index()?;
    for (digest, row) in refs {
        rows.insert(&digest.0, row).or_index()?;
        found.tally.bytes += u64::from(row.1);
    }
    Ok(())
}
