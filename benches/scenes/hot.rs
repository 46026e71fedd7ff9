//! Everything asked for is there: what requests, bytes, handshakes and silent connections cost.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::support::agent::Agent;
use crate::support::load::{Load, keep_asking, keep_asking_h2, measure};
use crate::support::node::{Node, Setup};
use crate::support::origin::Origin;
use crate::support::peers::Peer;
use crate::support::server::Server;
use crate::support::table::Figure;

const SMALL: &str = "/o/4096/small";
const LARGE: &str = "/o/67108864/large";
/// Connections that say nothing.
const IDLE: usize = 5_000;

/// Objects in memory.
pub async fn hot(peer: Peer, origin: &Origin) -> anyhow::Result<Vec<Figure>> {
    origin.set_rate(u64::MAX);
    let server = peer.start(origin.address(), 512)?;
    let one = server.tls("http/1.1");
    let two = server.tls("h2");
    for path in [SMALL, LARGE, SMALL, LARGE] {
        Agent::connect(&one, server.address()).await?.fetch(path, |_| ()).await?;
    }
    origin.take_counts();
    let mut figures = Vec::new();
    let load = measure(&server, 64, |_, stop| keep_asking(&server, &one, |_| SMALL.to_owned(), stop)).await?;
    figures.push(Figure::new("hot 4 KiB, HTTP/1.1, 64 connections: µs CPU a request", load.micros(), 1));
    if peer.speaks_http2() {
        let load = measure(&server, 32, |_, stop| keep_asking_h2(&server, &two, SMALL, 8, stop)).await?;
        figures.push(Figure::new("hot 4 KiB, HTTP/2, 32 × 8: µs CPU a request", load.micros(), 1));
    }
    let load = measure(&server, 8, |_, stop| keep_asking(&server, &one, |_| LARGE.to_owned(), stop)).await?;
    figures.push(Figure::new(
        "hot 64 MiB, HTTP/1.1, 8 connections: s CPU a GB",
        load.seconds_a_gigabyte(),
        3,
    ));
    if peer.speaks_http2() {
        let load = measure(&server, 4, |_, stop| keep_asking_h2(&server, &two, LARGE, 1, stop)).await?;
        figures.push(Figure::new(
            "hot 64 MiB, HTTP/2, 4 connections: s CPU a GB",
            load.seconds_a_gigabyte(),
            3,
        ));
    }
    let (requests, _) = origin.take_counts();
    figures.push(Figure::new("  meanwhile at the origin: requests", requests as f64, 0));
    Ok(figures)
}

