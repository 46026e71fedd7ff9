//! The metrics of a node, by the names of the interface.
//!
//! Whoever counts often holds a handle that was resolved once ([`RepositoryMetrics`], [`RouteMetrics`],
//! [`UpstreamMetrics`]); labels are never looked up on a request's way. Levels that somebody else already keeps
//! are copied in just before a reading ([`Metrics::before_reading`]).

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::agents::AgentMetrics;
use super::bundle::BundleMetrics;
use super::catalogues::{CatalogueMetrics, Families};
use super::counts::{Count, Labels, Level, Reasons};
use super::exposition::Exposition;
use super::histogram::Durations;
use crate::base::clock::Timestamp;

/// Statuses with a series of their own; any other is counted as `other`, so that an upstream cannot make series.
const CODES: [u16; 24] = [
    200, 204, 206, 301, 302, 304, 307, 400, 401, 403, 404, 405, 410, 412, 414, 416, 417, 421, 429, 431, 500,
    502, 503, 504,
];

/// How the cache answered a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheResult {
    /// From memory or disk, fresh.
    Hit,
    /// From a fill that somebody else had begun.
    Collapsed,
    /// From a fill begun for it.
    Miss,
    /// From the cache after the upstream had confirmed it.
    Revalidated,
    /// From the cache although stale.
    Stale,
    /// Not through the cache: not shareable, or from a directory.
    Bypass,
    /// Not at all.
    Error,
}

impl CacheResult {
    /// All of them, in the order of their value.
    pub const ALL: [Self; 7] =
        [Self::Hit, Self::Collapsed, Self::Miss, Self::Revalidated, Self::Stale, Self::Bypass, Self::Error];

    /// The word in the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Collapsed => "collapsed",
            Self::Miss => "miss",
            Self::Revalidated => "revalidated",
            Self::Stale => "stale",
            Self::Bypass => "bypass",
            Self::Error => "error",
        }
    }
}

/// The counts of one repository.
#[derive(Debug)]
pub struct RepositoryMetrics([(Count, Count); CacheResult::ALL.len()]);

impl RepositoryMetrics {
    /// One more request with this result.
    pub fn request(&self, result: CacheResult) {
        if let Some((requests, _)) = self.0.get(result as usize) {
            requests.inc();
        }
    }

    /// More bytes of bodies sent to clients under this result.
    pub fn bytes(&self, result: CacheResult, bytes: u64) {
        if let Some((_, count)) = self.0.get(result as usize) {
            count.add(bytes);
        }
    }
}

/// Counts by status code, each series made when first used.
struct Codes {
    family: Family<Labels, Counter>,
    labels: Labels,
    counts: [OnceLock<Counter>; CODES.len() + 1],
}

impl Codes {
    fn new(family: &Family<Labels, Counter>, labels: Labels) -> Self {
        Self { family: family.clone(), labels, counts: [const { OnceLock::new() }; CODES.len() + 1] }
    }

    fn inc(&self, code: StatusCode) {
        let slot = CODES.binary_search(&code.as_u16()).unwrap_or(CODES.len());
        let make = || {
            let code = CODES.get(slot).map_or_else(|| "other".to_owned(), u16::to_string);
            let labels: Labels = self.labels.iter().cloned().chain([("code", code)]).collect();
            self.family.get_or_create_owned(&labels)
        };
        if let Some(count) = self.counts.get(slot) {
            count.get_or_init(make).inc();
        }
    }
}

impl Codes {
    fn inc_none(&self) {
        let labels: Labels = self.labels.iter().cloned().chain([("code", "none".to_owned())]).collect();
        self.family.get_or_create(&labels).inc();
    }
}

impl fmt::Debug for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Codes").field(&self.labels).finish()
    }
}

/// The counts of one route of one listener.
#[derive(Debug)]
pub struct RouteMetrics {
    codes: Codes,
    durations: Durations,
}

