//! The agents of a node, from its configuration; what presence and the control side ask of each other; and reports to
//! the node above.

use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::control;
use super::editions::Editions;
use crate::base::clock::Clock;
use crate::config::{CheckedConfig, ControlConfig, ControlSource, PresenceConfig};
use crate::control::{AgentFacts, Control, Uplink};
use crate::fleet::{Facts, State, TreePath};
use crate::presence::{AgentId, Options, Outside, Presence, Relayed, Reported, Rules, Wanted};
use crate::protocol::agent_api::{CheckIn, PolicyNews, SitelistNews};
use crate::proxy::Passer;
use crate::server::{Bound, Phase, Totals};
use crate::telemetry::Metrics;

/// Where agents fetch their sitelist.
const SITELIST: &str = "/agent/v1/sitelist.xml";
/// Between two reports, and before one is tried again.
const REPORT_EVERY: Duration = Duration::from_secs(1);
const REPORT_AGAIN: Duration = Duration::from_secs(5);
/// Bytes of an answer to a report: each of its agents may have moved.
const ANSWER_BYTES: usize = 1 << 20;

/// The agents, where the configuration says anything about agents or nodes.
pub(super) fn open(
    config: &CheckedConfig,
    clock: &Clock,
    metrics: &Metrics,
    (bound, editions): (&Bound, &Arc<Editions>),
    control: Option<&Arc<Control>>,
) -> anyhow::Result<Option<Arc<Presence>>> {
    let (Some(agents), Some(control)) = (&config.presence, control) else { return Ok(None) };
    let is_below = |control: &ControlConfig| matches!(control.source, ControlSource::Upstream(_));
    let options = Options {
        node: config.server.node.clone(),
        dir: agents.state_dir.clone(),
        rules: rules(agents),
        reports: config.control.as_ref().is_some_and(is_below),
    };
    let control = Arc::clone(control);
    let editions = Arc::clone(editions);
    let house = House { totals: bound.totals(), most: config.limits.connections, control, editions };
    let presence = Presence::open(options, clock.clone(), metrics.agents.clone(), house)
        .context("cannot open what is known of agents; [agents] state_dir says where it is")?;
    let watched = Arc::downgrade(&presence);
    metrics.before_reading(move |_| {
        if let Some(presence) = watched.upgrade() {
            presence.count_behind();
        }
    });
    Ok(Some(presence))
}

/// The numbers of presence.
pub(super) fn rules(agents: &PresenceConfig) -> Rules {
    let count = |intervals: usize| u32::try_from(intervals).unwrap_or(u32::MAX);
    Rules {
        interval: agents.checkin_interval,
        ping_after: agents.ping_after,
        ping_timeout: agents.ping_timeout,
        session_timeout: agents.session_timeout,
        keep_offline: agents.keep_offline,
        keep_passive: agents.keep_passive,
        late_after: count(agents.late_after),
        offline_after: count(agents.offline_after),
        stalled_after: count(agents.stalled_after),
        most: agents.most,
    }
}

/// What goes on about agents by itself. Dropping it ends that.
pub(super) fn run(
    config: &CheckedConfig,
    presence: &Arc<Presence>,
    (passers, editions): (mpsc::Receiver<Passer>, Arc<Editions>),
    (control, phase): (&Control, watch::Receiver<Phase>),
) -> anyhow::Result<JoinSet<()>> {
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(presence).run(phase));
    tasks.spawn(editions.run());
    tasks.spawn(follow_passers(Arc::clone(presence), passers));
    control.know_agents(Arc::new(Told(Arc::downgrade(presence))));
    if let Some(fleet) = control.fleet() {
        tasks.spawn(follow_documents(Arc::clone(presence), fleet.news()));
    }
    if let Some(control) = &config.control
        && let ControlSource::Upstream(upstream) = &control.source
    {
        let uplink = control::uplink(config, control, upstream)?;
        tasks.spawn(report(Arc::clone(presence), uplink));
    }
    Ok(tasks)
}

/// Clients that do not check in are known from what they fetch.
async fn follow_passers(presence: Arc<Presence>, mut passers: mpsc::Receiver<Passer>) {
    while let Some(Passer { address, user_agent, took }) = passers.recv().await {
        presence.passed(address, &user_agent, took);
    }
}

/// Agents whose sitelist changes with the documents are told so.
async fn follow_documents(presence: Arc<Presence>, mut news: watch::Receiver<u64>) {
    loop {
        let known = Arc::clone(&presence);
        // A sitelist for each agent that is here: some seconds of computing for ten thousand.
        let _ = tokio::task::spawn_blocking(move || known.documents_changed()).await;
        if news.changed().await.is_err() {
            return;
        }
    }
}

