//! Asking upstream: one of them, or one after the other until somebody has an answer worth having.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{IF_MODIFIED_SINCE, IF_NONE_MATCH};

use super::Fills;
use super::cause::Cause;
use super::job::{Job, Supply};
use super::proof::{WRONG_DIGEST, WRONG_LENGTH};
use crate::base::clock::Timestamp;
use crate::cache::Entry;
use crate::protocol::reply::ReplyKind;
use crate::upstream::{Ask, BodyError, FetchError, Permit, Reply, Upstream};

/// A reply on its way, with the right to be one of its upstream's fetches.
pub(super) struct Line {
    pub(super) reply: Reply,
    pub(super) upstream: Arc<Upstream>,
    _permit: Permit,
}

/// How long a fetch waits for a place among its upstream's fetches.
const PLACE_PATIENCE: Duration = Duration::from_secs(20);

impl Line {
    /// The next bytes of the body, counted as received. Nothing else may read it: what crossed the WAN is what an
    /// administrator pays for, whoever it was for.
    pub(super) async fn frame(&mut self, supply: &Supply) -> Option<Result<Bytes, BodyError>> {
        let frame = self.reply.frame().await;
        if let Some(Ok(bytes)) = &frame {
            supply.events.upstream_received(self.upstream.name(), bytes.len() as u64);
        }
        frame
    }
}

/// Waits for a place among the fetches of an upstream.
pub(super) async fn place_at(upstream: &Upstream) -> Result<Permit, Cause> {
    let permit = tokio::time::timeout(PLACE_PATIENCE, upstream.acquire()).await;
    permit.ok().and_then(Result::ok).ok_or(Cause::Overloaded)
}

/// Asks one upstream and says so to the supply's events. Statuses are not judged here.
pub(super) async fn ask_one(supply: &Supply, upstream: &Arc<Upstream>, ask: &Ask) -> Result<Line, Cause> {
    ask_from(supply, (upstream, place_at(upstream).await?), ask).await
}

/// As [`ask_one`], from a place that was taken before.
pub(super) async fn ask_from(
    supply: &Supply,
    (upstream, permit): (&Arc<Upstream>, Permit),
    ask: &Ask,
) -> Result<Line, Cause> {
    match upstream.fetch(ask).await {
        Ok(reply) => {
            supply.events.upstream_answered(upstream.name(), Some(reply.status));
            Ok(Line { reply, upstream: Arc::clone(upstream), _permit: permit })
        }
        Err(FetchError::Lie(lie)) => Err(lied(supply, upstream, ask, lie.as_str())),
        Err(error) => {
            supply.events.upstream_answered(upstream.name(), None);
            tracing::warn!(upstream = upstream.name(), path = ask.path, %error, "upstream did not answer");
            Err(Cause::Unreachable(error.blame().to_owned()))
        }
    }
}

/// Counts and logs an answer that is refused.
pub(super) fn lied(supply: &Supply, upstream: &Upstream, ask: &Ask, lie: &'static str) -> Cause {
    supply.events.upstream_lied(upstream.name(), lie);
    tracing::warn!(upstream = upstream.name(), path = ask.path, lie, "upstream's reply was refused");
    Cause::Lied(lie)
}

/// Asks the upstreams in order, but those that are `barred`, until one has a body, a confirmation, or says that there
/// is nothing.
///
/// "Nothing" (404, 410) is believed only when nobody further down has it: a mirror that is half replicated
/// must not hide a file from agents. Of a file that is listed it is not believed at all. 403, 429 and 5xx never get
/// past here, nor does a listed file of another length.
pub(super) async fn ask_all(fills: &Fills, job: &Job, ask: &Ask, barred: &[String]) -> Result<Line, Cause> {
    let supply = &*job.supply;
    let mut absent = None;
    // Where nobody else has anything to say, the answer is what those had who are not asked again.
    let mut last = (!barred.is_empty()).then_some(Cause::Lied(WRONG_DIGEST));
    for upstream in fills.candidates(job, barred) {
        let line = match ask_one(supply, &upstream, ask).await {
            Ok(line) => line,
            Err(cause) => {
                // What somebody answered says more than that somebody else did not.
                let says_nothing = matches!(cause, Cause::Unreachable(_) | Cause::Overloaded);
                if !says_nothing || last.is_none() {
                    last = Some(cause);
                }
                continue;
            }
        };
        match &line.reply.kind {
            // A body whose end cannot be told from a cut.
            ReplyKind::Whole { framed: false, length: None } => {
                last = Some(lied(supply, &upstream, ask, "unframed"));
            }
            ReplyKind::Whole { length: Some(length), .. } | ReplyKind::Part { total: length, .. }
                if job.listed_length().is_some_and(|listed| listed != *length) =>
            {
                last = Some(lied(supply, &upstream, ask, WRONG_LENGTH));
                fills.0.wrong.remember(&job.key, &[upstream.name().to_owned()], fills.0.clock.now());
            }
            ReplyKind::Whole { .. } | ReplyKind::Part { .. } | ReplyKind::NotModified => return Ok(line),
            ReplyKind::Absent(_) if job.expect.is_some() => {
                tracing::warn!(
                    upstream = upstream.name(),
                    path = ask.path,
                    "upstream lacks a file that is listed"
                );
                last = Some(Cause::NotThere);
            }
            ReplyKind::Absent(_) => {
                absent.get_or_insert(line);
            }
            ReplyKind::Redirect(_) | ReplyKind::Busy { .. } | ReplyKind::Other(_) => {
                let status = line.reply.status.as_u16();
                tracing::warn!(
                    upstream = upstream.name(),
                    path = ask.path,
                    status,
                    "upstream does not serve this at the moment"
                );
                last = Some(Cause::Refused(status));
            }
        }
    }
    let now = fills.0.clock.now();
    absent.ok_or_else(|| last.unwrap_or_else(|| Cause::UpstreamDown { until: due(supply, now) }))
}

fn due(supply: &Supply, now: Timestamp) -> Timestamp {
    supply.sources.down_until(now).unwrap_or_else(|| now.after(Duration::from_secs(1)))
}

/// The question a job asks first.
pub(super) fn first_ask(job: &Job, stale: Option<&Entry>) -> Ask {
    let mut headers = job.headers();
    if let Some(entry) = stale {
        add_conditions(&mut headers, entry);
    }
    Ask {
        path: job.path.clone(),
        query: job.query.clone(),
        headers,
        range: None,
        loop_tokens: job.loop_tokens.clone(),
    }
}

/// Conditions that make upstream answer 304 when nothing changed (RFC 9110 §13.1.2, §13.1.3).
fn add_conditions(headers: &mut HeaderMap, entry: &Entry) {
    for (stored, condition) in [("etag", IF_NONE_MATCH), ("last-modified", IF_MODIFIED_SINCE)] {
        let value = entry.head.headers.iter().find(|(name, _)| name == stored).map(|(_, value)| value);
        if let Some(value) = value.and_then(|value| http::HeaderValue::from_bytes(value).ok()) {
            headers.insert(condition, value);
        }
    }
}
