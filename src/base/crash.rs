//! Where a test has the process die: each step after which more is on the disk than before, by name.
//!
//! `WAYPOST_CRASH_AT=index-committed:3` ends the process, as `kill -9` would, when it is at that step for the third time. In a
//! release binary every call here is nothing at all.

/// A step on the way of something to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A block is in its place, and no record names it.
    BlockWritten,
    /// A batch of changes of the index is complete and not begun to be written.
    IndexBatch,
    /// A page of the index is about to be written.
    IndexPage,
    /// The index is about to be synced.
    IndexSync,
    /// A batch is committed; what it freed is still there.
    IndexCommitted,
    /// The list of purges is written beside its place.
    PurgesWritten,
    /// It is in its place, and nobody was told.
    PurgesKept,
    /// Rows of agents wait for their commit.
    AgentsBatch,
    /// They are committed, and nobody was told.
    AgentsCommitted,
    /// A file of the control plane is written beside its place.
    ControlWritten,
    /// The bundle in force became the previous one, and the new one is not in its place.
    BundleMoved,
    /// A file of the control plane is in its place by name, not yet durably.
    ControlRenamed,
    /// It is durable, and nobody was told.
    ControlKept,
    /// A generation is staged and not shown.
    StageReady,
    /// It is shown, and not remembered.
    StageShown,
    /// What is shown is written beside its place.
    StageWritten,
    /// It is in its place.
    StageKept,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::BlockWritten,
        Self::IndexBatch,
        Self::IndexPage,
        Self::IndexSync,
        Self::IndexCommitted,
        Self::PurgesWritten,
        Self::PurgesKept,
        Self::AgentsBatch,
        Self::AgentsCommitted,
        Self::ControlWritten,
        Self::BundleMoved,
        Self::ControlRenamed,
        Self::ControlKept,
        Self::StageReady,
        Self::StageShown,
        Self::StageWritten,
        Self::StageKept,
    ];

    /// Its name in `WAYPOST_CRASH_AT`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BlockWritten => "block-written",
            Self::IndexBatch => "index-batch",
            Self::IndexPage => "index-page",
            Self::IndexSync => "index-sync",
            Self::IndexCommitted => "index-committed",
            Self::PurgesWritten => "purges-written",
            Self::PurgesKept => "purges-kept",
            Self::AgentsBatch => "agents-batch",
            Self::AgentsCommitted => "agents-committed",
            Self::ControlWritten => "control-written",
            Self::BundleMoved => "bundle-moved",
            Self::ControlRenamed => "control-renamed",
            Self::ControlKept => "control-kept",
            Self::StageReady => "stage-ready",
            Self::StageShown => "stage-shown",
            Self::StageWritten => "stage-written",
            Self::StageKept => "stage-kept",
        }
    }
}

/// The process is at this step.
#[cfg(not(any(test, feature = "testkit")))]
pub const fn reach(_step: Step) {}

/// The process is at this step: its end, where a test wants that.
#[cfg(any(test, feature = "testkit"))]
pub fn reach(step: Step) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: LazyLock<Option<(String, AtomicU64)>> = LazyLock::new(|| {
        let text = std::env::var("WAYPOST_CRASH_AT").ok()?;
        let (name, count) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), AtomicU64::new(count.parse().ok()?)))
    });
    if let Some((name, left)) = &*WANTED
        && name == step.name()
        && left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        // Nothing is flushed and nobody is told, as if it had been killed.
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = Step::ALL.iter().map(|step| step.name()).collect();
        assert_eq!(names.len(), Step::ALL.len());
        Step::ALL.into_iter().for_each(reach);
    }
}
