//! Opening and closing: the directory's lock, its format, the threads.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};

use super::Store;
use super::error::OpenError;
use super::faults::Faults;
use super::options::Options;
use super::pending::End;
use super::pool::Pool;
use super::purge;
use super::shared::Shared;
use super::space::{Part, Trouble};
use super::writer;
use crate::base::clock::Clock;

/// Format of the directory as a whole.
const FORMAT: u32 = 1;
const FORMAT_FILE: &str = "format";

/// What a store owns: its threads, and with them the directory.
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
    pub(super) pool: Pool,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Store {
    /// Opens the store of `options.dir` and returns at once, whatever the number of entries: recovery runs
    /// behind. A directory that cannot be written gives a store in pass-through state, which tries again
    /// every ten seconds.
    ///
    /// # Errors
    /// [`OpenError`]: the directory is another process's or another release's.
    pub fn open(options: Options, clock: Clock) -> Result<Self, OpenError> {
        open(options, clock, Faults::default())
    }

    /// As [`Store::open`], with faults to inject.
    ///
    /// # Errors
    /// [`OpenError`].
    #[cfg(any(test, feature = "testkit"))]
    pub fn open_with(options: Options, clock: Clock, faults: Faults) -> Result<Self, OpenError> {
        open(options, clock, faults)
    }
}

fn open(options: Options, clock: Clock, faults: Faults) -> Result<Store, OpenError> {
    let start = SystemTime::now();
    let made = fs::create_dir_all(&options.dir);
    let lock = lock(&options.dir)?;
    if lock.is_some() {
        check_format(&options.dir)?;
    }
    let threads = options.threads;
    let shared = Arc::new(Shared::new(options, clock, faults));
    *shared.lock.lock() = lock;
    if let Err(error) = made {
        tracing::error!(%error, dir = %shared.options.dir.display(), "the cache directory cannot be made");
        shared.space.fail(Part::Blocks, Trouble::of(&error), shared.clock.now());
    }
    shared.content.set_tmp_aside();
    let (pool, mut handles) = Pool::start(threads).map_err(OpenError::Threads)?;
    let started = start_threads(&shared, start, &mut handles);
    let handle = Handle { shared, pool, threads: Mutex::new(handles) };
    // Dropping the handle ends what was started.
    started.map_err(OpenError::Threads)?;
    Ok(Store(Arc::new(handle)))
}

fn start_threads(
    shared: &Arc<Shared>,
    start: SystemTime,
    handles: &mut Vec<JoinHandle<()>>,
) -> io::Result<()> {
    let for_writer = Arc::clone(shared);
    handles.push(thread::Builder::new().name("store-index".into()).spawn(move || writer::run(&for_writer))?);
    let for_sweep = Arc::clone(shared);
    let sweep = move || {
        while !*for_sweep.started.borrow() && for_sweep.pending.ending().is_none() {
            thread::sleep(std::time::Duration::from_millis(10));
        }
        writer::sweep(&for_sweep, start);
    };
    handles.push(thread::Builder::new().name("store-sweep".into()).spawn(sweep)?);
    let for_purges = Arc::clone(shared);
    handles.push(thread::Builder::new().name("store-purge".into()).spawn(move || purge::run(&for_purges))?);
    Ok(())
}

/// Locks the directory itself: that works on a read-only file system too. `None` where there is none.
fn lock(dir: &Path) -> Result<Option<File>, OpenError> {
    let Ok(file) = File::open(dir) else { return Ok(None) };
    if !file.metadata().is_ok_and(|found| found.is_dir()) {
        return Ok(None);
    }
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked { dir: dir.to_path_buf() }),
        // A file system without locks: one process at a time is the administrator's care there.
        Err(_) | Ok(()) => Ok(Some(file)),
    }
}

/// Takes the lock of a directory that was not there at the start.
pub(super) fn take_lock(shared: &Shared) -> Result<(), Trouble> {
    let mut held = shared.lock.lock();
    if held.is_some() {
        return Ok(());
    }
    let dir = &shared.options.dir;
    fs::create_dir_all(dir).map_err(|error| Trouble::of(&error))?;
    let lock = lock(dir).map_err(|_| Trouble::Locked)?;
    check_format(dir).map_err(|_| Trouble::Unopened)?;
    *held = Some(lock.ok_or(Trouble::Unopened)?);
    shared.space.recover(Part::Blocks);
    Ok(())
}

fn check_format(dir: &Path) -> Result<(), OpenError> {
    let path = dir.join(FORMAT_FILE);
    let found = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u32>().ok());
    match found {
        Some(found) if found > FORMAT => {
            Err(OpenError::Newer { dir: dir.to_path_buf(), found, known: FORMAT })
        }
        Some(_) => Ok(()),
        None => {
            // Not being able to write is found out, and told, by the index.
            let _ = fs::write(path, format!("{FORMAT}\n"));
            Ok(())
        }
    }
}

impl Handle {
    pub(super) async fn close(&self) {
        let mut rounds = self.shared.rounds.subscribe();
        self.shared.pending.end(End::Commit);
        // The pool ends after the last commit, so that blocks that are being written still count.
        let _ = rounds.changed().await;
        self.pool.close();
        let threads = std::mem::take(&mut *self.threads.lock());
        let _ = tokio::task::spawn_blocking(move || join(threads)).await;
        self.shared.lock.lock().take();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.pending.end(End::Now);
        self.pool.close();
        join(std::mem::take(self.threads.get_mut()));
        self.shared.lock.lock().take();
    }
}

fn join(threads: Vec<JoinHandle<()>>) {
    let me = thread::current().id();
    for thread in threads {
        // A store that is dropped by one of its own jobs cannot wait for it.
        if thread.thread().id() != me {
            let _ = thread.join();
        }
    }
}
