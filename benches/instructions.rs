//! What a hit costs in instructions: `cargo bench --bench instructions [-- bless]`. Takes valgrind, and a minute or two.
//!
//! Wall time on a shared machine says little about a change of some percent; instructions in user space repeat within
//! two percent. `benches/instructions.txt` has the figures that were found good, and this program fails when one of them is
//! exceeded by more than 3 %, the least of three counts: then `bless` writes the new figures, and the commit says why. They
//! hold for the compiler they were counted with; with another one, only the comparison is left out.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the table is what this program is for")]
#![expect(unreachable_pub, reason = "a program; nothing of it can be reached")]
#![allow(dead_code, reason = "the parts are shared with the other bench")]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use waypost::base::digest::Digest;
use waypost::testkit::origin::Origin as Listing;
use waypost::testkit::script::Script;

use support::agent::{Agent, connect};
use support::node::{Node, Setup};
use support::origin::Origin;

/// How far a count may be from the one on record.
const TOLERANCE: f64 = 0.03;
const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if !words.iter().any(|word| word == "--bench") {
        return Ok(());
    }
    ensure!(Command::new("valgrind").arg("--version").output().is_ok(), "valgrind is not installed");
    let bless = words.iter().any(|word| word == "bless");
    let record = if bless { String::new() } else { fs::read_to_string(RECORD).context(RECORD)? };
    let known = |name: &str| {
        record.lines().find_map(|line| line.trim().strip_suffix(name)?.trim().parse::<u64>().ok())
    };
    let counts = tokio::runtime::Runtime::new()?.block_on(count_all(&known))?;
    let compiler = compiler()?;
    let mut text = format!(
        "# Instructions in user space of one request, counted by `cargo bench --bench instructions`.\n{compiler}\n"
    );
    for (name, count) in &counts {
        writeln!(text, "{count:>8} {name}")?;
    }
    if bless {
        print!("{text}");
        return Ok(fs::write(RECORD, text)?);
    }
    let same = record.lines().any(|line| line == compiler);
    if !same {
        println!("counted with {compiler}; the record is of another compiler, so nothing is compared");
    }
    let mut wrong = Vec::new();
    for (name, count) in &counts {
        let known = known(name).with_context(|| format!("{RECORD} does not have: {name}"))?;
        let change = *count as f64 / known as f64 - 1.0;
        println!("{name:<40} {count:>8} instructions, {:+.1} % against the record", change * 100.0);
        if same && exceeds(*count, known) {
            wrong.push(name.as_str());
        } else if change < -TOLERANCE {
            println!("{:<40} better than the record: bless it", "");
        }
    }
    ensure!(
        wrong.is_empty(),
        "more than 3 % above the record: {}. If that is meant: \
         `cargo bench --bench instructions -- bless`, and say why in the commit",
        wrong.join(", ")
    );
    Ok(())
}

fn exceeds(count: u64, known: u64) -> bool {
    count as f64 > known as f64 * (1.0 + TOLERANCE)
}

fn compiler() -> anyhow::Result<String> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let out = Command::new(rustc).arg("--version").output()?;
    Ok(String::from_utf8(out.stdout)?.trim().to_owned())
}

/// The counts of all cases. One that seems to exceed what is `known` is counted again: what else a node does in the
/// meantime only ever adds to it.
async fn count_all(known: &dyn Fn(&str) -> Option<u64>) -> anyhow::Result<Vec<(String, u64)>> {
    let origin = Origin::start(Duration::ZERO).await?;
    let listing = Listing::start().await;
    let body = Bytes::from(vec![7; 4_096]);
    listing.set("/o/small", Script::text(body.clone()));
    listing.set("/o/SHA256SUMS", Script::text(format!("{}  small\n", Digest::of(&body))));
    let ordinary = || Setup { counted: true, ..Setup::new(origin.address(), 64) };
    let listed =
        || Setup { upstream: format!("{}o/", listing.url()), repository: "checksums = true\n", ..ordinary() };
    let passive = || Setup {
        repository: "[[repository.rule]]\nmatch = \"**\"\nimmutable = true\n[agents]\nstate_dir = \"state\"\npassive = true\n",
        ..ordinary()
    };
    let mut counts = Vec::new();
    for (name, path, setup, ask) in [
        (
            "4 KiB, HTTP/1.1",
            "/o/4096/small",
            &ordinary as &dyn Fn() -> Setup,
            Ask { http2: false, many: 1_000 },
        ),
        ("4 KiB, HTTP/2", "/o/4096/small", &ordinary, Ask { http2: true, many: 1_000 }),
        (
            "4 KiB, access log",
            "/o/4096/small",
            &|| Setup { access: true, ..ordinary() },
            Ask { http2: false, many: 1_000 },
        ),
        ("4 KiB, passive agents", "/o/4096/small", &passive, Ask { http2: false, many: 1_000 }),
        ("4 KiB, listed", "/o/small", &listed, Ask { http2: false, many: 1_000 }),
        ("16 MiB, HTTP/1.1", "/o/16777216/large", &ordinary, Ask { http2: false, many: 5 }),
    ] {
        let mut least = u64::MAX;
        for _ in 0..3 {
            let few = count(setup(), path, ask, ask.many / 2).await?;
            let many = count(setup(), path, ask, ask.many / 2 + ask.many).await?;
            least = least.min(many.saturating_sub(few) / u64::from(ask.many));
            if known(name).is_none_or(|known| !exceeds(least, known)) {
                break;
            }
        }
        eprintln!("{name}: {least}");
        counts.push((name.to_owned(), least));
    }
    Ok(counts)
}

/// How something is asked for.
#[derive(Clone, Copy)]
struct Ask {
    http2: bool,
    /// How many requests more the second run has.
    many: u32,
}

/// Instructions of a node from its start to its end, with so many requests between.
async fn count(setup: Setup, path: &str, ask: Ask, requests: u32) -> anyhow::Result<u64> {
    let node = Node::launch(setup)?;
    if ask.http2 {
        let stream = TokioIo::new(connect(&node.tls("h2"), node.address()).await?);
        let (mut requester, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
        let connection = tokio::spawn(connection);
        for _ in 0..requests {
            let request = http::Request::get(format!("https://localhost{path}"))
                .body(http_body_util::Empty::<Bytes>::new())?;
            let reply = requester.send_request(request).await?;
            ensure!(reply.status() == http::StatusCode::OK, "{}", reply.status());
            http_body_util::BodyExt::collect(reply.into_body()).await?;
        }
        drop(requester);
        connection.await??;
    } else {
        let mut agent =
            Agent::connect(&node.tls("http/1.1"), node.address()).await.context("a connection")?;
        for _ in 0..requests {
            agent.fetch(path, |_| ()).await?;
        }
    }
    node.instructions()
}
