//! The plane itself: events come in, what they bring about is done.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::AgentId;
use super::agent::Agent;
use super::behind::{has_policies, lacks};
use super::hands::Hands;
use super::ledger::{Durable, Ledger, LedgerError, OpenError, Row};
use super::outbox::{Outbox, Say};
use super::outside::Outside;
use super::passive::identify;
use super::probe::Probes;
use super::registry::{Effect, Refused, Registry};
use super::state::{Cause, Rules, State};
use super::wake::{WakeOrder, Wakes};
use crate::base::clock::{Clock, Timestamp};
use crate::fleet::TreePath;
use crate::protocol::agent_api::{Action, ActionKind, CheckIn, CheckedIn, Contact, Message, Poll, Polled};
use crate::server::Phase;
use crate::telemetry::AgentMetrics;

/// How often the hands are turned: every deadline is of seconds.
const TURN: Duration = Duration::from_millis(250);
/// How long a poll is held: under what middleboxes cut, under half of the session's timeout.
const HELD: Duration = Duration::from_secs(25);
/// The part of the interval by which check-ins are spread.
const JITTER: f64 = 0.1;

/// What an administrator may turn.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node's name.
    pub node: String,
    /// Where the agents' state is kept.
    pub dir: PathBuf,
    /// The numbers of presence.
    pub rules: Rules,
    /// Whether a node above is told what becomes of agents.
    pub reports: bool,
}

/// Why a request of an agent is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its check-in is not newer than what is known.
    Old(u64),
    /// The table is full.
    Full,
    /// The disk does not keep up, or refuses.
    Disk,
}

/// The way to an agent.
struct Link {
    number: u64,
    outbox: Arc<Outbox>,
}

pub(super) struct Inner {
    pub(super) registry: Registry,
    pub(super) wakes: Wakes,
    links: HashMap<AgentId, Link>,
    /// Changed, and not on its way to the ledger yet.
    unwritten: HashSet<AgentId>,
    /// Forgotten, and not on its way to the ledger yet.
    forgotten: Vec<Row>,
    numbers: u64,
    /// What was taken last from each node below.
    pub(super) nodes: HashMap<String, (u64, u64)>,
}

/// The agents of a node.
pub struct Presence {
    pub(super) options: Options,
    pub(super) clock: Hands,
    pub(super) metrics: AgentMetrics,
    pub(super) outside: Box<dyn Outside>,
    pub(super) ledger: Ledger,
    pub(super) inner: Mutex<Inner>,
    pub(super) probes: Probes,
    draining: AtomicBool,
}

impl std::fmt::Debug for Presence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presence").field("node", &self.options.node).finish_non_exhaustive()
    }
}

impl Presence {
    /// Opens the state in `options.dir`. Who was connected when the node ended is grey now.
    ///
    /// # Errors
    /// [`OpenError`]: the directory cannot be used.
    pub fn open(
        options: Options,
        clock: Clock,
        metrics: AgentMetrics,
        outside: impl Outside,
    ) -> Result<Arc<Self>, OpenError> {
        let (ledger, found) = Ledger::open(&options.dir)?;
        let clock = Hands::new(clock);
        let now = clock.now();
        let mut registry = Registry::new(options.rules.clone());
        found.agents.into_iter().for_each(|agent| registry.restore(agent, now));
        let mut wakes = Wakes::default();
        for json in found.wakes {
            if let Ok(mut order) = serde_json::from_slice::<WakeOrder>(&json) {
                // The clock may have been set back meanwhile.
                order.started = order.started.min(now);
                wakes.begin(order, |id| registry.agent(id).map_or(Timestamp(0), |agent| agent.checked_in));
            }
        }
        let inner = Inner {
            registry,
            wakes,
            links: HashMap::new(),
            unwritten: HashSet::new(),
            forgotten: Vec::new(),
            numbers: 0,
            nodes: found.nodes.into_iter().collect(),
        };
        let presence = Self {
            probes: Probes::default(),
            draining: AtomicBool::new(false),
            options,
            clock,
            metrics,
            outside: Box::new(outside),
            ledger,
            inner: Mutex::new(inner),
        };
        Ok(Arc::new(presence))
    }

