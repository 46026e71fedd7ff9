//! A server with a small service behind it, and clients of the plainest kind.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::server::*;

/// Longer than anything here may take; a wait for it is a failure.
pub(super) const LONG: Duration = Duration::from_secs(20);

/// What the service says at a path: `/bytes/N` in one frame, `/zeros/N` the
/// same without a pattern, `/frames/N` in frames of 100, `/gate` 5 bytes now and 5
/// when the gate opens, `/broken` 5 bytes of 10 and an error, `/broken-open` the same without a length, `/peer` who
/// asks, `/names` by which certificate, `/upgrade` an echo, `/hang` nothing.
#[derive(Default)]
pub(super) struct Script {
    pub(super) gate: Notify,
}

pub(super) enum Told {
    Frames { left: usize, frame: usize },
    Gate { script: Arc<Script>, part: u8 },
    Broken { parts: u8, sized: bool },
    Text(Option<Bytes>),
}

pub(super) fn letter(from_end: usize) -> u8 {
    b'a' + u8::try_from(from_end % 23).unwrap()
}

impl Body for Told {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match &mut *self {
            Self::Frames { left: 0, .. } | Self::Text(None) | Self::Gate { part: 2, .. } => None,
            Self::Frames { left, frame } => {
                let count = (*left).min(*frame);
                let bytes: Vec<u8> = (*left - count + 1..=*left).rev().map(letter).collect();
                *left -= count;
                Some(Ok(bytes.into()))
            }
            Self::Gate { part: part @ 0, .. } => {
                *part = 1;
                Some(Ok(Bytes::from_static(b"first")))
            }
            Self::Gate { script, part } => {
                let script = Arc::clone(script);
                let mut opened = std::pin::pin!(script.gate.notified());
                if opened.as_mut().poll(cx).is_pending() {
                    // A waiter that is dropped is forgotten: ask again.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                *part = 2;
                Some(Ok(Bytes::from_static(b"later")))
            }
            Self::Broken { parts: parts @ 0, .. } => {
                *parts = 1;
                Some(Ok(Bytes::from_static(b"first")))
            }
            Self::Broken { .. } => Some(Err("the source broke".into())),
            Self::Text(text) => text.take().map(Ok),
        };
        Poll::Ready(frame.map(|frame| frame.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Frames { left: 0, .. } | Self::Text(None) | Self::Gate { part: 2, .. })
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Frames { left, .. } => SizeHint::with_exact(*left as u64),
            Self::Gate { part, .. } => SizeHint::with_exact(10 - 5 * u64::from(*part)),
            Self::Broken { sized: true, parts } => SizeHint::with_exact(10 - 5 * u64::from(*parts)),
            Self::Broken { .. } => SizeHint::default(),
            Self::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}

impl Service for Script {
    type Body = Told;

