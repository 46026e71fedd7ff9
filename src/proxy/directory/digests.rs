//! SHA-256 of files: computed once per state of a file, by one task however many wait for it.
//!
//! One lock covers the memory and the flights; it is never held over an await or a read. A flight belongs to
//! the directory, not to who asked: leaving costs the others nothing. Dropping the directory ends them.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::base::clock::Timestamp;
use crate::base::digest::{Digest, Hasher};

/// Bytes hashed between two looks at whether anybody still wants it.
const STEP: usize = 256 << 10;

/// A file that changed less than this before it was hashed may change again within the granularity of the
/// file system's clock (2 s on FAT, a tick elsewhere) and keep its stamp; its digest is used but not remembered.
const SETTLED: Duration = Duration::from_secs(3);

/// A state of a file, as the file system tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    links: u64,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            links: metadata.nlink(),
        }
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Whether an open file in the state `now` has the content it had in this one. A publisher that renames a new
    /// file over it touches the change time and the links of the old one, which readers may finish.
    pub(super) fn same_content(&self, now: &Self) -> bool {
        self.size == now.size
            && self.modified == now.modified
            && (self.changed == now.changed || self.links != now.links)
    }

    fn settled(&self, now: Timestamp) -> bool {
        let millis = self.changed.0.saturating_mul(1_000).saturating_add(self.changed.1 / 1_000_000);
        Timestamp(u64::try_from(millis).unwrap_or(0)).after(SETTLED) < now
    }
}

/// Why there is no digest.
#[derive(Clone, Copy, Debug)]
pub(super) enum HashFailure {
    /// The file was written meanwhile.
    Changed,
    /// It could not be read.
    Io(io::ErrorKind),
}

type Outcome = Result<Digest, HashFailure>;
type Flight = watch::Receiver<Option<Outcome>>;

/// The digests of a directory.
#[derive(Debug)]
pub(super) struct Digests {
    state: Arc<Mutex<State>>,
    hashers: Arc<Semaphore>,
    stop: Arc<AtomicBool>,
    tasks: Mutex<JoinSet<()>>,
}

/// What is known, in two generations (a digest that is used moves to the young one; when that is full, the old one
/// is forgotten), and what is being computed.
#[derive(Debug, Default)]
struct State {
    half: usize,
    young: HashMap<Stamp, Digest>,
    old: HashMap<Stamp, Digest>,
    flights: HashMap<Stamp, Flight>,
}

impl State {
    fn known(&mut self, stamp: &Stamp) -> Option<Digest> {
        if let Some(digest) = self.young.get(stamp) {
            return Some(*digest);
        }
        let digest = self.old.remove(stamp)?;
        self.remember(*stamp, digest);
        Some(digest)
    }

    fn remember(&mut self, stamp: Stamp, digest: Digest) {
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(stamp, digest);
    }
}

impl Digests {
    pub(super) fn new(hashers: usize, remembered: usize) -> Self {
        Self {
            state: Arc::new(Mutex::new(State { half: (remembered / 2).max(1), ..State::default() })),
            hashers: Arc::new(Semaphore::new(hashers.max(1))),
            stop: Arc::default(),
            tasks: Mutex::default(),
        }
    }

    /// The digest of `file`, which was in the state `stamp` at the moment `now`.
    pub(super) async fn digest(&self, file: &Arc<File>, stamp: Stamp, now: Timestamp) -> Outcome {
        let (mut flight, lead) = {
            let mut state = self.state.lock();
            if let Some(digest) = state.known(&stamp) {
                return Ok(digest);
            }
            if let Some(flight) = state.flights.get(&stamp) {
                (flight.clone(), None)
            } else {
                let (sender, flight) = watch::channel(None);
                state.flights.insert(stamp, flight.clone());
                (flight, Some(sender))
            }
        };
        // Outside the lock: a runtime that shuts down drops the task in here, and its key with it.
        if let Some(sender) = lead {
            self.start(sender, Arc::clone(file), stamp, now);
        }
        let landed = flight.wait_for(Option::is_some).await;
        landed.ok().and_then(|outcome| *outcome).unwrap_or(Err(HashFailure::Io(io::ErrorKind::Interrupted)))
    }

    fn start(&self, sender: watch::Sender<Option<Outcome>>, file: Arc<File>, stamp: Stamp, now: Timestamp) {
        let landing = Landing { state: Arc::clone(&self.state), stamp };
        let (hashers, stop) = (Arc::clone(&self.hashers), Arc::clone(&self.stop));
        let run = async move {
            let landing = landing;
            let Ok(_permit) = hashers.acquire().await else { return };
            let hashed = tokio::task::spawn_blocking(move || hash(&file, stamp, &stop)).await;
            let outcome = hashed.unwrap_or(Err(HashFailure::Io(io::ErrorKind::Other)));
            if let Ok(digest) = outcome
                && stamp.settled(now)
            {
                landing.state.lock().remember(stamp, digest);
            }
            // The key goes before the word: who asks after it must find either the digest or a free key.
            drop(landing);
            sender.send_replace(Some(outcome));
        };
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(run);
    }
}

