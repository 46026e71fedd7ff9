//! A server under measurement, whoever wrote it.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio_rustls::TlsConnector;
use waypost::testkit::pki::Authority;

use super::process::Tree;

/// Listens with TLS in front of an origin; everything it keeps is in a directory of its own. Dropping it ends it.
pub struct Server {
    pub tree: Tree,
    address: SocketAddr,
    authority: Authority,
    dir: tempfile::TempDir,
}

impl Server {
    /// A place for a server, with a certificate (`server.pem`, `server.key`, `both.pem`) and a port that was free a
    /// moment ago: a child cannot tell us one that the kernel chose for it.
    pub fn prepare(dir: Option<tempfile::TempDir>) -> anyhow::Result<Self> {
        let dir = match dir {
            Some(dir) => dir,
            None => tempfile::Builder::new().prefix("waypost-e2e").tempdir()?,
        };
        let authority = Authority::new("waypost bench CA");
        let issued = authority.server(&["localhost"]);
        fs::write(dir.path().join("both.pem"), format!("{}{}", issued.key, issued.cert))?;
        fs::write(dir.path().join("server.pem"), issued.cert)?;
        fs::write(dir.path().join("server.key"), issued.key)?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        Ok(Self { tree: Tree::default(), address, authority, dir })
    }

    /// Where it listens with TLS.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it keeps its things.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What it and its children have said.
    pub fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// TLS towards it, speaking `protocol`; every connection does its own full handshake.
    pub fn tls(&self, protocol: &str) -> TlsConnector {
        self.authority.connector(&[protocol])
    }

    /// As [`Server::tls`] over HTTP/1.1, resuming sessions.
    pub fn tls_resuming(&self) -> anyhow::Result<TlsConnector> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.pem().as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::in_memory_sessions(64);
        Ok(TlsConnector::from(Arc::new(config)))
    }

    /// The certificate of its authority, in a file.
    pub fn ca(&self) -> anyhow::Result<PathBuf> {
        let file = self.dir().join("ca.pem");
        fs::write(&file, self.authority.pem())?;
        Ok(file)
    }

    /// Bytes of memory now, of all its processes.
    pub fn memory(&self) -> anyhow::Result<u64> {
        self.tree.memory()
    }

    /// Processor time used so far, user and system.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        self.tree.cpu()
    }

    /// Waits until it listens.
    pub fn wait(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.tree.ended()? {
                bail!("it ended with {status}:\n{}", fs::read_to_string(self.log()).unwrap_or_default());
            }
            ensure!(began.elapsed() < Duration::from_secs(60), "it does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}
