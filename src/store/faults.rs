//! The seam where tests break the disk. In a release binary every check here is nothing at all.

use std::io;

#[cfg(any(test, feature = "testkit"))]
use std::sync::Arc;
#[cfg(any(test, feature = "testkit"))]
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, Ordering};

#[cfg_attr(
    not(any(test, feature = "testkit")),
    expect(unreachable_pub, reason = "public only with the testkit")
)]
/// Where a simulated `kill -9` can strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CrashPoint {
    /// A block is on disk and no record names it yet.
    BlockWritten = 1,
    /// A batch of changes is complete and not committed.
    BeforeCommit = 2,
    /// A batch is committed and its freed blocks are still there.
    AfterCommit = 3,
}

#[cfg_attr(
    not(any(test, feature = "testkit")),
    expect(unreachable_pub, reason = "public only with the testkit")
)]
/// Faults to inject. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    #[cfg(any(test, feature = "testkit"))]
    inner: Arc<Inner>,
}

#[cfg(any(test, feature = "testkit"))]
#[derive(Debug, Default)]
struct Inner {
    write_errno: AtomicI32,
    writes_before: AtomicU64,
    index_errno: AtomicI32,
    flip: AtomicBool,
    crash_at: AtomicU8,
    crashed: AtomicBool,
}

#[cfg(any(test, feature = "testkit"))]
impl Faults {
    /// Makes block writes fail with this error number from the `after`-th on; 0 ends it.
    pub fn fail_writes(&self, errno: i32, after: u64) {
        self.inner.writes_before.store(after, Ordering::SeqCst);
        self.inner.write_errno.store(errno, Ordering::SeqCst);
    }

    /// Makes writes and syncs of the index fail with this error number; 0 ends it.
    pub fn fail_index(&self, errno: i32) {
        self.inner.index_errno.store(errno, Ordering::SeqCst);
    }

    /// Flips a bit in every piece read, before it is checked.
    pub fn flip_reads(&self, on: bool) {
        self.inner.flip.store(on, Ordering::SeqCst);
    }

    /// At this point the process is gone: nothing reaches the disk any more.
    pub fn crash_at(&self, point: CrashPoint) {
        self.inner.crash_at.store(point as u8, Ordering::SeqCst);
    }

    /// The process is gone now.
    pub fn crash(&self) {
        self.inner.crashed.store(true, Ordering::SeqCst);
    }

    /// Whether it is.
    pub fn crashed(&self) -> bool {
        self.inner.crashed.load(Ordering::SeqCst)
    }

    pub(super) fn reach(&self, point: CrashPoint) {
        if self.inner.crash_at.load(Ordering::SeqCst) == point as u8 {
            self.crash();
        }
    }

    pub(super) fn on_write(&self) -> io::Result<()> {
        self.on_change()?;
        let errno = self.inner.write_errno.load(Ordering::SeqCst);
        if errno == 0 {
            return Ok(());
        }
        let left = &self.inner.writes_before;
        let spent = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_err();
        if spent { Err(io::Error::from_raw_os_error(errno)) } else { Ok(()) }
    }

    pub(super) fn on_index(&self) -> io::Result<()> {
        self.on_change()?;
        match self.inner.index_errno.load(Ordering::SeqCst) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    pub(super) fn on_change(&self) -> io::Result<()> {
        if self.crashed() { Err(io::Error::other("the process is gone")) } else { Ok(()) }
    }

    pub(super) fn on_read(&self, bytes: &mut [u8]) {
        if self.inner.flip.load(Ordering::SeqCst)
            && let Some(byte) = bytes.first_mut()
        {
            *byte ^= 1;
        }
    }
}

#[cfg(not(any(test, feature = "testkit")))]
#[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "the shape of the seam without its faults")]
impl Faults {
    pub(super) const fn reach(&self, _point: CrashPoint) {}
    pub(super) const fn on_write(&self) -> io::Result<()> {
        Ok(())
    }
    pub(super) const fn on_index(&self) -> io::Result<()> {
        Ok(())
    }
    pub(super) const fn on_change(&self) -> io::Result<()> {
        Ok(())
    }
    pub(super) const fn on_read(&self, _bytes: &mut [u8]) {}
}
