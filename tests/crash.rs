//! `kill -9` and what is there afterwards: never a wrong byte, no leftovers, and fills that go on where they were.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper that fails is a test that fails, and what was skipped is said"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use waypost::base::clock::{Clock, Timestamp};
use waypost::base::digest::Digest;
use waypost::cache::{Block, Entry, EntryBody, Head, Key};
use waypost::store::{Options, Store};
use waypost::testkit::client::{Answer, Client, End};
use waypost::testkit::content;
use waypost::testkit::origin::Origin;
use waypost::testkit::process::{Dice, Process, Setup, Site, eventually, is_long};
use waypost::testkit::script::{Gate, Hold, Script};

const MIB: u64 = 1 << 20;

/// A file of the origin: its path, seed and length.
#[derive(Clone, Debug)]
struct File {
    path: String,
    seed: u64,
    length: u64,
}

impl File {
    fn tag(&self) -> String {
        format!("\"v{}\"", self.seed)
    }

    fn script(&self) -> Script {
        Script { etag: Some(self.tag()), ..Script::file(self.seed, self.length) }
    }

    /// Whether every byte of `answer` is this file's from `start` on; `whole` bytes where it ended well.
    fn check(&self, answer: &Answer, start: u64, whole: u64) {
        let right = content::piece(self.seed, start, answer.body.len());
        assert!(
            answer.body == right,
            "wrong bytes of {self:?} from {start} on, {} of them",
            answer.body.len()
        );
        assert_eq!(answer.header("etag"), Some(&*self.tag()), "{self:?}");
        if answer.end == End::Complete {
            assert_eq!(answer.body.len() as u64, whole, "{self:?}: a stump that looks whole");
        }
    }
}

/// More than the cache holds, of all sizes that are treated differently: in the record, one block, several, with
/// and without a rest.
fn files() -> Vec<File> {
    let lengths = [700, 16 << 10, (16 << 10) + 1, 300_000, MIB, MIB + 1, 3 * MIB, 5 * MIB + 77, 9 * MIB + 5];
    (0..36)
        .zip(lengths.iter().cycle())
        .map(|(seed, length)| File { path: format!("/o/f{seed}"), seed, length: *length })
        .collect()
}

/// One agent: asks for this and that until the node is gone, and looks at every byte.
async fn load(node: std::net::SocketAddr, files: Arc<Vec<File>>, mut dice: Dice) -> (u64, u64) {
    let (mut answers, mut whole) = (0, 0);
    while let Ok(mut agent) = Client::connect(node).await {
        loop {
            let file = &files[usize::try_from(dice.below(files.len() as u64)).unwrap_or(0)];
            let start = if dice.below(3) == 0 { dice.below(file.length) } else { 0 };
            let (range, tag) = (format!("bytes={start}-"), file.tag());
            let headers = [("range", range.as_str()), ("if-range", tag.as_str())];
            let headers = if start > 0 { &headers[..] } else { &[] };
            let Ok(answer) = agent.get(&file.path, headers).await else { break };
            assert_eq!(answer.status, if start > 0 { 206 } else { 200 }, "{answer:?}");
            file.check(&answer, start, file.length - start);
            answers += 1;
            whole += u64::from(answer.end == End::Complete);
            if answer.end != End::Complete {
                break;
            }
        }
    }
    (answers, whole)
}

/// All regular files below `dir`.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let below = entries.flatten().flat_map(|entry| {
        let path = entry.path();
        if path.is_dir() { files_below(&path) } else { vec![path] }
    });
    below.collect()
}

fn has_leftovers(cache: &Path) -> bool {
    cache.join("tmp.old").exists() || !files_below(&cache.join("tmp")).is_empty()
}

