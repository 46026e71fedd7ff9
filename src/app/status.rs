//! What the node tells its operators, gathered from its parts when somebody asks.

use std::sync::Arc;

use serde_json::json;
use tokio::sync::watch;

use super::build::Built;
use crate::admin::StatusSource;
use crate::base::clock::Clock;
use crate::fill::Fills;
use crate::server::{Cut, Phase, Rejected, Totals};
use crate::store::Store;
use crate::telemetry::{AccessLog, Exposition, Metrics};
use crate::upstream::{Sources, State};

/// The node as the admin socket sees it.
pub(super) struct NodeStatus {
    metrics: Arc<Metrics>,
    store: Store,
    fills: Fills,
    sources: Vec<(String, Sources)>,
    server: Arc<Totals>,
    phase: watch::Receiver<Phase>,
}

impl NodeStatus {
    pub(super) fn new(built: &Built, phase: watch::Receiver<Phase>) -> Self {
        let server = built.bound.totals();
        let (store, fills) = (built.store.clone(), built.fills.clone());
        copy_on_reading(
            &built.metrics,
            (store.clone(), fills.clone()),
            Arc::clone(&server),
            built.access.clone(),
        );
        let metrics = Arc::clone(&built.metrics);
        Self { metrics, store, fills, sources: built.sources.clone(), server, phase }
    }

    fn upstreams(&self) -> Vec<serde_json::Value> {
        let now = Clock::system().now();
        let each = |(repository, sources): &(String, Sources)| {
            let row = |upstream: &Arc<crate::upstream::Upstream>| {
                let health = upstream.health();
                json!({
                    "repository": repository,
                    "url": upstream.name(),
                    "up": matches!(health.state(now), State::Up),
                    "failures_in_a_row": health.failures(),
                    "bytes_per_second": health.throughput(),
                })
            };
            sources.all().iter().map(row).collect::<Vec<_>>()
        };
        self.sources.iter().flat_map(each).collect()
    }
}

/// Levels and counts that live in the parts are copied into the metrics just before they are read.
fn copy_on_reading(
    metrics: &Metrics,
    (store, fills): (Store, Fills),
    server: Arc<Totals>,
    access: Option<AccessLog>,
) {
    metrics.before_reading(move |metrics| {
        let totals = store.totals();
        metrics.cache_size.set(totals.bytes);
        metrics.cache_objects.set(totals.entries);
        metrics.cache_memory.set(totals.memory_bytes);
        let evictions = &totals.evictions;
        let evicted = [("size", evictions.size), ("disk", evictions.disk), ("partial", evictions.partial)];
        evicted.iter().for_each(|(word, count)| metrics.cache_evictions.of(word).copy(*count));
        let bad = &totals.integrity_failures;
        let found = [("read", bad.read), ("scrub", bad.scrub), ("reported", bad.reported)];
        found.iter().for_each(|(word, count)| metrics.cache_integrity_failures.of(word).copy(*count));
        metrics.cache_scrubbed.copy(totals.scrubbed);
        let (running, readers) = fills.count();
        metrics.fills_in_flight.set(running as u64);
        metrics.fill_followers.set(readers as u64);
        metrics.connections.set(server.open());
        for why in Rejected::ALL {
            metrics.connections_rejected.of(why.as_str()).copy(server.rejected(why));
        }
        for why in Cut::ALL {
            metrics.connections_rejected.of(why.as_str()).copy(server.cut(why));
        }
        if let Some(access) = &access {
            metrics.access_log_dropped.copy(access.dropped());
        }
    });
}

impl StatusSource for NodeStatus {
    fn ready(&self) -> Result<(), String> {
        match *self.phase.borrow() {
            Phase::Run => Ok(()),
            Phase::Drain | Phase::Stop => Err("draining".to_owned()),
        }
    }

    fn metrics(&self, exposition: Exposition) -> String {
        let now = Clock::system().now();
        for (_, sources) in &self.sources {
            for upstream in sources.all() {
                let up = matches!(upstream.health().state(now), State::Up);
                self.metrics.upstream(upstream.name()).up(up);
            }
        }
        self.metrics.render(exposition)
    }

    fn status(&self) -> serde_json::Value {
        let totals = self.store.totals();
        let fills = self.fills.list().into_iter().map(|(key, arrived, length, readers)| {
            json!({ "key": key.as_str(), "bytes": arrived, "length": length, "readers": readers })
        });
        json!({
            "schema": 1,
            "version": env!("CARGO_PKG_VERSION"),
            "phase": format!("{:?}", *self.phase.borrow()).to_lowercase(),
            "connections": self.server.open(),
            "cache": {
                "entries": totals.entries,
                "partials": totals.partials,
                "bytes": totals.bytes,
                "limit_bytes": totals.limit,
                "reserved_bytes": totals.reserved,
                "memory_bytes": totals.memory_bytes,
                "degraded": totals.degraded,
            },
            "fills": fills.collect::<Vec<_>>(),
            "upstreams": self.upstreams(),
        })
    }
}
