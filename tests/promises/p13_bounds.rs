//! Memory under mixed load stays below what the README says, and heads below their limit. That slow heads and stalled
//! readers are cut is in `tests/front_door.rs`.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use waypost::testkit::client::Client;
use waypost::testkit::content;
use waypost::testkit::http2::Http2;
use waypost::testkit::node::NAME;
use waypost::testkit::process::eventually;

use super::crowd::{KIB, MIB, all, fetch, narrow, raise_open_files, readers, stage, turn};

/// `[cache] memory` of the stage.
const MEMORY: u64 = 8 * MIB;

/// What may be resident.
const fn bound(idle: u64, active: u64) -> u64 {
    MEMORY + 64 * MIB + 64 * KIB * idle + 350 * KIB * active
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_resident_under_mixed_load_stays_below_the_sum_of_its_parts() {
    const IDLE: u64 = 100;
    const STALLED: u64 = 80;
    const FOLLOWING: u64 = 60;
    const STORED: u64 = 24 * MIB;
    const COMING: u64 = 4 * MIB + 9;
    let _turn = turn().await;
    raise_open_files();
    let stage = stage("send_timeout = \"10m\"\nidle_timeout = \"10m\"").await;
    let stored = stage.file(8, STORED);
    let (coming, gate) = stage.held(9, COMING, COMING / 2);
    let small: Vec<String> = (100..140).map(|seed| stage.file(seed, 70_000)).collect();
    let node = stage.site.start().await;
    let authority = stage.home.authority();
    fetch(node.address, stored.clone(), content::whole(8, STORED as usize)).await;
    eventually("the file is stored", async || node.metric("waypost_cache_objects").await == 1.0).await;

    let mut idle = Vec::new();
    for number in 0..IDLE {
        let client = if number % 2 == 0 {
            Client::connect_tls(node.tls, NAME, authority).await
        } else {
            Client::connect(node.address).await
        };
        let mut client = client.expect("the node accepts");
        let head = client.get(&stored, &[("range", "bytes=0-99")]).await.expect("an answer");
        assert_eq!(head.status, 206);
        idle.push(client);
    }
    let mut stalled = Vec::new();
    for number in 0..STALLED {
        let mut tcp = narrow(node.address).await;
        let from = number * (STORED / STALLED);
        let request = format!("GET {stored} HTTP/1.1\r\nhost: localhost\r\nrange: bytes={from}-\r\n\r\n");
        tcp.write_all(request.as_bytes()).await.expect("it is sent");
        tcp.read_exact(&mut [0; 64]).await.expect("an answer begins");
        stalled.push(tcp);
    }
    let mut following = JoinSet::new();
    let whole = content::whole(9, COMING as usize);
    for _ in 0..FOLLOWING {
        following.spawn(fetch(node.address, coming.clone(), whole.clone()));
    }
    readers(&node, FOLLOWING as f64).await;
    let mut most = node.resident();
    for (seed, path) in (100..).zip(&small) {
        fetch(node.address, path.clone(), content::whole(seed, 70_000)).await;
        assert_eq!(node.get(&format!("/o/none{seed}"), &[]).await.status, 404);
        most = most.max(node.resident());
    }
    gate.open();
    while let Some(ended) = following.join_next().await {
        ended.expect("every byte was right");
        most = most.max(node.resident());
    }
    let allowed = bound(IDLE, STALLED + FOLLOWING);
    println!("{} MiB resident at most, {} MiB allowed", most / MIB, allowed / MIB);
    assert!(most <= allowed, "{} MiB resident, {} MiB allowed", most / MIB, allowed / MIB);
    drop((idle, stalled));
    node.stop().await;
}

#[tokio::test]
async fn heads_are_sixteen_kib_and_no_more() {
    let _turn = turn().await;
    let stage = stage("").await;
    let path = stage.file(10, 1_000);
    let node = stage.site.start().await;
    let authority = stage.home.authority();
    let field = |bytes: u64| "a".repeat(usize::try_from(bytes).expect("small"));
    let (fits, exceeds) = (field(15 * KIB), field(17 * KIB));
    for _ in 0..2 {
        let mut plain = node.connect().await;
        assert_eq!(plain.get(&path, &[("x", &fits)]).await.expect("an answer").status, 200);
        // We stop reading at some point: what then cannot be sent is no fault.
        let answer = plain.get(&path, &[("x", &exceeds)]).await;
        assert!(answer.as_ref().map_or(431, |it| it.status) == 431, "{answer:?}");
        assert!(plain.closes().await, "and the connection is over");
        let mut http2 = Http2::connect(node.tls, NAME, authority).await.expect("a connection");
        assert_eq!(http2.request("GET", &path, &[("x", &fits)]).await.expect("an answer").status, 200);
        let answer = http2.request("GET", &path, &[("x", &exceeds)]).await;
        assert!(answer.as_ref().map_or(431, |it| it.status) == 431, "{answer:?}");
    }
    assert_eq!(stage.origin.counts(&path).requests, 1);
    let mut others = JoinSet::new();
    others.spawn(fetch(node.address, path.clone(), content::whole(10, 1_000)));
    all(others).await;
    node.stop().await;
}
