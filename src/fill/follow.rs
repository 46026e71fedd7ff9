//! Reading a body: one that arrives ([`Follow`]) or one that is stored ([`Stored`]).
//!
//! Both climb the same ladder for a block: bytes in memory, a checked piece from the disk without waiting, one
//! from the blocking pool, and at last the block fetched again by range. A reader keeps one piece at a time.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::Fills;
use super::body::{StoredAt, split};
use super::cause::Cause;
use super::heal::{heal_arriving, read_or_heal};
use super::job::Supply;
use super::seat::Seat;
use super::state::{Arrival, Place};
use crate::cache::{Entry, EntryBody};
use crate::store::Store;

/// The body cannot be given to its end. The transfer must be broken so that nobody takes it for the whole.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub Cause);

type Waiting = Pin<Box<dyn Future<Output = Result<Bytes, Cause>> + Send>>;

/// A reader of a body that is arriving. Ends only when the body is complete, or at the end of its range.
pub struct Follow {
    seat: Seat,
    at: u64,
    end: Option<u64>,
    place: Place,
    waiting: Option<Waiting>,
}

impl Follow {
    pub(super) fn new(seat: Seat, at: u64, end: Option<u64>) -> Self {
        Self { seat, at, end, place: Place::default(), waiting: None }
    }

    /// Bytes left to give, where the end is known.
    pub fn remaining(&self) -> Option<u64> {
        self.end.map(|end| end.saturating_sub(self.at))
    }

    /// The next bytes, in order, at most `max` at a time.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Option<Result<Bytes, Broken>>> {
        if self.end.is_some_and(|end| self.at >= end) {
            return Poll::Ready(None);
        }
        loop {
            if let Some(waiting) = &mut self.waiting {
                let result = std::task::ready!(waiting.as_mut().poll(cx));
                self.waiting = None;
                return Poll::Ready(Some(result.map(|bytes| self.take(bytes, max)).map_err(Broken)));
            }
            let until = self.end.unwrap_or(u64::MAX);
            let arrival = self.seat.fill().poll_bytes(self.at, until, &mut self.place, cx);
            match std::task::ready!(arrival) {
                Arrival::Bytes(bytes) => return Poll::Ready(Some(Ok(self.take(bytes, max)))),
                Arrival::End => return Poll::Ready(None),
                Arrival::Failed(cause) => return Poll::Ready(Some(Err(Broken(cause)))),
                Arrival::Stored(place) => {
                    if let Some(bytes) = self.read_stored(place, max) {
                        return Poll::Ready(Some(Ok(self.take(bytes, max))));
                    }
                }
            }
        }
    }

    /// A piece of a sealed block without waiting; else the wait is set up and nothing returned.
    fn read_stored(&mut self, place: StoredAt, max: usize) -> Option<Bytes> {
        let fill = Arc::clone(self.seat.fill());
        self.waiting = match fill.store.try_piece(&place.block, place.len, place.offset, max) {
            Some(Ok(bytes)) => return Some(bytes),
            Some(Err(_)) => Some(Box::pin(async move { heal_arriving(&fill, &place).await })),
            None => Some(Box::pin(async move { read_or_heal(&fill, &place, max).await })),
        };
        None
    }

    fn take(&mut self, bytes: Bytes, max: usize) -> Bytes {
        let left = self.end.map_or(u64::MAX, |end| end.saturating_sub(self.at));
        let take = bytes.len().min(max).min(usize::try_from(left).unwrap_or(usize::MAX));
        self.at += take as u64;
        bytes.slice(..take)
    }
}

/// A reader of a stored entry.
pub struct Stored {
    entry: Arc<Entry>,
    from: Arc<Origin>,
    at: u64,
    end: u64,
    waiting: Option<Waiting>,
}

/// Where stored bytes are read, and where a bad block is fetched again.
pub struct Origin {
    /// The store.
    pub store: Store,
    /// The fills.
    pub fills: Fills,
    /// The repository's upstreams.
    pub supply: Arc<Supply>,
}

impl Stored {
    /// Reads `entry` from `start` to `end` (exclusive, within its length).
    pub fn new(entry: Arc<Entry>, from: Arc<Origin>, start: u64, end: u64) -> Self {
        let end = end.min(entry.length);
        Self { entry, from, at: start, end, waiting: None }
    }

    /// Bytes left to give.
    pub fn remaining(&self) -> u64 {
        self.end.saturating_sub(self.at)
    }

    /// The next bytes, in order, at most `max` at a time. Nothing waits and nothing is hashed where the bytes
    /// are in memory.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Option<Result<Bytes, Broken>>> {
        if self.at >= self.end {
            return Poll::Ready(None);
        }
        if self.waiting.is_none() {
            match self.read(max) {
                Some(Ok(bytes)) => return Poll::Ready(Some(Ok(self.take(bytes)))),
                Some(Err(cause)) => return Poll::Ready(Some(Err(Broken(cause)))),
                None => {}
            }
        }
        let Some(waiting) = &mut self.waiting else { return Poll::Ready(Some(Err(Broken(Cause::Internal)))) };
        let result = std::task::ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(Some(result.map(|bytes| self.take(bytes)).map_err(Broken)))
    }

    fn read(&mut self, max: usize) -> Option<Result<Bytes, Cause>> {
        let (index, offset) = split(self.at);
        let blocks = match &self.entry.body {
            EntryBody::Inline(bytes) => {
                let from = usize::try_from(self.at).unwrap_or(usize::MAX).min(bytes.len());
                return Some(Ok(bytes.slice(from..)));
            }
            EntryBody::Blocks(blocks) => blocks,
        };
        let Some(block) = blocks.get(index) else { return Some(Err(Cause::Internal)) };
        let len = self.entry.block_len(index);
        let tried = self.from.store.try_piece(block, len, offset, max);
        if let Some(Ok(bytes)) = tried {
            return Some(Ok(bytes));
        }
        let (entry, from) = (Arc::clone(&self.entry), Arc::clone(&self.from));
        self.waiting = Some(Box::pin(async move {
            match tried {
                // Found bad and counted: looking at it again would count it twice.
                Some(_) => Ok(from.fills.heal(&from.supply, &entry, index).await?.slice(offset..)),
                None => read_waiting(&entry, &from, index, offset, max).await,
            }
        }));
        None
    }

    fn take(&mut self, bytes: Bytes) -> Bytes {
        let take = bytes.len().min(usize::try_from(self.remaining()).unwrap_or(usize::MAX));
        self.at += take as u64;
        bytes.slice(..take)
    }
}

async fn read_waiting(
    entry: &Arc<Entry>,
    from: &Arc<Origin>,
    index: usize,
    offset: usize,
    max: usize,
) -> Result<Bytes, Cause> {
    let EntryBody::Blocks(blocks) = &entry.body else { return Err(Cause::Internal) };
    let Some(block) = blocks.get(index) else { return Err(Cause::Internal) };
    match from.store.piece(block, entry.block_len(index), offset, max).await {
        Ok(bytes) => Ok(bytes),
        // Boxed: it is rare, and its future is ten times the size of a read's.
        Err(_) => Ok(Box::pin(from.fills.heal(&from.supply, entry, index)).await?.slice(offset..)),
    }
}
