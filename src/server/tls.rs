//! TLS for listeners: the only file of the server that knows rustls.
//!
//! The provider is named, never the process default, so that no dependency can change it or make it missing.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CipherSuite, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
pub(super) use tokio_rustls::server::TlsStream;

use super::expiry::not_after;
use super::names::{PeerName, names_of};
use crate::base::clock::Timestamp;
use crate::base::limits::PIECE_BYTES;

/// Bytes of ciphertext a connection may hold: a whole piece with its head and record framing, so that it leaves in
/// one system call. rustls' default of 64 KiB takes four times as many a GB.
const BUFFER_BYTES: usize = PIECE_BYTES + (16 << 10);

/// Why a certificate and key cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate file has no PEM certificate, or a damaged one.
    #[error("no usable certificate in the PEM file: {0}")]
    Certificate(String),
    /// The key file has no PEM private key, or a damaged one.
    #[error("no usable private key in the PEM file: {0}")]
    Key(String),
    /// The authority of clients' certificates cannot be used.
    #[error("no usable authority of client certificates in the PEM file: {0}")]
    Clients(String),
    /// Certificate and key do not belong together, or the key's kind is not supported.
    #[error("the certificate cannot be served with this key: {0}")]
    Pair(String),
}

/// A certificate with its key, ready to serve. Clones share it, so that [`Tls::replace`] reaches every listener;
/// running connections keep what they began with.
#[derive(Clone)]
pub struct Tls(Arc<ArcSwap<ServerConfig>>);

impl Tls {
    /// TLS 1.3 and 1.2 with the chain (leaf first) and key in these PEM bytes.
    ///
    /// # Errors
    /// Says which of the two is unusable, or that they do not match.
    pub fn from_pem(cert: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Self::asking(cert, key, None)
    }

    /// As [`Tls::from_pem`]; where there are authorities, clients are asked for a certificate by one of them. A client
    /// without one is served all the same, one with a wrong one is not.
    ///
    /// # Errors
    /// As [`Tls::from_pem`], and authorities that are none.
    pub fn asking(cert: &[u8], key: &[u8], clients: Option<&[u8]>) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(config(cert, key, clients)?))))
    }

    /// Serves another certificate, and asks for those of other authorities, from the next handshake on.
    ///
    /// # Errors
    /// As [`Tls::asking`]; everything stays as it was.
    pub fn replace(&self, cert: &[u8], key: &[u8], clients: Option<&[u8]>) -> Result<(), TlsError> {
        self.0.store(Arc::new(config(cert, key, clients)?));
        Ok(())
    }

    /// When the leaf of this PEM chain expires; `None` where that cannot be read.
    pub fn expiry(cert: &[u8]) -> Option<Timestamp> {
        not_after(&CertificateDer::from_pem_slice(cert).ok()?)
    }

    /// The server's side of a handshake.
    pub(super) fn accept<T: AsyncRead + AsyncWrite + Unpin>(&self, stream: T) -> tokio_rustls::Accept<T> {
        let acceptor = TlsAcceptor::from(self.0.load_full());
        acceptor.accept_with(stream, |session| session.set_buffer_limit(Some(BUFFER_BYTES)))
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// AES-128-GCM with SHA-256 first, whatever a client prefers: as safe (RFC 9325 §4.2), and most clients ask for SHA-384,
/// whose key schedule takes an eighth of a handshake where processors have instructions for SHA-256 alone.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| rank(suite.suite()));
    provider
}

/// Place of a suite in the order of preference; the order of its peers stays.
fn rank(suite: CipherSuite) -> u8 {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => 0,
        suite if suite.as_str().is_some_and(|name| name.starts_with("TLS13_")) => 1,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 2,
        _ => 3,
    }
}

/// The names in the certificate that the client of this session has proven.
pub(super) fn peer_names(session: &rustls::ServerConnection) -> Vec<PeerName> {
    session.peer_certificates().and_then(<[_]>::first).map(|leaf| names_of(leaf)).unwrap_or_default()
}

fn config(cert: &[u8], key: &[u8], clients: Option<&[u8]>) -> Result<ServerConfig, TlsError> {
    let chain = CertificateDer::pem_slice_iter(cert)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::Certificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(TlsError::Certificate("no CERTIFICATE section".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsError::Key(error.to_string()))?;
    let pair = |error: rustls::Error| TlsError::Pair(error.to_string());
    let provider = Arc::new(provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(pair)?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authorities) => builder.with_client_cert_verifier(verifier(authorities, provider)?),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(pair)?;
    config.ignore_client_order = true;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(pair)?;
    // One ticket is what an agent uses; each costs a record and a sealing at every full handshake.
    config.send_tls13_tickets = 1;
    // Early data may be replayed (RFC 8446 §8), and saves a local agent nothing.
    config.max_early_data_size = 0;
    Ok(config)
}

fn verifier(
    authorities: &[u8],
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(authorities) {
        let authority = authority.map_err(|error| TlsError::Clients(error.to_string()))?;
        roots.add(authority).map_err(|error| TlsError::Clients(error.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .map_err(|error| TlsError::Clients(error.to_string()))
}
