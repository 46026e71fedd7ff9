//! Buffers for pieces, used again: a fresh 128 KiB from the allocator is 32 page faults.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::base::limits::PIECE_BYTES;

/// Free buffers kept: 4 MiB. More are in use during a rush and go back to the allocator.
const KEPT: usize = 32;

/// Bytes up to which a piece gets memory of its own size: a slow reader of a small file must not hold 128 KiB.
const SMALL: usize = 16 << 10;

/// The free buffers of a directory. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Box<[u8]>>>>);

impl Buffers {
    /// A buffer of at least `len` bytes (at most [`PIECE_BYTES`]), with anything in it.
    pub(super) fn take(&self, len: usize) -> Buffer {
        if len <= SMALL {
            return Buffer { bytes: vec![0; len].into(), filled: 0, home: None };
        }
        let free = self.0.lock().pop();
        let bytes = free.unwrap_or_else(|| vec![0; PIECE_BYTES].into());
        Buffer { bytes, filled: 0, home: Some(self.clone()) }
    }
}

/// A buffer; dropping it, or the last [`Bytes`] made of it, gives it back.
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    filled: usize,
    home: Option<Buffers>,
}

impl Buffer {
    /// The first `len` bytes to write into.
    pub(super) fn space(&mut self, len: usize) -> &mut [u8] {
        let len = len.min(self.bytes.len());
        self.bytes.get_mut(..len).unwrap_or_default()
    }

    /// The first `filled` bytes as shared bytes.
    pub(super) fn freeze(mut self, filled: usize) -> Bytes {
        self.filled = filled.min(self.bytes.len());
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            let mut free = home.0.lock();
            if free.len() < KEPT {
                free.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_last_reader_is_done() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take(PIECE_BYTES);
        buffer.space(4).copy_from_slice(b"abcd");
        let bytes = buffer.freeze(4);
        let slice = bytes.slice(1..3);
        drop(bytes);
        assert_eq!(buffers.0.lock().len(), 0);
        assert_eq!(&slice[..], b"bc");
        drop(slice);
        assert_eq!(buffers.0.lock().len(), 1);
    }

    #[test]
    fn a_small_piece_holds_no_large_buffer() {
        let buffers = Buffers::default();
        let buffer = buffers.take(100);
        assert_eq!(buffer.bytes.len(), 100);
        drop(buffer);
        assert!(buffers.0.lock().is_empty());
    }
}
