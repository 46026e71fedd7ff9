//! Reading the configuration again: all of it takes effect, or nothing does.
//!
//! What can change while the node runs is built aside and then put in place: repositories with their upstreams and
//! rules, certificates, tokens, the log level. What is the same keeps its state, such as the health of upstreams. What
//! cannot change is named, and waits for a restart.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::build::{self, Made, RepositoryParts};
use super::{control, fault};
use crate::admin::api::{Change, Reloaded, SCHEMA};
use crate::admin::{Access, Admin, AdminTls, ApiError, Code, Identity};
use crate::base::digest::{Digest, Hasher};
use crate::config::{self, CheckedConfig, ControlConfig, RepositoryConfig, Secret, Source, TlsFiles};
use crate::control::{Control, Keys};
use crate::presence::Presence;
use crate::proxy::{Plane, Routes};
use crate::server::Tls;
use crate::stage::Catalogues;
use crate::telemetry::LogHandle;

/// Contents of the files that a configuration names, by what they are for.
type Prints = BTreeMap<String, Digest>;

/// Certificate, key, and the authority of clients, all PEM.
type TlsTexts = (Vec<u8>, Vec<u8>, Option<Vec<u8>>);

/// What a reload works on.
pub(super) struct Reloader {
    parts: RepositoryParts,
    plane: Arc<Plane>,
    tls: Option<Tls>,
    admin_tls: Option<AdminTls>,
    control: Option<Arc<Control>>,
    log: Option<LogHandle>,
    /// For whoever wants to know, also while a reload is under way.
    in_force: ArcSwap<InForce>,
    /// Held for the time of a reload, so that there is one at a time.
    turn: Mutex<Turn>,
}

/// What is in force.
struct InForce {
    config: Arc<CheckedConfig>,
    made: Vec<Made>,
}

/// What only a reload looks at.
struct Turn {
    prints: Prints,
    admin: Option<Admin>,
    presence: Option<Arc<Presence>>,
}

/// What a reload is about to put in place.
struct Next {
    config: CheckedConfig,
    prints: Prints,
    made: Vec<Made>,
    access: Access,
    tls: Option<TlsTexts>,
    keys: Keys,
    admin_tls: Option<Identity>,
}

impl Reloader {
    pub(super) fn new(
        config: &CheckedConfig,
        (parts, plane, made): (RepositoryParts, Arc<Plane>, Vec<Made>),
        (tls, admin_tls, control): (Option<Tls>, Option<AdminTls>, Option<Arc<Control>>),
        log: Option<LogHandle>,
    ) -> Self {
        let in_force = ArcSwap::from_pointee(InForce { config: Arc::new(config.clone()), made });
        let turn = Mutex::new(Turn { prints: prints(config), admin: None, presence: None });
        parts.metrics.config_reloaded(true);
        Self { parts, plane, tls, admin_tls, control, log, in_force, turn }
    }

    /// The agents whose numbers change with the configuration.
    pub(super) fn counts(&self, presence: Option<Arc<Presence>>) {
        self.turn.lock().presence = presence;
    }

