//! Bytes of blocks: from memory, else from disk, and never unchecked.
//!
//! The first time since the start that a block is read, all of it is read and its SHA-256 compared with its
//! name; on the way its pieces get fast checksums (xxh3). Later reads take only the piece asked for and
//! compare that. A block that fails is dropped and counted, and the caller fetches its bytes again.

use std::fs::File;
use std::io::IoSliceMut;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::ReadWriteFlags;
use xxhash_rust::xxh3::xxh3_64;

use super::error::{BadBlock, Damage};
use super::shared::{Shared, count};
use crate::base::digest::Digest;
use crate::base::limits::PIECE_BYTES;
use crate::cache::Block;

/// What a reader asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) digest: Digest,
    pub(super) block_len: usize,
    pub(super) offset: usize,
    pub(super) max: usize,
}

impl Ask {
    /// The piece that `offset` is in: index, start and length.
    fn piece(&self) -> (usize, usize, usize) {
        let index = self.offset / PIECE_BYTES;
        let start = index * PIECE_BYTES;
        (index, start, self.block_len.saturating_sub(start).min(PIECE_BYTES))
    }

    fn bad(&self, damage: Damage) -> BadBlock {
        BadBlock { digest: self.digest, damage }
    }

    /// The part of a whole block that was asked for; a block of another length is not that block.
    fn of_block(&self, bytes: &Bytes) -> Option<Bytes> {
        let end = self.offset.saturating_add(self.max).min(self.block_len);
        (bytes.len() == self.block_len && self.offset <= end).then(|| bytes.slice(self.offset..end))
    }

    /// The part of its piece that was asked for.
    fn of_piece(&self, piece: &Bytes) -> Bytes {
        let (_, start, len) = self.piece();
        let from = self.offset.saturating_sub(start).min(len);
        piece.slice(from..from.saturating_add(self.max).min(len))
    }
}

/// Bytes, and the checksums of the block's pieces where they were found by the way.
pub(super) type Found = (Bytes, Option<Arc<[u64]>>);

/// Checksums of the pieces of a block.
pub(super) fn sums_of(bytes: &[u8]) -> Box<[u64]> {
    bytes.chunks(PIECE_BYTES).map(xxh3_64).collect()
}

impl Shared {
    /// Bytes without any wait: `None` where a file would have to be opened, read from the device or hashed
    /// as a whole.
    pub(super) fn try_piece(&self, block: &Block, ask: &Ask) -> Option<Result<Bytes, BadBlock>> {
        if let Some(bytes) = self.memory.block(&ask.digest).and_then(|bytes| ask.of_block(&bytes)) {
            return Some(Ok(bytes));
        }
        if ask.offset >= ask.block_len {
            return Some(Ok(Bytes::new()));
        }
        let (index, start, len) = ask.piece();
        let sum = *block.sums.get()?.get(index)?;
        if ask.offset == 0 && self.memory.count_read(&ask.digest) {
            // Due for memory: the pool brings all of it in.
            return None;
        }
        let file = self.handles.get(&ask.digest)?;
        let mut piece = self.buffers.take(len);
        let space = piece.space();
        let mut into = [IoSliceMut::new(space)];
        // Fails or comes up short where the page cache does not have all of it.
        let read = rustix::io::preadv2(&*file, &mut into, start as u64, ReadWriteFlags::NOWAIT).ok()?;
        if read != len {
            return None;
        }
        self.faults.on_read(space);
        if xxh3_64(space) != sum {
            return Some(Err(self.read_failed(ask, Damage::Content)));
        }
        Some(Ok(ask.of_piece(&piece.freeze(len))))
    }

