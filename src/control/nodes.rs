//! What nodes ask: the bundle, its documents, and what they are to do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AGE, CACHE_CONTROL};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};

use super::inbox::{PollAnswer, PollAsk};
use super::reply::{self, Reply};
use super::{BoxError, Part};
use crate::base::limits::NODE_BODY_BYTES;
use crate::protocol::caller::Caller;

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);

impl Part {
    /// Answers what a node asks below `/node/v1/`.
    pub(super) async fn answer_node<B>(&self, rest: &str, request: Request<B>, caller: &Caller) -> Reply
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send,
    {
        if caller.name == self.name {
            return reply::status(StatusCode::LOOP_DETECTED);
        }
        match (request.method(), rest) {
            (&Method::GET, "bundle") => self.bundle(request.headers()).await,
            (&Method::GET, _) if rest.starts_with("documents/") => self.document(rest),
            (&Method::POST, "poll") => self.poll(request, caller).await,
            (_, "bundle" | "poll") => reply::status(StatusCode::METHOD_NOT_ALLOWED),
            _ => reply::status(StatusCode::NOT_FOUND),
        }
    }

    async fn bundle(&self, headers: &HeaderMap) -> Reply {
        let Ok(_place) = self.held.try_acquire() else { return reply::later(5) };
        let mut news = self.board.news();
        let hold = self.held_for(headers);
        let is_news = || match self.board.snapshot() {
            None => false,
            Some(snapshot) => !reply::has(headers, &format!("\"{}\"", snapshot.bundle.tag())),
        };
        let wait = async { while !is_news() && news.changed().await.is_ok() {} };
        self.until(hold, wait).await;
        let Some(snapshot) = self.board.snapshot() else { return reply::status(StatusCode::NOT_FOUND) };
        let index = snapshot.bundle.index();
        let mut reply = reply::tagged(headers, &index.tag(), || reply::json(index));
        reply.headers_mut().insert(AGE, HeaderValue::from(self.age().as_secs()));
        reply
    }

    fn document(&self, rest: &str) -> Reply {
        let digest = rest.strip_prefix("documents/").and_then(|digest| digest.parse().ok());
        let snapshot = self.board.snapshot();
        let body = digest.and_then(|digest| snapshot.as_ref()?.bundle.body(&digest).cloned());
        let Some(body) = body else { return reply::status(StatusCode::NOT_FOUND) };
        let mut reply = reply::body("application/octet-stream", body);
        reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("private, immutable"));
        reply
    }

    async fn poll<B>(&self, request: Request<B>, caller: &Caller) -> Reply
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send,
    {
        let hold = self.held_for(request.headers());
        let body = Box::pin(Limited::new(request.into_body(), NODE_BODY_BYTES).collect());
        let body = match tokio::time::timeout(BODY_TIME, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => return reply::status(StatusCode::PAYLOAD_TOO_LARGE),
            Err(_) => return reply::status(StatusCode::REQUEST_TIMEOUT),
        };
        let Ok(ask) = serde_json::from_slice::<PollAsk>(&body) else {
            return reply::status(StatusCode::BAD_REQUEST);
        };
        let Ok(_place) = self.held.try_acquire() else { return reply::later(5) };
        let mut news = self.commands.news();
        let (commands, inbox, node) =
            (Arc::clone(&self.commands), Arc::clone(&self.inbox), caller.name.clone());
        let heard = tokio::task::spawn_blocking(move || {
            commands.heard(&node, ask.epoch.as_deref(), ask.received, &ask.below);
            inbox.hear(ask.outcomes);
            inbox.hear(commands.expire());
        });
        if heard.await.is_err() {
            return reply::status(StatusCode::INTERNAL_SERVER_ERROR);
        }
        let wait = async {
            while self.commands.waiting(&caller.name).1.is_empty() && news.changed().await.is_ok() {}
        };
        self.until(hold, wait).await;
        let (epoch, commands) = self.commands.waiting(&caller.name);
        reply::json(&PollAnswer { epoch, commands })
    }

    /// Waits for news, at most so long, and not while the node is ending: what is there then is the answer.
    async fn until(&self, hold: Duration, news: impl Future<Output = ()>) {
        let mut ending = self.ending.subscribe();
        tokio::select! {
            _ = tokio::time::timeout(hold, news) => {}
            _ = ending.wait_for(|ending| *ending) => {}
        }
    }

    /// How long the caller wants to wait, at most as long as we hold.
    fn held_for(&self, headers: &HeaderMap) -> Duration {
        let wait = headers.get("prefer").and_then(|value| {
            let mut parts = value.to_str().ok()?.split([',', ';']);
            parts.find_map(|part| part.trim().strip_prefix("wait=")?.parse().ok())
        });
        Duration::from_secs(wait.unwrap_or(0)).min(self.hold)
    }
}