impl RouteMetrics {
    /// One more answer, `time` from the request's head to the end of the body.
    pub fn answered(&self, code: StatusCode, time: Duration) {
        self.codes.inc(code);
        self.durations.observe(time);
    }
}

/// The counts of one upstream.
#[derive(Debug)]
pub struct UpstreamMetrics {
    name: String,
    codes: Codes,
    received: Count,
    up: Level,
    lies: Family<Labels, Counter>,
}

impl UpstreamMetrics {
    /// One more reply head.
    pub fn replied(&self, code: StatusCode) {
        self.codes.inc(code);
    }

    /// One more fetch that got no reply at all: the code says `none`.
    pub fn failed(&self) {
        self.codes.inc_none();
    }

    /// More bytes of bodies.
    pub fn received(&self, bytes: u64) {
        self.received.add(bytes);
    }

    /// Whether it is used at the moment.
    pub fn up(&self, up: bool) {
        self.up.set(u64::from(up));
    }

    /// One more reply that was refused, by the word of the lie. Rare: the label is looked up.
    pub fn lied(&self, lie: &'static str) {
        let labels = vec![("upstream", self.name.clone()), ("lie", lie.to_owned())];
        self.lies.get_or_create(&labels).inc();
    }
}

type Refresh = Box<dyn Fn(&Metrics) + Send + Sync>;

/// All metrics of a node.
pub struct Metrics {
    /// Bytes of bodies and records the cache holds on disk.
    pub cache_size: Level,
    /// Entries the cache holds.
    pub cache_objects: Level,
    /// Bytes the cache holds in memory.
    pub cache_memory: Level,
    /// Entries that left the cache, by reason.
    pub cache_evictions: Reasons,
    /// Stored bytes that were found wrong, by where (`disk`, `index`, …).
    pub cache_integrity_failures: Reasons,
    /// Bytes that the scrub has read and compared.
    pub cache_scrubbed: Count,
    /// Fills that run.
    pub fills_in_flight: Level,
    /// Readers of running fills, each fill's first one included.
    pub fill_followers: Level,
    /// Bodies continued after a break, by reason.
    pub fill_resumes: Reasons,
    /// Fills that ended, by how.
    pub fills_ended: Reasons,
    /// Stored blocks that were found bad and fetched again, by whether that worked.
    pub blocks_healed: Reasons,
    /// Client connections that are open.
    pub connections: Level,
    /// Client connections that were closed or cut by a limit, by reason.
    pub connections_rejected: Reasons,
    /// Requests refused at the front door, by reason.
    pub requests_refused: Reasons,
    /// Access-log lines that were dropped because the disk could not keep up.
    pub access_log_dropped: Count,
    /// Agents.
    pub agents: AgentMetrics,
    /// Spans that were lost because the collector was slow or not there.
    pub trace_spans_lost: Count,
    /// The fleet's documents.
    pub bundle: BundleMetrics,
    config_successful: Gauge,
    config_success_time: Gauge,
    http_requests: Family<Labels, Counter>,
    http_durations: Family<Labels, Durations>,
    cache_requests: Family<Labels, Counter>,
    cache_bytes: Family<Labels, Counter>,
    upstream_requests: Family<Labels, Counter>,
    upstream_bytes: Family<Labels, Counter>,
    upstream_up: Family<Labels, Gauge>,
    upstream_lies: Family<Labels, Counter>,
    certificate_expiry: Family<Labels, Gauge>,
    catalogues: Families,
    registry: Registry,
    refreshes: Mutex<Vec<Refresh>>,
}

