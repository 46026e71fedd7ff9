//! A place at a fill: what keeps it going, and what its holder gets.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::cause::Cause;
use super::direct::Parked;
use super::follow::Follow;
use super::state::{Fill, Opened, Place};
use crate::cache::Entry;

/// The right to a fill's outcome, and a voice for its going on: a fill without seats is paused after a while.
/// Dropping it is always safe.
pub struct Seat {
    fill: Arc<Fill>,
    /// Whether this seat's request started the fill: a miss, where the others are collapsed into it.
    pub leads: bool,
}

/// What those who wait for a head get.
#[derive(Clone)]
pub enum Outcome {
    /// A body is arriving.
    Streaming(Arc<Opened>),
    /// The fill is over.
    Settled(Settled),
}

/// How a fill ended.
#[derive(Clone)]
pub enum Settled {
    /// There is an entry now: complete, revalidated, or negative (404, 410).
    Entry {
        /// The entry, already in the store where it may be kept.
        entry: Arc<Entry>,
        /// Whether upstream confirmed what we had (304).
        revalidated: bool,
    },
    /// The answer may not be shared. The reply is for whoever takes it first; the others ask for themselves.
    NotShareable(Parked),
    /// There is nothing to give.
    Failed(Cause),
}

impl Seat {
    pub(super) fn new(fill: Arc<Fill>, leads: bool) -> Self {
        fill.sit();
        Self { fill, leads }
    }

    /// Waits for the head. Upstream's time limits are the only ones: every fill gets a head or a cause.
    pub async fn outcome(&self) -> Outcome {
        let mut place = Place::default();
        poll_fn(|cx| self.fill.poll_outcome(&mut place, cx)).await
    }

    /// Waits until the fill is over. For whoever wants the file to be here, and not its bytes.
    pub async fn settled(&self) -> Settled {
        let mut place = Place::default();
        poll_fn(|cx| self.fill.poll_settled(&mut place, cx)).await
    }

    /// Bytes that have arrived, and the length where it is known.
    pub fn progress(&self) -> (u64, Option<u64>) {
        let (_, arrived, length, _) = self.fill.progress();
        (arrived, length)
    }

    /// Reads the arriving body from `start` to `end` (exclusive; `None` is the end of the body).
    pub fn read(self, start: u64, end: Option<u64>) -> Follow {
        Follow::new(self, start, end)
    }

    /// A second seat at the same fill, for another range of the same answer.
    #[must_use]
    pub fn another(&self) -> Self {
        Self::new(Arc::clone(&self.fill), false)
    }

    /// Whether the body goes through without being stored, because the disk does not take it.
    pub fn is_unstored(&self) -> bool {
        self.fill.unstored.load(Ordering::Acquire)
    }

    pub(super) fn fill(&self) -> &Arc<Fill> {
        &self.fill
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.fill.stand_up();
    }
}
