//! Connections that leave HTTP, and clients that show a certificate.

use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::harness::*;
use crate::server::{Phase, Tls};
use crate::testkit::pki::Authority;

const ASK: &[u8] =
    b"GET /upgrade HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";

async fn exactly(stream: &mut (impl tokio::io::AsyncRead + Unpin), wanted: &str) {
    let mut read = vec![0; wanted.len()];
    timeout(LONG, stream.read_exact(&mut read)).await.unwrap().unwrap();
    assert_eq!(String::from_utf8(read).unwrap(), wanted);
}

#[tokio::test]
async fn what_is_answered_with_101_becomes_a_stream_with_what_was_sent_behind_the_request() {
    let site = Site::open(patient());
    let mut plain = site.dial().await;
    send(&mut plain, &[ASK, b"early"].concat()).await;
    let (head, _) = read_answer(&mut plain).await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    exactly(&mut plain, "EARLY").await;
    send(&mut plain, b"later").await;
    exactly(&mut plain, "LATER").await;
    let mut secure = site.dial_secure(b"http/1.1").await;
    send(&mut secure, ASK).await;
    read_answer(&mut secure).await;
    send(&mut secure, b"under tls").await;
    exactly(&mut secure, "UNDER TLS").await;
    assert_eq!(site.totals.open(), 2);
}

#[tokio::test]
async fn an_upgraded_connection_may_say_goodbye_when_the_server_drains() {
    let site = Site::open(patient());
    let mut stream = site.dial().await;
    send(&mut stream, ASK).await;
    read_answer(&mut stream).await;
    site.phase.send(Phase::Drain).unwrap();
    let (said, end) = read_all(&mut stream).await;
    assert_eq!((said, end.is_ok()), (b"bye".to_vec(), true));
    let summary = timeout(LONG, site.run).await.unwrap().unwrap().unwrap();
    assert_eq!((summary.drained, summary.cut), (1, 0));
}

#[tokio::test]
async fn a_request_that_offers_an_upgrade_and_gets_none_is_an_ordinary_one() {
    let site = Site::open(patient());
    let mut stream = site.dial().await;
    let ask = String::from_utf8(ASK.to_vec()).unwrap().replace("/upgrade", "/bytes/3");
    for _ in 0..2 {
        send(&mut stream, ask.as_bytes()).await;
        let (head, body) = read_answer(&mut stream).await;
        assert!(head.starts_with("http/1.1 200 ") && body.len() == 3, "{head}");
    }
}

#[tokio::test]
async fn a_certificate_by_the_right_authority_is_known_and_none_is_none() {
    let site = Site::open(patient());
    let (ours, other) = (Authority::new("agents"), Authority::new("others"));
    let issued = ours.server(&["localhost"]);
    let clients = ours.pem();
    let (cert, key) = (issued.cert.as_bytes(), issued.key.as_bytes());
    site.tls.replace(cert, key, Some(clients.as_bytes())).unwrap();
    assert!(Tls::asking(cert, key, Some(b"none")).is_err());
    let ask = async |connector: tokio_rustls::TlsConnector| {
        let tcp = TcpStream::connect(site.secure).await.unwrap();
        let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await.ok()?;
        // In TLS 1.3 a client hears only now that its certificate was not liked, and may not get its words out.
        tokio::io::AsyncWriteExt::write_all(&mut stream, &get("/names")).await.ok()?;
        let mut first = [0; 1];
        timeout(LONG, stream.read_exact(&mut first)).await.unwrap().ok()?;
        let (_, body) = read_answer(&mut stream).await;
        Some(String::from_utf8(body).unwrap())
    };
    let known = ours.client_named(&["pc.example"], &["waypost:agent:pc-7"]);
    assert_eq!(
        ask(ours.connector_showing(&known)).await.as_deref(),
        Some("[Dns(\"pc.example\"), Uri(\"waypost:agent:pc-7\")]")
    );
    assert_eq!(ask(ours.connector(&["http/1.1"])).await.as_deref(), Some("[]"));
    let stranger = other.client_named(&[], &["waypost:agent:pc-7"]);
    assert_eq!(ask(ours.connector_showing(&stranger)).await, None);
}