impl Metrics {
    /// Metrics of a node that runs `version`.
    pub fn new(version: &str) -> Self {
        let mut metrics = Self {
            cache_size: Level::default(),
            cache_objects: Level::default(),
            cache_memory: Level::default(),
            cache_evictions: Reasons::new("reason"),
            cache_integrity_failures: Reasons::new("where"),
            cache_scrubbed: Count::default(),
            fills_in_flight: Level::default(),
            fill_followers: Level::default(),
            fill_resumes: Reasons::new("reason"),
            fills_ended: Reasons::new("how"),
            blocks_healed: Reasons::new("how"),
            connections: Level::default(),
            connections_rejected: Reasons::new("reason"),
            requests_refused: Reasons::new("reason"),
            access_log_dropped: Count::default(),
            agents: AgentMetrics::default(),
            trace_spans_lost: Count::default(),
            bundle: BundleMetrics::default(),
            config_successful: Gauge::default(),
            config_success_time: Gauge::default(),
            http_requests: Family::default(),
            http_durations: Family::default(),
            cache_requests: Family::default(),
            cache_bytes: Family::default(),
            upstream_requests: Family::default(),
            upstream_bytes: Family::default(),
            upstream_up: Family::default(),
            upstream_lies: Family::default(),
            certificate_expiry: Family::default(),
            catalogues: Families::default(),
            registry: Registry::with_prefix("waypost"),
            refreshes: Mutex::default(),
        };
        metrics.register_node(version);
        metrics.register_cache();
        metrics.register_upstreams();
        metrics.catalogues.register(&mut metrics.registry);
        metrics.agents.register(&mut metrics.registry);
        metrics.bundle.register(&mut metrics.registry);
        metrics
    }

    /// What this repository has answered with this result: requests, and bytes of bodies.
    pub fn answered(&self, repository: &str, result: CacheResult) -> (u64, u64) {
        let labels = vec![("repository", repository.to_owned()), ("result", result.as_str().to_owned())];
        let of = |family: &Family<Labels, Counter>| family.get(&labels).map_or(0, |count| count.get());
        (of(&self.cache_requests), of(&self.cache_bytes))
    }

    /// Bytes of bodies that came from this upstream.
    pub fn received_from(&self, upstream: &str) -> u64 {
        self.upstream_bytes.get(&vec![("upstream", upstream.to_owned())]).map_or(0, |count| count.get())
    }

    /// The configuration was read at this moment, well or not.
    pub fn config_reloaded(&self, well: bool) {
        self.config_successful.set(i64::from(well));
        if well {
            let now = crate::base::clock::Clock::system().now().0 / 1_000;
            self.config_success_time.set(i64::try_from(now).unwrap_or(i64::MAX));
        }
    }

    fn register_node(&mut self, version: &str) {
        let to = &mut self.registry;
        to.register("build", "What runs", Info::new(vec![("version", version.to_owned())]));
        let successful = self.config_successful.clone();
        to.register(
            "config_last_reload_successful",
            "Whether the configuration in force is the file's",
            successful,
        );
        to.register_with_unit(
            "config_last_reload_success_timestamp",
            "When the configuration was last read without errors, since 1970",
            Unit::Seconds,
            self.config_success_time.clone(),
        );
        to.register("http_requests", "Requests answered", self.http_requests.clone());
        to.register_with_unit(
            "http_request_duration",
            "Time from a request's head to the end of its answer",
            Unit::Seconds,
            self.http_durations.clone(),
        );
        to.register("connections", "Client connections that are open", self.connections.gauge());
        let rejected = self.connections_rejected.family();
        to.register("connections_rejected", "Client connections closed or cut by a limit", rejected);
        let refused = self.requests_refused.family();
        to.register("requests_refused", "Requests refused at the front door", refused);
        let expiry = self.certificate_expiry.clone();
        to.register_with_unit(
            "tls_certificate_expiry_timestamp",
            "When a listener's certificate expires, in Unix time",
            Unit::Seconds,
            expiry,
        );
        let lost = self.trace_spans_lost.0.clone();
        to.register(
            "trace_spans_lost",
            "Spans lost because the collector of traces was slow or not there",
            lost,
        );
        let dropped = self.access_log_dropped.0.clone();
        to.register(
            "access_log_dropped",
            "Access-log lines lost because the disk could not keep up",
            dropped,
        );
    }

