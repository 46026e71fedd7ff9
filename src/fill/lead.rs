//! The life of a fill, told in order: a place in line, the head, the body, the seal.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::VARY;
use tokio::task::JoinSet;

use super::Fills;
use super::body::{Body, split};
use super::cause::Cause;
use super::direct::Parked;
use super::job::Job;
use super::lane::{Course, Lane, Stop, note_progress};
use super::open::{Line, ask_all, first_ask};
use super::seat::Settled;
use super::state::{Fill, Opened};
use super::tokens::Token;
use crate::base::digest::Digest;
use crate::base::limits::{BLOCK_BYTES, INLINE_BYTES, LANES};
use crate::cache::purge::Fate;
use crate::cache::{BodyMap, Entry, EntryBody, Head, Prepared, Record};
use crate::protocol::freshness::{self, Storable};
use crate::protocol::headers::storable_headers;
use crate::protocol::reply::ReplyKind;
use crate::protocol::validators::{Validators, confirms, resume_validator, same_representation};
use crate::upstream::{Reply, Span};

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
        self.fill.settle(Settled::Failed(Cause::Internal));
        self.fills.leave(&self.fill);
    }
}

/// Runs one fill to its end.
pub(super) async fn run(fills: Fills, fill: Arc<Fill>, mut job: Job) {
    let token = fills.0.tokens.issue();
    job.loop_tokens.push(token.as_str().to_owned());
    let lead = Lead { fills, fill, _token: token };
    let supply = Arc::clone(&job.supply);
    match drive(&lead, job).await {
        Ok(settled) => {
            supply.events.ended("complete");
            lead.fill.settle(settled);
        }
        Err(cause) => {
            tracing::debug!(key = %lead.fill.key(), %cause, "fill ended");
            supply.events.ended(cause.word());
            // Out of the registry first: whoever comes now starts anew instead of sharing the failure.
            lead.fills.leave(&lead.fill);
            lead.fill.settle(Settled::Failed(cause));
        }
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
    let _permit = fills.0.admission.enter(job.class(), patience).await.ok_or(Cause::Overloaded)?;
    let mut goes_on = true;
    loop {
        let partial = match job.stale {
            None if goes_on => {
                fills.0.store.find_partial(job.key.as_str()).await.filter(|it| first_gap(it).is_some())
            }
            _ => None,
        };
        let mut ask = first_ask(&job, job.stale.as_deref());
        ask.range = partial.as_ref().and_then(continuation);
        let line = match ask_all(&job.supply, &fills.0.clock, &ask).await {
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
                    && let Some(settled) = confirm(fills, &job, &line.reply)
                {
                    return Ok(settled);
                }
                // It confirmed something else than what we have: ask for the whole.
                job.stale = None;
            }
            ReplyKind::Absent(_) => return Ok(negative(fills, &job, &line.reply)),
            ReplyKind::Part { .. } => match partial.filter(|it| continues(it, &line.reply)) {
                Some(partial) => return continue_partial(lead, job, line, partial).await,
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
        Some(entry) => Some(entry),
        None => fills.0.store.find(job.key.as_str()).await,
    };
    current.filter(|entry| job.seen.is_none_or(|seen| entry.head.received_at > seen))
}

/// 304: the entry we have, under a fresh head (RFC 9111 §4.3.4). `None` where upstream confirmed another one.
fn confirm(fills: &Fills, job: &Job, reply: &Reply) -> Option<Settled> {
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
    let entry = fills.0.store.put(stale.with_head(head));
    Some(Settled::Entry { entry, revalidated: true })
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
    fills.remember_negative(&entry, job.effective.negative_for);
    Settled::Entry { entry, revalidated: false }
}

/// The first block a record lacks; the last one where it lacks none, so that there is something to ask for.
fn first_gap(partial: &Record) -> Option<usize> {
    let BodyMap::Blocks(blocks) = &partial.body else { return None };
    let held = blocks.iter().any(Option::is_some);
    let gap = blocks.iter().position(Option::is_none).unwrap_or(blocks.len().saturating_sub(1));
    held.then_some(gap)
}

fn continuation(partial: &Record) -> Option<Span> {
    let validators = Validators::of(&crate::protocol::headers::header_map(&partial.head.headers));
    let start = first_gap(partial)? as u64 * BLOCK_BYTES;
    Some(Span { start, end: None, if_range: Some(resume_validator(&validators)?) })
}

/// Whether a 206 continues the body that the record began.
fn continues(partial: &Record, reply: &Reply) -> bool {
    let ours = Validators::of(&crate::protocol::headers::header_map(&partial.head.headers));
    matches!(reply.kind, ReplyKind::Part { total, .. } if partial.length == Some(total))
        && same_representation(&ours, &Validators::of(&reply.headers))
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

/// A whole body begins.
async fn begin(lead: &Lead, job: Job, line: Line, length: Option<u64>) -> Result<Settled, Cause> {
    let fills = &lead.fills;
    let reply = &line.reply;
    let facts = freshness::assess(&job.forwarded, 200, &reply.headers, reply.requested_at, reply.received_at);
    if let Storable::No(reason) = job.effective.may_store(&facts) {
        tracing::debug!(key = %job.key, reason = reason.as_str(), "the answer cannot be shared");
        fills.remember_direct(&job.key);
        return Ok(Settled::NotShareable(Parked::new(line)));
    }
    fills.forget_direct(&job.key);
    fills.forget_negative(&job.key);
    if let Some(stale) = &job.stale
        && lead.fill.fate() != Fate::Gone
        && length == Some(stale.length)
        && same_representation(&stale.prepared().origin, &Validators::of(&reply.headers))
    {
        // It did not look at our conditions, but it is what we have: no need to fetch it again.
        let entry = fills.0.store.put(stale.with_head(head_of(&job, reply)));
        return Ok(Settled::Entry { entry, revalidated: true });
    }
    let head = head_of(&job, reply);
    let body = Body::new(length);
    stream(lead, job, line, (head, length), body, 0).await
}

/// The rest of a body that an earlier fill began: same identity, so its blocks count.
async fn continue_partial(lead: &Lead, job: Job, line: Line, partial: Record) -> Result<Settled, Cause> {
    let gap = first_gap(&partial).unwrap_or_default();
    let BodyMap::Blocks(names) = &partial.body else { return Err(Cause::Internal) };
    let mut body = Body::new(partial.length);
    for (index, digest) in names.iter().enumerate().filter(|(index, _)| *index != gap) {
        if let Some(digest) = digest {
            body.adopt(index, *digest);
        }
    }
    // Header fields of a 206 update those of the part we hold (RFC 9111 §3.4).
    let head = Head {
        headers: freshness::merge_304(&partial.head.headers, &line.reply.headers),
        requested_at: line.reply.requested_at,
        received_at: line.reply.received_at,
        source: line.reply.source.clone(),
        ..partial.head.clone()
    };
    stream(lead, job, line, (head, partial.length), body, gap as u64 * BLOCK_BYTES).await
}

/// Opens the body to readers, brings it to its end, and seals it.
async fn stream(
    lead: &Lead,
    job: Job,
    line: Line,
    (head, length): (Head, Option<u64>),
    mut body: Body,
    at: u64,
) -> Result<Settled, Cause> {
    let fill = &lead.fill;
    // Before anybody can look: no reader may find the front unattended and want a lane there.
    let claimed = length.is_some() && body.claim(split(at).0);
    fill.make_room(length, job.supply.max_object);
    let prepared = Prepared::of(&head, length.unwrap_or_default(), None);
    let opened = Arc::new(Opened { head, prepared, length });
    fill.open(Arc::clone(&opened), body);
    let course = Arc::new(Course { fills: lead.fills.clone(), fill: Arc::clone(fill), job, opened });
    let mut lane = Lane::lead(Arc::clone(&course), line, at, claimed);
    let result = flow(lead, &course, &mut lane).await;
    lane.settle_writes().await;
    match result {
        Ok(length) => finish(&course, &mut lane, length).await,
        Err(cause) => {
            note_progress(&course);
            Err(cause)
        }
    }
}

/// Pumps until every byte is here. Returns the body's length.
async fn flow(lead: &Lead, course: &Arc<Course>, lane: &mut Lane) -> Result<u64, Cause> {
    let mut lanes = JoinSet::new();
    let length = course.opened.length;
    let (mut last_at, mut stuck) = (lane.at, 0);
    loop {
        let upstream = lane.line.as_ref().map(|line| Arc::clone(&line.upstream));
        match lane.pump().await {
            Stop::Wanted => {
                open_lanes(course, &mut lanes);
                continue;
            }
            Stop::End if length.is_none() && lane.total.is_none_or(|total| total == lane.at) => {
                let length = lane.at;
                lane.seal_last().await;
                return Ok(length);
            }
            Stop::End if length == Some(lane.at) => lane.seal_last().await,
            Stop::End | Stop::Taken => {}
            Stop::Alone if lead.fills.leave_if_alone(&lead.fill) => {
                lane.release();
                return Err(Cause::Abandoned);
            }
            Stop::Alone => continue,
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
            lanes.join_next().await.ok_or(Cause::Internal)?.map_err(|_| Cause::Internal)?;
        }
        lane.reopen(None, upstream).await?;
    }
}

/// Starts lanes for what readers want far ahead, within the bound.
fn open_lanes(course: &Arc<Course>, lanes: &mut JoinSet<()>) {
    while lanes.try_join_next().is_some() {}
    for (at, until) in course.fill.take_wants() {
        if lanes.len() + 1 >= LANES || resume_validator(&course.opened.prepared.origin).is_none() {
            return;
        }
        let first = (at / BLOCK_BYTES) as usize;
        let wanted = until.min(course.opened.length.unwrap_or(until)).div_ceil(BLOCK_BYTES) as usize;
        let limit = course.fill.look(|body| {
            let limit = wanted.min(first + body.holes_from(first));
            (limit > first && body.claim(first)).then_some(limit)
        });
        if let Some(limit) = limit {
            let lane = Lane::ahead(Arc::clone(course), first, limit);
            lanes.spawn(run_ahead(lane));
        }
    }
}

/// A lane for one span. What it cannot get it leaves to the first one.
async fn run_ahead(mut lane: Lane) {
    let mut result = lane.reopen(None, None).await;
    while result.is_ok() {
        let upstream = lane.line.as_ref().map(|line| Arc::clone(&line.upstream));
        result = match lane.pump().await {
            Stop::Broken(error) => lane.reopen(Some(&error), upstream).await,
            Stop::Wanted => Ok(()),
            Stop::End if lane.course.opened.length == Some(lane.at) => {
                lane.seal_last().await;
                break;
            }
            Stop::End | Stop::Taken | Stop::Alone => break,
        };
    }
    if let Err(cause) = result {
        tracing::info!(key = %lane.fill().key(), at = lane.at, %cause, "a second lane was given up");
        lane.fill().look(Body::stay_single);
    }
    lane.release();
    lane.settle_writes().await;
}

/// Proves the body whole, makes its entry, and puts it where hits find it.
async fn finish(course: &Course, lane: &mut Lane, length: u64) -> Result<Settled, Cause> {
    let fill = &course.fill;
    let fate = fill.fate();
    let stored = !fill.unstored.load(Ordering::Acquire) && fate != Fate::Gone;
    let digest = lane.digest(length).await?;
    let body = if length <= INLINE_BYTES {
        EntryBody::Inline(fill.look(|body| body.gather(0)))
    } else {
        EntryBody::Blocks(fill.look(|body| body.blocks()))
    };
    let mut entry = Entry::new(fill.key().clone(), course.opened.head.clone(), length, digest, body);
    entry.pinned = course.job.stale.as_ref().is_some_and(|stale| stale.pinned);
    entry.stale = fate == Fate::Stale;
    let store = &course.fills.0.store;
    let entry = if stored { store.put(entry) } else { Arc::new(entry) };
    // After a purge the next fill of this key may have begun one of its own.
    if fate != Fate::Gone {
        store.drop_partial(fill.key());
    }
    Ok(Settled::Entry { entry, revalidated: false })
}