    /// Bytes from disk, on a thread of the pool. `sum` is the checksum of the piece where the caller has it;
    /// checksums that were found by the way come back.
    pub(super) fn read_piece(&self, ask: &Ask, sum: Option<u64>) -> Result<Found, BadBlock> {
        // It may have come while this job stood in the queue, and one reader's hash is enough for all.
        if let Some(bytes) = self.memory.block(&ask.digest).and_then(|bytes| ask.of_block(&bytes)) {
            return Ok((bytes, self.memory.sums(&ask.digest)));
        }
        if ask.offset >= ask.block_len {
            return Ok((Bytes::new(), None));
        }
        let sums = self.memory.sums(&ask.digest);
        let known = sum.or_else(|| sums.as_ref()?.get(ask.piece().0).copied());
        let promote = ask.offset == 0 && self.memory.take_promotion(&ask.digest);
        match known {
            Some(sum) if !promote => {
                self.read_known(ask, sum).map(|bytes| (bytes, sums)).map_err(|d| self.read_failed(ask, d))
            }
            _ => self.read_whole(ask, promote),
        }
    }

    /// One piece, compared with its checksum.
    fn read_known(&self, ask: &Ask, sum: u64) -> Result<Bytes, Damage> {
        let (_, start, len) = ask.piece();
        let file = self.handle(ask)?;
        let mut piece = self.buffers.take(len);
        let space = piece.space();
        file.read_exact_at(space, start as u64).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Damage::Length,
            _ => Damage::Unreadable,
        })?;
        self.faults.on_read(space);
        if xxh3_64(space) == sum { Ok(ask.of_piece(&piece.freeze(len))) } else { Err(Damage::Content) }
    }

    /// The whole block, compared with its name.
    fn read_whole(&self, ask: &Ask, promote: bool) -> Result<Found, BadBlock> {
        let read = self.content.read(&ask.digest, Some(ask.block_len));
        let bytes = read.map_err(|damage| self.read_failed(ask, damage))?;
        let sums: Arc<[u64]> = sums_of(&bytes).into();
        self.memory.keep_sums(ask.digest, Arc::clone(&sums));
        // Without a handle the next piece would wait for one.
        let _ = self.handle(ask);
        if promote || self.memory.has_room(bytes.len()) {
            let bytes = Bytes::from(bytes);
            self.memory.keep_block(ask.digest, bytes.clone());
            let part = ask.of_block(&bytes).ok_or_else(|| self.read_failed(ask, Damage::Length))?;
            return Ok((part, Some(sums)));
        }
        // A slow reader shall hold a piece, not a block.
        let (_, start, len) = ask.piece();
        let mut piece = self.buffers.take(len);
        match (piece.space(), bytes.get(start..start + len)) {
            (to, Some(from)) if to.len() == from.len() => to.copy_from_slice(from),
            _ => return Err(self.read_failed(ask, Damage::Length)),
        }
        Ok((ask.of_piece(&piece.freeze(len)), Some(sums)))
    }

    fn handle(&self, ask: &Ask) -> Result<Arc<File>, Damage> {
        if let Some(file) = self.handles.get(&ask.digest) {
            return Ok(file);
        }
        let file = Arc::new(self.content.open(&ask.digest, Some(ask.block_len))?);
        self.handles.insert(ask.digest, Arc::clone(&file));
        Ok(file)
    }

    /// Counts a block that failed, and takes care that nobody reads it again. Its file goes with the healing
    /// or, on the pool, with [`Self::unlink_bad`].
    fn read_failed(&self, ask: &Ask, damage: Damage) -> BadBlock {
        count(&self.counts.bad_read);
        tracing::warn!(digest = %ask.digest, damage = damage.as_str(), "bad block: dropped, to be fetched again");
        self.forget(&ask.digest);
        ask.bad(damage)
    }

    pub(super) fn forget(&self, digest: &Digest) {
        self.handles.invalidate(digest);
        self.memory.drop_block(digest);
    }

    /// Removes the file of a damaged block. Only after looking again: healing may have been faster.
    pub(super) fn unlink_bad(&self, bad: BadBlock) {
        let removable = matches!(bad.damage, Damage::Content | Damage::Length);
        if removable && matches!(self.content.read(&bad.digest, None), Err(Damage::Content | Damage::Length))
        {
            let _ = self.content.remove(&bad.digest);
            self.handles.invalidate(&bad.digest);
        }
    }
}
