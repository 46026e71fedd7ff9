//! What is written down about a request when its answer ends, however it ends.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{StatusCode, Version};

use super::{Ids, Plane, Repository};
use crate::base::clock::Timestamp;
use crate::server::{BoxError, Peer};
use crate::telemetry::{AccessLog, AccessRecord, CacheResult, Span, TRACEPARENT};

/// Counts an answer. Dropping it writes the access-log line and the counters, once.
pub(super) struct Meter {
    plane: Arc<Plane>,
    repository: Option<Arc<Repository>>,
    listener: &'static str,
    began: Instant,
    first_byte: Option<Duration>,
    status: StatusCode,
    result: CacheResult,
    verdict: &'static str,
    bytes: u64,
    complete: bool,
    span: Option<Span>,
    line: Option<Box<Line>>,
}

/// What only the access log and traces need; not kept where there are none.
struct Line {
    time: Timestamp,
    client: SocketAddr,
    id: u64,
    /// The head as it came: keeping it is cheaper than copying what is told of it. There from [`Meter::keep`] on.
    head: Option<Arc<Parts>>,
}

/// A request's head, which its line may keep as well.
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one, and both live for a moment")]
pub(super) enum RequestHead {
    /// Nobody keeps it.
    Own(Parts),
    /// The line does.
    Shared(Arc<Parts>),
}

impl Deref for RequestHead {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        match self {
            Self::Own(parts) => parts,
            Self::Shared(parts) => parts,
        }
    }
}

impl Meter {
    /// Starts the clock for one request.
    pub(super) fn start(plane: &Arc<Plane>, parts: &Parts, peer: &Peer, id: u64) -> Self {
        let span = plane
            .tracer
            .as_ref()
            .and_then(|tracer| tracer.begin(parts.headers.get(TRACEPARENT).and_then(|it| it.to_str().ok())));
        let is_wanted = span.is_some() || plane.access.as_ref().is_some_and(AccessLog::is_wanted);
        let line = is_wanted
            .then(|| Box::new(Line { time: plane.clock.now(), client: peer.address, id, head: None }));
        Self {
            plane: Arc::clone(plane),
            repository: None,
            listener: peer.listener,
            began: Instant::now(),
            first_byte: None,
            status: StatusCode::OK,
            result: CacheResult::Error,
            verdict: "",
            bytes: 0,
            complete: false,
            span,
            line,
        }
    }

    /// What the request is called in a trace, if it is told about.
    pub(super) const fn span(&self) -> Option<Span> {
        self.span
    }

    /// Keeps the head for the line, where there is one. Before anything is waited for: whoever leaves meanwhile is in
    /// the log, too.
    pub(super) fn keep(&mut self, head: Parts) -> RequestHead {
        match &mut self.line {
            None => RequestHead::Own(head),
            Some(line) => RequestHead::Shared(Arc::clone(line.head.insert(Arc::new(head)))),
        }
    }

    /// The repository the request is for.
    pub(super) fn of(&mut self, repository: &Arc<Repository>) {
        self.repository = Some(Arc::clone(repository));
    }

    /// Whether the request is for a repository.
    pub(super) const fn has_repository(&self) -> bool {
        self.repository.is_some()
    }

    /// How it is answered: the status, the result that counts, and the word of the verdict.
    pub(super) fn judged(&mut self, status: StatusCode, result: CacheResult, verdict: &'static str) {
        self.status = status;
        self.result = result;
        self.verdict = verdict;
    }

    /// An answer that has no body is complete with its head.
    pub(super) fn bodiless(&mut self) {
        self.complete = true;
    }

    /// Bytes were handed to the network; `last` when they are the last ones.
    pub(super) fn sent(&mut self, bytes: u64, last: bool) {
        if self.first_byte.is_none() && self.line.is_some() {
            self.first_byte = Some(self.began.elapsed());
        }
        self.bytes += bytes;
        self.complete |= last;
    }

    /// The body broke off on our side.
    pub(super) fn broke(&mut self, error: &BoxError) {
        self.complete = false;
        let repository = self.repository.as_ref().map_or("", |it| it.name.as_str());
        tracing::warn!(repository, bytes = self.bytes, %error, "an answer was broken off");
    }

    fn log(&self, line: &Line, took: Duration) {
        let Some(head) = &line.head else { return };
        let field = |name| head.headers.get(name).and_then(|it| it.to_str().ok());
        let id = Ids::value(line.id);
        let record = AccessRecord {
            time: line.time,
            client: line.client,
            listener: self.listener,
            request_id: id.to_str().unwrap_or_default(),
            method: head.method.as_str(),
            target: head.uri.path_and_query().map_or("", |it| it.as_str()),
            version: match head.version {
                Version::HTTP_2 => "HTTP/2.0",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            status: self.status.as_u16(),
            bytes: self.bytes,
            complete: self.complete,
            first_byte: self.first_byte.unwrap_or(took),
            duration: took,
            repository: self.repository.as_ref().map(|it| it.name.as_str()),
            result: self.result.as_str(),
            verdict: self.verdict,
            range: field(http::header::RANGE),
            agent: field(http::header::USER_AGENT),
        };
        if let Some(access) = &self.plane.access {
            access.log(&record);
        }
        if let (Some(span), Some(tracer)) = (&self.span, &self.plane.tracer) {
            tracer.request(span, &record);
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        let route = match &self.repository {
            Some(repository) => {
                repository.metrics.request(self.result);
                repository.metrics.bytes(self.result, self.bytes);
                repository.route(self.listener)
            }
            None => None,
        };
        route.unwrap_or(&self.plane.elsewhere).answered(self.status, took);
        if let Some(line) = self.line.take() {
            self.log(&line, took);
        }
    }
}
