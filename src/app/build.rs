//! From a checked configuration to the parts of a node.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;

use super::catalogue::{self, Watched};
use super::control;
use super::editions::Editions;
use super::events::SupplyEvents;
use super::systemd;
use crate::admin::{Access, Holder, Identity, Role, Token};
use crate::base::clock::{Clock, Timestamp};
use crate::config::{
    AccessFormat, AdminConfig, AdminRole, CertificateConfig, CheckedConfig, QueryMode, RepositoryConfig,
    Source, TlsFiles, UpstreamsConfig,
};
use crate::control::Control;
use crate::fill::{self, Fills, Origin, Supply};
use crate::presence::Presence;
use crate::proxy::directory::Directory;
use crate::proxy::{self, Kind, Parts, Passer, Passers, Plane, Repository, Routes};
use crate::repository::preset::preset_named;
use crate::repository::rules::{Rule, Rules};
use crate::server::{self, Bound, Listener, Tls};
use crate::store::{self, Store};
use crate::telemetry::{self, AccessLog, Metrics, Tracer};
use crate::upstream::{self, Sources, Trust, Upstream};

/// The name of the listeners with TLS, and of those without.
pub(super) const LISTENERS: [&str; 2] = ["https", "http"];

/// A certificate that has less time than this is worth a warning at the start.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 86_400);

/// The parts of a node, bound and ready to run.
pub(super) struct Built {
    pub(super) plane: Arc<Plane>,
    pub(super) bound: Bound,
    pub(super) store: Store,
    pub(super) fills: Fills,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) access: AccessLog,
    /// What agents are shown, for a reload to change.
    pub(super) tls: Option<Tls>,
    /// What answers agents and nodes about the fleet.
    pub(super) control: Option<Arc<Control>>,
    /// Who they are, and whether they are there.
    pub(super) presence: Option<Arc<Presence>>,
    /// Who has come for updates.
    pub(super) passed: mpsc::Receiver<Passer>,
    /// Which versions of catalogues are here.
    pub(super) editions: Arc<Editions>,
    pub(super) parts: RepositoryParts,
    pub(super) made: Vec<Made>,
}

/// What every repository is made of.
#[derive(Clone)]
pub(super) struct RepositoryParts {
    pub(super) store: Store,
    pub(super) fills: Fills,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tracer: Option<Arc<dyn Tracer>>,
}

/// A repository as it is served, with what it was made from.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) config: RepositoryConfig,
    pub(super) repository: Arc<Repository>,
    pub(super) sources: Option<Sources>,
    pub(super) catalogues: Option<Arc<Watched>>,
}

impl Made {
    /// Looks after its catalogues, if it has some and does not yet.
    pub(super) fn watch(&self, metrics: &Metrics) {
        if let Some(catalogues) = &self.catalogues {
            catalogues.begin(metrics);
        }
    }

    /// Whether it looks after all catalogues it has.
    #[cfg(test)]
    pub(super) fn is_watched(&self) -> bool {
        self.catalogues.as_ref().is_none_or(|catalogues| catalogues.has_begun())
    }
}

