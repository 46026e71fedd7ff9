//! The thread that writes the index, makes room, and removes what nobody names any more.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::apply::{Around, Kind, Outcome, apply};
use super::faults::CrashPoint;
use super::index::IndexError;
use super::pending::{Batch, End};
use super::shared::{Shared, count};
use super::space::{Disk, Part, Trouble};
use super::tally::{Tally, recount};
use crate::base::crash::{Step, reach};

/// How often the thread looks around when nothing happens.
const IDLE: Duration = Duration::from_secs(1);
/// Bytes kept by for the index: on a full disk even removing entries needs new pages first.
const BALLAST: u64 = 4 << 20;
const BALLAST_FILE: &str = "ballast";
/// Rounds between two prunings of the list of readers.
const PRUNE_EVERY: u32 = 60;

/// Runs until the store ends.
pub(super) fn run(shared: &Arc<Shared>) {
    open(shared);
    shared.started.send_replace(true);
    let mut round = 0_u32;
    loop {
        let end = shared.pending.wait(shared.options.commit_every, IDLE);
        if end != Some(End::Now) {
            turn(shared);
        }
        round = round.wrapping_add(1);
        if round.is_multiple_of(PRUNE_EVERY) {
            shared.pending.prune();
        }
        shared.rounds.send_modify(|n| *n += 1);
        if end.is_some() {
            break;
        }
    }
    shared.index.close();
}

/// One look around: commit, evict, reap.
fn turn(shared: &Shared) {
    let now = shared.clock.now();
    measure(shared);
    if shared.space.give_way(now) {
        tracing::warn!("the disk has been full for long: a part of the cache gives way");
    }
    if shared.suspect.swap(false, Ordering::Relaxed) {
        replace_index(shared);
    }
    if !shared.space.part_refuses(Part::Index, now) {
        if !shared.index.is_writable() {
            reopen(shared);
        }
        if shared.index.is_writable() {
            if shared.miscounted.swap(false, Ordering::Relaxed) {
                count_anew(shared);
            }
            commit(shared);
        }
    }
    for superseded in shared.pending.take_superseded() {
        shared.ledger.overtaken(&superseded);
    }
    if !shared.ledger.is_empty() {
        shared.memory.settle();
        // An open file of a removed block would keep its bytes on the disk.
        for digest in shared.ledger.reap(&shared.pending, &shared.content, &shared.space, now) {
            shared.handles.invalidate(&digest);
        }
        shared.handles.run_pending_tasks();
        measure(shared);
    }
}

/// Commits what waits and evicts, as often as it takes to be within the limit.
fn commit(shared: &Shared) {
    // Every round evicts thousands: the bound only keeps a contradiction in the accounts from going on for ever.
    for _ in 0..64 {
        let since = Instant::now();
        let batch = shared.pending.snapshot();
        if batch.is_empty() && !shared.space.is_over() {
            // Being open for writing is proof enough: redb marks the file when it opens it.
            shared.space.recover(Part::Index);
            return;
        }
        shared.faults.reach(CrashPoint::BeforeCommit);
        reach(Step::IndexBatch);
        match write(shared, &batch) {
            Ok(outcome) => {
                shared.faults.reach(CrashPoint::AfterCommit);
                reach(Step::IndexCommitted);
                let more = outcome.more;
                follow(shared, &batch, outcome, since);
                shared.space.recover(Part::Index);
                keep_ballast(shared);
                if !more {
                    return;
                }
            }
            Err(error) => {
                if !failed(shared, error) {
                    return;
                }
            }
        }
    }
}

/// Makes totals and block counts right again, from the records that are whole.
fn count_anew(shared: &Shared) {
    let since = Instant::now();
    match shared.index.write(|txn| recount(txn, shared.clock.now())) {
        Ok(found) => {
            let (records, blocks) = (found.removed.len(), found.freed.len());
            tracing::warn!(
                records,
                blocks,
                "the cache index was counted anew: damaged records and their blocks went"
            );
            for (kind, key) in &found.removed {
                if *kind == Kind::Entry {
                    shared.pending.evicted(key.as_str(), &shared.memory);
                }
            }
            for freed in &found.freed {
                // Who may still read them is not known; whoever does finds the block missing and has it healed.
                shared.ledger.freed(freed, &[], since, &shared.space);
            }
            set_totals(shared, &found.tally);
        }
        Err(error) => {
            failed(shared, error);
        }
    }
}

fn set_totals(shared: &Shared, tally: &Tally) {
    shared.space.set_named(tally.bytes);
    shared.counts.entries.store(tally.entries, Ordering::Relaxed);
    shared.counts.partials.store(tally.partials, Ordering::Relaxed);
}

fn write(shared: &Shared, batch: &Batch) -> Result<Outcome, IndexError> {
    let around = Around {
        pending: &shared.pending,
        ledger: &shared.ledger,
        space: &shared.space,
        now: shared.clock.now(),
    };
    shared.index.write(|txn| apply(txn, batch, &around))
}

