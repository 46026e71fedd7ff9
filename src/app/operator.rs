//! What the node does for its operators: each question goes to the part that knows.

use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};

use super::fleet_view::FleetView;
use super::jobs::Jobs;
use super::reload::Reloader;
use super::status::NodeStatus;
use super::{control, explain, fault, locate, verify, warm};
use crate::admin::agents_api::{AgentRow, Agents, AgentsAsk, AgentsReached, ForgetAsk, WakeAsk, WakeTold};
use crate::admin::api::{
    Change, Done, Entries, EntriesAsk, EntryRow, Explanation, Job, PinAsk, PurgeAsk, Reached, Reloaded,
    SCHEMA, TailAsk, VerifyAsk, WarmAsk,
};
use crate::admin::documents::DocumentsOperator;
use crate::admin::{ApiError, Code, Operator, Soon};
use crate::base::clock::Clock;
use crate::cache::purge::Purge;
use crate::cache::{Key, Record};
use crate::control::FleetSide;
use crate::fill::Fills;
use crate::proxy::Plane;
use crate::repository::pattern::Patterns;
use crate::server::Phase;
use crate::store::{Counted, Store};
use crate::telemetry::{AccessLog, Exposition};

/// Entries of one answer, where nothing is said, and at most.
const LISTED: usize = 1_000;
const MOST_LISTED: usize = 10_000;
/// Lines that may wait for somebody who follows requests.
const FOLLOWED: usize = 256;
/// So much later a request is surely after a purge, by the clock's milliseconds.
const TICK: Duration = Duration::from_millis(2);

/// The node as its operators see it.
pub(super) struct NodeOperator {
    pub(super) me: Weak<Self>,
    pub(super) plane: Arc<Plane>,
    pub(super) store: Store,
    pub(super) fills: Fills,
    pub(super) clock: Clock,
    pub(super) status: NodeStatus,
    pub(super) access: AccessLog,
    pub(super) jobs: Jobs,
    pub(super) reloader: Arc<Reloader>,
    pub(super) fleet: Option<FleetSide>,
    pub(super) phase: watch::Receiver<Phase>,
    /// The agents.
    pub(super) view: FleetView,
}

impl NodeOperator {
    fn me(&self) -> Result<Arc<Self>, ApiError> {
        self.me.upgrade().ok_or_else(|| ApiError::new(Code::Busy, "the node is ending", "start it again"))
    }

    async fn purge_now(&self, ask: PurgeAsk) -> Result<Reached, ApiError> {
        let patterns = match (ask.all, ask.patterns.is_empty()) {
            (true, true) => None,
            (true, false) => {
                return Err(fault::bad("`all` and patterns contradict each other", "leave one of them out"));
            }
            (false, true) if ask.older_than.is_some() => None,
            (false, _) => Some(fault::patterns(&ask.patterns)?),
        };
        let now = self.clock.now();
        let by_age = ask.older_than.is_some();
        let age = Duration::from_secs(ask.older_than.unwrap_or(0));
        let before = crate::base::clock::Timestamp(
            now.0.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        );
        let purge = Purge::new(patterns, ask.soft, before);
        if ask.dry_run {
            return Ok(reached(self.store.count(purge).await, 0, false));
        }
        let counted = self.store.purge(purge.clone()).await.map_err(|error| fault::purge(&error))?;
        // What runs now is younger than any age.
        let fills = if by_age { 0 } else { self.fills.purge(&purge) };
        if !ask.soft && !by_age {
            for (_, catalogues) in self.reloader.catalogues() {
                catalogues.forget(|key| purge.matches(key.as_str()));
            }
        }
        tokio::time::sleep(TICK).await;
        let changed = counted.entries > 0 || fills > 0;
        tracing::info!(entries = counted.entries, bytes = counted.bytes, fills, soft = ask.soft, "purged");
        Ok(reached(counted, fills as u64, changed))
    }

    /// Documents and configuration are both tried before one of them is changed.
    async fn reload_now(&self, dry_run: bool) -> Result<Reloaded, ApiError> {
        if !dry_run && self.configure(true).await.is_err() {
            // In earnest, so that log and metrics have it.
            self.configure(false).await?;
        }
        let is_new = self.look_at_documents(dry_run).await?;
        let mut reloaded = self.configure(dry_run).await?;
        if is_new {
            let what = "[control] directory".to_owned();
            reloaded.changes.push(Change { what, how: "new documents".to_owned(), restart: false });
            reloaded.changed = true;
        }
        Ok(reloaded)
    }

