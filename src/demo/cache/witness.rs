//! The witness: stands in front of the master at headquarters, ends TLS there, and writes down every request that came
//! over the WAN. It is no part of waypost's own counting, and it changes no byte.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::demo::pki::Identity;

/// Bytes of a request head; the handler's are a tenth.
const HEAD: usize = 16 << 10;

/// A request that reached headquarters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) path: String,
    /// The value of `Range`, if there was one.
    pub(super) range: Option<String>,
}

/// Dropping it closes its connections.
pub(super) struct Witness {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _tasks: JoinSet<()>,
}

impl Witness {
    /// Listens with `identity` and passes everything on to `master`.
    pub(super) async fn open(identity: &Identity, master: SocketAddr) -> anyhow::Result<Self> {
        let acceptor = acceptor(identity)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let mut tasks = JoinSet::new();
        let notes = Arc::clone(&seen);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                connections.spawn(watch(acceptor.clone(), stream, master, Arc::clone(&notes)));
            }
        });
        Ok(Self { address, seen, _tasks: tasks })
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests seen so far, in order.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }
}

fn acceptor(identity: &Identity) -> anyhow::Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Errors end the connection on both sides, and that is all there is to do about them.
async fn watch(acceptor: TlsAcceptor, stream: TcpStream, master: SocketAddr, seen: Arc<Mutex<Vec<Seen>>>) {
    let outcome = async {
        stream.set_nodelay(true)?;
        let (from_wan, to_wan) = tokio::io::split(acceptor.accept(stream).await?);
        let master = TcpStream::connect(master).await?;
        master.set_nodelay(true)?;
        let (from_master, to_master) = master.into_split();
        tokio::try_join!(note_requests(from_wan, to_master, &seen), copy(from_master, to_wan))
    };
    let _: io::Result<_> = outcome.await;
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(buffer.get(..read).unwrap_or_default()).await?;
        // TLS keeps records back until asked.
        to.flush().await?;
    }
}

/// Requests of a handler have no bodies, so heads follow each other.
async fn note_requests(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    seen: &Mutex<Vec<Seen>>,
) -> io::Result<()> {
    let mut buffer = vec![0; 4 << 10];
    let mut head = Vec::new();
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        let bytes = buffer.get(..read).unwrap_or_default();
        for byte in bytes {
            head.push(*byte);
            if head.ends_with(b"\r\n\r\n") {
                seen.lock().push(parse(&String::from_utf8_lossy(&head)));
                head.clear();
            }
        }
        if head.len() > HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        to.write_all(bytes).await?;
    }
}

fn parse(head: &str) -> Seen {
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let range = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("range"))
        .map(|(_, value)| value.trim().to_owned());
    Seen { method, path, range }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_request_is_written_down_and_passed_on_unchanged() {
        let asked = b"GET /a HTTP/1.1\r\nhost: x\r\n\r\nGET /b HTTP/1.1\r\nRange: bytes=7-\r\n\r\n";
        let seen = Mutex::default();
        let mut passed = Vec::new();
        note_requests(&asked[..], &mut passed, &seen).await.unwrap();
        assert_eq!(passed, asked);
        let get = |path: &str, range: Option<&str>| Seen {
            method: "GET".into(),
            path: path.into(),
            range: range.map(str::to_owned),
        };
        assert_eq!(*seen.lock(), [get("/a", None), get("/b", Some("bytes=7-"))]);
    }
}
