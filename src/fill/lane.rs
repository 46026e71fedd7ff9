//! One stream of bytes from upstream into a growing body: claims blocks, publishes what arrives, seals what is whole.
//!
//! The first lane of a fill starts at the front and goes on at the first hole whenever the next block belongs to
//! somebody else; further ones fetch one span that readers want far ahead. Both resume here when upstream breaks off.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Fills;
use super::body::{split, start_of};
use super::cause::Cause;
use super::job::Job;
use super::open::Line;
use super::proof::progress;
use super::resume::{Setback, held};
use super::state::{Fill, Opened};
use crate::base::digest::Digest;
use crate::base::limits::{BLOCK_BYTES, FILL_RECENT_BLOCKS, INLINE_BYTES, WAKE_AFTER, WAKE_BYTES};
use crate::base::proof::{BodyHasher, Digests};
use crate::cache::Block;
use crate::cache::purge::Fate;
use crate::protocol::reply::Lie;
use crate::upstream::{BodyError, Permit, Upstream};

/// Blocks a lane hands to the disk before it waits for the first of them. Bounds its memory.
const WRITES: usize = 2;

/// What every lane of a fill has in common.
pub(super) struct Course {
    pub(super) fills: Fills,
    pub(super) fill: Arc<Fill>,
    pub(super) job: Job,
    pub(super) opened: Arc<Opened>,
    /// The body has a listing that only its end can prove.
    pub(super) unproven: bool,
}

/// Why a lane stopped.
pub(super) enum Stop {
    /// The reply's body is over.
    End,
    /// The next block belongs to another lane, was there before, or is not wanted of this one.
    Taken,
    /// The body broke off.
    Broken(BodyError),
    /// Nobody has read for a while and the rest is not worth it.
    Alone,
    /// Readers want bytes far ahead.
    Wanted,
}

/// A lane.
pub(super) struct Lane {
    pub(super) course: Arc<Course>,
    pub(super) line: Option<Line>,
    /// Next byte to come.
    pub(super) at: u64,
    /// Whether the block `at` lies in is ours.
    claimed: bool,
    /// First block that is none of this lane's business.
    pub(super) limit: usize,
    /// Set for the first lane: it looks after the fill as a whole.
    pub(super) leads: bool,
    /// A place at an upstream that was taken before there was anything to ask.
    pub(super) place: Option<(Arc<Upstream>, Permit)>,
    pub(super) pending: Bytes,
    stage: BytesMut,
    flush_at: Option<Instant>,
    alone_since: Option<(Instant, u64)>,
    /// Total length of the body as the reply said it that this lane goes on with, where the first one did not.
    pub(super) total: Option<u64>,
    pub(super) setback: Option<Setback>,
    hasher: BodyHasher,
    /// The hasher has taken all bytes before this one.
    hashed: u64,
    writes: JoinSet<()>,
    noted_at: Instant,
    /// Whether blocks were sealed since then.
    unnoted: bool,
}

impl Lane {
    /// The first lane, with the reply that opened the fill, standing at `at`; `claimed` if the block there is its own.
    pub(super) fn lead(course: Arc<Course>, line: Line, at: u64, claimed: bool) -> Self {
        let mut lane = Self::new(course, Some(line), at, usize::MAX, true);
        lane.claimed = claimed;
        lane
    }

    /// A lane from `place` for the blocks from `first` (claimed by the caller) up to `limit`.
    pub(super) fn ahead(
        course: Arc<Course>,
        (first, limit): (usize, usize),
        place: (Arc<Upstream>, Permit),
    ) -> Self {
        let mut lane = Self::new(course, None, start_of(first), limit, false);
        lane.claimed = true;
        lane.place = Some(place);
        lane
    }

    fn new(course: Arc<Course>, line: Option<Line>, at: u64, limit: usize, leads: bool) -> Self {
        let hasher = course.job.proof().map(|proof| BodyHasher::proving(proof.kind())).unwrap_or_default();
        Self {
            course,
            line,
            at,
            claimed: false,
            limit,
            leads,
            place: None,
            pending: Bytes::new(),
            stage: BytesMut::new(),
            flush_at: None,
            alone_since: None,
            total: None,
            setback: None,
            hasher,
            hashed: 0,
            writes: JoinSet::new(),
            noted_at: Instant::now(),
            unnoted: false,
        }
    }

    pub(super) fn fill(&self) -> &Arc<Fill> {
        &self.course.fill
    }

