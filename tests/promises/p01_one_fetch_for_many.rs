//! A thousand agents on a cold file are one GET, and the file crosses the WAN once.

use tokio::task::JoinSet;
use waypost::testkit::content;
use waypost::testkit::process::eventually;

use super::crowd::{KIB, MIB, all, fetch, raise_open_files, readers, stage, turn};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_agents_on_a_cold_file_are_one_get_and_one_copy_of_its_bytes() {
    const LENGTH: u64 = 96 * KIB + 3;
    let _turn = turn().await;
    raise_open_files();
    let stage = stage("").await;
    // The head waits until all of them are there, whenever that is.
    let (path, gate) = stage.held(1, LENGTH, 0);
    let node = stage.site.start().await;
    let whole = content::whole(1, LENGTH as usize);
    let mut herd = JoinSet::new();
    for _ in 0..1_000 {
        herd.spawn(fetch(node.address, path.clone(), whole.clone()));
    }
    readers(&node, 1_000.0).await;
    gate.open();
    all(herd).await;
    let counts = stage.origin.counts(&path);
    assert_eq!((counts.requests, counts.body_bytes), (1, LENGTH), "× 1.00");
    assert_eq!(stage.origin.heads().len(), 1, "and nothing else was asked");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_joiners_have_what_is_there_before_another_byte_comes() {
    const LENGTH: u64 = 2 * MIB + 77;
    let _turn = turn().await;
    let stage = stage("").await;
    for (seed, percent) in [(2, 10), (3, 50), (4, 90)] {
        let at = LENGTH * percent / 100;
        let (path, gate) = stage.held(seed, LENGTH, at);
        let node = stage.site.start().await;
        let mut first = node.connect().await;
        assert_eq!(first.begin(&path, &[]).await.expect("a head").status, 200);
        first.check(seed, 0, at).await.expect("what came");
        // Nothing more comes: what the late ones get now was here before them.
        let mut late = Vec::new();
        for _ in 0..10 {
            let mut client = node.connect().await;
            let head = client.begin(&path, &[]).await.expect("a head");
            let status = head.header("cache-status").unwrap_or_default();
            assert!(head.status == 200 && status.contains("; collapsed"), "{head:?}");
            client.check(seed, 0, at).await.expect("what was here");
            late.push(client);
        }
        gate.open();
        for mut client in late.into_iter().chain([first]) {
            client.check(seed, at, LENGTH - at).await.expect("the rest");
        }
        let counts = stage.origin.counts(&path);
        assert_eq!((counts.requests, counts.body_bytes), (1, LENGTH), "at {percent} %");
        let none = |status: serde_json::Value| status["fills"].as_array().is_some_and(Vec::is_empty);
        eventually("it is stored", async || none(node.status().await)).await;
        node.stop().await;
    }
}
