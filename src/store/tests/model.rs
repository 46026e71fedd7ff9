//! Many operations and many entries.

use std::time::Instant;

use proptest::prelude::*;

use super::*;

/// Run by hand: `cargo test --release --lib store:: -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "takes a minute; run with --release"]
async fn a_hundred_thousand_entries_open_at_once() {
    let bench = Bench::new(64 << 30);
    for n in 0..100_000_u32 {
        let body = EntryBody::Inline(vec![7; 200].into());
        let entry = Entry::new(key(&format!("/{n}")), Head::default(), 200, Digest::of(b"x"), body);
        bench.store.put(entry);
        if n % 8_000 == 0 {
            bench.committed().await;
        }
    }
    bench.committed().await;
    let rss = || {
        let text = fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096 / MIB
    };
    let begin = Instant::now();
    let bench = bench.again(64 << 30);
    let opened = begin.elapsed();
    assert!(bench.store.find("r:/77777").await.is_some());
    eprintln!("opened in {opened:?}, first look-up after {:?}, RSS {} MiB", begin.elapsed(), rss());
    assert_eq!(bench.store.totals().entries, 100_000);
    assert!(begin.elapsed() < Duration::from_secs(2));
}

#[derive(Clone, Debug)]
enum Op {
    Put(u8, u8, u8),
    Partial(u8, u8, u8),
    DropPartial(u8),
    Remove(u8),
    Commit,
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..5_u8, 0..3_u8, 1..4_u8).prop_map(|(k, s, n)| Op::Put(k, s, n)),
        2 => (0..5_u8, 0..3_u8, 1..4_u8).prop_map(|(k, s, n)| Op::Partial(k, s, n)),
        1 => (0..5_u8).prop_map(Op::DropPartial),
        2 => (0..5_u8).prop_map(Op::Remove),
        2 => Just(Op::Commit),
        1 => Just(Op::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever happens, in whatever order: what was put is found, and no file is left over or missing.
    #[test]
    fn the_store_does_what_a_map_does(ops in proptest::collection::vec(op(), 1..30)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(model(ops));
    }
}

async fn model(ops: Vec<Op>) {
    use std::collections::{HashMap, HashSet};
    let mut bench = Bench::new(256 * MIB);
    let (mut entries, mut partials) = (HashMap::new(), HashMap::new());
    for op in ops {
        match op {
            Op::Put(k, s, n) => {
                bench.entry(&format!("/{k}"), s, u64::from(n)).await;
                entries.insert(k, (s, n));
                partials.remove(&k);
            }
            Op::Partial(k, s, n) => {
                let mut names = Vec::new();
                for block in 0..u64::from(n) {
                    names.push(Some(bench.store.write_block(body(s, block)).await.unwrap().digest));
                }
                bench.store.put_partial(&key(&format!("/{k}")), partial(&names));
                partials.insert(k, (s, n));
            }
            Op::DropPartial(k) => {
                bench.store.drop_partial(&key(&format!("/{k}")));
                partials.remove(&k);
            }
            Op::Remove(k) => {
                bench.store.remove(&format!("r:/{k}"));
                entries.remove(&k);
            }
            Op::Commit => bench.committed().await,
            Op::Restart => {
                bench.committed().await;
                bench = bench.again(256 * MIB);
            }
        }
        for k in 0..5_u8 {
            let found = bench.store.find(&format!("r:/{k}")).await;
            assert_eq!(found.map(|e| e.length / MIB), entries.get(&k).map(|(_, n)| u64::from(*n)));
            let found = bench.store.find_partial(&format!("r:/{k}")).await;
            assert_eq!(found.is_some(), partials.contains_key(&k));
        }
    }
    bench.committed().await;
    let names: HashSet<Digest> = entries
        .values()
        .chain(partials.values())
        .flat_map(|(s, n)| (0..u64::from(*n)).map(|block| Digest::of(&body(*s, block))))
        .collect();
    let rows = |t: &Totals| t.bytes / MIB;
    bench.until("the account is right", |t| rows(t) == names.len() as u64).await;
    // What a restart left behind is the sweep's, which takes its time.
    for _ in 0..400 {
        if bench.files().len() == names.len() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(bench.files().into_iter().collect::<HashSet<_>>(), names);
}
