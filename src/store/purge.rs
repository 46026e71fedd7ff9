//! Purges: true for every look-up from the moment they are made, and swept through the index behind by a thread.
//!
//! The list is short and held in memory; it is written to a file before a purge is said to be done, so that a crash
//! brings nothing back. Once the index has been swept, the commits behind it are on disk and some time has gone by,
//! a purge leaves the list again. Where the list is empty, which is nearly always, a look-up pays one atomic load.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex};

use super::listing::{Rows, Slice};
use super::pending::Revision;
use super::shared::Shared;
use crate::base::clock::Timestamp;
use crate::base::crash::{Step, reach};
use crate::base::limits::PURGES;
use crate::cache::purge::{Fate, Purge};
use crate::cache::{Entry, Record};

/// The file of purges that are not swept yet, a line each.
const FILE: &str = "purges";

/// How long a purge stays in the list at the least: whoever found an entry just before has put it back by then, if
/// they do.
const GRACE: Duration = Duration::from_secs(10);

/// How often the thread looks whether it should end, or a purge may leave.
const LOOK: Duration = Duration::from_millis(500);

/// Changes that may wait for a commit while a sweep goes on; a purge of everything must not fill the memory.
const WAITING: usize = 2_000;

/// Why a purge was not made.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// So many were made just now that each would be matched against every request.
    #[error("{PURGES} purges are being swept already")]
    TooMany,
    /// It could not be written down, so it would not outlive a crash.
    #[error("the purge cannot be written to the cache directory: {0}")]
    Disk(#[source] io::Error),
}

#[derive(Debug)]
struct Made {
    purge: Purge,
    number: u64,
    at: Instant,
}

/// The purges of a store.
pub(super) struct Purges {
    /// How many there are: what the hit path looks at.
    count: AtomicUsize,
    list: ArcSwap<Vec<Arc<Made>>>,
    /// Guards changes of the list and the file.
    change: Mutex<Numbers>,
    wake: Condvar,
    swept: AtomicU64,
    file: PathBuf,
}

#[derive(Default)]
struct Numbers {
    last: u64,
}

/// The purges of a moment.
pub(super) struct Snapshot(Arc<Vec<Arc<Made>>>);

impl Snapshot {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn judge(&self, key: &str, asked: Timestamp, now: Timestamp) -> Fate {
        judge(&self.0, key, asked, now)
    }
}

/// The harshest word counts.
fn judge(list: &[Arc<Made>], key: &str, asked: Timestamp, now: Timestamp) -> Fate {
    list.iter().map(|made| made.purge.judge(key, asked, now)).max().unwrap_or(Fate::Stays)
}

