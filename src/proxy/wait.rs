//! From the cache or from upstream: look up, decide, and wait where there is something to wait for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::AGE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::time::timeout;

use super::answer::Source;
use super::represent::{Whole, represent};
use super::serve::{Asked, CACHE_STATUS, Reply, from_entry, key_of};
use super::{Plane, refuse};
use crate::cache::verdict::{self, ClientWish, Known, Question, Reason, UpstreamState, Verdict};
use crate::cache::{Entry, Key};
use crate::fill::{Cause, Direct, Job, Opened, Origin, Outcome, Seat, Settled};
use crate::protocol::cache_status::{CacheStatus, Fwd};
use crate::protocol::headers::loop_tokens;
use crate::stage::GENERATION;
use crate::telemetry::CacheResult;

/// Bytes of a forwarded header's value; a longer one counts as absent, so that nobody makes a variant of a novel.
const FORWARDED_BYTES: usize = 256;

/// How long an agent waits for an upstream that is known to be in trouble and is only probed: an answer within two
/// seconds is promised then. The probe goes on without it.
const DOUBT: Duration = Duration::from_millis(1_500);

/// Answers what is in memory and fresh, without waiting for anything: the way of nearly every request.
pub(super) fn hot(asked: &Asked<'_>, origin: &Arc<Origin>) -> Option<Reply> {
    let entry = asked.plane.store.hot(&Key::text(&asked.repository.name, asked.path, asked.query))?;
    if !entry.head.selecting.is_empty() {
        return None;
    }
    match verdict::decide(&question(asked, Some(&entry), UpstreamState::Up)) {
        Verdict::Serve(reason) => {
            let status = hit(asked, reason);
            Some(from_entry(asked, origin, &entry, (CacheResult::Hit, reason.as_str()), status))
        }
        _ => None,
    }
}

/// Answers from the cache, or through it.
pub(super) async fn cached(asked: &Asked<'_>, origin: &Arc<Origin>) -> Reply {
    let forwarded = forwarded(asked.headers, &origin.supply.forward_headers);
    let mut key = key_of(asked);
    let mut entry = look_up(asked.plane, &key).await;
    if let Some(other) = entry.as_ref().and_then(|it| variant(&key, &it.head.selecting, &forwarded)) {
        key = other;
        entry = look_up(asked.plane, &key).await;
    }
    let mut question = question(asked, entry.as_deref(), UpstreamState::Up);
    let mut verdict = verdict::decide(&question);
    if !matches!(verdict, Verdict::Serve(_)) {
        // Only now it matters whether there is anybody to ask.
        question.upstream = upstream_state(origin, asked);
        verdict = verdict::decide(&question);
    }
    match (verdict, &entry) {
        (Verdict::Serve(reason), Some(entry)) => {
            from_entry(asked, origin, entry, (CacheResult::Hit, reason.as_str()), hit(asked, reason))
        }
        (Verdict::ServeStale { reason, refresh }, Some(entry)) => {
            if refresh {
                drop(asked.plane.fills.join(job(asked, origin, (key, &forwarded), Some(entry), true)));
            }
            from_entry(asked, origin, entry, (CacheResult::Stale, reason.as_str()), hit(asked, reason))
        }
        // While a fill of it is under way, a body that comes slowly or pauses is better than none.
        (Verdict::Refuse { status, reason }, _)
            if reason == Reason::OnlyIfCached || !asked.plane.fills.is_running(&key) =>
        {
            refuse::verdict(asked, origin, status, reason)
        }
        (verdict, entry) => {
            let reason = verdict.reason();
            let Some(_place) = Waiting::take(asked.plane) else { return refuse::overloaded(asked) };
            through(asked, origin, (key, &forwarded), entry.as_ref(), reason).await
        }
    }
}

