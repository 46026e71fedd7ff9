//! Asking upstream: one of them, or one after the other until somebody has an answer worth having.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{IF_MODIFIED_SINCE, IF_NONE_MATCH};

use super::cause::Cause;
use super::job::{Job, Supply};
use crate::base::clock::{Clock, Timestamp};
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
        Err(FetchError::Lie(lie)) => {
            supply.events.upstream_lied(upstream.name(), lie.as_str());
            tracing::warn!(
                upstream = upstream.name(),
                path = ask.path,
                lie = lie.as_str(),
                "upstream's reply was refused"
            );
            Err(Cause::Lied(lie.as_str()))
        }
        Err(error) => {
            supply.events.upstream_answered(upstream.name(), None);
            tracing::warn!(upstream = upstream.name(), path = ask.path, %error, "upstream did not answer");
            Err(Cause::Unreachable(error.blame().to_owned()))
        }
    }
}

/// Asks the upstreams in order until one has a body, a confirmation, or says that there is nothing.
///
/// "Nothing" (404, 410) is believed only when nobody further down has it: a mirror that is half replicated
/// must not hide a file from agents. 403, 429 and 5xx never get past here.
pub(super) async fn ask_all(supply: &Supply, clock: &Clock, ask: &Ask) -> Result<Line, Cause> {
    let now = clock.now();
    let mut absent = None;
    let mut last: Option<Cause> = None;
    for upstream in supply.sources.candidates(now) {
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
            ReplyKind::Whole { framed: false, length: None } => {
                supply.events.upstream_lied(upstream.name(), "unframed");
                tracing::warn!(
                    upstream = upstream.name(),
                    path = ask.path,
                    "a body whose end cannot be told from a cut"
                );
                last = Some(Cause::Lied("unframed"));
            }
            ReplyKind::Whole { .. } | ReplyKind::Part { .. } | ReplyKind::NotModified => return Ok(line),
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
    absent.ok_or_else(|| last.unwrap_or_else(|| Cause::UpstreamDown { until: due(supply, now) }))
}

fn due(supply: &Supply, now: Timestamp) -> Timestamp {
    supply.sources.down_until(now).unwrap_or_else(|| now.after(Duration::from_secs(1)))
}

/// The question a job asks first.
pub(super) fn first_ask(job: &Job, stale: Option<&Entry>) -> Ask {
    let mut headers = job.forwarded.clone();
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
