//! Agents that keep asking, and what that cost the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use xxhash_rust::xxh3::Xxh3;

use super::agent::{Agent, Times, connect};
use super::server::Server;

/// How long rates are measured.
pub fn seconds() -> Duration {
    let seconds = std::env::var("E2E_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or(5.0))
}

/// What a load did and cost.
pub struct Load {
    pub requests: u64,
    pub bytes: u64,
    pub wall: Duration,
    pub cpu: Duration,
    /// How long each answer took, sorted.
    pub times: Vec<Duration>,
}

impl Load {
    /// Processor time a request, µs.
    pub fn micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.requests as f64
    }

    /// Processor time a GB, seconds.
    pub fn seconds_a_gigabyte(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e9 / self.bytes as f64
    }

    /// Answers a second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.wall.as_secs_f64()
    }

    /// The time below which this share of the answers came, ms.
    pub fn millis_at(&self, share: f64) -> f64 {
        let at = (self.times.len() as f64 * share) as usize;
        self.times.get(at).or(self.times.last()).copied().unwrap_or_default().as_secs_f64() * 1e3
    }
}

/// Runs `connections` loads until the time is over. The first tenth warms up and is not counted.
pub async fn measure<F>(
    server: &Server,
    connections: usize,
    load: impl Fn(usize, Stop) -> F,
) -> anyhow::Result<Load>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let stop = Stop::default();
    let mut tasks = JoinSet::new();
    for number in 0..connections {
        tasks.spawn(load(number, stop.clone()));
    }
    tokio::time::sleep(seconds() / 10).await;
    stop.0.times.lock().clear();
    let (began, cpu, counts) = (Instant::now(), server.cpu()?, stop.counts());
    tokio::time::sleep(seconds()).await;
    let (wall, cpu, after) = (began.elapsed(), server.cpu()?.saturating_sub(cpu), stop.counts());
    stop.0.over.store(true, Ordering::Relaxed);
    while let Some(outcome) = tasks.join_next().await {
        outcome??;
    }
    let mut times = std::mem::take(&mut *stop.0.times.lock());
    times.sort_unstable();
    Ok(Load { requests: after.0 - counts.0, bytes: after.1 - counts.1, wall, cpu, times })
}

/// Ends a load, and counts it meanwhile.
#[derive(Clone, Default)]
pub struct Stop(Arc<Counts>);

#[derive(Default)]
struct Counts {
    over: AtomicBool,
    requests: AtomicU64,
    bytes: AtomicU64,
    times: parking_lot::Mutex<Vec<Duration>>,
}

impl Stop {
    /// Whether it is time to end.
    pub fn over(&self) -> bool {
        self.0.over.load(Ordering::Relaxed)
    }

    fn counts(&self) -> (u64, u64) {
        (self.0.requests.load(Ordering::Relaxed), self.0.bytes.load(Ordering::Relaxed))
    }

    /// Counts bytes that came.
    pub fn add_bytes(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts an answer that is whole.
    pub fn add_request(&self, took: Duration) {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        self.0.times.lock().push(took);
    }
}

/// Asks for `path(0)`, `path(1)` … on one connection over HTTP/1.1.
pub fn keep_asking(
    server: &Server,
    tls: &TlsConnector,
    mut path: impl FnMut(u64) -> String + Send + 'static,
    stop: Stop,
) -> impl Future<Output = anyhow::Result<()>> + Send + 'static {
    let (address, tls) = (server.address(), tls.clone());
    async move {
        let mut agent = Agent::connect(&tls, address).await?;
        let mut number = 0;
        while !stop.over() {
            let times = agent.fetch(&path(number), |bytes| stop.add_bytes(bytes.len())).await?;
            stop.add_request(times.last);
            number += 1;
        }
        Ok(())
    }
}

/// Asks for `path` in `streams` streams of one connection over HTTP/2.
pub fn keep_asking_h2(
    server: &Server,
    tls: &TlsConnector,
    path: &'static str,
    streams: usize,
    stop: Stop,
) -> impl Future<Output = anyhow::Result<()>> + Send + 'static {
    let (address, tls) = (server.address(), tls.clone());
    async move {
        let stream = TokioIo::new(connect(&tls, address).await?);
        // A large window, as browsers have: the server is measured, not its waiting for us.
        let (requests, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .handshake(stream)
            .await?;
        let mut tasks = JoinSet::new();
        for _ in 0..streams {
            let (mut requests, stop) = (requests.clone(), stop.clone());
            tasks.spawn(async move {
                while !stop.over() {
                    let began = Instant::now();
                    let uri = format!("https://localhost{path}");
                    let request = http::Request::get(uri).body(Empty::<Bytes>::new())?;
                    let mut reply = requests.send_request(request).await?;
                    ensure!(reply.status() == http::StatusCode::OK, "{}", reply.status());
                    while let Some(frame) = reply.frame().await {
                        stop.add_bytes(frame?.data_ref().map_or(0, Bytes::len));
                    }
                    stop.add_request(began.elapsed());
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

/// A new connection, the file, its hash; times from `start`, so handshakes are included.
pub async fn fetch_checked(
    server: &Server,
    tls: &TlsConnector,
    path: &str,
    expected: u64,
    start: Instant,
) -> anyhow::Result<Times> {
    let mut agent = Agent::connect(tls, server.address()).await?;
    let before = start.elapsed();
    let mut hasher = Xxh3::new();
    let times = agent.fetch(path, |bytes| hasher.update(bytes)).await?;
    ensure!(hasher.digest() == expected, "wrong bytes");
    Ok(Times { first: before + times.first, last: before + times.last })
}
