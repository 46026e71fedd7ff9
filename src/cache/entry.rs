//! An entry as it is served from: complete, immutable, shared by everybody who reads it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;

use super::key::Key;
use super::prepared::Prepared;
use super::record::{BodyMap, Head, Record};
use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::base::limits::BLOCK_BYTES;

/// Fast checksums (xxh3, 64 bits) of the pieces of one block, in order.
pub type PieceSums = Box<[u64]>;

/// One block of a body, and what this process knows about its copy on disk.
#[derive(Debug)]
pub struct Block {
    /// Its name: the SHA-256 of its bytes.
    pub digest: Digest,
    /// Set once its bytes were checked against `digest` since the start; later reads check these instead.
    pub sums: OnceLock<PieceSums>,
}

impl Block {
    /// A block of which nothing but the name is known.
    pub const fn unchecked(digest: Digest) -> Self {
        Self { digest, sums: OnceLock::new() }
    }
}

/// The bytes of an entry.
#[derive(Debug)]
pub enum EntryBody {
    /// In memory with the entry.
    Inline(Bytes),
    /// In the store, by block.
    Blocks(Box<[Block]>),
}

/// A complete entry.
#[derive(Debug)]
pub struct Entry {
    /// Its key.
    pub key: Key,
    /// The stored head.
    pub head: Head,
    /// Length of the body in bytes.
    pub length: u64,
    /// SHA-256 of the body.
    pub digest: Digest,
    /// The body.
    pub body: EntryBody,
    /// Soft-purged.
    pub stale: bool,
    /// Pinned.
    pub pinned: bool,
    prepared: OnceLock<Prepared>,
    used_at: AtomicU64,
    uses: AtomicU32,
}

impl Entry {
    /// A complete entry.
    pub fn new(key: Key, head: Head, length: u64, digest: Digest, body: EntryBody) -> Self {
        let used_at = AtomicU64::new(head.received_at.0);
        Self {
            key,
            head,
            length,
            digest,
            body,
            stale: false,
            pinned: false,
            prepared: OnceLock::new(),
            used_at,
            uses: AtomicU32::new(0),
        }
    }

    /// The entry of a complete record; `None` where the record is not complete or contradicts itself.
    pub fn from_record(key: Key, record: Record) -> Option<Self> {
        if !record.is_complete() {
            return None;
        }
        let length = record.length?;
        let body = match record.body {
            BodyMap::Inline(bytes) if bytes.len() as u64 == length => EntryBody::Inline(bytes.into()),
            BodyMap::Blocks(names) if names.len() as u64 == length.div_ceil(BLOCK_BYTES) => {
                EntryBody::Blocks(names.into_iter().flatten().map(Block::unchecked).collect())
            }
            _ => return None,
        };
        let mut entry = Self::new(key, record.head, length, record.digest?, body);
        entry.stale = record.stale;
        entry.pinned = record.pinned;
        Some(entry)
    }

    /// Answer headers and freshness facts, made on first use and shared by every hit.
    pub fn prepared(&self) -> &Prepared {
        self.prepared.get_or_init(|| Prepared::of(&self.head, self.length, Some(&self.digest)))
    }

    /// The record to keep for this entry.
    pub fn to_record(&self) -> Record {
        let body = match &self.body {
            EntryBody::Inline(bytes) => BodyMap::Inline(bytes.to_vec()),
            EntryBody::Blocks(blocks) => BodyMap::Blocks(blocks.iter().map(|b| Some(b.digest)).collect()),
        };
        Record {
            head: self.head.clone(),
            length: Some(self.length),
            digest: Some(self.digest),
            body,
            stale: self.stale,
            pinned: self.pinned,
        }
    }

