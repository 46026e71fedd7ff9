//! Blocks into the store.

use std::io;

use bytes::Bytes;

use super::error::{Damage, WriteError};
use super::read::sums_of;
use super::shared::Shared;
use super::space::{Part, Trouble};
use crate::base::digest::Digest;
use crate::cache::{Block, PieceSums};

/// A block that was not written at the first attempt.
#[derive(Debug)]
pub(super) enum Failure {
    /// Our own limit is reached.
    NoRoom,
    Disk(io::Error),
}

impl Shared {
    /// Writes a block, unless it is there. On a thread of the pool.
    pub(super) fn write_new(&self, bytes: &Bytes) -> Result<Block, Failure> {
        let digest = Digest::of(bytes);
        let counted = self.ledger.writing(digest, bytes.len() as u64, self.clock.now());
        if !counted && !self.index.names(&digest).unwrap_or(false) && !self.ledger.count(&digest, &self.space)
        {
            self.ledger.not_written(&digest);
            return Err(Failure::NoRoom);
        }
        // What is there under this name and of this length is it, or is found out when it is read.
        if self.content.open(&digest, Some(bytes.len())).is_err()
            && let Err(error) = self.content.write(&digest, bytes)
        {
            self.ledger.not_written(&digest);
            return Err(Failure::Disk(error));
        }
        self.space.recover(Part::Blocks);
        let sums = sums_of(bytes);
        self.memory.keep_sums(digest, sums.clone().into());
        self.memory.keep_block(digest, bytes.clone());
        Ok(checked(digest, sums))
    }

    /// Asks for room after a failure. Whether another attempt may help.
    pub(super) fn ask_for_room(&self, failure: &Failure, len: usize) -> bool {
        // Only where it is our own limit: what is evicted on a full disk is room for whoever filled it.
        let helps = matches!(failure, Failure::NoRoom) && !self.space.is_full();
        if helps {
            self.space.want_extra(len as u64);
            self.pending.hurry();
        }
        helps
    }

    /// The last word on a block that could not be written.
    pub(super) fn write_failed(&self, failure: Failure) -> WriteError {
        match failure {
            Failure::NoRoom => WriteError::Full,
            Failure::Disk(error) => {
                let trouble = Trouble::of(&error);
                self.space.fail(Part::Blocks, trouble, self.clock.now());
                trouble.to_error(error)
            }
        }
    }

    /// Puts healed bytes in the place of a damaged block.
    pub(super) fn rewrite(&self, digest: &Digest, bytes: &Bytes) -> Result<(), WriteError> {
        if Digest::of(bytes) != *digest {
            return Err(WriteError::Mismatch);
        }
        // Healed is healed, for the readers of now, even where the disk does not take it.
        self.memory.keep_sums(*digest, sums_of(bytes).into());
        self.memory.keep_block(*digest, bytes.clone());
        if self.content.read(digest, Some(bytes.len())).is_ok() {
            return Ok(());
        }
        self.handles.invalidate(digest);
        if self.ledger.counted(digest) == 0 && !self.index.names(digest).unwrap_or(true) {
            // Its entry is gone; a file would be one that nobody knows.
            return Ok(());
        }
        if !matches!(self.content.open(digest, None), Err(Damage::Missing)) {
            // A directory or a pipe in its place would not give way to a rename.
            let _ = self.content.remove(digest);
        }
        let written = self.content.write(digest, bytes);
        self.handles.invalidate(digest);
        written.map_err(|error| self.write_failed(Failure::Disk(error)))
    }
}

fn checked(digest: Digest, sums: PieceSums) -> Block {
    let block = Block::unchecked(digest);
    // New and ours alone: it cannot be set already.
    let _ = block.sums.set(sums);
    block
}