    /// Tells the API whose tokens change with the configuration.
    pub(super) fn serves(&self, admin: Admin) {
        self.turn.lock().admin = Some(admin);
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> Arc<CheckedConfig> {
        Arc::clone(&self.in_force.load().config)
    }

    /// The upstreams of each repository.
    pub(super) fn sources(&self) -> Vec<(String, crate::upstream::Sources)> {
        let in_force = self.in_force.load();
        in_force
            .made
            .iter()
            .filter_map(|made| Some((made.config.name.clone(), made.sources.clone()?)))
            .collect()
    }

    /// The catalogues of each repository that has some.
    pub(super) fn catalogues(&self) -> Vec<(String, Arc<Catalogues>)> {
        let in_force = self.in_force.load();
        let each = |made: &super::build::Made| {
            Some((made.config.name.clone(), Arc::clone(&made.catalogues.as_ref()?.catalogues)))
        };
        in_force.made.iter().filter_map(each).collect()
    }

    /// Logs more or less from now on.
    pub(super) fn log_level(&self, level: &str) -> Result<(), ApiError> {
        let help = "write error, warn, info, debug or trace, or a filter such as info,waypost::fill=debug";
        let Some(log) = &self.log else {
            return Err(fault::bad("this node logs through another program", help));
        };
        log.set(level).map_err(|error| fault::bad(error.to_string(), help))
    }

    /// Reads the file again and puts it in force, or says what that would change. Reads files: not for a thread of the
    /// runtime.
    pub(super) fn reload(&self, dry_run: bool) -> Result<Reloaded, ApiError> {
        let result = self.try_reload(dry_run);
        if !dry_run {
            self.parts.metrics.config_reloaded(result.is_ok());
        }
        match &result {
            Ok(done) if !dry_run => {
                let names = |restart| {
                    let of = done.changes.iter().filter(|change| change.restart == restart);
                    of.map(|change| change.what.as_str()).collect::<Vec<_>>().join(", ")
                };
                tracing::info!(changed = names(false), needs_restart = names(true), "configuration reloaded");
            }
            Err(error) if !dry_run => {
                tracing::error!(%error, "the configuration was not reloaded; the old one stays in force");
            }
            _ => {}
        }
        result
    }

    fn try_reload(&self, dry_run: bool) -> Result<Reloaded, ApiError> {
        let mut turn = self.turn.lock();
        let old = self.in_force.load_full();
        let (mut config, warnings) = load(&old.config.file)?;
        if old.config.log.level_by_flag {
            config.log.level = old.config.log.level;
            config.log.level_by_flag = true;
        }
        let mut changes = restarts(&old.config, &config);
        keep_what_needs_restart(&old.config, &mut config);
        let next = self.prepare(&old, &turn.prints, config)?;
        changes.extend(changed((&old.config, &turn.prints), &next));
        changes.sort_by(|one, two| (one.restart, &one.what).cmp(&(two.restart, &two.what)));
        let done = Reloaded {
            schema: SCHEMA,
            changed: changes.iter().any(|change| !change.restart),
            changes,
            warnings: warnings.iter().map(|it| it.message.clone()).collect(),
        };
        if !dry_run {
            self.put_in_force(&old, &mut turn, next)?;
        }
        Ok(done)
    }

    /// Builds everything that can fail to be built.
    fn prepare(&self, old: &InForce, before: &Prints, config: CheckedConfig) -> Result<Next, ApiError> {
        let invalid = |error: anyhow::Error| {
            ApiError::new(
                Code::ConfigInvalid,
                format!("{error:#}"),
                "nothing was changed; repair it and reload again",
            )
        };
        let prints = prints(&config);
        let made = config.repositories.iter().map(|repository| {
            let label = label_of(repository);
            let same = |made: &&Made| {
                made.config == *repository
                    && prints.get(&label) == before.get(&label)
                    && config.limits.fills_per_upstream == old.config.limits.fills_per_upstream
            };
            match old.made.iter().find(same) {
                Some(made) => Ok(made.clone()),
                None => build::make_repository(&config, repository, &self.parts),
            }
        });
        let made = made.collect::<anyhow::Result<Vec<_>>>().map_err(invalid)?;
        let tls = match (&self.tls, &config.server.tls) {
            (Some(_), Some(files)) => {
                build::read_tls(&config, files, &self.parts.clock, &self.parts.metrics).map_err(invalid)?;
                let (cert, key) = build::read_identity(files).map_err(invalid)?;
                Some((cert, key, build::read_client_ca(&config).map_err(invalid)?))
            }
            _ => None,
        };
        let admin_tls = match &self.admin_tls {
            Some(_) => build::read_admin_identity(&config.admin).map_err(invalid)?,
            None => None,
        };
        if let Some(identity) = &admin_tls {
            AdminTls::check(identity).map_err(|error| invalid(error.into()))?;
        }
        let access = build::read_access(&config.admin).map_err(invalid)?;
        let keys = control::read_keys(&config).map_err(invalid)?;
        Ok(Next { config, prints, made, access, tls, keys, admin_tls })
    }

    /// Nothing here is expected to fail: all of it was built before.
    fn put_in_force(&self, old: &InForce, turn: &mut Turn, next: Next) -> Result<(), ApiError> {
        let failed = |error: &dyn std::error::Error| {
            ApiError::new(
                Code::Failed,
                error.to_string(),
                "reload again; the files may be changing at this moment",
            )
        };
        if let (Some(tls), Some((cert, key, clients))) = (&self.tls, &next.tls) {
            tls.replace(cert, key, clients.as_deref()).map_err(|error| failed(&error))?;
        }
        if let (Some(tls), Some(identity)) = (&self.admin_tls, &next.admin_tls) {
            tls.replace(identity).map_err(|error| failed(&error))?;
        }
        if next.config.log.level != old.config.log.level
            && let Some(log) = &self.log
        {
            log.set(next.config.log.level.as_str()).map_err(|error| failed(&error))?;
        }
        if let Some(admin) = &turn.admin {
            admin.admit(next.access);
        }
        if let Some(control) = &self.control {
            control.admit(next.keys);
        }
        if let (Some(presence), Some(agents)) = (&turn.presence, &next.config.presence) {
            presence.rule(super::presence::rules(agents));
            self.plane.passers().want(agents.passive);
        }
        next.made.iter().for_each(|made| made.watch(&self.parts.metrics));
        self.plane.publish(Routes::new(next.made.iter().map(|made| Arc::clone(&made.repository)).collect()));
        self.in_force.store(Arc::new(InForce { config: Arc::new(next.config), made: next.made }));
        turn.prints = next.prints;
        Ok(())
    }
}

fn load(file: &Path) -> Result<(CheckedConfig, config::Diagnostics), ApiError> {
    config::load(file).map_err(|found| {
        let help =
            "the old configuration stays in force; repair the file (waypost config check) and reload again";
        ApiError::new(Code::ConfigInvalid, found.to_string(), help)
    })
}

fn label_of(repository: &RepositoryConfig) -> String {
    format!("repository {}", repository.name)
}

/// What the files that are named say at this moment.
fn prints(config: &CheckedConfig) -> Prints {
    let mut prints = Prints::new();
    let mut add = |label: &str, files: Vec<Option<Vec<u8>>>| {
        let mut hasher = Hasher::default();
        for file in files {
            let file = file.unwrap_or_default();
            hasher.update(&(file.len() as u64).to_le_bytes());
            hasher.update(&file);
        }
        prints.insert(label.to_owned(), hasher.finish());
    };
    let identity = |files: &Option<TlsFiles>| {
        files.iter().flat_map(|files| [read(&files.cert), secret(&files.key)]).collect::<Vec<_>>()
    };
    add("[server] tls", identity(&config.server.tls));
    let mut admin = identity(&config.admin.tls);
    admin.push(config.admin.client_ca.as_deref().and_then(read));
    add("[admin] tls", admin);
    add("[agents] client_ca", vec![config.agents.client_ca.as_deref().and_then(read)]);
    add("[agents] tokens", config.agents.tokens.iter().map(|token| secret(&token.secret)).collect());
    let nodes = config.control.iter().flat_map(|control| &control.tokens);
    add("[control] tokens", nodes.map(|token| secret(&token.secret)).collect());
    add("[admin] tokens", config.admin.tokens.iter().map(|token| secret(&token.secret)).collect());
    for repository in &config.repositories {
        if let Source::Upstreams(upstreams) = &repository.source {
            let mut files = identity(&upstreams.client_cert);
            files.push(upstreams.ca.as_deref().and_then(read));
            add(&label_of(repository), files);
        }
    }
    prints
}

fn read(path: &Path) -> Option<Vec<u8>> {
    std::fs::read(path).ok()
}

fn secret(secret: &Secret) -> Option<Vec<u8>> {
    secret.read().ok()
}

/// The keys that changed and wait for a restart.
fn restarts(old: &CheckedConfig, new: &CheckedConfig) -> Vec<Change> {
    let mut found = Vec::new();
    let mut note = |what: &str, differs: bool| {
        if differs {
            found.push(Change { what: what.to_owned(), how: "changed".to_owned(), restart: true });
        }
    };
    let (server, next) = (&old.server, &new.server);
    note("[server] listen", server.listen != next.listen);
    note("[server] plain_listen", server.plain_listen != next.plain_listen);
    note("[server] names", server.names != next.names);
    note("[server] node", server.node != next.node);
    note("[server] drain", server.drain != next.drain);
    note("[server] workers", server.workers != next.workers);
    note("[admin] socket", old.admin.socket != new.admin.socket);
    note("[admin] listen", old.admin.listen != new.admin.listen);
    let has_groups =
        |config: &CheckedConfig| config.admin.operators.is_some() || config.admin.viewers.is_some();
    // The first group changes the mode of the socket.
    note("[admin] operators, viewers", has_groups(old) != has_groups(new));
    note("[control]", without_tokens(old) != without_tokens(new));
    // Without either of the tables, nobody listens for agents.
    note("[agents]", old.presence.is_some() != new.presence.is_some());
    let place = |config: &CheckedConfig| {
        config.presence.as_ref().map(|presence| (presence.state_dir.clone(), presence.most))
    };
    note(
        "[agents] state_dir, max",
        old.presence.is_some() && new.presence.is_some() && place(old) != place(new),
    );
    let (cache, next) = (&old.cache, &new.cache);
    note("[cache] dir", cache.dir != next.dir);
    note("[cache] size", cache.size != next.size);
    note("[cache] memory", cache.memory != next.memory);
    note("[cache] min_free", cache.min_free != next.min_free);
    note("[cache] max_object", cache.max_object != next.max_object);
    let mut limits = old.limits.clone();
    limits.fills_per_upstream = new.limits.fills_per_upstream;
    note("[limits]", limits != new.limits);
    note("[log] format", old.log.format != new.log.format);
    note("[log] access", old.log.access != new.log.access);
    note("[log] access_format", old.log.access_format != new.log.access_format);
    note("[log] otlp", old.log.otlp != new.log.otlp);
    found
}

/// What of `[control]` only a restart changes.
fn without_tokens(config: &CheckedConfig) -> Option<ControlConfig> {
    config.control.clone().map(|control| ControlConfig { tokens: Vec::new(), ..control })
}

/// Until the restart, the old values stay true: the next reload has to name them again.
fn keep_what_needs_restart(old: &CheckedConfig, new: &mut CheckedConfig) {
    let tls = new.server.tls.take();
    new.server = old.server.clone();
    // Whether there is TLS at all goes with the addresses.
    new.server.tls = if old.server.tls.is_some() { tls.or_else(|| old.server.tls.clone()) } else { None };
    new.admin.socket.clone_from(&old.admin.socket);
    if old.admin.listen != new.admin.listen {
        new.admin.listen = old.admin.listen;
        new.admin.tls.clone_from(&old.admin.tls);
    }
    if without_tokens(old) != without_tokens(new) {
        new.control.clone_from(&old.control);
    }
    match (&old.presence, &mut new.presence) {
        (Some(old), Some(new)) => {
            new.state_dir.clone_from(&old.state_dir);
            new.most = old.most;
        }
        (old, new) => new.clone_from(old),
    }
    new.cache = old.cache.clone();
    let fills_per_upstream = new.limits.fills_per_upstream;
    new.limits = old.limits.clone();
    new.limits.fills_per_upstream = fills_per_upstream;
    let level = new.log.level;
    new.log = old.log.clone();
    new.log.level = level;
}

/// What changes at once.
fn changed((old, before): (&CheckedConfig, &Prints), next: &Next) -> Vec<Change> {
    let new = &next.config;
    let mut found = Vec::new();
    let mut note = |what: &str, how: &str| {
        found.push(Change { what: what.to_owned(), how: how.to_owned(), restart: false });
    };
    let prints_differ = |label: &str| before.get(label) != next.prints.get(label);
    if old.server.tls != new.server.tls || prints_differ("[server] tls") {
        note("[server] tls", "changed");
    }
    if old.agents.client_ca != new.agents.client_ca || prints_differ("[agents] client_ca") {
        note("[agents] client_ca", "changed");
    }
    if old.agents.tokens != new.agents.tokens || prints_differ("[agents] tokens") {
        note("[agents] tokens", "changed");
    }
    let tokens = |config: &CheckedConfig| config.control.as_ref().map(|control| control.tokens.clone());
    if tokens(old) != tokens(new) || prints_differ("[control] tokens") {
        note("[control] tokens", "changed");
    }
    if old.presence != new.presence {
        note("[agents] times and intervals", "changed");
    }
    let (admin, next_admin) = (&old.admin, &new.admin);
    let same_files = admin.tls == next_admin.tls && admin.client_ca == next_admin.client_ca;
    if !same_files || prints_differ("[admin] tls") {
        note("[admin] tls, client_ca", "changed");
    }
    if admin.tokens != next_admin.tokens || prints_differ("[admin] tokens") {
        note("[admin] tokens", "changed");
    }
    if admin.certificates != next_admin.certificates {
        note("[admin] certificates", "changed");
    }
    if admin.operators != next_admin.operators || admin.viewers != next_admin.viewers {
        note("[admin] operators, viewers", "changed");
    }
    if old.limits.fills_per_upstream != new.limits.fills_per_upstream {
        note("[limits] fills_per_upstream", "changed");
    }
    if old.log.level != new.log.level {
        note("[log] level", "changed");
    }
    for repository in &new.repositories {
        let label = label_of(repository);
        match old.repositories.iter().find(|it| it.name == repository.name) {
            None => note(&label, "added"),
            Some(before) if before != repository || prints_differ(&label) => note(&label, "changed"),
            Some(_) => {}
        }
    }
    for repository in &old.repositories {
        if !new.repositories.iter().any(|it| it.name == repository.name) {
            note(&label_of(repository), "removed");
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;

    fn config(dir: &Path, every: &str) -> CheckedConfig {
        let text = format!(
            "[server]\nplain_listen = \"127.0.0.1:0\"\n[cache]\ndir = \"cache\"\nsize = \"64MiB\"\nmemory = \"8MiB\"\n\
             [[repository]]\nname = \"o\"\npath = \"/o/\"\nchecksums = true\ncheck_every = \"{every}\"\n\
             upstreams = [\"http://127.0.0.1:9/o/\"]\n"
        );
        let file = dir.join("waypost.toml");
        std::fs::write(&file, text).unwrap();
        config::load(&file).unwrap().0
    }

    #[tokio::test]
    async fn a_reload_that_is_only_tried_watches_no_catalogue() {
        let dir = tempfile::tempdir().unwrap();
        let first = config(dir.path(), "1m");
        let built = build::build(&first, Clock::system()).unwrap();
        assert!(built.made.iter().all(|made| made.is_watched()));
        let made = (built.parts.clone(), Arc::clone(&built.plane), built.made.clone());
        let reloader = Reloader::new(&first, made, (None, None, None), None);
        let next = config(dir.path(), "2m");
        let (old, before) = (reloader.in_force.load_full(), reloader.turn.lock().prints.clone());
        let tried = reloader.prepare(&old, &before, next).unwrap();
        assert!(tried.made.iter().all(|made| !made.is_watched()), "nobody is asked because of it");
        assert!(reloader.reload(true).unwrap().changed);
        assert!(reloader.reload(false).unwrap().changed);
        let now = reloader.in_force.load_full();
        assert!(!now.made.is_empty() && now.made.iter().all(|made| made.is_watched()));
        built.store.close().await;
    }
}
