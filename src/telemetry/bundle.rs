//! The metrics of the fleet's documents.

use prometheus_client::registry::{Registry, Unit};

use super::counts::Level;

/// The levels of the documents in force. A node that is to have none is well.
#[derive(Clone, Debug, Default)]
pub struct BundleMetrics {
    /// Their version.
    pub version: Level,
    /// Seconds since the authority is known to have said that they are the newest.
    pub age: Level,
    /// 1 while nothing keeps newer ones back.
    pub well: Level,
}

impl BundleMetrics {
    pub(super) fn register(&self, to: &mut Registry) {
        self.well.set(1);
        to.register("bundle_version", "Version of the fleet's documents in force", self.version.gauge());
        to.register_with_unit(
            "bundle_age",
            "Time since the authority said that these documents are the newest",
            Unit::Seconds,
            self.age.gauge(),
        );
        to.register("bundle_well", "1 while nothing keeps newer fleet documents back", self.well.gauge());
    }
}
