//! The body of an answer: bytes out of memory, the store, a running fill, upstream, or a file.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::directory::OpenFile;
use super::meter::Meter;
use super::represent::Send;
use crate::fill::{Follow, Origin, PassBody, Seat, Stored};
use crate::protocol::multipart::Multipart;
use crate::server::BoxError;

/// An answer's body. An error in it breaks the transfer, so that no client can take a stump for the whole.
pub struct Answer {
    source: Source,
    left: Option<u64>,
    meter: Meter,
}

/// Where the bytes come from.
pub(super) enum Source {
    Nothing,
    Bytes(Bytes),
    Stored(Stored),
    Follow(Box<Follow>),
    Pass(PassBody),
    File(FileBody),
    Parts(VecDeque<Source>),
}

impl Source {
    /// What `send` takes of a stored entry.
    pub(super) fn stored(entry: &Arc<crate::cache::Entry>, origin: &Arc<Origin>, send: Send) -> Self {
        let span = |start, end| Self::Stored(Stored::new(Arc::clone(entry), Arc::clone(origin), start, end));
        match send {
            Send::Nothing => Self::Nothing,
            Send::Whole => match &entry.body {
                crate::cache::EntryBody::Inline(bytes) => Self::Bytes(bytes.clone()),
                crate::cache::EntryBody::Blocks(_) => span(0, entry.length),
            },
            Send::Span(range) => span(range.start, range.end),
            Send::Many(frame) => Self::framed(frame, span),
        }
    }

    /// What `send` takes of a body that is arriving.
    pub(super) fn following(seat: Seat, length: Option<u64>, send: Send) -> Self {
        match send {
            Send::Nothing => Self::Nothing,
            Send::Whole => Self::Follow(Box::new(seat.read(0, length))),
            Send::Span(range) => Self::Follow(Box::new(seat.read(range.start, Some(range.end)))),
            Send::Many(frame) => Self::framed(frame, |start, end| {
                Self::Follow(Box::new(seat.another().read(start, Some(end))))
            }),
        }
    }

    /// What `send` takes of a file.
    pub(super) fn file(file: OpenFile, send: Send) -> Self {
        let length = file.length();
        let file = Arc::new(file);
        let span = |at, end| Self::File(FileBody { file: Arc::clone(&file), at, end, waiting: None });
        match send {
            Send::Nothing => Self::Nothing,
            Send::Whole => span(0, length),
            Send::Span(range) => span(range.start, range.end),
            Send::Many(frame) => Self::framed(frame, span),
        }
    }

    fn framed(frame: Multipart, span: impl Fn(u64, u64) -> Self) -> Self {
        let parts = frame.parts.into_iter().flat_map(|part| {
            let Range { start, end } = part.range;
            [Self::Bytes(part.head), span(start, end)]
        });
        Self::Parts(parts.chain([Self::Bytes(frame.closing)]).collect())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        match self {
            Self::Nothing => Poll::Ready(None),
            Self::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then_some(Ok(bytes)))
            }
            Self::Stored(stored) => stored.poll_next(cx, usize::MAX).map(boxed),
            Self::Follow(follow) => follow.poll_next(cx, usize::MAX).map(boxed),
            Self::Pass(pass) => pass.poll_next(cx).map(boxed),
            Self::File(file) => file.poll_next(cx),
            Self::Parts(parts) => loop {
                let Some(first) = parts.front_mut() else { return Poll::Ready(None) };
                match std::task::ready!(first.poll(cx)) {
                    Some(frame) => return Poll::Ready(Some(frame)),
                    None => drop(parts.pop_front()),
                }
            },
        }
    }
}

fn boxed<E: std::error::Error + std::marker::Send + Sync + 'static>(
    frame: Option<Result<Bytes, E>>,
) -> Option<Result<Bytes, BoxError>> {
    frame.map(|frame| frame.map_err(|error| Box::new(error) as BoxError))
}

impl Answer {
    /// A body of `left` bytes (`None`: unknown) out of `source`, counted by `meter`.
    pub(super) fn new(source: Source, left: Option<u64>, meter: Meter) -> Self {
        Self { source, left, meter }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        match std::task::ready!(this.source.poll(cx)) {
            Some(Ok(bytes)) => {
                this.left = this.left.map(|left| left.saturating_sub(bytes.len() as u64));
                this.meter.sent(bytes.len() as u64, this.left == Some(0));
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Some(Err(error)) => {
                this.meter.broke(&error);
                Poll::Ready(Some(Err(error)))
            }
            None if this.left.is_some_and(|left| left > 0) => {
                // Can only be a defect of ours; ending well here would make a stump look whole.
                let error: BoxError = "the body ended before its length".into();
                this.meter.broke(&error);
                Poll::Ready(Some(Err(error)))
            }
            None => {
                this.meter.sent(0, true);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

type Waiting = Pin<Box<dyn Future<Output = Result<Bytes, super::directory::ReadError>> + std::marker::Send>>;

/// A reader of a file of a directory.
pub(super) struct FileBody {
    file: Arc<OpenFile>,
    at: u64,
    end: u64,
    waiting: Option<Waiting>,
}

impl FileBody {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        if self.at >= self.end {
            return Poll::Ready(None);
        }
        let max = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        if self.waiting.is_none() {
            match self.file.try_piece(self.at, max) {
                Some(Ok(bytes)) => return Poll::Ready(Some(Ok(self.take(bytes)))),
                Some(Err(error)) => return Poll::Ready(Some(Err(Box::new(error)))),
                None => {
                    let (file, at) = (Arc::clone(&self.file), self.at);
                    self.waiting = Some(Box::pin(async move { file.piece(at, max).await }));
                }
            }
        }
        let Some(waiting) = &mut self.waiting else { return Poll::Ready(None) };
        let result = std::task::ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(Some(result.map(|bytes| self.take(bytes)).map_err(|error| Box::new(error) as BoxError)))
    }

    fn take(&mut self, bytes: Bytes) -> Bytes {
        self.at += bytes.len() as u64;
        bytes
    }
}
