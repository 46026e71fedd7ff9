//! A configuration as it is in force, key by key, with where each value comes from. Secrets are shown as references.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::checked::{
    AccessFormat, AdminRole, CatalogueConfig, CertificateConfig, CheckedConfig, LogFormat, PrepareConfig,
    Preset, QueryMode, RepositoryConfig, RuleConfig, Source, TlsFiles, TokenConfig, UpstreamsConfig,
};
use super::reader;
use super::values::{render_bytes, render_duration};
use super::{AgentTokenConfig, ControlSource, Diagnostics, NodeTokenConfig, Secret};

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This line of the file.
    Line(usize),
    /// Nobody said anything.
    Default,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its table as it stands in a file, `[server]` or `[[repository]]`; the same again begins another one.
    pub table: String,
    /// Its place: `server.listen`, `repository.0.name`.
    pub place: String,
    /// Its name.
    pub key: String,
    /// Its value as TOML.
    pub value: String,
    /// Where that comes from.
    pub origin: Origin,
}

/// Every key of the file at `path` that is in force.
///
/// # Errors
/// All that is wrong with the file.
pub fn show(path: &Path) -> Result<Vec<Shown>, Diagnostics> {
    let (config, _) = super::load(path)?;
    // It was just read without errors; where it is gone since then, everything looks like a default.
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut to =
        List { lines: reader::lines(&text), table: String::new(), prefix: String::new(), found: Vec::new() };
    to.all(&config);
    Ok(to.found)
}

struct List {
    lines: BTreeMap<String, usize>,
    table: String,
    prefix: String,
    found: Vec<Shown>,
}

impl List {
    fn begin(&mut self, table: &str, prefix: String) {
        table.clone_into(&mut self.table);
        self.prefix = prefix;
    }

    fn put(&mut self, key: &str, value: Option<String>) {
        let Some(value) = value else { return };
        let place = format!("{}.{key}", self.prefix);
        let origin = self.lines.get(&place).map_or(Origin::Default, |line| Origin::Line(*line));
        self.found.push(Shown { table: self.table.clone(), place, key: key.to_owned(), value, origin });
    }

    fn all(&mut self, config: &CheckedConfig) {
        let server = &config.server;
        self.begin("[server]", "server".to_owned());
        self.put("listen", addresses(&server.listen));
        self.put("plain_listen", addresses(&server.plain_listen));
        self.put("tls", server.tls.as_ref().map(identity));
        self.put("names", texts(&server.names));
        self.put("node", Some(quoted(&server.node)));
        self.put("drain", Some(time(server.drain)));
        self.put("workers", Some(server.workers.to_string()));
        self.admin(config);
        let cache = &config.cache;
        self.begin("[cache]", "cache".to_owned());
        self.put("dir", Some(path(&cache.dir)));
        for (key, bytes) in [
            ("size", cache.size),
            ("memory", cache.memory),
            ("min_free", cache.min_free),
            ("max_object", cache.max_object),
        ] {
            self.put(key, Some(quoted(&render_bytes(bytes))));
        }
        self.limits(config);
        for (place, repository) in config.repositories.iter().enumerate() {
            self.repository(place, repository);
        }
        self.control(config);
        let log = &config.log;
        self.begin("[log]", "log".to_owned());
        self.put("level", Some(quoted(log.level.as_str())));
        self.put(
            "format",
            Some(quoted(match log.format {
                LogFormat::Auto => "auto",
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            })),
        );
        self.put("access", log.access.as_deref().map(path));
        self.put(
            "access_format",
            Some(quoted(match log.access_format {
                AccessFormat::Json => "json",
                AccessFormat::Combined => "combined",
            })),
        );
        let otlp = log.otlp.as_ref().map(|otlp| {
            let ca = otlp.ca.as_deref().map_or_else(String::new, |ca| format!(", ca = {}", path(ca)));
            format!("{{ endpoint = {}, one_in = {}{ca} }}", quoted(&otlp.endpoint), otlp.one_in)
        });
        self.put("otlp", otlp);
    }

