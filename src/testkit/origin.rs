//! A scripted origin over TCP or TLS: every path does what its [`Script`] says, and everything is counted.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use socket2::{SockRef, Socket};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::answer::{Answer, field};
use super::link::Link;
use super::pki::{Authority, Issued};
use super::script::{Fault, Framing, How, Raw, Script};

/// Bytes written at once: small, so that faults and rates are exact.
const WRITE: u64 = 16 << 10;

/// On a port the kernel chooses.
const LOOPBACK: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));

/// A scripted origin; stops when dropped, and all its connections with it.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    secure: bool,
    state: Arc<State>,
    listener: JoinHandle<()>,
}

/// What happened on one path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests, whatever became of them.
    pub requests: usize,
    /// Bytes of bodies written.
    pub body_bytes: u64,
    /// The `Range` values asked for.
    pub ranges: Vec<String>,
    /// Transfers at the same time, at most.
    pub concurrent: usize,
    /// Faults that struck.
    pub faults: usize,
}

#[derive(Debug, Default)]
struct State {
    scripts: Mutex<HashMap<String, Script>>,
    counts: Mutex<HashMap<String, Counts>>,
    running: Mutex<HashMap<String, usize>>,
    heads: Mutex<Vec<String>>,
    connections: AtomicUsize,
    link: Link,
}

impl Origin {
    /// Over plain TCP on 127.0.0.1, on a port the kernel chooses.
    pub async fn start() -> Self {
        Self::listen(LOOPBACK, None).await
    }

    /// Over plain TCP at an address that was in use before: for an upstream that comes back.
    pub async fn start_at(address: SocketAddr) -> Self {
        Self::listen(address, None).await
    }

    /// Over TLS with this certificate; asks for a client certificate of `client_ca` if given.
    pub async fn start_tls(certificate: &Issued, client_ca: Option<&Authority>) -> Self {
        Self::listen(LOOPBACK, Some(certificate.acceptor(client_ca))).await
    }

    async fn listen(address: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(address).await.expect("loopback can be bound");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = Arc::new(State::default());
        let secure = tls.is_some();
        let listener = tokio::spawn(accept(listener, tls, Arc::clone(&state)));
        Self { address, secure, state, listener }
    }

    /// `127.0.0.1:port`.
    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    /// Its URL, with the slash at the end.
    pub fn url(&self) -> String {
        format!("{}://{}/", if self.secure { "https" } else { "http" }, self.address)
    }

    /// Scripts `path` (with its slash in front, without query). Paths without a script are 404.
    pub fn set(&self, path: &str, script: Script) {
        self.state.scripts.lock().insert(path.to_owned(), script);
    }

    /// Takes the script of `path` away: it is 404 from now on.
    pub fn unset(&self, path: &str) {
        self.state.scripts.lock().remove(path);
    }

    /// Bytes a second that all bodies share; 0 is without limit.
    pub fn set_rate(&self, rate: u64) {
        self.state.link.set_rate(rate);
    }

    /// What happened on `path` so far.
    pub fn counts(&self, path: &str) -> Counts {
        self.state.counts.lock().get(path).cloned().unwrap_or_default()
    }

    /// Bytes of bodies written so far, on all paths.
    pub fn body_bytes(&self) -> u64 {
        self.state.counts.lock().values().map(|counts| counts.body_bytes).sum()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// All request heads, in order of arrival, as they came.
    pub fn heads(&self) -> Vec<String> {
        self.state.heads.lock().clone()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// Owns the connections: they end with the listener's task.
async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((tcp, _)) = listener.accept().await else { continue };
        state.connections.fetch_add(1, Ordering::Relaxed);
        connections.spawn(connection(tcp, tls.clone(), Arc::clone(&state)));
        while connections.try_join_next().is_some() {}
    }
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// What becomes of a connection after a reply.
enum After {
    Next,
    Close,
    Reset,
}

async fn connection(tcp: TcpStream, tls: Option<TlsAcceptor>, state: Arc<State>) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(&tcp).try_clone()?;
    let mut io: Box<dyn Io> = match tls {
        Some(tls) => Box::new(tls.accept(tcp).await?),
        None => Box::new(tcp),
    };
    let mut buffer = Vec::new();
    while let Some(head) = read_head(&mut io, &mut buffer).await? {
        match reply(&mut io, &head, &state).await? {
            After::Next => {}
            After::Close => {
                io.shutdown().await?;
                break;
            }
            After::Reset => {
                reset(&socket)?;
                break;
            }
        }
    }
    Ok(())
}

/// The last close of the socket then sends RST.
fn reset(socket: &Socket) -> io::Result<()> {
    socket.set_linger(Some(Duration::ZERO))
}

async fn read_head(io: &mut Box<dyn Io>, buffer: &mut Vec<u8>) -> io::Result<Option<String>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let rest = buffer.split_off(end + 4);
            let head = std::mem::replace(buffer, rest);
            return Ok(Some(String::from_utf8_lossy(&head).into_owned()));
        }
        if io.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// Counts a transfer as running until dropped.
struct Running<'a>(&'a State, &'a str);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(running) = self.0.running.lock().get_mut(self.1) {
            *running -= 1;
        }
    }
}

