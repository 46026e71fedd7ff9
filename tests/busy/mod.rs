//! Metrics to compare names with.

use waypost::telemetry::{CacheResult, Metrics};

/// Metrics with something in every family: empty ones are not shown.
pub(crate) fn busy() -> Metrics {
    let metrics = Metrics::new("1");
    metrics.repository("a").request(CacheResult::Hit);
    metrics.route("https", "a").answered(http::StatusCode::OK, std::time::Duration::ZERO);
    let upstream = metrics.upstream("https://master.example/");
    upstream.replied(http::StatusCode::OK);
    upstream.lied("garbled");
    metrics.catalogues("a").refused("moving");
    metrics.certificate_expires("https", waypost::base::clock::Timestamp(1));
    metrics.agents.agents("connected", "stream").set(1);
    metrics.agents.behind("content").set(1);
    for reasons in [
        &metrics.cache_evictions,
        &metrics.cache_integrity_failures,
        &metrics.fill_resumes,
        &metrics.fills_ended,
        &metrics.blocks_healed,
        &metrics.connections_rejected,
        &metrics.requests_refused,
        &metrics.agents.checkins,
        &metrics.agents.disconnects,
    ] {
        reasons.of("reason").inc();
    }
    metrics
}
