//! A socket that notes its progress, under TLS, so that what counts is what the network took.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::pace::{Order, Pace};

/// A client's socket.
#[derive(Debug)]
pub(super) struct Watched {
    tcp: TcpStream,
    pace: Arc<Pace>,
}

impl Watched {
    pub(super) const fn new(tcp: TcpStream, pace: Arc<Pace>) -> Self {
        Self { tcp, pace }
    }

    /// Waits for the first byte, so that silent clients hold no handshake place.
    pub(super) async fn first_byte(&self) -> io::Result<()> {
        // Readiness alone may be a false alarm.
        self.tcp.peek(&mut [0]).await.map(drop)
    }

    /// Waits, without reading, until there is something to read: bytes, or the end.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.tcp.poll_peek(cx, &mut ReadBuf::new(&mut [0])).map(drop)
    }

    fn note(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Ready(Ok(bytes)) => self.pace.note_written(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.pace.note_blocked(),
        }
        result
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // A client that was cut gets a reset: its unread bytes would stay in the kernel for minutes otherwise,
        // and the reset is what says "this was not all".
        if self.pace.standing() == Order::Cut {
            let _ = self.tcp.set_zero_linger();
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = to.filled().len();
        let result = Pin::new(&mut self.tcp).poll_read(cx, to);
        if to.filled().len() > before {
            self.pace.note_read();
        }
        result
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.tcp).poll_write(cx, from);
        self.note(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.tcp).poll_write_vectored(cx, from);
        self.note(result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
