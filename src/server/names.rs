//! The names in a client's certificate, which the TLS library has proven and does not tell.

use crate::base::der::{alternative_names, next};

/// The kinds of name that are taken (RFC 5280 §4.2.1.6).
const DNS: u8 = 0x82;
const URI: u8 = 0x86;

/// Names that are taken of one certificate: more are no identity, and each is compared at every request.
const NAMES: usize = 16;

/// A name of the certificate that a client has shown and proven to own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerName {
    /// A URI, as it stands there.
    Uri(String),
    /// A host name, lower case.
    Dns(String),
}

/// The URIs and host names of a certificate, in its order; none where it has none or cannot be read.
pub(super) fn names_of(certificate: &[u8]) -> Vec<PeerName> {
    alternative_names(certificate).map(list).unwrap_or_default()
}

fn list(mut names: &[u8]) -> Vec<PeerName> {
    let mut found = Vec::new();
    while found.len() < NAMES
        && let Some((tag, value)) = next(&mut names)
    {
        let text = || std::str::from_utf8(value).ok().filter(|text| text.is_ascii());
        match tag {
            URI => found.extend(text().map(|text| PeerName::Uri(text.to_owned()))),
            DNS => found.extend(text().map(|text| PeerName::Dns(text.to_ascii_lowercase()))),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    use super::*;
    use crate::testkit::pki::Authority;

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    #[test]
    fn uris_and_host_names_are_found_and_addresses_are_not_taken_for_names() {
        let issued =
            Authority::new("ca").client_named(&["Branch-7.example", "127.0.0.1"], &["waypost:agent:pc-7"]);
        assert_eq!(
            names_of(&der(&issued.cert)),
            [PeerName::Dns("branch-7.example".to_owned()), PeerName::Uri("waypost:agent:pc-7".to_owned())]
        );
    }

    #[test]
    fn a_certificate_that_is_cut_anywhere_has_no_names_and_makes_no_trouble() {
        let issued = Authority::new("ca").client_named(&["a.example"], &["waypost:agent:a"]);
        let whole = der(&issued.cert);
        for len in 0..whole.len() {
            let _ = names_of(&whole[..len]);
        }
        assert_eq!(names_of(&[0x30, 0x80]), []);
        assert_eq!(names_of(&[]), []);
    }
}
