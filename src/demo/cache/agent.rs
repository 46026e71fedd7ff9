//! An agent: opens a TLS connection of its own, asks, and hashes what it gets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::content::BASE;
use crate::base::digest::{Digest, Hasher};

/// An agent that hears nothing for this long gives up: longer than any wait of the handler.
const PATIENCE: Duration = Duration::from_secs(60);

/// What all agents know: where their handler is, and whom to trust.
#[derive(Clone)]
pub(super) struct Handler {
    address: SocketAddr,
    tls: TlsConnector,
}

/// What one request gave.
#[derive(Clone, Debug)]
pub(super) struct Fetched {
    pub(super) status: StatusCode,
    /// `Retry-After`, as it came.
    pub(super) retry_after: Option<String>,
    /// SHA-256 of the bytes that came.
    pub(super) digest: Digest,
    pub(super) bytes: u64,
    /// Until the first byte of the body, from the beginning: TCP and TLS handshakes included.
    pub(super) first_byte: Duration,
    /// Until the last.
    pub(super) last_byte: Duration,
    /// The body came to its proper end; else the agent left on purpose.
    pub(super) complete: bool,
    /// The body itself, when it is small.
    pub(super) text: String,
}

/// How an agent behaves.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manner {
    /// Leaves once it has this many bytes.
    pub(super) leave_at: Option<u64>,
}

impl Handler {
    /// The handler at `address`, with certificates from the authority whose certificate `ca` is (PEM).
    pub(super) fn new(address: SocketAddr, ca: &str) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Every agent of a real office has to do its own handshake.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self { address, tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Fetches `path` (relative to the repository) on a new connection and counts its bytes in `delivered`.
    ///
    /// # Errors
    /// Everything that a real agent would report: no connection, broken body, silence.
    pub(super) async fn fetch(
        &self,
        path: &str,
        manner: Manner,
        delivered: &AtomicU64,
    ) -> anyhow::Result<Fetched> {
        let start = Instant::now();
        let tcp = TcpStream::connect(self.address).await.context("cannot connect")?;
        tcp.set_nodelay(true)?;
        let tls = self.tls.connect(ServerName::try_from("localhost")?, tcp);
        let tls = patiently(tls).await?.context("TLS handshake failed")?;
        let (mut requests, connection) = http1::handshake(TokioIo::new(tls)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let request = Request::get(format!("{BASE}{path}"))
            .header(header::HOST, format!("localhost:{}", self.address.port()))
            .header(header::USER_AGENT, "waypost-demo-agent")
            .body(Empty::<Bytes>::new())?;
        let reply = patiently(requests.send_request(request)).await?.context("no answer")?;
        let retry_after = reply.headers().get(header::RETRY_AFTER);
        let mut fetched = Fetched {
            status: reply.status(),
            retry_after: retry_after.and_then(|value| value.to_str().ok()).map(str::to_owned),
            digest: Digest::of(b""),
            bytes: 0,
            first_byte: start.elapsed(),
            last_byte: Duration::ZERO,
            complete: true,
            text: String::new(),
        };
        let mut body = reply.into_body();
        let mut hasher = Hasher::default();
        while let Some(frame) = patiently(body.frame()).await? {
            let frame = frame.context("the body broke off")?;
            let Some(bytes) = frame.data_ref() else { continue };
            if fetched.bytes == 0 {
                fetched.first_byte = start.elapsed();
            }
            hasher.update(bytes);
            fetched.bytes += bytes.len() as u64;
            delivered.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if fetched.bytes <= 64 << 10 {
                fetched.text.push_str(&String::from_utf8_lossy(bytes));
            }
            if manner.leave_at.is_some_and(|at| fetched.bytes >= at) {
                fetched.complete = false;
                break;
            }
        }
        fetched.last_byte = start.elapsed();
        fetched.digest = hasher.finish();
        Ok(fetched)
    }

    /// Fetches `path` to its end, whatever it is, and expects it to be a success.
    ///
    /// # Errors
    /// As [`Handler::fetch`], and for any status but 200.
    pub(super) async fn fetch_whole(&self, path: &str, delivered: &AtomicU64) -> anyhow::Result<Fetched> {
        let fetched = self.fetch(path, Manner::default(), delivered).await?;
        ensure!(fetched.status == StatusCode::OK, "{} for {path}", fetched.status);
        Ok(fetched)
    }
}

async fn patiently<F: Future>(wait: F) -> anyhow::Result<F::Output> {
    tokio::time::timeout(PATIENCE, wait).await.context("silence")
}
