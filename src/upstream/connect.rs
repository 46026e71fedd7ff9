//! Opens connections: TCP to the first address that answers, TLS where the place is secure, HTTP/1.1 on top.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::place::Place;
use super::pool::Line;
use super::resolve::Resolver;
use super::tls::{Sessions, handshake_problem};
use super::{FetchError, TlsProblem};
use crate::base::limits;

/// The next address is tried beside the one before after this (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);
/// Probes on an idle connection, so that a dead one is found before it is used.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// What hyper may buffer of a reply: also the largest frame of a body. A head is refused far below.
const READ_BUFFER: usize = limits::PIECE_BYTES;
/// Fields in a reply head.
const HEAD_FIELDS: usize = 128;

/// Opens the connections of one upstream.
#[derive(Debug)]
pub(super) struct Dialer {
    pub(super) own: Place,
    pub(super) sessions: Option<Sessions>,
    pub(super) resolver: Resolver,
    pub(super) connect_timeout: Duration,
    pub(super) stall_timeout: Duration,
}

impl Dialer {
    /// A fresh connection to `place` for fetches.
    pub(super) async fn dial(&self, place: &Place) -> Result<Line, FetchError> {
        let wire = self.wire(place).await?;
        let (sender, connection) = builder()
            .handshake(TokioIo::new(wire))
            .await
            .map_err(|error| FetchError::Io(error.to_string()))?;
        Ok(Line::new(place.clone(), sender, connection))
    }

    /// A fresh connection to `place`, without HTTP on it yet.
    pub(super) async fn wire(&self, place: &Place) -> Result<Wire, FetchError> {
        let foreign = place.host != self.own.host;
        let addresses = self
            .resolver
            .resolve(&place.host, place.port, foreign, self.connect_timeout)
            .await
            .map_err(|problem| FetchError::Resolve { host: place.host.clone(), problem })?;
        let tcp = first_to_answer(addresses, self.connect_timeout)
            .await
            .and_then(|tcp| self.tune(&tcp).map(|()| tcp))
            .map_err(|error| FetchError::Connect { host: place.full(), problem: error.to_string() })?;
        Ok(if place.secure {
            Wire::Tls(Box::new(self.secure(place, foreign, tcp).await?))
        } else {
            Wire::Plain(tcp)
        })
    }

    fn tune(&self, tcp: &TcpStream) -> io::Result<()> {
        tcp.set_nodelay(true)?;
        let socket = SockRef::from(tcp);
        socket.set_tcp_user_timeout(Some(self.stall_timeout))?;
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3))
    }

    async fn secure(
        &self,
        place: &Place,
        foreign: bool,
        tcp: TcpStream,
    ) -> Result<TlsStream<TcpStream>, FetchError> {
        let failed = |problem| FetchError::Tls { host: place.full(), problem };
        let protocol = |text: &str| failed(TlsProblem::Protocol(text.to_owned()));
        let sessions = self.sessions.as_ref().ok_or_else(|| protocol("no trust is configured"))?;
        let config = if foreign { &sessions.others } else { &sessions.own };
        let name =
            ServerName::try_from(place.host.clone()).map_err(|_| protocol("the host is no server name"))?;
        match timeout(self.connect_timeout, TlsConnector::from(Arc::clone(config)).connect(name, tcp)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(failed(handshake_problem(&error))),
            Err(_) => Err(failed(TlsProblem::Timeout)),
        }
    }
}

/// What is asked of hyper.
pub(super) fn builder() -> hyper::client::conn::http1::Builder {
    let mut http = hyper::client::conn::http1::Builder::new();
    http.max_buf_size(READ_BUFFER).max_header_size(limits::UPSTREAM_HEAD_BYTES).max_headers(HEAD_FIELDS);
    http
}

/// Connects to the addresses in order, each begun a quarter of a second after the one before or at once when that
/// failed; the first that answers wins and the others are dropped.
async fn first_to_answer(addresses: Vec<SocketAddr>, within: Duration) -> io::Result<TcpStream> {
    let mut rest = addresses.into_iter();
    let mut trying = JoinSet::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if let Some(address) = rest.next() {
            trying.spawn(async move {
                match timeout(within, TcpStream::connect(address)).await {
                    Ok(result) => result,
                    Err(_) => {
                        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {within:?}")))
                    }
                }
            });
        }
        tokio::select! {
            done = trying.join_next() => match done {
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(error))) => last = error,
                Some(Err(error)) => last = io::Error::other(error),
                None => return Err(last),
            },
            () = sleep(STAGGER), if rest.len() > 0 => {}
        }
    }
}

/// What HTTP runs on.
#[derive(Debug)]
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Socket, Type};

    use super::*;

    /// A listener whose queue is full: the kernel drops every further SYN, as a black hole does.
    fn black_hole() -> (Socket, Vec<std::net::TcpStream>, SocketAddr) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let try_once = || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100));
        let full = std::iter::from_fn(|| try_once().ok()).take(10).collect();
        (listener, full, address)
    }

    #[tokio::test]
    async fn a_black_hole_is_given_up_in_time() {
        let (_listener, _full, address) = black_hole();
        let within = Duration::from_millis(200);
        let begun = std::time::Instant::now();
        let error = first_to_answer(vec![address], within).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < within * 5);
    }

    #[tokio::test]
    async fn the_next_address_does_not_wait_for_a_black_hole() {
        let (_listener, _full, address) = black_hole();
        let good = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = good.local_addr().unwrap();
        let begun = std::time::Instant::now();
        let tcp = first_to_answer(vec![address, to], Duration::from_secs(30)).await.unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), to);
        assert!(begun.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_followed_by_the_next_at_once() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let refusing = closed.local_addr().unwrap();
        drop(closed);
        let good = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = good.local_addr().unwrap();
        let tcp = first_to_answer(vec![refusing, to], Duration::from_secs(30)).await.unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), to);
        let error = first_to_answer(vec![refusing], Duration::from_secs(30)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