    fn register_cache(&mut self) {
        let to = &mut self.registry;
        let ended = self.fills_ended.family();
        to.register("fills_ended", "Fills that ended, by how", ended);
        let healed = self.blocks_healed.family();
        to.register("blocks_healed", "Bad blocks that were fetched again", healed);
        to.register("cache_requests", "Requests to repositories by result", self.cache_requests.clone());
        let bytes = self.cache_bytes.clone();
        to.register_with_unit("cache_response", "Bytes of bodies sent to clients", Unit::Bytes, bytes);
        let size = self.cache_size.gauge();
        to.register_with_unit("cache_size", "Bytes the cache holds on disk", Unit::Bytes, size);
        to.register("cache_objects", "Entries in the cache", self.cache_objects.gauge());
        let memory = self.cache_memory.gauge();
        to.register_with_unit("cache_memory", "Bytes the cache holds in memory", Unit::Bytes, memory);
        to.register("cache_evictions", "Entries that left the cache", self.cache_evictions.family());
        let failures = self.cache_integrity_failures.family();
        to.register("cache_integrity_failures", "Stored bytes that were found wrong", failures);
        let scrubbed = self.cache_scrubbed.0.clone();
        to.register_with_unit("cache_scrubbed", "Bytes that the scrub has compared", Unit::Bytes, scrubbed);
        to.register("fills_in_flight", "Fetches that fill the cache now", self.fills_in_flight.gauge());
        to.register("fill_followers", "Readers of running fills", self.fill_followers.gauge());
        to.register("fill_resumes", "Bodies continued after a break", self.fill_resumes.family());
    }

    fn register_upstreams(&mut self) {
        let to = &mut self.registry;
        to.register("upstream_requests", "Replies of upstreams", self.upstream_requests.clone());
        let bytes = self.upstream_bytes.clone();
        to.register_with_unit("upstream_received", "Bytes of bodies from upstreams", Unit::Bytes, bytes);
        to.register(
            "upstream_up",
            "1 while an upstream is used, 0 while it is avoided",
            self.upstream_up.clone(),
        );
        to.register(
            "upstream_lies",
            "Replies refused because they cannot be true",
            self.upstream_lies.clone(),
        );
    }

    /// The metrics of a repository's catalogues; make them once.
    pub fn catalogues(&self, repository: &str) -> CatalogueMetrics {
        self.catalogues.of(repository)
    }

    /// The counts of a repository; make them once. All series are there from the start, at zero.
    pub fn repository(&self, name: &str) -> RepositoryMetrics {
        RepositoryMetrics(CacheResult::ALL.map(|result| {
            let labels = vec![("repository", name.to_owned()), ("result", result.as_str().to_owned())];
            let requests = Count::of(&self.cache_requests, &labels);
            (requests, Count::of(&self.cache_bytes, &labels))
        }))
    }

    /// The counts of a route (a repository's name, `agents`, `none`) of a listener; make them once.
    pub fn route(&self, listener: &str, route: &str) -> RouteMetrics {
        let labels = vec![("listener", listener.to_owned()), ("route", route.to_owned())];
        let durations = self.http_durations.get_or_create_owned(&labels);
        RouteMetrics { codes: Codes::new(&self.http_requests, labels), durations }
    }

    /// The counts of an upstream (by its configured URL); make them once.
    pub fn upstream(&self, name: &str) -> UpstreamMetrics {
        let labels: Labels = vec![("upstream", name.to_owned())];
        let up = Level::of(&self.upstream_up, &labels);
        up.set(1);
        UpstreamMetrics {
            name: name.to_owned(),
            received: Count::of(&self.upstream_bytes, &labels),
            codes: Codes::new(&self.upstream_requests, labels),
            up,
            lies: self.upstream_lies.clone(),
        }
    }

    /// Says when the certificate of a listener expires.
    pub fn certificate_expires(&self, listener: &str, at: Timestamp) {
        let labels: Labels = vec![("listener", listener.to_owned())];
        Level::of(&self.certificate_expiry, &labels).set(at.0 / 1_000);
    }

