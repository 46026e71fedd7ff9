//! A listed body is held against its listing: before that it is nobody's, and a wrong one leaves nothing behind.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::cause::Cause;
use super::lane::{Course, Lane, note_progress};
use crate::base::digest::Digest;
use crate::base::limits::{BLOCK_BYTES, HELD_BYTES, PIECE_BYTES};
use crate::base::proof::BodyHasher;
use crate::cache::{BodyMap, Entry, EntryBody, Record};
use crate::protocol::reply::ReplyKind;
use crate::protocol::validators::resume_validator;
use crate::repository::expectation::{Expectation, Proof};
use crate::store::Store;
use crate::upstream::Upstream;

/// The lie of a body that is longer or shorter than its listing says.
pub(super) const WRONG_LENGTH: &str = "wrong-length";

/// The lie of a body that has another digest than its listing says.
pub(super) const WRONG_DIGEST: &str = "wrong-digest";

/// A body in chunks, of which only the end tells how long it is.
pub(super) const UNSIZED: ReplyKind = ReplyKind::Whole { length: None, framed: true };

impl Course {
    /// Whether nothing of the body goes out before its end: it is short enough that agents can wait for it.
    pub(super) fn is_held_whole(&self) -> bool {
        self.unproven && self.opened.length.is_none_or(|length| length <= HELD_BYTES)
    }

    /// A body of unknown length has come to `at`: if it is too long to be held back whole, readers start.
    pub(super) fn outgrow(&self, at: u64) {
        if self.unproven && self.opened.length.is_none() && at >= HELD_BYTES {
            self.fill.open(Arc::clone(&self.opened));
        }
    }

    /// Whether the body can be gone on with elsewhere or later: by its validator, or because its digest proves it.
    pub(super) fn is_resumable(&self) -> bool {
        self.job.proof().is_some() || resume_validator(&self.opened.prepared.origin).is_some()
    }
}

/// SHA-256 of a body that is what its listing says, if there is any.
///
/// # Errors
/// [`Cause::Lied`] where it is not; else why it could not be read again.
pub(super) async fn prove(course: &Course, lane: &mut Lane, length: u64) -> Result<Digest, Cause> {
    let digests = lane.digests(length).await?;
    if course.job.listed_length().is_some_and(|listed| listed != length) {
        return Err(Cause::Lied(WRONG_LENGTH));
    }
    match course.job.proof() {
        Some(proof) if proof.bytes() != digests.proof() => Err(Cause::Lied(WRONG_DIGEST)),
        _ => Ok(digests.sha256),
    }
}

/// The body is wrong: lays it at the door of those it came from, and drops it.
pub(super) fn reject(course: &Course, lie: &'static str) {
    let (fill, fills) = (&course.fill, &course.fills.0);
    let givers = fill.givers.accuse();
    for upstream in &givers {
        fill.supply.events.upstream_lied(upstream, lie);
        tracing::warn!(key = %fill.key(), %upstream, lie, "a body is not what its catalogue says");
    }
    fills.wrong.remember(fill.key(), &givers, fills.clock.now());
    drop_body(course);
}

/// `upstream`'s body is shorter than listed. Others may go on with what came of it: the digest will tell.
pub(super) fn too_short(course: &Course, upstream: Option<&Upstream>) {
    let Some(name) = upstream.map(Upstream::name) else { return };
    let fills = &course.fills.0;
    course.fill.supply.events.upstream_lied(name, WRONG_LENGTH);
    tracing::warn!(key = %course.fill.key(), upstream = name, "a body is shorter than its catalogue says");
    fills.wrong.remember(course.fill.key(), &[name.to_owned()], fills.clock.now());
}

/// The body broke off, and others have another file than those who began it: nobody knows yet who is right, so whoever
/// has not been heard is asked first.
pub(super) fn disagree(course: &Course) {
    let (fill, fills) = (&course.fill, &course.fills.0);
    fills.wrong.remember(fill.key(), &fill.givers.thank(), fills.clock.now());
    if fill.is_open() {
        note_progress(course);
    } else {
        drop_body(course);
    }
}

/// Drops what has arrived, from memory and from disk.
pub(super) fn drop_body(course: &Course) {
    let fill = &course.fill;
    let names = fill.look(|body| body.names());
    if !fill.unstored.load(Ordering::Acquire) && names.iter().any(Option::is_some) {
        // Blocks that a record has named are freed with it, at once instead of some time.
        fill.store.put_partial(fill.key(), progress(course, names));
    }
    fill.store.drop_partial(fill.key());
    fill.discard();
}

/// A record of the blocks that are here.
pub(super) fn progress(course: &Course, names: Vec<Option<Digest>>) -> Record {
    Record {
        head: course.opened.head.clone(),
        length: course.opened.length,
        digest: None,
        body: BodyMap::Blocks(names),
        stale: false,
        pinned: false,
    }
}

/// Whether a stored entry is what its listing says. Costs a reading of it where SHA-256 is not listed.
pub(super) async fn agrees(store: &Store, expect: Option<&Expectation>, entry: &Entry) -> bool {
    let Some(expect) = expect else { return true };
    if entry.prepared().is_negative() || expect.length.is_some_and(|length| length != entry.length) {
        return false;
    }
    match expect.proof() {
        None => true,
        Some(Proof::Sha256(digest)) => *digest == entry.digest,
        Some(proof) => {
            let mut hasher = BodyHasher::proving(proof.kind());
            hash_stored(store, entry, &mut hasher).await.is_some() && hasher.finish().proof() == proof.bytes()
        }
    }
}

async fn hash_stored(store: &Store, entry: &Entry, hasher: &mut BodyHasher) -> Option<()> {
    let blocks = match &entry.body {
        EntryBody::Inline(bytes) => {
            hasher.update(bytes);
            return Some(());
        }
        EntryBody::Blocks(blocks) => blocks,
    };
    for (index, block) in blocks.iter().enumerate() {
        let (mut offset, len) = (0, entry.block_len(index));
        while offset < len.min(BLOCK_BYTES as usize) {
            let bytes = store.piece(block, len, offset, PIECE_BYTES).await.ok()?;
            hasher.update(&bytes);
            offset += bytes.len();
        }
    }
    Some(())
}
