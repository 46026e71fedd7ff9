//! Nodes that are no waypost, to test the demo with: just enough of a master and of a handler.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::base::clock::Clock;
use crate::demo::{RunningNode, StartNode};
use crate::proxy::directory::{Directory, Options};

/// Starts stand-ins; those that do not share fetch for every agent.
#[derive(Clone)]
pub(super) struct StandIn {
    pub(super) shares: bool,
}

impl StartNode for StandIn {
    async fn start(&self, config: &Path) -> anyhow::Result<RunningNode> {
        let base = config.parent().unwrap();
        let toml: toml::Table = std::fs::read_to_string(config)?.parse()?;
        let repository = &toml["repository"][0];
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (addresses, plain, task) = if let Some(directory) = repository.get("directory") {
            let root = base.join(directory.as_str().unwrap());
            let directory = Directory::open(&root, Options::default(), Clock::system())?;
            (vec![], vec![address], tokio::spawn(serve_directory(listener, directory)))
        } else {
            let upstream: http::Uri = repository["upstreams"][0].as_str().unwrap().parse()?;
            let wan = SocketAddr::from(([127, 0, 0, 1], upstream.port_u16().unwrap()));
            (vec![address], vec![], tokio::spawn(serve_handler(listener, base.into(), wan, self.shares)))
        };
        let stop = Box::pin(async move {
            task.abort();
            Ok(())
        });
        Ok(RunningNode { addresses, plain, stop })
    }
}

struct Channel(mpsc::Receiver<Result<Bytes, anyhow::Error>>);

impl Body for Channel {
    type Data = Bytes;
    type Error = anyhow::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, anyhow::Error>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| bytes.map(Frame::data)))
    }
}

async fn answer<F>(stream: impl AsyncRead + AsyncWrite + Unpin, service: impl Fn(Request<Incoming>) -> F)
where
    F: Future<Output = Response<Channel>>,
{
    let service = service_fn(|request| {
        let reply = service(request);
        async { Ok::<_, Infallible>(reply.await) }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn serve_directory(listener: TcpListener, directory: Directory) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let directory = directory.clone();
        tokio::spawn(async move {
            answer(stream, |request| {
                let directory = directory.clone();
                async move {
                    let path = request.uri().path().strip_prefix("/Software/").unwrap();
                    let file = directory.open_file(path).await.unwrap();
                    let start = range_start(request.headers());
                    let (sender, receiver) = mpsc::channel(2);
                    let mut reply = Response::builder().header("content-length", file.length() - start);
                    if request.headers().contains_key(header::RANGE) {
                        reply = reply.status(206);
                    }
                    tokio::spawn(async move {
                        let mut at = start;
                        while at < file.length() {
                            let piece = file.piece(at, usize::MAX).await.unwrap();
                            at += piece.len() as u64;
                            if sender.send(Ok(piece)).await.is_err() {
                                return;
                            }
                        }
                    });
                    reply.body(Channel(receiver)).unwrap()
                }
            })
            .await;
        });
    }
}

fn range_start(headers: &HeaderMap) -> u64 {
    let value = headers.get(header::RANGE).map_or("bytes=0-", |value| value.to_str().unwrap());
    value.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap()
}

#[derive(Default)]
struct Fill {
    length: u64,
    bytes: Vec<u8>,
    failed: bool,
}

type Fills = Arc<Mutex<HashMap<String, watch::Receiver<Fill>>>>;

async fn serve_handler(listener: TcpListener, base: std::path::PathBuf, wan: SocketAddr, shares: bool) {
    let certificate = CertificateDer::from_pem_file(base.join("handler.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(base.join("handler.key")).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let ca = base.join("ca.pem");
    let fills = Fills::default();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, ca, fills) = (acceptor.clone(), ca.clone(), Arc::clone(&fills));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            answer(stream, |request| {
                let mut fill = join(&fills, request.uri().path(), &ca, wan, shares);
                async move {
                    let (length, failed) = {
                        let known = fill.wait_for(|fill| fill.failed || fill.length > 0).await.unwrap();
                        (known.length, known.failed)
                    };
                    let (sender, receiver) = mpsc::channel(2);
                    if failed && length == 0 {
                        let reply = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE);
                        return reply.header("retry-after", "1").body(Channel(receiver)).unwrap();
                    }
                    tokio::spawn(follow(fill, length, sender));
                    Response::builder().header("content-length", length).body(Channel(receiver)).unwrap()
                }
            })
            .await;
        });
    }
}

async fn follow(
    mut fill: watch::Receiver<Fill>,
    length: u64,
    sender: mpsc::Sender<Result<Bytes, anyhow::Error>>,
) {
    let mut at = 0;
    while (at as u64) < length {
        let bytes = {
            let fill = fill.wait_for(|fill| fill.failed || fill.bytes.len() > at).await.unwrap();
            Bytes::copy_from_slice(&fill.bytes[at..fill.bytes.len().min(at + (64 << 10))])
        };
        at += bytes.len();
        let bytes = if bytes.is_empty() { Err(anyhow::anyhow!("upstream failed")) } else { Ok(bytes) };
        if bytes.is_err() | sender.send(bytes).await.is_err() {
            return;
        }
    }
}

fn join(fills: &Fills, path: &str, ca: &Path, wan: SocketAddr, shares: bool) -> watch::Receiver<Fill> {
    let mut fills = fills.lock();
    if let Some(fill) = fills.get(path).filter(|fill| shares && !fill.borrow().failed) {
        return fill.clone();
    }
    let (sender, receiver) = watch::channel(Fill::default());
    fills.insert(path.to_owned(), receiver.clone());
    let (path, ca) = (path.to_owned(), ca.to_owned());
    tokio::spawn(async move {
        for _ in 0..3 {
            let done = lead(&sender, &path, &ca, wan).await;
            if done.is_ok() {
                return;
            }
        }
        sender.send_modify(|fill| fill.failed = true);
    });
    receiver
}

async fn lead(fill: &watch::Sender<Fill>, path: &str, ca: &Path, wan: SocketAddr) -> anyhow::Result<()> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let client = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(client));
    let stream = tls.connect(ServerName::try_from("localhost")?, TcpStream::connect(wan).await?).await?;
    let (mut requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let have = fill.borrow().bytes.len();
    let mut request = Request::get(path).header("host", "localhost");
    if have > 0 {
        request = request.header("range", format!("bytes={have}-"));
    }
    let mut body = requests.send_request(request.body(Empty::<Bytes>::new())?).await?.into_body();
    let length = have as u64 + body.size_hint().exact().unwrap();
    fill.send_modify(|fill| fill.length = length);
    while let Some(frame) = body.frame().await {
        let bytes = frame?.into_data().unwrap();
        fill.send_modify(|fill| fill.bytes.extend_from_slice(&bytes));
    }
    connection.abort();
    Ok(())
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
