//! Answers that are not what was asked for: short, plain, and without a word about the inside.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AGE, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::answer::Source;
use super::serve::{Asked, CACHE_STATUS, Reply};
use super::wait::status_of;
use crate::base::clock::Timestamp;
use crate::cache::Entry;
use crate::cache::verdict::Reason;
use crate::fill::{Cause, Origin};
use crate::protocol::cache_status::{CacheStatus, Fwd};
use crate::protocol::request::Refusal;
use crate::telemetry::CacheResult;

/// Longest `Retry-After` that is said: agents that wait longer than this are as good as gone.
const RETRY_LONGEST: Duration = Duration::from_secs(60);

fn plain(status: StatusCode, text: &'static str, verdict: &'static str) -> Reply {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let length = Some(text.len() as u64);
    let source = Source::Bytes(Bytes::from_static(text.as_bytes()));
    Reply { status, headers, source, length, result: CacheResult::Error, verdict, close: false, said: false }
}

/// Refused before anything was looked at.
pub(super) fn at_the_door(refusal: &Refusal) -> Reply {
    let text = match refusal.status {
        StatusCode::METHOD_NOT_ALLOWED => "only GET and HEAD\n",
        StatusCode::URI_TOO_LONG => "the target is too long\n",
        StatusCode::EXPECTATION_FAILED => "no expectations\n",
        StatusCode::MISDIRECTED_REQUEST => "not a host of this connection\n",
        StatusCode::HTTP_VERSION_NOT_SUPPORTED => "HTTP/1.1 or HTTP/2\n",
        _ => "bad request\n",
    };
    let mut reply = plain(refusal.status, text, refusal.reason.as_str());
    reply.close = refusal.close;
    if refusal.allow {
        reply.headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    reply
}

/// Our own question came back to us (RFC 5842 §7.2).
pub(super) fn a_loop() -> Reply {
    plain(StatusCode::LOOP_DETECTED, "handlers point at each other\n", "loop")
}

/// No repository has this path.
pub(super) fn unknown() -> Reply {
    plain(StatusCode::NOT_FOUND, "not found\n", "no-repository")
}

/// The repository takes no query.
pub(super) fn query() -> Reply {
    plain(StatusCode::BAD_REQUEST, "no query is accepted here\n", "query")
}

/// The directory has no such file.
pub(super) fn not_here() -> Reply {
    plain(StatusCode::NOT_FOUND, "not found\n", "not-found")
}

/// Something of ours does not work at the moment.
pub(super) fn try_again(text: &'static str, verdict: &'static str) -> Reply {
    let mut reply = plain(StatusCode::SERVICE_UNAVAILABLE, text, verdict);
    reply.headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
    reply
}

/// Upstream said lately that there is none (404, 410).
pub(super) fn absent(
    asked: &Asked<'_>,
    entry: &Arc<Entry>,
    (result, verdict): (CacheResult, &'static str),
    status: &CacheStatus<'_>,
) -> Reply {
    let code = StatusCode::from_u16(entry.head.status).unwrap_or(StatusCode::NOT_FOUND);
    let mut reply = plain(code, "not found\n", verdict);
    reply.result = result;
    // It may be published any minute: caches behind us should not remember longer than we do.
    reply.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    reply.headers.insert(CACHE_STATUS, status.render());
    reply.headers.insert(AGE, HeaderValue::from(entry.prepared().freshness.age(asked.now).as_secs()));
    reply
}

/// The verdict was to refuse: nothing usable is stored and nobody can be asked.
pub(super) fn verdict(asked: &Asked<'_>, origin: &Origin, status: StatusCode, reason: Reason) -> Reply {
    let text = match reason {
        Reason::OnlyIfCached => "not in the cache\n",
        _ => "upstream cannot be reached at the moment\n",
    };
    let mut reply = plain(status, text, reason.as_str());
    let down = CacheStatus {
        node: &asked.plane.options.node,
        fwd: Some(Fwd::UriMiss),
        detail: Some(reason.as_str()),
        ..CacheStatus::default()
    };
    reply.headers.insert(CACHE_STATUS, down.render());
    if let Some(until) = origin.supply.sources.down_until(asked.now) {
        reply.headers.insert(RETRY_AFTER, retry_after(asked, until));
    }
    reply
}

/// Too many requests wait for upstream already.
pub(super) fn overloaded(asked: &Asked<'_>) -> Reply {
    failed(asked, &Cause::Overloaded)
}

/// The fill failed and there is nothing better.
pub(super) fn failed(asked: &Asked<'_>, cause: &Cause) -> Reply {
    let text = match cause {
        Cause::Overloaded => "too many requests are waiting; try again\n",
        Cause::UpstreamDown { .. } | Cause::Unreachable(_) => "upstream cannot be reached at the moment\n",
        Cause::Refused(_) => "upstream does not serve this at the moment\n",
        Cause::NotThere => "listed, but not there yet; try again\n",
        Cause::Internal => "internal error\n",
        _ => "upstream's answer cannot be used\n",
    };
    let mut reply = plain(status_of(cause), text, cause.word());
    let fwd_status = if let Cause::Refused(status) = cause { Some(*status) } else { None };
    let status = CacheStatus {
        node: &asked.plane.options.node,
        fwd: Some(Fwd::UriMiss),
        fwd_status,
        detail: Some(cause.word()),
        ..CacheStatus::default()
    };
    reply.headers.insert(CACHE_STATUS, status.render());
    let until = match cause {
        Cause::UpstreamDown { until } | Cause::Spoiled { until } => *until,
        _ => asked.now.after(Duration::from_secs(1)),
    };
    if matches!(reply.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
        || matches!(cause, Cause::Spoiled { .. })
    {
        reply.headers.insert(RETRY_AFTER, retry_after(asked, until));
    }
    reply
}

/// Seconds until it is worth trying again, with jitter so that a thousand agents do not come back together.
fn retry_after(asked: &Asked<'_>, until: Timestamp) -> HeaderValue {
    let wait = until.since(asked.now).min(RETRY_LONGEST).as_secs();
    let jitter = asked.plane.ids.next() % (wait + 5);
    HeaderValue::from(wait + 1 + jitter)
}