pub(super) fn build(config: &CheckedConfig, clock: Clock) -> anyhow::Result<Built> {
    let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION")));
    // The sockets first: a port that is taken is said before anything on disk is touched.
    let tls = config
        .server
        .tls
        .as_ref()
        .filter(|_| !config.server.listen.is_empty())
        .map(|files| read_tls(config, files, &clock, &metrics))
        .transpose()?;
    let bound = bind(config, tls.as_ref())?;
    let store = open_store(config, &clock)?;
    let fills = Fills::new(fill_options(config), store.clone(), clock.clone());
    let access = open_access_log(config)?;
    let parts = RepositoryParts {
        store: store.clone(),
        fills: fills.clone(),
        clock: clock.clone(),
        metrics: Arc::clone(&metrics),
        tracer: open_tracer(config)?,
    };
    let made = config.repositories.iter().map(|repository| make_repository(config, repository, &parts));
    let made = made.collect::<anyhow::Result<Vec<_>>>()?;
    made.iter().for_each(|made| made.watch(&metrics));
    let routes = Routes::new(made.iter().map(|made| Arc::clone(&made.repository)).collect());
    let options = proxy::Options {
        node: config.server.node.clone(),
        names: config.server.names.clone(),
        waiting: config.limits.queue,
    };
    let (passers, passed) = Passers::new();
    passers.want(config.presence.as_ref().is_some_and(|agents| agents.passive));
    let for_plane = Parts {
        store: store.clone(),
        fills: fills.clone(),
        clock: clock.clone(),
        metrics: Arc::clone(&metrics),
        access: Some(access.clone()),
        tracer: parts.tracer.clone(),
        passers,
    };
    let plane = Arc::new(Plane::new(options, routes, for_plane));
    let control = control::build(config, &clock)?.map(Arc::new);
    let editions = Arc::new(Editions::new(&plane));
    let presence = super::presence::open(config, &clock, &metrics, (&bound, &editions), control.as_ref())?;
    if let Some(fleet) = control.as_ref().and_then(|control| control.fleet()) {
        control::measure(fleet, &metrics);
    }
    Ok(Built {
        plane,
        bound,
        store,
        fills,
        clock,
        metrics,
        access,
        tls,
        control,
        presence,
        passed,
        editions,
        parts,
        made,
    })
}

/// One repository, with its upstreams or its directory.
pub(super) fn make_repository(
    config: &CheckedConfig,
    repository: &RepositoryConfig,
    parts: &RepositoryParts,
) -> anyhow::Result<Made> {
    let RepositoryParts { store, fills, clock, metrics, .. } = parts;
    let (kind, sources, catalogues) = match &repository.source {
        Source::Directory(path) => (open_directory(path, repository, clock)?, None, None),
        Source::Upstreams(upstreams) => {
            let from = build_sources(config, repository, upstreams, clock)?;
            let supply = Arc::new(build_supply(config, (repository, upstreams), from.clone(), parts)?);
            let origin = Arc::new(Origin { store: store.clone(), fills: fills.clone(), supply });
            let watched = catalogue::build(config, (repository, upstreams), &origin, metrics, clock)?;
            let catalogues = watched.as_ref().map(|it| Arc::clone(&it.catalogues));
            (Kind::Upstreams { origin, catalogues }, Some(from), watched)
        }
    };
    let made = Arc::new(build_repository(repository, kind, metrics));
    let catalogues = catalogues.map(Arc::new);
    Ok(Made { config: repository.clone(), repository: made, sources, catalogues })
}

fn bind(config: &CheckedConfig, tls: Option<&Tls>) -> anyhow::Result<Bound> {
    let limits = &config.limits;
    let options = server::Options {
        connections: limits.connections,
        connections_per_address: limits.connections_per_address,
        handshakes: limits.handshakes,
        head_timeout: limits.head_timeout,
        send_timeout: limits.send_timeout,
        idle_timeout: limits.idle_timeout,
        requests_per_connection: limits.requests_per_connection.into(),
        drain: config.server.drain,
        ..server::Options::default()
    };
    let secure = config.server.listen.iter().map(|address| Listener {
        address: *address,
        tls: tls.cloned(),
        name: LISTENERS[0],
    });
    let plain = config.server.plain_listen.iter().map(|address| Listener {
        address: *address,
        tls: None,
        name: LISTENERS[1],
    });
    Ok(server::bind_with(secure.chain(plain).collect(), options, systemd::inherited())?)
}

pub(super) fn read_tls(
    config: &CheckedConfig,
    files: &TlsFiles,
    clock: &Clock,
    metrics: &Metrics,
) -> anyhow::Result<Tls> {
    let (cert, key) = read_identity(files)?;
    let clients = read_client_ca(config)?;
    let tls = Tls::asking(&cert, &key, clients.as_deref())
        .with_context(|| format!("cannot use the certificate {}", files.cert.display()))?;
    if let Some(expiry) = Tls::expiry(&cert) {
        metrics.certificate_expires(LISTENERS[0], expiry);
        warn_of_expiry(&files.cert, expiry, clock.now());
    }
    Ok(tls)
}

