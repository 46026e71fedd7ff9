//! The store as its users see it, with a disk that breaks on command.

mod broken;
mod model;
mod purge;

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::base::clock::{Clock, Timestamp};
use crate::base::limits::{BLOCK_BYTES, PIECE_BYTES};
use crate::cache::{BodyMap, EntryBody, Head};

const MIB: u64 = 1 << 20;
const START: Timestamp = Timestamp(1_000_000_000);

struct Bench {
    dir: TempDir,
    clock: Clock,
    faults: Faults,
    store: Store,
}

fn options(dir: &TempDir, size: u64) -> Options {
    let mut options = Options::new(dir.path().join("cache"), size);
    options.memory = 0;
    options.min_free = 0;
    options.commit_every = Duration::from_millis(1);
    options
}

impl Bench {
    fn new(size: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (clock, faults) = (Clock::manual(START), Faults::default());
        let store = Store::open_with(options(&dir, size), clock.clone(), faults.clone()).unwrap();
        Self { dir, clock, faults, store }
    }

    /// Closes nothing: what `kill -9` leaves, then a new process.
    fn again(self, size: u64) -> Self {
        self.faults.crash();
        let Self { dir, clock, store, .. } = self;
        drop(store);
        let faults = Faults::default();
        let store = Store::open_with(options(&dir, size), clock.clone(), faults.clone()).unwrap();
        Self { dir, clock, faults, store }
    }

    async fn entry(&self, path: &str, seed: u8, blocks: u64) -> Arc<Entry> {
        let mut list = Vec::new();
        for n in 0..blocks {
            list.push(self.store.write_block(body(seed, n)).await.unwrap());
        }
        let body = EntryBody::Blocks(list.into());
        let digest = Digest::of(path.as_bytes());
        self.store.put(Entry::new(key(path), Head::default(), blocks * BLOCK_BYTES, digest, body))
    }

