//! A slow reader costs itself, and a little memory.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use waypost::testkit::content;
use waypost::testkit::process::{Process, eventually};

use super::crowd::{KIB, MIB, fetch, narrow, readers, stage, turn};

/// Asks for a range of `path` and takes the beginning of the answer.
async fn begin(node: &Process, path: &str, from: u64) -> TcpStream {
    let mut tcp = narrow(node.address).await;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nrange: bytes={from}-\r\nconnection: close\r\n\r\n"
    );
    tcp.write_all(request.as_bytes()).await.expect("it is sent");
    let mut some = [0; 64];
    tcp.read_exact(&mut some).await.expect("an answer begins");
    assert!(some.starts_with(b"HTTP/1.1 206"), "{}", String::from_utf8_lossy(&some));
    tcp
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_finish_while_one_takes_a_kilobyte_at_a_time() {
    const LENGTH: u64 = 4 * MIB + 5;
    let _turn = turn().await;
    let stage = stage("send_timeout = \"10m\"").await;
    let (path, gate) = stage.held(6, LENGTH, LENGTH / 3);
    let node = stage.site.start().await;
    // It is the first: the fill is its own request's.
    let mut slow = narrow(node.address).await;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    slow.write_all(request.as_bytes()).await.expect("it is sent");
    readers(&node, 1.0).await;
    let whole = content::whole(6, usize::try_from(LENGTH).expect("small"));
    let mut others = JoinSet::new();
    for _ in 0..50 {
        others.spawn(fetch(node.address, path.clone(), whole.clone()));
    }
    readers(&node, 51.0).await;
    gate.open();
    // While all of them take everything it takes a kilobyte each time one of them is done.
    let (mut got, mut drop) = (Vec::new(), [0; KIB as usize]);
    while let Some(ended) = others.join_next().await {
        ended.expect("an agent found nothing wrong");
        let bytes = slow.read(&mut drop).await.expect("it goes on");
        got.extend_from_slice(&drop[..bytes]);
    }
    eventually("the file is stored", async || node.metric("waypost_cache_objects").await == 1.0).await;
    assert!(got.len() as u64 <= 50 * KIB, "{}", got.len());
    // What it has not taken is still there for it.
    slow.read_to_end(&mut got).await.expect("all of it");
    let head = got.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
    assert!(got[head..] == whole[..], "{} bytes of {LENGTH}", got.len() - head);
    let counts = stage.origin.counts(&path);
    assert_eq!((counts.requests, counts.body_bytes), (1, LENGTH));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_takes_nothing_holds_at_most_256_kib() {
    const LENGTH: u64 = 40 * MIB;
    const READERS: u64 = 200;
    let _turn = turn().await;
    let stage = stage("send_timeout = \"10m\"").await;
    let path = stage.file(7, LENGTH);
    let node = stage.site.start().await;
    let whole = content::whole(7, usize::try_from(LENGTH).expect("small"));
    fetch(node.address, path.clone(), whole).await;
    eventually("the file is stored", async || node.metric("waypost_cache_objects").await == 1.0).await;
    // Once, so that what a reader makes the node set up for all is there.
    drop(begin(&node, &path, 0).await);
    let before = node.resident();
    let mut crowd = Vec::new();
    for number in 0..READERS {
        // Each at a place of its own: nobody shares a piece with a neighbour.
        crowd.push(begin(&node, &path, number * (LENGTH / READERS)).await);
    }
    // Longer than a block is read ahead, if anything were.
    let mut most = node.resident();
    for _ in 0..20 {
        node.status().await;
        most = most.max(node.resident());
    }
    let each = most.saturating_sub(before) / READERS;
    println!("{} KiB a reader, {} MiB resident", each / KIB, most / MIB);
    assert!(each <= 256 * KIB, "{} KiB a reader", each / KIB);
    drop(crowd);
    node.stop().await;
}
