//! What a client certificate calls its holder. Its signature was checked by then; here it is only read.

use crate::base::der::{OBJECT_IDENTIFIER, SEQUENCE, SET, alternative_names, expect, from_validity, next};

/// `id-at-commonName`, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// The kinds of text in which a name may be written: UTF-8, printable, IA5.
const TEXTS: [u8; 3] = [0x0c, 0x13, 0x16];
/// The alternative names that say who it is: of a mailbox, of a host, a URI (RFC 5280 §4.2.1.6).
const ALTERNATIVES: [u8; 3] = [0x81, 0x82, 0x86];

/// The common name first, then mailboxes, hosts and URIs. Nothing where the certificate says nothing of the kind.
pub(super) fn names(der: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    // What cannot be read names nobody.
    let _ = collect(der, &mut names);
    names
}

fn collect(der: &[u8], names: &mut Vec<String>) -> Option<()> {
    let mut body = from_validity(der)?;
    expect(&mut body, SEQUENCE)?;
    let mut subject = expect(&mut body, SEQUENCE)?;
    while let Some((SET, mut attributes)) = next(&mut subject) {
        while let Some(mut attribute) = expect(&mut attributes, SEQUENCE) {
            let kind = expect(&mut attribute, OBJECT_IDENTIFIER)?;
            let (tag, value) = next(&mut attribute)?;
            if kind == COMMON_NAME && TEXTS.contains(&tag) {
                add(names, value);
            }
        }
    }
    let mut alternatives = alternative_names(der)?;
    while let Some((kind, name)) = next(&mut alternatives) {
        if ALTERNATIVES.contains(&kind) {
            add(names, name);
        }
    }
    Some(())
}

fn add(names: &mut Vec<String>, name: &[u8]) {
    // A name with control characters would forge lines of logs.
    if let Ok(name) = std::str::from_utf8(name)
        && !name.is_empty()
        && !name.chars().any(char::is_control)
    {
        names.push(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    use super::*;
    use crate::testkit::pki::Authority;

    fn der_of(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    #[test]
    fn a_certificate_names_its_holder_in_several_ways() {
        let staff = Authority::new("staff");
        let named = staff.person("Ann Example", &["ann.example"]);
        assert_eq!(names(&der_of(&named.cert)), ["Ann Example", "ann.example"]);
        assert_eq!(names(&der_of(&staff.pem())), ["staff"], "without alternative names");
    }

    #[test]
    fn a_certificate_that_is_cut_anywhere_makes_no_trouble() {
        let der = der_of(&Authority::new("staff").person("Ann", &["ann.example"]).cert);
        for len in 0..der.len() {
            assert!(names(&der[..len]).len() <= 2);
        }
    }
}
