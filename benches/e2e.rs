//! Real servers under load: `cargo bench --bench e2e [-- SCENE… [PEER…]]`.
//!
//! Every figure is measured from outside: processor time and memory of all processes of a server from `/proc`, requests and
//! bytes at the origin, times and hashes at the agents. Agents and origin share the machine with the server, so rates and
//! the last agent depend on them too; processor time a request and a GB hardly does.
//!
//! Scenes are `hot disk handshakes idle herd thousand late gone broken entries eviction log operate` (all but `thousand`
//! when none is named). Peers are `waypost` (alone when none is named), `nginx varnish ats squid pingora bare`, or `peers` for
//! all that are installed; they are measured by turns. `E2E_SECONDS` (5) sets how long rates are measured, `E2E_RUNS` (1) how
//! often everything is done: the table has the medians.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the table is what this program is for")]
#![expect(unreachable_pub, reason = "a program; nothing of it can be reached")]
#![allow(dead_code, reason = "the parts are shared with the other bench")]

mod scenes;
mod support;

use anyhow::bail;

use scenes::{cold, entries, hot, operate};
use support::origin::Origin;
use support::peers::Peer;
use support::table::{Figure, Table};

/// What every server can be put through, and what only ours.
const FOR_ALL: [&str; 9] =
    ["hot", "disk", "handshakes", "idle", "herd", "thousand", "late", "gone", "broken"];
const FOR_US: [&str; 4] = ["entries", "eviction", "log", "operate"];

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1).peekable();
    if words.next_if(|word| word == "bare").is_some() {
        return support::bare::main(words);
    }
    let words: Vec<String> = words.collect();
    // `cargo test --benches` runs this too, without the word; it takes minutes and proves nothing there.
    if !words.iter().any(|word| word == "--bench") {
        return Ok(());
    }
    let Wanted { scenes, peers } = Wanted::from(&words)?;
    allow_descriptors()?;
    let runs = std::env::var("E2E_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    tokio::runtime::Runtime::new()?.block_on(async {
        let origin = Origin::start(cold::DELAY).await?;
        let mut table = Table::default();
        for run in 1..=runs {
            for scene in &scenes {
                for &peer in &peers {
                    if FOR_US.contains(scene) && peer != Peer::Waypost || needs_origin(scene, peer) {
                        continue;
                    }
                    eprintln!("run {run} of {runs}: {scene}, {}", peer.name());
                    match act(scene, peer, &origin).await {
                        Ok(figures) => table.add(peer.name(), figures),
                        Err(error) => eprintln!("{scene}, {}: {error:#}", peer.name()),
                    }
                }
            }
        }
        println!("{}", table.render());
        Ok(())
    })
}

/// Whether a scene is about fetching, and this server does not fetch.
fn needs_origin(scene: &str, peer: Peer) -> bool {
    !peer.caches() && !matches!(scene, "hot" | "handshakes" | "idle")
}

async fn act(scene: &str, peer: Peer, origin: &Origin) -> anyhow::Result<Vec<Figure>> {
    match scene {
        "hot" => hot::hot(peer, origin).await,
        "disk" => hot::disk(peer, origin).await,
        "handshakes" => hot::handshakes(peer, origin).await,
        "idle" => hot::idle(peer, origin).await,
        "herd" => cold::herd(peer, origin, 200).await,
        "thousand" => cold::herd(peer, origin, 1_000).await,
        "late" => cold::late(peer, origin).await,
        "gone" => cold::gone(peer, origin).await,
        "broken" => cold::broken(peer, origin).await,
        "entries" => entries::entries().await,
        "eviction" => entries::eviction(origin).await,
        "log" => hot::log(origin).await,
        "operate" => operate::operate().await,
        other => bail!("no scene {other}"),
    }
}

/// What the command line asks for.
struct Wanted {
    scenes: Vec<&'static str>,
    peers: Vec<Peer>,
}

impl Wanted {
    fn from(words: &[String]) -> anyhow::Result<Self> {
        let (mut scenes, mut peers) = (Vec::new(), Vec::new());
        for word in words.iter().filter(|word| !word.starts_with('-')) {
            if let Some(scene) = FOR_ALL.into_iter().chain(FOR_US).find(|scene| scene == word) {
                scenes.push(scene);
            } else if let Some(peer) = Peer::ALL.into_iter().find(|peer| peer.name() == word) {
                peers.push(peer);
            } else if word == "peers" {
                peers.extend(Peer::ALL);
            } else {
                bail!("{word} is neither a scene ({} {}) nor a peer", FOR_ALL.join(" "), FOR_US.join(" "));
            }
        }
        if scenes.is_empty() {
            scenes.extend(FOR_ALL.into_iter().chain(FOR_US).filter(|scene| *scene != "thousand"));
        }
        if peers.is_empty() {
            peers.push(Peer::Waypost);
        }
        peers.retain(|peer| match peer.missing() {
            None => true,
            Some(program) => {
                eprintln!("SKIPPED: {}: {program} is not there", peer.name());
                false
            }
        });
        Ok(Self { scenes, peers })
    }
}

/// A thousand agents are a thousand sockets here. Servers inherit the limit, as from systemd.
fn allow_descriptors() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}