    /// Waits for something the background does.
    async fn until(&self, what: &str, done: impl Fn(&Totals) -> bool) {
        for _ in 0..2_000 {
            if done(&self.store.totals()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("never: {what}: {:?}", self.store.totals());
    }

    async fn committed(&self) {
        for _ in 0..2_000 {
            if self.store.shared().pending.snapshot().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("never committed: {:?}", self.store.totals());
    }

    fn files(&self) -> Vec<Digest> {
        let later = std::time::SystemTime::now() + Duration::from_secs(3600);
        (0..=255).flat_map(|first| self.store.shared().content.list(first, later)).collect()
    }

    fn file(&self, digest: &Digest) -> std::path::PathBuf {
        self.store.shared().content.path(digest)
    }
}

fn key(path: &str) -> Key {
    Key::new("r", path, None)
}

fn body(seed: u8, n: u64) -> Bytes {
    let mut bytes = vec![seed; BLOCK_BYTES as usize];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    bytes.into()
}

fn partial(blocks: &[Option<Digest>]) -> Record {
    Record {
        head: Head::default(),
        length: Some(8 * MIB),
        digest: None,
        body: BodyMap::Blocks(blocks.to_vec()),
        stale: false,
        pinned: false,
    }
}

fn blocks(entry: &Entry) -> &[Block] {
    match &entry.body {
        EntryBody::Blocks(blocks) => blocks,
        EntryBody::Inline(_) => &[],
    }
}

async fn first_piece(store: &Store, block: &Block) -> Result<Bytes, BadBlock> {
    store.piece(block, BLOCK_BYTES as usize, 0, usize::MAX).await
}

#[tokio::test]
async fn an_entry_is_there_at_once_and_after_a_restart() {
    let bench = Bench::new(64 * MIB);
    bench.entry("/a", 1, 2).await;
    assert_eq!(bench.store.find("r:/a").await.unwrap().length, 2 * MIB);
    bench.committed().await;
    let bench = bench.again(64 * MIB);
    let entry = bench.store.find("r:/a").await.unwrap();
    assert_eq!(first_piece(&bench.store, &blocks(&entry)[1]).await.unwrap(), body(1, 1)[..PIECE_BYTES]);
    assert!(bench.store.find("r:/b").await.is_none());
    assert_eq!(bench.store.totals().entries, 1);
}

#[tokio::test]
async fn closing_commits_what_waits_and_frees_the_directory() {
    let bench = Bench::new(64 * MIB);
    let mut slow = options(&bench.dir, 64 * MIB);
    slow.dir = bench.dir.path().join("other");
    slow.commit_every = Duration::from_secs(3600);
    let store = Store::open(slow.clone(), bench.clock.clone()).unwrap();
    store.put(Entry::new(
        key("/x"),
        Head::default(),
        1,
        Digest::of(b"x"),
        EntryBody::Inline(Bytes::from_static(b"x")),
    ));
    store.close().await;
    let again = Store::open(slow, bench.clock.clone()).unwrap();
    assert!(again.find("r:/x").await.is_some());
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let bench = Bench::new(64 * MIB);
    let second = Store::open(options(&bench.dir, MIB), bench.clock.clone());
    assert!(matches!(second, Err(OpenError::Locked { .. })));
}

#[tokio::test]
async fn a_directory_of_a_later_release_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("cache")).unwrap();
    fs::write(dir.path().join("cache/format"), "2\n").unwrap();
    let opened = Store::open(options(&dir, MIB), Clock::system());
    assert!(matches!(opened, Err(OpenError::Newer { found: 2, known: 1, .. })));
}

#[tokio::test]
async fn pieces_start_where_asked_and_end_with_the_piece() {
    let bench = Bench::new(64 * MIB);
    let entry = bench.entry("/a", 1, 1).await;
    let block = &blocks(&entry)[0];
    let len = BLOCK_BYTES as usize;
    assert!(bench.store.try_piece(block, len, 5, 9).is_none(), "no open file yet");
    assert_eq!(bench.store.piece(block, len, 5, 9).await.unwrap(), body(1, 0)[5..14]);
    let end = PIECE_BYTES - 3;
    assert_eq!(bench.store.piece(block, len, end, 99).await.unwrap().len(), 3);
    if let Some(bytes) = bench.store.try_piece(block, len, end, 99) {
        assert_eq!(bytes.unwrap(), body(1, 0)[end..PIECE_BYTES]);
    }
    assert!(bench.store.piece(block, len, len, 99).await.unwrap().is_empty());
    // A fresh entry knows no checksums: the first read proves the whole block and finds them.
    let block = Block::unchecked(block.digest);
    assert_eq!(bench.store.piece(&block, len, PIECE_BYTES, 4).await.unwrap(), [1, 1, 1, 1][..]);
    assert_eq!(block.sums.get().unwrap().len(), 8);
}

#[tokio::test]
async fn equal_blocks_are_stored_once_and_go_with_their_last_name() {
    let bench = Bench::new(64 * MIB);
    bench.entry("/a", 1, 2).await;
    bench.entry("/b", 1, 3).await;
    bench.committed().await;
    assert_eq!(bench.files().len(), 3);
    bench.store.remove("r:/b");
    bench.until("/b is gone", |t| t.entries == 1 && t.bytes < 3 * MIB).await;
    assert_eq!(bench.files().len(), 2);
    let entry = bench.store.find("r:/a").await.unwrap();
    assert!(first_piece(&bench.store, &blocks(&entry)[1]).await.is_ok());
    drop(entry);
    bench.store.remove("r:/a");
    bench.until("all is gone", |t| t.bytes == 0).await;
    assert!(bench.files().is_empty());
}

#[tokio::test]
async fn a_reader_keeps_the_blocks_of_an_entry_that_was_removed() {
    let bench = Bench::new(64 * MIB);
    let reading = bench.entry("/a", 1, 1).await;
    bench.committed().await;
    bench.entry("/a", 2, 1).await;
    bench.committed().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(first_piece(&bench.store, &blocks(&reading)[0]).await.is_ok());
    drop(reading);
    bench.until("the old block is gone", |t| t.bytes < 2 * MIB).await;
    assert_eq!(bench.files().len(), 1);
}

#[tokio::test]
async fn a_revalidated_entry_keeps_its_blocks() {
    let bench = Bench::new(64 * MIB);
    let old = bench.entry("/a", 1, 2).await;
    bench.committed().await;
    bench.store.put(old.with_head(Head { status: 200, ..Head::default() }));
    drop(old);
    bench.committed().await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(bench.files().len(), 2);
}

#[tokio::test]
async fn eviction_keeps_the_size_and_spares_what_is_used_or_pinned() {
    let bench = Bench::new(20 * MIB);
    let mut pinned = Entry::new(
        key("/pinned"),
        Head::default(),
        MIB,
        Digest::of(b"p"),
        EntryBody::Blocks([bench.store.write_block(body(200, 0)).await.unwrap()].into()),
    );
    pinned.pinned = true;
    bench.store.put(pinned);
    let used = bench.entry("/used", 201, 1).await;
    bench.committed().await;
    bench.clock.advance(Duration::from_secs(2_000_000));
    bench.store.note_use(&used);
    drop(used);
    bench.committed().await;
    for n in 0..60_u8 {
        bench.clock.advance(Duration::from_secs(1));
        let room = bench.store.reserve(MIB).unwrap();
        bench.entry(&format!("/{n}"), n, 1).await;
        drop(room);
        assert!(bench.store.totals().bytes <= 20 * MIB, "{:?}", bench.store.totals());
    }
    bench.committed().await;
    bench.until("within the limit", |t| t.bytes <= 20 * MIB && t.evictions.size > 30).await;
    assert!(bench.store.find("r:/pinned").await.is_some());
    assert!(bench.store.find("r:/used").await.is_some());
    assert!(bench.store.find("r:/0").await.is_none());
    assert!(bench.store.find("r:/59").await.is_some());
}

#[tokio::test]
async fn an_unfinished_body_survives_and_its_blocks_with_it() {
    let bench = Bench::new(64 * MIB);
    let block = bench.store.write_block(body(1, 0)).await.unwrap();
    bench.store.put_partial(&key("/big"), partial(&[Some(block.digest), None]));
    bench.committed().await;
    let bench = bench.again(64 * MIB);
    let found = bench.store.find_partial("r:/big").await.unwrap();
    assert_eq!(found, partial(&[Some(block.digest), None]));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(first_piece(&bench.store, &Block::unchecked(block.digest)).await.is_ok());
    bench.store.drop_partial(&key("/big"));
    bench.until("nothing is left", |t| t.bytes == 0 && t.partials == 0).await;
    assert!(bench.store.find_partial("r:/big").await.is_none());
}

#[tokio::test]
async fn an_entry_takes_over_the_blocks_of_its_unfinished_body() {
    let bench = Bench::new(64 * MIB);
    let block = bench.store.write_block(body(1, 0)).await.unwrap();
    bench.store.put_partial(&key("/a"), partial(&[Some(block.digest), None]));
    bench.committed().await;
    bench.entry("/a", 1, 1).await;
    bench.committed().await;
    assert!(bench.store.find_partial("r:/a").await.is_none());
    assert_eq!(bench.files().len(), 1);
    assert_eq!(bench.store.totals().partials, 0);
}

#[tokio::test]
async fn a_block_comes_into_memory_when_there_is_room_or_it_is_read_often() {
    let bench = Bench::new(64 * MIB);
    let mut roomy = options(&bench.dir, 64 * MIB);
    roomy.dir = bench.dir.path().join("roomy");
    roomy.memory = 16 * MIB;
    let store = Store::open(roomy, bench.clock.clone()).unwrap();
    let block = store.write_block(body(3, 0)).await.unwrap();
    let bytes = store.try_piece(&block, MIB as usize, 100, usize::MAX).unwrap().unwrap();
    assert_eq!(bytes.len(), MIB as usize - 100, "from memory a slice may be as long as the block");
    store.shared().forget(&block.digest);
    first_piece(&store, &Block::unchecked(Digest::of(b"other"))).await.unwrap_err();
    assert!(store.block_in_memory(&block.digest).is_none());
    for _ in 0..9 {
        match store.try_piece(&block, MIB as usize, 0, 9) {
            Some(bytes) => drop(bytes.unwrap()),
            None => drop(first_piece(&store, &block).await.unwrap()),
        }
    }
    assert!(store.block_in_memory(&block.digest).is_some());
}