    /// Has `refresh` copy levels in before every reading. It must not wait.
    pub fn before_reading(&self, refresh: impl Fn(&Self) + Send + Sync + 'static) {
        self.refreshes.lock().push(Box::new(refresh));
    }

    /// All metrics as text.
    pub fn render(&self, exposition: Exposition) -> String {
        self.refreshes.lock().iter().for_each(|refresh| refresh(self));
        exposition.render(&self.registry)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy() -> Metrics {
        let metrics = Metrics::new("1.2.3");
        let repository = metrics.repository("software");
        repository.request(CacheResult::Hit);
        repository.bytes(CacheResult::Hit, 4_096);
        let route = metrics.route("agents", "software");
        route.answered(StatusCode::OK, Duration::from_millis(2));
        route.answered(StatusCode::IM_A_TEAPOT, Duration::from_secs(3_600));
        let upstream = metrics.upstream("https://master.example/");
        upstream.replied(StatusCode::OK);
        upstream.received(50 << 20);
        upstream.lied("two-lengths");
        metrics.catalogues("dats").refused("moving");
        metrics.cache_evictions.of("space").inc();
        metrics.cache_integrity_failures.of("disk").inc();
        metrics.fill_resumes.of("reset").inc();
        metrics.connections_rejected.of("address").copy(7);
        metrics.requests_refused.of("dot-segment").inc();
        metrics.certificate_expires("https", Timestamp(1_767_225_600_999));
        metrics.before_reading(|metrics| metrics.cache_size.set(123));
        metrics
    }

    #[test]
    fn a_reading_has_what_was_counted() {
        let text = busy().render(Exposition::OpenMetrics);
        for line in [
            "waypost_build_info{version=\"1.2.3\"} 1",
            "waypost_cache_requests_total{repository=\"software\",result=\"hit\"} 1",
            "waypost_cache_requests_total{repository=\"software\",result=\"stale\"} 0",
            "waypost_cache_response_bytes_total{repository=\"software\",result=\"hit\"} 4096",
            "waypost_http_requests_total{listener=\"agents\",route=\"software\",code=\"200\"} 1",
            "waypost_http_requests_total{listener=\"agents\",route=\"software\",code=\"other\"} 1",
            "waypost_http_request_duration_seconds_count{listener=\"agents\",route=\"software\"} 2",
            "waypost_http_request_duration_seconds_bucket{le=\"+Inf\",listener=\"agents\",route=\"software\"} 2",
            "waypost_upstream_lies_total{upstream=\"https://master.example/\",lie=\"two-lengths\"} 1",
            "waypost_upstream_up{upstream=\"https://master.example/\"} 1",
            "waypost_cache_integrity_failures_total{where=\"disk\"} 1",
            "waypost_connections_rejected_total{reason=\"address\"} 7",
            "waypost_cache_size_bytes 123",
            "waypost_tls_certificate_expiry_timestamp_seconds{listener=\"https\"} 1767225600",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\nis not in\n{text}");
        }
    }

    /// The rules of `promtool check metrics` that apply to us, over a reading with every family in use.
    #[test]
    fn names_units_and_helps_are_as_prometheus_wants_them() {
        let text = busy().render(Exposition::Classic);
        let mut families = 0;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                families += 1;
                assert!(help.len() > 5 && help.ends_with('.'), "{line}");
                assert!(name.starts_with("waypost_"), "{line}");
                assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{line}");
                assert!(!["milliseconds", "kilobytes", "minutes"].iter().any(|unit| name.contains(unit)));
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            } else {
                let name = line.split(['{', ' ']).next().unwrap();
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
                let typed = |name: &str| text.contains(&format!("# TYPE {name} "));
                assert!(typed(name) || base.is_some_and(typed), "{line}");
            }
        }
        assert_eq!(families, 39);
    }
}
