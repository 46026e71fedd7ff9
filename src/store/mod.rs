//! Blocks on disk, hot blocks and entries in memory, and the index of what there is.
//!
//! - `content`: blocks as files named by their SHA-256 (cacache). Found by whoever has the name.
//! - `index`, `apply`, `tally`, `writer`: records, block counts and order of eviction (redb), written by one thread in
//!   batches. Nobody waits for a commit: `pending` holds what is true and not committed yet.
//! - `ledger`, `space`: blocks without a committed name, and the account of the disk.
//! - `purge`, `listing`, `operate`: what operators want gone, listed, pinned or checked.
//! - `memory`: hot entries and blocks (moka). `read`, `write`: the way of a block, on the threads of `pool`.
//! - `scrub`: reads what nobody asks for, so that rot is found while its bytes can still be fetched again.
//!
//! The store knows no HTTP. Content may be missing after a crash or power cut, never wrong: every byte that
//! leaves was compared with its name or with a checksum made when it was.

mod apply;
mod backend;
mod buffers;
mod content;
mod error;
mod faults;
mod index;
mod ledger;
mod listing;
mod memory;
mod open;
mod operate;
mod options;
mod pending;
mod pool;
mod purge;
mod read;
mod reservation;
mod scrub;
mod shared;
mod space;
mod tally;
mod totals;
mod write;
mod writer;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::base::digest::Digest;
use crate::cache::purge::Fate;
use crate::cache::{Block, Entry, Key, Record};
use open::Handle;
use pool::Lane;
use read::Ask;
use shared::{Shared, count};

pub use error::{BadBlock, Damage, OpenError, Refused, WriteError};
#[cfg(any(test, feature = "testkit"))]
pub use faults::{CrashPoint, Faults};
pub use listing::Counted;
pub use operate::{Checked, Listed};
pub use options::Options;
pub use purge::PurgeError;
pub use reservation::Reservation;
pub use totals::{Evictions, IntegrityFailures, ScrubReport, Totals};

/// How long a look-up waits for the index of a store that was just opened. Recovery takes milliseconds; a
/// look-up that gives up costs a fetch over the WAN.
const START_WAIT: Duration = Duration::from_secs(10);
/// How long a block waits for room, and how often it is tried.
const ROOM_WAIT: Duration = Duration::from_secs(5);
/// Uses of one entry that the index hears of: one a minute.
const USE_EVERY: Duration = Duration::from_secs(60);

/// The store. Cheap to clone; when the last clone goes, its threads end without committing what waits: that
/// is what [`Store::close`] is for.
#[derive(Clone)]
pub struct Store(Arc<Handle>);

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.shared().options.dir).finish()
    }
}

impl Store {
    fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    /// The entry of `key`, if it is in memory. Neither waits nor locks: the hit path.
    pub fn hot(&self, key: &str) -> Option<Arc<Entry>> {
        let entry = self.shared().memory.entry(key)?;
        // What was purged takes the long way, where it is told apart from what is new.
        self.shared().is_spared(&entry).then_some(entry)
    }

    /// The entry of `key`, from memory, from what waits to be committed, or from the index. Errors of the
    /// index are logged, counted, and absence. Costs a file read where it is not in memory.
    pub async fn find(&self, key: &str) -> Option<Arc<Entry>> {
        let entry = self.find_any(key).await?;
        self.shared().spare(entry)
    }

    async fn find_any(&self, key: &str) -> Option<Arc<Entry>> {
        let shared = self.shared();
        for _ in 0..3 {
            if let Some(entry) = shared.memory.entry(key) {
                return Some(entry);
            }
            let number = shared.pending.number();
            if let Some(waiting) = shared.pending.entry(key) {
                return waiting;
            }
            let entry = Arc::new(self.find_on_disk(key).await?);
            match shared.pending.adopt(entry, number, &shared.memory) {
                Ok(entry) => return Some(entry),
                // Something changed meanwhile, maybe this very key: look again.
                Err(_) if shared.pending.entry(key).is_some() => {}
                Err(entry) => {
                    shared.pending.register(&entry);
                    return Some(entry);
                }
            }
        }
        shared.memory.entry(key)
    }

