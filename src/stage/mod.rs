//! Catalogues as one thing: watched upstream, read and checked behind the scenes, shown to agents in one step.
//!
//! A *scope* is one catalogue, named by its root. Its newest *generation* is what agents see; the ones before it are
//! kept for those who began with them. Agents never cause a fetch of a catalogue file: a look at upstream (`round`)
//! does, one at a time for each scope, however many agents ask. `locate` says what a path means; `draft` reads what
//! upstream has, and `still` whether that is one thing; `prepare` fetches ahead; `record` remembers over a restart.
//!
//! What proves a file is part of its key, so that the same name can have one content in one generation and another
//! in the next, and neither is ever mistaken for the other.

mod chain;
mod draft;
mod fetch;
mod generation;
mod known;
mod locate;
mod options;
mod prepare;
mod record;
mod round;
mod scope;
mod sessions;
mod still;
mod trouble;

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::base::clock::Clock;
use crate::base::limits::BLOCK_BYTES;
use crate::fill::{Origin, Pace};
use crate::repository::preset::Preset;

pub use chain::Missed;
pub use fetch::GENERATION;
pub use generation::Generation;
pub use known::KnownFile;
pub use locate::{ListedFile, PartOf, Place};
pub use options::{Options, Prepare};
pub use scope::{Scope, ScopeStatus};
pub use sessions::Visitor;
pub use trouble::Trouble;

use sessions::Sessions;

/// Catalogues that nobody has asked for this long are not looked at any more until somebody does.
const IDLE: Duration = Duration::from_secs(24 * 3_600);

/// Things to do behind that wait to be begun.
const QUEUE: usize = 1_024;

/// What catalogues report; the metrics implement it.
pub trait Events: Send + Sync + fmt::Debug {
    /// A new generation is shown.
    fn shown(&self);
    /// A look at upstream did not lead to what is shown being right or replaced; the word is a [`Trouble`]'s.
    fn refused(&self, word: &'static str);
    /// An agent asked for an incremental update that nobody has.
    fn delta_missing(&self);
    /// An agent fetched this many bytes whole because the incremental update was missing.
    fn delta_waste(&self, bytes: u64);
}

type Work = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// The catalogues of one repository.
pub struct Catalogues {
    options: Options,
    preset: &'static dyn Preset,
    origin: Arc<Origin>,
    clock: Clock,
    events: Box<dyn Events>,
    pace: Option<Arc<Pace>>,
    scopes: ArcSwap<Vec<Arc<Scope>>>,
    sessions: Sessions,
    missed: chain::MissedDeltas,
    /// Indexes being read, by generation and name.
    reading: Mutex<HashSet<(Box<str>, Box<str>)>>,
    /// What to wait for before anything is known.
    nowhere: Arc<Scope>,
    poked: Notify,
    restored: watch::Sender<bool>,
    writing: Arc<tokio::sync::Mutex<()>>,
    queue: mpsc::Sender<Work>,
    taken: Mutex<Option<mpsc::Receiver<Work>>>,
    this: Weak<Self>,
}

impl fmt::Debug for Catalogues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalogues").field("preset", &self.preset).finish_non_exhaustive()
    }
}

impl Catalogues {
    /// The catalogues of the repository that `origin` serves. Nothing happens until [`Catalogues::run`] does.
    pub fn new(
        options: Options,
        preset: &'static dyn Preset,
        origin: Arc<Origin>,
        clock: Clock,
        events: Box<dyn Events>,
    ) -> Arc<Self> {
        let (queue, taken) = mpsc::channel(QUEUE);
        let pace =
            (options.prefetch_rate > 0).then(|| Arc::new(Pace::new(options.prefetch_rate, BLOCK_BYTES)));
        Arc::new_cyclic(|this| Self {
            options,
            preset,
            origin,
            clock,
            events,
            pace,
            scopes: ArcSwap::default(),
            sessions: Sessions::default(),
            missed: chain::MissedDeltas::default(),
            reading: Mutex::default(),
            nowhere: Arc::new(Scope::new("", "")),
            poked: Notify::new(),
            restored: watch::Sender::new(false),
            writing: Arc::default(),
            queue,
            taken: Mutex::new(Some(taken)),
            this: this.clone(),
        })
    }

    /// Watches upstream until dropped: the owner of everything that happens behind the requests.
    pub async fn run(self: Arc<Self>) {
        let Some(mut queue) = self.taken.lock().take() else { return };
        let mut tasks = JoinSet::new();
        self.restore().await;
        self.restored.send_replace(true);
        loop {
            let next = self.begin_rounds(&mut tasks);
            tokio::select! {
                Some(work) = queue.recv() => drop(tasks.spawn(work)),
                Some(_) = tasks.join_next() => {}
                () = self.poked.notified() => {}
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    /// Begins the rounds that are due; returns when the next one is.
    fn begin_rounds(self: &Arc<Self>, tasks: &mut JoinSet<()>) -> Instant {
        let now = Instant::now();
        let mut next = now + IDLE;
        for scope in self.scopes.load().iter() {
            match scope.take_turn(now, IDLE) {
                Ok(()) => drop(tasks.spawn(Arc::clone(self).round(Arc::clone(scope)))),
                Err(Some(due)) => next = next.min(due),
                Err(None) => {}
            }
        }
        next
    }

    /// Does something behind, owned by [`Catalogues::run`]. Returns whether there was room for it: what is done here
    /// makes things better and is never needed.
    fn work(&self, work: impl Future<Output = ()> + Send + 'static) -> bool {
        self.queue.try_send(Box::pin(work)).is_ok()
    }

    /// Adds a scope, unless it is there; returns the one that is.
    fn add_scope(&self, scope: Arc<Scope>) -> Arc<Scope> {
        let before = self.scopes.rcu(|scopes| {
            let mut scopes = Vec::clone(scopes);
            if !scopes.iter().any(|it| it.name == scope.name) {
                scopes.push(Arc::clone(&scope));
            }
            scopes
        });
        before.iter().find(|it| it.name == scope.name).map_or(scope, Arc::clone)
    }

    /// The kind of repository.
    pub fn preset(&self) -> &'static dyn Preset {
        self.preset
    }

    /// What is known of each catalogue at the moment.
    pub fn status(&self) -> Vec<ScopeStatus> {
        let now = self.clock.now();
        self.scopes.load().iter().map(|scope| scope.status(now)).collect()
    }
}
