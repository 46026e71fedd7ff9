//! The control plane: where the fleet's documents come from, who may ask for them, and what nodes are told to do.
//!
//! The authority reads them from a directory (`authority`), every other node follows one (`mirror`); both put them in
//! force on one board, from which agents and nodes below are answered whatever becomes of the way up.

mod agents;
mod authority;
mod board;
mod bundle;
mod commands;
mod disk;
mod identity;
mod inbox;
mod mirror;
mod nodes;
mod reply;
mod uplink;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::base::clock::Clock;
use crate::base::limits::HELD_QUESTIONS;
use crate::fleet::{AgentId, Facts, Manifest, State};
use crate::protocol::caller::Caller;
use crate::server::{BoxError, Peer};

pub use authority::Look;
pub use board::{Board, NotInForce, Snapshot, Trouble};
pub use bundle::{Bundle, BundleError, Index, Item};
pub use commands::{Command, Order, Outcome, OutcomeState};
pub use identity::{Enrol, Keys, Refused, Token};
pub use inbox::{Work, Worker};
pub use reply::Reply;
pub use uplink::{AskError, Uplink};

use authority::Authority;
use commands::Commands;
use disk::Disk;
use inbox::{Inbox, PollAnswer};
use mirror::{AT_ONCE, Mirror};

/// Who knows what agents say of themselves.
pub trait AgentFacts: Send + Sync + 'static {
    /// What is known of an agent; none where it has never said anything.
    fn facts(&self, id: &AgentId) -> Option<Facts>;
}

/// What `[control]` says.
#[derive(Debug)]
pub struct Options {
    /// The name of this node.
    pub name: String,
    /// Where the documents come from.
    pub source: Source,
    /// Where state is kept.
    pub state_dir: PathBuf,
    /// How long a node's question is held at most.
    pub hold: Duration,
    /// How long commands wait for a node.
    pub keep_commands: Duration,
}

/// Where the documents come from.
#[derive(Debug)]
pub enum Source {
    /// This directory, looked at so often.
    Directory(PathBuf, Duration),
    /// That node.
    Upstream(Box<Uplink>),
}

/// The control plane of a node.
pub struct Control {
    keys: ArcSwap<Keys>,
    /// Absent where there is no `[control]`: then callers are known, and nothing is known about the fleet.
    part: Option<Arc<Part>>,
}

/// What there is with `[control]`.
pub(crate) struct Part {
    name: String,
    board: Arc<Board>,
    authority: Option<Arc<Authority>>,
    uplink: Option<Arc<Uplink>>,
    watch_every: Duration,
    commands: Arc<Commands>,
    inbox: Arc<Inbox>,
    held: Semaphore,
    hold: Duration,
    /// Whether held questions are to be answered now, because the node is ending.
    ending: watch::Sender<bool>,
    keep_commands: Duration,
    agents: OnceLock<Arc<dyn AgentFacts>>,
}

/// An agent's sitelist as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sheet {
    /// What names its content: an ETag without its quotes.
    pub tag: String,
    /// The XML.
    pub text: String,
}

impl Control {
    /// Knows callers by these keys; with options, the fleet as well, at once as it was kept on disk. Blocks on the disk.
    ///
    /// # Errors
    /// The directory for state cannot be made.
    pub fn open(keys: Keys, options: Option<Options>, clock: Clock) -> std::io::Result<Self> {
        let part = options.map(|options| Part::open(options, clock)).transpose()?.map(Arc::new);
        Ok(Self { keys: ArcSwap::from_pointee(keys), part })
    }

    /// Knows callers by other keys from the next request on.
    pub fn admit(&self, keys: Keys) {
        self.keys.store(Arc::new(keys));
    }

    /// The agent that asks, or what it is told instead.
    ///
    /// # Errors
    /// The answer: 401 where nothing proves who it is, 403 where that is somebody else.
    #[expect(clippy::result_large_err, reason = "the error is the answer, once a request")]
    pub fn agent(&self, headers: &HeaderMap, peer: &Peer) -> Result<Caller, Reply> {
        let snapshot = self.part.as_ref().and_then(|part| part.board.snapshot());
        let fleet = snapshot.as_ref().map(|it| &it.fleet).filter(|fleet| !fleet.enrolments().is_empty());
        let enrol = |token: &str| {
            let enrolment = fleet?.enrolment(token)?;
            Some((enrolment.name.clone(), enrolment.tree.as_str().to_owned()))
        };
        let enrol: Option<Enrol<'_>> = fleet.map(|_| &enrol as _);
        self.keys.load().agent(headers, peer, enrol).map_err(reply::refused)
    }