    async fn find_on_disk(&self, key: &str) -> Option<Entry> {
        let record = self.look_up(key, |shared, key| shared.index.entry(key)).await?;
        Entry::from_record(Key::from(key), record)
    }

    /// The unfinished body of `key`, with the blocks that are here.
    pub async fn find_partial(&self, key: &str) -> Option<Record> {
        let found = match self.shared().pending.partial(key) {
            Some(waiting) => waiting.map(|record| (*record).clone()),
            None => self.look_up(key, |shared, key| shared.index.partial(key)).await,
        };
        found.filter(|record| self.shared().is_partial_spared(key, record))
    }

    async fn look_up(
        &self,
        key: &str,
        ask: impl FnOnce(&Shared, &str) -> Result<Option<Record>, index::IndexError> + Send + 'static,
    ) -> Option<Record> {
        self.index_opened().await;
        let (shared, key) = (Arc::clone(self.shared()), key.to_owned());
        let job = move || {
            ask(&shared, &key).unwrap_or_else(|error| {
                // That it is not open was told when it was tried.
                if !matches!(error, index::IndexError::NotOpen) {
                    shared.index_failed(&error);
                }
                None
            })
        };
        self.0.pool.run(Lane::Read, job).await.flatten()
    }

    async fn index_opened(&self) {
        let mut started = self.shared().started.subscribe();
        let _ = tokio::time::timeout(START_WAIT, started.wait_for(|started| *started)).await;
    }

    /// Keeps a complete entry in the place of what was there, its unfinished body included. Visible at once;
    /// committed in the background. What was asked for before a purge of it is not kept; readers have it all the
    /// same.
    pub fn put(&self, entry: Entry) -> Arc<Entry> {
        if !self.shared().is_spared(&entry) {
            return match self.shared().fate_of(&entry) {
                Fate::Gone => Arc::new(entry),
                _ => self.shared().pending.put(entry.marked(true, entry.pinned), &self.shared().memory),
            };
        }
        self.shared().pending.put(entry, &self.shared().memory)
    }

    /// Keeps the progress of a fill, so that the next one continues there. The latest wins.
    pub fn put_partial(&self, key: &Key, record: Record) {
        self.shared().pending.put_partial(key, Some(record));
    }

    /// Forgets the unfinished body of `key`.
    pub fn drop_partial(&self, key: &Key) {
        self.shared().pending.put_partial(key, None);
    }

    /// Forgets the entry of `key`. Readers that have it already keep its bytes until they are done.
    pub fn remove(&self, key: &str) {
        self.shared().pending.remove(key, &self.shared().memory);
    }

    /// Notes a use, for eviction. Cheap: the index hears of it at most once a minute.
    pub fn note_use(&self, entry: &Entry) {
        let now = self.shared().clock.now();
        let every = u64::try_from(USE_EVERY.as_millis()).unwrap_or(u64::MAX);
        if entry.note_use(now, every) {
            self.shared().pending.note_use(&entry.key, now);
        }
    }

