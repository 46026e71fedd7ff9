//! What the store costs: a hot look-up, a piece from memory and from the page cache, a block written, a start.
//!
//! `cargo bench --bench store`

#![expect(clippy::unwrap_used, reason = "a bench that cannot set up has nothing to say")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use waypost::base::clock::Clock;
use waypost::base::digest::Digest;
use waypost::base::limits::{BLOCK_BYTES, PIECE_BYTES};
use waypost::cache::{Block, Entry, EntryBody, Head, Key};
use waypost::store::{Options, Store};

const BLOCK: usize = BLOCK_BYTES as usize;

fn open(dir: &TempDir, memory: u64) -> Store {
    let mut options = Options::new(dir.path(), 8 << 30);
    options.memory = memory;
    options.min_free = 0;
    Store::open(options, Clock::system()).unwrap()
}

fn block(n: u64) -> Bytes {
    let mut bytes = vec![7; BLOCK];
    bytes.iter_mut().zip(n.to_le_bytes()).for_each(|(to, from)| *to = from);
    bytes.into()
}

fn inline(path: &str, len: usize) -> Entry {
    let body = EntryBody::Inline(vec![1; len].into());
    Entry::new(Key::new("r", path, None), Head::default(), len as u64, Digest::of(b"x"), body)
}

fn hot_look_up(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 256 << 20);
    store.put(inline("/hot", 4096));
    c.bench_function("hot look-up", |b| b.iter(|| black_box(store.hot(black_box("r:/hot"))).is_some()));
}

fn pieces(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = c.benchmark_group("a block in pieces");
    group.throughput(Throughput::Bytes(BLOCK_BYTES));
    for (name, memory) in [("memory", 64 << 20), ("page cache", 0)] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir, memory);
        let block = runtime.block_on(store.write_block(block(1))).unwrap();
        runtime.block_on(store.piece(&block, BLOCK, 0, PIECE_BYTES)).unwrap();
        group.bench_function(name, |b| b.iter(|| read_block(&runtime, &store, &block)));
    }
    group.finish();
}

fn read_block(runtime: &Runtime, store: &Store, block: &Block) {
    let mut offset = 0;
    while offset < BLOCK {
        let now = store.try_piece(block, BLOCK, offset, PIECE_BYTES);
        let bytes = now.unwrap_or_else(|| runtime.block_on(store.piece(block, BLOCK, offset, PIECE_BYTES)));
        offset += black_box(bytes.unwrap()).len();
    }
}

fn first_reads(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 0);
    let digest = runtime.block_on(store.write_block(block(1))).unwrap().digest;
    drop(store);
    let mut group = c.benchmark_group("first read of a block");
    group.throughput(Throughput::Bytes(BLOCK_BYTES)).sample_size(20);
    group.bench_function("proved by SHA-256", |b| {
        b.iter_custom(|n| {
            let mut spent = Duration::ZERO;
            for _ in 0..n {
                // Only a new process has not read it yet.
                let store = open(&dir, 0);
                let block = Block::unchecked(digest);
                let begin = Instant::now();
                black_box(runtime.block_on(store.piece(&block, BLOCK, 0, PIECE_BYTES))).unwrap();
                spent += begin.elapsed();
            }
            spent
        });
    });
    group.finish();
}

fn writes(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 0);
    let mut group = c.benchmark_group("write");
    group.throughput(Throughput::Bytes(BLOCK_BYTES)).sample_size(20);
    let mut n = 0;
    group.bench_function("a new block", |b| {
        b.iter(|| {
            n += 1;
            runtime.block_on(store.write_block(block(n))).unwrap().digest
        });
    });
    let same = block(1);
    group.bench_function("a block that is there", |b| {
        b.iter(|| runtime.block_on(store.write_block(same.clone())).unwrap().digest);
    });
    group.finish();
}

fn start(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 64 << 20);
    for n in 0..100_000_u32 {
        store.put(inline(&format!("/{n}"), 200));
        if n % 8_000 == 0 {
            // Changes that outrun the index are dropped by design; here all of them shall arrive.
            runtime.block_on(async {
                while store.totals().entries < u64::from(n) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        }
    }
    runtime.block_on(store.close());
    drop(store);
    let mut group = c.benchmark_group("start with 100,000 entries");
    group.sample_size(10);
    group.bench_function("open and first look-up", |b| {
        b.iter(|| {
            let store = open(&dir, 64 << 20);
            assert!(runtime.block_on(store.find("r:/77777")).is_some());
        });
    });
    group.finish();
}

criterion_group!(benches, hot_look_up, pieces, first_reads, writes, start);
criterion_main!(benches);
