//! What an administrator may turn on the store.

use std::path::PathBuf;
use std::time::Duration;

/// Settings of a [`super::Store`].
#[derive(Clone, Debug)]
pub struct Options {
    /// The cache directory. Made if missing; one process at a time.
    pub dir: PathBuf,
    /// Bytes on disk for bodies and records. Eviction keeps below it.
    pub size: u64,
    /// Bytes in memory for hot blocks and entries together.
    pub memory: u64,
    /// Bytes of the file system that stay free, whatever `size` says.
    pub min_free: u64,
    /// Bytes of the largest body that is kept.
    pub max_object: u64,
    /// Threads for blocking file work. Reads always find one: writes never take the last.
    pub threads: usize,
    /// How long a change may wait for its commit. Shorter costs more fsyncs, longer loses more in a power cut.
    pub commit_every: Duration,
}

impl Options {
    /// A store of `size` bytes in `dir`, the rest by default: 256 MiB of memory, 1 GiB free at least, bodies up
    /// to half the store, four threads, a commit every 200 ms.
    pub fn new(dir: impl Into<PathBuf>, size: u64) -> Self {
        Self {
            dir: dir.into(),
            size,
            memory: 256 << 20,
            min_free: 1 << 30,
            max_object: size / 2,
            threads: 4,
            commit_every: Duration::from_millis(200),
        }
    }
}
