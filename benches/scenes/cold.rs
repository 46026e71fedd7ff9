//! Nothing is there yet: one file over a thin line, many agents, and trouble.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::agent::Times;
use crate::support::load::fetch_checked;
use crate::support::origin::{Origin, expected};
use crate::support::peers::Peer;
use crate::support::server::Server;
use crate::support::table::Figure;

/// The line: 100 Mbit/s; its delay is [`DELAY`].
const RATE: u64 = 12_500_000;
/// How late the origin answers.
pub const DELAY: Duration = Duration::from_millis(40);
/// The file.
const COLD: u64 = 50 << 20;

/// Many agents at once.
pub async fn herd(peer: Peer, origin: &Origin, agents: usize) -> anyhow::Result<Vec<Figure>> {
    let scene = Scene::start(peer, origin, "herd")?;
    let (gun, ready) = watch::channel(None);
    let mut tasks = JoinSet::new();
    for _ in 0..agents {
        let (scene, mut ready) = (Arc::clone(&scene), ready.clone());
        tasks.spawn(async move {
            let start = ready.wait_for(Option::is_some).await?.unwrap_or_else(Instant::now);
            scene.fetch(start).await
        });
    }
    let cpu = scene.server.cpu()?;
    gun.send_replace(Some(Instant::now()));
    let seen = Seen::gather(tasks).await?;
    let cpu = scene.server.cpu()?.saturating_sub(cpu).as_secs_f64();
    let (requests, bytes) = origin.take_counts();
    let ideal = DELAY.as_secs_f64() + COLD as f64 / RATE as f64;
    let last = seen.times.iter().map(|time| time.last).max().unwrap_or_default();
    let who = format!("cold 50 MiB at 100 Mbit/s, {agents} agents");
    Ok(vec![
        Figure::new(format!("{who}: first byte p50, s"), seen.first_at(0.5), 2),
        Figure::new(format!("{who}: first byte p99, s"), seen.first_at(0.99), 2),
        Figure::new(format!("{who}: last agent ÷ ideal"), last.as_secs_f64() / ideal, 2),
        Figure::new(format!("{who}: s CPU a GB"), cpu * 1e9 / (seen.times.len() as f64 * COLD as f64), 2),
        Figure::new(format!("{who}: peak memory, MiB"), (scene.server.tree.peak()? >> 20) as f64, 0),
        Figure::new(format!("{who}: requests at the origin"), requests as f64, 0),
        Figure::new(format!("{who}: body bytes ÷ size"), bytes as f64 / COLD as f64, 2),
        Figure::new(format!("{who}: failed or wrong"), seen.failed as f64, 0),
    ])
}

/// Ten agents each join when 10, 50 and 90 % are here.
pub async fn late(peer: Peer, origin: &Origin) -> anyhow::Result<Vec<Figure>> {
    let scene = Scene::start(peer, origin, "late")?;
    let first = tokio::spawn({
        let scene = Arc::clone(&scene);
        async move { scene.fetch(Instant::now()).await }
    });
    let mut figures = Vec::new();
    let mut failed = 0;
    for percent in [10, 50, 90] {
        while origin.bytes() < COLD * percent / 100 && !first.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut tasks = JoinSet::new();
        for _ in 0..10 {
            let scene = Arc::clone(&scene);
            tasks.spawn(async move { scene.fetch(Instant::now()).await });
        }
        figures.push((percent, tokio::spawn(Seen::gather(tasks))));
    }
    failed += usize::from(first.await?.is_err());
    let mut rows = Vec::new();
    for (percent, seen) in figures {
        let seen = seen.await??;
        failed += seen.failed;
        rows.push(Figure::new(
            format!("joining at {percent} % of a fill: first byte p50, ms"),
            seen.first_at(0.5) * 1e3,
            0,
        ));
    }
    rows.push(Figure::new("  failed or wrong", failed as f64, 0));
    rows.push(Figure::new(
        "  body bytes at the origin ÷ size",
        origin.take_counts().1 as f64 / COLD as f64,
        2,
    ));
    Ok(rows)
}

/// The first agent leaves at a quarter; twenty others follow the fill.
pub async fn gone(peer: Peer, origin: &Origin) -> anyhow::Result<Vec<Figure>> {
    let scene = Scene::start(peer, origin, "gone")?;
    let first = tokio::spawn({
        let scene = Arc::clone(&scene);
        async move { scene.fetch(Instant::now()).await }
    });
    while origin.bytes() < COLD / 14 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let scene = Arc::clone(&scene);
        tasks.spawn(async move { scene.fetch(Instant::now()).await });
    }
    while origin.bytes() < COLD / 4 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    first.abort();
    let seen = Seen::gather(tasks).await?;
    let (requests, bytes) = origin.take_counts();
    Ok(vec![
        Figure::new("the first leaves at 25 %: of 20 others, failed or wrong", seen.failed as f64, 0),
        Figure::new("  requests at the origin", requests as f64, 0),
        Figure::new("  body bytes ÷ size", bytes as f64 / COLD as f64, 2),
    ])
}

/// The origin resets the connection at half, once.
pub async fn broken(peer: Peer, origin: &Origin) -> anyhow::Result<Vec<Figure>> {
    let scene = Scene::start(peer, origin, "broken")?;
    origin.break_at(COLD / 2 + 300_007);
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let scene = Arc::clone(&scene);
        tasks.spawn(async move { scene.fetch(Instant::now()).await });
    }
    let seen = Seen::gather(tasks).await?;
    origin.break_at(0);
    let (_, bytes) = origin.take_counts();
    Ok(vec![
        Figure::new("the origin resets at 50 %: of 20 agents, failed or wrong", seen.failed as f64, 0),
        Figure::new("  body bytes ÷ size", bytes as f64 / COLD as f64, 2),
    ])
}

/// A server that has nothing, and the file that agents want.
struct Scene {
    server: Server,
    tls: tokio_rustls::TlsConnector,
    path: String,
    expected: u64,
}

impl Scene {
    fn start(peer: Peer, origin: &Origin, name: &str) -> anyhow::Result<Arc<Self>> {
        origin.set_rate(RATE);
        let server = peer.start(origin.address(), 256)?;
        let tls = server.tls("http/1.1");
        let path = format!("/o/{COLD}/{name}");
        let expected = expected(&path);
        origin.take_counts();
        Ok(Arc::new(Self { server, tls, path, expected }))
    }

    async fn fetch(&self, start: Instant) -> anyhow::Result<Times> {
        fetch_checked(&self.server, &self.tls, &self.path, self.expected, start).await
    }
}

/// What a crowd saw.
struct Seen {
    times: Vec<Times>,
    failed: usize,
}

impl Seen {
    async fn gather(mut tasks: JoinSet<anyhow::Result<Times>>) -> anyhow::Result<Self> {
        let (mut times, mut failed) = (Vec::new(), 0);
        while let Some(outcome) = tasks.join_next().await {
            match outcome? {
                Ok(time) => times.push(time),
                Err(error) => {
                    if failed == 0 {
                        eprintln!("an agent failed: {error:#}");
                    }
                    failed += 1;
                }
            }
        }
        times.sort_by_key(|time| time.first);
        Ok(Self { times, failed })
    }

    /// Seconds until this share had their first byte.
    fn first_at(&self, share: f64) -> f64 {
        let at = (self.times.len() as f64 * share) as usize;
        self.times.get(at).or(self.times.last()).map_or(f64::NAN, |time| time.first.as_secs_f64())
    }
}
