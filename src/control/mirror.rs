//! The mirror: the documents come from another node, and what is there last is served whatever becomes of the way to it.
//!
//! One question is always open: the other node answers it when it has something newer, or after a while that it has not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AGE, IF_NONE_MATCH};
use http::{HeaderValue, Request, Response, StatusCode};

use super::board::{Board, NotInForce};
use super::bundle::{Bundle, Index};
use super::uplink::{AskError, Uplink};
use crate::base::clock::Timestamp;
use crate::base::digest::Digest;

/// Bytes of an index: some 200 for each document.
const INDEX_BYTES: usize = 4 << 20;

/// How long a document may take on a thin line.
const DOCUMENT_TIME: Duration = Duration::from_secs(120);

/// Pauses after trouble: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// An answer that comes so fast was not held.
pub(super) const AT_ONCE: Duration = Duration::from_millis(250);

/// A board that follows another node's.
#[derive(Debug)]
pub(super) struct Mirror {
    pub(super) board: Arc<Board>,
    pub(super) uplink: Arc<Uplink>,
}

/// Why a round led to nothing.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Unreachable(#[from] AskError),
    #[error("what {1} offers is refused: {0}")]
    Refused(String, String),
    #[error(transparent)]
    NotInForce(#[from] NotInForce),
}

impl Mirror {
    /// Follows; ends never.
    pub(super) async fn follow(self) {
        let mut pause = PAUSES.0;
        loop {
            let began = Instant::now();
            match self.round().await {
                Ok(is_news) => {
                    pause = PAUSES.0;
                    // Something on the way answers without holding: ask no faster than that is worth.
                    if !is_news && began.elapsed() < AT_ONCE {
                        tokio::time::sleep(self.uplink.spread(AT_ONCE)).await;
                    }
                }
                Err(trouble) => {
                    let word = match &trouble {
                        Trouble::Unreachable(_) => "unreachable",
                        Trouble::Refused(..) => "refused",
                        Trouble::NotInForce(why) => why.word(),
                    };
                    self.board.note_trouble(word, trouble.to_string());
                    tokio::time::sleep(self.uplink.spread(pause)).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }

    /// Asks once; whether there was anything newer.
    async fn round(&self) -> Result<bool, Trouble> {
        let current = self.board.index();
        let mut request = Request::get("/node/v1/bundle");
        if let Some(current) = &current {
            request = request.header(IF_NONE_MATCH, format!("\"{}\"", current.tag()));
        }
        // Nothing yet, or what may have become wrong since: asked without waiting.
        let held = current.is_some() && self.board.trouble().is_none();
        let reply =
            self.uplink.ask(request, Bytes::new(), held.then(|| self.uplink.hold()), INDEX_BYTES).await?;
        let confirmed = self.confirmed(&reply);
        if reply.status() == StatusCode::NOT_MODIFIED {
            self.board.confirm(confirmed);
            return Ok(false);
        }
        if reply.status() != StatusCode::OK {
            return Err(AskError::status(&self.uplink, reply.status()).into());
        }
        let index: Index = serde_json::from_slice(reply.body()).map_err(|error| self.refuse(&error))?;
        index.check().map_err(|error| self.refuse(&error))?;
        if let Some(current) = current
            && index.version <= current.version
        {
            if index == current {
                self.board.confirm(confirmed);
                return Ok(false);
            }
            let (current, offered) = (current.version, index.version);
            return Err(self.refuse(&NotInForce::Old { current, offered }));
        }
        let bundle = self.fetch(index).await?;
        self.publish(bundle).await?;
        self.board.confirm(confirmed);
        Ok(true)
    }

    /// When the authority said that this is the newest: the other node says how long ago.
    fn confirmed(&self, reply: &Response<Bytes>) -> Timestamp {
        let age =
            reply.headers().get(AGE).and_then(|age| age.to_str().ok()?.parse::<u64>().ok()).unwrap_or(0);
        Timestamp(self.board.clock().now().0.saturating_sub(age.saturating_mul(1_000)))
    }

    fn refuse(&self, why: &dyn std::fmt::Display) -> Trouble {
        Trouble::Refused(why.to_string(), self.uplink.url().to_owned())
    }

    /// The documents that are not here already, and with those that are the whole.
    async fn fetch(&self, index: Index) -> Result<Bundle, Trouble> {
        let current = self.board.snapshot();
        let mut bodies: BTreeMap<Digest, Bytes> = BTreeMap::new();
        for item in &index.documents {
            let digest = item.digest().ok_or_else(|| self.refuse(&"a digest is none"))?;
            if bodies.contains_key(&digest) {
                continue;
            }
            let here = current.as_ref().and_then(|it| it.bundle.body(&digest).cloned());
            let body = match here {
                Some(body) => body,
                None => self.fetch_one(&digest, item.length).await?,
            };
            bodies.insert(digest, body);
        }
        Bundle::assemble(index, |digest| bodies.get(digest).cloned()).map_err(|error| self.refuse(&error))
    }

    async fn fetch_one(&self, digest: &Digest, length: usize) -> Result<Bytes, Trouble> {
        let request = Request::get(format!("/node/v1/documents/{digest}"));
        let reply = self.uplink.ask_within(request, Bytes::new(), DOCUMENT_TIME, length).await?;
        if reply.status() != StatusCode::OK {
            return Err(AskError::status(&self.uplink, reply.status()).into());
        }
        Ok(reply.into_body())
    }

    async fn publish(&self, bundle: Bundle) -> Result<(), Trouble> {
        let board = Arc::clone(&self.board);
        let done = tokio::task::spawn_blocking(move || board.publish(bundle)).await;
        Ok(done.unwrap_or_else(|_| Err(NotInForce::Disk("the task broke off".to_owned())))?)
    }
}

/// A wait as its header says it (RFC 7240 §4.3).
pub(super) fn prefer(wait: Duration) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("wait={}", wait.as_secs())).ok()
}
