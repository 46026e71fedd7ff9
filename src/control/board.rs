//! What is in force: one snapshot for everybody, swapped in one step once it is safely on disk, and the news of it.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::bundle::{Bundle, Index};
use super::disk::Disk;
use crate::base::clock::{Clock, Timestamp};
use crate::base::report::diagnostic::Severity;
use crate::fleet::{Compiled, Fleet, compile};

/// Problems of a set of documents that are told in the status.
const TOLD: usize = 20;

/// The documents in force.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What they mean.
    pub fleet: Arc<Fleet>,
    /// They themselves, with their version.
    pub bundle: Arc<Bundle>,
}

/// Trouble with a newer set of documents, or with getting one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// A word for it: `invalid`, `unreachable`, `refused`, `disk`.
    pub word: &'static str,
    /// What it is, for people; may have several lines.
    pub text: String,
    /// Since when.
    pub since: Timestamp,
}

/// What is known beside the snapshot.
#[derive(Debug, Default)]
struct Notes {
    trouble: Option<Trouble>,
    warnings: Vec<String>,
    /// When the authority, directly or by way of others, last said that this is the newest.
    confirmed: Timestamp,
}

/// The snapshot in force and who waits for the next one.
#[derive(Debug)]
pub struct Board {
    current: ArcSwapOption<Snapshot>,
    news: watch::Sender<u64>,
    notes: Mutex<Notes>,
    /// Held while a bundle is being put in force.
    turn: Mutex<()>,
    disk: Disk,
    clock: Clock,
}

/// A bundle is not put in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotInForce {
    /// Its documents have errors; all of them are told.
    #[error("{0}")]
    Invalid(String),
    /// It is older than what is in force, or another one of the same version.
    #[error("version {offered} is not newer than {current}")]
    Old {
        /// In force.
        current: u64,
        /// Offered.
        offered: u64,
    },
    /// It cannot be kept.
    #[error("cannot be written to disk: {0}")]
    Disk(String),
}

impl NotInForce {
    /// The word of the trouble it is.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::Old { .. } => "refused",
            Self::Disk(_) => "disk",
        }
    }
}

impl Board {
    /// With what was kept on disk, at once. Reads and compiles: not for a thread of the runtime.
    pub fn open(disk: Disk, clock: Clock) -> Self {
        let board = Self {
            current: ArcSwapOption::empty(),
            news: watch::Sender::new(0),
            notes: Mutex::default(),
            turn: Mutex::new(()),
            disk,
            clock,
        };
        if let Some(bundle) = board.disk.bundle() {
            match compiled(compile(bundle.documents())) {
                Ok((fleet, warnings)) => {
                    board.notes.lock().confirmed = Timestamp(bundle.index().issued);
                    board.swap(fleet, bundle, warnings);
                }
                Err(text) => board.note_trouble("invalid", text),
            }
        }
        board
    }

    /// What is in force.
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.current.load_full()
    }

    /// Compiles a bundle, keeps it, and puts it in force. Blocks: not for a thread of the runtime.
    ///
    /// # Errors
    /// See [`NotInForce`]; nothing is changed then.
    pub fn publish(&self, bundle: Bundle) -> Result<(), NotInForce> {
        let _turn = self.turn.lock();
        let offered = bundle.index().version;
        if let Some(current) = self.snapshot().map(|it| it.bundle.index().version)
            && offered <= current
        {
            return Err(NotInForce::Old { current, offered });
        }
        let (fleet, warnings) = compiled(compile(bundle.documents())).map_err(NotInForce::Invalid)?;
        self.disk.keep_bundle(&bundle).map_err(|error| NotInForce::Disk(error.to_string()))?;
        tracing::info!(
            version = offered,
            documents = bundle.documents().len(),
            warnings = warnings.len(),
            "fleet documents in force"
        );
        self.swap(fleet, bundle, warnings);
        Ok(())
    }

    fn swap(&self, fleet: Fleet, bundle: Bundle, warnings: Vec<String>) {
        let version = bundle.index().version;
        self.notes.lock().warnings = warnings;
        let snapshot = Snapshot { fleet: Arc::new(fleet), bundle: Arc::new(bundle) };
        self.current.store(Some(Arc::new(snapshot)));
        self.news.send_replace(version);
    }

    /// Hears of every swap.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Notes that what is in force was the newest at that moment; what was wrong before is over.
    pub fn confirm(&self, at: Timestamp) {
        let mut notes = self.notes.lock();
        notes.confirmed = notes.confirmed.max(at);
        if notes.trouble.take().is_some() {
            tracing::info!("fleet documents are well again");
        }
    }

    /// Notes trouble; the same trouble is told once.
    pub fn note_trouble(&self, word: &'static str, text: String) {
        let mut notes = self.notes.lock();
        let same = notes.trouble.as_ref().is_some_and(|it| it.word == word && it.text == text);
        if !same {
            tracing::warn!(trouble = word, "fleet documents stay as they are: {text}");
            let since = notes.trouble.as_ref().map_or_else(|| self.clock.now(), |it| it.since);
            notes.trouble = Some(Trouble { word, text, since });
        }
    }

    /// What keeps a newer set from being in force.
    pub fn trouble(&self) -> Option<Trouble> {
        self.notes.lock().trouble.clone()
    }

    /// Warnings about what is in force, the first ones.
    pub fn warnings(&self) -> Vec<String> {
        self.notes.lock().warnings.clone()
    }

    /// When what is in force was last known to be the newest.
    pub fn confirmed(&self) -> Timestamp {
        self.notes.lock().confirmed
    }

    /// The index of what is in force.
    pub fn index(&self) -> Option<Index> {
        self.snapshot().map(|snapshot| snapshot.bundle.index().clone())
    }

    /// Where more is kept.
    pub const fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Time.
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }
}

/// The fleet and its warnings, or all errors as text.
pub(super) fn compiled(compiled: Compiled) -> Result<(Fleet, Vec<String>), String> {
    let text = compiled.render(false);
    let warnings = compiled.problems.iter().filter(|problem| problem.severity == Severity::Warning);
    let warnings = warnings.take(TOLD).map(|problem| match problem.line {
        Some(line) => format!("{}:{line}: {}", problem.file, problem.message),
        None => format!("{}: {}", problem.file, problem.message),
    });
    let warnings = warnings.collect();
    compiled.fleet.map(|fleet| (fleet, warnings)).ok_or(text)
}