    /// Takes bytes until there is a reason to stop. Never loses one: what it stopped at comes next.
    pub(super) async fn pump(&mut self) -> Stop {
        loop {
            if !self.pending.is_empty() {
                if let Some(stop) = self.take().await {
                    return stop;
                }
                continue;
            }
            let Some(line) = &mut self.line else { return Stop::Broken(BodyError::Short) };
            let fill = &self.course.fill;
            let flush_at = self.flush_at.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            let note_at = self.noted_at + NOTE_EVERY;
            tokio::select! {
                biased;
                frame = line.frame(&fill.supply) => match frame {
                    Some(Ok(bytes)) => {
                        let len = bytes.len() as u64;
                        self.pending = bytes;
                        if let Some(pace) = &self.course.job.pace {
                            pace.give_way(fill, len).await;
                        }
                    }
                    Some(Err(error)) => {
                        self.flush();
                        self.line = None;
                        return Stop::Broken(error);
                    }
                    None => {
                        self.flush();
                        self.line = None;
                        return Stop::End;
                    }
                },
                () = tokio::time::sleep_until(flush_at), if self.flush_at.is_some() => self.flush(),
                // Upstream may stall for long: what came before it did is noted all the same.
                () = tokio::time::sleep_until(note_at), if self.unnoted => self.note(),
                () = fill.wanted.notified(), if self.leads => return Stop::Wanted,
            }
        }
    }

    /// Works the pending bytes into the body.
    async fn take(&mut self) -> Option<Stop> {
        if let Some(line) = self.line.as_ref().filter(|_| self.course.unproven) {
            self.fill().givers.gave(line.upstream.name());
        }
        let end = self.course.opened.length.unwrap_or(u64::MAX);
        while !self.pending.is_empty() {
            if self.at >= end {
                // Only a body in chunks can be longer than it should be.
                self.pending.clear();
                self.line = None;
                return Some(Stop::Broken(BodyError::Lie(Lie::TooLong)));
            }
            let (index, offset) = split(self.at);
            if !self.claimed {
                if index >= self.limit || !self.fill().look(|body| body.claim(index)) {
                    self.pending.clear();
                    self.line = None;
                    return Some(Stop::Taken);
                }
                self.claimed = true;
            }
            let room = (BLOCK_BYTES as usize - offset).min(WAKE_BYTES - self.stage.len());
            let room = room.min(usize::try_from(end - self.at).unwrap_or(usize::MAX));
            let bytes = self.pending.split_to(room.min(self.pending.len()));
            if self.leads && self.hashed == self.at {
                self.hasher.update(&bytes);
                self.hashed += bytes.len() as u64;
            }
            self.stage.extend_from_slice(&bytes);
            self.at += bytes.len() as u64;
            let block_done = self.at == start_of(index + 1);
            if block_done || self.stage.len() >= WAKE_BYTES {
                self.flush_into(index);
            } else if self.flush_at.is_none() {
                self.flush_at = Some(Instant::now() + WAKE_AFTER);
            }
            if block_done {
                let goes_on = self.claim_next(index + 1);
                self.course.outgrow(self.at);
                self.seal(index).await;
                if self.leads && self.is_alone() {
                    return Some(Stop::Alone);
                }
                if !goes_on {
                    self.pending.clear();
                    self.line = None;
                    return Some(Stop::Taken);
                }
            }
        }
        None
    }

    /// Claims the block that comes next before its first byte is here: one that looked like nobody's in between would
    /// get a lane of its own. `false` when it is somebody else's.
    fn claim_next(&mut self, index: usize) -> bool {
        // Where the length is unknown there are no lanes, and nobody knows whether there is a next block.
        self.claimed = false;
        let Some(length) = self.course.opened.length else { return true };
        self.claimed = index < self.limit && self.fill().look(|body| body.claim(index));
        self.claimed || self.at >= length
    }

    /// Shows the staged bytes to the readers.
    fn flush(&mut self) {
        // Staged bytes always belong to one block: the one before `at`.
        let (index, _) = split(self.at.saturating_sub(1));
        self.flush_into(index);
    }

    fn flush_into(&mut self, index: usize) {
        self.flush_at = None;
        if !self.stage.is_empty() {
            let bytes = self.stage.split().freeze();
            self.fill().grow(|body| body.publish(index, bytes));
        }
    }

    /// A block of ours is whole: names it and writes it, behind the next one's arrival.
    async fn seal(&mut self, index: usize) {
        let bytes = self.fill().look(|body| body.gather(index));
        while self.writes.len() >= WRITES {
            self.writes.join_next().await;
        }
        self.writes.spawn(seal_block(Arc::clone(self.fill()), index, bytes));
        self.unnoted = true;
        if self.noted_at.elapsed() >= NOTE_EVERY {
            self.note();
        }
    }

