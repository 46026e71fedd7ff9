//! What a configuration means once it is known to be right: plain data with parsed units, absolute paths and
//! parsed addresses. Only [`super::load`] and [`super::check_text`] can build a [`CheckedConfig`], so whoever
//! holds one need not check again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{AgentsConfig, ControlConfig, PresenceConfig, Secret};

/// A configuration without errors. Files it names existed and could be read when it was checked.
#[derive(Clone, Debug)]
pub struct CheckedConfig {
    /// The file it came from, absolute: where a reload looks again.
    pub file: PathBuf,
    /// `[server]`
    pub server: ServerConfig,
    /// `[admin]`
    pub admin: AdminConfig,
    /// `[cache]`
    pub cache: CacheConfig,
    /// `[limits]`
    pub limits: Limits,
    /// `[[repository]]` in the order of the file; at least one. No two have the same name or path.
    pub repositories: Vec<RepositoryConfig>,
    /// `[control]`, if the node has anything to do with the fleet's documents.
    pub control: Option<ControlConfig>,
    /// `[agents]`
    pub agents: AgentsConfig,
    /// The rest of `[agents]`, where there is that table or `[control]`.
    pub presence: Option<PresenceConfig>,
    /// `[log]`
    pub log: LogConfig,
    /// Outside of `config` nobody can fill this field.
    pub(super) _proof: Proof,
}

/// That the check has been done.
#[derive(Clone, Debug)]
pub(super) struct Proof;

/// `[server]`: what agents talk to. At least one of the two lists of addresses is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// HTTPS addresses. Port 0 lets the kernel choose.
    pub listen: Vec<SocketAddr>,
    /// Plain HTTP addresses, on loopback only. Port 0 lets the kernel choose.
    pub plain_listen: Vec<SocketAddr>,
    /// Certificate and key; present whenever `listen` is not empty.
    pub tls: Option<TlsFiles>,
    /// Lower-case host names and addresses that this node answers to; empty answers to all.
    pub names: Vec<String>,
    /// The node's name in `Via` and `Cache-Status`: a token that begins with a letter.
    pub node: String,
    /// How long running transfers may go on after TERM.
    pub drain: Duration,
    /// Threads that serve requests, 1 to 256.
    pub workers: usize,
}

/// `[admin]`: the operator's ways in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where the Unix socket is made, if one is wanted.
    pub socket: Option<PathBuf>,
    /// A group, by name or number, whose members are operators on the socket.
    pub operators: Option<String>,
    /// A group, by name or number, whose members are viewers on the socket.
    pub viewers: Option<String>,
    /// The address for TLS, if one is wanted. Then `tls` is there, and tokens or a client CA.
    pub listen: Option<SocketAddr>,
    /// What it shows: its own certificate, or that of `[server]`.
    pub tls: Option<TlsFiles>,
    /// A PEM file with the authority of operators' certificates.
    pub client_ca: Option<PathBuf>,
    /// What holders of certificates may do.
    pub certificates: Vec<CertificateConfig>,
    /// Bearer tokens.
    pub tokens: Vec<TokenConfig>,
}

/// Somebody who comes with a certificate of `[admin] client_ca`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateConfig {
    /// A name in the certificate.
    pub name: String,
    /// What they may do.
    pub role: AdminRole,
}

/// A bearer token of `[admin]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenConfig {
    /// How the log names who has it.
    pub name: String,
    /// What it is good for.
    pub role: AdminRole,
    /// Where its value is.
    pub secret: Secret,
}

/// What somebody may do with the admin API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminRole {
    /// Look.
    Viewer,
    /// Look and change.
    Operator,
}

/// A certificate and its private key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The private key.
    pub key: Secret,
}

/// `[cache]`: what may be kept, where. All sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// The directory of blocks and index; made at start when it is missing.
    pub dir: PathBuf,
    /// Bytes on disk.
    pub size: u64,
    /// Bytes of memory for hot blocks and records.
    pub memory: u64,
    /// Bytes of the file system that stay free.
    pub min_free: u64,
    /// Bytes per second that the scrub reads; 0 is off.
    pub scrub_rate: u64,
    /// Largest body that is kept; larger ones stream through. Never more than `size`.
    pub max_object: u64,
}

/// `[limits]`: bounds of the data plane that an administrator may turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections in total.
    pub connections: usize,
    /// Connections of one IPv4 address or IPv6 /64.
    pub connections_per_address: usize,
    /// TLS handshakes at the same time.
    pub handshakes: usize,
    /// Fills at the same time.
    pub fills: usize,
    /// Fills from one upstream at the same time.
    pub fills_per_upstream: usize,
    /// Requests that may wait for a fill to be allowed.
    pub queue: usize,
    /// How long one of them waits before it gets 503.
    pub queue_wait: Duration,
    /// Time for a request head to arrive.
    pub head_timeout: Duration,
    /// Time without any progress in sending before a reader is cut off.
    pub send_timeout: Duration,
    /// Time an idle connection is kept.
    pub idle_timeout: Duration,
    /// Requests on one connection before it is closed.
    pub requests_per_connection: u32,
}

/// One `[[repository]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryConfig {
    /// Its name in metrics, logs and commands: `[a-z0-9-]{1,40}`.
    pub name: String,
    /// Its URL prefix; starts and ends with `/`. The longest matching prefix wins.
    pub path: String,
    /// What kind of repository it is.
    pub preset: Preset,
    /// Where its files come from.
    pub source: Source,
    /// What a request's query string means.
    pub query: QueryMode,
    /// Its rules in order; the first one that matches wins.
    pub rules: Vec<RuleConfig>,
}

