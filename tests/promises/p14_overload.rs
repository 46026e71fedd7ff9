//! Past the bound of fills: hits as ever, misses wait their turn, then 503 with a `Retry-After` that spreads them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::task::JoinSet;
use waypost::testkit::client::{Client, End};
use waypost::testkit::content;
use waypost::testkit::process::eventually;

use super::crowd::{KIB, stage, turn};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hits_go_on_while_misses_past_the_bound_get_503_at_different_times_and_never_429() {
    const FILLS: u64 = 4;
    const LENGTH: u64 = 300 * KIB;
    let _turn = turn().await;
    let stage = stage(&format!("fills = {FILLS}\nqueue_wait = \"500ms\"")).await;
    let hit = stage.file(1, LENGTH);
    // All fills there may be are there and stand still: whoever else misses, waits.
    let running: Vec<_> = (10..10 + FILLS).map(|seed| stage.held(seed, LENGTH, LENGTH / 2)).collect();
    // Three times as many as there is room for, over and over.
    let crowd: Vec<String> = (100..100 + 3 * FILLS).map(|seed| stage.file(seed, LENGTH)).collect();
    let node = Arc::new(stage.site.start().await);
    assert_eq!(node.get(&hit, &[]).await.end, End::Complete);
    eventually("it is stored", async || node.metric("waypost_cache_objects").await == 1.0).await;
    let mut held = Vec::new();
    for (path, _) in &running {
        let mut client = node.connect().await;
        assert_eq!(client.begin(path, &[]).await.expect("a head").status, 200);
        held.push(client);
    }

    let (over, hits) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let mut hitting = JoinSet::new();
    let whole = content::whole(1, LENGTH as usize);
    for _ in 0..4 {
        let (address, over, hits) = (node.address, Arc::clone(&over), Arc::clone(&hits));
        let (hit, whole) = (hit.clone(), whole.clone());
        hitting.spawn(async move {
            let mut client = Client::connect(address).await.expect("the node accepts");
            while !over.load(Ordering::Relaxed) {
                let answer = client.get(&hit, &[]).await.expect("an answer");
                assert!(answer.status == 200 && answer.body == whole, "{answer:?}");
                let status = answer.header("cache-status").unwrap_or_default();
                assert!(status.contains("; hit"), "{status}");
                hits.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let mut missing = JoinSet::new();
    for number in 0..3 * crowd.len() {
        let (address, path) = (node.address, crowd[number % crowd.len()].clone());
        missing.spawn(async move {
            let mut client = Client::connect(address).await.expect("the node accepts");
            client.get(&path, &[]).await.expect("an answer")
        });
    }
    let mut waits = BTreeSet::new();
    while let Some(answer) = missing.join_next().await {
        let answer = answer.expect("it ran");
        assert_eq!((answer.status, answer.end), (503, End::Complete), "{answer:?}");
        let wait: u64 = answer.header("retry-after").expect("when to come again").parse().expect("seconds");
        assert!((1..=60).contains(&wait), "{wait}");
        waits.insert(wait);
    }
    assert!(waits.len() > 1, "they all come back in the same second: {waits:?}");
    let before = hits.load(Ordering::Relaxed);
    eventually("hits go on", async || hits.load(Ordering::Relaxed) > before || hitting.is_empty()).await;
    over.store(true, Ordering::Relaxed);
    while let Some(ended) = hitting.join_next().await {
        ended.expect("every hit was one");
    }
    for path in &crowd {
        assert_eq!(stage.origin.counts(path).requests, 0, "nothing went upstream past the bound");
    }

    // Then there is room again, for those who come again.
    for ((_, gate), (mut client, seed)) in running.iter().zip(held.into_iter().zip(10..)) {
        gate.open();
        client.check(seed, 0, LENGTH).await.expect("it was worth waiting for");
    }
    for (path, seed) in crowd.iter().zip(100..) {
        let answer = node.get(path, &[]).await;
        assert!(answer.status == 200 && answer.body == content::whole(seed, LENGTH as usize), "{answer:?}");
    }
    Arc::into_inner(node).expect("nobody else has it").stop().await;
}