    fn admin(&mut self, config: &CheckedConfig) {
        let admin = &config.admin;
        self.begin("[admin]", "admin".to_owned());
        self.put("socket", admin.socket.as_deref().map(path));
        self.put("operators", admin.operators.as_deref().map(quoted));
        self.put("viewers", admin.viewers.as_deref().map(quoted));
        self.put("listen", admin.listen.map(|address| quoted(&address.to_string())));
        self.put("tls", admin.tls.as_ref().map(identity));
        self.put("client_ca", admin.client_ca.as_deref().map(path));
        let role = |role: AdminRole| match role {
            AdminRole::Viewer => "viewer",
            AdminRole::Operator => "operator",
        };
        let list = |items: Vec<String>| (!items.is_empty()).then(|| format!("[{}]", items.join(", ")));
        let holder = |holder: &CertificateConfig| {
            format!("{{ name = {}, role = \"{}\" }}", quoted(&holder.name), role(holder.role))
        };
        self.put("certificates", list(admin.certificates.iter().map(holder).collect()));
        let token = |token: &TokenConfig| {
            let (name, role, secret) = (quoted(&token.name), role(token.role), secret(&token.secret));
            format!("{{ name = {name}, role = \"{role}\", secret = {secret} }}")
        };
        self.put("tokens", list(admin.tokens.iter().map(token).collect()));
    }

    fn control(&mut self, config: &CheckedConfig) {
        if let Some(control) = &config.control {
            self.begin("[control]", "control".to_owned());
            match &control.source {
                ControlSource::Directory(directory) => {
                    self.put("directory", Some(path(directory)));
                    self.put("check_every", Some(time(control.check_every)));
                }
                ControlSource::Upstream(upstream) => {
                    self.put("upstream", Some(quoted(&upstream.url)));
                    self.put("ca", upstream.ca.as_deref().map(path));
                    self.put("client_cert", upstream.client_cert.as_ref().map(identity));
                    self.put("token", upstream.token.as_ref().map(secret));
                }
            }
            self.put("state_dir", Some(path(&control.state_dir)));
            let token = |it: &NodeTokenConfig| {
                format!("{{ name = {}, secret = {} }}", quoted(&it.name), secret(&it.secret))
            };
            self.put("tokens", list(control.tokens.iter().map(token)));
            self.put("hold", Some(time(control.hold)));
            self.put("keep_commands", Some(time(control.keep_commands)));
        }
        self.begin("[agents]", "agents".to_owned());
        self.put("client_ca", config.agents.client_ca.as_deref().map(path));
        let token = |it: &AgentTokenConfig| {
            let tree = it.tree.as_deref().map(|tree| format!(", tree = {}", quoted(tree)));
            let (tree, name) = (tree.unwrap_or_default(), quoted(&it.name));
            format!("{{ name = {name}{tree}, secret = {} }}", secret(&it.secret))
        };
        self.put("tokens", list(config.agents.tokens.iter().map(token)));
        let Some(presence) = &config.presence else { return };
        self.put("state_dir", Some(path(&presence.state_dir)));
        self.put("checkin_interval", Some(time(presence.checkin_interval)));
        self.put("ping_after", Some(time(presence.ping_after)));
        self.put("ping_timeout", Some(time(presence.ping_timeout)));
        self.put("session_timeout", Some(time(presence.session_timeout)));
        self.put("keep_offline", Some(time(presence.keep_offline)));
        self.put("passive", Some(presence.passive.to_string()));
        self.put("keep_passive", Some(time(presence.keep_passive)));
        self.put("late_after", Some(presence.late_after.to_string()));
        self.put("offline_after", Some(presence.offline_after.to_string()));
        self.put("stalled_after", Some(presence.stalled_after.to_string()));
        self.put("max", Some(presence.most.to_string()));
    }

    fn limits(&mut self, config: &CheckedConfig) {
        let limits = &config.limits;
        self.begin("[limits]", "limits".to_owned());
        for (key, number) in [
            ("connections", limits.connections),
            ("connections_per_address", limits.connections_per_address),
            ("handshakes", limits.handshakes),
            ("fills", limits.fills),
            ("fills_per_upstream", limits.fills_per_upstream),
            ("queue", limits.queue),
        ] {
            self.put(key, Some(number.to_string()));
        }
        for (key, span) in [
            ("queue_wait", limits.queue_wait),
            ("head_timeout", limits.head_timeout),
            ("send_timeout", limits.send_timeout),
            ("idle_timeout", limits.idle_timeout),
        ] {
            self.put(key, Some(time(span)));
        }
        self.put("requests_per_connection", Some(limits.requests_per_connection.to_string()));
    }

