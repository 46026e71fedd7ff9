//! A block that went bad on disk: fetched again before a reader sees it, and nothing else is lost over it.

#![expect(clippy::expect_used, reason = "a helper that fails is a test that fails")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use waypost::app::Node;
use waypost::config;
use waypost::server::Phase;
use waypost::testkit::client::{Answer, Client, End};
use waypost::testkit::content;
use waypost::testkit::origin::Origin;
use waypost::testkit::script::{How, Script};

const FILE: &str = "/Software/DAT/avv.zip";
const SEED: u64 = 7;
const BLOCK: u64 = 1 << 20;
const LENGTH: u64 = 6 * BLOCK + 12_345;

async fn start(origin: &Origin, dir: &Path) -> Node {
    let text = format!(
        "[server]\nplain_listen = \"127.0.0.1:0\"\n[cache]\ndir = \"cache\"\nsize = \"64MiB\"\nmin_free = \"0B\"\n\
         [[repository]]\nname = \"software\"\npath = \"/Software/\"\nupstreams = [\"{}Software/\"]\n\
         [[repository.rule]]\nmatch = \"**\"\nimmutable = true\n",
        origin.url()
    );
    let (config, _) = config::check_text("waypost.toml", &text, dir).expect("a configuration");
    Node::start(&config).await.expect("a node")
}

async fn stop(node: Node) {
    node.order(Phase::Stop);
    node.ended().await.expect("an end");
}

async fn fetch(node: &Node) -> Answer {
    let address = *node.plain.first().expect("an address");
    let mut agent = Client::connect(address).await.expect("a connection");
    agent.get(FILE, &[]).await.expect("an answer")
}

fn is_complete(answer: &Answer) -> bool {
    answer.end == End::Complete
}

/// Fetches until it is stored: an agent is done before the last block is on disk.
async fn store(node: &Node) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = fetch(node).await;
        assert!(is_complete(&answer), "{:?}", answer.end);
        if answer.header("cache-status").is_some_and(|it| it.contains("; hit")) {
            return;
        }
        assert!(Instant::now() < deadline, "never stored");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Damages the block that is the third of the file, wherever the store put it.
fn damage(cache: &Path) {
    let third = content::piece(SEED, 2 * BLOCK, 1 << 20);
    let (mut open, mut found) = (vec![cache.to_owned()], None::<PathBuf>);
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(path).expect("a directory").collect::<io::Result<Vec<_>>>();
            open.extend(entries.expect("entries").iter().map(fs::DirEntry::path));
        } else if fs::read(&path).is_ok_and(|bytes| bytes == third) {
            found = Some(path);
        }
    }
    let mut bytes = third.to_vec();
    bytes.iter_mut().skip(5_000).take(1).for_each(|byte| *byte ^= 1);
    fs::write(found.expect("the block"), bytes).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_block_is_fetched_again_and_a_dead_wan_costs_only_that_block() {
    let (origin, dir) = (Origin::start().await, tempfile::tempdir().expect("a directory"));
    let good = Script::file(SEED, LENGTH);
    origin.set(FILE, good.clone());
    let node = start(&origin, dir.path()).await;
    store(&node).await;
    stop(node).await;

    damage(&dir.path().join("cache"));
    origin.set(FILE, good.clone().breaking(2 * BLOCK + 1_000, How::Reset, usize::MAX));
    let node = start(&origin, dir.path()).await;
    for _ in 0..2 {
        let answer = fetch(&node).await;
        assert!(!is_complete(&answer), "a stump may not look whole: {:?}", answer.end);
        assert_eq!(answer.body, content::whole(SEED, answer.body.len()), "what was sent is right");
        assert!(answer.body.len() as u64 >= 2 * BLOCK, "the good blocks before it are still there");
    }

    let before = origin.counts(FILE).body_bytes;
    origin.set(FILE, good);
    // The upstream may be in back-off for some seconds.
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut answer = fetch(&node).await;
    while !is_complete(&answer) {
        assert!(Instant::now() < deadline, "never healed: {:?}", answer.end);
        tokio::time::sleep(Duration::from_millis(100)).await;
        answer = fetch(&node).await;
    }
    assert_eq!(answer.body, content::whole(SEED, usize::try_from(LENGTH).expect("small")));
    assert_eq!(origin.counts(FILE).body_bytes - before, BLOCK, "one block crossed the WAN, not the file");
    stop(node).await;
}
