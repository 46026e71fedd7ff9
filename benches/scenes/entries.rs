//! A thousand entries against a million, and a cache that is always full.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;
use waypost::base::clock::{Clock, Timestamp};
use waypost::base::digest::Digest;
use waypost::cache::{Entry, EntryBody, Head, Key};
use waypost::store::{Options, Store};

use crate::support::agent::Agent;
use crate::support::load::{keep_asking, measure};
use crate::support::node::{Node, Setup};
use crate::support::origin::Origin;
use crate::support::server::Server;
use crate::support::table::Figure;

/// Entries of a small cache, and how many of a large one are asked for all the time.
const FEW: u64 = 1_000;

/// `E2E_ENTRIES`, or a million.
pub fn many() -> u64 {
    std::env::var("E2E_ENTRIES").ok().and_then(|it| it.parse().ok()).unwrap_or(1_000_000)
}

/// Hits among few entries and among many, and what a start with many takes.
pub async fn entries() -> anyhow::Result<Vec<Figure>> {
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut figures = Vec::new();
    let mut empty = 0;
    for entries in [FEW, many()] {
        let dir = tempfile::Builder::new().prefix("waypost-e2e").tempdir()?;
        fill(&dir.path().join("cache"), entries).await?;
        let began = Instant::now();
        let node = Node::launch(Setup { cache: Some(dir), ..Setup::new(nowhere, 64) })?;
        figures.push(Figure::new(
            format!("{entries} entries: listening after, s"),
            began.elapsed().as_secs_f64(),
            2,
        ));
        for (name, of) in [("1,000 of them", FEW), ("all of them", entries)] {
            // Once before, so that what memory holds is in memory.
            for counted in [false, true] {
                let tls = node.tls("http/1.1");
                let load = measure(&node, 8, |first, stop| {
                    let mut at = first as u64;
                    let next = move |_| {
                        at = at
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        path((at >> 24) % of)
                    };
                    keep_asking(&node, &tls, next, stop)
                })
                .await?;
                if counted {
                    let what = format!("{entries} entries, hits on {name}");
                    figures.push(Figure::new(format!("{what}: µs CPU a request"), load.micros(), 1));
                    figures.push(Figure::new(format!("{what}: p99, ms"), load.millis_at(0.99), 2));
                }
            }
        }
        let memory = node.memory()?;
        if entries == FEW {
            empty = memory;
        } else {
            let each = memory.saturating_sub(empty) as f64 / (entries - FEW) as f64;
            figures.push(Figure::new("  bytes of memory an entry more", each, 0));
        }
    }
    Ok(figures)
}

/// What hits notice of fetches that need room: the same fetches with room, and without.
pub async fn eviction(origin: &Origin) -> anyhow::Result<Vec<Figure>> {
    origin.set_rate(u64::MAX);
    let mut figures = Vec::new();
    for (name, disk) in [("with room", 16 << 10), ("each evicting another", 256)] {
        let node = Arc::new(Node::launch(Setup { disk, ..Setup::new(origin.address(), 64) })?);
        let over = Arc::new(AtomicBool::new(false));
        let fetched = Arc::new(AtomicU64::new(0));
        let mut fetching = JoinSet::new();
        for number in 0..2 {
            let (node, over, fetched) = (Arc::clone(&node), Arc::clone(&over), Arc::clone(&fetched));
            fetching.spawn(async move { fetch_new(&node, number, &over, &fetched).await });
        }
        // Until the small one is full.
        while fetched.load(Ordering::Relaxed) < 320 << 20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            anyhow::ensure!(fetching.len() == 2, "a fetch failed");
        }
        let before = fetched.load(Ordering::Relaxed);
        let tls = node.tls("http/1.1");
        let load =
            measure(&node, 8, |_, stop| keep_asking(&node, &tls, |_| "/o/4096/small".to_owned(), stop))
                .await?;
        let rate = (fetched.load(Ordering::Relaxed) - before) as f64 / 1e6 / load.wall.as_secs_f64();
        over.store(true, Ordering::Relaxed);
        while let Some(outcome) = fetching.join_next().await {
            outcome??;
        }
        figures.push(Figure::new(
            format!("hits of 4 KiB beside fetches {name}: p99, ms"),
            load.millis_at(0.99),
            2,
        ));
        figures.push(Figure::new(format!("  requests a second, {name}"), load.rate(), 0));
        figures.push(Figure::new(format!("  fetched meanwhile, {name}: MB/s"), rate, 0));
    }
    Ok(figures)
}

/// Files that nobody has asked for before, one after the other.
async fn fetch_new(
    server: &Server,
    number: u64,
    over: &AtomicBool,
    fetched: &AtomicU64,
) -> anyhow::Result<()> {
    let mut agent = Agent::connect(&server.tls("http/1.1"), server.address()).await?;
    let mut at = 0_u64;
    while !over.load(Ordering::Relaxed) {
        let path = format!("/o/262144/new-{number}-{at}");
        agent.fetch(&path, |bytes| _ = fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed)).await?;
        at += 1;
    }
    Ok(())
}

/// Where the file of this number is.
pub fn path(number: u64) -> String {
    format!("/o/{:03}/{number}.zip", number % 1_000)
}

/// An index of so many small files.
pub async fn fill(dir: &Path, entries: u64) -> anyhow::Result<()> {
    let clock = Clock::system();
    let store = Store::open(Options { min_free: 0, ..Options::new(dir, 1 << 40) }, clock.clone())?;
    let now = clock.now();
    for number in 0..entries {
        // The store takes what it can hold until the next commit; more would go unrecorded.
        while number.is_multiple_of(2_000) && store.totals().entries < number {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        store.put(entry(number, now));
    }
    store.close().await;
    Ok(())
}

fn entry(number: u64, now: Timestamp) -> Entry {
    let body = Bytes::from(format!("the body of {number}"));
    let head = Head {
        status: 200,
        headers: vec![("etag".to_owned(), format!("\"v{number}\"").into_bytes())],
        requested_at: now,
        received_at: now,
        source: "http://127.0.0.1/o/".to_owned(),
        selecting: Vec::new(),
    };
    let (digest, length) = (Digest::of(&body), body.len() as u64);
    Entry::new(Key::new("o", &path(number), None), head, length, digest, EntryBody::Inline(body))
}
