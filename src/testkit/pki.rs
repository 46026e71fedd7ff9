//! Certificates for tests: a CA, servers, clients, and wrong ones.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A certificate authority.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate chain and its key.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The chain, PEM.
    pub cert: String,
    /// The private key, PEM.
    pub key: String,
}

impl Authority {
    /// A new CA of this name.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key can be made");
        Self(CertifiedIssuer::self_signed(params, key).expect("a CA signs itself"))
    }

    /// Its certificate, PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server certificate for these names and addresses.
    pub fn server(&self, names: &[&str]) -> Issued {
        self.issue(names, ExtendedKeyUsagePurpose::ServerAuth, |_| {})
    }

    /// A server certificate whose time is over.
    pub fn expired(&self, names: &[&str]) -> Issued {
        self.issue(names, ExtendedKeyUsagePurpose::ServerAuth, |params| {
            params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        })
    }

    /// A server certificate whose time is over this long after 1970.
    pub fn expiring(&self, names: &[&str], at: Duration) -> Issued {
        self.issue(names, ExtendedKeyUsagePurpose::ServerAuth, |params| {
            params.not_after = rcgen::date_time_ymd(1970, 1, 1) + at;
        })
    }

    /// A client certificate for a person of this common name, with alternative names.
    pub fn person(&self, name: &str, names: &[&str]) -> Issued {
        self.issue(names, ExtendedKeyUsagePurpose::ClientAuth, |params| {
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
        })
    }

    /// A client certificate.
    pub fn client(&self, name: &str) -> Issued {
        self.issue(&[name], ExtendedKeyUsagePurpose::ClientAuth, |_| {})
    }

    /// A client certificate with these host names and these URIs.
    pub fn client_named(&self, names: &[&str], uris: &[&str]) -> Issued {
        self.issue(names, ExtendedKeyUsagePurpose::ClientAuth, |params| {
            for uri in uris {
                params.subject_alt_names.push(SanType::URI((*uri).try_into().expect("it is ASCII")));
            }
        })
    }

    fn issue(
        &self,
        names: &[&str],
        usage: ExtendedKeyUsagePurpose,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("the names are names");
        params.extended_key_usages = vec![usage];
        change(&mut params);
        let key = KeyPair::generate().expect("a key can be made");
        let cert = params.signed_by(&key, &self.0).expect("the CA signs");
        Issued { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// The client side of TLS that trusts this CA and offers `alpn`. Each connection does its own handshake, as those
    /// of different agents do.
    pub fn connector(&self, alpn: &[&str]) -> TlsConnector {
        self.connector_for(alpn, rustls::ALL_VERSIONS)
    }

    /// As [`Authority::connector`], with these versions of TLS only.
    pub fn connector_for(
        &self,
        alpn: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("the CA is a root");
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("the provider has the versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.resumption = Resumption::disabled();
        TlsConnector::from(Arc::new(config))
    }
}

impl Authority {
    /// The client side of TLS that trusts this CA and shows a certificate.
    pub fn connector_showing(&self, shown: &Issued) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("the CA is a root");
        let chain =
            CertificateDer::pem_slice_iter(shown.cert.as_bytes()).map(|cert| cert.expect("our own PEM"));
        let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).expect("our own PEM");
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has the versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.collect(), key);
        TlsConnector::from(Arc::new(config.expect("the key fits the certificate")))
    }
}

impl Issued {
    /// The server side of TLS with this certificate; asks for a client certificate of `client_ca` if given.
    pub fn acceptor(&self, client_ca: Option<&Authority>) -> TlsAcceptor {
        let chain = CertificateDer::pem_slice_iter(self.cert.as_bytes())
            .map(|cert| cert.expect("our own PEM"))
            .collect();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("our own PEM");
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has the versions");
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                roots.add(ca.0.der().clone()).expect("the CA is a root");
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
                builder.with_client_cert_verifier(verifier.expect("there is a root"))
            }
        };
        let config = builder.with_single_cert(chain, key).expect("the key fits the certificate");
        TlsAcceptor::from(Arc::new(config))
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
