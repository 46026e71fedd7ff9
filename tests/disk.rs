//! A disk that lies, fills up, or takes no writes: agents get right bytes all the same.
//!
//! Tests with file systems of their own need root; elsewhere they say that they were skipped, and under `CI` fail.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a helper that fails is a test that fails, and what was skipped is said"
)]

use std::fs;
use std::future::poll_fn;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use waypost::testkit::client::End;
use waypost::testkit::content;
use waypost::testkit::process::{Dice, Process, eventually, is_long};
use waypost::testkit::script::Script;
use waypost::testkit::stage::Stage;

const MIB: u64 = 1 << 20;
const BLOCK: usize = 1 << 20;

const WAYPOST: &str = env!("CARGO_BIN_EXE_waypost");

/// GETs a file and looks at every byte.
async fn get(node: &Process, seed: u64, length: u64) {
    let answer = node.get(&format!("/o/f{seed}"), &[]).await;
    assert_eq!((answer.status, answer.end), (200, End::Complete), "file {seed}: {}", node.log().join("\n"));
    assert!(
        answer.body == content::whole(seed, usize::try_from(length).expect("small")),
        "wrong bytes of {seed}"
    );
}

/// Several agents at once for one file, all of them right.
async fn herd(node: &Process, seed: u64, length: u64) {
    let mut agents: Vec<_> = (0..8).map(|_| Some(Box::pin(get(node, seed, length)))).collect();
    poll_fn(|cx| {
        for agent in &mut agents {
            if agent.as_mut().is_some_and(|agent| agent.as_mut().poll(cx).is_ready()) {
                *agent = None;
            }
        }
        if agents.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn flip(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt as _;
    let file = fs::File::options().read(true).write(true).open(path).expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0x10], at).expect("a byte");
}

const FAILURES: &str = "waypost_cache_integrity_failures_total{where=\"read\"}";
const HEALED: &str = "waypost_blocks_healed_total{how=\"healed\"}";

/// Damages blocks of a 5 MiB file between two runs; `bad` of them must be fetched again, each by its range alone.
async fn damage_between_runs(bad: &[usize], damage: impl FnOnce(&Stage)) {
    const LENGTH: u64 = 5 * MIB + 77;
    let stage = Stage::new(WAYPOST).await;
    let path = stage.file(1, LENGTH);
    let node = stage.site.start().await;
    get(&node, 1, LENGTH).await;
    node.stop().await;
    damage(&stage);
    let node = stage.site.start().await;
    get(&node, 1, LENGTH).await;
    let end = |index: usize| (LENGTH as usize).min((index + 1) * BLOCK) - 1;
    let asked: Vec<_> = bad.iter().map(|index| format!("bytes={}-{}", index * BLOCK, end(*index))).collect();
    let counts = stage.origin.counts(&path);
    assert_eq!((counts.ranges, counts.requests), (asked, 1 + bad.len()));
    assert_eq!(node.metric(FAILURES).await, bad.len() as f64);
    assert_eq!(node.metric(HEALED).await, bad.len() as f64);
    get(&node, 1, LENGTH).await;
    node.stop().await;
    // What was healed is healed on disk.
    let node = stage.site.start().await;
    get(&node, 1, LENGTH).await;
    assert_eq!(node.metric(FAILURES).await, 0.0);
    assert_eq!(stage.origin.counts(&path).requests, 1 + bad.len());
    node.stop().await;
}

#[tokio::test]
async fn a_flipped_bit_costs_one_block_over_the_wan_and_no_agent_sees_it() {
    damage_between_runs(&[3], |stage| flip(&stage.block(1, 5 * BLOCK + 77, 3), 500_000)).await;
}

#[tokio::test]
async fn a_truncated_block_is_fetched_again() {
    damage_between_runs(&[0, 5], |stage| {
        for index in [0, 5] {
            let file =
                fs::File::options().write(true).open(stage.block(1, 5 * BLOCK + 77, index)).expect("a block");
            file.set_len(13).expect("it can be cut");
        }
    })
    .await;
}

#[tokio::test]
async fn swapped_blocks_are_fetched_again() {
    damage_between_runs(&[1, 2], |stage| {
        let [one, two] = [1, 2].map(|index| stage.block(1, 5 * BLOCK + 77, index));
        let aside = stage.home.path("aside");
        fs::rename(&one, &aside).and_then(|()| fs::rename(&two, &one)).expect("a block can be moved");
        fs::rename(&aside, &two).expect("a block can be moved");
    })
    .await;
}

#[tokio::test]
async fn deleted_and_replaced_blocks_are_fetched_again() {
    damage_between_runs(&[0, 2, 4], |stage| {
        let path = |index| stage.block(1, 5 * BLOCK + 77, index);
        fs::remove_file(path(0)).expect("a block can be removed");
        fs::remove_dir_all(path(2).parent().expect("a directory")).expect("a directory can be removed");
        fs::remove_file(path(4)).expect("a block can be removed");
        fs::create_dir(path(4)).expect("something else can be in its place");
    })
    .await;
}

#[tokio::test]
async fn a_disk_that_rots_under_a_running_node_is_noticed() {
    const LENGTH: u64 = 12 * MIB;
    let stage = Stage::new(WAYPOST).await;
    let path = stage.file(1, LENGTH);
    let node = stage.site.start().await;
    // More than memory holds; every block was read from disk by then and its checksums are known.
    for _ in 0..3 {
        get(&node, 1, LENGTH).await;
    }
    for index in 0..12 {
        flip(&stage.block(1, LENGTH as usize, index), 1_000 + index as u64);
    }
    for _ in 0..3 {
        get(&node, 1, LENGTH).await;
    }
    let counts = stage.origin.counts(&path);
    let found = node.metric(FAILURES).await;
    assert!(
        found >= 3.0 && counts.ranges.len() as f64 == found,
        "{found} found, fetched {:?}",
        counts.ranges
    );
    node.stop().await;
}

/// The scrub was in the store, and no node ever started it: rot was found when the file was needed.
#[tokio::test]
async fn rot_that_nobody_reads_is_found_by_the_scrub_and_healed_by_the_next_reader() {
    const LENGTH: u64 = 5 * MIB;
    const SCRUBBED: &str = "waypost_cache_integrity_failures_total{where=\"scrub\"}";
    let stage = Stage::new(WAYPOST).await;
    let path = stage.file(1, LENGTH);
    let node = stage.site.start().await;
    get(&node, 1, LENGTH).await;
    node.stop().await;
    flip(&stage.block(1, LENGTH as usize, 3), 77);
    let node = stage.site.start().await;
    eventually("the scrub finds it", async || node.metric(SCRUBBED).await == 1.0).await;
    assert!(!stage.block(1, LENGTH as usize, 3).exists(), "what is bad is not kept");
    eventually("all of it was read", async || {
        node.metric("waypost_cache_scrubbed_bytes_total").await == LENGTH as f64
    })
    .await;
    assert_eq!(stage.requests(std::slice::from_ref(&path)), 1, "nobody reads it, so nothing is fetched");
    get(&node, 1, LENGTH).await;
    let range = format!("bytes={}-{}", 3 * MIB, 4 * MIB - 1);
    assert_eq!(stage.origin.counts(&path).ranges, [range], "the block and nothing else");
    node.stop().await;
    let node = stage.site.start().await;
    get(&node, 1, LENGTH).await;
    assert_eq!(stage.requests(&[path]), 2, "healed on disk");
    node.stop().await;
}

#[tokio::test]
async fn a_bad_block_that_cannot_be_fetched_breaks_the_transfer_visibly() {
    const LENGTH: u64 = 5 * MIB;
    let stage = Stage::new(WAYPOST).await;
    let path = stage.file(1, LENGTH);
    let node = stage.site.start().await;
    get(&node, 1, LENGTH).await;
    node.stop().await;
    flip(&stage.block(1, LENGTH as usize, 2), 0);
    stage.origin.set(&path, Script::status(500, &[]));
    let node = stage.site.start().await;
    let answer = node.get(&path, &[]).await;
    assert!(matches!(answer.end, End::Short | End::Reset), "{:?}", answer.end);
    assert!(answer.body == content::whole(1, answer.body.len()), "what came was right");
    assert!(answer.body.len() <= 2 * BLOCK);
    stage.file(1, LENGTH);
    get(&node, 1, LENGTH).await;
    node.stop().await;
}

/// Runs a node on a cache of 40 files whose index was damaged, and compares all of them.
async fn damage_index(stage: &Stage, what: &str, damage: impl FnOnce(&Path)) {
    let lengths = |seed: u64| [300, 9_000, 70_000, MIB + 5][usize::try_from(seed % 4).unwrap_or(0)];
    let full = stage.home.path("full");
    if !full.exists() {
        (0..40).for_each(|seed| drop(stage.file(seed, lengths(seed))));
        let node = stage.site.start().await;
        for seed in 0..40 {
            get(&node, seed, lengths(seed)).await;
        }
        node.stop().await;
        fs::rename(stage.cache(), &full).expect("a directory can be moved");
    }
    let _ = fs::remove_dir_all(stage.cache());
    let copied = Command::new("cp").arg("-r").args([&full, stage.cache()]).status().expect("cp runs");
    assert!(copied.success());
    damage(&stage.cache().join("index.redb"));
    for round in ["first", "second"] {
        let node = stage.site.start().await;
        for seed in 0..40 {
            let answer = node.get(&format!("/o/f{seed}"), &[]).await;
            assert_eq!(answer.status, 200, "{what}, {round}: {answer:?}");
            let right = content::whole(seed, answer.body.len());
            assert!(answer.body == right, "{what}, {round}: wrong bytes of {seed}");
            assert_eq!(answer.header("etag"), Some("\"v1\""), "{what}, {round}: {seed}");
            // A break that an agent sees is allowed where damage is found on the way, once.
            if answer.end != End::Complete {
                get(&node, seed, lengths(seed)).await;
            } else {
                assert_eq!(answer.body.len() as u64, lengths(seed), "{what}, {round}: a stump of {seed}");
            }
        }
        node.stop_whatever_it_said().await;
    }
}

#[tokio::test]
async fn a_damaged_index_costs_fetches_and_nothing_else() {
    let stage = Stage::new(WAYPOST).await;
    damage_index(&stage, "deleted", |index| fs::remove_file(index).expect("it can be removed")).await;
    damage_index(&stage, "empty", |index| fs::write(index, "").expect("it can be emptied")).await;
    damage_index(&stage, "text", |index| fs::write(index, "not an index").expect("it can be written")).await;
    damage_index(&stage, "a directory", |index| {
        fs::remove_file(index).and_then(|()| fs::create_dir(index)).expect("it can be replaced");
    })
    .await;
    for part in 1..4 {
        damage_index(&stage, &format!("cut to {part}/4"), |index| {
            let file = fs::File::options().write(true).open(index).expect("an index");
            let len = file.metadata().expect("it has a length").len();
            file.set_len(len * part / 4).expect("it can be cut");
        })
        .await;
    }
    let mut dice = Dice::seeded(4_711);
    for round in 0..if is_long() { 40 } else { 8 } {
        let flips = 1 << dice.below(11);
        damage_index(&stage, &format!("round {round}: {flips} flips"), |index| {
            let len = fs::metadata(index).expect("an index").len();
            (0..flips).for_each(|_| flip(index, dice.below(len)));
        })
        .await;
    }
}

#[tokio::test]
async fn eviction_keeps_the_directory_below_its_size() {
    const SIZE: u64 = 32 * MIB;
    let mut stage = Stage::new(WAYPOST).await;
    stage.setup.size = "32MiB".to_owned();
    stage.site.configure(&stage.setup);
    let node = stage.site.start().await;
    let mut most = 0;
    for seed in 0..60 {
        let length = [200, 40_000, 3 * MIB + 1, 9 * MIB][usize::try_from(seed % 4).unwrap_or(0)];
        stage.file(seed, length);
        get(&node, seed, length).await;
        most = most.max(size_of(&stage.cache().join("content-v2")));
    }
    assert!(most <= SIZE, "{most} bytes of blocks");
    eventually("something was evicted", async || {
        node.metric("waypost_cache_evictions_total{reason=\"size\"}").await > 10.0
    })
    .await;
    let all = size_of(stage.cache());
    println!("at most {most} bytes of blocks, {all} bytes in all at the end, limit {SIZE}");
    assert!(node.metric("waypost_cache_size_bytes").await <= SIZE as f64);
    node.stop().await;
}

/// Bytes that a directory takes on disk.
fn size_of(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size_of(&entry.path()),
            // It may go while we look.
            meta => meta.map_or(0, |meta| meta.blocks() * 512),
        })
        .sum()
}

