//! Purges: true at once, swept behind, and not forgotten in a crash.

use super::*;
use crate::cache::purge::{Patterns, Purge};

fn at(time: u64) -> Head {
    Head { status: 200, requested_at: Timestamp(time), received_at: Timestamp(time), ..Head::default() }
}

fn small(path: &str, asked: u64) -> Entry {
    let body = EntryBody::Inline(bytes::Bytes::from_static(b"abc"));
    Entry::new(key(path), at(asked), 3, Digest::of(b"abc"), body)
}

fn of(pattern: &str, soft: bool, before: u64) -> Purge {
    Purge::new(Some(Patterns::parse(&[pattern]).unwrap()), soft, Timestamp(before))
}

async fn keys(store: &Store) -> Vec<String> {
    let listed = store.list(None, None, usize::MAX).await;
    listed.records.iter().map(|(key, _)| Key::path_in(key.as_str()).to_owned()).collect()
}

#[tokio::test]
async fn a_purge_is_true_for_the_next_look_up_whatever_is_committed() {
    let bench = Bench::new(64 * MIB);
    let now = START.0;
    bench.store.put(small("/a/1", now - 10));
    bench.store.put(small("/b/1", now - 10));
    assert_eq!(bench.store.count(of("/a/**", false, now)).await.entries, 1);
    let counted = bench.store.purge(of("/a/**", false, now)).await.unwrap();
    assert_eq!((counted.entries, counted.first.len()), (1, 1));
    assert!(bench.store.hot(key("/a/1").as_str()).is_none());
    assert!(bench.store.find(key("/a/1").as_str()).await.is_none());
    assert!(bench.store.find(key("/b/1").as_str()).await.is_some());
    assert_eq!(keys(&bench.store).await, ["/b/1"]);
    // Asked for before the purge, here only after it: not kept. Asked for after it: kept.
    bench.store.put(small("/a/2", now));
    assert!(bench.store.find(key("/a/2").as_str()).await.is_none());
    bench.store.put(small("/a/2", now + 1));
    assert!(bench.store.find(key("/a/2").as_str()).await.is_some());
    assert_eq!(bench.store.purge(of("/a/1", false, now)).await.unwrap().entries, 0, "it is gone already");
}

#[tokio::test]
async fn a_soft_purge_marks_and_keeps() {
    let bench = Bench::new(64 * MIB);
    let now = START.0;
    let entry = bench.store.put(small("/a", now - 10));
    assert!(bench.store.pin(&entry.key, true).await && !bench.store.pin(&entry.key, true).await);
    bench.store.purge(of("/a", true, now)).await.unwrap();
    let marked = bench.store.find(key("/a").as_str()).await.unwrap();
    assert!(marked.stale && marked.pinned);
    bench.store.put(small("/a", now - 5));
    assert!(bench.store.find(key("/a").as_str()).await.unwrap().stale, "an old fetch brings nothing fresh");
}

#[tokio::test]
async fn an_unfinished_body_that_was_purged_is_not_gone_on_with() {
    let bench = Bench::new(64 * MIB);
    let now = START.0;
    let block = bench.store.write_block(body(1, 0)).await.unwrap();
    let body = BodyMap::Blocks(vec![Some(block.digest), None]);
    let record =
        Record { head: at(now - 10), length: Some(2 * MIB), digest: None, body, stale: false, pinned: false };
    bench.store.put_partial(&key("/a"), record.clone());
    bench.store.purge(of("/a", false, now)).await.unwrap();
    assert!(bench.store.find_partial(key("/a").as_str()).await.is_none());
    bench.store.put_partial(&key("/a"), Record { head: at(now + 1), ..record });
    assert!(bench.store.find_partial(key("/a").as_str()).await.is_some(), "what began later is");
}

#[tokio::test]
async fn a_purge_is_on_disk_before_it_is_said_to_be_done() {
    let bench = Bench::new(64 * MIB);
    let now = START.0;
    for n in 0..50 {
        bench.store.put(small(&format!("/a/{n}"), now - 10));
    }
    assert_eq!(keys(&bench.store).await.len(), 50);
    bench.store.purge(of("/a/**", false, now)).await.unwrap();
    let bench = bench.again(64 * MIB);
    for n in 0..50 {
        assert!(bench.store.find(key(&format!("/a/{n}")).as_str()).await.is_none(), "{n}");
    }
    assert_eq!(keys(&bench.store).await, [""; 0]);
}

/// With `WAYPOST_ENTRIES` it says how long a purge of so many takes to be true.
#[tokio::test]
async fn a_purge_of_many_is_swept_from_the_index() {
    let many: usize = std::env::var("WAYPOST_ENTRIES").ok().and_then(|it| it.parse().ok()).unwrap_or(3_000);
    let bench = Bench::new(1 << 30);
    let now = START.0;
    for n in 0..many {
        bench.store.put(small(&format!("/a/{}/{n}.zip", n % 100), now - 10));
        if n % 8_000 == 7_999 {
            bench.store.count(of("/none", false, now)).await;
        }
    }
    bench.store.put(small("/b", now - 10));
    // A count waits for the disk, but not for ever.
    let all = of("/a/**/*.zip", false, now);
    let counted = tokio::time::timeout(Duration::from_secs(120), async {
        loop {
            let began = std::time::Instant::now();
            if bench.store.count(all.clone()).await.entries == many as u64 {
                break began.elapsed();
            }
        }
    });
    let counted = counted.await.expect("all are counted");
    let store = bench.store.clone();
    let began = std::time::Instant::now();
    let purge = tokio::spawn(async move { store.purge(of("/a/**/*.zip", false, now)).await });
    while bench.store.find(key("/a/7/7.zip").as_str()).await.is_some() {
        tokio::task::yield_now().await;
    }
    let seen = began.elapsed();
    assert_eq!(purge.await.unwrap().unwrap().entries, many as u64);
    println!(
        "{many} entries: counted in {counted:?}, purge seen after {seen:?}, said after {:?}",
        began.elapsed()
    );
    while bench.store.totals().entries > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("swept after {:?}", began.elapsed());
    assert_eq!(keys(&bench.store).await, ["/b"]);
}