/// What a repository is known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Files under a URL; nothing is known about their names.
    Generic,
    /// A master, handler or distributed repository of ePO.
    Epo,
    /// ClamAV's databases and their increments.
    ClamAv,
    /// Archives of Debian packages.
    Apt,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Generic, Self::Epo, Self::ClamAv, Self::Apt];

    /// Its word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::Epo => "epo",
            Self::ClamAv => "clamav",
            Self::Apt => "apt",
        }
    }
}

/// Where a repository's files come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// This node is the master: files of this directory.
    Directory(PathBuf),
    /// Fetched on demand. Boxed: it is ten times the size of a path.
    Upstreams(Box<UpstreamsConfig>),
}

/// How a repository is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamsConfig {
    /// The sources, sorted by priority (lowest first, else as in the file); at least one.
    pub sources: Vec<UpstreamConfig>,
    /// Lower-case names of request headers that go upstream and select variants.
    pub forward_headers: Vec<String>,
    /// Lower-case host names, beside each upstream's own, that redirects may lead to; with the port where that is not
    /// the scheme's usual one.
    pub redirect_hosts: Vec<String>,
    /// A PEM file with the only authorities to trust; `None` trusts the system's.
    pub ca: Option<PathBuf>,
    /// What this node shows to upstreams that ask for a certificate.
    pub client_cert: Option<TlsFiles>,
    /// Time for TCP and TLS.
    pub connect_timeout: Duration,
    /// Time from the request to the reply's head.
    pub first_byte_timeout: Duration,
    /// Time without any byte of a body.
    pub stall_timeout: Duration,
    /// Bytes per second below which an upstream counts as broken; 0 is off.
    pub min_rate: u64,
    /// How its catalogues are watched; `None` where its kind has none.
    pub catalogue: Option<CatalogueConfig>,
}

/// How the catalogues of a repository are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueConfig {
    /// How often upstream is asked whether there is a newer generation.
    pub check_every: Duration,
    /// What has to be here before a generation is shown.
    pub prepare: PrepareConfig,
    /// After this long it is shown with the rest still arriving.
    pub prepare_within: Duration,
    /// Whether what agents used is fetched in its new version before they ask.
    pub prefetch: bool,
    /// Bytes a second for that; 0 is no limit.
    pub prefetch_rate: u64,
    /// How long agents that began with a generation get its files after another one is shown.
    pub grace: Duration,
    /// Age from which on there is an alarm.
    pub alarm_after: Duration,
    /// Age from which on the catalogue is not offered any more.
    pub stop_after: Option<Duration>,
}

/// What has to be here before a generation is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrepareConfig {
    /// Nothing but the catalogue.
    Nothing,
    /// Incremental updates.
    Deltas,
    /// What agents fetched of the generation before, and incremental updates.
    Used,
    /// Everything.
    All,
    /// What these globs match.
    Matching(Vec<String>),
}

/// One source of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// `http://` or `https://`, no user info, query or fragment; ends with `/`.
    pub url: String,
    /// Lower is asked first. Without one in the file: its place in the list, from 1.
    pub priority: u32,
}

/// What a query string on a request means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueryMode {
    /// The request is refused.
    #[default]
    Refuse,
    /// It is part of the key and goes upstream.
    Key,
    /// It is cut off.
    Drop,
}

/// One `[[repository.rule]]`. A field that is `None` keeps the repository's default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleConfig {
    /// A glob over the path below the repository's, without a leading slash; `*` stops at `/`, `**` does not.
    pub pattern: String,
    /// How long an answer is fresh, whatever its headers say.
    pub fresh_for: Option<Duration>,
    /// How long a stale answer is served while it is revalidated behind (RFC 5861 §3).
    pub stale_while_revalidate: Option<Duration>,
    /// How long a stale answer is served when upstream fails (RFC 5861 §4).
    pub stale_if_error: Option<Duration>,
    /// Never changes under this name (RFC 8246).
    pub immutable: Option<bool>,
    /// How long a 404 or 410 is remembered.
    pub negative_for: Option<Duration>,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// What is logged to stderr.
    pub level: LogLevel,
    /// Whether `level` was said on the command line and wins over the file; the check never sets this.
    pub level_by_flag: bool,
    /// How it is written.
    pub format: LogFormat,
    /// The access log's file; `None` writes none.
    pub access: Option<PathBuf>,
    /// How the access log is written.
    pub access_format: AccessFormat,
    /// Who gets traces, if anybody does.
    pub otlp: Option<OtlpConfig>,
}

/// `[log] otlp`: a collector of traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpConfig {
    /// Its `http://` or `https://` URL, to which `v1/traces` is added.
    pub endpoint: String,
    /// One of so many requests is told about, 1 to 1,000,000.
    pub one_in: u64,
    /// A PEM file with the authorities of its certificate, where they are not those of this machine.
    pub ca: Option<PathBuf>,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What needs a person.
    Error,
    /// … and what may soon.
    Warn,
    /// … and what changes.
    #[default]
    Info,
    /// … and why.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The word of the configuration, which tracing filters understand too.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How log lines on stderr look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For collectors.
    Json,
}

/// How access log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// NCSA combined.
    Combined,
}