impl Purges {
    /// Those that the last run left.
    pub(super) fn open(dir: &std::path::Path) -> Self {
        let file = dir.join(FILE);
        // Of a crash in the middle of writing it.
        let _ = fs::remove_file(file.with_extension("new"));
        let text = fs::read_to_string(&file).unwrap_or_default();
        let found = text.lines().filter_map(Purge::from_line);
        let list: Vec<_> = (1..)
            .zip(found)
            .map(|(number, purge)| Arc::new(Made { purge, number, at: Instant::now() }))
            .collect();
        Self {
            count: AtomicUsize::new(list.len()),
            change: Mutex::new(Numbers { last: list.len() as u64 }),
            list: ArcSwap::from_pointee(list),
            wake: Condvar::new(),
            swept: AtomicU64::new(0),
            file,
        }
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// What has become of content of `key` that was asked for at `asked`.
    fn judge(&self, key: &str, asked: Timestamp, now: Timestamp) -> Fate {
        if self.is_empty() {
            return Fate::Stays;
        }
        judge(&self.list.load(), key, asked, now)
    }

    /// Those of this moment.
    pub(super) fn now(&self) -> Snapshot {
        Snapshot(self.list.load_full())
    }

    /// Makes it true for every look-up from now on, and on disk.
    fn add(&self, purge: Purge) -> Result<(), PurgeError> {
        let mut numbers = self.change.lock();
        let mut list = Vec::clone(&self.list.load());
        if list.len() >= PURGES {
            return Err(PurgeError::TooMany);
        }
        numbers.last += 1;
        list.push(Arc::new(Made { purge, number: numbers.last, at: Instant::now() }));
        self.write(&list).map_err(PurgeError::Disk)?;
        self.publish(list);
        self.wake.notify_all();
        Ok(())
    }

    fn publish(&self, list: Vec<Arc<Made>>) {
        let count = list.len();
        // Never the count before the list: whoever sees it has to find it.
        if count > self.count.load(Ordering::Acquire) {
            self.list.store(Arc::new(list));
            self.count.store(count, Ordering::Release);
        } else {
            self.count.store(count, Ordering::Release);
            self.list.store(Arc::new(list));
        }
    }

    fn write(&self, list: &[Arc<Made>]) -> io::Result<()> {
        let aside = self.file.with_extension("new");
        let mut file = File::create(&aside)?;
        for made in list {
            writeln!(file, "{}", made.purge.to_line())?;
        }
        file.sync_data()?;
        reach(Step::PurgesWritten);
        fs::rename(aside, &self.file)?;
        // Not before its name is durable, too: a power cut would bring back what an operator was told is gone.
        File::open(self.file.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        reach(Step::PurgesKept);
        Ok(())
    }

    /// Takes out those that were swept, up to this number, and are old enough.
    fn retire(&self, number: u64) {
        let _numbers = self.change.lock();
        let list = self.list.load();
        let stays = |made: &&Arc<Made>| made.number > number || made.at.elapsed() < GRACE;
        let left: Vec<_> = list.iter().filter(stays).cloned().collect();
        if left.len() == list.len() {
            return;
        }
        match self.write(&left) {
            Ok(()) => self.publish(left),
            Err(error) => tracing::warn!(%error, "the list of purges cannot be written"),
        }
    }

    /// Waits until there is something to sweep or a moment has gone by; the number of the last purge.
    fn wait(&self) -> u64 {
        let mut numbers = self.change.lock();
        if numbers.last == self.swept.load(Ordering::Acquire) {
            self.wake.wait_for(&mut numbers, LOOK);
        }
        numbers.last
    }
}

impl Shared {
    /// Whether an entry may be used as it is.
    pub(super) fn is_spared(&self, entry: &Entry) -> bool {
        if self.purges.is_empty() {
            return true;
        }
        match self.fate_of(entry) {
            Fate::Stays => true,
            Fate::Stale => entry.stale,
            Fate::Gone => false,
        }
    }

    pub(super) fn fate_of(&self, entry: &Entry) -> Fate {
        self.purges.judge(entry.key.as_str(), entry.head.requested_at, self.clock.now())
    }

    /// Whether an unfinished body may be continued: not what was purged, however softly, because its blocks may be
    /// what the operator wants to be rid of.
    pub(super) fn is_partial_spared(&self, key: &str, record: &Record) -> bool {
        self.purges.judge(key, record.head.requested_at, self.clock.now()) == Fate::Stays
    }

    /// The entry as the purges have left it, if they have; where it has to change, it does.
    pub(super) fn spare(&self, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        if self.is_spared(&entry) {
            return Some(entry);
        }
        self.carry_out(entry.key.as_str());
        match self.fate_of(&entry) {
            Fate::Stays => Some(entry),
            Fate::Stale => Some(Arc::new(entry.marked(true, entry.pinned))),
            Fate::Gone => None,
        }
    }

    /// Does to the entry of `key`, whichever that is by now, what the purges say.
    fn carry_out(&self, key: &str) {
        self.revise(key, |entry| match self.fate_of(entry) {
            Fate::Stale if !entry.stale => Revision::Become(Box::new(entry.marked(true, entry.pinned))),
            Fate::Stays | Fate::Stale => Revision::Stay,
            Fate::Gone => Revision::Go,
        });
    }

    /// What has become of content of `key` that was asked for at `asked`.
    pub(super) fn purges_fate(&self, key: &str, asked: Timestamp) -> Fate {
        self.purges.judge(key, asked, self.clock.now())
    }

    /// Makes the purge true.
    pub(super) fn purge(&self, purge: Purge) -> Result<(), PurgeError> {
        self.purges.add(purge)
    }
}

/// Runs until the store ends: sweeps what was purged.
pub(super) fn run(shared: &Shared) {
    while !*shared.started.borrow() && shared.pending.ending().is_none() {
        std::thread::sleep(LOOK / 50);
    }
    // Purges up to the first number are swept, and done when the second change is on disk.
    let mut done = (0, 0);
    loop {
        let last = shared.purges.wait();
        if shared.pending.ending().is_some() {
            return;
        }
        if last != shared.purges.swept.load(Ordering::Acquire) && sweep(shared) {
            shared.purges.swept.store(last, Ordering::Release);
            done = (last, shared.pending.number());
        }
        if !shared.purges.is_empty() && shared.pending.is_committed(done.1) {
            shared.purges.retire(done.0);
        }
    }
}

/// Looks at every entry and every unfinished body once. False where the store ended meanwhile or the index failed.
fn sweep(shared: &Shared) -> bool {
    for key in shared.memory.keys() {
        shared.carry_out(key.as_str());
    }
    for rows in [Rows::Entries, Rows::Partials] {
        let mut after = None;
        loop {
            let purged = |key: &str, record: &Record| {
                shared.purges.judge(key, record.head.requested_at, shared.clock.now()) != Fate::Stays
            };
            let matches = |key: &str| shared.purges.list.load().iter().any(|made| made.purge.matches(key));
            let Slice { found, next } = match shared.index.slice(rows, after.as_deref(), &matches, &purged) {
                Ok(slice) => slice,
                Err(error) => {
                    shared.index_failed(&error);
                    std::thread::sleep(LOOK);
                    return false;
                }
            };
            for (key, record) in found {
                match rows {
                    Rows::Entries => shared.carry_out(&key),
                    Rows::Partials => {
                        let unchanged = |now: Option<&Record>| now.is_none_or(|now| now.head == record.head);
                        shared.pending.drop_partial_if(&key, unchanged);
                    }
                }
            }
            while shared.pending.waiting() > WAITING && shared.pending.ending().is_none() {
                std::thread::sleep(Duration::from_millis(5));
            }
            if shared.pending.ending().is_some() {
                return false;
            }
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
    }
    true
}
