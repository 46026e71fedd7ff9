//! The life of one connection: handshake, requests, close.
//!
//! What is large is boxed where it is made: an async function keeps room for every value it ever moves, and an idle
//! connection would pay for all of them at once.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::admission::{Admission, Place};
use super::body::Outgoing;
use super::builders::Builders;
use super::heads::Heads;
use super::pace::{Order, Pace, Stage};
use super::rush::Rush;
use super::tls::{Tls, TlsStream, peer_names};
use super::upgrade::{OnUpgrade, Upgraded};
use super::watched::Watched;
use super::{Options, Peer, Service, ttl};
use crate::base::limits::{DISCARDED_BYTES, HEAD_FIELDS};

/// What all connections share.
pub(super) struct House<S> {
    pub(super) service: Arc<S>,
    pub(super) admission: Arc<Admission>,
    pub(super) handshakes: Semaphore,
    pub(super) rush: Arc<Rush>,
    pub(super) builders: Builders,
    pub(super) options: Options,
}

/// Where a connection came in.
#[derive(Clone)]
pub(super) struct Entrance {
    pub(super) name: &'static str,
    pub(super) tls: Option<Tls>,
}

/// A number for a connection.
fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Serves a connection until it ends. The place is given back when everything else of it is gone.
pub(super) async fn serve<S: Service>(
    house: Arc<House<S>>,
    entrance: Entrance,
    tcp: TcpStream,
    address: SocketAddr,
    place: Place,
) {
    let pace = Arc::clone(&place.pace);
    let ttl = ttl::of(&tcp);
    let socket = Watched::new(tcp, Arc::clone(&pace));
    let mut peer = Peer {
        address,
        secure: false,
        sni: None,
        names: Vec::new(),
        ttl,
        connection: next_number(),
        listener: entrance.name,
    };
    let Some(tls) = entrance.tls else {
        return serve_http1(&house, Box::new(socket), peer, pace).await;
    };
    let Some(stream) = unless_ordered(&pace, shake_hands(&house, &tls, socket)).await.flatten() else {
        return;
    };
    let (_, session) = stream.get_ref();
    peer.secure = true;
    peer.sni = session.server_name().map(str::to_ascii_lowercase);
    peer.names = peer_names(session);
    if session.alpn_protocol() == Some(b"h2") {
        serve_http2(&house, stream, peer, pace).await;
    } else {
        serve_http1(&house, stream, peer, pace).await;
    }
}

async fn shake_hands<S>(house: &House<S>, tls: &Tls, socket: Watched) -> Option<Box<TlsStream<Watched>>> {
    socket.first_byte().await.ok()?;
    let _newcomer = house.rush.enter();
    let _turn = house.handshakes.acquire().await.ok()?;
    match Box::pin(tls.accept(socket)).await {
        Ok(stream) => Some(Box::new(stream)),
        Err(error) => {
            house.admission.totals.note_handshake_failure();
            tracing::debug!(%error, "TLS handshake failed");
            None
        }
    }
}

/// What HTTP/1 runs on.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    fn socket(&self) -> &Watched;
}

impl Wire for Watched {
    fn socket(&self) -> &Watched {
        self
    }
}

impl Wire for TlsStream<Watched> {
    fn socket(&self) -> &Watched {
        self.get_ref().0
    }
}

