//! Buffers for pieces read from disk. They are used again, because a fresh 128 KiB from the allocator costs
//! 32 page faults, which is more than reading it from the page cache.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::base::limits::PIECE_BYTES;

/// Free buffers kept: 8 MiB. What is in use is bounded by the readers.
const KEPT: usize = 64;

#[derive(Clone, Debug, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Box<[u8]>>>>);

impl Buffers {
    /// A buffer of a whole piece, with old bytes in it.
    pub(super) fn take(&self) -> Piece {
        let free = self.0.lock().pop();
        let bytes = free.unwrap_or_else(|| vec![0; PIECE_BYTES].into_boxed_slice());
        Piece { bytes, len: 0, home: self.clone() }
    }
}

/// A buffer; when the last [`Bytes`] made of it goes, it is free again.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Box<[u8]>,
    len: usize,
    home: Buffers,
}

impl Piece {
    /// The first `len` bytes, to be filled; nothing where a piece is shorter.
    pub(super) fn space(&mut self, len: usize) -> Option<&mut [u8]> {
        self.len = len;
        self.bytes.get_mut(..len)
    }

    /// The filled bytes.
    pub(super) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut free = self.home.0.lock();
        if free.len() < KEPT {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_last_reader_is_done() {
        let buffers = Buffers::default();
        let mut piece = buffers.take();
        piece.space(3).unwrap().copy_from_slice(b"abc");
        let bytes = piece.freeze();
        let part = bytes.slice(1..2);
        drop(bytes);
        assert!(buffers.0.lock().is_empty());
        assert_eq!(part, "b");
        drop(part);
        assert_eq!(buffers.0.lock().len(), 1);
        assert_eq!(buffers.take().space(PIECE_BYTES).unwrap().len(), PIECE_BYTES);
        assert!(buffers.take().space(PIECE_BYTES + 1).is_none());
    }
}