/// What a commit means for memory, files and accounts.
fn follow(shared: &Shared, batch: &Batch, outcome: Outcome, since: Instant) {
    shared.pending.committed(batch);
    let disk_full = shared.space.limit() < shared.options.size;
    for (kind, key) in &outcome.evicted {
        match kind {
            Kind::Partial => count(&shared.counts.evicted_partial),
            Kind::Entry => {
                shared.pending.evicted(key.as_str(), &shared.memory);
                count(if disk_full { &shared.counts.evicted_disk } else { &shared.counts.evicted_size });
            }
        }
    }
    let freed: HashSet<_> = outcome.freed.iter().map(|freed| freed.digest).collect();
    let mut holders = Vec::new();
    if !freed.is_empty() {
        for key in &outcome.released {
            holders.extend(shared.pending.holders(key.as_str(), &freed));
        }
    }
    for freed in &outcome.freed {
        shared.ledger.freed(freed, &holders, since, &shared.space);
    }
    // In this order the account is at no moment too low: nobody takes room that is not there.
    set_totals(shared, &outcome.tally);
    shared.ledger.named(outcome.named.into_iter(), since, &shared.space);
    shared.space.extra_done();
    if outcome.damaged {
        shared.miscounted.store(true, Ordering::Relaxed);
        shared.pending.hurry();
    }
}

/// Deals with a failed commit. Whether to try again at once.
fn failed(shared: &Shared, error: IndexError) -> bool {
    shared.index_failed(&error);
    match error {
        IndexError::Damaged(_) => {
            shared.suspect.store(false, Ordering::Relaxed);
            replace_index(shared);
            shared.index.is_writable()
        }
        IndexError::Io(error) => {
            let trouble = Trouble::of(&error);
            // redb refuses reads after a failed write, too: hits need it open again.
            let ballast = trouble == Trouble::Full && drop_ballast(shared);
            reopen(shared);
            if ballast && shared.index.is_writable() {
                return true;
            }
            shared.space.fail(Part::Index, trouble, shared.clock.now());
            false
        }
        // The next turn counts, and commits.
        IndexError::Totals => false,
        IndexError::NotOpen | IndexError::Newer(_) | IndexError::Row(_) => {
            reopen(shared);
            shared.space.fail(Part::Index, Trouble::Unopened, shared.clock.now());
            false
        }
    }
}

fn open(shared: &Shared) {
    opened(shared, shared.index.open());
    keep_ballast(shared);
}

fn reopen(shared: &Shared) {
    if let Err(trouble) = super::open::take_lock(shared) {
        shared.space.fail(Part::Index, trouble, shared.clock.now());
        return;
    }
    opened(shared, shared.index.reopen());
}

fn replace_index(shared: &Shared) {
    tracing::error!("the cache index is damaged: set aside, starting with an empty one");
    count(&shared.counts.index_replaced);
    opened(shared, shared.index.replace().map(|()| false));
}

fn opened(shared: &Shared, result: Result<bool, IndexError>) {
    match result {
        Ok(replaced) => {
            if replaced {
                count(&shared.counts.index_replaced);
            }
            match shared.index.tally() {
                Ok(tally) => set_totals(shared, &tally),
                Err(error) => shared.index_failed(&error),
            }
        }
        Err(error) => {
            count(&shared.counts.index_errors);
            tracing::error!(%error, "the cache index cannot be opened for writing");
            let trouble = match &error {
                IndexError::Io(error) => Trouble::of(error),
                _ => Trouble::Unopened,
            };
            shared.space.fail(Part::Index, trouble, shared.clock.now());
        }
    }
    measure(shared);
}

/// Sets the limit by what the file system has left.
fn measure(shared: &Shared) {
    if let Ok(stat) = statvfs(&shared.options.dir) {
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        let files = (stat.f_files > 0).then_some(stat.f_favail);
        let disk = Disk { bytes: bytes(stat.f_blocks), free: bytes(stat.f_bavail), files };
        shared.space.measure(disk, shared.clock.now());
    }
}

/// Makes the ballast where it is missing. Not having one is no error: it is for a rare day.
fn keep_ballast(shared: &Shared) {
    let path = shared.options.dir.join(BALLAST_FILE);
    if path.exists() || shared.space.degraded().is_some() || shared.faults.on_index().is_err() {
        return;
    }
    let made = File::create(&path)
        .and_then(|file| fallocate(&file, FallocateFlags::empty(), 0, BALLAST).map_err(io::Error::from));
    if made.is_err() {
        let _ = fs::remove_file(&path);
    }
}

fn drop_ballast(shared: &Shared) -> bool {
    fs::remove_file(shared.options.dir.join(BALLAST_FILE)).is_ok()
}

/// Removes, in small steps, blocks from before the start that nothing names: what a `kill -9` between a
/// block's write and its record's commit leaves behind, or a lost index.
pub(super) fn sweep(shared: &Shared, start: std::time::SystemTime) {
    /// Between two of the 256 directories: a sweep of any size stays in the background.
    const STEP: Duration = Duration::from_millis(10);
    shared.content.sweep_tmp();
    for first in 0..=u8::MAX {
        for digest in shared.content.list(first, start) {
            if shared.pending.ending().is_some() {
                return;
            }
            let wanted = || {
                let mut set = HashSet::from([digest]);
                shared.pending.spare(&mut set);
                // Where the index does not answer, everything is wanted.
                set.is_empty() || shared.index.names(&digest).unwrap_or(true)
            };
            if shared.ledger.remove_orphan(&digest, &shared.content, wanted) {
                count(&shared.counts.orphans);
            }
        }
        if shared.pending.ending().is_some() {
            return;
        }
        std::thread::sleep(STEP);
    }
}
