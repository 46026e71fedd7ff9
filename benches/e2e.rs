//! The real binary under load: `cargo bench --bench e2e [-- hot|late|herd …]`.
//!
//! Every figure is measured from outside: CPU and memory of the process from `/proc`, requests and bytes at the origin,
//! times and hashes at the agents. Agents and origin share the machine with the node, so rates and the last agent depend on
//! them too; CPU per request and per GB hardly does. `E2E_SECONDS` sets how long the rates are measured (5).

#![expect(clippy::print_stdout, reason = "the table is what this program is for")]
#![expect(unreachable_pub, reason = "a program; nothing of it can be reached")]
#![expect(dead_code, reason = "the support is that of other benches, too")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use xxhash_rust::xxh3::Xxh3;

use support::agent::{Agent, Times, connect};
use support::node::{Node, Setup};
use support::operate;
use support::origin::Origin;

const SMALL: &str = "/o/4096/small";
const LARGE: &str = "/o/67108864/large";
/// The line of the cold scenarios: 100 Mbit/s, 40 ms.
const RATE: u64 = 12_500_000;
const DELAY: Duration = Duration::from_millis(40);
/// The cold file.
const COLD: u64 = 50 << 20;

fn main() -> anyhow::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    // `cargo test --benches` runs this too, without the word; it takes minutes and proves nothing there.
    if !std::env::args().any(|word| word == "--bench") {
        return Ok(());
    }
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.starts_with(word.as_str()));
    allow_descriptors()?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let origin = Origin::start(DELAY).await?;
        if wants("hot") {
            hot(&origin).await?;
        }
        if wants("late") {
            late(&origin).await?;
        }
        if wants("herd") {
            for agents in [200, 1_000] {
                herd(&origin, agents).await?;
            }
        }
        if wants("log") {
            log(&origin).await?;
        }
        if wants("operate") {
            operate::operate().await?;
        }
        // Only where it is named: it takes valgrind, and minutes.
        if wanted.iter().any(|word| "instructions".starts_with(word.as_str())) {
            operate::instructions(&origin).await?;
        }
        Ok(())
    })
}

/// A thousand agents are a thousand sockets here. The node inherits the limit, as from systemd.
fn allow_descriptors() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}

