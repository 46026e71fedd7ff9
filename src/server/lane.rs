//! The answer of one HTTP/2 stream on its way out, and the pieces it is handed over in.
//!
//! hyper and h2 take a frame of a body before the client's window allows sending it, and forget the body with
//! the last one. So the piece itself tells when it is taken: h2 advances it as it writes and drops it after.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::{Buf, Bytes};

use super::pace::Ticks;

/// The notes of one stream: how much waits in h2, and when some of it last moved.
#[derive(Debug)]
pub(super) struct Lane {
    ticks: Arc<Ticks>,
    waiting: AtomicUsize,
    moved: AtomicU64,
}

impl Lane {
    pub(super) fn new(ticks: Arc<Ticks>) -> Self {
        let moved = AtomicU64::new(ticks.now());
        Self { ticks, waiting: AtomicUsize::new(0), moved }
    }

    /// Bytes handed over and not written yet.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The tick at which bytes last moved, or the first of them was offered.
    pub(super) fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    fn offer(&self, bytes: usize) {
        if self.waiting.fetch_add(bytes, Ordering::Relaxed) == 0 {
            self.moved.store(self.ticks.now(), Ordering::Relaxed);
        }
    }

    fn take(&self, bytes: usize) {
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        self.moved.store(self.ticks.now(), Ordering::Relaxed);
    }
}

/// A piece of a body as hyper holds it.
#[derive(Debug)]
pub(super) struct Chunk {
    bytes: Bytes,
    lane: Option<Arc<Lane>>,
}

impl Chunk {
    pub(super) fn new(bytes: Bytes, lane: Option<&Arc<Lane>>) -> Self {
        if let Some(lane) = lane {
            lane.offer(bytes.len());
        }
        Self { bytes, lane: lane.cloned() }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(lane) = &self.lane {
            lane.take(count);
        }
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        let out = self.bytes.copy_to_bytes(count);
        if let Some(lane) = &self.lane {
            lane.take(count);
        }
        out
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(lane) = &self.lane {
            lane.take(self.bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_knows_what_waits_whether_pieces_are_read_or_dropped() {
        let ticks = Arc::new(Ticks::default());
        let lane = Arc::new(Lane::new(Arc::clone(&ticks)));
        let mut first = Chunk::new(Bytes::from_static(b"0123456789"), Some(&lane));
        let second = Chunk::new(Bytes::from_static(b"abc"), Some(&lane));
        assert_eq!(lane.waiting(), 13);
        ticks.set(700);
        first.advance(4);
        assert_eq!((lane.waiting(), lane.moved()), (9, 700));
        assert_eq!(first.copy_to_bytes(6), "456789");
        drop(first);
        assert_eq!(lane.waiting(), 3);
        drop(second);
        assert_eq!(lane.waiting(), 0);
    }

    #[test]
    fn the_wait_begins_when_the_first_piece_is_offered_not_when_the_lane_is_made() {
        let ticks = Arc::new(Ticks::default());
        let lane = Arc::new(Lane::new(Arc::clone(&ticks)));
        ticks.set(5_000);
        let _piece = Chunk::new(Bytes::from_static(b"x"), Some(&lane));
        assert_eq!(lane.moved(), 5_000);
    }
}
