//! Fetching one file for a catalogue, through the same fills as everybody's.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Catalogues, ListedFile};
use crate::base::clock::Timestamp;
use crate::base::limits::CATALOGUE_BYTES;
use crate::cache::{Entry, EntryBody, Key};
use crate::fill::{Cause, Job, Settled, Stored};
use crate::repository::expectation::Expectation;
use crate::repository::listing::Listed;
use crate::repository::rules::Effective;

/// Names the generation that a request is about, or that an answer comes from.
pub const GENERATION: HeaderName = HeaderName::from_static("waypost-generation");

/// A date this much older than the answer it came with is one that no later publication shares.
const DATE_SETTLES: Duration = Duration::from_secs(2);

/// What is fetched, and how.
pub(super) struct Want<'a> {
    pub(super) key: Key,
    pub(super) path: &'a str,
    /// The one upstream that may be asked; `None`: all.
    pub(super) only: Option<&'a str>,
    pub(super) expect: Option<Arc<Expectation>>,
    /// The generation to ask an upstream node for.
    pub(super) generation: Option<&'a str>,
    /// Whether to give way to agents and keep to the rate.
    pub(super) paced: bool,
}

/// A file that was fetched or confirmed.
pub(super) enum Fetched {
    Entry(Arc<Entry>),
    /// Upstream has no such file.
    Absent,
}

impl Catalogues {
    /// The key of a path in the origin's spelling.
    pub(super) fn key(&self, path: &str) -> Key {
        Key::new(&self.origin.supply.name, &format!("{}{path}", self.origin.supply.prefix), None)
    }

    /// The key of a file whose content is known beforehand.
    pub(super) fn content_key(&self, path: &str, word: &str) -> Key {
        self.key(path).content(word)
    }

    fn job(&self, want: &Want<'_>, stale: Option<Arc<Entry>>) -> Job {
        let mut ask_headers = HeaderMap::new();
        if let Some(value) = want.generation.and_then(|id| HeaderValue::from_str(id).ok()) {
            ask_headers.insert(GENERATION, value);
        }
        // A permission to keep what load balancers mark as private; asked anew each time.
        let effective = Effective {
            fresh_for: Some(Duration::ZERO),
            negative_for: Duration::ZERO,
            ..Effective::default()
        };
        Job {
            seen: Some(stale.as_ref().map_or(self.clock.now(), |entry| entry.head.received_at)),
            stale,
            wanted: true,
            expect: want.expect.clone(),
            only: want.only.map(str::to_owned),
            ask_headers,
            pinned: want.expect.is_some(),
            pace: want.paced.then(|| self.pace.clone()).flatten(),
            ..Job::new(want.key.clone(), want.path, &self.origin.supply, effective)
        }
    }

    /// Asks upstream for a file whose content is not known beforehand, with what we have of it as the condition.
    pub(super) async fn revalidate(
        &self,
        path: &str,
        upstream: &str,
        generation: Option<&str>,
    ) -> Result<Fetched, Cause> {
        let key = self.key(path);
        let stale = self.origin.store.find(key.as_str()).await;
        // Validators mean nothing to another upstream.
        let stale = stale.filter(|entry| entry.head.source == upstream && is_condition(entry));
        let want = Want { key, path, only: Some(upstream), expect: None, generation, paced: false };
        self.fulfil(self.job(&want, stale)).await
    }

    /// The file with this content: from the store, by another name that it has there, or from upstream.
    pub(super) async fn fetch(&self, want: Want<'_>) -> Result<Fetched, Cause> {
        if let Some(entry) = self.held(&want.key, want.path, want.expect.as_deref()).await {
            return Ok(Fetched::Entry(entry));
        }
        let mut job = self.job(&want, None);
        job.seen = None;
        self.fulfil(job).await
    }

    /// Takes what the store has under a listed file's plain name, if it is what is listed, for the listed one: it need
    /// not cross the WAN again.
    pub async fn adopt(&self, file: &ListedFile) {
        let file = &file.file;
        let _ = self.held(&file.key, &file.path, Some(&file.expect)).await;
    }

    /// What the store has under `key`, or under the file's plain name with the right content.
    pub(super) async fn held(
        &self,
        key: &Key,
        path: &str,
        expect: Option<&Expectation>,
    ) -> Option<Arc<Entry>> {
        let store = &self.origin.store;
        if let Some(entry) = store.find(key.as_str()).await {
            return Some(entry);
        }
        let sha256 = expect?.sha256?;
        let plain = store.find(self.key(path).as_str()).await?;
        (plain.digest == sha256 && !plain.prepared().is_negative())
            .then(|| store.put(plain.renamed(key.clone(), true)))
    }

    /// Runs a job to its end. A catalogue file that could not be stored is held in memory instead.
    async fn fulfil(&self, job: Job) -> Result<Fetched, Cause> {
        let key = job.key.clone();
        let seat = self.origin.fills.join(job);
        let entry = match seat.settled().await {
            Settled::Entry { entry, .. } if entry.prepared().is_negative() => return Ok(Fetched::Absent),
            Settled::Entry { entry, .. } => entry,
            Settled::NotShareable(_) => return Err(Cause::Lied("not-shareable")),
            Settled::Failed(cause) => return Err(cause),
        };
        drop(seat);
        if entry.length > CATALOGUE_BYTES || self.origin.store.find(key.as_str()).await.is_some() {
            return Ok(Fetched::Entry(entry));
        }
        let body = EntryBody::Inline(self.bytes(&entry, entry.length).await?);
        Ok(Fetched::Entry(Arc::new(Entry::new(key, entry.head.clone(), entry.length, entry.digest, body))))
    }

    /// The bytes of a catalogue file, up to `max`.
    pub(super) async fn bytes(&self, entry: &Arc<Entry>, max: u64) -> Result<Bytes, Cause> {
        if let EntryBody::Inline(bytes) = &entry.body {
            let end = usize::try_from(max).unwrap_or(usize::MAX).min(bytes.len());
            return Ok(bytes.slice(..end));
        }
        let mut all = BytesMut::new();
        let mut stored = Stored::new(Arc::clone(entry), Arc::clone(&self.origin), 0, max.min(entry.length));
        while let Some(bytes) = poll_fn(|cx| stored.poll_next(cx, usize::MAX)).await {
            all.extend_from_slice(&bytes.map_err(|broken| broken.0)?);
        }
        Ok(all.freeze())
    }

    /// Feeds the bytes of an entry from `from` on to `take`, in order.
    pub(super) async fn each_piece(
        &self,
        entry: &Arc<Entry>,
        from: u64,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), Cause> {
        let mut stored = Stored::new(Arc::clone(entry), Arc::clone(&self.origin), from, entry.length);
        while let Some(bytes) = poll_fn(|cx| stored.poll_next(cx, usize::MAX)).await {
            take(&bytes.map_err(|broken| broken.0)?);
        }
        Ok(())
    }

    /// What upstream is asked for to get a listed file: a name that says the digest, where there is one, outlives the
    /// plain one.
    pub(super) fn path_to_ask<'a>(by_digest: Option<&'a str>, listed: &'a Listed) -> &'a str {
        by_digest.unwrap_or(&listed.path)
    }
}

/// Whether an entry can be asked about: a date alone says too little where it was young when we got it, because two
/// publications within a second have the same (RFC 9110 §8.8.2.2).
fn is_condition(entry: &Entry) -> bool {
    let validators = &entry.prepared().origin;
    let settled = |date: Timestamp| entry.head.received_at.since(date) >= DATE_SETTLES;
    !entry.prepared().is_negative()
        && (validators.etag.is_some() || validators.last_modified.is_some_and(settled))
}
