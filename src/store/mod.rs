//! Blocks on disk, hot blocks in memory, and the index of what there is.

mod error;
mod options;
mod totals;

use std::sync::Arc;

use bytes::Bytes;

use crate::base::clock::Clock;
use crate::base::digest::Digest;
use crate::cache::{Block, Entry, Key, Record};

pub use error::{BadBlock, Damage, OpenError, Refused, WriteError};
pub use options::Options;
pub use totals::{Evictions, IntegrityFailures, ScrubReport, Totals};

/// The store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store(Arc<()>);

/// The right to write this many bytes. Dropping it gives back what was not settled.
#[derive(Debug)]
pub struct Reservation(());

impl Reservation {
    /// Asks for `bytes` more.
    ///
    /// # Errors
    /// [`Refused`]; what was granted before stays.
    pub fn grow(&mut self, _bytes: u64) -> Result<(), Refused> {
        todo!()
    }
    /// Says that `bytes` of it are written now.
    pub fn settle(&mut self, _bytes: u64) {
        todo!()
    }
    /// What is left of it.
    pub fn left(&self) -> u64 {
        todo!()
    }
}

impl Store {
    /// Opens the store of `options.dir` and returns at once, whatever the number of entries.
    pub fn open(_options: Options, _clock: Clock) -> Result<Self, OpenError> {
        todo!()
    }
    /// The entry of `key`, if it is in memory.
    pub fn hot(&self, _key: &str) -> Option<Arc<Entry>> {
        todo!()
    }
    /// The entry of `key`.
    pub async fn find(&self, _key: &str) -> Option<Arc<Entry>> {
        todo!()
    }
    /// The unfinished body of `key`.
    pub async fn find_partial(&self, _key: &str) -> Option<Record> {
        todo!()
    }
    /// Keeps an entry.
    pub fn put(&self, _entry: Entry) -> Arc<Entry> {
        todo!()
    }
    /// Keeps the progress of a fill.
    pub fn put_partial(&self, _key: &Key, _record: Record) {
        todo!()
    }
    /// Forgets the unfinished body of `key`.
    pub fn drop_partial(&self, _key: &Key) {
        todo!()
    }
    /// Forgets an entry.
    pub fn remove(&self, _key: &str) {
        todo!()
    }
    /// Notes a use, for eviction.
    pub fn note_use(&self, _entry: &Entry) {
        todo!()
    }
    /// Room on disk, before a fill.
    pub fn reserve(&self, _bytes: u64) -> Result<Reservation, Refused> {
        todo!()
    }
    /// Writes a block.
    pub async fn write_block(&self, _bytes: Bytes) -> Result<Block, WriteError> {
        todo!()
    }
    /// Keeps a block in memory only.
    pub fn keep_in_memory(&self, _digest: Digest, _bytes: &Bytes) {
        todo!()
    }
    /// The block, if it is in memory.
    pub fn block_in_memory(&self, _digest: &Digest) -> Option<Bytes> {
        todo!()
    }
    /// Bytes of a block without waiting.
    pub fn try_piece(
        &self,
        _block: &Block,
        _block_len: usize,
        _offset: usize,
        _max: usize,
    ) -> Option<Result<Bytes, BadBlock>> {
        todo!()
    }
    /// Bytes of a block.
    pub async fn piece(
        &self,
        _block: &Block,
        _block_len: usize,
        _offset: usize,
        _max: usize,
    ) -> Result<Bytes, BadBlock> {
        todo!()
    }
    /// Drops a bad block.
    pub fn drop_block(&self, _digest: &Digest, _damage: Damage) {
        todo!()
    }
    /// Writes healed bytes of a block.
    pub async fn rewrite_block(&self, _digest: Digest, _bytes: Bytes) -> Result<(), WriteError> {
        todo!()
    }
    /// A moment's figures.
    pub fn totals(&self) -> Totals {
        todo!()
    }
    /// One pass over all blocks.
    pub async fn scrub(&self, _bytes_per_second: u64) -> ScrubReport {
        todo!()
    }
    /// Commits everything and stops.
    pub async fn close(&self) {
        todo!()
    }
}