impl Drop for Digests {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A flight's key; dropping it, at the end or in a panic, frees it.
struct Landing {
    state: Arc<Mutex<State>>,
    stamp: Stamp,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.state.lock().flights.remove(&self.stamp);
    }
}

fn hash(file: &File, stamp: Stamp, stop: &AtomicBool) -> Outcome {
    let failed = |error: io::Error| HashFailure::Io(error.kind());
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; STEP];
    let mut at = 0;
    while at < stamp.size {
        if stop.load(Ordering::Relaxed) {
            return Err(HashFailure::Io(io::ErrorKind::Interrupted));
        }
        let read = match file.read_at(&mut buffer, at) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other.map_err(failed)?,
        };
        let bytes = buffer.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            return Err(HashFailure::Changed);
        }
        hasher.update(bytes);
        at += bytes.len() as u64;
    }
    let now = Stamp::of(&file.metadata().map_err(failed)?);
    if at == stamp.size && stamp.same_content(&now) { Ok(hasher.finish()) } else { Err(HashFailure::Changed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Timestamp = Timestamp(u64::MAX);

    fn file_with(content: &[u8]) -> (tempfile::NamedTempFile, Arc<File>, Stamp) {
        let named = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(named.path(), content).unwrap();
        let file = Arc::new(File::open(named.path()).unwrap());
        let stamp = Stamp::of(&file.metadata().unwrap());
        (named, file, stamp)
    }

    #[tokio::test]
    async fn many_who_ask_at_once_share_one_flight() {
        let digests = Digests::new(1, 16);
        let (_named, file, stamp) = file_with(&[7; 3 << 20]);
        let asks = (0..50).map(|_| digests.digest(&file, stamp, LATER));
        let mut asks: Vec<_> = asks.map(Box::pin).collect();
        // Polled once each before any flight can land: this runtime has one thread.
        for ask in &mut asks {
            assert!(futures_poll_once(ask.as_mut()).is_none());
        }
        assert_eq!(digests.tasks.lock().len(), 1);
        for ask in asks {
            assert_eq!(ask.await.unwrap(), Digest::of(&[7; 3 << 20]));
        }
        assert!(digests.state.lock().flights.is_empty());
        assert_eq!(digests.state.lock().young.len(), 1);
    }

    fn futures_poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn a_file_changed_a_moment_ago_is_hashed_again_next_time() {
        let digests = Digests::new(1, 16);
        let (_named, file, stamp) = file_with(b"fresh");
        let now = Timestamp::from_system(std::time::SystemTime::now());
        assert_eq!(digests.digest(&file, stamp, now).await.unwrap(), Digest::of(b"fresh"));
        assert!(digests.state.lock().young.is_empty());
    }

    #[tokio::test]
    async fn a_file_that_is_not_in_the_state_that_was_seen_has_no_digest() {
        let digests = Digests::new(1, 16);
        let (named, file, stamp) = file_with(b"before");
        std::fs::write(named.path(), b"after it grew").unwrap();
        assert!(matches!(digests.digest(&file, stamp, LATER).await, Err(HashFailure::Changed)));
    }

    #[tokio::test]
    async fn leaving_a_flight_does_not_end_it() {
        let digests = Digests::new(1, 16);
        let (_named, file, stamp) = file_with(b"content");
        let mut ask = Box::pin(digests.digest(&file, stamp, LATER));
        assert!(futures_poll_once(ask.as_mut()).is_none());
        drop(ask);
        assert_eq!(digests.digest(&file, stamp, LATER).await.unwrap(), Digest::of(b"content"));
        assert_eq!(digests.tasks.lock().len(), 1);
    }

    #[test]
    fn what_is_used_outlives_what_is_not() {
        let mut state = State { half: 2, ..State::default() };
        let stamp = |inode| Stamp { device: 0, inode, size: 0, modified: (0, 0), changed: (0, 0), links: 1 };
        for inode in 0..20 {
            state.remember(stamp(inode), Digest([0; 32]));
            assert!(inode < 1 || state.known(&stamp(0)).is_some(), "{inode}");
            assert!(state.young.len() + state.old.len() <= 4);
        }
        assert!(state.known(&stamp(5)).is_none());
    }
}