/// Memory first, then what is known not to be there, then the index.
async fn look_up(plane: &Plane, key: &Key) -> Option<Arc<Entry>> {
    if let Some(entry) = plane.store.hot(key.as_str()) {
        return Some(entry);
    }
    match plane.fills.negative(key) {
        Some(entry) => Some(entry),
        None => plane.store.find(key.as_str()).await,
    }
}

/// Through a fill: this request's own, or the one that is running.
async fn through(
    asked: &Asked<'_>,
    origin: &Arc<Origin>,
    (key, forwarded): (Key, &HeaderMap),
    stale: Option<&Arc<Entry>>,
    reason: Reason,
) -> Reply {
    let mut job = job(asked, origin, (key, forwarded), stale, false);
    if let Some(until) = asked.plane.fills.spoiled_until(&job.key)
        && !asked.plane.fills.is_running(&job.key)
    {
        return after_failure(asked, origin, stale, &Cause::Spoiled { until });
    }
    // A second round only where the first answer turned out to be another variant than ours.
    for _ in 0..2 {
        // What has to be proven is never passed on unproven.
        if job.expect.is_none() && asked.plane.fills.is_direct(&job.key) {
            return direct(asked, asked.plane.fills.direct(&job).await, origin, stale);
        }
        let patience = if origin.supply.sources.in_doubt(asked.now) { DOUBT } else { Duration::MAX };
        let seat = asked.plane.fills.join(job.clone());
        let Ok(outcome) = timeout(patience, seat.outcome()).await else {
            let until = asked.plane.clock.now().after(DOUBT);
            return after_failure(asked, origin, stale, &Cause::UpstreamDown { until });
        };
        let selecting = match &outcome {
            Outcome::Streaming(opened) => opened.head.selecting.as_slice(),
            Outcome::Settled(Settled::Entry { entry, .. }) => entry.head.selecting.as_slice(),
            Outcome::Settled(_) => &[],
        };
        if let Some(key) = variant(&job.key, selecting, forwarded) {
            if let Some(entry) = look_up(asked.plane, &key).await {
                let status = hit(asked, Reason::Hit);
                return from_entry(asked, origin, &entry, (CacheResult::Hit, Reason::Hit.as_str()), status);
            }
            job = Job { key, stale: None, seen: None, ..job };
            continue;
        }
        return match outcome {
            Outcome::Streaming(opened) => following(asked, seat, &opened, reason),
            Outcome::Settled(settled) => {
                let leads = seat.leads;
                drop(seat);
                ended(asked, origin, (settled, leads), &job, (stale, reason)).await
            }
        };
    }
    refuse::failed(asked, &Cause::Changed)
}

/// An answer from a body that is arriving.
fn following(asked: &Asked<'_>, seat: Seat, opened: &Opened, reason: Reason) -> Reply {
    let mut headers = opened.prepared.headers.clone();
    let age = opened.prepared.freshness.age(asked.now).as_secs();
    let whole = Whole { validators: &opened.prepared.validators, length: opened.length };
    let (code, send, length) = represent(asked, &whole, &mut headers);
    let collapsed = !seat.leads;
    let status = CacheStatus {
        node: &asked.plane.options.node,
        fwd: Some(forwarding(reason)),
        fwd_status: Some(opened.head.status),
        stored: !seat.is_unstored(),
        collapsed,
        ..CacheStatus::default()
    };
    headers.insert(AGE, HeaderValue::from(age));
    headers.insert(CACHE_STATUS, status.render());
    let result = if collapsed { CacheResult::Collapsed } else { CacheResult::Miss };
    let source = Source::following(seat, opened.length, send);
    Reply {
        status: code,
        headers,
        source,
        length,
        result,
        verdict: reason.as_str(),
        close: false,
        said: false,
    }
}

