//! Damage, crashes and a disk that fails.

use super::*;

#[tokio::test]
async fn damaged_blocks_are_found_counted_and_healed() {
    let bench = Bench::new(64 * MIB);
    bench.entry("/a", 1, 3).await;
    bench.committed().await;
    let bench = bench.again(64 * MIB);
    let entry = bench.store.find("r:/a").await.unwrap();
    let [one, two, three] = blocks(&entry) else { panic!("three blocks") };
    let mut bytes = fs::read(bench.file(&one.digest)).unwrap();
    bytes[700_000] ^= 4;
    fs::write(bench.file(&one.digest), bytes).unwrap();
    fs::write(bench.file(&two.digest), b"short").unwrap();
    fs::copy(bench.file(&two.digest), bench.file(&three.digest)).unwrap();
    let damage = |read: Result<Bytes, BadBlock>| read.unwrap_err().damage;
    assert_eq!(damage(first_piece(&bench.store, one).await), Damage::Content);
    assert_eq!(damage(first_piece(&bench.store, two).await), Damage::Length);
    assert_eq!(damage(first_piece(&bench.store, three).await), Damage::Length);
    assert_eq!(damage(first_piece(&bench.store, one).await), Damage::Missing);
    assert_eq!(bench.store.totals().integrity_failures.read, 4);
    let wrong = bench.store.rewrite_block(one.digest, body(9, 9)).await;
    assert!(matches!(wrong, Err(WriteError::Mismatch)));
    bench.store.rewrite_block(one.digest, body(1, 0)).await.unwrap();
    assert_eq!(first_piece(&bench.store, one).await.unwrap(), body(1, 0)[..PIECE_BYTES]);
}

#[tokio::test]
async fn rot_after_the_first_check_is_found_by_the_checksum() {
    let bench = Bench::new(64 * MIB);
    let entry = bench.entry("/a", 1, 1).await;
    let block = &blocks(&entry)[0];
    first_piece(&bench.store, block).await.unwrap();
    bench.faults.flip_reads(true);
    assert_eq!(first_piece(&bench.store, block).await.unwrap_err().damage, Damage::Content);
    bench.faults.flip_reads(false);
    // The file itself was fine: looking again spared it.
    assert_eq!(first_piece(&bench.store, block).await.unwrap().len(), PIECE_BYTES);
}

#[tokio::test]
async fn a_block_that_no_record_names_is_collected_after_a_crash() {
    let bench = Bench::new(64 * MIB);
    bench.entry("/a", 1, 1).await;
    bench.committed().await;
    bench.store.write_block(body(2, 0)).await.unwrap();
    fs::write(bench.dir.path().join("cache/tmp/.tmpDead"), b"half a block").unwrap();
    assert_eq!(bench.files().len(), 2);
    // File times are coarse: a block of the last tick could pass for one of the new process.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let bench = bench.again(64 * MIB);
    bench.until("the orphan is gone", |t| t.orphans == 1).await;
    assert_eq!(bench.files().len(), 1);
    assert!(!bench.dir.path().join("cache/tmp/.tmpDead").exists());
}

#[tokio::test]
async fn a_crash_at_any_point_leaves_the_old_state_or_the_new_one() {
    for point in [CrashPoint::BlockWritten, CrashPoint::BeforeCommit, CrashPoint::AfterCommit] {
        let bench = Bench::new(64 * MIB);
        bench.entry("/a", 1, 2).await;
        bench.committed().await;
        bench.faults.crash_at(point);
        let block = bench.store.write_block(body(7, 0)).await.unwrap();
        let body = EntryBody::Blocks([block].into());
        bench.store.put(Entry::new(key("/a"), Head::default(), MIB, Digest::of(b"new"), body));
        while !bench.faults.crashed() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let bench = bench.again(64 * MIB);
        let entry = bench.store.find("r:/a").await.unwrap();
        for block in blocks(&entry) {
            assert!(first_piece(&bench.store, block).await.is_ok(), "{point:?}");
        }
        let new = entry.length == MIB;
        assert_eq!(new, point == CrashPoint::AfterCommit, "{point:?}");
        bench.until("swept", |t| t.orphans >= 1).await;
    }
}

#[tokio::test]
async fn a_failing_disk_degrades_and_recovers_by_itself() {
    for (errno, word) in [(28, "disk-full"), (30, "read-only"), (5, "disk-failing")] {
        let bench = Bench::new(64 * MIB);
        let entry = bench.entry("/a", 1, 1).await;
        bench.committed().await;
        bench.faults.fail_writes(errno, 0);
        assert!(bench.store.write_block(body(2, 0)).await.is_err());
        assert_eq!(bench.store.totals().degraded, Some(word));
        assert!(matches!(bench.store.reserve(MIB), Err(Refused::Degraded)));
        assert!(first_piece(&bench.store, &blocks(&entry)[0]).await.is_ok(), "hits go on");
        bench.faults.fail_writes(0, 0);
        bench.clock.advance(space::DEGRADED_FOR);
        let _room = bench.store.reserve(MIB).unwrap();
        bench.store.write_block(body(2, 0)).await.unwrap();
        assert_eq!(bench.store.totals().degraded, None);
    }
}

