//! A connection that leaves HTTP/1.1: what a service answers 101 to goes on as bytes.
//!
//! It stays in its task and keeps its place: it counts as a connection, a client that does not take its bytes is cut, a
//! drain waits for it, and a stop ends it. No deadline of requests holds for it any more.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pace::{Order, Pace, Stage};

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;
type Begin = Box<dyn FnOnce(Upgraded) -> Work + Send>;

/// What a service puts among the extensions of its 101, so that it gets the connection.
#[derive(Clone)]
pub struct OnUpgrade(Arc<Mutex<Option<Begin>>>);

impl OnUpgrade {
    /// Runs `begin` in the connection's own task once the answer is written. It must not hand the stream to a task of
    /// its own: the orders to a connection reach its own task only. When it returns, the connection is closed.
    pub fn new<W>(begin: impl FnOnce(Upgraded) -> W + Send + 'static) -> Self
    where
        W: Future<Output = ()> + Send + 'static,
    {
        Self(Arc::new(Mutex::new(Some(Box::new(|upgraded| Box::pin(begin(upgraded)))))))
    }

    pub(super) fn begin(&self, upgraded: Upgraded) -> Option<Work> {
        self.0.lock().take().map(|begin| begin(upgraded))
    }
}

impl std::fmt::Debug for OnUpgrade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnUpgrade")
    }
}

/// What a connection runs on.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A connection after its 101.
pub struct Upgraded {
    /// What the client sent behind its request.
    rest: Bytes,
    wire: Box<dyn Wire>,
    pace: Arc<Pace>,
}

impl Upgraded {
    pub(super) fn new<T>(wire: T, rest: Bytes, pace: Arc<Pace>) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        pace.enter(Stage::Busy);
        // Empty bytes still hold the buffer they were cut from: 8 KiB for as long as the stream is open.
        let rest = if rest.is_empty() { Bytes::new() } else { rest };
        Self { rest, wire: Box::new(wire), pace }
    }

    /// Something to wait for the end with, while the stream is in use elsewhere.
    pub fn leave(&self) -> Leave {
        Leave(Arc::clone(&self.pace))
    }
}

impl std::fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Upgraded")
    }
}

/// Knows when a connection is asked to end.
#[derive(Clone, Debug)]
pub struct Leave(Arc<Pace>);

impl Leave {
    /// Returns when the server drains: say goodbye and return. Only for the connection's own task.
    pub async fn asked(&self) {
        poll_fn(|cx| if self.0.order(cx) >= Order::Finish { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            return Pin::new(&mut self.wire).poll_read(cx, to);
        }
        let count = self.rest.len().min(to.remaining());
        to.put_slice(self.rest.get(..count).unwrap_or_default());
        self.rest.advance(count);
        if self.rest.is_empty() {
            self.rest = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}