/// An answer after a fill that was over before it had a body for us.
async fn ended(
    asked: &Asked<'_>,
    origin: &Arc<Origin>,
    (settled, leads): (Settled, bool),
    job: &Job,
    (stale, reason): (Option<&Arc<Entry>>, Reason),
) -> Reply {
    match settled {
        Settled::Entry { entry, revalidated } => {
            let result = match (revalidated, leads) {
                (true, _) => CacheResult::Revalidated,
                (false, true) => CacheResult::Miss,
                (false, false) => CacheResult::Collapsed,
            };
            let status = CacheStatus {
                node: &asked.plane.options.node,
                fwd: Some(forwarding(reason)),
                fwd_status: Some(if revalidated { 304 } else { entry.head.status }),
                stored: true,
                collapsed: !leads,
                ..CacheStatus::default()
            };
            from_entry(asked, origin, &entry, (result, reason.as_str()), status)
        }
        Settled::NotShareable(parked) => match parked.take() {
            Some(reply) => pass(asked, reply),
            None => direct(asked, asked.plane.fills.direct(job).await, origin, stale),
        },
        Settled::Failed(cause) => after_failure(asked, origin, stale, &cause),
    }
}

fn direct(
    asked: &Asked<'_>,
    result: Result<Direct, Cause>,
    origin: &Arc<Origin>,
    stale: Option<&Arc<Entry>>,
) -> Reply {
    match result {
        Ok(reply) => pass(asked, reply),
        Err(cause) => after_failure(asked, origin, stale, &cause),
    }
}

/// Upstream failed: something stale is better than any error, and an error of ours better than upstream's.
fn after_failure(
    asked: &Asked<'_>,
    origin: &Arc<Origin>,
    stale: Option<&Arc<Entry>>,
    cause: &Cause,
) -> Reply {
    let question = question(asked, stale.map(|it| &**it), upstream_state(origin, asked));
    match (verdict::decide_after_error(&question), stale) {
        (Verdict::Serve(reason) | Verdict::ServeStale { reason, .. }, Some(entry)) => {
            let mut status = hit(asked, reason);
            status.detail = Some(cause.word());
            from_entry(asked, origin, entry, (CacheResult::Stale, reason.as_str()), status)
        }
        // RFC 9111 §5.2.2.2 names the status, whatever the trouble was.
        (Verdict::Refuse { status, reason: reason @ Reason::MustRevalidate }, _) => {
            refuse::verdict(asked, origin, status, reason)
        }
        _ => refuse::failed(asked, cause),
    }
}

/// One reply for one agent, past the cache.
fn pass(asked: &Asked<'_>, reply: Direct) -> Reply {
    let mut headers = reply.headers;
    let status = CacheStatus {
        node: &asked.plane.options.node,
        fwd: Some(Fwd::Bypass),
        fwd_status: Some(reply.status.as_u16()),
        ..CacheStatus::default()
    };
    headers.insert(CACHE_STATUS, status.render());
    if let Some(length) = reply.length {
        headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let source = if asked.method == http::Method::HEAD { Source::Nothing } else { Source::Pass(reply.body) };
    Reply {
        status: reply.status,
        headers,
        source,
        length: reply.length,
        result: CacheResult::Bypass,
        verdict: "not-shareable",
        close: false,
        said: false,
    }
}

fn question<'a>(asked: &'a Asked<'_>, entry: Option<&'a Entry>, upstream: UpstreamState) -> Question<'a> {
    Question {
        entry: entry.map(|entry| Known { prepared: entry.prepared(), stale: entry.stale }),
        effective: asked.effective,
        wish: if asked.wants.freshness { ClientWish::of(asked.headers) } else { ClientWish::default() },
        upstream,
        now: asked.now,
    }
}

fn upstream_state(origin: &Origin, asked: &Asked<'_>) -> UpstreamState {
    match origin.supply.sources.down_until(asked.now) {
        Some(_) => UpstreamState::Down,
        None => UpstreamState::Up,
    }
}