fn seconds() -> Duration {
    let seconds = std::env::var("E2E_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(5))
}

/// Objects in memory: what a request and a GB cost.
async fn hot(origin: &Origin) -> anyhow::Result<()> {
    origin.set_rate(u64::MAX);
    let node = Node::start(origin.address(), "512MiB")?;
    let one = node.tls("http/1.1");
    let two = node.tls("h2");
    for path in [SMALL, LARGE] {
        let mut agent = Agent::connect(&one, node.address()).await?;
        agent.fetch(path, |_| ()).await?;
        agent.fetch(path, |_| ()).await?;
    }
    origin.take_counts();
    let small = measure(&node, 64, |stop| keep_asking(&node, &one, SMALL, stop)).await?;
    print_requests("hot 4 KiB, HTTP/1.1, 64 connections", &small);
    let small = measure(&node, 32, |stop| keep_asking_h2(&node, &two, SMALL, 8, stop)).await?;
    print_requests("hot 4 KiB, HTTP/2, 32 connections × 8", &small);
    let large = measure(&node, 8, |stop| keep_asking(&node, &one, LARGE, stop)).await?;
    let gigabytes = large.bytes as f64 / 1e9;
    println!(
        "{:<40} {:>9.2} GB/s   {:>8.3} s CPU a GB",
        "hot 64 MiB, HTTP/1.1, 8 connections",
        gigabytes / large.wall.as_secs_f64(),
        large.cpu.as_secs_f64() / gigabytes
    );
    let (requests, _) = origin.take_counts();
    println!("{:<40} {requests} requests at the origin, peak {} MiB", "", node.peak_memory()? >> 20);
    Ok(())
}

/// What the access log costs at full rate: by turns without and with it, so that a change of the machine hits both.
async fn log(origin: &Origin) -> anyhow::Result<()> {
    origin.set_rate(u64::MAX);
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..5 {
        for (access, costs) in [false, true].into_iter().zip(&mut costs) {
            let node = Node::launch(Setup { access, ..Setup::new(origin.address(), "512MiB") })?;
            let tls = node.tls("http/1.1");
            for _ in 0..2 {
                Agent::connect(&tls, node.address()).await?.fetch(SMALL, |_| ()).await?;
            }
            let load = measure(&node, 64, |stop| keep_asking(&node, &tls, SMALL, stop)).await?;
            costs.push(load.cpu.as_secs_f64() * 1e6 / load.requests as f64);
        }
    }
    let [without, with] = costs.map(|mut costs| {
        costs.sort_by(f64::total_cmp);
        costs.get(costs.len() / 2).copied().unwrap_or_default()
    });
    println!(
        "{:<40} {without:>8.2} µs CPU a request without it, {with:.2} with it: {:+.1} %",
        "access log, hot 4 KiB, medians of 5",
        (with / without - 1.0) * 100.0
    );
    Ok(())
}

/// What a load did and cost.
struct Load {
    requests: u64,
    bytes: u64,
    wall: Duration,
    cpu: Duration,
}

fn print_requests(name: &str, load: &Load) {
    let requests = load.requests as f64;
    println!(
        "{name:<40} {:>9.0} req/s  {:>8.2} µs CPU a request",
        requests / load.wall.as_secs_f64(),
        load.cpu.as_secs_f64() * 1e6 / requests
    );
}

/// Runs `connections` loads until the time is over. The first tenth warms up and is not counted.
async fn measure<F>(node: &Node, connections: usize, load: impl Fn(Stop) -> F) -> anyhow::Result<Load>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let stop = Stop::default();
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        tasks.spawn(load(stop.clone()));
    }
    tokio::time::sleep(seconds() / 10).await;
    let (began, cpu, counts) = (Instant::now(), node.cpu()?, stop.counts());
    tokio::time::sleep(seconds()).await;
    let (wall, cpu, after) = (began.elapsed(), node.cpu()?.saturating_sub(cpu), stop.counts());
    stop.0.over.store(true, Ordering::Relaxed);
    while let Some(outcome) = tasks.join_next().await {
        outcome??;
    }
    Ok(Load { requests: after.0 - counts.0, bytes: after.1 - counts.1, wall, cpu })
}

/// Ends a load, and counts it meanwhile.
#[derive(Clone, Default)]
struct Stop(Arc<Counts>);