    /// The node that asks, or what it is told instead.
    ///
    /// # Errors
    /// As [`Control::agent`].
    #[expect(clippy::result_large_err, reason = "the error is the answer, once a request")]
    pub fn node(&self, headers: &HeaderMap, peer: &Peer) -> Result<Caller, Reply> {
        self.keys.load().node(headers, peer).map_err(reply::refused)
    }

    /// Answers an agent: `rest` is what follows `/agent/v1/`.
    pub fn answer_agent(&self, rest: &str, asked: (&Method, &HeaderMap), caller: &Caller) -> Reply {
        self.part.as_ref().map_or_else(nothing, |part| part.answer_agent(rest, asked, caller))
    }

    /// Answers a node: `rest` is what follows `/node/v1/`.
    pub async fn answer_node<B>(&self, rest: &str, request: Request<B>, caller: &Caller) -> Reply
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send,
    {
        match &self.part {
            Some(part) => part.answer_node(rest, request, caller).await,
            None => nothing(),
        }
    }

    /// Has somebody say what agents are like; once.
    pub fn know_agents(&self, agents: Arc<dyn AgentFacts>) {
        if let Some(part) = &self.part {
            let _ = part.agents.set(agents);
        }
    }

    /// The part that knows the fleet.
    pub fn fleet(&self) -> Option<FleetSide> {
        self.part.clone().map(FleetSide)
    }
}

/// What there is to know and to do about the fleet. Clones are the same.
#[derive(Clone)]
pub struct FleetSide(Arc<Part>);

impl FleetSide {
    /// Follows the source and does what it is told. Dropping the set ends it.
    pub fn run(&self, worker: Arc<dyn Worker>) -> JoinSet<()> {
        let part = &self.0;
        let mut tasks = JoinSet::new();
        if let Some(authority) = &part.authority {
            tasks.spawn(Arc::clone(authority).watch(part.watch_every));
        }
        if let Some(uplink) = &part.uplink {
            let mirror = Mirror { board: Arc::clone(&part.board), uplink: Arc::clone(uplink) };
            tasks.spawn(mirror.follow());
            tasks.spawn(courier(Arc::clone(part), Arc::clone(uplink)));
        }
        tasks.spawn(Arc::clone(&part.inbox).work(worker));
        tasks
    }

    /// Answers whoever is held, from now on at once: a node that drains waits for nobody's patience.
    pub fn release(&self) {
        self.0.ending.send_replace(true);
    }

    /// The name of this node.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The board.
    pub fn board(&self) -> &Board {
        &self.0.board
    }

    /// What is in force.
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.0.board.snapshot()
    }

    /// Hears of every change of what is in force.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.0.board.news()
    }

    /// Time since the authority is known to have said that this is the newest.
    pub fn age(&self) -> Duration {
        self.0.age()
    }

    /// The URL of the node above; none at the authority.
    pub fn upstream(&self) -> Option<&str> {
        self.0.uplink.as_ref().map(|uplink| uplink.url())
    }

    /// The directory of the documents; at the authority alone.
    pub fn directory(&self) -> Option<&Path> {
        self.0.authority.as_ref().map(|authority| authority.directory())
    }

    /// The sitelist of an agent; none while nothing is in force.
    pub fn sitelist(&self, facts: &Facts) -> Option<Sheet> {
        self.snapshot().map(|snapshot| Sheet::of(&snapshot, facts))
    }

    /// The policies of an agent; none while nothing is in force.
    pub fn policies(&self, facts: &Facts) -> Option<Manifest> {
        self.snapshot().map(|snapshot| snapshot.fleet.policies(facts))
    }

    /// What is known of an agent beside the documents.
    pub fn known(&self, id: &AgentId) -> Option<Facts> {
        self.0.known(id)
    }

    /// Looks at the directory now; `None` where this is no authority. Blocks.
    ///
    /// # Errors
    /// What is wrong with the documents; nothing is changed then.
    pub fn look(&self, dry_run: bool) -> Option<Result<Look, NotInForce>> {
        let authority = self.0.authority.as_ref()?;
        Some(if dry_run { authority.check() } else { authority.look() })
    }

    /// Changes the state of handlers; `None` where this is no authority. Blocks.
    ///
    /// # Errors
    /// As [`FleetSide::look`].
    pub fn set_states(&self, handlers: &[String], state: State) -> Option<Result<Look, NotInForce>> {
        Some(self.0.authority.as_ref()?.set_states(handlers, state))
    }

    /// The nodes behind a name: a handler, a group, or a node that has asked here; empty where nothing is called so.
    pub fn nodes_of(&self, name: &str) -> Vec<String> {
        let snapshot = self.snapshot();
        let members = snapshot.as_ref().and_then(|snapshot| {
            let members = snapshot.fleet.members(name)?;
            Some(members.into_iter().map(|handler| handler.name.clone()).collect::<Vec<_>>())
        });
        match members {
            Some(members) => members,
            None if name == self.0.name || self.0.commands.knows(name) => vec![name.to_owned()],
            None => Vec::new(),
        }
    }

    /// The nodes that ask here and those behind them: when last, and how many commands wait.
    pub fn nodes(&self) -> Vec<(String, Option<crate::base::clock::Timestamp>, usize)> {
        self.0.commands.nodes()
    }

    /// Gives a command to nodes; what names it. Blocks.
    pub fn give(&self, kind: &str, ask: Value, nodes: Vec<String>) -> String {
        let part = &self.0;
        let expires = part.board.clock().now().after(part.keep_commands);
        let command = Command::new(kind, ask, nodes, expires);
        let id = command.id.clone();
        part.commands.begin(&id, kind, &command.to);
        part.inbox.take_own(&command);
        id
    }

    /// What became of a command that was given here. Blocks.
    pub fn order(&self, id: &str) -> Option<Order> {
        self.0.inbox.hear(self.0.commands.expire());
        self.0.commands.order(id)
    }
}