/// A file system of its own on a directory. Dropping it takes it away.
struct Mount(PathBuf);

impl Mount {
    /// A file system in memory on `dir`, or `None` where we may not mount.
    fn tmpfs(dir: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(dir).expect("a directory");
        let root = rustix::process::geteuid().is_root();
        let done = root && mount(&["-t", "tmpfs", "-o", options, "tmpfs"], dir);
        if !done {
            println!("SKIPPED: mounting needs root and CAP_SYS_ADMIN");
            assert!(std::env::var_os("CI").is_none(), "this test may not be skipped in CI");
        }
        done.then(|| Self(dir.to_owned()))
    }

    fn remount(&self, how: &str) {
        assert!(mount(&["-o", &format!("remount,{how}")], &self.0), "remount {how}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: the node may still have files open when a test panics.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(words: &[&str], dir: &Path) -> bool {
    Command::new("mount").args(words).arg(dir).status().is_ok_and(|status| status.success())
}

/// Twelve files of a block each, in the cache.
async fn twelve(stage: &Stage, node: &Process) -> Vec<String> {
    let mut paths = Vec::new();
    for seed in 0..12 {
        paths.push(stage.file(seed, MIB));
        get(node, seed, MIB).await;
    }
    eventually("they are committed", async || node.metric("waypost_cache_objects").await == 12.0).await;
    paths
}

/// Misses stream through, and once for all that ask; `seeds` are files nobody asked for before.
async fn misses_stream_through(stage: &Stage, node: &Process, seeds: std::ops::Range<u64>) {
    stage.origin.set_rate(16 * MIB);
    for seed in seeds {
        let path = stage.file(seed, 3 * MIB + 5);
        herd(node, seed, 3 * MIB + 5).await;
        assert_eq!(stage.origin.counts(&path).concurrent, 1, "one fetch at a time, whoever asks");
        assert_eq!(stage.origin.counts(&path).requests, 1);
    }
    stage.origin.set_rate(0);
}

/// New files are stored again, without a restart; `seed` is where unused ones begin.
async fn stores_again(stage: &Stage, node: &Process, mut seed: u64) {
    eventually("new files are stored again", async || {
        seed += 1;
        let path = stage.file(seed, 2 * MIB);
        get(node, seed, 2 * MIB).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        get(node, seed, 2 * MIB).await;
        let stored = fs::metadata(stage.block(seed, 2 * BLOCK, 1)).is_ok();
        stored && stage.origin.counts(&path).requests == 1
    })
    .await;
    eventually("and it says so", async || node.status().await["cache"]["degraded"].is_null()).await;
}

/// Takes whatever is free, as long as it lives: bytes, or files.
struct Hog {
    stop: Arc<AtomicBool>,
    sated: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
    dir: PathBuf,
}

impl Hog {
    fn on(
        dir: &Path,
        first: impl FnOnce(&Path) + Send + 'static,
        take: impl Fn(&Path, u64) -> std::io::Result<()> + Send + 'static,
    ) -> Self {
        let (stop, sated, dir) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default(), dir.join("foreign"));
        fs::create_dir_all(&dir).expect("a directory");
        let (ended, full, into) = (Arc::clone(&stop), Arc::clone(&sated), dir.clone());
        let thread = std::thread::spawn(move || {
            let mut number = 0;
            first(&into);
            while !ended.load(Ordering::Relaxed) {
                match take(&into, number) {
                    Ok(()) => number += 1,
                    Err(_) => {
                        full.store(true, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            }
        });
        Self { stop, sated, thread: Some(thread), dir }
    }

    /// Whether there was nothing left to take at some moment.
    fn is_sated(&self) -> bool {
        self.sated.load(Ordering::Relaxed)
    }

    fn of_bytes(dir: &Path) -> Self {
        // Nearly all of it at once, as an accident does it; to who grows slowly the cache gives way.
        let first = |dir: &Path| {
            let free = rustix::fs::statvfs(dir).map_or(0, |it| it.f_bavail * it.f_frsize);
            let file = fs::File::create(dir.join("first")).expect("a file");
            let flags = rustix::fs::FallocateFlags::empty();
            let taken = rustix::fs::fallocate(&file, flags, 0, free.saturating_sub(256 << 10).max(1));
            taken.expect("there is room");
        };
        Self::on(dir, first, |dir, number| {
            let mut file = fs::File::create(dir.join(number.to_string()))?;
            file.write_all(&[7; 64 << 10])
        })
    }

    fn of_files(dir: &Path) -> Self {
        Self::on(dir, |_| (), |dir, number| fs::File::create_new(dir.join(number.to_string())).map(drop))
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Hits go on and misses stream through while `hog` has taken all there is; afterwards files are stored again.
async fn survives(options: &str, hog: fn(&Path) -> Hog) {
    let mut stage = Stage::new(WAYPOST).await;
    let Some(mount) = Mount::tmpfs(stage.cache(), options) else { return };
    stage.setup.size = "1GiB".to_owned();
    stage.site.configure(&stage.setup);
    let node = stage.site.start().await;
    let paths = twelve(&stage, &node).await;
    let hog = hog(stage.cache());
    eventually("the disk is full", async || hog.is_sated()).await;
    for _ in 0..2 {
        for seed in 0..12 {
            get(&node, seed, MIB).await;
        }
    }
    assert_eq!(stage.requests(&paths), 12, "every hit is one");
    misses_stream_through(&stage, &node, 100..104).await;
    let degraded = node.status().await["cache"]["degraded"].clone();
    for seed in 0..12 {
        get(&node, seed, MIB).await;
    }
    assert_eq!(degraded, "disk-full");
    assert_eq!(stage.requests(&paths), 12, "no miss has cost a hit");
    assert_eq!(node.metric("waypost_cache_objects").await, 12.0);
    assert_eq!(node.ask("/livez").await.status, 200);
    drop(hog);
    stores_again(&stage, &node, 1_000).await;
    node.stop().await;
    let node = stage.site.start().await;
    for seed in 0..12 {
        get(&node, seed, MIB).await;
    }
    node.stop().await;
    drop(mount);
}

#[tokio::test]
async fn a_full_disk_stops_nobody() {
    survives("size=48m", Hog::of_bytes).await;
}

#[tokio::test]
async fn a_disk_without_inodes_stops_nobody() {
    survives("size=48m,nr_inodes=300", Hog::of_files).await;
}

/// A cache on a file system of its own that is smaller than the size it was given: no accident, and no reason to stop.
#[tokio::test]
async fn a_cache_that_fills_its_disk_by_itself_goes_on_storing() {
    let mut stage = Stage::new(WAYPOST).await;
    let Some(mount) = Mount::tmpfs(stage.cache(), "size=48m") else { return };
    stage.setup.size = "1GiB".to_owned();
    stage.site.configure(&stage.setup);
    let node = stage.site.start().await;
    for seed in 0..60 {
        stage.file(seed, 2 * MIB);
        get(&node, seed, 2 * MIB).await;
        let degraded = node.status().await["cache"]["degraded"].clone();
        assert!(degraded.is_null(), "{degraded} after {seed}");
    }
    eventually("the last one is stored", async || stage.block(59, 2 * BLOCK, 1).exists()).await;
    assert!(node.metric("waypost_cache_evictions_total{reason=\"disk\"}").await > 30.0);
    node.stop().await;
    drop(mount);
}

#[tokio::test]
async fn a_disk_that_is_full_from_the_start_stops_nobody() {
    let mut stage = Stage::new(WAYPOST).await;
    let Some(mount) = Mount::tmpfs(stage.cache(), "size=24m") else { return };
    stage.setup.size = "1GiB".to_owned();
    stage.site.configure(&stage.setup);
    let hog = Hog::of_bytes(stage.cache());
    eventually("the disk is full", async || hog.is_sated()).await;
    let node = stage.site.start().await;
    misses_stream_through(&stage, &node, 100..103).await;
    drop(hog);
    stores_again(&stage, &node, 1_000).await;
    node.stop().await;
    drop(mount);
}

#[tokio::test]
async fn a_read_only_disk_stops_nobody() {
    let mut stage = Stage::new(WAYPOST).await;
    let Some(mount) = Mount::tmpfs(stage.cache(), "size=64m") else { return };
    stage.setup.size = "1GiB".to_owned();
    stage.site.configure(&stage.setup);
    let node = stage.site.start().await;
    let paths = twelve(&stage, &node).await;
    node.kill();
    mount.remount("ro");
    let node = stage.site.start().await;
    for _ in 0..2 {
        for seed in 0..12 {
            get(&node, seed, MIB).await;
        }
    }
    assert_eq!(stage.requests(&paths), 12, "every hit is one");
    misses_stream_through(&stage, &node, 100..103).await;
    assert_eq!(node.status().await["cache"]["degraded"], "read-only");
    mount.remount("rw");
    stores_again(&stage, &node, 1_000).await;
    for seed in 0..12 {
        get(&node, seed, MIB).await;
    }
    assert_eq!(stage.requests(&paths), 12, "and nothing was lost");
    node.stop().await;
    drop(mount);
}
