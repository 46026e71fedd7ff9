//! HTTP/2 clients: a real one, and frames by hand where a real one would behave.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinSet;

use super::harness::{Site, letter, patient, read_all, send};
use crate::server::{Cut, Options, Phase};

const SETTINGS: u8 = 4;
const RST_STREAM: u8 = 3;
const HEADERS: u8 = 1;
const PING: u8 = 6;

/// A frame (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The preface with an initial window for streams.
fn preface(window: u32) -> Vec<u8> {
    let setting = [&[0, 4][..], &window.to_be_bytes()].concat();
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &setting)].concat()
}

/// A whole request, its path by literal without Huffman (RFC 7541 §6.2.2).
fn request(stream: u32, path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x87, 0x01, 9];
    block.extend_from_slice(b"localhost");
    block.extend([0x04, u8::try_from(path.len()).unwrap()]);
    block.extend_from_slice(path.as_bytes());
    frame(HEADERS, 0x05, stream, &block)
}

async fn client(site: &Site) -> http2::SendRequest<Empty<Bytes>> {
    let stream = site.dial_secure(b"h2").await;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn ask(path: &str) -> http::Request<Empty<Bytes>> {
    http::Request::get(format!("https://localhost{path}")).body(Empty::new()).unwrap()
}

#[tokio::test]
async fn many_streams_share_a_connection_and_long_frames_are_cut_to_pieces() {
    let site = Site::open(patient());
    let sender = client(&site).await;
    let mut tasks = JoinSet::new();
    for path in ["/bytes/1000000", "/frames/500000", "/bytes/0", "/bytes/131073"] {
        let mut sender = sender.clone();
        tasks.spawn(async move {
            let length: usize = path.rsplit('/').next().unwrap().parse().unwrap();
            let body = sender.send_request(ask(path)).await.unwrap().into_body();
            assert_eq!(http_body::Body::size_hint(&body).exact(), Some(length as u64));
            let body = body.collect().await.unwrap().to_bytes();
            assert_eq!(body.len(), length);
            assert!(body.iter().enumerate().all(|(at, byte)| *byte == letter(length - at)));
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_broken_body_resets_its_stream_and_spares_the_others() {
    let site = Site::open(patient());
    let mut sender = client(&site).await;
    let broken = sender.send_request(ask("/broken-open")).await.unwrap();
    assert!(broken.into_body().collect().await.is_err());
    let fine = sender.send_request(ask("/bytes/5")).await.unwrap();
    assert_eq!(fine.into_body().collect().await.unwrap().to_bytes().len(), 5);
}

#[tokio::test]
async fn a_stream_without_window_is_a_stalled_reader_even_if_its_answer_fits_one_piece() {
    // Pings keep coming: the connection lives, only the stream does not move.
    let options = Options { send_timeout: Duration::from_millis(200), ..patient() };
    let site = Site::open(options);
    for path in ["/bytes/500", "/frames/500"] {
        let before = site.totals.cut(Cut::StalledReader);
        let mut stream = site.dial_secure(b"h2").await;
        send(&mut stream, &[preface(0), request(1, path)].concat()).await;
        for _ in 0..10 {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &frame(PING, 0, 0, &[7; 8])).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        site.until(|totals| totals.cut(Cut::StalledReader) == before + 1 && totals.open() == 0).await;
    }
}

#[tokio::test]
async fn a_connection_that_reads_nothing_is_a_stalled_reader() {
    let options = Options { send_timeout: Duration::from_millis(200), ..patient() };
    let site = Site::open(options);
    let mut stream = site.dial_secure(b"h2").await;
    let open = frame(8, 0, 0, &0x7fff_0000_u32.to_be_bytes());
    send(&mut stream, &[preface(0x7fff_ffff), open, request(1, "/zeros/60000000")].concat()).await;
    site.until(|totals| totals.cut(Cut::StalledReader) == 1 && totals.open() == 0).await;
}

#[tokio::test]
async fn an_idle_connection_is_told_to_go_and_pings_do_not_keep_it() {
    let options = Options { idle_timeout: Duration::from_millis(100), ..patient() };
    let site = Site::open(options);
    let mut stream = site.dial_secure(b"h2").await;
    send(&mut stream, &[preface(65_535), request(1, "/bytes/5")].concat()).await;
    let (bytes, _) = read_all(&mut stream).await;
    let goaway = bytes.windows(2).any(|at| at == [7, 0]);
    assert!(goaway, "{bytes:?}");
}

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let site = Site::open(patient());
    let mut stream = site.dial_secure(b"h2").await;
    let mut flood = preface(65_535);
    for number in 0..2_000 {
        let id = number * 2 + 1;
        flood.extend(request(id, "/hang"));
        flood.extend(frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
    }
    let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &flood).await;
    read_all(&mut stream).await.1.ok();
    drop(stream);
    site.until(|totals| totals.open() == 0).await;
}

#[tokio::test]
async fn a_drain_lets_streams_finish_and_takes_no_new_ones() {
    let site = Site::open(patient());
    let mut sender = client(&site).await;
    let gated = sender.send_request(ask("/gate")).await.unwrap();
    site.phase.send(Phase::Drain).unwrap();
    while sender.send_request(ask("/bytes/1")).await.is_ok() {
        tokio::task::yield_now().await;
    }
    site.script.gate.notify_one();
    assert_eq!(gated.into_body().collect().await.unwrap().to_bytes(), "firstlater");
    let summary = site.run.await.unwrap().unwrap();
    assert_eq!((summary.drained, summary.cut), (1, 0));
}
