//! One fill per key: the single fetch that feeds an entry and everybody who waits for it.
//!
//! A `Fill` is owned by its own task (the *lead*), never by a request. Every agent, the first included,
//! holds a [`Seat`] and reads as a [`Follow`]: leaving ends its own stream only. The task's guard settles the
//! fill whatever happens to the task, so that nobody waits for ever and no stump looks whole.
//!
//! Locks: the registry's map (held for a look-up and an insert), and one per fill over its state (held for a
//! few pointer moves). Neither is held over an await, and the registry's is taken first.

mod admission;
mod ahead;
mod blame;
mod body;
mod cause;
mod direct;
mod follow;
mod heal;
mod job;
mod lane;
mod lead;
mod open;
mod operate;
mod pace;
mod partial;
mod proof;
mod resume;
mod seat;
mod spoiled;
mod state;
mod tokens;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::base::clock::{Clock, Timestamp};
use crate::base::limits::CLOCK_SLACK;
use crate::cache::{Entry, Key};
use crate::store::Store;
use crate::upstream::Upstream;

pub use admission::Class;
pub use cause::Cause;
pub use direct::{Direct, Parked, PassBody};
pub use follow::{Broken, Follow, Origin, Stored};
pub use job::{Events, Job, Supply};
pub use pace::Pace;
pub use seat::{Outcome, Seat, Settled};
pub use state::Opened;

use admission::Admission;
use blame::Wrong;
use heal::Heals;
use spoiled::Spoiled;
use state::Fill;
use tokens::Tokens;

/// What may be turned about fills.
#[derive(Clone, Debug)]
pub struct Options {
    /// Fills that may run at the same time; more wait in line. Default 64: beyond it a thin WAN only makes
    /// everybody late.
    pub fills: usize,
    /// Fills that may wait in line. Default 10,000; more get 503 at once.
    pub queue: usize,
    /// How long one waits in line before its readers get 503. Default 20 s: agents give up at 30.
    pub queue_wait: Duration,
    /// How long a fill without readers goes on before it is paused. Default 10 s: an agent that retries at
    /// once finds it running.
    pub linger: Duration,
    /// A fill without readers that has no more than this many bytes to go is finished. Default 8 MiB.
    pub finish_below: u64,
    /// How long a broken body is tried to be resumed before its readers are cut. Default 60 s.
    pub resume_for: Duration,
    /// How long a key whose answer could not be shared is fetched without waiting for each other.
    /// Default 30 s.
    pub direct_for: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            fills: 64,
            queue: 10_000,
            queue_wait: Duration::from_secs(20),
            linger: Duration::from_secs(10),
            finish_below: 8 << 20,
            resume_for: Duration::from_secs(60),
            direct_for: Duration::from_secs(30),
        }
    }
}

/// Keys remembered as not shareable, at most. A forgotten one costs its waiters one round of waiting.
const DIRECT_KEYS: usize = 4_096;

/// Absent names remembered, at most: a scan over 100,000 names costs memory for so many and no disk.
const NEGATIVE_KEYS: usize = 10_000;

/// All fills of this node. Clones are the same registry.
#[derive(Clone)]
pub struct Fills(Arc<Inner>);

struct Inner {
    options: Options,
    store: Store,
    clock: Clock,
    admission: Admission,
    flights: Mutex<HashMap<Key, Arc<Fill>>>,
    direct: Mutex<HashMap<Key, Timestamp>>,
    negative: Mutex<HashMap<Key, (Arc<Entry>, Timestamp)>>,
    wrong: Wrong,
    spoiled: Spoiled,
    tokens: Tokens,
    heals: Arc<Heals>,
}

impl Fills {
    /// A registry over `store`.
    pub fn new(options: Options, store: Store, clock: Clock) -> Self {
        let admission = Admission::new(options.fills, options.queue);
        Self(Arc::new(Inner {
            options,
            store,
            clock,
            admission,
            flights: Mutex::default(),
            direct: Mutex::default(),
            negative: Mutex::default(),
            wrong: Wrong::default(),
            spoiled: Spoiled::default(),
            tokens: Tokens::default(),
            heals: Arc::default(),
        }))
    }

    /// Takes a seat at the fill of the job's key, starting one if there is none. Never waits.
    ///
    /// Must be called within a tokio runtime: a new fill is a task of its own.
    pub fn join(&self, job: Job) -> Seat {
        let mut flights = self.0.flights.lock();
        if let Some(fill) = flights.get(&job.key) {
            fill.want(job.wanted);
            fill.pin(job.pinned);
            return Seat::new(Arc::clone(fill), false);
        }
        let fill = Arc::new(Fill::new(
            &job,
            self.0.store.clone(),
            (Arc::clone(&self.0.heals), self.0.tokens.clone()),
            self.0.clock.clone(),
        ));
        flights.insert(job.key.clone(), Arc::clone(&fill));
        let seat = Seat::new(Arc::clone(&fill), true);
        drop(flights);
        tokio::spawn(lead::run(self.clone(), fill, job));
        seat
    }

    /// Whether a fill of this key is under way: its bytes are worth waiting for, however upstream is at the moment.
    pub fn is_running(&self, key: &Key) -> bool {
        self.0.flights.lock().get(key).is_some_and(|fill| !fill.is_settled())
    }

    /// When it is worth asking for a listed file again that every upstream had wrong a moment ago. `None`: now.
    pub fn spoiled_until(&self, key: &Key) -> Option<Timestamp> {
        self.0.spoiled.until(key, self.0.clock.now())
    }

