//! What the node tells its operators, gathered from its parts when somebody asks.

use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use tokio::sync::watch;

use super::build::Built;
use crate::base::clock::Clock;
use crate::fill::Fills;
use crate::server::{Cut, Phase, Rejected, Totals};
use crate::stage::{Catalogues, ScopeStatus};
use crate::store::Store;
use crate::telemetry::{AccessLog, CacheResult, Exposition, Metrics, Tracer};
use crate::upstream::{Sources, State};

/// The node as the admin socket sees it.
pub(super) struct NodeStatus {
    metrics: Arc<Metrics>,
    store: Store,
    fills: Fills,
    server: Arc<Totals>,
    phase: watch::Receiver<Phase>,
    began: Instant,
}

impl NodeStatus {
    pub(super) fn new(built: &Built, phase: watch::Receiver<Phase>) -> Self {
        let server = built.bound.totals();
        let (store, fills) = (built.store.clone(), built.fills.clone());
        copy_on_reading(
            &built.metrics,
            (store.clone(), fills.clone()),
            Arc::clone(&server),
            (built.access.clone(), built.parts.tracer.clone()),
        );
        let metrics = Arc::clone(&built.metrics);
        Self { metrics, store, fills, server, phase, began: Instant::now() }
    }

    /// Each catalogue of each repository: what is shown, how old it is, and what keeps a newer one back.
    fn catalogues(all: &[(String, Arc<Catalogues>)]) -> Vec<serde_json::Value> {
        let rows = |(repository, catalogues): &(String, Arc<Catalogues>)| {
            let row = |status: ScopeStatus| {
                let generation = status.generation.as_ref();
                json!({
                    "repository": repository,
                    "root": &*status.root,
                    "generation": generation.map(|it| &*it.id),
                    "version": generation.and_then(|it| it.version.as_ref()).map(|it| it.text.as_str()),
                    "upstream": generation.map(|it| it.source.as_str()),
                    "shown_at": generation.map(|it| it.staged_at.0 / 1_000),
                    "confirmed_at": generation.map(|it| it.confirmed_at().0 / 1_000),
                    "age_seconds": generation.map(|_| status.age.as_secs()),
                    "files": generation.map(|it| it.len()),
                    "kept": status.kept,
                    "alarm": status.alarm,
                    "trouble": status.trouble.as_ref().map(|(trouble, since)| json!({
                        "reason": trouble.word(),
                        "detail": trouble.to_string(),
                        "since": since.0 / 1_000,
                    })),
                })
            };
            catalogues.status().into_iter().map(row).collect::<Vec<_>>()
        };
        all.iter().flat_map(rows).collect()
    }

    fn upstreams(sources: &[(String, Sources)]) -> Vec<serde_json::Value> {
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
        sources.iter().flat_map(each).collect()
    }
}

/// Levels and counts that live in the parts are copied into the metrics just before they are read.
fn copy_on_reading(
    metrics: &Metrics,
    (store, fills): (Store, Fills),
    server: Arc<Totals>,
    (access, tracer): (AccessLog, Option<Arc<dyn Tracer>>),
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
        metrics.access_log_dropped.copy(access.dropped());
        metrics.trace_spans_lost.copy(tracer.as_ref().map_or(0, |tracer| tracer.lost()));
    });
}

impl NodeStatus {
    /// All metrics as text.
    pub(super) fn metrics(&self, exposition: Exposition, sources: &[(String, Sources)]) -> String {
        let now = Clock::system().now();
        for (_, sources) in sources {
            for upstream in sources.all() {
                let up = matches!(upstream.health().state(now), State::Up);
                self.metrics.upstream(upstream.name()).up(up);
            }
        }
        self.metrics.render(exposition)
    }

    /// Sums since the start: requests and body bytes by result, over all repositories that have upstreams, and what
    /// came from those.
    fn traffic(&self, sources: &[(String, Sources)]) -> serde_json::Value {
        let mut requests = serde_json::Map::new();
        let mut bytes = serde_json::Map::new();
        for result in CacheResult::ALL {
            let answered = sources.iter().map(|(name, _)| self.metrics.answered(name, result));
            let (many, size) = answered.fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
            requests.insert(result.as_str().to_owned(), many.into());
            bytes.insert(result.as_str().to_owned(), size.into());
        }
        let names: std::collections::BTreeSet<&str> =
            sources.iter().flat_map(|(_, sources)| sources.all()).map(|upstream| upstream.name()).collect();
        let received: u64 = names.into_iter().map(|name| self.metrics.received_from(name)).sum();
        json!({ "requests": requests, "bytes": bytes, "upstream_bytes": received })
    }

    /// Fetches that run.
    pub(super) fn fills(&self) -> Vec<serde_json::Value> {
        let row = |(key, arrived, length, readers): (crate::cache::Key, u64, Option<u64>, usize)| json!({ "key": key.as_str(), "bytes": arrived, "length": length, "readers": readers });
        self.fills.list().into_iter().map(row).collect()
    }

    /// What the node is doing.
    pub(super) fn status(
        &self,
        sources: &[(String, Sources)],
        catalogues: &[(String, Arc<Catalogues>)],
    ) -> serde_json::Value {
        let totals = self.store.totals();
        let failures = totals.integrity_failures;
        json!({
            "schema": 1,
            "version": env!("CARGO_PKG_VERSION"),
            "phase": format!("{:?}", *self.phase.borrow()).to_lowercase(),
            "seconds": self.began.elapsed().as_secs(),
            "connections": self.server.open(),
            "traffic": self.traffic(sources),
            "cache": {
                "entries": totals.entries,
                "partials": totals.partials,
                "bytes": totals.bytes,
                "limit_bytes": totals.limit,
                "reserved_bytes": totals.reserved,
                "memory_bytes": totals.memory_bytes,
                "degraded": totals.degraded,
                "integrity_failures": failures.read + failures.scrub + failures.reported,
            },
            "fills": self.fills(),
            "upstreams": Self::upstreams(sources),
            "catalogues": Self::catalogues(catalogues),
        })
    }
}