async fn serve_http1<S: Service, T: Wire>(
    house: &Arc<House<S>>,
    stream: Box<T>,
    peer: Peer,
    pace: Arc<Pace>,
) {
    pace.enter(Stage::Head);
    let peer = Arc::new(peer);
    let upgrade = Mutex::new(None);
    let mut stream = Heads::new(stream, Arc::clone(&pace));
    let broken = loop {
        let answers = service_fn(|request| {
            let answer = answer(Arc::clone(house), Arc::clone(&peer), Arc::clone(&pace), request);
            async { answer.await.map(|response| take_upgrade(response, &upgrade)) }
        });
        let (end, parts) = converse(&house.builders.http1, stream, answers, &pace).await;
        stream = parts.io.into_inner();
        pace.end_rest();
        match end {
            End::Order if pace.standing() == Order::Cut => return,
            End::Rest => {
                house.admission.totals.note_rest();
                // A head that has begun behind the last one: hyper alone can tell what it is.
                let begun = !parts.read_buf.is_empty();
                stream.read_again(parts.read_buf);
                if begun || rested(&pace, stream.wire().socket()).await {
                    continue;
                }
                break false;
            }
            // hyper has answered 400 or 431 to what it cannot parse.
            End::Order | End::Done => {
                let begin = upgrade.lock().take();
                if let Some(begin) = begin {
                    return go_on(begin, Upgraded::new(stream, parts.read_buf, Arc::clone(&pace)), &pace)
                        .await;
                }
                break false;
            }
            End::Broken { by_us } => break !by_us,
        }
    };
    let last_word = if stream.is_endless() {
        Some("414 URI Too Long")
    } else if pace.standing() == Order::Late && stream.is_begun() {
        Some("408 Request Timeout")
    } else {
        None
    };
    if broken && last_word.is_none() {
        if pace.close_delimits() {
            // To an HTTP/1.0 client a clean close means that this was all of it.
            pace.give(Order::Cut);
        }
        return;
    }
    pace.enter(Stage::Closing);
    let end = async move {
        if let Some(word) = last_word
            && say(&mut stream, word).await.is_err()
        {
            return;
        }
        linger(stream).await;
    };
    unless_cut(&pace, Box::pin(end)).await;
}

/// How hyper's part of an HTTP/1 connection came to its end.
enum End {
    /// The connection is to end at once.
    Order,
    /// Everything is said.
    Done,
    /// Nothing is said at the moment.
    Rest,
    /// The connection broke, or was broken off because of what it said.
    Broken { by_us: bool },
}

/// Has hyper serve the connection until it ends or has been idle for a moment. hyper keeps 16 KiB of buffers for a
/// connection, used or not; between requests that are seconds apart, they are of no use to anybody.
async fn converse<T, A, B>(
    builder: &http1::Builder,
    stream: Heads<Box<T>>,
    answers: A,
    pace: &Pace,
) -> (End, http1::Parts<TokioIo<Heads<Box<T>>>, A>)
where
    T: Wire,
    A: HttpService<Incoming, ResBody = B, Error = Infallible>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut connection = Box::new(builder.serve_connection(TokioIo::new(stream), answers));
    let (mut finishing, mut resting) = (false, false);
    let end = poll_fn(|cx| {
        match pace.order(cx) {
            Order::Late | Order::Cut => return Poll::Ready(None),
            Order::Finish if !finishing => {
                finishing = true;
                Pin::new(&mut *connection).graceful_shutdown();
            }
            _ if !finishing && !resting && pace.may_rest() => {
                // Of an idle connection, hyper lets go at once; closing it is not meant.
                resting = true;
                pace.begin_rest();
                Pin::new(&mut *connection).graceful_shutdown();
            }
            _ => {}
        }
        Pin::new(&mut *connection).poll(cx).map(Some)
    })
    .await;
    let end = match end {
        None => End::Order,
        Some(Ok(())) if resting => End::Rest,
        Some(Ok(())) => End::Done,
        Some(Err(error)) => {
            tracing::debug!(%error, "bad request, or the connection broke");
            End::Broken { by_us: error.is_parse() }
        }
    };
    (end, connection.into_parts())
}

/// Waits for the next request; false when the connection is to end instead.
async fn rested(pace: &Pace, socket: &Watched) -> bool {
    unless_ordered(pace, poll_fn(|cx| socket.poll_readable(cx))).await.is_some()
}

/// The connection after a 101.
async fn go_on(begin: OnUpgrade, upgraded: Upgraded, pace: &Pace) {
    if let Some(work) = begin.begin(upgraded) {
        unless_cut(pace, work).await;
    }
}

