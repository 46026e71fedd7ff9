//! What a fill is asked to do, as plain values the request left behind.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use super::admission::Class;
use super::pace::Pace;
use crate::base::clock::Timestamp;
use crate::base::limits::BLOCK_BYTES;
use crate::cache::{Entry, Key};
use crate::repository::expectation::{Expectation, Proof};
use crate::repository::rules::{Effective, Rules};
use crate::telemetry::{FillRecord, Span, TRACEPARENT};
use crate::upstream::Sources;

/// A repository as fills see it: where its files come from and what its administrator said about them.
#[derive(Debug)]
pub struct Supply {
    /// The repository's name.
    pub name: String,
    /// Its path prefix, with slashes at both ends.
    pub prefix: String,
    /// Client headers that go upstream and select a variant, in lower case.
    pub forward_headers: Vec<String>,
    /// Its upstreams, by priority and health.
    pub sources: Sources,
    /// Its rules.
    pub rules: Rules,
    /// Bodies larger than this many bytes are passed through and not kept.
    pub max_object: u64,
    /// Who is told about what happens.
    pub events: Box<dyn Events>,
}

/// What a fill reports while it runs; the metrics implement it.
pub trait Events: Send + Sync + std::fmt::Debug {
    /// A fill ended; the word is `complete` or a [`super::Cause`]'s.
    fn ended(&self, word: &'static str);
    /// A request was sent upstream and got this status, or none at all.
    fn upstream_answered(&self, upstream: &str, status: Option<StatusCode>);
    /// Body bytes came from upstream.
    fn upstream_received(&self, upstream: &str, bytes: u64);
    /// Upstream's answer was refused by the gate.
    fn upstream_lied(&self, upstream: &str, lie: &'static str);
    /// A body was resumed after this trouble.
    fn resumed(&self, word: &'static str);
    /// A stored block was bad and was fetched again (or not).
    fn healed(&self, well: bool);
    /// A fill that is part of somebody's trace ended.
    fn traced(&self, _: &Span, _: &FillRecord<'_>) {}
}

/// One question to upstream, complete in itself.
#[derive(Clone, Debug)]
pub struct Job {
    /// The entry's key.
    pub key: Key,
    /// The canonical path within the repository's base, without a leading slash.
    pub path: String,
    /// The query, where the repository passes it on.
    pub query: Option<String>,
    /// The client headers the repository forwards, already chosen and normalised.
    pub forwarded: HeaderMap,
    /// Where to ask.
    pub supply: Arc<Supply>,
    /// What the rules say about this path.
    pub effective: Effective,
    /// The entry to revalidate, if there is one.
    pub stale: Option<Arc<Entry>>,
    /// When the entry was received that the verdict was about, if there was one. A newer one that is in the store by
    /// the time the fill begins is the answer: somebody else has just fetched it.
    pub seen: Option<Timestamp>,
    /// Fetched to its end even if nobody reads: it was asked for by the node itself.
    pub wanted: bool,
    /// Tokens of fills further down this chain of handlers, for loop detection.
    pub loop_tokens: Vec<String>,
    /// What a catalogue says the file must be.
    pub expect: Option<Arc<Expectation>>,
    /// The name of the one upstream that may be asked, where it matters whose word it is.
    pub only: Option<String>,
    /// Further headers for every question of this job. They select nothing: the answer is everybody's.
    pub ask_headers: HeaderMap,
    /// The stored entry is pinned.
    pub pinned: bool,
    /// How fast it may go while nobody reads it.
    pub pace: Option<Arc<Pace>>,
    /// What it is called in the trace of the request that began it, if that is told about. Upstream hears it.
    pub span: Option<Span>,
}

impl Job {
    /// A file of a repository, asked for without any further word: nothing of it is here, nobody is held to anything,
    /// and it goes on only as long as somebody reads it.
    pub fn new(key: Key, path: impl Into<String>, supply: &Arc<Supply>, effective: Effective) -> Self {
        Self {
            key,
            path: path.into(),
            query: None,
            forwarded: HeaderMap::new(),
            supply: Arc::clone(supply),
            effective,
            stale: None,
            seen: None,
            wanted: false,
            loop_tokens: Vec::new(),
            expect: None,
            only: None,
            ask_headers: HeaderMap::new(),
            pinned: false,
            pace: None,
            span: None,
        }
    }

    /// The headers of every question of it.
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = self.forwarded.clone();
        headers.extend(self.ask_headers.clone());
        if let Some(span) = &self.span {
            headers.insert(TRACEPARENT, span.header());
        }
        headers
    }

    /// The listed length.
    pub(super) fn listed_length(&self) -> Option<u64> {
        self.expect.as_ref()?.length
    }

    /// What its body is compared with before it counts.
    pub(super) fn proof(&self) -> Option<Proof<'_>> {
        self.expect.as_ref()?.proof()
    }

    /// Which line to stand in: what is known to fit into a few blocks goes first.
    pub(super) fn class(&self) -> Class {
        let known = self.stale.as_ref().map(|entry| entry.length).or(self.listed_length());
        if known.is_some_and(|length| length <= 8 * BLOCK_BYTES) { Class::Small } else { Class::Large }
    }
}