    /// Room on disk for `bytes`, before a fill. What must go for it is evicted behind.
    ///
    /// # Errors
    /// [`Refused`]: run the fill unstored.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation, Refused> {
        Reservation::of(self.shared(), bytes)
    }

    /// Writes a block of a running fill, unless its like is there. Offers it to memory too: `bytes` should be
    /// an allocation of its own, or more than the block stays in memory.
    ///
    /// # Errors
    /// [`WriteError`], after evicting and trying again where its own limit was reached: go on unstored. Otherwise the
    /// store is degraded then and refuses reservations until the disk takes blocks again.
    pub async fn write_block(&self, bytes: Bytes) -> Result<Block, WriteError> {
        let shared = self.shared();
        let deadline = tokio::time::Instant::now() + ROOM_WAIT;
        loop {
            let mut rounds = shared.rounds.subscribe();
            let (job_shared, job_bytes) = (Arc::clone(shared), bytes.clone());
            let job = move || job_shared.write_new(&job_bytes);
            let written = self.0.pool.run(Lane::Write, job).await.ok_or(WriteError::Closing)?;
            let failure = match written {
                Ok(block) => return Ok(block),
                Err(failure) => failure,
            };
            if !shared.ask_for_room(&failure, bytes.len()) {
                return Err(shared.write_failed(failure));
            }
            // A round that is under way has not heard of this; the one after it has.
            for _ in 0..2 {
                if tokio::time::timeout_at(deadline, rounds.changed()).await.is_err() {
                    return Err(shared.write_failed(failure));
                }
            }
        }
    }

    /// Keeps a block of an unstored fill in memory. Memory may refuse it.
    pub fn keep_in_memory(&self, digest: Digest, bytes: &Bytes) {
        self.shared().memory.keep_block(digest, bytes.clone());
    }

    /// The block, if it is in memory.
    pub fn block_in_memory(&self, digest: &Digest) -> Option<Bytes> {
        self.shared().memory.block(digest)
    }

    /// Bytes of a block from `offset` on, at most `max` and at most to the end of the 128 KiB piece that
    /// `offset` is in (from memory: of the block). Never waits; `None` where it would have to: then ask
    /// [`Store::piece`]. From the page cache it costs a copy and a checksum, some 20 µs a piece.
    ///
    /// # Errors
    /// [`BadBlock`]: fetch its bytes again and give them to [`Store::rewrite_block`].
    pub fn try_piece(
        &self,
        block: &Block,
        block_len: usize,
        offset: usize,
        max: usize,
    ) -> Option<Result<Bytes, BadBlock>> {
        let ask = Ask { digest: block.digest, block_len, offset, max };
        let answer = self.shared().try_piece(block, &ask);
        if let Some(Err(bad)) = answer {
            self.unlink(bad);
        }
        answer
    }

    /// As [`Store::try_piece`], from the disk. The first read of a block since the start reads all of it and
    /// compares its SHA-256.
    ///
    /// # Errors
    /// [`BadBlock`]: fetch its bytes again and give them to [`Store::rewrite_block`].
    pub async fn piece(
        &self,
        block: &Block,
        block_len: usize,
        offset: usize,
        max: usize,
    ) -> Result<Bytes, BadBlock> {
        let ask = Ask { digest: block.digest, block_len, offset, max };
        let piece = offset / crate::base::limits::PIECE_BYTES;
        let sum = block.sums.get().and_then(|sums| sums.get(piece)).copied();
        let shared = Arc::clone(self.shared());
        let read = self.0.pool.run(Lane::Read, move || {
            let read = shared.read_piece(&ask, sum);
            if let Err(bad) = &read {
                shared.unlink_bad(*bad);
            }
            read
        });
        let gone = BadBlock { digest: block.digest, damage: Damage::Unavailable };
        let (bytes, sums) = read.await.ok_or(gone)??;
        if let (None, Some(sums)) = (block.sums.get(), sums) {
            // Another reader may have set the same.
            let _ = block.sums.set(sums.iter().copied().collect());
        }
        Ok(bytes)
    }

    /// Drops a block that the data plane found to be bad. Counted.
    pub fn drop_block(&self, digest: &Digest, damage: Damage) {
        count(&self.shared().counts.bad_reported);
        self.shared().forget(digest);
        self.unlink(BadBlock { digest: *digest, damage });
    }

    fn unlink(&self, bad: BadBlock) {
        let shared = Arc::clone(self.shared());
        self.0.pool.try_spawn(move || shared.unlink_bad(bad));
    }

    /// Puts healed bytes in the place of a damaged block.
    ///
    /// # Errors
    /// [`WriteError::Mismatch`] where they are not the block's: blame their source. Else the disk does not
    /// take them; they are in memory all the same.
    pub async fn rewrite_block(&self, digest: Digest, bytes: Bytes) -> Result<(), WriteError> {
        let shared = Arc::clone(self.shared());
        let job = move || shared.rewrite(&digest, &bytes);
        self.0.pool.run(Lane::Write, job).await.ok_or(WriteError::Closing)?
    }

    /// A moment's figures.
    pub fn totals(&self) -> Totals {
        self.shared().totals()
    }

    /// Commits everything that waits and ends the threads. Later calls find what is in memory.
    pub async fn close(&self) {
        self.0.close().await;
    }
}
