//! A reply that passed the gate, and its body.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::timeout;

use super::BodyError;
use super::client::Inner;
use super::error::source_of;
use super::health::Trouble;
use super::meter::{Meter, Pace};
use super::pool::Line;
use crate::base::clock::Timestamp;
use crate::base::limits;
use crate::protocol::reply::{Lie, ReplyKind};

/// A reply whose head is truthful. Dropping it before the end of its body closes its connection; [`Reply::discard`]
/// keeps it if the body is small.
#[derive(Debug)]
pub struct Reply {
    /// What it is.
    pub kind: ReplyKind,
    /// Its status.
    pub status: StatusCode,
    /// Its header fields, as received. Store and relay only what an allow-list takes.
    pub headers: HeaderMap,
    /// When the request went out.
    pub requested_at: Timestamp,
    /// When the head was complete.
    pub received_at: Timestamp,
    /// The upstream's [`super::Upstream::name`].
    pub source: String,
    pub(super) body: Option<Body>,
}

/// A body that is still coming. Gone after its end or its first error, and with it the connection, unless that was kept.
#[derive(Debug)]
pub(super) struct Body {
    incoming: Incoming,
    line: Line,
    meter: Meter,
    upstream: Arc<Inner>,
}

impl Body {
    pub(super) fn new(incoming: Incoming, line: Line, pace: Pace, upstream: Arc<Inner>) -> Self {
        Self { incoming, line, meter: Meter::new(pace), upstream }
    }

    /// The next data, without judging the end.
    async fn next(&mut self, stall: std::time::Duration) -> Option<Result<Bytes, BodyError>> {
        loop {
            let patience = self.meter.patience();
            let waiting = self.meter.wait();
            let frame = timeout(patience, self.incoming.frame()).await;
            drop(waiting);
            let data = match frame {
                Err(_) => return Some(Err(BodyError::Stalled(stall))),
                Ok(None) => return None,
                Ok(Some(Err(error))) => return Some(Err(broken(&error))),
                // Trailers are never merged into the head, nor kept.
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            };
            if let Err(error) = self.meter.arrived(data.len()) {
                return Some(Err(error));
            }
            if !data.is_empty() {
                return Some(Ok(data));
            }
        }
    }
}

impl Reply {
    /// The next bytes of the body, never empty; `None` at its end. At most 128 KiB. Dropping the future loses nothing.
    ///
    /// The end is proven (length, last chunk) unless `kind` is `Whole { framed: false, .. }`: a body that only ends by
    /// the connection's closing is never complete.
    ///
    /// # Errors
    /// How the body broke off. After an error there is nothing more; the connection is closed. It is already reported
    /// to the upstream's health.
    pub async fn frame(&mut self) -> Option<Result<Bytes, BodyError>> {
        let body = self.body.as_mut()?;
        let stall = body.upstream.options.stall_timeout;
        let next = body.next(stall).await;
        let taken = body.meter.bytes;
        let result = match next {
            Some(Ok(bytes)) => self.check_amount(taken).map(|()| Some(bytes)),
            Some(Err(error)) => Err(error),
            None => self.check_end(taken).map(|()| None),
        };
        match result {
            Ok(Some(bytes)) => Some(Ok(bytes)),
            Ok(None) => {
                self.settle();
                None
            }
            Err(error) => {
                if let Some(body) = self.body.take() {
                    body.upstream.trouble(Trouble::Failing);
                }
                Some(Err(error))
            }
        }
    }

    /// Reads the rest of a small body that nobody wants (a redirect's, an error page's), so that its connection can be
    /// used again. Gives up after 16 KiB or as soon as it would have to wait longer than a local round trip; then
    /// the connection is closed.
    pub async fn discard(mut self) {
        let small = self.body.as_ref().is_some_and(|body| {
            body.incoming.size_hint().upper().is_some_and(|upper| upper <= limits::INLINE_BYTES)
        });
        if small {
            let drain = async { while let Some(Ok(_)) = self.frame().await {} };
            // Whether that was in time or not: what is left of the reply is dropped now.
            drop(timeout(std::time::Duration::from_millis(250), drain).await);
        }
    }

    /// What the framing alone does not bound: a part in chunks, and bodies without an announced length.
    const fn check_amount(&self, taken: u64) -> Result<(), BodyError> {
        match self.kind {
            ReplyKind::Part { start, end, .. } if taken > end - start => Err(BodyError::Lie(Lie::TooLong)),
            _ if taken > limits::BODY_BYTES => Err(BodyError::Lie(Lie::Endless)),
            _ => Ok(()),
        }
    }

    const fn check_end(&self, taken: u64) -> Result<(), BodyError> {
        match self.kind {
            ReplyKind::Part { start, end, .. } if taken < end - start => Err(BodyError::Short),
            ReplyKind::Whole { length: Some(length), .. } if taken < length => Err(BodyError::Short),
            _ => Ok(()),
        }
    }

    /// For a reply without a body.
    pub(super) fn settle_if_ended(&mut self) {
        let ended = self.body.as_ref().is_some_and(|body| body.incoming.is_end_stream());
        if ended && self.check_end(0).is_ok() {
            self.settle();
        }
    }

    /// The end was reached and the reply was truthful to it: the only place a connection is kept.
    fn settle(&mut self) {
        let Some(body) = self.body.take() else { return };
        let upstream = body.upstream;
        if counts_as_good(&self.kind) {
            upstream.back(upstream.health.report_ok());
        }
        if let Some((bytes, time)) = body.meter.throughput() {
            upstream.health.report_rate(bytes, time);
        }
        if self.kind != (ReplyKind::Whole { length: None, framed: false })
            && !self.may_be_followed_by_a_body()
        {
            upstream.pool.keep(body.line);
        }
    }

    /// A 204 or 304 that announces a body it must not have: were it sent all the same, the next reply would begin with it.
    fn may_be_followed_by_a_body(&self) -> bool {
        let bodyless = matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let announced = self.headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
        bodyless && (announced || self.headers.contains_key(TRANSFER_ENCODING))
    }
}

/// A redirect says nothing yet, a refusal nothing good.
const fn counts_as_good(kind: &ReplyKind) -> bool {
    !matches!(kind, ReplyKind::Busy { .. } | ReplyKind::Redirect(_))
}

fn broken(error: &hyper::Error) -> BodyError {
    if let Some(problem) = source_of::<rustls::Error>(error) {
        return BodyError::Reset(problem.to_string());
    }
    if error.is_incomplete_message() {
        return BodyError::Short;
    }
    let Some(inner) = source_of::<io::Error>(error) else {
        return if error.is_parse() || error.is_parse_too_large() {
            BodyError::Framing(error.to_string())
        } else {
            BodyError::Reset(error.to_string())
        };
    };
    match inner.kind() {
        io::ErrorKind::UnexpectedEof => BodyError::Short,
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => BodyError::Framing(inner.to_string()),
        _ => BodyError::Reset(inner.to_string()),
    }
}
