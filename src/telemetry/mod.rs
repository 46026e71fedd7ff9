//! What a node tells about itself: metrics, an access log, and diagnostics on stderr.
//!
//! Recording never waits and never fails: a counter is one atomic, a log line that finds its channel full is
//! dropped and counted.

mod access_line;
mod access_log;
mod agents;
mod bundle;
mod calendar;
mod catalogues;
mod counts;
mod exposition;
mod histogram;
mod metrics;
// Its tests run with all others.
#[cfg(any(test, feature = "otlp"))]
#[cfg_attr(not(feature = "otlp"), expect(dead_code, unreachable_pub, reason = "only its tests"))]
mod otlp;
mod trace;
mod tracing_setup;

pub use access_line::{AccessFormat, AccessRecord};
pub use access_log::AccessLog;
pub use agents::AgentMetrics;
pub use bundle::BundleMetrics;
pub use catalogues::CatalogueMetrics;
pub use counts::{Count, Level, Reasons};
pub use exposition::Exposition;
pub use metrics::{CacheResult, Metrics, RepositoryMetrics, RouteMetrics, UpstreamMetrics};
#[cfg(feature = "otlp")]
pub use otlp::{Otlp, OtlpError, OtlpOptions};
pub use trace::{FillRecord, Flushed, Span, TRACEPARENT, Tracer};
pub use tracing_setup::{LogError, LogFormat, LogHandle, init_tracing};
