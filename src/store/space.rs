//! The account of the disk: what is used, what is promised, and whether the disk can be trusted with more.
//!
//! All figures are atomics; `trouble` and `full_since` are locked for an assignment, one after the other.
//!
//! There are two ways to be out of room. Within the limit (the size, or what the file system has beyond its reserve)
//! old files make room for new ones. A disk that is full all the same was filled by somebody else, who would take what
//! eviction frees as well: then nothing is evicted, hits go on, and misses go through unstored. Only after
//! [`GIVE_WAY_AFTER`] a sixteenth goes, or a cache that shares its disk for good would keep yesterday's files for ever.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::io::Errno;

use super::error::{Refused, WriteError};
use crate::base::clock::Timestamp;

/// How long nothing new is stored after the disk failed; then one attempt decides.
pub(super) const DEGRADED_FOR: Duration = Duration::from_secs(10);

/// How long a full disk is an accident that somebody is about to repair.
pub(super) const GIVE_WAY_AFTER: Duration = Duration::from_secs(600);
/// The part of the cache that goes then.
const GIVE_WAY: u64 = 16;
/// Below so many bytes, or this part of a small file system, a disk is full: index, directories and the next write
/// need that much.
const FULL_BELOW: u64 = 16 << 20;
const FULL_BELOW_PART: u64 = 16;
/// Below so many free inodes a disk is full.
const FULL_BELOW_FILES: u64 = 16;

/// What a file of this many bytes takes on a disk with blocks of 4 KiB.
pub(super) const fn disk_len(len: u64) -> u64 {
    len.next_multiple_of(4096)
}

/// What is wrong with the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    Full,
    ReadOnly,
    Failing,
    Unopened,
    Locked,
}

impl Trouble {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "disk-full",
            Self::ReadOnly => "read-only",
            Self::Failing => "disk-failing",
            Self::Unopened => "index-unavailable",
            Self::Locked => "directory-locked",
        }
    }

    pub(super) fn of(error: &io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            // Out of inodes is ENOSPC, too.
            Some(Errno::NOSPC | Errno::DQUOT) => Self::Full,
            Some(Errno::ROFS) => Self::ReadOnly,
            _ if error.kind() == io::ErrorKind::StorageFull => Self::Full,
            _ => Self::Failing,
        }
    }

    pub(super) fn to_error(self, error: io::Error) -> WriteError {
        match self {
            Self::Full => WriteError::Full,
            Self::ReadOnly => WriteError::ReadOnly,
            _ => WriteError::Disk(error),
        }
    }
}

#[derive(Debug)]
pub(super) struct Space {
    size: u64,
    min_free: u64,
    max_object: u64,
    /// Bytes that records name, as of the last commit.
    named: AtomicU64,
    /// Bytes on disk that no committed record names: blocks of running fills, and freed ones still read.
    loose: AtomicU64,
    reserved: AtomicU64,
    limit: AtomicU64,
    /// Bytes to evict beyond the limit, because the disk said it is full.
    extra: AtomicU64,
    trouble: Mutex<[Option<(Trouble, Timestamp)>; 2]>,
    /// Whether the disk takes no blocks because it is full, and since when, or since it last gave way.
    full: AtomicBool,
    full_since: Mutex<Option<Timestamp>>,
}

/// What a file system says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Disk {
    pub(super) bytes: u64,
    pub(super) free: u64,
    /// Free inodes, where it counts them.
    pub(super) files: Option<u64>,
}

impl Disk {
    fn full_below(&self) -> u64 {
        FULL_BELOW.min(self.bytes / FULL_BELOW_PART)
    }

    fn is_full(&self) -> bool {
        self.free < self.full_below() || self.files.is_some_and(|files| files < FULL_BELOW_FILES)
    }
}

/// Who met the trouble: only the same one can say that it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Blocks = 0,
    Index = 1,
}

impl Space {
    pub(super) fn new(size: u64, min_free: u64, max_object: u64) -> Self {
        Self {
            size,
            min_free,
            max_object: max_object.min(size),
            named: AtomicU64::new(0),
            loose: AtomicU64::new(0),
            reserved: AtomicU64::new(0),
            limit: AtomicU64::new(size),
            extra: AtomicU64::new(0),
            trouble: Mutex::new([None, None]),
            full: AtomicBool::new(false),
            full_since: Mutex::new(None),
        }
    }

