//! What is counted with: handles that were resolved once, so that counting is one atomic.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// Names and values of a series.
pub(super) type Labels = Vec<(&'static str, String)>;

/// A count that only grows.
#[derive(Clone, Debug, Default)]
pub struct Count(pub(super) Counter);

impl Count {
    pub(super) fn of(family: &Family<Labels, Counter>, labels: &Labels) -> Self {
        Self(family.get_or_create_owned(labels))
    }

    /// One more.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// `by` more.
    pub fn add(&self, by: u64) {
        self.0.inc_by(by);
    }

    /// Copies a count that is kept elsewhere; it must only grow there, too.
    pub fn copy(&self, total: u64) {
        self.0.inner().store(total, std::sync::atomic::Ordering::Relaxed);
    }

    /// The count so far.
    pub fn value(&self) -> u64 {
        self.0.get()
    }
}

/// A value that goes up and down.
#[derive(Clone, Debug, Default)]
pub struct Level(Gauge);

impl Level {
    pub(super) fn gauge(&self) -> Gauge {
        self.0.clone()
    }

    pub(super) fn of(family: &Family<Labels, Gauge>, labels: &Labels) -> Self {
        Self(family.get_or_create_owned(labels))
    }

    /// The value now.
    pub fn set(&self, value: u64) {
        self.0.set(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// One more.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// One less.
    pub fn dec(&self) {
        self.0.dec();
    }
}

/// Counts by a word from a closed set.
#[derive(Clone, Debug)]
pub struct Reasons {
    label: &'static str,
    family: Family<Labels, Counter>,
}

impl Reasons {
    pub(super) fn new(label: &'static str) -> Self {
        Self { label, family: Family::default() }
    }

    pub(super) fn family(&self) -> Family<Labels, Counter> {
        self.family.clone()
    }

    /// The count of one word; keep it where it is used often.
    pub fn of(&self, word: &'static str) -> Count {
        Count(self.family.get_or_create_owned(&vec![(self.label, word.to_owned())]))
    }
}
