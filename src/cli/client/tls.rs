//! TLS towards a node: its certificate has to be of an authority that is trusted here.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Whom we believe. Reading it is what can fail for want of a file, before anybody is talked to.
pub(super) struct Trust(RootCertStore);

/// Why there is no session, and what to do about it where that is known.
pub(super) struct NoSession {
    pub(super) why: String,
    pub(super) help: Option<&'static str>,
}

impl Trust {
    /// The authorities in this file, or those of this machine.
    pub(super) fn read(ca_file: Option<&Path>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let Some(path) = ca_file else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return Ok(Self(roots));
        };
        let wrong = |why: String| format!("the file of --ca-file, {}: {why}", path.display());
        let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
        }
        if roots.is_empty() { Err(wrong("has no certificate in PEM".to_owned())) } else { Ok(Self(roots)) }
    }

    /// Shakes hands, or says why not.
    pub(super) async fn shake_hands(
        &self,
        tcp: TcpStream,
        host: &str,
    ) -> Result<TlsStream<TcpStream>, NoSession> {
        let because = |why: &dyn std::fmt::Display| NoSession { why: why.to_string(), help: None };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| because(&error))?
            .with_root_certificates(self.0.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(name).map_err(|error| because(&error))?;
        let shaken = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
        shaken.map_err(|error| explain(&error))
    }
}

/// What a refused certificate means for whoever typed the command.
fn explain(error: &std::io::Error) -> NoSession {
    let text = error.to_string();
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(wrong)) = inner else {
        return NoSession { why: text, help: None };
    };
    let (why, help) = match wrong {
        CertificateError::UnknownIssuer => (
            "its certificate is of an authority that is not trusted here".to_owned(),
            "name the file with that authority's certificate: --ca-file FILE (or WAYPOST_CA_FILE); for a self-signed \
             certificate that is its own file",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            "its certificate is for another name".to_owned(),
            "connect to a name or address that stands in the certificate: -s https://NAME:PORT",
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            "its certificate has expired".to_owned(),
            "put a new one in its place there and reload by the socket of that machine, or look at the clock here",
        ),
        _ => (text, "look at [admin] tls of that node"),
    };
    NoSession { why, help: Some(help) }
}