    async fn call(
        self: &Arc<Self>,
        request: Request<hyper::body::Incoming>,
        peer: &Arc<Peer>,
    ) -> Response<Told> {
        let path = request.uri().path();
        let number = || path.rsplit('/').next().unwrap().parse().unwrap();
        let told = match path {
            "/gate" => Told::Gate { script: Arc::clone(self), part: 0 },
            "/broken" => Told::Broken { parts: 0, sized: true },
            "/broken-open" => Told::Broken { parts: 0, sized: false },
            "/hang" => std::future::pending().await,
            "/upgrade" => return upgrade(),
            "/peer" => {
                let Peer { address, secure, sni, listener, .. } = &**peer;
                Told::Text(Some(format!("{} {secure} {sni:?} {listener}", address.ip()).into()))
            }
            "/names" => Told::Text(Some(format!("{:?}", peer.names).into())),
            _ if path.starts_with("/zeros/") => Told::Text(Some(vec![0; number()].into())),
            _ if path.starts_with("/frames/") => Told::Frames { left: number(), frame: 100 },
            _ if path.starts_with("/bytes/") => Told::Frames { left: number(), frame: usize::MAX },
            _ => {
                let mut response = Response::new(Told::Text(None));
                *response.status_mut() = StatusCode::NOT_FOUND;
                return response;
            }
        };
        Response::new(told)
    }
}

/// An echo in capital letters behind a 101, until the client ends or the server wants to.
fn upgrade() -> Response<Told> {
    let mut response = Response::new(Told::Text(None));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let fields = response.headers_mut();
    fields.insert("connection", "upgrade".parse().unwrap());
    fields.insert("upgrade", "echo".parse().unwrap());
    response.extensions_mut().insert(OnUpgrade::new(|mut stream: Upgraded| async move {
        let leave = stream.leave();
        let mut bytes = [0; 64];
        loop {
            tokio::select! {
                read = stream.read(&mut bytes) => match read {
                    Ok(count @ 1..) => send(&mut stream, &bytes[..count].to_ascii_uppercase()).await,
                    _ => return,
                },
                () = leave.asked() => return send(&mut stream, b"bye").await,
            }
        }
    }));
    response
}

/// A running server with one plain and one TLS listener.
pub(super) struct Site {
    pub(super) plain: SocketAddr,
    pub(super) secure: SocketAddr,
    pub(super) tls: Tls,
    pub(super) script: Arc<Script>,
    pub(super) totals: Arc<Totals>,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) run: JoinHandle<std::io::Result<Summary>>,
    pub(super) cert: rcgen::Certificate,
}

/// A certificate for `localhost` that is its own issuer, and its key.
pub(super) fn certificate() -> (rcgen::Certificate, rcgen::KeyPair) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    (made.cert, made.signing_key)
}

pub(super) fn trusting(cert: &CertificateDer<'static>, alpn: &[&[u8]]) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// Deadlines so long that a test which does not mean one never meets it.
pub(super) fn patient() -> Options {
    let long = Duration::from_secs(60);
    Options {
        handshake_timeout: long,
        head_timeout: long,
        send_timeout: long,
        idle_timeout: long,
        ..Options::default()
    }
}

impl Site {
    pub(super) fn open(options: Options) -> Self {
        let (cert, key) = certificate();
        let tls = Tls::from_pem(cert.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let listeners = vec![
            Listener { address, tls: None, name: "plain" },
            Listener { address, tls: Some(tls.clone()), name: "agents" },
        ];
        let bound = bind(listeners, options).unwrap();
        let [plain, secure] = bound.addresses()[..] else { panic!("two listeners") };
        let script = Arc::new(Script::default());
        let (phase, phases) = watch::channel(Phase::Run);
        let totals = bound.totals();
        let run = tokio::spawn(bound.run(Arc::clone(&script), phases));
        Self { plain, secure, tls, script, totals, phase, run, cert }
    }

    pub(super) async fn dial(&self) -> TcpStream {
        TcpStream::connect(self.plain).await.unwrap()
    }

    pub(super) async fn dial_secure(&self, alpn: &[u8]) -> tokio_rustls::client::TlsStream<TcpStream> {
        let tcp = TcpStream::connect(self.secure).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        trusting(self.cert.der(), &[alpn]).connect(name, tcp).await.unwrap()
    }

    /// Waits until `test` holds of the totals; a failure says so after a long time.
    pub(super) async fn until(&self, test: impl Fn(&Totals) -> bool) {
        let wait = async {
            while !test(&self.totals) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(LONG, wait).await.unwrap_or_else(|_| panic!("{:?}", self.totals));
    }
}

pub(super) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

pub(super) async fn send(stream: &mut (impl tokio::io::AsyncWrite + Unpin), bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
}

/// Reads to the end of the connection: what came, and whether the end was a clean one.
pub(super) async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> (Vec<u8>, std::io::Result<usize>) {
    let mut all = Vec::new();
    let end = timeout(LONG, stream.read_to_end(&mut all)).await.unwrap();
    (all, end)
}

/// One answer with a length from a kept connection: its head and its body.
pub(super) async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(LONG, stream.read_u8()).await.unwrap().unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head
        .split("content-length: ")
        .nth(1)
        .map_or(0, |rest| rest.split("\r\n").next().unwrap().parse().unwrap());
    let mut body = vec![0; length];
    timeout(LONG, stream.read_exact(&mut body)).await.unwrap().unwrap();
    (head, body)
}