/// A node with an expired certificate starts all the same: some agents do not look, and the log says why the others
/// do not come.
fn warn_of_expiry(file: &Path, expiry: Timestamp, now: Timestamp) {
    let (file, days) = (file.display(), expiry.since(now).as_secs() / 86_400);
    if expiry <= now {
        tracing::error!(%file, "the certificate has expired: agents that check it are turned away");
    } else if expiry.since(now) < EXPIRES_SOON {
        tracing::warn!(%file, days, "the certificate expires soon");
    }
}

/// The authority of agents' and nodes' certificates, if they are asked for.
pub(super) fn read_client_ca(config: &CheckedConfig) -> anyhow::Result<Option<Vec<u8>>> {
    config.agents.client_ca.as_deref().map(read).transpose()
}

pub(super) fn read_identity(files: &TlsFiles) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
    let cert = read(&files.cert)?;
    let key = files.key.read().context("cannot read the private key")?;
    Ok((cert, key))
}

pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn open_store(config: &CheckedConfig, clock: &Clock) -> anyhow::Result<Store> {
    let cache = &config.cache;
    let options = store::Options {
        memory: cache.memory,
        min_free: cache.min_free,
        max_object: cache.max_object,
        ..store::Options::new(&cache.dir, cache.size)
    };
    Ok(Store::open(options, clock.clone())?)
}

fn fill_options(config: &CheckedConfig) -> fill::Options {
    let limits = &config.limits;
    fill::Options {
        fills: limits.fills,
        queue: limits.queue,
        queue_wait: limits.queue_wait,
        ..fill::Options::default()
    }
}

fn open_access_log(config: &CheckedConfig) -> anyhow::Result<AccessLog> {
    let Some(path) = &config.log.access else { return Ok(AccessLog::nowhere()) };
    let format = match config.log.access_format {
        AccessFormat::Json => telemetry::AccessFormat::Json,
        AccessFormat::Combined => telemetry::AccessFormat::Combined,
    };
    let log = AccessLog::open(path, format).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(log)
}

/// Who is told about traces, where somebody is.
#[cfg(feature = "otlp")]
fn open_tracer(config: &CheckedConfig) -> anyhow::Result<Option<Arc<dyn Tracer>>> {
    let Some(otlp) = &config.log.otlp else { return Ok(None) };
    let options = telemetry::OtlpOptions {
        endpoint: otlp.endpoint.clone(),
        ca: otlp.ca.as_deref().map(read).transpose()?,
        one_in: otlp.one_in,
        node: config.server.node.clone(),
    };
    Ok(Some(Arc::new(telemetry::Otlp::start(&options).context("[log] otlp")?)))
}

/// The check refuses a configuration that asks for traces.
#[cfg(not(feature = "otlp"))]
fn open_tracer(_: &CheckedConfig) -> anyhow::Result<Option<Arc<dyn Tracer>>> {
    Ok(None)
}

/// Who may come in by the admin API.
pub(super) fn read_access(config: &AdminConfig) -> anyhow::Result<Access> {
    let role = |role| match role {
        AdminRole::Viewer => Role::Viewer,
        AdminRole::Operator => Role::Operator,
    };
    let mut tokens = Vec::new();
    for token in &config.tokens {
        let secret = token.secret.read().with_context(|| format!("the token {} of [admin]", token.name))?;
        tokens.push(Token::new(token.name.clone(), role(token.role), &secret));
    }
    let holder = |it: &CertificateConfig| Holder { name: it.name.clone(), role: role(it.role) };
    let holders = config.certificates.iter().map(holder).collect();
    Ok(Access { tokens, holders, operators: config.operators.clone(), viewers: config.viewers.clone() })
}

/// What the admin listener shows and trusts; `None` where there is none.
pub(super) fn read_admin_identity(config: &AdminConfig) -> anyhow::Result<Option<Identity>> {
    let (Some(_), Some(files)) = (config.listen, &config.tls) else { return Ok(None) };
    let (cert, key) = read_identity(files)?;
    let client_ca = config.client_ca.as_deref().map(read).transpose()?;
    Ok(Some(Identity { cert, key, client_ca }))
}

