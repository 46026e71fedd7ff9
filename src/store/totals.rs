//! What the store tells about itself.

/// A moment's figures. Counts only grow, the rest goes up and down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Complete entries in the index.
    pub entries: u64,
    /// Unfinished bodies that are kept for resuming.
    pub partials: u64,
    /// Bytes on disk, in file system blocks of 4 KiB.
    pub bytes: u64,
    /// The most `bytes` may be: the configured size, or less where `min_free` bites.
    pub limit: u64,
    /// Bytes promised to running fills and not yet written.
    pub reserved: u64,
    /// Bytes of blocks and entries in memory.
    pub memory_bytes: u64,
    /// Why nothing is stored at the moment, if so.
    pub degraded: Option<&'static str>,
    /// Damaged blocks met.
    pub integrity_failures: IntegrityFailures,
    /// Bytes that the scrub has read and compared.
    pub scrubbed: u64,
    /// What was removed, by reason.
    pub evictions: Evictions,
    /// Changes that were not recorded because the index could not keep up or could not be written.
    pub unrecorded: u64,
    /// Errors of the index, each of which was treated as absence.
    pub index_errors: u64,
    /// Damaged index files that were set aside.
    pub index_replaced: u64,
    /// Blocks that no record named and that were collected.
    pub orphans: u64,
}

/// Damaged blocks by where they were met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IntegrityFailures {
    /// While serving.
    pub read: u64,
    /// In the scrub.
    pub scrub: u64,
    /// Reported by the data plane.
    pub reported: u64,
}

/// Entries that left, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evictions {
    /// To make room within the limit.
    pub size: u64,
    /// To keep the file system's reserve, or because the disk was full.
    pub disk: u64,
    /// Unfinished bodies, for either.
    pub partial: u64,
}

/// What one pass of the scrub found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Blocks read and checked.
    pub checked: u64,
    /// Damaged ones, dropped.
    pub bad: u64,
    /// Named by a record and not there.
    pub missing: u64,
}
