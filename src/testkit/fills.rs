//! Fills without a node around them, for what a configuration cannot turn: linger, budgets, windows.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use parking_lot::Mutex;

use super::content;
use super::node::Home;
use crate::base::clock::Clock;
use crate::cache::Key;
use crate::fill::{self, Cause, Events, Fills, Follow, Job, Outcome, Seat, Settled, Supply};
use crate::repository::rules::Rules;
use crate::store::{self, Faults, Store};
use crate::upstream::{Options, Sources, Upstream};

/// Fills over a store of their own, for one repository at `/`.
pub struct FillBench {
    /// The fills.
    pub fills: Fills,
    /// The store.
    pub store: Store,
    /// What is wrong with its disk.
    pub faults: Faults,
    /// Where they fetch.
    pub supply: Arc<Supply>,
    notes: Notes,
    _home: Home,
}

/// What was reported, as `word` or `word detail`.
#[derive(Clone, Debug, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn add(&self, note: String) {
        self.0.lock().push(note);
    }
}

impl Events for Notes {
    fn ended(&self, word: &'static str) {
        self.add(format!("ended {word}"));
    }
    fn upstream_answered(&self, _upstream: &str, status: Option<StatusCode>) {
        self.add(format!("answered {}", status.map_or(0, |status| status.as_u16())));
    }
    fn upstream_received(&self, _upstream: &str, _bytes: u64) {}
    fn upstream_lied(&self, _upstream: &str, lie: &'static str) {
        self.add(format!("lied {lie}"));
    }
    fn resumed(&self, word: &'static str) {
        self.add(format!("resumed {word}"));
    }
    fn healed(&self, well: bool) {
        self.add(format!("healed {well}"));
    }
}

impl FillBench {
    /// Over an empty store, with these upstreams.
    pub fn new(options: fill::Options, upstreams: Vec<Options>) -> Self {
        let home = Home::new();
        let clock = Clock::system();
        let size = 256 << 20;
        let kept =
            store::Options { memory: 16 << 20, min_free: 0, ..store::Options::new(home.path("cache"), size) };
        let faults = Faults::default();
        let store = Store::open_with(kept, clock.clone(), faults.clone()).expect("a store opens");
        let upstreams = upstreams.into_iter().map(|options| {
            Arc::new(Upstream::new(options, clock.clone()).expect("the upstream's options are right"))
        });
        let notes = Notes::default();
        let supply = Arc::new(Supply {
            name: "files".to_owned(),
            prefix: "/".to_owned(),
            forward_headers: Vec::new(),
            sources: Sources::new(upstreams.collect()),
            rules: Rules::compile(Vec::new()).expect("no rule is wrong"),
            max_object: size,
            events: Box::new(notes.clone()),
        });
        let fills = Fills::new(options, store.clone(), clock);
        Self { fills, store, faults, supply, notes, _home: home }
    }

    /// A seat at the fill of `path` (with its slash in front).
    pub fn join(&self, path: &str) -> Seat {
        self.fills.join(self.job(path))
    }

    /// What a request for `path` asks of a fill.
    pub fn job(&self, path: &str) -> Job {
        let key = Key::new(&self.supply.name, path, None);
        let effective = *self.supply.rules.effective(path);
        Job::new(key, path.trim_start_matches('/'), &self.supply, effective)
    }

    /// Takes a seat and reads the whole body, comparing it with the body `seed`. Returns its length.
    ///
    /// # Errors
    /// Why there is none, or why it broke off.
    pub async fn read(&self, path: &str, seed: u64) -> Result<u64, Cause> {
        let seat = self.join(path);
        match seat.outcome().await {
            Outcome::Streaming(opened) => read_to_end(seat.read(0, opened.length), seed, 0).await,
            Outcome::Settled(Settled::Entry { entry, .. }) => Ok(entry.length),
            Outcome::Settled(Settled::Failed(cause)) => Err(cause),
            Outcome::Settled(Settled::NotShareable(_)) => Err(Cause::Internal),
        }
    }

    /// Reports so far that begin with `word`.
    pub fn notes(&self, word: &str) -> Vec<String> {
        self.notes.0.lock().iter().filter(|note| note.starts_with(word)).cloned().collect()
    }
}

impl std::fmt::Debug for FillBench {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FillBench").field("notes", &self.notes).finish_non_exhaustive()
    }
}

/// The next bytes of a body that arrives, with all the patience a test has.
///
/// # Errors
/// Why it broke off.
pub async fn next(follow: &mut Follow) -> Result<Option<Bytes>, Cause> {
    let next = poll_fn(|cx| follow.poll_next(cx, usize::MAX));
    let next = tokio::time::timeout(Duration::from_secs(60), next).await.expect("a body goes on or breaks");
    next.transpose().map_err(|broken| broken.0)
}

/// Reads to the end, comparing with the body `seed` from `at` on. Returns where the end was.
///
/// # Errors
/// Why it broke off.
pub async fn read_to_end(mut follow: Follow, seed: u64, mut at: u64) -> Result<u64, Cause> {
    while let Some(bytes) = next(&mut follow).await? {
        assert!(bytes == content::piece(seed, at, bytes.len()), "wrong bytes at {at}");
        at += bytes.len() as u64;
    }
    Ok(at)
}
