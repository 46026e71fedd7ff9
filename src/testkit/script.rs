//! What a scripted origin does for one path.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::content;

/// What to do for one path. The default is a well-behaved 1,000-byte file with a strong ETag.
#[derive(Debug, Clone)]
pub struct Script {
    /// Status, where no range or condition asks for another.
    pub status: u16,
    /// Further header fields.
    pub headers: Vec<(String, String)>,
    /// Which body (see [`super::content`]).
    pub seed: u64,
    /// Bytes of the body.
    pub length: u64,
    /// Exactly this body instead of a made-up one; `length` is its length.
    pub bytes: Option<Bytes>,
    /// How the body's end is told.
    pub framing: Framing,
    /// `ETag`, with its quotes.
    pub etag: Option<String>,
    /// `Last-Modified`.
    pub last_modified: Option<String>,
    /// From the request of this number on (0 is the first), the file is another: its ETag and seed.
    pub becomes: Option<(usize, String, u64)>,
    /// What ranges get.
    pub ranges: Ranges,
    /// Waits before the head.
    pub delay: Duration,
    /// 103 replies before the head, and the time between them.
    pub hints: (usize, Duration),
    /// Breaks the body.
    pub fault: Option<Fault>,
    /// Holds the transfer until the gate opens.
    pub hold: Option<Hold>,
    /// Bytes a second for this path alone.
    pub rate: Option<u64>,
    /// Instead of all of the above: exactly these bytes.
    pub raw: Option<Raw>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            seed: 1,
            length: 1_000,
            bytes: None,
            framing: Framing::Length,
            etag: Some("\"v1\"".to_owned()),
            last_modified: None,
            becomes: None,
            ranges: Ranges::Honour,
            delay: Duration::ZERO,
            hints: (0, Duration::ZERO),
            fault: None,
            hold: None,
            rate: None,
            raw: None,
        }
    }
}

impl Script {
    /// A well-behaved file.
    pub fn file(seed: u64, length: u64) -> Self {
        Self { seed, length, ..Self::default() }
    }

    /// A well-behaved file with these bytes; its ETag is made of them.
    pub fn text(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let etag = format!("\"{}\"", &crate::base::digest::Digest::of(&bytes).to_string()[..16]);
        Self { etag: Some(etag), ..Self::bytes(bytes) }
    }

    /// A well-behaved file of exactly these bytes.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { length: bytes.len() as u64, bytes: Some(bytes), ..Self::default() }
    }

    /// The `len` bytes of its body at `at`.
    pub(super) fn piece(&self, at: u64, len: usize) -> Bytes {
        let Some(bytes) = &self.bytes else { return content::piece(self.seed, at, len) };
        let at = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
        bytes.slice(at..at.saturating_add(len).min(bytes.len()))
    }

    /// A status without a body, and header fields.
    pub fn status(status: u16, headers: &[(&str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { status, headers, length: 0, etag: None, ..Self::default() }
    }

    /// A redirect.
    pub fn redirect(to: &str) -> Self {
        Self::status(302, &[("location", to)])
    }

    /// Exactly these bytes, with the connection left open behind them.
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        Self { raw: Some(Raw { bytes: bytes.into(), close: false, later: None }), ..Self::default() }
    }

    /// With `fault`.
    #[must_use]
    pub fn breaking(self, at: u64, how: How, times: usize) -> Self {
        Self { fault: Some(Fault { at, how, times }), ..self }
    }
}

/// How a body's end is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// `Content-Length`.
    Length,
    /// `Content-Length` of another number than bytes are sent.
    WrongLength(u64),
    /// Chunks.
    Chunked,
    /// Only by closing the connection.
    Close,
}

/// What ranges get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranges {
    /// 206 or 416, `If-Range` respected.
    Honour,
    /// 200 and everything.
    Ignore,
    /// `If-Range` is ignored: a 206 of whatever the file is now.
    IgnoreCondition,
    /// A 206 that says it begins this many bytes further.
    Shifted(u64),
    /// A 206 of another total length.
    Total(u64),
    /// A 206 with `*` for its total length.
    UnknownTotal,
    /// A 206 of at most this many bytes.
    AtMost(u64),
    /// A 206 without `Content-Range`.
    Unplaced,
}

/// Breaks the body at a byte of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Bytes of the whole file before it (a range that begins behind is not touched).
    pub at: u64,
    /// What happens.
    pub how: How,
    /// For how many requests, counted over the life of the script; `usize::MAX` is always.
    pub times: usize,
}

/// What happens to a broken body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Nothing more comes, the connection stays.
    Stall,
    /// RST.
    Reset,
    /// FIN.
    Finish,
    /// The next byte is another one, and the transfer goes on.
    Flip,
}

/// Holds a transfer: before its head, or at a byte of its body.
#[derive(Debug, Clone)]
pub struct Hold {
    /// Before the head if `None`.
    pub at: Option<u64>,
    /// Until it opens.
    pub gate: Gate,
}

/// A canned reply.
#[derive(Debug, Clone)]
pub struct Raw {
    /// Sent for the request.
    pub bytes: Bytes,
    /// Closes behind them.
    pub close: bool,
    /// Sent some time after `bytes`.
    pub later: Option<(Duration, Bytes)>,
}

/// A gate that transfers wait at, closed when made; clones are the same gate.
#[derive(Debug, Clone)]
pub struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Gate {
    /// Lets everybody through, now and later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Waits until it is open.
    pub async fn pass(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        drop(self.0.subscribe().wait_for(|open| *open).await);
    }
}
