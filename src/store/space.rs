//! The account of the disk: what is used, what is promised, and whether the disk can be trusted with more.
//!
//! All figures are atomics; `trouble` is the only lock and is held for an assignment.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::io::Errno;

use super::error::{Refused, WriteError};
use crate::base::clock::Timestamp;

/// How long nothing new is stored after the disk failed; then one attempt decides.
pub(super) const DEGRADED_FOR: Duration = Duration::from_secs(10);

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
        self.extra() > 0 || self.used().saturating_add(self.reserved()) > self.limit()
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

    /// Sets the limit by what the file system has left.
    pub(super) fn set_free(&self, free: u64) {
        let reachable = self.used().saturating_add(free).saturating_sub(self.min_free);
        self.limit.store(self.size.min(reachable), Ordering::Relaxed);
    }

    pub(super) fn fail(&self, part: Part, trouble: Trouble, now: Timestamp) {
        let mut state = self.trouble.lock();
        let Some(slot) = state.get_mut(part as usize) else { return };
        if slot.is_none_or(|(old, _)| old != trouble) {
            tracing::warn!(reason = trouble.as_str(), "cache degraded: hits go on, nothing new is stored");
        }
        *slot = Some((trouble, now.after(DEGRADED_FOR)));
    }

    pub(super) fn recover(&self, part: Part) {
        let mut state = self.trouble.lock();
        if let Some((trouble, _)) = state.get_mut(part as usize).and_then(Option::take) {
            tracing::info!(reason = trouble.as_str(), "cache recovered: storing again");
        }
    }

    pub(super) fn degraded(&self) -> Option<&'static str> {
        self.trouble.lock().iter().flatten().next().map(|(trouble, _)| trouble.as_str())
    }

    /// Whether nothing may be stored now. After [`DEGRADED_FOR`] an attempt is due: it fails again or recovers.
    pub(super) fn refuses(&self, now: Timestamp) -> bool {
        self.trouble.lock().iter().flatten().any(|(_, until)| now < *until)
    }

    /// Whether this part is to be left alone for now.
    pub(super) fn part_refuses(&self, part: Part, now: Timestamp) -> bool {
        let state = self.trouble.lock();
        state.get(part as usize).copied().flatten().is_some_and(|(_, until)| now < until)
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

    #[test]
    fn the_file_systems_reserve_lowers_the_limit() {
        let space = Space::new(100, 30, 100);
        space.set_named(50);
        space.set_free(40);
        assert_eq!(space.limit(), 60);
        assert!(!space.take_loose(11));
        assert!(space.take_loose(10));
        space.set_free(500);
        assert_eq!(space.limit(), 100);
    }

    #[test]
    fn trouble_refuses_for_a_while_and_then_lets_one_try() {
        let space = Space::new(100, 0, 100);
        space.fail(Part::Blocks, Trouble::Full, Timestamp(1_000));
        assert_eq!(space.reserve(1, 1, Timestamp(10_999)), Err(Refused::Degraded));
        assert_eq!(space.reserve(1, 1, Timestamp(11_000)), Ok(()));
        assert_eq!(space.degraded(), Some("disk-full"));
        space.recover(Part::Index);
        assert!(space.degraded().is_some());
        space.recover(Part::Blocks);
        assert_eq!(space.degraded(), None);
    }
}