/// More than fits into memory for hot objects, but not more than the page cache holds.
pub async fn disk(peer: Peer, origin: &Origin) -> anyhow::Result<Vec<Figure>> {
    const FILES: u64 = 96;
    let path = |number: u64| format!("/o/16777216/set-{number}");
    origin.set_rate(u64::MAX);
    let server = peer.start(origin.address(), 512)?;
    let tls = server.tls("http/1.1");
    let before = server.cpu()?;
    for round in 0..2 {
        let mut agents = JoinSet::new();
        for first in 0..4 {
            let (tls, address) = (tls.clone(), server.address());
            agents.spawn(async move {
                let mut agent = Agent::connect(&tls, address).await?;
                for number in (first..FILES).step_by(4) {
                    agent.fetch(&path(number), |_| ()).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(outcome) = agents.join_next().await {
            outcome??;
        }
        if round == 0 {
            // What is written behind belongs to the fetching.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    let filled = server.cpu()?.saturating_sub(before);
    origin.take_counts();
    let load = measure(&server, 8, |first, stop| {
        let mut at = first as u64;
        keep_asking(
            &server,
            &tls,
            move |number| {
                at = at
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(number + 1_442_695_040_888_963_407);
                path((at >> 33) % FILES)
            },
            stop,
        )
    })
    .await?;
    let (requests, _) = origin.take_counts();
    let gigabytes = FILES as f64 * 16_777_216.0 / 1e9;
    Ok(vec![
        Figure::new("96 × 16 MiB on disk, 512 MiB of memory: s CPU a GB", load.seconds_a_gigabyte(), 3),
        Figure::new("  fetched and read once before: s CPU a GB", filled.as_secs_f64() / gigabytes, 2),
        Figure::new("  meanwhile at the origin: requests", requests as f64, 0),
    ])
}

/// New connections with one request each.
pub async fn handshakes(peer: Peer, origin: &Origin) -> anyhow::Result<Vec<Figure>> {
    origin.set_rate(u64::MAX);
    let server = peer.start(origin.address(), 64)?;
    let mut figures = Vec::new();
    for (name, tls) in [("full", server.tls("http/1.1")), ("resumed", server.tls_resuming()?)] {
        Agent::connect(&tls, server.address()).await?.fetch(SMALL, |_| ()).await?;
        let load = measure(&server, 16, |_, stop| {
            let (tls, address) = (tls.clone(), server.address());
            async move {
                while !stop.over() {
                    let began = Instant::now();
                    Agent::connect(&tls, address).await?.fetch(SMALL, |_| ()).await?;
                    stop.add_request(began.elapsed());
                }
                Ok(())
            }
        })
        .await?;
        let what = format!("new TLS connection with one request, {name}: ms CPU");
        figures.push(Figure::new(what, load.micros() / 1e3, 3));
    }
    Ok(figures)
}

/// Connections that asked once and stay.
pub async fn idle(peer: Peer, origin: &Origin) -> anyhow::Result<Vec<Figure>> {
    origin.set_rate(u64::MAX);
    let server = peer.start(origin.address(), 64)?;
    let tls = server.tls("http/1.1");
    let open = async |count: usize| -> anyhow::Result<Vec<Agent>> {
        let mut open = Vec::new();
        let mut joining = JoinSet::new();
        for number in 0..count {
            let (tls, address) = (tls.clone(), server.address());
            joining.spawn(async move {
                let mut agent = Agent::connect(&tls, address).await?;
                agent.fetch(SMALL, |_| ()).await?;
                anyhow::Ok(agent)
            });
            if number % 64 == 63 {
                while let Some(agent) = joining.join_next().await {
                    open.push(agent??);
                }
            }
        }
        while let Some(agent) = joining.join_next().await {
            open.push(agent??);
        }
        Ok(open)
    };
    drop(open(64).await?);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = server.memory()?;
    let agents = open(IDLE).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let each = server.memory()?.saturating_sub(before) as f64 / agents.len() as f64 / 1024.0;
    Ok(vec![Figure::new("5,000 idle TLS connections: KiB each", each, 1)])
}

/// What the access log costs at full rate: by turns without and with it, so that a change of the machine hits both.
pub async fn log(origin: &Origin) -> anyhow::Result<Vec<Figure>> {
    origin.set_rate(u64::MAX);
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..5 {
        for (access, costs) in [false, true].into_iter().zip(&mut costs) {
            let node = Node::launch(Setup { access, ..Setup::new(origin.address(), 512) })?;
            costs.push(small(&node).await?.micros());
        }
    }
    let [without, with] = costs.map(|mut costs| {
        costs.sort_by(f64::total_cmp);
        costs.get(costs.len() / 2).copied().unwrap_or_default()
    });
    Ok(vec![
        Figure::new("hot 4 KiB without an access log, median of 5: µs CPU a request", without, 2),
        Figure::new("  the same with one", with, 2),
    ])
}

async fn small(server: &Server) -> anyhow::Result<Load> {
    let tls = server.tls("http/1.1");
    for _ in 0..2 {
        Agent::connect(&tls, server.address()).await?.fetch(SMALL, |_| ()).await?;
    }
    measure(server, 64, |_, stop| keep_asking(server, &tls, |_| SMALL.to_owned(), stop)).await
}
