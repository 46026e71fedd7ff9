//! The life of a fill, told in order: a place in line, the head, the body, the seal.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::VARY;

use super::Fills;
use super::ahead::Ahead;
use super::body::{Body, split, start_of};
use super::cause::Cause;
use super::direct::Parked;
use super::job::Job;
use super::lane::{Course, Lane, Stop, note_progress};
use super::open::{Line, ask_all, first_ask};
use super::partial::{body_of, continuation, continues, first_gap, is_useful};
use super::proof::{
    UNSIZED, WRONG_DIGEST, WRONG_LENGTH, agrees, disagree, drop_body, prove, reject, too_short,
};
use super::seat::Settled;
use super::state::{Fill, Opened};
use super::tokens::Token;
use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::base::limits::INLINE_BYTES;
use crate::cache::purge::Fate;
use crate::cache::{Entry, EntryBody, Head, Key, Prepared, Record};
use crate::protocol::freshness::{self, NoStoreReason, Storable};
use crate::protocol::headers::storable_headers;
use crate::protocol::reply::{Lie, ReplyKind};
use crate::protocol::validators::{Validators, confirms, same_representation};
use crate::repository::rules::Effective;
use crate::telemetry::FillRecord;
use crate::upstream::{BodyError, Reply};

/// Replies in a row that end well and bring nothing, before the fill is given up.
const STUCK: u32 = 4;

/// Settles the fill and frees its key whatever happens to the task, a panic included.
struct Lead {
    fills: Fills,
    fill: Arc<Fill>,
    _token: Token,
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.fills.leave(&self.fill);
        self.fill.settle(Settled::Failed(Cause::Internal));
    }
}

/// Runs one fill to its end.
pub(super) async fn run(fills: Fills, fill: Arc<Fill>, mut job: Job) {
    let token = fills.0.tokens.issue();
    job.loop_tokens.push(token.as_str().to_owned());
    let lead = Lead { fills, fill, _token: token };
    // Without what we have of it: nothing of that must live as long as this.
    let (began, asked) = (lead.fills.0.clock.now(), Job { stale: None, ..job.clone() });
    let settled = drive(&lead, job).await.unwrap_or_else(|cause| {
        tracing::debug!(key = %lead.fill.key(), %cause, "fill ended");
        Settled::Failed(cause)
    });
    tell(&lead, &asked, (began, &settled));
    // Out of the registry first: whoever asks after having seen the outcome wants a new one, be it that this one failed,
    // be it that it was read and not believed.
    lead.fills.leave(&lead.fill);
    lead.fill.settle(settled);
}

/// Tells everybody who keeps count how a fill ended.
fn tell(lead: &Lead, job: &Job, (began, settled): (Timestamp, &Settled)) {
    let (fills, events) = (&lead.fills, &job.supply.events);
    let word = match settled {
        Settled::Failed(cause) => cause.word(),
        Settled::Entry { .. } | Settled::NotShareable(_) => "complete",
    };
    events.ended(word);
    match settled {
        Settled::Failed(Cause::Lied(WRONG_DIGEST | WRONG_LENGTH)) if job.expect.is_some() => {
            fills.note_spoiled(job);
        }
        Settled::Entry { .. } => fills.0.spoiled.forget(&job.key),
        _ => {}
    }
    if let Some(span) = &job.span {
        let (key, bytes, _, _) = lead.fill.progress();
        let (repository, path) = (job.supply.name.as_str(), Key::path_in(key.as_str()));
        let ended = fills.0.clock.now();
        events.traced(span, &FillRecord { repository, path, began, ended, bytes, word });
    }
}

async fn drive(lead: &Lead, mut job: Job) -> Result<Settled, Cause> {
    let fills = &lead.fills;
    let patience = fills.0.options.queue_wait;
    // Purged between its request's look-up and now. Later purges find this fill in the registry.
    job.stale = job.stale.filter(|entry| !fills.0.store.is_purged(entry));
    if let Some(entry) = just_stored(fills, &job).await {
        return Ok(Settled::Entry { entry, revalidated: false });
    }
    if let Some(stale) = job.stale.take() {
        // What contradicts its listing cannot be confirmed by anybody.
        job.stale = agrees(&fills.0.store, job.expect.as_deref(), &stale).await.then_some(stale);
    }
    let _permit = fills.0.admission.enter(job.class(), patience).await.ok_or(Cause::Overloaded)?;
    // One round for everybody alone, and as many for bodies that several had their hands in.
    for round in 0..=2 * job.supply.sources.all().len() {
        if let Some(settled) = attempt(lead, job.clone(), round == 0).await? {
            return Ok(settled);
        }
    }
    Err(Cause::Lied(WRONG_DIGEST))
}