/// The administrator's rules, and behind them those of the preset.
fn compile_rules(repository: &RepositoryConfig) -> anyhow::Result<Rules> {
    let preset = catalogue::preset_of(repository);
    let ours = preset.map(|preset| preset.rules()).unwrap_or_default();
    Rules::compile(own_rules(repository).chain(ours).collect())
        .with_context(|| format!("repository {}", repository.name))
}

pub(super) fn own_rules(repository: &RepositoryConfig) -> impl Iterator<Item = Rule> {
    let rule = |rule: &crate::config::RuleConfig| Rule {
        pattern: rule.pattern.clone(),
        fresh_for: rule.fresh_for,
        stale_while_revalidate: rule.stale_while_revalidate,
        stale_if_error: rule.stale_if_error,
        immutable: rule.immutable,
        negative_for: rule.negative_for,
    };
    repository.rules.iter().map(rule)
}

fn open_directory(path: &Path, repository: &RepositoryConfig, clock: &Clock) -> anyhow::Result<Kind> {
    let directory = Directory::open(path, proxy::directory::Options::default(), clock.clone())
        .with_context(|| format!("repository {}: cannot open {}", repository.name, path.display()))?;
    let preset = preset_named(repository.preset.as_str());
    Ok(Kind::Directory { directory, rules: compile_rules(repository)?, preset })
}

fn build_sources(
    config: &CheckedConfig,
    repository: &RepositoryConfig,
    upstreams: &UpstreamsConfig,
    clock: &Clock,
) -> anyhow::Result<Sources> {
    let trust = upstreams.ca.as_deref().map(read).transpose()?.map_or(Trust::System, Trust::Exactly);
    let identity = upstreams.client_cert.as_ref().map(read_identity).transpose()?;
    let mut built = Vec::new();
    for source in &upstreams.sources {
        let options = upstream::Options {
            priority: source.priority,
            trust: trust.clone(),
            identity: identity.clone(),
            connect_timeout: upstreams.connect_timeout,
            first_byte_timeout: upstreams.first_byte_timeout,
            stall_timeout: upstreams.stall_timeout,
            min_rate: upstreams.min_rate,
            concurrent: config.limits.fills_per_upstream,
            redirect_hosts: upstreams.redirect_hosts.clone(),
            node: config.server.node.clone(),
            ..upstream::Options::new(source.url.clone())
        };
        let upstream = Upstream::new(options, clock.clone())
            .with_context(|| format!("repository {}: upstream {}", repository.name, source.url))?;
        built.push(Arc::new(upstream));
    }
    Ok(Sources::new(built))
}

fn build_supply(
    config: &CheckedConfig,
    (repository, upstreams): (&RepositoryConfig, &UpstreamsConfig),
    sources: Sources,
    parts: &RepositoryParts,
) -> anyhow::Result<Supply> {
    let names = sources.all().iter().map(|upstream| upstream.name());
    let events = SupplyEvents::new(Arc::clone(&parts.metrics), parts.tracer.clone(), names);
    Ok(Supply {
        name: repository.name.clone(),
        prefix: repository.path.clone(),
        forward_headers: upstreams.forward_headers.clone(),
        rules: compile_rules(repository)?,
        max_object: config.cache.max_object,
        events: Box::new(events),
        sources,
    })
}

fn build_repository(repository: &RepositoryConfig, kind: Kind, metrics: &Metrics) -> Repository {
    let query = match repository.query {
        QueryMode::Refuse => proxy::QueryMode::Refuse,
        QueryMode::Key => proxy::QueryMode::Key,
        QueryMode::Drop => proxy::QueryMode::Drop,
    };
    let routes = LISTENERS.map(|listener| (listener, metrics.route(listener, &repository.name)));
    Repository {
        name: repository.name.clone(),
        prefix: repository.path.clone(),
        query,
        kind,
        metrics: metrics.repository(&repository.name),
        routes: routes.into(),
    }
}

/// Allows as many open files as the system lets us have: an agent is a descriptor, and so is a block being read.
/// Returns the number.
pub(super) fn raise_open_files() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