    pub(super) fn used(&self) -> u64 {
        self.named.load(Ordering::Relaxed).saturating_add(self.loose.load(Ordering::Relaxed))
    }

    pub(super) fn loose(&self) -> u64 {
        self.loose.load(Ordering::Relaxed)
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    pub(super) fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed)
    }

    pub(super) fn extra(&self) -> u64 {
        self.extra.load(Ordering::Relaxed)
    }

    /// Asks the writer to free this much more than the limit wants.
    pub(super) fn want_extra(&self, bytes: u64) {
        self.extra.fetch_max(bytes, Ordering::Relaxed);
    }

    pub(super) fn extra_done(&self) {
        self.extra.store(0, Ordering::Relaxed);
    }

    /// Whether eviction has work.
    pub(super) fn is_over(&self) -> bool {
        self.extra() > 0 || (!self.is_full() && self.used().saturating_add(self.reserved()) > self.limit())
    }

    /// Whether the disk is full although we are within our limit: then evicting is of no use.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Gives way a little on a disk that has been full for long. Whether it did.
    pub(super) fn give_way(&self, now: Timestamp) -> bool {
        let mut since = self.full_since.lock();
        let due = since.is_some_and(|since| now.since(since) >= GIVE_WAY_AFTER);
        if due {
            *since = Some(now);
            self.want_extra(self.used() / GIVE_WAY);
        }
        due
    }

    /// Promises `bytes` for a body that will have `total` bytes.
    pub(super) fn reserve(&self, bytes: u64, total: u64, now: Timestamp) -> Result<(), Refused> {
        if self.refuses(now) {
            return Err(Refused::Degraded);
        }
        if total > self.max_object {
            return Err(Refused::TooLarge);
        }
        let limit = self.limit();
        self.reserved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |reserved| {
                reserved.checked_add(bytes).filter(|sum| *sum <= limit)
            })
            .map(drop)
            .map_err(|_| Refused::NoSpace)
    }

    pub(super) fn give_back(&self, bytes: u64) {
        take(&self.reserved, bytes);
    }

    /// Takes room for a block about to be written; false where the limit is reached.
    pub(super) fn take_loose(&self, bytes: u64) -> bool {
        let (named, limit) = (self.named.load(Ordering::Relaxed), self.limit());
        self.loose
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |loose| {
                loose.checked_add(bytes).filter(|loose| loose.saturating_add(named) <= limit)
            })
            .is_ok()
    }

    /// Bytes that a record named until now.
    pub(super) fn add_loose(&self, bytes: u64) {
        self.loose.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn drop_loose(&self, bytes: u64) {
        take(&self.loose, bytes);
    }

    pub(super) fn set_named(&self, bytes: u64) {
        self.named.store(bytes, Ordering::Relaxed);
    }

    /// Sets the limit by what the file system has left, and sees whether it is full.
    pub(super) fn measure(&self, disk: Disk, now: Timestamp) {
        // Twice of what is full: a cache that has its disk for itself stays clear of that.
        let reserve = self.min_free.max(2 * disk.full_below());
        let reachable = self.used().saturating_add(disk.free).saturating_sub(reserve);
        self.limit.store(self.size.min(reachable), Ordering::Relaxed);
        if disk.is_full() {
            self.fail(Part::Blocks, Trouble::Full, now);
        }
    }

    pub(super) fn fail(&self, part: Part, trouble: Trouble, now: Timestamp) {
        let mut state = self.trouble.lock();
        let Some(slot) = state.get_mut(part as usize) else { return };
        if slot.is_none_or(|(old, _)| old != trouble) {
            tracing::warn!(reason = trouble.as_str(), "cache degraded: hits go on, nothing new is stored");
        }
        *slot = Some((trouble, now.after(DEGRADED_FOR)));
        drop(state);
        if part == Part::Blocks {
            self.set_full((trouble == Trouble::Full).then_some(now));
        }
    }

    fn set_full(&self, now: Option<Timestamp>) {
        let mut since = self.full_since.lock();
        // Full all the time: since when it began to be.
        *since = now.map(|now| since.unwrap_or(now));
        self.full.store(now.is_some(), Ordering::Relaxed);
    }

    pub(super) fn recover(&self, part: Part) {
        let mut state = self.trouble.lock();
        if let Some((trouble, _)) = state.get_mut(part as usize).and_then(Option::take) {
            tracing::info!(reason = trouble.as_str(), "cache recovered: storing again");
            drop(state);
            if part == Part::Blocks {
                self.set_full(None);
            }
        }
    }

    pub(super) fn degraded(&self) -> Option<&'static str> {
        self.trouble.lock().iter().flatten().next().map(|(trouble, _)| trouble.as_str())
    }

    /// Whether nothing may be stored now. After [`DEGRADED_FOR`] an attempt is due: it fails again or recovers.
    pub(super) fn refuses(&self, now: Timestamp) -> bool {
        self.trouble.lock().iter().flatten().any(|(_, until)| until.is_ahead(now, DEGRADED_FOR))
    }

    /// Whether this part is to be left alone for now.
    pub(super) fn part_refuses(&self, part: Part, now: Timestamp) -> bool {
        let state = self.trouble.lock();
        state
            .get(part as usize)
            .copied()
            .flatten()
            .is_some_and(|(_, until)| until.is_ahead(now, DEGRADED_FOR))
    }
}