/// Asks once for the whole, or for what is missing of it where it `goes_on`. `None` when the body was not what its
/// listing says and nobody has seen any of it: somebody else may have the right one.
async fn attempt(lead: &Lead, mut job: Job, mut goes_on: bool) -> Result<Option<Settled>, Cause> {
    let fills = &lead.fills;
    let barred = lead.fill.givers.barred();
    loop {
        let partial = match job.stale {
            None if goes_on => {
                fills.0.store.find_partial(job.key.as_str()).await.filter(|it| is_useful(it, &job))
            }
            _ => None,
        };
        let mut ask = first_ask(&job, job.stale.as_deref());
        ask.range = partial.as_ref().and_then(|it| continuation(it, &job));
        let line = match ask_all(fills, &job, &ask, &barred).await {
            Err(Cause::Refused(416) | Cause::Lied(_)) if ask.range.is_some() => {
                // What we hold of it is of no use there; it must not keep us from asking for the whole.
                fills.0.store.drop_partial(&job.key);
                goes_on = false;
                continue;
            }
            line => line?,
        };
        match line.reply.kind {
            ReplyKind::NotModified => {
                if lead.fill.fate() != Fate::Gone
                    && let Some(settled) = confirm(lead, &job, &line.reply)
                {
                    return Ok(Some(settled));
                }
                // It confirmed something else than what we have: ask for the whole.
                job.stale = None;
            }
            ReplyKind::Absent(_) => return Ok(Some(negative(fills, &job, &line.reply))),
            ReplyKind::Part { start, .. } => match partial.filter(|it| continues(it, &job, &line.reply)) {
                Some(partial) => return continue_partial(lead, job, line, (partial, start)).await,
                None => fills.0.store.drop_partial(&job.key),
            },
            ReplyKind::Whole { length, .. } => return begin(lead, job, line, length).await,
            _ => return Err(Cause::Refused(line.reply.status.as_u16())),
        }
    }
}

/// The entry that a fill which ended between this request's look-up and now has left behind.
async fn just_stored(fills: &Fills, job: &Job) -> Option<Arc<Entry>> {
    let current = match fills.negative(&job.key) {
        Some(entry) if job.expect.is_none() => Some(entry),
        _ => fills.0.store.find(job.key.as_str()).await,
    };
    let entry = current.filter(|entry| job.seen.is_none_or(|seen| entry.head.received_at > seen))?;
    agrees(&fills.0.store, job.expect.as_deref(), &entry).await.then_some(entry)
}

/// 304: the entry we have, under a fresh head (RFC 9111 §4.3.4). `None` where upstream confirmed another one.
fn confirm(lead: &Lead, job: &Job, reply: &Reply) -> Option<Settled> {
    let fills = &lead.fills;
    let stale = job.stale.as_ref()?;
    if !confirms(&stale.prepared().origin, &reply.headers) {
        return None;
    }
    let head = Head {
        headers: freshness::merge_304(&stale.head.headers, &reply.headers),
        requested_at: reply.requested_at,
        received_at: reply.received_at,
        ..stale.head.clone()
    };
    fills.forget_negative(&job.key);
    Some(keep_stale(lead, stale, head))
}

/// What we have is what upstream has: the same body under a fresh head.
fn keep_stale(lead: &Lead, stale: &Entry, head: Head) -> Settled {
    let mut entry = stale.with_head(head);
    entry.pinned |= lead.fill.is_pinned();
    Settled::Entry { entry: lead.fills.0.store.put(entry), revalidated: true }
}

/// 404 or 410: remembered in memory for a short time, never on disk, and what we had is gone.
fn negative(fills: &Fills, job: &Job, reply: &Reply) -> Settled {
    let head = Head {
        status: reply.status.as_u16(),
        headers: Vec::new(),
        requested_at: reply.requested_at,
        received_at: reply.received_at,
        source: reply.source.clone(),
        selecting: selecting(job, reply),
    };
    let body = EntryBody::Inline(Bytes::new());
    let entry = Arc::new(Entry::new(job.key.clone(), head, 0, Digest::of(b""), body));
    if job.stale.is_some() {
        fills.0.store.remove(job.key.as_str());
    }
    let facts = freshness::assess(
        &job.forwarded,
        reply.status.as_u16(),
        &reply.headers,
        reply.requested_at,
        reply.received_at,
    );
    if job.effective.may_believe_absent(&facts) {
        fills.remember_negative(&entry, job.effective.negative_for);
    } else {
        fills.forget_negative(&job.key);
    }
    Settled::Entry { entry, revalidated: false }
}

/// The head of a body that begins or goes on, made of an upstream reply.
fn head_of(job: &Job, reply: &Reply) -> Head {
    Head {
        status: 200,
        headers: storable_headers(&reply.headers),
        requested_at: reply.requested_at,
        received_at: reply.received_at,
        source: reply.source.clone(),
        selecting: selecting(job, reply),
    }
}