/// What a cache directory has that it should not have, once nothing runs any more.
async fn examine(cache: &Path) {
    let strange = fs::read_dir(cache).expect("a directory").flatten().map(|entry| entry.file_name());
    let strange: Vec<_> = strange
        .filter(|name| !["content-v2", "index.redb", "format", "ballast", "tmp"].iter().any(|it| name == it))
        .collect();
    assert!(strange.is_empty(), "{strange:?}");
    let options = Options { min_free: 0, ..Options::new(cache, 48 * MIB) };
    let store = Store::open(options, Clock::system()).expect("the directory is free");
    eventually("every block on disk is one that a record names", async || {
        let report = store.scrub(u64::MAX).await;
        assert_eq!((report.bad, report.missing), (0, 0), "a kill costs no block that is named");
        report.checked == files_below(&cache.join("content-v2")).len() as u64
    })
    .await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_at_any_moment_costs_no_byte_and_leaves_nothing() {
    let rounds = if is_long() { 50 } else { 12 };
    let dir = tempfile::tempdir().expect("a directory");
    let origin = Origin::start().await;
    let files = Arc::new(files());
    files.iter().for_each(|file| origin.set(&file.path, file.script()));
    origin.set_rate(40 * MIB);
    let site = Site::new(env!("CARGO_BIN_EXE_waypost"), dir.path());
    let setup = Setup { size: "48MiB".to_owned(), ..Setup::new(&site, &origin.url()) };
    site.configure(&setup);
    let mut dice = Dice::seeded(0x9_9_9);
    let (mut took, mut answers, mut whole) = (Vec::new(), 0, 0);
    for round in 0..rounds {
        let node = site.start().await;
        took.push(node.took);
        let agents: Vec<_> =
            (0..6).map(|_| tokio::spawn(load(node.address, Arc::clone(&files), dice.split()))).collect();
        tokio::time::sleep(Duration::from_millis(20 + dice.below(780))).await;
        assert!(!node.said("panicked") && !node.said("damaged"), "{round}: {}", node.log().join("\n"));
        node.kill();
        for agent in agents {
            let (asked, complete) = agent.await.expect("every byte was right");
            (answers, whole) = (answers + asked, whole + complete);
        }
    }
    took.sort();
    let (median, slowest) = (took[took.len() / 2], took[took.len() - 1]);
    println!(
        "{rounds} kills, {answers} answers ({whole} complete); listening after {median:?}, at most {slowest:?}"
    );
    assert!(answers > 0 && whole > 0 && whole < answers, "the kills struck downloads");
    assert!(median <= Duration::from_secs(2), "listening after {median:?}");
    let node = site.start().await;
    eventually("no temporary file is left", async || !has_leftovers(&setup.cache)).await;
    for file in files.iter() {
        let answer = node.get(&file.path, &[]).await;
        assert_eq!((answer.status, answer.end), (200, End::Complete));
        file.check(&answer, 0, file.length);
    }
    assert_eq!(node.metric("waypost_cache_integrity_failures_total{where=\"read\"}").await, 0.0);
    node.stop().await;
    examine(&setup.cache).await;
}

/// A node with a fill that got exactly `at` bytes of a 24 MiB file, and the agent that asked for it.
async fn half_filled(
    site: &Site,
    origin: &Origin,
    file: &File,
    at: u64,
) -> (Process, tokio::task::JoinHandle<Answer>) {
    let hold = Some(Hold { at: Some(at), gate: Gate::default() });
    origin.set(&file.path, Script { hold, ..file.script() });
    let node = site.start().await;
    let mut agent = node.connect().await;
    let path = file.path.clone();
    let download = tokio::spawn(async move { agent.get(&path, &[]).await.expect("a head") });
    eventually("the fill stands", async || node.status().await["fills"][0]["bytes"] == at).await;
    (node, download)
}

#[tokio::test]
async fn a_fill_goes_on_after_a_kill_from_the_blocks_it_had() {
    let dir = tempfile::tempdir().expect("a directory");
    let origin = Origin::start().await;
    let site = Site::new(env!("CARGO_BIN_EXE_waypost"), dir.path());
    site.configure(&Setup::new(&site, &origin.url()));
    let file = File { path: "/o/big".to_owned(), seed: 7, length: 24 * MIB };
    let (node, download) = half_filled(&site, &origin, &file, 12 * MIB + 500_000).await;
    eventually("its progress is on disk", async || node.status().await["cache"]["partials"] == 1).await;
    node.kill();
    let before = download.await.expect("no panic");
    assert!(matches!(before.end, End::Short | End::Reset), "{:?}", before.end);
    file.check(&before, 0, file.length);

    origin.set(&file.path, file.script());
    let asked = origin.counts(&file.path);
    let node = site.start().await;
    let (got, tag) = (before.body.len() as u64, before.header("etag").expect("an ETag").to_owned());
    let range = format!("bytes={got}-");
    let rest = node.get(&file.path, &[("range", &range), ("if-range", &tag)]).await;
    assert_eq!((rest.status, rest.end), (206, End::Complete), "the agent resumes across our restart");
    file.check(&rest, got, file.length - got);
    let counts = origin.counts(&file.path);
    assert_eq!(counts.requests - asked.requests, 1);
    let range = counts.ranges.last().expect("a range");
    let from =
        range.trim_start_matches("bytes=").trim_end_matches('-').parse::<u64>().expect("an open range");
    assert!(from >= 11 * MIB, "only what was missing is fetched: {range}");
    assert!(counts.body_bytes - asked.body_bytes <= 13 * MIB);
    let again = node.get(&file.path, &[]).await;
    assert_eq!(again.end, End::Complete);
    file.check(&again, 0, file.length);
    assert_eq!(origin.counts(&file.path), counts, "and then it is all here");
    node.stop().await;
}

#[tokio::test]
async fn blocks_of_a_file_that_has_changed_are_not_continued() {
    let dir = tempfile::tempdir().expect("a directory");
    let origin = Origin::start().await;
    let site = Site::new(env!("CARGO_BIN_EXE_waypost"), dir.path());
    site.configure(&Setup::new(&site, &origin.url()));
    let old = File { path: "/o/big".to_owned(), seed: 7, length: 8 * MIB };
    let (node, download) = half_filled(&site, &origin, &old, 4 * MIB + 5).await;
    eventually("its progress is on disk", async || node.status().await["cache"]["partials"] == 1).await;
    node.kill();
    let before = download.await.expect("no panic");
    let new = File { seed: 8, ..old.clone() };
    origin.set(&new.path, new.script());
    let node = site.start().await;
    let (got, tag) = (before.body.len(), before.header("etag").expect("an ETag").to_owned());
    let range = format!("bytes={got}-");
    let answer = node.get(&new.path, &[("range", &range), ("if-range", &tag)]).await;
    assert_eq!((answer.status, answer.end), (200, End::Complete), "the agent gets all of the new one");
    new.check(&answer, 0, new.length);
    node.stop().await;
}

/// The key of entry `number` of a full index, and its body where that is in the record.
fn numbered(number: u64) -> (String, Option<bytes::Bytes>) {
    (format!("/o/e/{number}.zip"), number.is_multiple_of(2).then(|| content::piece(number, 0, 64)))
}

/// Fills an index with `entries` entries: half of them small bodies, half of them with the name of a block.
async fn fill_index(cache: &Path, entries: u64) {
    let options = Options { min_free: 0, ..Options::new(cache, 1 << 40) };
    let store = Store::open(options, Clock::system()).expect("an empty directory");
    let now = Clock::system().now();
    for number in 0..entries {
        if number.is_multiple_of(2_000) {
            // The store takes what it can hold until the next commit; more would go unrecorded.
            eventually("a batch is committed", async || store.totals().entries == number).await;
        }
        store.put(entry(number, now));
    }
    store.close().await;
}

fn entry(number: u64, now: Timestamp) -> Entry {
    let (path, body) = numbered(number);
    let digest = Digest::of(body.as_deref().unwrap_or(&number.to_le_bytes()));
    let (length, body) = match body {
        Some(body) => (body.len() as u64, EntryBody::Inline(body)),
        None => (20_000, EntryBody::Blocks(Box::new([Block::unchecked(digest)]))),
    };
    let head = Head {
        status: 200,
        headers: vec![("etag".to_owned(), format!("\"v{number}\"").into_bytes())],
        requested_at: now,
        received_at: now,
        source: "http://127.0.0.1/o/".to_owned(),
        selecting: Vec::new(),
    };
    Entry::new(Key::new("o", &path, None), head, length, digest, body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_listens_at_once_however_many_entries_it_has() {
    let entries = std::env::var("WAYPOST_ENTRIES").ok().and_then(|it| it.parse().ok()).unwrap_or(200_000);
    let dir = tempfile::tempdir().expect("a directory");
    let origin = Origin::start().await;
    let site = Site::new(env!("CARGO_BIN_EXE_waypost"), dir.path());
    let setup = Setup { size: "1TiB".to_owned(), ..Setup::new(&site, &origin.url()) };
    site.configure(&setup);
    let began = std::time::Instant::now();
    fill_index(&setup.cache, entries).await;
    let bytes = fs::metadata(setup.cache.join("index.redb")).expect("an index").len();
    println!("{entries} entries in {:?}, {} bytes of index each", began.elapsed(), bytes / entries);
    // After an orderly end, and after none.
    for round in 0..3 {
        let node = site.start().await;
        let first = std::time::Instant::now();
        let number = entries / 3 / 2 * 2 + 2 * round;
        let (path, body) = numbered(number);
        let answer = node.get(&path, &[]).await;
        assert_eq!((answer.status, Some(answer.body)), (200, body), "round {round}");
        println!("round {round}: listening after {:?}, a hit {:?} later", node.took, first.elapsed());
        assert!(node.took <= Duration::from_secs(2), "{:?}", node.took);
        eventually("it knows what it has", async || node.status().await["cache"]["entries"] == entries).await;
        for number in (0..entries).step_by(usize::try_from(entries / 1_000).unwrap_or(1)) {
            let (path, Some(body)) = numbered(number / 2 * 2) else { continue };
            assert_eq!(node.get(&path, &[]).await.body, body, "{path}");
        }
        let resident = node.resident();
        println!("resident: {} MiB, {} bytes an entry", resident >> 20, resident / entries);
        assert!(resident < 160 << 20, "memory does not grow with the entries: {resident}");
        assert!(!node.said("damaged"), "{}", node.log().join("\n"));
        if round < 2 { node.kill() } else { node.stop().await }
    }
    assert_eq!(origin.connections(), 0);
}
