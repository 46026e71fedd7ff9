//! One catalogue: its root, the generations that are kept, and what is known about the one upstream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::generation::Generation;
use super::trouble::Trouble;
use crate::base::clock::Timestamp;

/// Checks that failed are repeated after this, doubling up to the usual interval.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// A publication that is only a little late is over by then.
const COSTLY_AFTER: Duration = Duration::from_secs(30);

/// After that a file that came whole and wrong is fetched again more and more seldom, up to this: each time it crosses the
/// WAN for nothing.
const COSTLY_PAUSE: Duration = Duration::from_secs(300);

/// How much of its clocks and of what agents used a crash may forget.
const REMEMBER_EVERY: Duration = Duration::from_secs(60);

/// The root of a catalogue and everything behind it.
#[derive(Debug)]
pub struct Scope {
    /// The root's path below the repository, as upstream is asked for it.
    pub root: Box<str>,
    /// Its folded name.
    pub(super) name: Box<str>,
    pub(super) shown: ArcSwap<Shown>,
    state: Mutex<State>,
    doubted: AtomicBool,
    /// Counts checks that have ended and indexes that were read.
    pub(super) rounds: watch::Sender<u64>,
    /// Indexes that are being read at the moment: what they name is not known yet.
    pub(super) reading: AtomicUsize,
}

/// What agents see, newest first.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) generations: Vec<Arc<Generation>>,
    /// Whether upstream has no catalogue here.
    pub(super) absent: bool,
}

#[derive(Debug)]
struct State {
    due: Instant,
    /// However much it is hurried, not before.
    not_before: Instant,
    running: bool,
    pause: Duration,
    asked_at: Instant,
    remembered_at: Instant,
    trouble: Option<(Trouble, Timestamp)>,
    alarmed: bool,
}

/// A moment's view of a catalogue, for status and metrics.
#[derive(Clone, Debug)]
pub struct ScopeStatus {
    /// The root.
    pub root: Box<str>,
    /// What agents see, if anything.
    pub generation: Option<Arc<Generation>>,
    /// How many earlier ones are kept.
    pub kept: usize,
    /// Time since upstream confirmed what is shown.
    pub age: Duration,
    /// What keeps a newer one from being shown, and since when.
    pub trouble: Option<(Trouble, Timestamp)>,
    /// Whether the age is past the alarm's limit.
    pub alarm: bool,
}

impl Scope {
    pub(super) fn new(root: &str, name: &str) -> Self {
        let now = Instant::now();
        Self {
            root: root.into(),
            name: name.into(),
            shown: ArcSwap::default(),
            state: Mutex::new(State {
                due: now,
                not_before: now,
                running: false,
                pause: FIRST_PAUSE,
                asked_at: now,
                remembered_at: now,
                trouble: None,
                alarmed: false,
            }),
            doubted: AtomicBool::new(false),
            rounds: watch::Sender::new(0),
            reading: AtomicUsize::new(0),
        }
    }

    /// What agents see.
    pub(super) fn newest(&self) -> Option<Arc<Generation>> {
        self.shown.load().generations.first().cloned()
    }

    /// What upstream sends does not fit what is shown: the next look is a thorough one, and soon.
    pub(super) fn doubt(&self) {
        self.doubted.store(true, Ordering::Relaxed);
        self.hurry();
    }

    /// Whether there was doubt since the last look.
    pub(super) fn take_doubt(&self) -> bool {
        self.doubted.swap(false, Ordering::Relaxed)
    }

    /// An agent asked: the catalogue is worth watching.
    pub(super) fn note_interest(&self) {
        self.state.lock().asked_at = Instant::now();
    }

    /// Has the next check done now, unless one runs.
    pub(super) fn hurry(&self) {
        let mut state = self.state.lock();
        if !state.running {
            state.due = Instant::now().max(state.not_before);
        }
    }

