//! What the threads of a store and its handles have in common.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::buffers::Buffers;
use super::content::Content;
use super::faults::Faults;
use super::index::{Index, IndexError};
use super::ledger::Ledger;
use super::memory::Memory;
use super::options::Options;
use super::pending::Pending;
use super::purge::Purges;
use super::space::Space;
use super::totals::{Evictions, IntegrityFailures, Totals};
use crate::base::clock::Clock;
use crate::base::digest::Digest;

/// Open files of blocks that are being read: an open saved for every piece after the first.
const HANDLES: u64 = 512;

pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) clock: Clock,
    pub(super) faults: Faults,
    pub(super) content: Content,
    pub(super) index: Index,
    pub(super) memory: Memory,
    pub(super) pending: Pending,
    pub(super) purges: Purges,
    pub(super) ledger: Ledger,
    pub(super) space: Space,
    pub(super) buffers: Buffers,
    pub(super) handles: Cache<Digest, Arc<File>>,
    pub(super) counts: Counts,
    /// Whether the index was tried to be opened; before that a look-up waits.
    pub(super) started: watch::Sender<bool>,
    /// Grows when room was made or could not be made.
    pub(super) rounds: watch::Sender<u64>,
    /// A read met damage in the index file.
    pub(super) suspect: AtomicBool,
    /// Totals or a record are damaged: what is there is to be counted anew.
    pub(super) miscounted: AtomicBool,
    /// The directory's lock. Held, not used.
    pub(super) lock: Mutex<Option<File>>,
}

/// Figures that only grow, and two that the last commit left.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) entries: AtomicU64,
    pub(super) partials: AtomicU64,
    pub(super) bad_read: AtomicU64,
    pub(super) bad_scrub: AtomicU64,
    pub(super) bad_reported: AtomicU64,
    pub(super) scrubbed: AtomicU64,
    pub(super) evicted_size: AtomicU64,
    pub(super) evicted_disk: AtomicU64,
    pub(super) evicted_partial: AtomicU64,
    pub(super) index_errors: AtomicU64,
    pub(super) index_replaced: AtomicU64,
    pub(super) orphans: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Shared {
    pub(super) fn new(options: Options, clock: Clock, faults: Faults) -> Self {
        Self {
            content: Content::new(&options.dir, faults.clone()),
            index: Index::new(&options.dir, faults.clone()),
            memory: Memory::new(options.memory),
            pending: Pending::default(),
            purges: Purges::open(&options.dir),
            ledger: Ledger::default(),
            space: Space::new(options.size, options.min_free, options.max_object),
            buffers: Buffers::default(),
            handles: Cache::new(HANDLES),
            counts: Counts::default(),
            started: watch::Sender::new(false),
            rounds: watch::Sender::new(0),
            suspect: AtomicBool::new(false),
            miscounted: AtomicBool::new(false),
            lock: Mutex::new(None),
            options,
            clock,
            faults,
        }
    }

    /// An error of the index is absence to whoever asked, and a count and a line in the log to us.
    pub(super) fn index_failed(&self, error: &IndexError) {
        count(&self.counts.index_errors);
        tracing::warn!(%error, "cache index");
        if matches!(error, IndexError::Damaged(_)) {
            self.suspect.store(true, Ordering::Relaxed);
            self.pending.hurry();
        }
        if matches!(error, IndexError::Row(_) | IndexError::Totals) {
            self.miscounted.store(true, Ordering::Relaxed);
            self.pending.hurry();
        }
    }

    pub(super) fn totals(&self) -> Totals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.counts;
        Totals {
            entries: read(&counts.entries),
            partials: read(&counts.partials),
            bytes: self.space.used(),
            limit: self.space.limit(),
            reserved: self.space.reserved(),
            memory_bytes: self.memory.bytes(),
            degraded: self.space.degraded(),
            integrity_failures: IntegrityFailures {
                read: read(&counts.bad_read),
                scrub: read(&counts.bad_scrub),
                reported: read(&counts.bad_reported),
            },
            scrubbed: read(&counts.scrubbed),
            evictions: Evictions {
                size: read(&counts.evicted_size),
                disk: read(&counts.evicted_disk),
                partial: read(&counts.evicted_partial),
            },
            unrecorded: self.pending.unrecorded(),
            index_errors: read(&counts.index_errors),
            index_replaced: read(&counts.index_replaced),
            orphans: read(&counts.orphans),
        }
    }
}
