//! Hot entries and hot blocks, weighed in bytes.
//!
//! moka's TinyLFU may refuse a newcomer, so nothing here is the only copy of anything, except blocks of
//! unstored fills, whose readers keep a hold of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use moka::sync::Cache;

use crate::base::digest::Digest;
use crate::cache::{Entry, Key};

/// Blocks whose checksums are remembered after their entry left memory: 64 GiB of bodies in about 10 MiB.
const REMEMBERED_SUMS: u64 = 65_536;
/// A block that is read this often from disk belongs in memory.
const READS_TO_PROMOTE: u8 = 8;
/// Read counters; two blocks that share one are promoted a little early.
const COUNTERS: usize = 1 << 16;

pub(super) struct Memory {
    entries: Cache<Key, Arc<Entry>>,
    blocks: Cache<Digest, Bytes>,
    block_room: u64,
    sums: Cache<Digest, Arc<[u64]>>,
    reads: Box<[AtomicU8]>,
}

impl Memory {
    /// A quarter of `bytes` for entries, the rest for blocks: entries carry the small bodies (up to 16 KiB,
    /// most requests by number), blocks carry the large ones (most bytes), and an entry without its blocks
    /// still saves the index read.
    pub(super) fn new(bytes: u64) -> Self {
        let entry_room = bytes / 4;
        let block_room = bytes - entry_room;
        Self {
            entries: Cache::builder()
                .max_capacity(entry_room)
                .weigher(|_, entry: &Arc<Entry>| entry.weight())
                .build(),
            blocks: Cache::builder()
                .max_capacity(block_room)
                .weigher(|_, bytes: &Bytes| u32::try_from(bytes.len()).unwrap_or(u32::MAX))
                .build(),
            block_room,
            sums: Cache::new(REMEMBERED_SUMS),
            reads: std::iter::repeat_with(AtomicU8::default).take(COUNTERS).collect(),
        }
    }

    pub(super) fn entry(&self, key: &str) -> Option<Arc<Entry>> {
        self.entries.get(key)
    }

    /// The keys of all entries in here.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.entries.iter().map(|(key, _)| Key::clone(&key)).collect()
    }

    pub(super) fn keep_entry(&self, entry: &Arc<Entry>) {
        self.entries.insert(entry.key.clone(), Arc::clone(entry));
    }

    pub(super) fn drop_entry(&self, key: &str) {
        self.entries.invalidate(key);
    }

    pub(super) fn block(&self, digest: &Digest) -> Option<Bytes> {
        self.blocks.get(digest)
    }

    pub(super) fn keep_block(&self, digest: Digest, bytes: Bytes) {
        self.blocks.insert(digest, bytes);
    }

    pub(super) fn drop_block(&self, digest: &Digest) {
        self.blocks.invalidate(digest);
    }

    /// Whether a block of this length finds room without displacing another.
    pub(super) fn has_room(&self, len: usize) -> bool {
        self.blocks.weighted_size().saturating_add(len as u64) <= self.block_room
    }

    pub(super) fn sums(&self, digest: &Digest) -> Option<Arc<[u64]>> {
        self.sums.get(digest)
    }

    pub(super) fn keep_sums(&self, digest: Digest, sums: Arc<[u64]>) {
        self.sums.insert(digest, sums);
    }

    /// Counts a read of a block's beginning from disk; whether it should come into memory now.
    pub(super) fn count_read(&self, digest: &Digest) -> bool {
        self.counter(digest).is_some_and(|n| n.fetch_add(1, Ordering::Relaxed) >= READS_TO_PROMOTE - 1)
    }

    /// Whether the last count said so; the counter starts again.
    pub(super) fn take_promotion(&self, digest: &Digest) -> bool {
        self.counter(digest).is_some_and(|n| {
            let due = n.load(Ordering::Relaxed) >= READS_TO_PROMOTE;
            if due {
                n.store(0, Ordering::Relaxed);
            }
            due
        })
    }

    fn counter(&self, digest: &Digest) -> Option<&AtomicU8> {
        let [a, b, ..] = digest.0;
        self.reads.get(usize::from(u16::from_le_bytes([a, b])))
    }

    /// Lets go of what was dropped or displaced. moka does this by itself on use; eviction must not wait.
    pub(super) fn settle(&self) {
        self.entries.run_pending_tasks();
        self.blocks.run_pending_tasks();
    }

    pub(super) fn bytes(&self) -> u64 {
        self.entries.weighted_size() + self.blocks.weighted_size()
    }
}