impl Part {
    fn open(options: Options, clock: Clock) -> std::io::Result<Self> {
        let Options { name, source, state_dir, hold, keep_commands } = options;
        let disk = Disk::open(&state_dir)?;
        let commands = Arc::new(Commands::open(disk.below("queue")?, clock.clone()));
        let board = Arc::new(Board::open(disk.clone(), clock));
        let (authority, uplink, watch_every) = match source {
            Source::Directory(directory, every) => {
                let authority = Arc::new(Authority::new(directory, Arc::clone(&board)));
                // What is wrong is on the board; what was there last serves.
                let _ = authority.look();
                (Some(authority), None, every)
            }
            Source::Upstream(uplink) => (None, Some(Arc::from(uplink)), Duration::ZERO),
        };
        let inbox = Arc::new(Inbox::open(&name, disk, Arc::clone(&commands), uplink.is_some()));
        Ok(Self {
            name,
            board,
            authority,
            uplink,
            watch_every,
            commands,
            inbox,
            held: Semaphore::new(HELD_QUESTIONS),
            hold,
            ending: watch::Sender::new(false),
            keep_commands,
            agents: OnceLock::new(),
        })
    }

    fn known(&self, id: &AgentId) -> Option<Facts> {
        self.agents.get().and_then(|agents| agents.facts(id))
    }

    fn age(&self) -> Duration {
        let (now, well) = (self.board.clock().now(), self.board.trouble().is_none());
        if self.authority.is_some() && well { Duration::ZERO } else { now.since(self.board.confirmed()) }
    }
}

/// Asks the node above what to do, and tells it what became of that. Ends never.
async fn courier(part: Arc<Part>, uplink: Arc<Uplink>) {
    const ANSWER_BYTES: usize = 64 << 20;
    const PAUSE: Duration = Duration::from_secs(2);
    loop {
        let (mut told, mut below) = (part.inbox.told(), part.commands.news());
        let ask = part.inbox.ask();
        let outcomes = ask.outcomes.len();
        let body = Bytes::from(serde_json::to_vec(&ask).unwrap_or_default());
        let request = Request::post("/node/v1/poll").header("content-type", "application/json");
        let began = Instant::now();
        let reply = tokio::select! {
            reply = uplink.ask(request, body, Some(uplink.hold()), ANSWER_BYTES) => reply,
            // There is more to tell than was told.
            _ = told.changed() => continue,
            _ = below.changed() => continue,
        };
        let answer = reply.ok().filter(|reply| reply.status() == StatusCode::OK);
        match answer.and_then(|reply| serde_json::from_slice::<PollAnswer>(reply.body()).ok()) {
            Some(answer) => {
                let is_news = outcomes > 0 || !answer.commands.is_empty();
                let inbox = Arc::clone(&part.inbox);
                let taken = tokio::task::spawn_blocking(move || inbox.take(answer, outcomes)).await;
                if !taken.unwrap_or(false) {
                    // It comes again at once, and the disk will hardly be well by then.
                    tokio::time::sleep(uplink.spread(PAUSE)).await;
                } else if !is_news && began.elapsed() < AT_ONCE {
                    tokio::time::sleep(uplink.spread(AT_ONCE)).await;
                }
            }
            // The mirror says what is wrong with the node above.
            None => tokio::time::sleep(uplink.spread(PAUSE)).await,
        }
    }
}

/// What is answered where there is nothing.
pub fn nothing() -> Reply {
    reply::status(StatusCode::NOT_FOUND)
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("fleet", &self.part.is_some()).finish_non_exhaustive()
    }
}