    /// Turns the hands until it is dropped. When the node begins to end, agents are told so.
    pub async fn run(self: Arc<Self>, mut phase: watch::Receiver<Phase>) {
        let mut turns = tokio::time::interval(TURN);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = turns.tick() => self.turn(),
                _ = phase.wait_for(|phase| *phase != Phase::Run), if !self.is_draining() => {
                    self.draining.store(true, Ordering::Relaxed);
                    self.say_shutdown();
                }
            }
        }
    }

    /// Whether agents should go elsewhere.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Writes down what has changed, and lets go of the file. Nothing can be acknowledged any more.
    pub async fn close(self: &Arc<Self>) {
        self.turn();
        let presence = Arc::clone(self);
        let _ = tokio::task::spawn_blocking(move || presence.ledger.close()).await;
    }

    /// Does what is due, and writes down what has changed.
    pub fn turn(&self) {
        let mut inner = self.inner.lock();
        if let Some(by) = self.clock.follow() {
            self.jump(&mut inner, by);
        }
        let now = self.clock.now();
        let effects = inner.registry.advance(now);
        self.bring_about(&mut inner, effects);
        let told = {
            let Inner { wakes, links, .. } = &mut *inner;
            wakes.advance(now, |id| links.contains_key(id))
        };
        for (id, wake) in told {
            if let Some(link) = inner.links.get(&id) {
                link.outbox.push(Say::Message(Message::Wake { id: wake }));
            }
        }
        let rows = rows(&mut inner);
        for (state, contact, count) in inner.registry.counts() {
            self.metrics.agents(state.as_str(), contact.as_str()).set(count);
        }
        self.keep(&mut inner, rows);
    }

    /// The wall clock was set: what is known keeps its age.
    fn jump(&self, inner: &mut Inner, by: i64) {
        tracing::warn!(milliseconds = by, "the clock was set; the times of agents follow it");
        inner.registry.jump(by);
        let rows = inner.wakes.jump(by);
        let rows =
            rows.map(|order| Row::Wake(order.id, serde_json::to_vec(order).unwrap_or_default())).collect();
        self.keep(inner, rows);
    }

    /// Has rows written behind, under the lock, so that rows of one agent keep their order. What finds no room is tried
    /// again at the next turn.
    pub(super) fn keep(&self, inner: &mut Inner, rows: Vec<Row>) {
        let id = |row: &Row| if let Row::Agent(agent) = row { Some(agent.id.clone()) } else { None };
        let again: Vec<AgentId> = rows.iter().filter_map(id).collect();
        let is_end = |row: &&Row| matches!(row, Row::Forget(_) | Row::Forgotten(..));
        let ends: Vec<Row> = rows.iter().filter(is_end).cloned().collect();
        if !self.ledger.post(rows) {
            inner.unwritten.extend(again);
            inner.forgotten.extend(ends);
        }
    }

    /// Does what came of an event.
    pub(super) fn bring_about(&self, inner: &mut Inner, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Ping(id, number) => inner.say(&id, number, Say::Ping),
                Effect::Close(id, number) => {
                    inner.say(&id, number, Say::Close);
                    if inner.links.get(&id).is_some_and(|link| link.number == number) {
                        inner.links.remove(&id);
                    }
                }
                Effect::Changed(id) => drop(inner.unwritten.insert(id)),
                Effect::Ended(cause, after) => {
                    self.metrics.disconnects.of(cause.as_str()).inc();
                    self.metrics.detected(Duration::from_millis(after));
                }
            }
        }
        let dropped = inner.registry.take_dropped();
        inner.forgotten.extend(dropped.into_iter().map(Row::Forget));
    }

    /// An agent checks in. What it said is on disk when this returns.
    pub(super) async fn check_in(
        &self,
        id: &AgentId,
        mut told: CheckIn,
        (from, within): (Option<IpAddr>, Option<&TreePath>),
    ) -> Result<CheckedIn, Refusal> {
        if let Some(within) = within {
            // Its token is good for a part of the tree: it is not believed to be elsewhere.
            let said = told.properties.tree.as_deref().and_then(|said| TreePath::parse(said).ok());
            let place = said.filter(|said| said.is_within(within));
            told.properties.tree = Some(place.as_ref().unwrap_or(within).to_string());
        }
        if told.properties.addresses.is_empty() {
            // What its handlers depend on is the same for everybody who is asked about it later.
            told.properties.addresses.extend(from);
        }
        let acknowledged = told.sequence;
        let (written, told, actions) = {
            let mut inner = self.inner.lock();
            let now = self.clock.now();
            let effects = inner.registry.check_in(id, told, now).map_err(|refused| match refused {
                Refused::Old { expected } => Refusal::Old(expected),
                Refused::Full => Refusal::Full,
            })?;
            self.bring_about(&mut inner, effects);
            inner.unwritten.remove(id);
            let Some(agent) = inner.registry.agent(id).cloned() else { return Err(Refusal::Full) };
            let told = agent.told.clone();
            let written = self.ledger.write(vec![Row::Agent(Box::new(agent))]);
            if written.is_err() {
                inner.unwritten.insert(id.clone());
            }
            (written, told, inner.wakes.answered(id, now))
        };
        durable(written).await?;
        let wanted = self.outside.wanted(id, &told, from);
        self.inner.lock().registry.lacks(id, acknowledged, lacks(&told, &wanted));
        Ok(CheckedIn {
            acknowledged,
            sitelist: wanted.sitelist.filter(|news| Some(&news.etag) != told.sitelist.as_ref()),
            policies: wanted.policies.filter(|news| !has_policies(&told, news)),
            next_checkin_s: self.next_check_in(),
            actions: actions.into_iter().map(|id| Action { id, kind: ActionKind::Wake }).collect(),
        })
    }

    /// Seconds until the next check-in: the interval, spread so that no herd forms.
    fn next_check_in(&self) -> u64 {
        let interval = self.inner.lock().registry.rules().interval;
        let spread = 1.0 + JITTER * (2.0 * chance() - 1.0);
        interval.mul_f64(spread).as_secs().max(1)
    }

    /// Opens a stream or tunnel. What waits to be said to the agent comes out of the outbox.
    pub(super) fn open_link(&self, id: &AgentId, contact: Contact) -> Result<(u64, Arc<Outbox>), Refusal> {
        let mut inner = self.inner.lock();
        let now = self.clock.now();
        inner.numbers += 1;
        let number = inner.numbers;
        let effects = inner.registry.open(id, contact, number, now).map_err(|_| Refusal::Full)?;
        self.bring_about(&mut inner, effects);
        let outbox = Arc::new(Outbox::default());
        inner.links.insert(id.clone(), Link { number, outbox: Arc::clone(&outbox) });
        inner.wakes.opened(id, now);
        Ok((number, outbox))
    }

    /// Something arrived on a link.
    pub(super) fn heard(&self, id: &AgentId, number: u64) {
        self.metrics.responses.inc();
        self.answered(id, number);
    }

    fn answered(&self, id: &AgentId, number: u64) {
        let mut inner = self.inner.lock();
        inner.registry.heard(id, number, self.clock.now());
    }

    /// A link has ended.
    pub(super) fn close_link(&self, id: &AgentId, number: u64, cause: Cause) {
        let mut inner = self.inner.lock();
        if inner.links.get(id).is_some_and(|link| link.number == number) {
            inner.links.remove(id);
        }
        let effects = inner.registry.close(id, number, cause, self.clock.now());
        self.bring_about(&mut inner, effects);
    }

    /// One poll of a tunnel: held until there is something to say.
    pub(super) async fn poll(&self, id: &AgentId, poll: Poll) -> Result<Polled, Refusal> {
        let (number, outbox) = self.tunnel(id)?;
        self.heard(id, number);
        // Its end without a message is an answer, too.
        let _ = tokio::time::timeout(HELD, outbox.rung()).await;
        let (messages, _) = outbox.drain(poll.seen);
        self.answered(id, number);
        Ok(Polled { messages })
    }

    /// The tunnel that is open, or a new one.
    fn tunnel(&self, id: &AgentId) -> Result<(u64, Arc<Outbox>), Refusal> {
        {
            let inner = self.inner.lock();
            let agent = inner.registry.agent(id);
            let open = agent.and_then(|agent| agent.link).filter(|link| link.contact == Contact::Tunnel);
            if let (Some(_), Some(link)) = (open, inner.links.get(id)) {
                return Ok((link.number, Arc::clone(&link.outbox)));
            }
        }
        self.open_link(id, Contact::Tunnel)
    }

    /// An agent says goodbye.
    pub(super) fn bye(&self, id: &AgentId) {
        let mut inner = self.inner.lock();
        let effects = inner.registry.bye(id, self.clock.now());
        self.bring_about(&mut inner, effects);
    }

    /// Update traffic from `address` of somebody that calls itself `user_agent`; `took` is a catalogue, and the version of
    /// it that it was given.
    pub fn passed(&self, address: IpAddr, user_agent: &str, took: Option<(String, String)>) {
        let Some(who) = identify(user_agent, address) else { return };
        let mut inner = self.inner.lock();
        let effects = inner.registry.passed(who, took, self.clock.now());
        self.bring_about(&mut inner, effects);
    }

    /// Tells every agent with a stream or tunnel that the node is going away.
    fn say_shutdown(&self) {
        let linked: Vec<AgentId> = self.inner.lock().links.keys().cloned().collect();
        linked.iter().for_each(|id| self.say(id, Message::Shutdown));
    }

    pub(super) fn say(&self, id: &AgentId, message: Message) {
        if let Some(link) = self.inner.lock().links.get(id) {
            link.outbox.push(Say::Message(message));
        }
    }

    /// All agents that `wanted` says yes to, by id.
    pub fn agents(&self, wanted: impl Fn(&Agent) -> bool) -> Vec<Agent> {
        let mut all: Vec<Agent> =
            self.inner.lock().registry.agents().filter(|agent| wanted(agent)).cloned().collect();
        all.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        all
    }

    /// One agent.
    pub fn agent(&self, id: &AgentId) -> Option<Agent> {
        self.inner.lock().registry.agent(id).cloned()
    }

    /// The handlers of a group, or the one of this name; none where nothing is called so.
    pub fn handlers_of(&self, group: &str) -> Vec<String> {
        self.outside.handlers_of(group)
    }

    /// Forgets agents, here, at the nodes above, and at the nodes below that they talk to; how many were known.
    pub fn forget(&self, ids: &[AgentId]) -> usize {
        let mut elsewhere: HashMap<String, Vec<AgentId>> = HashMap::new();
        let mut known = 0;
        {
            let mut inner = self.inner.lock();
            for id in ids {
                let handler = inner.registry.agent(id).and_then(|agent| agent.handler.clone());
                let Some(row) = self.drop_agent(&mut inner, id) else { continue };
                known += 1;
                inner.forgotten.push(row);
                if let Some(handler) = handler {
                    elsewhere.entry(handler).or_default().push(id.clone());
                }
            }
        }
        for (handler, agents) in elsewhere {
            self.outside.relay_forget(&handler, agents);
        }
        known
    }

    /// Takes an agent out of the table; what has to be written down of that, where it was there.
    pub(super) fn drop_agent(&self, inner: &mut Inner, id: &AgentId) -> Option<Row> {
        let handler = inner.registry.agent(id)?.handler.clone();
        let (_, effects) = inner.registry.forget(id);
        self.bring_about(inner, effects);
        inner.unwritten.remove(id);
        let id = id.clone();
        Some(if self.options.reports { Row::Forgotten(id, handler) } else { Row::Forget(id) })
    }

    /// Does what a node above has ordered: forgets the agents in `ask`, those of them that are known.
    ///
    /// # Errors
    /// The order is not understood.
    pub fn forget_ordered(&self, ask: &serde_json::Value) -> Result<String, String> {
        let ids: Vec<AgentId> = serde_json::from_value(ask.clone()).map_err(|error| error.to_string())?;
        Ok(format!("{} agents", self.forget(&ids)))
    }

    /// Other numbers are in force from now on.
    pub fn rule(&self, rules: Rules) {
        self.inner.lock().registry.rule(rules);
    }

    /// How many agents stand where.
    pub fn counts(&self) -> Vec<(State, Contact, u64)> {
        self.inner.lock().registry.counts().filter(|(_, _, count)| *count > 0).collect()
    }
}

