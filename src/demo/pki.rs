//! The demo's own certificate authority, for a few hours of one process.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// A certificate and its key, in PEM.
pub(super) struct Identity {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// A certificate authority whose key never leaves the process.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "waypost demo authority");
        CertifiedIssuer::self_signed(params, KeyPair::generate()?).map(Self)
    }

    /// The certificate to trust, in PEM.
    pub(super) fn certificate(&self) -> String {
        self.0.pem()
    }

    /// A server certificate for `localhost` and 127.0.0.1.
    pub(super) fn server(&self, name: &str) -> Result<Identity, rcgen::Error> {
        self.server_at(name, &["localhost", "127.0.0.1"])
    }

    /// A server certificate for these hosts.
    pub(super) fn server_at(&self, name: &str, hosts: &[&str]) -> Result<Identity, rcgen::Error> {
        let mut params =
            CertificateParams::new(hosts.iter().map(|&host| host.to_owned()).collect::<Vec<_>>())?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?.pem();
        Ok(Identity { certificate, key: key.serialize_pem() })
    }
}