    /// The same body under another head: what a revalidation leaves behind (RFC 9111 §4.3.4).
    #[must_use]
    pub fn with_head(&self, head: Head) -> Self {
        let body = match &self.body {
            EntryBody::Inline(bytes) => EntryBody::Inline(bytes.clone()),
            EntryBody::Blocks(blocks) => EntryBody::Blocks(
                blocks.iter().map(|b| Block { digest: b.digest, sums: b.sums.clone() }).collect(),
            ),
        };
        let mut entry = Self::new(self.key.clone(), head, self.length, self.digest, body);
        entry.pinned = self.pinned;
        let (at, uses) = self.usage();
        entry.used_at.store(at.0, Ordering::Relaxed);
        entry.uses.store(uses, Ordering::Relaxed);
        entry
    }

    /// The same head and body under another key.
    #[must_use]
    pub fn renamed(&self, key: Key, pinned: bool) -> Self {
        Self { key, pinned, ..self.with_head(self.head.clone()) }
    }

    /// The same entry, stale or pinned as said.
    #[must_use]
    pub fn marked(&self, stale: bool, pinned: bool) -> Self {
        let mut entry = self.with_head(self.head.clone());
        (entry.stale, entry.pinned) = (stale, pinned);
        entry
    }

    /// Length in bytes of block `index`.
    pub fn block_len(&self, index: usize) -> usize {
        let start = BLOCK_BYTES.saturating_mul(index as u64);
        self.length.saturating_sub(start).min(BLOCK_BYTES) as usize
    }

    /// Notes a use, for eviction. Returns whether this is the first within `every` milliseconds: only then is
    /// it worth telling the index.
    pub fn note_use(&self, now: Timestamp, every: u64) -> bool {
        self.uses.fetch_add(1, Ordering::Relaxed);
        let last = self.used_at.load(Ordering::Relaxed);
        now.0.saturating_sub(last) >= every
            && self.used_at.compare_exchange(last, now.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// When it was last used, and how often since it came into memory.
    pub fn usage(&self) -> (Timestamp, u32) {
        (Timestamp(self.used_at.load(Ordering::Relaxed)), self.uses.load(Ordering::Relaxed))
    }

    /// Bytes this entry takes in memory, for the record cache's weigher.
    pub fn weight(&self) -> u32 {
        let body = match &self.body {
            EntryBody::Inline(bytes) => bytes.len(),
            // Digest, checksums of eight pieces, and their boxes.
            EntryBody::Blocks(blocks) => blocks.len() * 160,
        };
        let headers: usize =
            self.head.headers.iter().map(|(name, value)| name.len() + value.len() + 48).sum();
        u32::try_from(body + 2 * headers + self.key.as_str().len() + 512).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_contradicts_itself_is_no_entry() {
        let record = |length, body| Record {
            head: Head::default(),
            length: Some(length),
            digest: Some(Digest::of(b"")),
            body,
            stale: false,
            pinned: false,
        };
        let of = |record| Entry::from_record(Key::new("r", "/x", None), record).is_some();
        assert!(of(record(2, BodyMap::Inline(b"ab".to_vec()))));
        assert!(!of(record(3, BodyMap::Inline(b"ab".to_vec()))));
        let blocks = |n| BodyMap::Blocks(vec![Some(Digest::of(b"x")); n]);
        assert!(of(record(BLOCK_BYTES + 1, blocks(2))));
        assert!(!of(record(BLOCK_BYTES + 1, blocks(1))));
    }

    #[test]
    fn uses_reach_the_index_only_now_and_then() {
        let head = Head { received_at: Timestamp(1_000), ..Head::default() };
        let entry =
            Entry::new(Key::new("r", "/x", None), head, 0, Digest::of(b""), EntryBody::Inline(Bytes::new()));
        assert!(!entry.note_use(Timestamp(1_500), 1_000));
        assert!(entry.note_use(Timestamp(2_000), 1_000));
        assert!(!entry.note_use(Timestamp(2_100), 1_000));
        assert_eq!(entry.usage(), (Timestamp(2_000), 3));
    }
}