impl Inner {
    /// What there is of this agent is on its way to the ledger.
    pub(super) fn written(&mut self, id: &AgentId) {
        self.unwritten.remove(id);
    }

    fn say(&self, id: &AgentId, number: u64, say: Say) {
        if let Some(link) = self.links.get(id).filter(|link| link.number == number) {
            link.outbox.push(say);
        }
    }
}

async fn durable(written: Result<Durable, LedgerError>) -> Result<(), Refusal> {
    let done = match written {
        Ok(written) => written.wait().await,
        Err(error) => Err(error),
    };
    done.map_err(|error| {
        tracing::warn!(%error, "a check-in is not acknowledged");
        Refusal::Disk
    })
}

/// What has changed and is not on its way to the ledger yet.
fn rows(inner: &mut Inner) -> Vec<Row> {
    let mut rows = std::mem::take(&mut inner.forgotten);
    // One that has come again since is on its way to the ledger already, in front of these.
    rows.retain(|row| match row {
        Row::Forget(id) | Row::Forgotten(id, _) => inner.registry.agent(id).is_none(),
        _ => true,
    });
    let unwritten = std::mem::take(&mut inner.unwritten);
    let agents = unwritten.iter().filter_map(|id| inner.registry.agent(id));
    rows.extend(agents.map(|agent| Row::Agent(Box::new(agent.clone()))));
    rows
}

/// A number from 0 to 1; the middle where there is no randomness.
fn chance() -> f64 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}
