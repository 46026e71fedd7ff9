//! What can go wrong in the store, and whose turn it is then.

use std::io;
use std::path::PathBuf;

use crate::base::digest::Digest;

/// The store was not opened. Everything else that is wrong with the disk opens a store in pass-through state.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it. Two would delete each other's blocks.
    #[error("{} is in use by another process; give every node a cache directory of its own", dir.display())]
    Locked {
        /// The cache directory.
        dir: PathBuf,
    },
    /// Written by a later release.
    #[error(
        "{} has the cache format {found}, this release knows up to {known}; use the later release or an empty directory",
        dir.display()
    )]
    Newer {
        /// The cache directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
        /// The latest format of this release.
        known: u32,
    },
    /// A thread could not be started.
    #[error("no thread for the store")]
    Threads(#[source] io::Error),
}

/// Why there is no room for a fill. The fill runs all the same, unstored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The disk is in trouble; see [`super::Totals::degraded`].
    #[error("the cache disk is in trouble")]
    Degraded,
    /// Larger than `max_object`.
    #[error("larger than the largest body that is kept")]
    TooLarge,
    /// Other fills have reserved what there is.
    #[error("no room left besides running fills")]
    NoSpace,
}

/// A block was not written. The fill goes on unstored.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// No space or no inodes, after evicting and trying again.
    #[error("the cache disk is full")]
    Full,
    /// The file system refuses writes.
    #[error("the cache disk is read-only")]
    ReadOnly,
    /// Any other failure of the disk.
    #[error("the cache disk failed")]
    Disk(#[source] io::Error),
    /// The bytes offered for healing are not those the block is named after. Whoever sent them is wrong.
    #[error("the bytes are not the block's")]
    Mismatch,
    /// The store is closing.
    #[error("the store is closing")]
    Closing,
}

/// A block that cannot be used: fetch its bytes again and give them to `rewrite_block`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("block {digest} is {}", damage.as_str())]
pub struct BadBlock {
    /// The block.
    pub digest: Digest,
    /// What is wrong with it.
    pub damage: Damage,
}

/// What is wrong with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// No such file.
    Missing,
    /// Not as long as its record says, or not a regular file.
    Length,
    /// Its bytes are not those it is named after.
    Content,
    /// The disk does not give it back.
    Unreadable,
    /// The store is closing, or a reading thread failed; the block itself may be fine.
    Unavailable,
}

impl Damage {
    /// The word for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Length => "length",
            Self::Content => "content",
            Self::Unreadable => "unreadable",
            Self::Unavailable => "unavailable",
        }
    }
}