/// Keeps what is to become of the connection after a 101.
fn take_upgrade<B>(mut response: http::Response<B>, upgrade: &Mutex<Option<OnUpgrade>>) -> http::Response<B> {
    if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
        *upgrade.lock() = response.extensions_mut().remove();
    }
    response
}

/// An answer to a request that hyper never saw.
async fn say<T: AsyncWrite + Unpin>(stream: &mut T, status: &str) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.flush().await
}

/// Waits a moment for the client to have read that we are done: closing with its bytes unread would reset the
/// connection under our last answer. A client that closed first costs one read.
async fn linger<T: AsyncRead + AsyncWrite + Unpin>(mut stream: T) {
    // hyper has done so already, except behind a CONNECT, where it leaves the stream to an upgrade that never comes.
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut discard = [0_u8; 1024];
    let mut total = 0;
    while let Ok(bytes @ 1..) = stream.read(&mut discard).await {
        total += bytes as u64;
        if total > DISCARDED_BYTES {
            return;
        }
    }
}

async fn serve_http2<S: Service>(
    house: &Arc<House<S>>,
    stream: Box<TlsStream<Watched>>,
    peer: Peer,
    pace: Arc<Pace>,
) {
    pace.multiplex();
    pace.enter(Stage::Head);
    let peer = Arc::new(peer);
    let answers =
        service_fn(|request| answer(Arc::clone(house), Arc::clone(&peer), Arc::clone(&pace), request));
    let mut connection = Box::pin(house.builders.http2.serve_connection(TokioIo::new(stream), answers));
    let mut finishing = false;
    let end = poll_fn(|cx| {
        match pace.order(cx) {
            Order::Late | Order::Cut => return Poll::Ready(Ok(())),
            Order::Finish if !finishing => {
                finishing = true;
                connection.as_mut().graceful_shutdown();
            }
            _ => {}
        }
        connection.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = end {
        tracing::debug!(%error, "connection broke");
    }
}

/// Has the service answer a request: counts it, keeps the bounds, cuts the body to pieces.
async fn answer<S: Service>(
    house: Arc<House<S>>,
    peer: Arc<Peer>,
    pace: Arc<Pace>,
    request: http::Request<Incoming>,
) -> Result<http::Response<Outgoing<S::Body>>, Infallible> {
    let (open, number) = pace.begin_request();
    let old = request.version() < http::Version::HTTP_11;
    if old {
        pace.note_close_delimits();
    }
    if request.headers().len() > HEAD_FIELDS {
        house.admission.totals.note_oversized_head();
        let mut response = http::Response::new(Outgoing::new(None, None, (open, &house.rush)));
        *response.status_mut() = http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        leave(&pace, &mut response);
        return Ok(response);
    }
    let response = house.service.call(request, &peer).await;
    let mut response = response.map(|body| Outgoing::new(Some(body), pace.open_lane(), (open, &house.rush)));
    if number >= house.options.requests_per_connection {
        leave(&pace, &mut response);
    }
    Ok(response)
}

/// Makes this the last answer of the connection.
fn leave<B>(pace: &Pace, response: &mut http::Response<B>) {
    if pace.multiplexed() {
        pace.give(Order::Finish);
    } else {
        response.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    }
}

/// Runs `work`, unless any order comes first: for the time before a first request.
async fn unless_ordered<T>(pace: &Pace, work: impl Future<Output = T>) -> Option<T> {
    until(pace, Order::Finish, work).await
}

/// Runs `work`, unless the connection is cut.
async fn unless_cut<T>(pace: &Pace, work: impl Future<Output = T>) -> Option<T> {
    until(pace, Order::Cut, work).await
}

async fn until<T>(pace: &Pace, end: Order, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|cx| if pace.order(cx) >= end { Poll::Ready(None) } else { work.as_mut().poll(cx).map(Some) })
        .await
}
