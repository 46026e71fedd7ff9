//! Buffers for pieces read from disk. They are used again, because a fresh 128 KiB from the allocator costs
//! 32 page faults, which is more than reading it from the page cache.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::base::limits::PIECE_BYTES;

/// Bytes up to which a piece gets memory of its own size: a slow reader of a small file must not hold 128 KiB.
const SMALL: usize = 16 << 10;

/// The free buffers of those who read with them. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Buffers(Arc<Free>);

#[derive(Debug)]
struct Free {
    buffers: Mutex<Vec<Box<[u8]>>>,
    kept: usize,
}

impl Buffers {
    /// Keeps up to `kept` free buffers. What is in use is bounded by the readers, and what is more goes back to the
    /// allocator.
    pub(crate) fn keeping(kept: usize) -> Self {
        Self(Arc::new(Free { buffers: Mutex::default(), kept }))
    }

    /// A buffer of `len` bytes (at most [`PIECE_BYTES`]), with anything in it.
    pub(crate) fn take(&self, len: usize) -> Buffer {
        if len <= SMALL {
            return Buffer { bytes: vec![0; len].into(), len, home: None };
        }
        let free = self.0.buffers.lock().pop();
        let bytes = free.unwrap_or_else(|| vec![0; PIECE_BYTES].into());
        Buffer { bytes, len: len.min(PIECE_BYTES), home: Some(self.clone()) }
    }
}

/// A buffer; dropping it, or the last [`Bytes`] made of it, gives it back.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    len: usize,
    home: Option<Buffers>,
}

impl Buffer {
    /// What is to be filled.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.len).unwrap_or_default()
    }

    /// The first `filled` bytes, to be shared.
    pub(crate) fn freeze(mut self, filled: usize) -> Bytes {
        self.len = self.len.min(filled);
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(home) = self.home.take() else { return };
        let mut free = home.0.buffers.lock();
        if free.len() < home.0.kept {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_last_reader_is_done() {
        let buffers = Buffers::keeping(1);
        let mut buffer = buffers.take(PIECE_BYTES);
        buffer.space()[..4].copy_from_slice(b"abcd");
        let bytes = buffer.freeze(4);
        let slice = bytes.slice(1..3);
        drop(bytes);
        assert_eq!(buffers.0.buffers.lock().len(), 0);
        assert_eq!(&slice[..], b"bc");
        drop(slice);
        assert_eq!(buffers.0.buffers.lock().len(), 1);
        // It is used again, as long as it was and no longer.
        assert_eq!(buffers.take(PIECE_BYTES + 1).space().len(), PIECE_BYTES);
        let both = [buffers.take(PIECE_BYTES), buffers.take(PIECE_BYTES)];
        drop(both);
        assert_eq!(buffers.0.buffers.lock().len(), 1, "no more than are to be kept");
    }

    #[test]
    fn a_small_piece_holds_no_large_buffer() {
        let buffers = Buffers::keeping(1);
        let mut buffer = buffers.take(100);
        assert_eq!((buffer.space().len(), buffer.bytes.len()), (100, 100));
        drop(buffer);
        assert!(buffers.0.buffers.lock().is_empty());
    }
}