/// The forwarded headers that selected this reply, with the values they had (RFC 9111 §4.1).
fn selecting(job: &Job, reply: &Reply) -> Vec<(String, Vec<u8>)> {
    reply
        .headers
        .get_all(VARY)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| job.supply.forward_headers.contains(name))
        .map(|name| {
            let value = job.forwarded.get(&name).map(|value| value.as_bytes().to_vec()).unwrap_or_default();
            (name, value)
        })
        .collect()
}

/// Whether the answer may be kept; `None` where it may not even be shared.
///
/// A listed file is public, whatever load balancers add to it. One that a digest proves is the same for everybody, even
/// if its origin says that it depends on the request: not kept then, but shared.
fn may_keep(job: &Job, reply: &Reply) -> Option<bool> {
    let facts = freshness::assess(&job.forwarded, 200, &reply.headers, reply.requested_at, reply.received_at);
    let listed = Effective { immutable: Some(true), ..job.effective };
    let effective = if job.expect.is_some() { &listed } else { &job.effective };
    match effective.may_store(&facts) {
        Storable::Yes => Some(true),
        Storable::No(NoStoreReason::VaryStar) if job.proof().is_some() => Some(false),
        Storable::No(reason) => {
            tracing::debug!(key = %job.key, reason = reason.as_str(), "the answer cannot be shared");
            None
        }
    }
}

/// A whole body begins.
async fn begin(lead: &Lead, job: Job, line: Line, length: Option<u64>) -> Result<Option<Settled>, Cause> {
    let fills = &lead.fills;
    let reply = &line.reply;
    let Some(keep) = may_keep(&job, reply) else {
        fills.remember_direct(&job.key);
        return Ok(Some(Settled::NotShareable(Parked::new(line, Arc::clone(&job.supply)))));
    };
    lead.fill.unstored.store(!keep, Ordering::Release);
    fills.forget_direct(&job.key);
    fills.forget_negative(&job.key);
    if let Some(stale) = &job.stale
        && lead.fill.fate() != Fate::Gone
        && length == Some(stale.length)
        && same_representation(&stale.prepared().origin, &Validators::of(&reply.headers))
    {
        // It did not look at our conditions, but it is what we have: no need to fetch it again.
        return Ok(Some(keep_stale(lead, stale, head_of(&job, reply))));
    }
    let head = head_of(&job, reply);
    // Where upstream does not say the length, only the end tells whether it is the listed one.
    let listed = job.listed_length();
    let unproven = job.proof().is_some() || (length.is_none() && listed.is_some());
    let length = length.or(listed);
    let body = Body::new(length).holding_back(unproven);
    stream(lead, job, line, (head, length), (body, unproven), (0, 0)).await
}

/// The rest of a body that an earlier fill began: same identity, so its blocks count. The reply begins at `start`.
async fn continue_partial(
    lead: &Lead,
    job: Job,
    line: Line,
    (partial, start): (Record, u64),
) -> Result<Option<Settled>, Cause> {
    let gap = first_gap(&partial).unwrap_or_default();
    let unproven = job.proof().is_some();
    let body = body_of(&partial, gap).ok_or(Cause::Internal)?.holding_back(unproven);
    if unproven {
        lead.fill.givers.gave(&partial.head.source);
    }
    // Header fields of a 206 update those of the part we hold (RFC 9111 §3.4).
    let head = Head {
        headers: freshness::merge_304(&partial.head.headers, &line.reply.headers),
        requested_at: line.reply.requested_at,
        received_at: line.reply.received_at,
        source: line.reply.source.clone(),
        ..partial.head.clone()
    };
    let at = start_of(gap);
    stream(lead, job, line, (head, partial.length), (body, unproven), (at, at.saturating_sub(start))).await
}

