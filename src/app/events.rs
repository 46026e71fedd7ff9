//! What fills and catalogues report, as metrics.

use std::collections::HashMap;
use std::sync::Arc;

use http::StatusCode;

use crate::fill::Events;
use crate::stage;
use crate::telemetry::{CatalogueMetrics, FillRecord, Metrics, Span, Tracer, UpstreamMetrics};

/// The counts of one repository's upstreams.
#[derive(Debug)]
pub(super) struct SupplyEvents {
    metrics: Arc<Metrics>,
    upstreams: HashMap<String, UpstreamMetrics>,
    tracer: Option<Arc<dyn Tracer>>,
}

impl SupplyEvents {
    pub(super) fn new<'a>(
        metrics: Arc<Metrics>,
        tracer: Option<Arc<dyn Tracer>>,
        names: impl Iterator<Item = &'a str>,
    ) -> Self {
        let upstreams = names.map(|name| (name.to_owned(), metrics.upstream(name))).collect();
        Self { metrics, upstreams, tracer }
    }

    fn upstream(&self, name: &str, count: impl FnOnce(&UpstreamMetrics)) {
        if let Some(upstream) = self.upstreams.get(name) {
            count(upstream);
        }
    }
}

impl Events for SupplyEvents {
    fn ended(&self, word: &'static str) {
        self.metrics.fills_ended.of(word).inc();
    }

    fn upstream_answered(&self, upstream: &str, status: Option<StatusCode>) {
        self.upstream(upstream, |it| match status {
            Some(status) => it.replied(status),
            None => it.failed(),
        });
    }

    fn upstream_received(&self, upstream: &str, bytes: u64) {
        self.upstream(upstream, |it| it.received(bytes));
    }

    fn upstream_lied(&self, upstream: &str, lie: &'static str) {
        self.upstream(upstream, |it| it.lied(lie));
    }

    fn resumed(&self, word: &'static str) {
        self.metrics.fill_resumes.of(word).inc();
    }

    fn healed(&self, well: bool) {
        self.metrics.blocks_healed.of(if well { "healed" } else { "lost" }).inc();
    }

    fn traced(&self, span: &Span, record: &FillRecord<'_>) {
        if let Some(tracer) = &self.tracer {
            tracer.fill(span, record);
        }
    }
}

/// The counts of one repository's catalogues.
#[derive(Debug)]
pub(super) struct CatalogueEvents(pub(super) CatalogueMetrics);

impl stage::Events for CatalogueEvents {
    fn shown(&self) {
        self.0.shown.inc();
    }

    fn refused(&self, word: &'static str) {
        self.0.refused(word);
    }

    fn delta_missing(&self) {
        self.0.deltas_missing.inc();
    }

    fn delta_waste(&self, bytes: u64) {
        self.0.deltas_waste.add(bytes);
    }
}
