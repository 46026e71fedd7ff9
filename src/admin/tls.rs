//! The admin API on TCP: always TLS, always with a token or a client certificate.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::Admin;
use super::names::names;
use super::serve::{CONNECTIONS, Entrance, serve};

/// From accept to the end of the handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// After an accept that failed for want of descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// Why the API cannot be served on TLS.
#[derive(Debug, thiserror::Error)]
pub enum AdminTlsError {
    /// Certificate, key or authority cannot be used.
    #[error("the certificates of [admin] cannot be used: {0}")]
    Certificates(String),
    /// The address is taken, not ours, or not allowed.
    #[error("cannot listen on {address} for [admin]")]
    Bind {
        /// As configured.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        error: std::io::Error,
    },
}

/// What the node shows, and whose certificates let somebody in; all PEM.
#[derive(Clone)]
pub struct Identity {
    /// The chain, leaf first.
    pub cert: Vec<u8>,
    /// The private key.
    pub key: Vec<u8>,
    /// The authority of operators' certificates; `None`: tokens only.
    pub client_ca: Option<Vec<u8>>,
}

/// Sessions as they are made now. Clones are the same.
#[derive(Clone)]
pub struct AdminTls {
    config: Arc<ArcSwap<ServerConfig>>,
    socket: Arc<StdListener>,
    local: SocketAddr,
}

impl AdminTls {
    /// Listens on `address`.
    ///
    /// # Errors
    /// As [`AdminTlsError`] says.
    pub fn bind(address: SocketAddr, identity: &Identity) -> Result<Self, AdminTlsError> {
        let config = Arc::new(ArcSwap::from_pointee(session(identity)?));
        let wrap = |error| AdminTlsError::Bind { address, error };
        let socket = StdListener::bind(address).map_err(wrap)?;
        socket.set_nonblocking(true).map_err(wrap)?;
        let local = socket.local_addr().map_err(wrap)?;
        Ok(Self { config, socket: Arc::new(socket), local })
    }

    /// Whether it could be served.
    ///
    /// # Errors
    /// It cannot.
    pub fn check(identity: &Identity) -> Result<(), AdminTlsError> {
        session(identity).map(drop)
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.local
    }

    /// Shows another certificate, and trusts another authority, from the next connection on.
    ///
    /// # Errors
    /// They cannot be used; everything stays as it was.
    pub fn replace(&self, identity: &Identity) -> Result<(), AdminTlsError> {
        self.config.store(Arc::new(session(identity)?));
        Ok(())
    }

    /// Answers until dropped. Inside a tokio runtime.
    pub async fn serve(self, admin: Admin) {
        let socket = self.socket.try_clone().and_then(TcpListener::from_std);
        let Ok(listener) = socket else {
            tracing::error!(address = %self.local, "the admin listener cannot be polled");
            return;
        };
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        // Owns the connections: they end with this future.
        let mut connections = JoinSet::new();
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let accepted = loop {
                tokio::select! {
                    Some(_) = connections.join_next() => {}
                    accepted = listener.accept() => break accepted,
                }
            };
            match accepted {
                Ok((tcp, _)) => {
                    let (admin, tls) = (admin.clone(), self.clone());
                    connections.spawn(async move {
                        tls.serve_one(admin, tcp).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "admin listener");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn serve_one(&self, admin: Admin, tcp: TcpStream) {
        let Ok(local) = tcp.local_addr() else { return };
        let acceptor = TlsAcceptor::from(self.config.load_full());
        let stream = match timeout(HANDSHAKE_TIME, acceptor.accept(tcp)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "admin handshake"),
            Err(_) => return,
        };
        let (_, session) = stream.get_ref();
        let entrance = Entrance::Tls {
            local,
            sni: session.server_name().map(str::to_ascii_lowercase),
            // The verifier has accepted it, or the handshake would have failed.
            certified: session
                .peer_certificates()
                .map(|chain| chain.first().map_or_else(Vec::new, |leaf| names(leaf)).into()),
        };
        serve(admin, stream, entrance).await;
    }
}

impl std::fmt::Debug for AdminTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminTls").field("local", &self.local).finish_non_exhaustive()
    }
}

fn session(identity: &Identity) -> Result<ServerConfig, AdminTlsError> {
    let wrong =
        |what: &str, error: &dyn std::fmt::Display| AdminTlsError::Certificates(format!("{what}: {error}"));
    let certificates = |pem: &[u8], what: &str| {
        CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| wrong(what, &error))
    };
    let chain = certificates(&identity.cert, "cert")?;
    let key = PrivateKeyDer::from_pem_slice(&identity.key).map_err(|error| wrong("key", &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| wrong("TLS", &error))?;
    let builder = match &identity.client_ca {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(pem, "client_ca")? {
                roots.add(certificate).map_err(|error| wrong("client_ca", &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| wrong("client_ca", &error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| wrong("cert and key", &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