/// Opens the body to readers, brings it to its end, proves it, and seals it. It goes on at `at`, and the reply begins
/// `before` bytes before that.
async fn stream(
    lead: &Lead,
    job: Job,
    line: Line,
    (head, length): (Head, Option<u64>),
    (mut body, unproven): (Body, bool),
    (at, before): (u64, u64),
) -> Result<Option<Settled>, Cause> {
    let fill = &lead.fill;
    // Before anybody can look: no reader may find the front unattended and want a lane there.
    let claimed = length.is_some() && body.claim(split(at).0);
    if !fill.unstored.load(Ordering::Acquire) {
        fill.make_room(length, job.supply.max_object);
    }
    let prepared = Prepared::of(&head, length.unwrap_or_default(), None);
    let opened = Arc::new(Opened { head, prepared, length });
    fill.begin(body);
    let course = Course { fills: lead.fills.clone(), fill: Arc::clone(fill), job, opened, unproven };
    let course = Arc::new(course);
    let mut lane = Lane::lead(Arc::clone(&course), line, at, claimed);
    if before > 0 && !lane.fits(before).await {
        drop_body(&course);
        return Ok(None);
    }
    if !course.is_held_whole() {
        fill.open(Arc::clone(&course.opened));
    }
    let result = match flow(lead, &course, &mut lane).await {
        Ok(length) => prove(&course, &mut lane, length).await.map(|digest| (length, digest)),
        Err(cause) => Err(cause),
    };
    lane.settle_writes().await;
    match result {
        Ok((length, digest)) => return Ok(Some(finish(&course, length, digest))),
        Err(Cause::Lied(lie @ (WRONG_LENGTH | WRONG_DIGEST))) => reject(&course, lie),
        Err(Cause::Changed) if course.unproven => disagree(&course),
        Err(_) => note_progress(&course),
    }
    match result {
        Err(Cause::Lied(WRONG_LENGTH | WRONG_DIGEST) | Cause::Changed) if !fill.is_open() => Ok(None),
        result => result.map(|_| None),
    }
}

/// Pumps until every byte is here. Returns the body's length.
async fn flow(lead: &Lead, course: &Arc<Course>, lane: &mut Lane) -> Result<u64, Cause> {
    let mut ahead = Ahead::default();
    let length = course.opened.length;
    let (mut last_at, mut stuck) = (lane.at, 0);
    loop {
        let upstream = lane.line.as_ref().map(|line| Arc::clone(&line.upstream));
        let is_unsized = lane.line.as_ref().is_some_and(|line| line.reply.kind == UNSIZED);
        match lane.pump().await {
            Stop::Wanted => {
                ahead.open(course);
                continue;
            }
            Stop::End if length.is_none() && lane.total.is_none_or(|total| total == lane.at) => {
                let length = lane.at;
                lane.seal_last().await;
                return Ok(length);
            }
            Stop::End if length == Some(lane.at) => lane.seal_last().await,
            // It ended well, and is shorter than listed.
            Stop::End if is_unsized && length.is_some() => {
                if !lead.fill.is_open() {
                    return Err(Cause::Lied(WRONG_LENGTH));
                }
                too_short(course, upstream.as_deref());
                lane.reopen(Some(&BodyError::Short), None).await?;
                continue;
            }
            Stop::End | Stop::Taken => {}
            Stop::Alone if lead.fills.leave_if_alone(&lead.fill) => {
                lane.release();
                return Err(Cause::Abandoned);
            }
            Stop::Alone => continue,
            Stop::Broken(BodyError::Lie(Lie::TooLong)) if course.unproven && length == Some(lane.at) => {
                return Err(Cause::Lied(WRONG_LENGTH));
            }
            Stop::Broken(error) => {
                tracing::warn!(key = %lead.fill.key(), at = lane.at, %error, "upstream's body broke off");
                lane.reopen(Some(&error), upstream).await?;
                continue;
            }
        }
        stuck = if lane.at == last_at { stuck + 1 } else { 0 };
        last_at = lane.at;
        if stuck > STUCK {
            return Err(Cause::Broken("no progress".to_owned()));
        }
        if length.is_none() {
            // A part of the rest ended: there is more behind it.
            lane.reopen(None, upstream).await?;
            continue;
        }
        lane.settle_writes().await;
        while !lane.seek_hole() {
            if lead.fill.look(|body| body.is_whole()) {
                return length.ok_or(Cause::Internal);
            }
            // What is missing belongs to other lanes; one that failed leaves a hole behind.
            ahead.one_ends().await?;
        }
        lane.reopen(None, upstream).await?;
    }
}

/// Makes the entry of a body that is whole and proven, and puts it where hits find it.
fn finish(course: &Course, length: u64, digest: Digest) -> Settled {
    let (fill, fills) = (&course.fill, &course.fills.0);
    let fate = fill.fate();
    let body = if length <= INLINE_BYTES {
        EntryBody::Inline(fill.look(|body| body.gather(0)))
    } else {
        EntryBody::Blocks(fill.look(|body| body.blocks()))
    };
    let mut entry = Entry::new(fill.key().clone(), course.opened.head.clone(), length, digest, body);
    entry.pinned = fill.is_pinned() || course.job.stale.as_ref().is_some_and(|stale| stale.pinned);
    entry.stale = fate == Fate::Stale;
    let stored = !fill.unstored.load(Ordering::Acquire) && fate != Fate::Gone;
    let entry = if stored { fills.store.put(entry) } else { Arc::new(entry) };
    // After a purge the next fill of this key may have begun one of its own.
    if fate != Fate::Gone {
        fills.store.drop_partial(fill.key());
    }
    fills.wrong.forgive(fill.key(), &fill.givers.thank());
    Settled::Entry { entry, revalidated: false }
}