/// A full disk used to evict cached files for every miss, and whoever had filled it took what that freed.
#[tokio::test]
async fn a_full_disk_keeps_what_is_here_and_gives_way_only_when_it_stays_full() {
    let bench = Bench::new(64 * MIB);
    for n in 0..8 {
        bench.entry(&format!("/{n}"), n, 2).await;
    }
    bench.committed().await;
    bench.faults.fail_writes(28, 0);
    for round in 0..20 {
        assert!(bench.store.write_block(body(100, round)).await.is_err());
        bench.clock.advance(space::DEGRADED_FOR);
    }
    assert_eq!(bench.store.totals().evictions, Evictions::default(), "three minutes");
    bench.until("what was not written is not counted", |t| t.entries == 8 && t.bytes < 17 * MIB).await;
    bench.clock.advance(space::GIVE_WAY_AFTER);
    bench.until("one gave way", |t| t.entries == 7).await;
    assert!(bench.store.write_block(body(100, 0)).await.is_err());
    assert!(bench.store.find("r:/7").await.is_some());
    bench.faults.fail_writes(0, 0);
    bench.clock.advance(space::DEGRADED_FOR);
    bench.entry("/new", 9, 2).await;
    bench.until("it recovers", |t| t.degraded.is_none() && t.entries == 8).await;
}

#[tokio::test]
async fn an_index_that_cannot_be_written_still_answers_and_catches_up() {
    let bench = Bench::new(64 * MIB);
    bench.entry("/a", 1, 1).await;
    bench.committed().await;
    for errno in [5, 28, 30] {
        bench.faults.fail_index(errno);
        bench.entry("/b", 2, 1).await;
        bench.until("degraded", |t| t.degraded.is_some()).await;
        assert!(matches!(bench.store.reserve(MIB), Err(Refused::Degraded)));
        assert!(bench.store.find("r:/a").await.is_some(), "errno {errno}");
        assert!(bench.store.find("r:/b").await.is_some());
        bench.faults.fail_index(0);
        while bench.store.totals().degraded.is_some() {
            // More than once: an attempt may have failed just before the disk was well again.
            bench.clock.advance(space::DEGRADED_FOR);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bench.committed().await;
        bench.until("recovered", |t| t.degraded.is_none()).await;
    }
    let bench = bench.again(64 * MIB);
    assert!(bench.store.find("r:/a").await.is_some());
    assert!(bench.store.find("r:/b").await.is_some());
}

#[tokio::test]
async fn a_damaged_or_foreign_index_is_set_aside_and_its_blocks_collected() {
    for damage in [&b"this is not an index"[..], &[0; 8192][..]] {
        let bench = Bench::new(64 * MIB);
        bench.entry("/a", 1, 1).await;
        bench.committed().await;
        bench.store.close().await;
        fs::write(bench.dir.path().join("cache/index.redb"), damage).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let bench = bench.again(64 * MIB);
        assert!(bench.store.find("r:/a").await.is_none());
        assert_eq!(bench.store.totals().index_replaced, 1);
        assert!(bench.dir.path().join("cache/index.damaged-1").exists());
        bench.until("the old block is gone", |t| t.orphans == 1).await;
        bench.entry("/a", 1, 1).await;
        bench.committed().await;
        assert_eq!(bench.store.totals().entries, 1);
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_gives_a_store_that_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(START);
    fs::write(dir.path().join("cache"), b"a file in the way").unwrap();
    let store = Store::open(options(&dir, 64 * MIB), clock.clone()).unwrap();
    assert!(store.find("r:/a").await.is_none());
    assert!(matches!(store.reserve(1), Err(Refused::Degraded)));
    fs::remove_file(dir.path().join("cache")).unwrap();
    clock.advance(space::DEGRADED_FOR);
    let bench = Bench { dir, clock, faults: Faults::default(), store };
    bench.until("recovered", |t| t.degraded.is_none()).await;
    bench.entry("/a", 1, 1).await;
    bench.committed().await;
}

#[tokio::test]
async fn the_scrub_finds_what_nobody_reads() {
    let bench = Bench::new(64 * MIB);
    let entry = bench.entry("/a", 1, 3).await;
    bench.committed().await;
    fs::write(bench.file(&blocks(&entry)[0].digest), b"rot").unwrap();
    fs::remove_file(bench.file(&blocks(&entry)[1].digest)).unwrap();
    let report = bench.store.scrub(u64::MAX).await;
    assert_eq!(report, ScrubReport { checked: 3, bad: 1, missing: 1 });
    assert_eq!(bench.store.totals().integrity_failures.scrub, 1);
}
