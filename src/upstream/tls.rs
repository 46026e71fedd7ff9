//! rustls towards upstreams: whom to trust, who we are, and what exactly went wrong.

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, ClientConfig, RootCertStore};

use super::error::source_of;
use super::{Options, TlsProblem, Trust, UpstreamError};

/// The session settings for an upstream's own host, and for hosts its redirects lead to: those never see our
/// client certificate.
#[derive(Debug, Clone)]
pub(super) struct Sessions {
    pub(super) own: Arc<ClientConfig>,
    pub(super) others: Arc<ClientConfig>,
}

impl Sessions {
    pub(super) fn of(options: &Options) -> Result<Self, UpstreamError> {
        let roots = match &options.trust {
            Trust::System => system_roots(),
            Trust::Exactly(pem) => exact_roots(pem),
        };
        let roots = roots.map_err(|problem| UpstreamError::Trust { url: options.url.clone(), problem })?;
        let identity = |problem: String| UpstreamError::Identity { url: options.url.clone(), problem };
        // The provider is named, so that no other crate's feature can change it.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = || {
            ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
                .map(|builder| builder.with_root_certificates(Arc::clone(&roots)))
                .map_err(|error| UpstreamError::Trust {
                    url: options.url.clone(),
                    problem: error.to_string(),
                })
        };
        let others = with_alpn(builder()?.with_no_client_auth());
        let own = match &options.identity {
            None => Arc::clone(&others),
            Some((chain, key)) => {
                let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
                    .collect::<Result<_, _>>()
                    .map_err(|error| identity(format!("certificate: {error}")))?;
                if chain.is_empty() {
                    return Err(identity("there is no certificate in it".to_owned()));
                }
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|error| identity(format!("private key: {error}")))?;
                let made = builder()?.with_client_auth_cert(chain, key);
                with_alpn(made.map_err(|error| identity(error.to_string()))?)
            }
        };
        Ok(Self { own, others })
    }
}

fn with_alpn(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

fn exact_roots(pem: &[u8]) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(Arc::new(roots)) }
}

/// Read once: a hundred upstreams share them.
fn system_roots() -> Result<Arc<RootCertStore>, String> {
    static ROOTS: OnceLock<Result<Arc<RootCertStore>, String>> = OnceLock::new();
    let load = || {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
            return Err(format!(
                "the machine has no root certificates (is ca-certificates installed?) {}",
                errors.join("; ")
            ));
        }
        Ok(Arc::new(roots))
    };
    ROOTS.get_or_init(load).clone()
}

/// What went wrong, if TLS did.
pub(super) fn tls_problem(error: &(dyn std::error::Error + 'static)) -> Option<TlsProblem> {
    Some(match source_of::<rustls::Error>(error)? {
        rustls::Error::InvalidCertificate(fault) => certificate_problem(fault),
        rustls::Error::AlertReceived(alert) => TlsProblem::Refused(format!("{alert:?}")),
        error @ (rustls::Error::PeerIncompatible(_)
        | rustls::Error::PeerMisbehaved(_)
        | rustls::Error::InvalidMessage(_)
        | rustls::Error::NoApplicationProtocol) => TlsProblem::Protocol(error.to_string()),
        error => TlsProblem::Broken(error.to_string()),
    })
}

fn certificate_problem(fault: &CertificateError) -> TlsProblem {
    match fault {
        CertificateError::UnknownIssuer => TlsProblem::UnknownIssuer,
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsProblem::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            TlsProblem::NotYetValid
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            TlsProblem::WrongName
        }
        // What `openssl req -x509` makes unless told otherwise. The verifier's own word helps nobody.
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            TlsProblem::Certificate("it is one of an authority (CA:TRUE), not of a server".to_owned())
        }
        other => TlsProblem::Certificate(other.to_string()),
    }
}

/// A handshake's error.
pub(super) fn handshake_problem(error: &io::Error) -> TlsProblem {
    tls_problem(error).unwrap_or_else(|| TlsProblem::Broken(error.to_string()))
}
