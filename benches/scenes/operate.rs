//! What operators get from a busy node with a full cache.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::entries::{fill, many, path};
use crate::support::agent::Agent;
use crate::support::node::{Node, Setup};
use crate::support::table::Figure;

/// Questions of each kind.
const QUESTIONS: usize = 200;
/// Agents that fetch meanwhile.
const AGENTS: usize = 16;

/// `status` and `explain` of a node with a million entries (`E2E_ENTRIES`) while it serves.
pub async fn operate() -> anyhow::Result<Vec<Figure>> {
    let entries = many();
    let dir = tempfile::Builder::new().prefix("waypost-e2e").tempdir()?;
    fill(&dir.path().join("cache"), entries).await?;
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let node = Node::launch(Setup { cache: Some(dir), ..Setup::new(nowhere, 64) })?;
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
    let mut figures = vec![Figure::new(format!("{entries} entries: hits a second meanwhile"), rate, 0)];
    for (name, times) in [("status", &mut status), ("explain", &mut explain)] {
        times.sort();
        for (part, percent) in [("p50", 50), ("p99", 99), ("longest", 100)] {
            let time = times.get((times.len() - 1) * percent / 100).copied().unwrap_or_default();
            figures.push(Figure::new(format!("{name}, {part}: ms"), time.as_secs_f64() * 1e3, 1));
        }
    }
    Ok(figures)
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