    fn repository(&mut self, place: usize, repository: &RepositoryConfig) {
        self.begin("[[repository]]", format!("repository.{place}"));
        self.put("name", Some(quoted(&repository.name)));
        self.put("path", Some(quoted(&repository.path)));
        self.put("preset", Some(quoted(repository.preset.as_str())));
        let has_list = |upstreams: &UpstreamsConfig| upstreams.catalogue.is_some();
        if repository.preset == Preset::Generic
            && matches!(&repository.source, Source::Upstreams(upstreams) if has_list(upstreams))
        {
            self.put("checksums", Some("true".to_owned()));
        }
        self.put(
            "query",
            Some(quoted(match repository.query {
                QueryMode::Refuse => "refuse",
                QueryMode::Key => "key",
                QueryMode::Drop => "drop",
            })),
        );
        match &repository.source {
            Source::Directory(directory) => self.put("directory", Some(path(directory))),
            Source::Upstreams(upstreams) => self.upstreams(upstreams),
        }
        for (number, rule) in repository.rules.iter().enumerate() {
            self.begin("[[repository.rule]]", format!("repository.{place}.rule.{number}"));
            self.rule(rule);
        }
    }

    fn upstreams(&mut self, upstreams: &UpstreamsConfig) {
        let sources = upstreams.sources.iter();
        let sources =
            sources.map(|it| format!("{{ url = {}, priority = {} }}", quoted(&it.url), it.priority));
        self.put("upstreams", Some(format!("[{}]", sources.collect::<Vec<_>>().join(", "))));
        self.put("forward_headers", texts(&upstreams.forward_headers));
        self.put("redirect_hosts", texts(&upstreams.redirect_hosts));
        self.put("ca", upstreams.ca.as_deref().map(path));
        self.put("client_cert", upstreams.client_cert.as_ref().map(identity));
        self.put("connect_timeout", Some(time(upstreams.connect_timeout)));
        self.put("first_byte_timeout", Some(time(upstreams.first_byte_timeout)));
        self.put("stall_timeout", Some(time(upstreams.stall_timeout)));
        self.put("min_rate", Some(quoted(&format!("{}/s", render_bytes(upstreams.min_rate)))));
        if let Some(catalogue) = &upstreams.catalogue {
            self.catalogue(catalogue);
        }
    }

    fn catalogue(&mut self, catalogue: &CatalogueConfig) {
        self.put("check_every", Some(time(catalogue.check_every)));
        self.put(
            "prepare",
            match &catalogue.prepare {
                PrepareConfig::Nothing => Some(quoted("none")),
                PrepareConfig::Deltas => Some(quoted("deltas")),
                PrepareConfig::Used => Some(quoted("used")),
                PrepareConfig::All => Some(quoted("all")),
                PrepareConfig::Matching(globs) => texts(globs),
            },
        );
        self.put("prepare_within", Some(time(catalogue.prepare_within)));
        self.put("prefetch", Some(catalogue.prefetch.to_string()));
        self.put("prefetch_rate", Some(quoted(&format!("{}/s", render_bytes(catalogue.prefetch_rate)))));
        self.put("grace", Some(time(catalogue.grace)));
        self.put("alarm_after", Some(time(catalogue.alarm_after)));
        self.put("stop_after", catalogue.stop_after.map(time));
    }

    fn rule(&mut self, rule: &RuleConfig) {
        self.put("match", Some(quoted(&rule.pattern)));
        self.put("fresh_for", rule.fresh_for.map(time));
        self.put("stale_while_revalidate", rule.stale_while_revalidate.map(time));
        self.put("stale_if_error", rule.stale_if_error.map(time));
        self.put("immutable", rule.immutable.map(|yes| yes.to_string()));
        self.put("negative_for", rule.negative_for.map(time));
    }
}

fn list(items: impl Iterator<Item = String>) -> Option<String> {
    let items: Vec<String> = items.collect();
    (!items.is_empty()).then(|| format!("[{}]", items.join(", ")))
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

fn path(path: &Path) -> String {
    quoted(&path.display().to_string())
}

fn time(time: Duration) -> String {
    quoted(&render_duration(time))
}

fn texts(texts: &[String]) -> Option<String> {
    let all: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    (!all.is_empty()).then(|| format!("[{}]", all.join(", ")))
}

fn addresses(addresses: &[SocketAddr]) -> Option<String> {
    texts(&addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>())
}

fn secret(secret: &Secret) -> String {
    match secret {
        Secret::File(file) => format!("{{ file = {} }}", path(file)),
        Secret::Env(name) => format!("{{ env = {} }}", quoted(name)),
    }
}

fn identity(files: &TlsFiles) -> String {
    format!("{{ cert = {}, key = {} }}", path(&files.cert), secret(&files.key))
}