#[derive(Default)]
struct Counts {
    over: AtomicBool,
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl Stop {
    fn over(&self) -> bool {
        self.0.over.load(Ordering::Relaxed)
    }

    fn counts(&self) -> (u64, u64) {
        (self.0.requests.load(Ordering::Relaxed), self.0.bytes.load(Ordering::Relaxed))
    }

    fn add_bytes(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn add_request(&self) {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
    }
}

fn keep_asking(
    node: &Node,
    tls: &TlsConnector,
    path: &'static str,
    stop: Stop,
) -> impl Future<Output = anyhow::Result<()>> + Send + 'static {
    let (address, tls) = (node.address(), tls.clone());
    async move {
        let mut agent = Agent::connect(&tls, address).await?;
        while !stop.over() {
            agent.fetch(path, |bytes| stop.add_bytes(bytes.len())).await?;
            stop.add_request();
        }
        Ok(())
    }
}

fn keep_asking_h2(
    node: &Node,
    tls: &TlsConnector,
    path: &'static str,
    streams: usize,
    stop: Stop,
) -> impl Future<Output = anyhow::Result<()>> + Send + 'static {
    let (address, tls) = (node.address(), tls.clone());
    async move {
        let stream = TokioIo::new(connect(&tls, address).await?);
        let (requests, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
        let mut tasks = JoinSet::new();
        for _ in 0..streams {
            let (mut requests, stop) = (requests.clone(), stop.clone());
            tasks.spawn(async move {
                while !stop.over() {
                    let uri = format!("https://localhost{path}");
                    let request = http::Request::get(uri).body(Empty::<Bytes>::new())?;
                    let reply = requests.send_request(request).await?;
                    ensure!(reply.status() == http::StatusCode::OK, "{}", reply.status());
                    stop.add_bytes(reply.into_body().collect().await?.to_bytes().len());
                    stop.add_request();
                }
                anyhow::Ok(())
            });
        }
        drop(requests);
        let all = async {
            while let Some(outcome) = tasks.join_next().await {
                outcome??;
            }
            Ok(())
        };
        let (outcome, _) = tokio::join!(all, connection);
        outcome
    }
}

/// One agent fetches a cold file; another comes in the middle.
async fn late(origin: &Origin) -> anyhow::Result<()> {
    origin.set_rate(RATE);
    let node = Node::start(origin.address(), "256MiB")?;
    let tls = node.tls("http/1.1");
    let path = format!("/o/{COLD}/late");
    let expected = origin.expected(COLD);
    origin.take_counts();
    let early = fetch_checked(&node, &tls, &path, expected, Instant::now());
    let late = async {
        while origin.bytes() < COLD / 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        fetch_checked(&node, &tls, &path, expected, Instant::now()).await
    };
    let (early, late) = tokio::join!(early, late);
    let (requests, _) = origin.take_counts();
    let (early, late) = (early?, late?);
    println!(
        "{:<40} first byte {:.1} ms (cold {:.0} ms), TLS included; {requests} requests",
        "late joiner at 50 % of a cold 50 MiB",
        millis(late.first),
        millis(early.first),
    );
    Ok(())
}

/// Many agents, one cold file, one thin line.
async fn herd(origin: &Origin, agents: usize) -> anyhow::Result<()> {
    origin.set_rate(RATE);
    let node = Arc::new(Node::start(origin.address(), "256MiB")?);
    let tls = node.tls("http/1.1");
    let path = format!("/o/{COLD}/herd-{agents}");
    let expected = origin.expected(COLD);
    origin.take_counts();
    let cpu = node.cpu()?;
    let (gun, ready) = watch::channel(None);
    let mut tasks = JoinSet::new();
    for _ in 0..agents {
        let (node, tls, path, mut ready) = (Arc::clone(&node), tls.clone(), path.clone(), ready.clone());
        tasks.spawn(async move {
            let start = ready.wait_for(Option::is_some).await?.unwrap_or_else(Instant::now);
            fetch_checked(&node, &tls, &path, expected, start).await
        });
    }
    gun.send_replace(Some(Instant::now()));
    let (mut times, mut errors) = (Vec::new(), Vec::new());
    while let Some(outcome) = tasks.join_next().await {
        match outcome? {
            Ok(time) => times.push(time),
            Err(error) => errors.push(error),
        }
    }
    let (requests, bytes) = origin.take_counts();
    let cpu = node.cpu()?.saturating_sub(cpu);
    let ideal = Duration::from_secs_f64(COLD as f64 / RATE as f64) + DELAY;
    let last = times.iter().map(|time| time.last).max().unwrap_or_default();
    let mut first: Vec<_> = times.iter().map(|time| time.first).collect();
    first.sort_unstable();
    let at = |share: f64| first.get((first.len() as f64 * share) as usize).copied().unwrap_or_default();
    println!(
        "{:<40} first byte p50 {:.0} ms, p99 {:.0} ms; last ÷ ideal × {:.2}; {requests} requests, bytes × {:.3}",
        format!("cold 50 MiB at 100 Mbit/s, {agents} agents"),
        millis(at(0.5)),
        millis(at(0.99)),
        last.as_secs_f64() / ideal.as_secs_f64(),
        bytes as f64 / COLD as f64,
    );
    println!(
        "{:<40} {} right, {} failed; CPU {:.2} s ({:.3} s a GB); peak {} MiB",
        "",
        times.len(),
        errors.len(),
        cpu.as_secs_f64(),
        cpu.as_secs_f64() / (times.len() as f64 * COLD as f64 / 1e9),
        node.peak_memory()? >> 20,
    );
    if let Some(error) = errors.first() {
        println!("{:<40} one failed with: {error:#}", "");
    }
    Ok(())
}

/// A new connection, the file, its hash; times from `start`, so handshakes are included.
async fn fetch_checked(
    node: &Node,
    tls: &TlsConnector,
    path: &str,
    expected: u64,
    start: Instant,
) -> anyhow::Result<Times> {
    let mut agent = Agent::connect(tls, node.address()).await?;
    let before = start.elapsed();
    let mut hasher = Xxh3::new();
    let times = agent.fetch(path, |bytes| hasher.update(bytes)).await?;
    ensure!(hasher.digest() == expected, "wrong bytes");
    Ok(Times { first: before + times.first, last: before + times.last })
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