/// Tells the node above what has become of agents, until it has acknowledged it.
async fn report(presence: Arc<Presence>, uplink: Uplink) {
    loop {
        let pause = match report_once(&presence, &uplink).await {
            Ok(true) => continue,
            Ok(false) => REPORT_EVERY,
            Err(error) => {
                tracing::debug!(%error, "a report was not acknowledged");
                uplink.spread(REPORT_AGAIN)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Sends what there is to tell, up to one report; whether there was anything.
async fn report_once(presence: &Arc<Presence>, uplink: &Uplink) -> Result<bool, String> {
    let Some(report) = presence.next_report().await? else { return Ok(false) };
    let body = serde_json::to_vec(&report).map_err(|error| error.to_string())?;
    let request = Request::builder().method(Method::POST).uri("/node/v1/reports");
    let reply = uplink.ask(request, Bytes::from(body), None, ANSWER_BYTES).await;
    let reply = reply.map_err(|error| error.to_string())?;
    if reply.status() != StatusCode::OK {
        return Err(format!("{} answers {}", uplink.url(), reply.status()));
    }
    let reported: Reported = serde_json::from_slice(reply.body()).map_err(|error| error.to_string())?;
    if reported.acknowledged != report.last {
        return Err("another report was acknowledged".to_owned());
    }
    presence.report_answered(reported).await?;
    Ok(true)
}

/// What an agent has said of itself, for the control side.
fn facts_of(id: &AgentId, told: &CheckIn, from: Option<IpAddr>) -> Facts {
    let properties = &told.properties;
    let mut facts = Facts::of(id.clone());
    facts.tree = properties.tree.as_deref().and_then(|tree| TreePath::parse(tree).ok());
    facts.tags.clone_from(&properties.tags);
    facts.addresses.clone_from(&properties.addresses);
    if facts.addresses.is_empty() {
        facts.addresses.extend(from);
    }
    facts
}

/// What agents have said of themselves. Weak: presence asks the control side as well.
struct Told(Weak<Presence>);

impl AgentFacts for Told {
    fn facts(&self, id: &AgentId) -> Option<Facts> {
        self.0.upgrade()?.agent(id).map(|agent| facts_of(id, &agent.told, None))
    }
}

/// The rest of the node.
struct House {
    totals: Arc<Totals>,
    most: usize,
    control: Arc<Control>,
    editions: Arc<Editions>,
}

impl Outside for House {
    fn wanted(&self, id: &AgentId, told: &CheckIn, from: Option<IpAddr>) -> Wanted {
        let Some(fleet) = self.control.fleet() else { return Wanted::default() };
        let facts = facts_of(id, told, from);
        let sitelist = fleet.sitelist(&facts);
        let policies = fleet.policies(&facts).map(|manifest| {
            let news = |entry: crate::fleet::ManifestEntry| PolicyNews {
                category: entry.category,
                name: entry.name,
                sha256: entry.sha256.to_string(),
            };
            manifest.entries.into_iter().map(news).collect()
        });
        let sitelist = sitelist.map(|sheet| SitelistNews { etag: sheet.tag, url: SITELIST.to_owned() });
        Wanted { sitelist, policies }
    }

    fn handlers_of(&self, group: &str) -> Vec<String> {
        self.control.fleet().map(|fleet| fleet.nodes_of(group)).unwrap_or_default()
    }

    /// The part of the connections that are in use.
    fn load(&self) -> f64 {
        self.totals.open() as f64 / self.most as f64
    }

    fn is_draining(&self) -> bool {
        let state = || {
            let fleet = self.control.fleet()?;
            fleet.snapshot()?.fleet.handler(fleet.name()).map(|handler| handler.state)
        };
        state().is_some_and(|state| state != State::Active)
    }

    fn relay_wake(&self, handler: &str, wake: Relayed) {
        let (Some(fleet), Ok(ask)) = (self.control.fleet(), serde_json::to_value(&wake)) else { return };
        let nodes = vec![handler.to_owned()];
        // Giving a command writes it down.
        drop(tokio::task::spawn_blocking(move || fleet.give("wake", ask, nodes)));
    }

    fn relay_forget(&self, handler: &str, agents: Vec<AgentId>) {
        let (Some(fleet), Ok(ask)) = (self.control.fleet(), serde_json::to_value(&agents)) else { return };
        let nodes = vec![handler.to_owned()];
        drop(tokio::task::spawn_blocking(move || fleet.give("forget", ask, nodes)));
    }

    fn versions(&self, catalogue: &str) -> Vec<String> {
        self.editions.versions(catalogue)
    }
}