impl State {
    fn count<T>(&self, path: &str, change: impl FnOnce(&mut Counts) -> T) -> T {
        change(self.counts.lock().entry(path.to_owned()).or_default())
    }

    fn begin<'a>(&'a self, path: &'a str, head: &str) -> (Running<'a>, usize) {
        self.heads.lock().push(head.to_owned());
        let running = {
            let mut running = self.running.lock();
            let running = running.entry(path.to_owned()).or_default();
            *running += 1;
            *running
        };
        let number = self.count(path, |counts| {
            counts.ranges.extend(field(head, "range").map(str::to_owned));
            counts.concurrent = counts.concurrent.max(running);
            counts.requests += 1;
            counts.requests - 1
        });
        (Running(self, path), number)
    }
}

async fn reply(io: &mut Box<dyn Io>, head: &str, state: &State) -> io::Result<After> {
    let mut words = head.split(' ');
    let method = words.next().unwrap_or_default();
    let path = words.next().and_then(|target| target.split('?').next()).unwrap_or_default();
    let (_running, number) = state.begin(path, head);
    let script = state.scripts.lock().get(path).cloned();
    let Some(mut script) = script else {
        io.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await?;
        return Ok(After::Next);
    };
    if let Some(raw) = script.raw {
        return send_raw(io, &raw).await;
    }
    if let Some((from, etag, seed)) = script.becomes.take()
        && number >= from
    {
        script.etag = Some(etag);
        script.seed = seed;
    }
    if let Some(hold) = script.hold.as_ref().filter(|hold| hold.at.is_none()) {
        hold.gate.pass().await;
    }
    tokio::time::sleep(script.delay).await;
    for _ in 0..script.hints.0 {
        io.write_all(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n").await?;
        tokio::time::sleep(script.hints.1).await;
    }
    let answer = Answer::of(&script, head);
    io.write_all(answer.render(&script).as_bytes()).await?;
    if method == "HEAD" || answer.bodyless() {
        return Ok(After::Next);
    }
    send_body(io, path, &script, &answer, state).await
}

async fn send_raw(io: &mut Box<dyn Io>, raw: &Raw) -> io::Result<After> {
    io.write_all(&raw.bytes).await?;
    io.flush().await?;
    if let Some((after, bytes)) = &raw.later {
        tokio::time::sleep(*after).await;
        io.write_all(bytes).await?;
    }
    Ok(if raw.close { After::Close } else { After::Next })
}

async fn send_body(
    io: &mut Box<dyn Io>,
    path: &str,
    script: &Script,
    answer: &Answer,
    state: &State,
) -> io::Result<After> {
    let own_link = Link::new(script.rate.unwrap_or(0));
    let fault = script.fault.filter(|fault| fault.at >= answer.start && fault.at < answer.end.max(1));
    let fault = fault.filter(|fault| state.count(path, |counts| counts.faults < fault.times));
    let hold = script.hold.as_ref().and_then(|hold| Some((hold.at?, &hold.gate)));
    let mut at = answer.start;
    loop {
        if let Some((_, gate)) = hold.filter(|(byte, _)| *byte == at) {
            io.flush().await?;
            gate.pass().await;
        }
        if let Some(fault) = fault.filter(|fault| fault.at == at) {
            io.flush().await?;
            state.count(path, |counts| counts.faults += 1);
            if fault.how != How::Flip {
                return strike(fault).await;
            }
        }
        if at >= answer.end {
            break;
        }
        let stops = [Some(answer.end), fault.map(|fault| fault.at), hold.map(|(byte, _)| byte)];
        let next = stops.into_iter().flatten().filter(|stop| *stop > at).fold(at + WRITE, u64::min);
        state.link.pass(next - at).await;
        own_link.pass(next - at).await;
        let len = usize::try_from(next - at).unwrap_or(0);
        let mut bytes = script.piece(at, len);
        if fault.is_some_and(|fault| fault.how == How::Flip && fault.at == at) {
            bytes = flip_first(&bytes);
        }
        if script.framing == Framing::Chunked {
            io.write_all(format!("{len:x}\r\n").as_bytes()).await?;
        }
        io.write_all(&bytes).await?;
        if script.framing == Framing::Chunked {
            io.write_all(b"\r\n").await?;
        }
        state.count(path, |counts| counts.body_bytes += next - at);
        at = next;
    }
    if script.framing == Framing::Chunked {
        io.write_all(b"0\r\n\r\n").await?;
    }
    io.flush().await?;
    let ends = matches!(script.framing, Framing::Close | Framing::WrongLength(_));
    Ok(if ends { After::Close } else { After::Next })
}

async fn strike(fault: Fault) -> io::Result<After> {
    match fault.how {
        How::Stall => std::future::pending().await,
        How::Reset => Ok(After::Reset),
        How::Finish => Ok(After::Close),
        How::Flip => Ok(After::Next),
    }
}

fn flip_first(bytes: &[u8]) -> Bytes {
    let mut bytes = bytes.to_vec();
    if let Some(first) = bytes.first_mut() {
        *first ^= 0xff;
    }
    bytes.into()
}
