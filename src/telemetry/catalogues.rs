//! The metrics of catalogues, a series for each repository that has some.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::counts::{Count, Labels, Level};

/// All families of catalogues.
#[derive(Clone, Debug, Default)]
pub(super) struct Families {
    shown: Family<Labels, Counter>,
    refused: Family<Labels, Counter>,
    timestamp: Family<Labels, Gauge>,
    age: Family<Labels, Gauge>,
    alarm: Family<Labels, Gauge>,
    deltas_missing: Family<Labels, Counter>,
    deltas_waste: Family<Labels, Counter>,
}

impl Families {
    pub(super) fn register(&self, to: &mut Registry) {
        to.register("generations_shown", "Generations that were shown to agents", self.shown.clone());
        let refused = self.refused.clone();
        to.register("generations_refused", "Looks at upstream that led to no newer generation", refused);
        let timestamp = self.timestamp.clone();
        to.register_with_unit(
            "generation_timestamp",
            "When the newest generation was shown, in Unix time",
            Unit::Seconds,
            timestamp,
        );
        let age = self.age.clone();
        to.register_with_unit(
            "generation_age",
            "Time since upstream confirmed what is shown",
            Unit::Seconds,
            age,
        );
        to.register(
            "generation_alarm",
            "1 while a catalogue is older than its alarm allows",
            self.alarm.clone(),
        );
        let missing = self.deltas_missing.clone();
        to.register("deltas_missing", "Incremental updates that agents asked for and nobody has", missing);
        let waste = self.deltas_waste.clone();
        to.register_with_unit(
            "deltas_waste",
            "Bytes fetched whole by agents whose incremental update was missing",
            Unit::Bytes,
            waste,
        );
    }

    pub(super) fn of(&self, repository: &str) -> CatalogueMetrics {
        let labels: Labels = vec![("repository", repository.to_owned())];
        CatalogueMetrics {
            shown: Count::of(&self.shown, &labels),
            timestamp: Level::of(&self.timestamp, &labels),
            age: Level::of(&self.age, &labels),
            alarm: Level::of(&self.alarm, &labels),
            deltas_missing: Count::of(&self.deltas_missing, &labels),
            deltas_waste: Count::of(&self.deltas_waste, &labels),
            refused: self.refused.clone(),
            labels,
        }
    }
}

/// The metrics of one repository's catalogues.
#[derive(Clone, Debug)]
pub struct CatalogueMetrics {
    /// Generations shown.
    pub shown: Count,
    /// When the newest one was shown, in seconds.
    pub timestamp: Level,
    /// Seconds since upstream confirmed what is shown; of several catalogues the oldest.
    pub age: Level,
    /// Whether there is an alarm.
    pub alarm: Level,
    /// Incremental updates nobody has.
    pub deltas_missing: Count,
    /// Bytes of full files for want of them.
    pub deltas_waste: Count,
    refused: Family<Labels, Counter>,
    labels: Labels,
}

impl CatalogueMetrics {
    /// One more look that led to nothing newer, by the word of the reason. Rare: the label is looked up.
    pub fn refused(&self, reason: &'static str) {
        let labels: Labels = self.labels.iter().cloned().chain([("reason", reason.to_owned())]).collect();
        self.refused.get_or_create(&labels).inc();
    }
}