    /// Whether this key's last answer could not be shared: then ask for [`Fills::direct`] at once.
    pub fn is_direct(&self, key: &Key) -> bool {
        let now = self.0.clock.now();
        self.0.direct.lock().get(key).is_some_and(|until| until.is_ahead(now, self.0.options.direct_for))
    }

    /// One block of an entry, fetched again by range because the stored copy is missing or wrong.
    ///
    /// One fetch at a time per block, however many readers found it; the bytes are proven by the block's own
    /// digest, so any upstream will do.
    ///
    /// # Errors
    /// Says what kept it from being fetched. Where upstream has another file now, or none, the entry is dropped and the
    /// next request starts over; otherwise it stays as it is, and the next reader of the block tries again.
    pub async fn heal(&self, supply: &Supply, entry: &Entry, index: usize) -> Result<bytes::Bytes, Cause> {
        heal::heal_entry(self, supply, entry, index).await
    }

    /// Fills that run or wait, as (key, bytes arrived, length where known, readers).
    pub fn list(&self) -> Vec<(Key, u64, Option<u64>, usize)> {
        let fills: Vec<_> = self.0.flights.lock().values().cloned().collect();
        fills.iter().filter(|fill| !fill.is_settled()).map(|fill| fill.progress()).collect()
    }

    /// Waits until every fill whose bytes are all here has been sealed, at most `patience`. For the end of a node.
    pub async fn come_to_rest(&self, patience: Duration) {
        let sealing = || self.list().iter().any(|(_, arrived, length, _)| Some(*arrived) == *length);
        let rest = async {
            while sealing() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // What is not sealed by then is fetched again by the next run; nothing wrong is kept.
        let _ = tokio::time::timeout(patience, rest).await;
    }

    /// How many fills run and how many readers they have.
    pub fn count(&self) -> (usize, usize) {
        let list = self.list();
        (list.len(), list.iter().map(|row| row.3).sum())
    }

    /// What upstream lately said is not there, while that may be repeated.
    pub fn negative(&self, key: &Key) -> Option<Arc<Entry>> {
        let now = self.0.clock.now();
        let negative = self.0.negative.lock();
        let is_young = |entry: &Entry, until: &Timestamp| {
            now < *until && entry.head.received_at <= now.after(CLOCK_SLACK)
        };
        negative.get(key).filter(|(entry, until)| is_young(entry, until)).map(|(entry, _)| Arc::clone(entry))
    }

    /// Whether a request carries the token of a question of ours that is open: then it is that question coming
    /// back around a loop of handlers. Tokens are 128 random bits, so nobody else can say one (RFC 8586).
    pub fn is_loop(&self, tokens: &[&str]) -> bool {
        self.0.tokens.knows_any(tokens)
    }

    /// Whom to ask for a job, best first: those last who lately sent wrong bytes of it, and not those who are `barred`.
    fn candidates(&self, job: &Job, barred: &[String]) -> impl Iterator<Item = Arc<Upstream>> + Send + use<> {
        let now = self.0.clock.now();
        let wrong = self.0.wrong.of(&job.key, now);
        let (only, barred) = (job.only.clone(), barred.to_vec());
        job.supply.sources.ranked(now, move |name| {
            let named = |names: &[String]| names.iter().any(|it| it == name);
            let may_be = only.as_deref().is_none_or(|only| only == name) && !named(&barred);
            may_be.then(|| u8::from(named(&wrong)))
        })
    }

    /// A fill of a listed file ended with wrong bytes: remembers it where nobody is left who may have the right ones.
    fn note_spoiled(&self, job: &Job) {
        let now = self.0.clock.now();
        let wrong = self.0.wrong.of(&job.key, now);
        if job.only.is_none() && self.candidates(job, &wrong).next().is_none() {
            self.0.spoiled.remember(&job.key, now);
        }
    }

    fn remember_negative(&self, entry: &Arc<Entry>, time: Duration) {
        let now = self.0.clock.now();
        let mut negative = self.0.negative.lock();
        if negative.len() >= NEGATIVE_KEYS {
            negative.retain(|_, (_, until)| now < *until);
        }
        if negative.len() < NEGATIVE_KEYS {
            negative.insert(entry.key.clone(), (Arc::clone(entry), now.after(time)));
        }
    }

    fn forget_negative(&self, key: &Key) {
        self.0.negative.lock().remove(key);
    }

    fn remember_direct(&self, key: &Key) {
        let now = self.0.clock.now();
        let mut direct = self.0.direct.lock();
        if direct.len() >= DIRECT_KEYS {
            direct.retain(|_, until| now < *until);
        }
        if direct.len() < DIRECT_KEYS {
            direct.insert(key.clone(), now.after(self.0.options.direct_for));
        }
    }

    fn forget_direct(&self, key: &Key) {
        self.0.direct.lock().remove(key);
    }

    /// Takes the fill out of the registry; a later one under the same key is left alone.
    fn leave(&self, fill: &Arc<Fill>) {
        let mut flights = self.0.flights.lock();
        if flights.get(fill.key()).is_some_and(|it| Arc::ptr_eq(it, fill)) {
            flights.remove(fill.key());
        }
    }

    /// Takes the fill out of the registry if nobody sits at it. Decided under the registry's lock, where
    /// seats are given, so that nobody sits down in between.
    fn leave_if_alone(&self, fill: &Arc<Fill>) -> bool {
        let mut flights = self.0.flights.lock();
        if fill.interest() > 0 && !fill.is_settled() {
            return false;
        }
        if flights.get(fill.key()).is_some_and(|it| Arc::ptr_eq(it, fill)) {
            flights.remove(fill.key());
        }
        true
    }
}