    /// Takes the right to check, where it is due and nobody does it already; else when to look again. Nobody having
    /// asked for `idle`, it is not worth the WAN.
    pub(super) fn take_turn(&self, now: Instant, idle: Duration) -> Result<(), Option<Instant>> {
        let mut state = self.state.lock();
        if state.running || now.duration_since(state.asked_at) > idle && state.due <= now {
            return Err(None);
        }
        if state.due > now {
            return Err(Some(state.due));
        }
        state.running = true;
        Ok(())
    }

    /// A check has ended. The next one is due after `every`, or sooner where the trouble is brief.
    pub(super) fn end_turn(&self, result: Result<(), Trouble>, every: Duration, now: Timestamp) {
        {
            let mut state = self.state.lock();
            state.running = false;
            let since = state.trouble.as_ref().map(|(_, since)| *since);
            let lasts = since.is_some_and(|since| now.since(since) >= COSTLY_AFTER);
            let wait = match &result {
                Err(trouble) if trouble.is_costly() && lasts => state.pause,
                Err(trouble) if trouble.is_brief() || trouble.is_costly() => state.pause.min(every),
                _ => every,
            };
            state.pause = match &result {
                Err(trouble) if trouble.is_costly() && lasts => {
                    (state.pause * 2).min(every.max(COSTLY_PAUSE))
                }
                Err(trouble) if trouble.is_brief() || trouble.is_costly() => {
                    (state.pause * 2).min(every.max(FIRST_PAUSE))
                }
                _ => FIRST_PAUSE,
            };
            state.due = Instant::now() + wait;
            let costly = matches!(&result, Err(trouble) if trouble.is_costly());
            state.not_before = if costly { state.due } else { Instant::now() };
            state.trouble = match (result, state.trouble.take()) {
                (Ok(()), _) => None,
                (Err(trouble), Some((before, since))) if before.word() == trouble.word() => {
                    Some((trouble, since))
                }
                (Err(trouble), _) => Some((trouble, now)),
            };
        }
        self.rounds.send_modify(|rounds| *rounds += 1);
    }

    /// Whether it is time to write down when upstream confirmed what is shown, and what agents used of it.
    pub(super) fn take_remembering(&self) -> bool {
        let mut state = self.state.lock();
        let due = state.remembered_at.elapsed() >= REMEMBER_EVERY;
        if due {
            state.remembered_at = Instant::now();
        }
        due
    }

    /// Whether waiting for the next look is pointless: nothing is shown, and what is wrong is not over soon.
    pub fn is_hopeless(&self) -> bool {
        let nothing = self.shown.load().generations.is_empty();
        nothing && self.state.lock().trouble.as_ref().is_some_and(|(trouble, _)| !trouble.is_brief())
    }

    /// Why there is nothing to show, or nothing newer.
    pub fn why_not(&self) -> Option<Trouble> {
        self.trouble().map(|(trouble, _)| trouble)
    }

    /// What keeps a newer generation from being shown.
    pub(super) fn trouble(&self) -> Option<(Trouble, Timestamp)> {
        self.state.lock().trouble.clone()
    }

    /// Notes whether there is an alarm; returns whether that is news.
    pub(super) fn alarm(&self, on: bool) -> bool {
        std::mem::replace(&mut self.state.lock().alarmed, on) != on
    }

    /// Whether something is being read that will say what else there is.
    pub(super) fn is_reading(&self) -> bool {
        self.reading.load(Ordering::Acquire) > 0
    }

    pub(super) fn status(&self, now: Timestamp) -> ScopeStatus {
        let shown = self.shown.load();
        let generation = shown.generations.first().cloned();
        let state = self.state.lock();
        ScopeStatus {
            root: self.root.clone(),
            age: generation.as_ref().map_or(Duration::ZERO, |it| now.since(it.confirmed_at())),
            kept: shown.generations.len().saturating_sub(1),
            trouble: state.trouble.clone(),
            alarm: state.alarmed,
            generation,
        }
    }
}