    /// Notes which blocks are here. Those that are still on their way to the disk are noted the next time.
    fn note(&mut self) {
        while self.writes.try_join_next().is_some() {}
        self.unnoted = !self.writes.is_empty();
        self.noted_at = Instant::now();
        note_progress(&self.course);
    }

    /// The body is over in the middle of a block: that block is the last one.
    pub(super) async fn seal_last(&mut self) {
        if std::mem::take(&mut self.claimed) {
            let (index, _) = split(self.at);
            self.seal(index).await;
        }
    }

    /// Waits until every block handed to the disk is there.
    pub(super) async fn settle_writes(&mut self) {
        while self.writes.join_next().await.is_some() {}
    }

    /// Gives up the block that was being written.
    pub(super) fn release(&mut self) {
        if std::mem::take(&mut self.claimed) {
            let (index, _) = split(self.at);
            self.stage.clear();
            self.flush_at = None;
            self.fill().grow(|body| body.release(index));
        }
    }

    /// Moves on to the first block nobody has and claims it; `false` when there is none.
    pub(super) fn seek_hole(&mut self) -> bool {
        if self.claimed {
            return true;
        }
        let (from, _) = split(self.at);
        let hole = self.fill().look(|body| body.next_hole(from).filter(|hole| body.claim(*hole)));
        let Some(hole) = hole else { return false };
        self.at = start_of(hole);
        self.claimed = true;
        true
    }

    /// Whether the fill has been without readers for long enough, and the rest is not worth finishing.
    fn is_alone(&mut self) -> bool {
        // An operator has ended it.
        if self.fill().is_settled() {
            return true;
        }
        if self.fill().interest() > 0 || self.fill().is_wanted() {
            self.alone_since = None;
            return false;
        }
        let course = Arc::clone(&self.course);
        let options = &course.fills.0.options;
        let (since, from) = *self.alone_since.get_or_insert_with(|| (Instant::now(), self.at));
        let Some(length) = course.opened.length else {
            // There may be no end at all.
            return since.elapsed() >= options.linger && self.at - from > options.finish_below;
        };
        let arrived = self.fill().look(|body| body.arrived());
        let left = length.saturating_sub(arrived);
        since.elapsed() >= options.linger && left > options.finish_below && left > length / 10
    }

    /// Digests of the whole body. What did not pass by in order is read again, each block checked.
    pub(super) async fn digests(&mut self, length: u64) -> Result<Digests, Cause> {
        while self.hashed < length {
            let bytes = held(self.fill(), self.hashed).await?;
            self.hasher.update(&bytes);
            self.hashed += bytes.len() as u64;
        }
        Ok(std::mem::take(&mut self.hasher).finish())
    }
}

/// Progress is noted for a later start at most this often.
const NOTE_EVERY: Duration = Duration::from_millis(500);

/// Names a whole block and puts it on disk, or into memory only where the disk does not take it.
async fn seal_block(fill: Arc<Fill>, index: usize, bytes: Bytes) {
    let block = store_block(&fill, index, &bytes).await;
    fill.look(|body| {
        body.seal(index, block, bytes);
        body.forget_before(index.saturating_sub(FILL_RECENT_BLOCKS));
    });
}

async fn store_block(fill: &Fill, index: usize, bytes: &Bytes) -> Block {
    if index == 0 && bytes.len() as u64 <= INLINE_BYTES {
        // The whole body: it will live in its record.
        return Block::unchecked(Digest::of(bytes));
    }
    if !fill.has_room(bytes.len() as u64) {
        fill.unstored.store(true, Ordering::Release);
    }
    if !fill.unstored.load(Ordering::Acquire) {
        match fill.store.write_block(bytes.clone()).await {
            Ok(block) => {
                fill.settle_room(bytes.len() as u64);
                return block;
            }
            Err(error) => {
                if !fill.unstored.swap(true, Ordering::AcqRel) {
                    tracing::warn!(key = %fill.key(), %error, "the body goes through without being stored");
                }
            }
        }
    }
    let digest = Digest::of(bytes);
    fill.store.keep_in_memory(digest, bytes);
    Block::unchecked(digest)
}

/// Writes down which blocks are here, so that a later fill of the same identity goes on from them.
pub(super) fn note_progress(course: &Course) {
    let fill = &course.fill;
    if course.opened.length.is_none()
        || fill.unstored.load(Ordering::Acquire)
        || fill.fate() == Fate::Gone
        || !course.is_resumable()
    {
        return;
    }
    let names = fill.look(|body| body.names());
    if names.iter().any(Option::is_some) {
        fill.store.put_partial(fill.key(), progress(course, names));
    }
}
