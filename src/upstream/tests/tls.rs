//! Whom to trust, and who we are.

use super::*;

#[tokio::test]
async fn a_private_ca_is_believed_and_every_other_certificate_refused_by_name() {
    let (ca, foreign) = (Authority::new("ca"), Authority::new("foreign"));
    for (certificate, expected) in [
        (ca.server(&["127.0.0.1", "localhost"]), Ok(1_000)),
        (foreign.server(&["127.0.0.1"]), Err("tls-unknown-issuer")),
        (ca.expired(&["127.0.0.1"]), Err("tls-expired")),
        (ca.server(&["other.example"]), Err("tls-wrong-name")),
    ] {
        let origin = Origin::start_tls(&certificate, None).await;
        origin.set("/f", Script::default());
        let trust = Trust::Exactly(ca.pem().into_bytes());
        let upstream = Upstream::new(Options { trust, ..options(&origin) }, Clock::system()).unwrap();
        for _ in 0..2 {
            let got = fetch(&upstream, &ask("f")).await.map(|body| body.len());
            assert_eq!(got, expected.map_err(str::to_owned));
        }
        // TLS connections are kept as well.
        assert_eq!(origin.connections(), if expected.is_ok() { 1 } else { 2 });
        assert_eq!(origin.heads().len(), if expected.is_ok() { 2 } else { 0 });
    }
}

#[tokio::test]
async fn plaintext_where_tls_is_expected_is_refused_without_falling_back() {
    let (ca, origin) = (Authority::new("ca"), Origin::start().await);
    let url = origin.url().replace("http:", "https:");
    let trust = Trust::Exactly(ca.pem().into_bytes());
    let options = Options { trust, connect_timeout: SHORT, ..Options::new(url) };
    let upstream = Upstream::new(options, Clock::system()).unwrap();
    let error = upstream.fetch(&ask("f")).await.unwrap_err();
    assert!(matches!(error, FetchError::Tls { .. }), "{error}");
    assert!(origin.heads().is_empty());
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_it_is_asked_for() {
    let ca = Authority::new("ca");
    let origin = Origin::start_tls(&ca.server(&["127.0.0.1"]), Some(&ca)).await;
    origin.set("/f", Script::default());
    let trust = Trust::Exactly(ca.pem().into_bytes());
    let without = Options { trust, ..options(&origin) };
    let client = ca.client("branch-7");
    let with =
        Options { identity: Some((client.cert.into_bytes(), client.key.into_bytes())), ..without.clone() };
    let upstream = Upstream::new(with, Clock::system()).unwrap();
    assert_eq!(fetch(&upstream, &ask("f")).await.unwrap().len(), 1_000);
    let upstream = Upstream::new(without, Clock::system()).unwrap();
    let error = upstream.fetch(&ask("f")).await.unwrap_err();
    assert_eq!(error.blame(), "tls-refused", "{error}");
}

#[tokio::test]
async fn an_authority_that_serves_with_its_own_certificate_is_told_in_words() {
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let itself = Issued { cert: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() };
    let origin = Origin::start_tls(&itself, None).await;
    let trust = Trust::Exactly(itself.cert.into_bytes());
    let upstream = Upstream::new(Options { trust, ..options(&origin) }, Clock::system()).unwrap();
    let error = upstream.fetch(&ask("f")).await.unwrap_err();
    assert!(error.to_string().contains("one of an authority (CA:TRUE)"), "{error}");
}
