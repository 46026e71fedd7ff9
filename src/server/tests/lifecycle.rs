//! Coming, being too many, and going.

use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::harness::{LONG, Site, certificate, get, patient, read_all, read_answer, send, trusting};
use crate::server::{Cut, Listener, Options, Phase, Rejected, Tls, TlsError, bind};

#[tokio::test]
async fn a_handshake_that_does_not_come_is_cut() {
    let options = Options { handshake_timeout: Duration::from_millis(100), handshakes: 1, ..patient() };
    let site = Site::open(options);
    let _silent = TcpStream::connect(site.secure).await.unwrap();
    let mut begun = TcpStream::connect(site.secure).await.unwrap();
    send(&mut begun, &[22, 3, 1, 2, 0, 1]).await;
    site.until(|totals| totals.cut(Cut::SlowHandshake) == 2 && totals.open() == 0).await;
}

#[tokio::test]
async fn silent_clients_do_not_hold_the_places_of_those_who_speak() {
    let site = Site::open(Options { handshakes: 1, ..patient() });
    let _silent =
        [TcpStream::connect(site.secure).await.unwrap(), TcpStream::connect(site.secure).await.unwrap()];
    site.until(|totals| totals.open() == 2).await;
    timeout(LONG, site.dial_secure(b"http/1.1")).await.unwrap();
}

#[tokio::test]
async fn what_is_not_tls_is_counted_and_closed() {
    let site = Site::open(patient());
    let mut stream = TcpStream::connect(site.secure).await.unwrap();
    send(&mut stream, &get("/bytes/1")).await;
    read_all(&mut stream).await.1.ok();
    site.until(|totals| totals.handshake_failures() == 1 && totals.open() == 0).await;
}

#[tokio::test]
async fn one_address_gets_only_its_share() {
    let site = Site::open(Options { connections_per_address: 2, ..patient() });
    let (mut first, _second) = (site.dial().await, site.dial().await);
    site.until(|totals| totals.open() == 2).await;
    let mut third = site.dial().await;
    assert!(read_all(&mut third).await.0.is_empty());
    assert_eq!(site.totals.rejected(Rejected::Address), 1);
    send(&mut first, &get("/bytes/1")).await;
    read_answer(&mut first).await;
}

#[tokio::test]
async fn a_drain_finishes_what_runs_and_lets_nobody_in() {
    let site = Site::open(patient());
    let mut idle = site.dial_secure(b"http/1.1").await;
    let mut running = site.dial().await;
    send(&mut running, &get("/gate")).await;
    // The head is out, so the request runs.
    tokio::io::AsyncReadExt::read_u8(&mut running).await.unwrap();
    site.phase.send(Phase::Drain).unwrap();
    let (rest, end) = read_all(&mut idle).await;
    assert!(rest.is_empty() && end.is_ok(), "{end:?}");
    drop(idle);
    site.until(|totals| totals.open() == 1).await;
    assert!(TcpStream::connect(site.plain).await.is_err());
    site.script.gate.notify_one();
    let (answer, end) = read_all(&mut running).await;
    assert!(answer.ends_with(b"firstlater") && end.is_ok());
    drop(running);
    let summary = timeout(LONG, site.run).await.unwrap().unwrap().unwrap();
    assert_eq!((summary.drained, summary.cut), (2, 0));
}

#[tokio::test]
async fn a_drain_has_an_end() {
    let site = Site::open(Options { drain: Duration::from_millis(100), ..patient() });
    let mut running = site.dial().await;
    send(&mut running, &get("/hang")).await;
    site.until(|totals| totals.open() == 1).await;
    site.phase.send(Phase::Drain).unwrap();
    assert!(read_all(&mut running).await.0.is_empty());
    let summary = timeout(LONG, site.run).await.unwrap().unwrap().unwrap();
    assert_eq!((summary.drained, summary.cut), (0, 1));
}

#[tokio::test]
async fn a_stop_cuts_at_once_what_a_drain_would_wait_for() {
    let site = Site::open(patient());
    let mut running = site.dial().await;
    send(&mut running, &get("/gate")).await;
    tokio::io::AsyncReadExt::read_u8(&mut running).await.unwrap();
    site.phase.send(Phase::Drain).unwrap();
    site.until(|totals| totals.open() == 1).await;
    site.phase.send(Phase::Stop).unwrap();
    let summary = timeout(LONG, site.run).await.unwrap().unwrap().unwrap();
    assert_eq!(summary.cut, 1);
    assert!(read_all(&mut running).await.1.is_err());
    assert_eq!(site.totals.cut(Cut::Stop), 1);
}

#[tokio::test]
async fn another_certificate_serves_from_the_next_handshake_on() {
    let site = Site::open(patient());
    let mut old = site.dial_secure(b"http/1.1").await;
    let (cert, key) = certificate();
    site.tls.replace(cert.pem().as_bytes(), key.serialize_pem().as_bytes(), None).unwrap();
    let tcp = TcpStream::connect(site.secure).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut new = trusting(cert.der(), &[b"http/1.1"]).connect(name, tcp).await.unwrap();
    for stream in [&mut old, &mut new] {
        send(stream, &get("/bytes/1")).await;
        read_answer(stream).await;
    }
}

#[test]
fn a_certificate_and_key_that_do_not_fit_are_told_apart_from_damaged_ones() {
    let ((cert, key), (_, other)) = (certificate(), certificate());
    let (cert, key, other) = (cert.pem(), key.serialize_pem(), other.serialize_pem());
    let made = |cert: &str, key: &str| Tls::from_pem(cert.as_bytes(), key.as_bytes()).map(drop);
    assert!(made(&cert, &key).is_ok());
    assert!(matches!(made(&cert, &other), Err(TlsError::Pair(_))));
    assert!(matches!(made("nothing", &key), Err(TlsError::Certificate(_))));
    assert!(matches!(made(&cert, "nothing"), Err(TlsError::Key(_))));
}

#[test]
fn a_taken_address_is_named() {
    let listener = |address| Listener { address, tls: None, name: "plain" };
    let first = bind(vec![listener("127.0.0.1:0".parse().unwrap())], Options::default()).unwrap();
    let address = first.addresses()[0];
    let error = bind(vec![listener(address)], Options::default()).unwrap_err();
    assert_eq!(error.address, address);
    assert!(error.to_string().contains(&address.to_string()));
}

/// Runs in a process of its own: the limit would reach every other test.
#[test]
#[ignore = "run by its parent below"]
fn out_of_descriptors_in_a_process_of_its_own() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let site = Site::open(patient());
        let mut kept = site.dial().await;
        site.until(|totals| totals.open() == 1).await;
        let maximum = getrlimit(Resource::Nofile).maximum;
        let here = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        setrlimit(Resource::Nofile, Rlimit { current: Some(here + 7), maximum }).unwrap();
        let mut crowd = Vec::new();
        while let Ok(stream) = TcpStream::connect(site.plain).await {
            crowd.push(stream);
        }
        site.until(|totals| totals.rejected(Rejected::Descriptors) >= 1).await;
        send(&mut kept, &get("/bytes/1")).await;
        read_answer(&mut kept).await;
        drop(crowd);
        site.until(|totals| totals.open() == 1).await;
        let mut later = site.dial().await;
        send(&mut later, &get("/bytes/1")).await;
        read_answer(&mut later).await;
    });
}

#[test]
fn a_process_out_of_descriptors_says_no_and_recovers() {
    let test = "server::tests::lifecycle::out_of_descriptors_in_a_process_of_its_own";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}
