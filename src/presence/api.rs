//! The agents' API over HTTP: `/agent/v1/checkin`, `channel`, `poll`, `probe`, `bye`. Who asks is known already.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, UPGRADE};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::plane::{Presence, Refusal};
use super::report::{REPORT_BYTES, Report};
use super::{AgentId, channel};
use crate::fleet::TreePath;
use crate::protocol::agent_api::{CHECK_IN_BYTES, CheckIn, HandlerState, OldSequence, Poll, Probed, hops};
use crate::server::{BoxError, Peer};

/// An answer; a 101 carries what becomes of its connection.
pub type Answer = http::Response<Bytes>;

/// How long the body of a request may take: 64 KiB over a modem.
const BODY_WITHIN: Duration = Duration::from_secs(20);

/// Seconds after which an agent may come again.
const AGAIN: &str = "5";

/// An agent whose identity is proven.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Who it is.
    pub id: AgentId,
    /// The part of the tree that its token is good for.
    pub within: Option<TreePath>,
}

/// Whether this is a call of ours: what follows `/agent/v1/`.
pub fn is_call(call: &str) -> bool {
    matches!(call, "checkin" | "channel" | "poll" | "probe" | "bye")
}

impl Presence {
    /// Answers a request below `/agent/v1/` whose last segment is `call`, one of ours ([`is_call`]); `caller` is who it
    /// was proven to come from.
    pub async fn answer<B>(
        self: &Arc<Self>,
        call: &str,
        request: Request<B>,
        peer: &Peer,
        caller: Option<&Asker>,
    ) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let method = if matches!(call, "channel" | "probe") { Method::GET } else { Method::POST };
        if request.method() != method {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "another method");
            let allowed = if method == Method::GET { "GET" } else { "POST" };
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            return answer;
        }
        if call == "probe" {
            return self.probe(peer);
        }
        let Some(Asker { id, within }) = caller else {
            return text(StatusCode::UNAUTHORIZED, "who is asking?");
        };
        match call {
            "checkin" => self.answer_check_in((id, within.as_ref()), request, peer).await,
            "poll" => self.answer_poll(id, request).await,
            "bye" => {
                self.bye(id);
                empty(StatusCode::NO_CONTENT)
            }
            _ => channel::open(self, id, &request),
        }
    }

    async fn answer_check_in<B>(
        &self,
        (id, within): (&AgentId, Option<&TreePath>),
        request: Request<B>,
        peer: &Peer,
    ) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        self.metrics.responses.inc();
        let count = |result| self.metrics.checkins.of(result).inc();
        let told: CheckIn = match read(request, CHECK_IN_BYTES).await {
            Ok(told) => told,
            Err(answer) => {
                count(if answer.status() == StatusCode::PAYLOAD_TOO_LARGE { "too-large" } else { "bad" });
                return answer;
            }
        };
        if let Err(excess) = told.check() {
            count("bad");
            return text(StatusCode::BAD_REQUEST, excess.to_string());
        }
        match self.check_in(id, told, (Some(peer.address.ip()), within)).await {
            Ok(checked_in) => {
                count("accepted");
                json(StatusCode::OK, &checked_in)
            }
            Err(refusal) => {
                count(match refusal {
                    Refusal::Old(_) => "old",
                    Refusal::Full => "full",
                    Refusal::Disk => "unwritten",
                });
                refused(refusal)
            }
        }
    }

    async fn answer_poll<B>(&self, id: &AgentId, request: Request<B>) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let poll: Poll = match read(request, CHECK_IN_BYTES).await {
            Ok(poll) => poll,
            Err(answer) => return answer,
        };
        match self.poll(id, poll).await {
            Ok(polled) => json(StatusCode::OK, &polled),
            Err(refusal) => refused(refusal),
        }
    }

    /// Answers a node below that reports what has become of its agents.
    pub async fn answer_report<B>(self: &Arc<Self>, request: Request<B>, node: &str) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let report: Report = match read(request, REPORT_BYTES).await {
            Ok(report) => report,
            Err(answer) => return answer,
        };
        match self.take_report(node, report).await {
            Ok(reported) => json(StatusCode::OK, &reported),
            Err(error) => {
                tracing::warn!(%error, node, "a report is not acknowledged");
                refused(Refusal::Disk)
            }
        }
    }

    fn probe(&self, peer: &Peer) -> Answer {
        let address = peer.address.ip();
        if !self.probes.admit(address, self.clock.now()) {
            let mut answer = text(StatusCode::TOO_MANY_REQUESTS, "not so often");
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            return answer;
        }
        let state = if self.outside.is_draining() { HandlerState::Draining } else { HandlerState::Active };
        let probed = Probed {
            node: self.options.node.clone(),
            address,
            hops: peer.ttl.map(hops),
            ttl: peer.ttl,
            load: self.outside.load().clamp(0.0, 1.0),
            state,
        };
        json(StatusCode::OK, &probed)
    }
}

/// The body of a request, as what it should be.
async fn read<B, T>(request: Request<B>, most: usize) -> Result<T, Answer>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
    T: DeserializeOwned,
{
    let body = std::pin::pin!(Limited::new(request.into_body(), most).collect());
    let body = match tokio::time::timeout(BODY_WITHIN, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return Err(text(StatusCode::PAYLOAD_TOO_LARGE, format!("more than {} KiB", most >> 10)));
        }
        Ok(Err(_)) => return Err(text(StatusCode::BAD_REQUEST, "the body broke off")),
        Err(_) => return Err(text(StatusCode::REQUEST_TIMEOUT, "the body took too long")),
    };
    // An empty poll is a poll.
    let body = if body.is_empty() { Bytes::from_static(b"{}") } else { body };
    serde_json::from_slice(&body).map_err(|error| text(StatusCode::BAD_REQUEST, error.to_string()))
}

pub(super) fn refused(refusal: Refusal) -> Answer {
    match refusal {
        Refusal::Old(expected) => json(StatusCode::CONFLICT, &OldSequence { expected }),
        Refusal::Full | Refusal::Disk => {
            let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, "come again, or go to another handler");
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(AGAIN));
            answer
        }
    }
}

/// A channel that is asked for in a way it cannot be had.
pub(super) fn no_channel(why: &'static str) -> Answer {
    let mut answer = text(StatusCode::UPGRADE_REQUIRED, why);
    answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer
}

fn body(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Answer::new(body.into());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn text(status: StatusCode, words: impl Into<String>) -> Answer {
    body(status, "text/plain; charset=utf-8", words.into() + "\n")
}

pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    body(status, "application/json", serde_json::to_vec(value).unwrap_or_default())
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = status;
    answer
}