    async fn configure(&self, dry_run: bool) -> Result<Reloaded, ApiError> {
        let reloader = Arc::clone(&self.reloader);
        let reloaded = tokio::task::spawn_blocking(move || reloader.reload(dry_run)).await;
        reloaded.map_err(|_| ApiError::new(Code::Failed, "the reload broke off", "report this defect"))?
    }

    async fn list(&self, ask: EntriesAsk) -> Result<Entries, ApiError> {
        let most = ask.limit.unwrap_or(LISTED);
        if !(1..=MOST_LISTED).contains(&most) {
            return Err(fault::bad("`limit` is out of range", format!("allowed: 1 to {MOST_LISTED}")));
        }
        let patterns = ask.pattern.map(|pattern| fault::patterns(&[pattern])).transpose()?.map(Arc::new);
        let listed = self.store.list(ask.after, patterns, most).await;
        let entries = listed.records.iter().map(|(key, record)| row(key, record)).collect();
        Ok(Entries { schema: SCHEMA, entries, next: listed.next })
    }

    async fn pin_now(&self, ask: PinAsk) -> Result<Reached, ApiError> {
        let patterns = Arc::new(fault::patterns(&ask.patterns)?);
        let mut done = Counted::default();
        let mut after = None;
        loop {
            let listed = self.store.list(after.take(), Some(Arc::clone(&patterns)), LISTED).await;
            for (key, record) in &listed.records {
                if record.pinned != ask.pinned && self.store.pin(key, ask.pinned).await {
                    done.entries += 1;
                    done.bytes += record.length.unwrap_or(0);
                    if done.first.len() < 20 {
                        done.first.push(key.as_str().to_owned());
                    }
                }
            }
            match listed.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let changed = done.entries > 0;
        Ok(reached(done, 0, changed))
    }
}

fn reached(counted: Counted, fills: u64, changed: bool) -> Reached {
    let Counted { entries, bytes, first } = counted;
    Reached { schema: SCHEMA, changed, entries, bytes, first, fills }
}

fn row(key: &Key, record: &Record) -> EntryRow {
    EntryRow {
        key: key.as_str().to_owned(),
        bytes: record.length.unwrap_or(0),
        received: record.head.received_at.0 / 1_000,
        stale: record.stale,
        pinned: record.pinned,
        sha256: record.digest.map(|digest| digest.to_string()).unwrap_or_default(),
    }
}

/// Whether somebody who follows wants this line.
fn is_wanted(line: &str, ask: &TailAsk, patterns: Option<&Patterns>) -> bool {
    let Ok(line) = serde_json::from_str::<Value>(line) else { return false };
    let word = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let status = line.get("status").and_then(Value::as_u64).unwrap_or(0);
    let failed = status >= 400 || line.get("complete") == Some(&Value::Bool(false));
    let missed = !matches!(word("result").as_str(), "hit" | "stale" | "error");
    let target = word("target");
    let path = target.split('?').next().unwrap_or_default();
    (!(ask.misses || ask.errors) || (ask.misses && missed) || (ask.errors && failed))
        && patterns.is_none_or(|patterns| patterns.matches(path))
}

impl Operator for NodeOperator {
    fn ready(&self) -> Result<(), String> {
        match *self.phase.borrow() {
            Phase::Run => Ok(()),
            Phase::Drain | Phase::Stop => Err("draining".to_owned()),
        }
    }

    fn metrics(&self, exposition: Exposition) -> String {
        self.status.metrics(exposition, &self.reloader.sources())
    }

    fn status(&self) -> Value {
        let mut status = self.status.status(&self.reloader.sources(), &self.reloader.catalogues());
        if let (Some(fleet), Some(fields)) = (&self.fleet, status.as_object_mut()) {
            fields.insert("control".to_owned(), control::status(fleet));
        }
        status
    }

    fn fills(&self) -> Value {
        json!({ "schema": SCHEMA, "fills": self.status.fills() })
    }

