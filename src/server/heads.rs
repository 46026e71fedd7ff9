//! HTTP/1.1 request heads on their way to hyper, watched for the two things it does not say.
//!
//! To a target that is far too long hyper answers 431, as to any long head; and it has no answer to a head that does
//! not come to its end. Here the first line is measured before hyper sees it: one that is too long ends the stream, to
//! which hyper says nothing, and `connection` answers.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pace::{Pace, Stage};
use crate::base::limits::TARGET_BYTES;

/// Bytes of a first line without an end: twice what a target may have, so that those which are only a little too long
/// are refused with everything else that is refused at the door.
const LINE_BYTES: usize = 2 * TARGET_BYTES;

/// A stream that hyper reads heads from.
#[derive(Debug)]
pub(super) struct Heads<T> {
    io: T,
    pace: Arc<Pace>,
    /// The request whose head this is.
    number: u64,
    /// Bytes of its first line so far.
    line: usize,
    /// The first line has come to its end.
    passed: bool,
    /// What was read before and is to be read again, noted already.
    again: Bytes,
}

impl<T> Heads<T> {
    pub(super) const fn new(io: T, pace: Arc<Pace>) -> Self {
        Self { io, pace, number: 0, line: 0, passed: false, again: Bytes::new() }
    }

    /// The stream under it.
    pub(super) const fn wire(&self) -> &T {
        &self.io
    }

    /// Has these bytes, which were read and not used, read once more before any other.
    pub(super) fn read_again(&mut self, bytes: Bytes) {
        self.again = bytes;
    }

    /// Whether the first line is too long to be one.
    pub(super) const fn is_endless(&self) -> bool {
        !self.passed && self.line > LINE_BYTES
    }

    /// Whether a head has begun and is not complete.
    pub(super) fn is_begun(&self) -> bool {
        self.pace.stage() == Stage::Head && self.number == self.pace.requests() && self.line > 0
    }

    fn note(&mut self, bytes: &[u8]) {
        let number = self.pace.requests();
        if self.number != number {
            (self.number, self.line, self.passed) = (number, 0, false);
        }
        if !self.passed {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            self.line += end.map_or(bytes.len(), |end| end + 1);
            self.passed = end.is_some() && self.line <= LINE_BYTES;
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Heads<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.again.is_empty() {
            let count = self.again.len().min(to.remaining());
            to.put_slice(&self.again.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let before = to.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, to))?;
        if self.pace.stage() == Stage::Head {
            self.note(to.filled().get(before..).unwrap_or_default());
            if self.is_endless() {
                to.set_filled(before);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Heads<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.pace.is_resting() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
