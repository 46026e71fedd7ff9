//! HTTP/1.1 clients, good and bad.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;

use super::harness::{Site, get, letter, patient, read_all, read_answer, send};
use crate::server::{Cut, Options, Phase};

#[tokio::test]
async fn a_kept_connection_answers_in_order_and_the_service_knows_who_asks() {
    let site = Site::open(patient());
    let mut stream = site.dial_secure(b"http/1.1").await;
    send(&mut stream, &get("/peer")).await;
    let (head, body) = read_answer(&mut stream).await;
    assert!(head.starts_with("http/1.1 200") && head.contains("date: "), "{head}");
    assert_eq!(String::from_utf8(body).unwrap(), "127.0.0.1 true Some(\"localhost\") agents");
    send(&mut stream, &get("/bytes/3")).await;
    assert_eq!(read_answer(&mut stream).await.1, [letter(3), letter(2), letter(1)]);
    let mut plain = site.dial().await;
    send(&mut plain, &get("/peer")).await;
    assert_eq!(read_answer(&mut plain).await.1, b"127.0.0.1 false None plain");
}

#[tokio::test]
async fn a_thousand_pipelined_requests_are_answered_in_order() {
    let site = Site::open(patient());
    let mut stream = site.dial().await;
    let requests: Vec<u8> = (0..1_000).flat_map(|number| get(&format!("/bytes/{number}"))).collect();
    let (mut from, mut to) = stream.split();
    let answers = async {
        for number in 0..1_000 {
            assert_eq!(read_answer(&mut from).await.1.len(), number);
        }
    };
    tokio::join!(answers, send(&mut to, &requests));
}

#[tokio::test]
async fn five_thousand_frames_arrive_as_one_body() {
    let site = Site::open(patient());
    let mut stream = site.dial_secure(b"http/1.1").await;
    send(&mut stream, &get("/frames/500000")).await;
    let (_, body) = read_answer(&mut stream).await;
    assert!(body.iter().enumerate().all(|(at, byte)| *byte == letter(500_000 - at)));
}