pub(super) fn hit<'a>(asked: &Asked<'a>, reason: Reason) -> CacheStatus<'a> {
    let detail = (reason != Reason::Hit).then_some(reason.as_str());
    CacheStatus { node: &asked.plane.options.node, hit: true, detail, ..CacheStatus::default() }
}

const fn forwarding(reason: Reason) -> Fwd {
    match reason {
        Reason::Miss => Fwd::UriMiss,
        Reason::RevalidateRequested => Fwd::Request,
        _ => Fwd::Stale,
    }
}

/// The request's headers that the repository forwards, each as one normalised value.
fn forwarded(request: &HeaderMap, names: &[String]) -> HeaderMap {
    let mut chosen = HeaderMap::new();
    for name in names {
        let values: Vec<&[u8]> =
            request.get_all(name).iter().map(|value| value.as_bytes().trim_ascii()).collect();
        let value = values.join(b", ".as_slice());
        if value.is_empty() || value.len() > FORWARDED_BYTES {
            continue;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(&value)) {
            chosen.insert(name, value);
        }
    }
    chosen
}

/// The key of our own variant, where the one at hand was selected by other values (RFC 9111 §4.1).
fn variant(key: &Key, selecting: &[(String, Vec<u8>)], forwarded: &HeaderMap) -> Option<Key> {
    let ours = |name: &str| forwarded.get(name).map_or(&[][..], HeaderValue::as_bytes);
    if selecting.iter().all(|(name, value)| ours(name) == value.as_slice()) {
        return None;
    }
    Some(key.variant(selecting.iter().map(|(name, _)| (name.as_str(), ours(name)))))
}

fn job(
    asked: &Asked<'_>,
    origin: &Arc<Origin>,
    (key, forwarded): (Key, &HeaderMap),
    stale: Option<&Arc<Entry>>,
    wanted: bool,
) -> Job {
    let seen = stale.map(|entry| entry.head.received_at);
    let stale = stale.filter(|entry| !entry.prepared().is_negative() && entry.prepared().can_revalidate());
    let path = asked.target.map_or(asked.below, |target| &target.file.ask);
    Job {
        query: asked.query.map(str::to_owned),
        forwarded: forwarded.clone(),
        stale: stale.cloned(),
        seen,
        wanted,
        loop_tokens: loop_tokens(asked.headers).into_iter().map(str::to_owned).collect(),
        expect: asked.target.map(|target| Arc::clone(&target.file.expect)),
        ask_headers: asked
            .target
            .and_then(|it| it.generation.clone())
            .map(|id| (GENERATION, id))
            .into_iter()
            .collect(),
        pinned: asked.target.is_some_and(|target| target.generation.is_some()),
        span: asked.span.map(|span| span.part()),
        ..Job::new(key, path, &origin.supply, *asked.effective)
    }
}

/// A place among the requests that wait for upstream.
struct Waiting<'a>(&'a Plane);

impl<'a> Waiting<'a> {
    fn take(plane: &'a Plane) -> Option<Self> {
        let before = plane.waiting.fetch_add(1, Ordering::AcqRel);
        let place = Self(plane);
        (before < plane.options.waiting).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The status of an error that an agent gets for a failed fill.
pub(super) const fn status_of(cause: &Cause) -> StatusCode {
    match cause {
        Cause::Overloaded | Cause::Refused(_) | Cause::NotThere => StatusCode::SERVICE_UNAVAILABLE,
        Cause::UpstreamDown { .. } | Cause::Unreachable(_) => StatusCode::GATEWAY_TIMEOUT,
        Cause::Lied(_) | Cause::Spoiled { .. } | Cause::Broken(_) | Cause::Changed | Cause::Abandoned => {
            StatusCode::BAD_GATEWAY
        }
        Cause::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_file_that_is_not_there_yet_is_503_and_a_wrong_one_502() {
        assert_eq!(status_of(&Cause::NotThere), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(status_of(&Cause::Lied("wrong-digest")), StatusCode::BAD_GATEWAY);
    }
}