    fn explain<'a>(&'a self, url: &'a str) -> Soon<'a, Explanation> {
        Box::pin(explain::explain(self, url))
    }

    fn cancel_fill<'a>(&'a self, url: &'a str) -> Soon<'a, Done> {
        Box::pin(async move {
            let place = locate::locate(&self.plane.routes(), url)?;
            if self.fills.cancel(&place.key) {
                return Ok(Done::CHANGED);
            }
            Err(ApiError::not_found(
                format!("{} is not being fetched", place.path),
                "waypost fills ls lists what is",
            ))
        })
    }

    fn entries(&self, ask: EntriesAsk) -> Soon<'_, Entries> {
        Box::pin(self.list(ask))
    }

    fn purge(&self, ask: PurgeAsk) -> Soon<'_, Reached> {
        Box::pin(self.purge_now(ask))
    }

    fn pin(&self, ask: PinAsk) -> Soon<'_, Reached> {
        Box::pin(self.pin_now(ask))
    }

    fn collect(&self, dry_run: bool) -> Soon<'_, Reached> {
        Box::pin(async move {
            let (blocks, bytes) = self.store.collect(dry_run).await;
            let counted = Counted { entries: blocks, bytes, first: Vec::new() };
            Ok(reached(counted, 0, blocks > 0 && !dry_run))
        })
    }

    fn warm(&self, ask: WarmAsk) -> Soon<'_, Job> {
        Box::pin(async move { warm::begin(&self.me()?, ask).await })
    }

    fn verify(&self, ask: VerifyAsk) -> Soon<'_, Job> {
        Box::pin(async move { verify::begin(&self.me()?, &ask) })
    }

    fn jobs(&self) -> Vec<Job> {
        self.jobs.all()
    }

    fn job(&self, id: u64) -> Option<Job> {
        self.jobs.told(id)
    }

    fn cancel_job(&self, id: u64) -> Result<Done, ApiError> {
        self.jobs.cancel(id)
    }

    fn reload(&self, dry_run: bool) -> Soon<'_, Reloaded> {
        Box::pin(self.reload_now(dry_run))
    }

    fn documents(&self) -> Result<&dyn DocumentsOperator, ApiError> {
        self.fleet().map(|_| self as &dyn DocumentsOperator)
    }

    fn log_level(&self, level: &str) -> Result<Done, ApiError> {
        self.reloader.log_level(level).map(|()| Done::CHANGED)
    }

    fn agents(&self, ask: AgentsAsk) -> Result<Agents, ApiError> {
        self.view.agents(&ask)
    }

    fn agent(&self, id: &str) -> Result<AgentRow, ApiError> {
        self.view.agent(id)
    }

    fn wake(&self, ask: WakeAsk) -> Result<WakeTold, ApiError> {
        self.view.wake(ask)
    }

    fn wake_told(&self, id: u64) -> Result<WakeTold, ApiError> {
        self.view.wake_told(id)
    }

    fn abort_wake(&self, id: u64) -> Result<Done, ApiError> {
        self.view.abort_wake(id)
    }

    fn forget(&self, ask: ForgetAsk) -> Result<AgentsReached, ApiError> {
        self.view.forget(&ask)
    }

    fn tail(&self, ask: TailAsk) -> Result<mpsc::Receiver<String>, ApiError> {
        let patterns = ask.pattern.clone().map(|pattern| fault::patterns(&[pattern])).transpose()?;
        let mut lines = self.access.follow();
        let (send, receive) = mpsc::channel(FOLLOWED);
        let mut phase = self.phase.clone();
        tokio::spawn(async move {
            loop {
                let line = tokio::select! {
                    line = lines.recv() => line,
                    () = send.closed() => return,
                    _ = phase.wait_for(|phase| *phase == Phase::Stop) => return,
                };
                let line = match line {
                    Ok(line) if is_wanted(&line, &ask, patterns.as_ref()) => line.to_string(),
                    Ok(_) => continue,
                    Err(RecvError::Lagged(missed)) => format!("{{\"missed\":{missed}}}\n"),
                    Err(RecvError::Closed) => return,
                };
                if send.send(line).await.is_err() {
                    return;
                }
            }
        });
        Ok(receive)
    }
}