fn take(from: &AtomicU64, bytes: u64) {
    let _ = from.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(n.saturating_sub(bytes)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_end_where_the_store_ends() {
        let space = Space::new(100, 0, 60);
        let now = Timestamp(0);
        assert_eq!(space.reserve(61, 61, now), Err(Refused::TooLarge));
        assert_eq!(space.reserve(60, 60, now), Ok(()));
        assert_eq!(space.reserve(50, 50, now), Err(Refused::NoSpace));
        space.give_back(20);
        assert_eq!(space.reserve(50, 50, now), Ok(()));
    }

    fn disk(bytes: u64, free: u64) -> Disk {
        Disk { bytes, free, files: None }
    }

    #[test]
    fn the_file_systems_reserve_lowers_the_limit() {
        let space = Space::new(100, 30, 100);
        space.set_named(50);
        space.measure(disk(100, 40), Timestamp(0));
        assert_eq!(space.limit(), 60);
        assert!(!space.take_loose(11));
        assert!(space.take_loose(10));
        space.measure(disk(1_000, 500), Timestamp(0));
        assert_eq!(space.limit(), 100);
    }

    #[test]
    fn a_cache_that_fills_its_disk_by_itself_stays_clear_of_a_full_one() {
        const GIB: u64 = 1 << 30;
        let space = Space::new(10 * GIB, 0, GIB);
        space.set_named(GIB / 2);
        space.measure(disk(GIB, 2 * FULL_BELOW), Timestamp(0));
        assert_eq!((space.limit(), space.is_full()), (GIB / 2, false), "old files make room for new ones");
        space.measure(disk(GIB, FULL_BELOW - 1), Timestamp(0));
        assert!(space.is_full() && !space.is_over(), "nothing is evicted");
        assert_eq!(space.degraded(), Some("disk-full"));
        let files = Disk { files: Some(3), ..disk(GIB, GIB / 2) };
        space.recover(Part::Blocks);
        space.measure(files, Timestamp(0));
        assert!(space.is_full(), "out of inodes");
    }

    #[test]
    fn a_disk_that_stays_full_is_given_way_to_a_little_at_a_time() {
        let space = Space::new(1 << 30, 0, 1 << 30);
        space.set_named(16_000);
        let after = |seconds: u64| Timestamp(seconds * 1_000);
        for seconds in [0, 300, 599] {
            space.fail(Part::Blocks, Trouble::Full, after(seconds));
            assert!(!space.give_way(after(seconds)), "after {seconds} s");
        }
        assert!(space.give_way(after(600)));
        assert_eq!(space.extra(), 1_000);
        space.extra_done();
        assert!(!space.give_way(after(601)), "once");
        space.recover(Part::Blocks);
        assert!(!space.give_way(after(9_999)), "it is not full any more");
    }

    #[test]
    fn trouble_refuses_for_a_while_and_then_lets_one_try() {
        let space = Space::new(100, 0, 100);
        space.fail(Part::Blocks, Trouble::Full, Timestamp(1_000));
        assert_eq!(space.reserve(1, 1, Timestamp(10_999)), Err(Refused::Degraded));
        assert_eq!(space.reserve(1, 1, Timestamp(11_000)), Ok(()));
        assert_eq!(space.reserve(1, 1, Timestamp(10)), Ok(()), "the clock was set back");
        assert_eq!(space.degraded(), Some("disk-full"));
        space.recover(Part::Index);
        assert!(space.degraded().is_some());
        space.recover(Part::Blocks);
        assert_eq!(space.degraded(), None);
    }
}
