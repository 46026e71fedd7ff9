//! What operators get from a busy node with a full cache, and what a hit costs in instructions, which repeat.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use waypost::base::clock::{Clock, Timestamp};
use waypost::base::digest::Digest;
use waypost::cache::{Entry, EntryBody, Head, Key};
use waypost::store::{Options, Store};
use waypost::testkit::origin::Origin as Listing;
use waypost::testkit::script::Script;

use super::agent::Agent;
use super::node::{Node, Setup};
use super::origin::Origin;

/// Questions of each kind.
const QUESTIONS: usize = 200;
/// Agents that fetch meanwhile.
const AGENTS: usize = 16;

/// `status` and `explain` of a node with a million entries (`E2E_ENTRIES`) while it serves.
pub async fn operate() -> anyhow::Result<()> {
    let entries = std::env::var("E2E_ENTRIES").ok().and_then(|it| it.parse().ok()).unwrap_or(1_000_000_u64);
    let dir = tempfile::Builder::new().prefix("waypost-e2e").tempdir()?;
    fill(&dir.path().join("cache"), entries).await?;
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let node = Node::launch(Setup { cache: Some(dir), ..Setup::new(nowhere, "64MiB") })?;
    let over = Arc::new(AtomicBool::new(false));
    let mut agents = JoinSet::new();
    for first in 0..AGENTS as u64 {
        let (over, tls, address) = (Arc::clone(&over), node.tls("http/1.1"), node.address());
        agents.spawn(async move {
            let mut agent = Agent::connect(&tls, address).await?;
            let (mut number, mut many) = (first, 0_u64);
            while !over.load(Ordering::Relaxed) {
                agent.fetch(&path(number % entries), |_| ()).await?;
                // All over the index, so that most hits are in no memory.
                number =
                    number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                many += 1;
            }
            anyhow::Ok(many)
        });
    }
    let began = Instant::now();
    let mut status = Vec::new();
    let mut explain = Vec::new();
    for number in 0..QUESTIONS as u64 {
        status.push(ask(&node.admin(), "/v1/status").await?);
        let url = path(number * 4_999 % entries);
        explain.push(ask(&node.admin(), &format!("/v1/explain?url={url}")).await?);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let wall = began.elapsed();
    over.store(true, Ordering::Relaxed);
    let mut served = 0;
    while let Some(many) = agents.join_next().await {
        served += many??;
    }
    let rate = served as f64 / wall.as_secs_f64();
    println!("{entries} entries, {AGENTS} agents, {rate:.0} req/s meanwhile");
    for (name, times) in [("status", &mut status), ("explain", &mut explain)] {
        times.sort();
        let at = |part: usize| times.get((times.len() - 1) * part / 100).copied().unwrap_or_default();
        println!("{name:<40} p50 {:.1?}   p99 {:.1?}   longest {:.1?}", at(50), at(99), at(100));
    }
    Ok(())
}

fn path(number: u64) -> String {
    format!("/o/{:03}/{number}.zip", number % 1_000)
}

/// An index of so many small files.
async fn fill(dir: &Path, entries: u64) -> anyhow::Result<()> {
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

/// How long an answer of the admin API takes, connection included, as for the command line.
async fn ask(socket: &Path, path: &str) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let mut stream = UnixStream::connect(socket).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    Ok(began.elapsed())
}

/// Instructions of a hot request for 4 KiB over HTTP/1.1 and TLS: the difference of two runs, divided by what one had more
/// than the other.
pub async fn instructions(origin: &Origin) -> anyhow::Result<()> {
    origin.set_rate(u64::MAX);
    let listing = Listing::start().await;
    let body = Bytes::from(vec![7; 4_096]);
    listing.set("/o/small", Script::text(body.clone()));
    listing.set("/o/SHA256SUMS", Script::text(format!("{}  small\n", Digest::of(&body))));
    let ordinary = || Setup::new(origin.address(), "64MiB");
    let listed =
        || Setup { upstream: format!("{}o/", listing.url()), repository: "checksums = true\n", ..ordinary() };
    let passive = || Setup {
        repository: "[[repository.rule]]\nmatch = \"**\"\nimmutable = true\n[agents]\nstate_dir = \"state\"\npassive = true\n",
        ..ordinary()
    };
    let mut first = None;
    for (name, path, setup) in [
        ("an ordinary hit", "/o/4096/small", &ordinary as &dyn Fn() -> Setup),
        ("with an access log", "/o/4096/small", &|| Setup { access: true, ..ordinary() }),
        ("with passive agents", "/o/4096/small", &passive),
        ("a listed hit", "/o/small", &listed),
    ] {
        let few = count(setup(), path, 1_000).await?;
        let many = count(setup(), path, 3_000).await?;
        let each = many.saturating_sub(few) as f64 / 2_000.0;
        let base = *first.get_or_insert(each);
        println!("{name:<40} {each:>8.0} instructions a request, {:+.1} %", (each / base - 1.0) * 100.0);
    }
    Ok(())
}

async fn count(setup: Setup, path: &str, requests: usize) -> anyhow::Result<u64> {
    let node = Node::launch(Setup { counted: true, ..setup })?;
    let tls = node.tls("http/1.1");
    let mut agent = Agent::connect(&tls, node.address()).await.context("a connection")?;
    for _ in 0..requests {
        agent.fetch(path, |_| ()).await?;
    }
    drop(agent);
    node.instructions()
}