#[tokio::test]
async fn a_head_that_trickles_is_cut() {
    let options = Options { head_timeout: Duration::from_millis(200), ..patient() };
    let site = Site::open(options);
    let mut stream = site.dial().await;
    send(&mut stream, &get("/bytes/1")).await;
    read_answer(&mut stream).await;
    for byte in *b"GET /bytes/1 HTTP/1.1" {
        let _ = stream.try_write(&[byte]);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    site.until(|totals| totals.cut(Cut::SlowHead) == 1 && totals.open() == 0).await;
}

#[tokio::test]
async fn a_client_that_says_nothing_after_its_handshake_is_cut() {
    let options = Options { head_timeout: Duration::from_millis(100), ..patient() };
    let site = Site::open(options);
    let _silent = site.dial_secure(b"http/1.1").await;
    let _silent_too = site.dial_secure(b"h2").await;
    site.until(|totals| totals.cut(Cut::SlowHead) == 2 && totals.open() == 0).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_cleanly() {
    let options = Options { idle_timeout: Duration::from_millis(100), ..patient() };
    let site = Site::open(options);
    let mut stream = site.dial_secure(b"http/1.1").await;
    send(&mut stream, &get("/bytes/1")).await;
    read_answer(&mut stream).await;
    let (rest, end) = read_all(&mut stream).await;
    assert!(rest.is_empty() && end.is_ok(), "a close_notify, not a cut: {end:?}");
    drop(stream);
    site.until(|totals| totals.open() == 0).await;
    assert_eq!(Cut::ALL.map(|why| site.totals.cut(why)), [0; Cut::ALL.len()]);
}

#[tokio::test]
async fn an_idle_connection_rests_and_is_as_good_as_new() {
    let site = Site::open(patient());
    let mut secure = site.dial_secure(b"http/1.1").await;
    let mut plain = site.dial().await;
    for round in 1..=2 {
        send(&mut secure, &get("/bytes/3")).await;
        let (head, body) = read_answer(&mut secure).await;
        assert!(!head.contains("connection: close") && body.len() == 3, "{head}");
        send(&mut plain, &get("/bytes/4")).await;
        let (head, body) = read_answer(&mut plain).await;
        assert!(!head.contains("connection: close") && body.len() == 4, "{head}");
        site.until(|totals| totals.rests() == 2 * round).await;
    }
    assert_eq!(site.totals.accepted(), 2);
    drop((secure, plain));
    site.until(|totals| totals.open() == 0).await;
    assert_eq!(Cut::ALL.map(|why| site.totals.cut(why)), [0; Cut::ALL.len()]);
}

#[tokio::test]
async fn the_beginning_of_a_head_survives_a_rest() {
    let site = Site::open(patient());
    let mut stream = site.dial_secure(b"http/1.1").await;
    let next = get("/bytes/7");
    send(&mut stream, &[&get("/bytes/3"), &next[..9]].concat()).await;
    assert_eq!(read_answer(&mut stream).await.1.len(), 3);
    site.until(|totals| totals.rests() == 1).await;
    send(&mut stream, &next[9..]).await;
    assert_eq!(read_answer(&mut stream).await.1.len(), 7);
}

#[tokio::test]
async fn a_resting_connection_is_closed_cleanly_when_its_time_is_over_and_when_the_server_drains() {
    for drain in [false, true] {
        let idle_timeout = if drain { Duration::from_secs(60) } else { Duration::from_secs(1) };
        let site = Site::open(Options { idle_timeout, ..patient() });
        let mut stream = site.dial_secure(b"http/1.1").await;
        send(&mut stream, &get("/bytes/1")).await;
        read_answer(&mut stream).await;
        site.until(|totals| totals.rests() == 1).await;
        if drain {
            site.phase.send(Phase::Drain).unwrap();
        }
        let (rest, end) = read_all(&mut stream).await;
        assert!(rest.is_empty() && end.is_ok(), "a close_notify, not a cut: {end:?}");
        drop(stream);
        site.until(|totals| totals.open() == 0).await;
        assert_eq!(Cut::ALL.map(|why| site.totals.cut(why)), [0; Cut::ALL.len()]);
    }
}

#[tokio::test]
async fn a_reader_that_stalls_is_cut_and_its_transfer_breaks() {
    let options = Options { send_timeout: Duration::from_millis(300), ..patient() };
    let site = Site::open(options);
    for secure in [false, true] {
        let before = site.totals.cut(Cut::StalledReader);
        let request = get("/zeros/60000000");
        let read = if secure {
            let mut stream = site.dial_secure(b"http/1.1").await;
            send(&mut stream, &request).await;
            site.until(|totals| totals.cut(Cut::StalledReader) == before + 1 && totals.open() == 0).await;
            read_all(&mut stream).await
        } else {
            let mut stream = site.dial().await;
            send(&mut stream, &request).await;
            site.until(|totals| totals.cut(Cut::StalledReader) == before + 1 && totals.open() == 0).await;
            read_all(&mut stream).await
        };
        assert!(read.0.len() < 60_000_000 && read.1.is_err(), "{:?}", read.1);
    }
}

#[tokio::test]
async fn a_client_that_waits_for_us_is_not_stalled() {
    let options = Options {
        send_timeout: Duration::from_millis(50),
        idle_timeout: Duration::from_millis(50),
        head_timeout: Duration::from_millis(50),
        ..patient()
    };
    let site = Site::open(options);
    let mut stream = site.dial().await;
    send(&mut stream, &get("/gate")).await;
    let mut first = [0; 5];
    tokio::time::sleep(Duration::from_millis(400)).await;
    site.script.gate.notify_one();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream.read_exact(&mut first).await.unwrap();
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"later");
}

#[tokio::test]
async fn a_head_that_is_too_long_gets_431_even_if_the_client_goes_on_sending() {
    let site = Site::open(patient());
    let mut stream = site.dial().await;
    let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n", "x".repeat(60_000));
    send(&mut stream, head.as_bytes()).await;
    let (answer, end) = read_all(&mut stream).await;
    assert!(answer.starts_with(b"HTTP/1.1 431 ") && end.is_ok(), "{end:?}");
}

#[tokio::test]
async fn too_many_fields_get_431_and_the_connection_closes() {
    let site = Site::open(patient());
    let mut stream = site.dial().await;
    let fields: String = (0..64).map(|number| format!("X-{number}: x\r\n")).collect();
    send(&mut stream, format!("GET / HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").as_bytes()).await;
    let (answer, _) = read_all(&mut stream).await;
    assert!(answer.starts_with(b"HTTP/1.1 431 "));
    assert_eq!(site.totals.oversized_heads(), 1);
}

#[tokio::test]
async fn the_last_request_of_a_connection_says_so() {
    let site = Site::open(Options { requests_per_connection: 2, ..patient() });
    let mut stream = site.dial().await;
    send(&mut stream, &[get("/bytes/1"), get("/bytes/1"), get("/bytes/1")].concat()).await;
    assert!(!read_answer(&mut stream).await.0.contains("connection: close"));
    assert!(read_answer(&mut stream).await.0.contains("connection: close"));
    assert!(read_all(&mut stream).await.0.is_empty());
}

#[tokio::test]
async fn a_broken_body_never_looks_complete() {
    let site = Site::open(patient());
    let mut stream = site.dial_secure(b"http/1.1").await;
    send(&mut stream, &get("/broken")).await;
    let (bytes, end) = read_all(&mut stream).await;
    assert!(bytes.ends_with(b"first") && end.is_err(), "no close_notify: {end:?}");
    let mut stream = site.dial().await;
    send(&mut stream, &get("/broken-open")).await;
    let (bytes, _) = read_all(&mut stream).await;
    assert!(!bytes.ends_with(b"0\r\n\r\n"), "no last chunk");
    let mut stream = site.dial().await;
    send(&mut stream, b"GET /broken-open HTTP/1.0\r\nHost: localhost\r\n\r\n").await;
    let (_, end) = read_all(&mut stream).await;
    assert!(end.is_err(), "without length or chunks only a reset says that this was not all");
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request() {
    let site = Site::open(patient());
    let mut stream = site.dial().await;
    send(&mut stream, &get("/hang")).await;
    site.until(|totals| totals.open() == 1).await;
    let left = Instant::now();
    drop(stream);
    site.until(|totals| totals.open() == 0).await;
    assert!(left.elapsed() < Duration::from_secs(5));
}
