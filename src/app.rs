//! The only file that sees every part: builds a node from its configuration, runs it, and ends it.

mod agent;
mod build;
mod catalogue;
mod control;
mod documents;
mod door;
mod editions;
mod events;
mod explain;
mod explain_catalogue;
mod fault;
mod fleet_view;
mod jobs;
mod locate;
mod operator;
mod presence;
mod reload;
mod status;
mod systemd;
mod verify;
mod warm;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::admin::{Admin, AdminSocket, AdminTls, Operator as _};
use crate::base::clock::Clock;
use crate::cli::{DemoArgs, Story};
use crate::config::{self, CheckedConfig};
use crate::demo::{self, RunningNode, StartNode};
use crate::fill::Fills;
use crate::presence::Presence;
use crate::server::{Phase, Summary};
use crate::store::Store;
use crate::telemetry::{self, AccessLog, LogHandle, Tracer};

pub use agent::agent;
use documents::NodeWorker;
use door::Door;
use fleet_view::FleetView;
use jobs::Jobs;
use operator::NodeOperator;
use reload::Reloader;
use status::NodeStatus;

/// How long files whose bytes are all here may take to be sealed.
const LAST_SEALS: Duration = Duration::from_secs(2);

/// How long the access log may take to write its last lines, and traces their last spans.
const LAST_LINES: Duration = Duration::from_secs(2);

/// A node that runs in this process.
pub struct Node {
    /// Where it listens with TLS, in the order of the configuration.
    pub addresses: Vec<SocketAddr>,
    /// Where it listens without.
    pub plain: Vec<SocketAddr>,
    phase: watch::Sender<Phase>,
    server: JoinHandle<std::io::Result<Summary>>,
    over: watch::Receiver<bool>,
    scrub: Option<JoinHandle<()>>,
    /// Where the admin API listens with TLS, if it does.
    pub admin: Option<SocketAddr>,
    doors: Vec<JoinHandle<()>>,
    /// Follows the fleet's documents and does what the fleet says; ends with the node.
    following: Option<JoinSet<()>>,
    operator: Arc<NodeOperator>,
    /// The agents, and what goes on about them by itself.
    presence: Option<(Arc<Presence>, JoinSet<()>)>,
    store: Store,
    fills: Fills,
    access: AccessLog,
    tracer: Option<Arc<dyn Tracer>>,
}

impl Node {
    /// Starts a node. It listens when this returns; whatever it has to find out about its cache goes on behind.
    ///
    /// # Errors
    /// A part that cannot be built: an address that is taken, a certificate that does not fit its key, a cache
    /// directory that another process has.
    pub async fn start(config: &CheckedConfig) -> anyhow::Result<Self> {
        Self::start_with(config, Clock::system()).await
    }

    /// As [`Node::start`], with a clock that a test turns.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub async fn start_with(config: &CheckedConfig, clock: Clock) -> anyhow::Result<Self> {
        Self::start_logging(config, clock, None).await
    }

    async fn start_logging(
        config: &CheckedConfig,
        clock: Clock,
        log: Option<LogHandle>,
    ) -> anyhow::Result<Self> {
        let admin_tls = match (build::read_admin_identity(&config.admin)?, config.admin.listen) {
            (Some(identity), Some(address)) => Some(AdminTls::bind(address, &identity)?),
            _ => None,
        };
        let built = build::build(config, clock)?;
        let (phase, watch) = watch::channel(Phase::Run);
        let operator = operate(config, &built, (watch.clone(), admin_tls.clone(), log));
        let admin = Admin::new(Arc::clone(&operator) as _, build::read_access(&config.admin)?);
        operator.reloader.serves(admin.clone());
        operator.reloader.counts(built.presence.clone());
        let mut doors = Vec::new();
        if let Some(path) = &config.admin.socket {
            let open = config.admin.operators.is_some() || config.admin.viewers.is_some();
            doors.push(tokio::spawn(AdminSocket::bind(path, open)?.serve(admin.clone())));
        }
        let address = admin_tls.as_ref().map(AdminTls::address);
        doors.extend(admin_tls.map(|tls| tokio::spawn(tls.serve(admin))));
        let addresses = built.bound.addresses();
        let (secure, plain) =
            addresses.split_at_checked(config.server.listen.len()).unwrap_or((&addresses, &[]));
        let (addresses, plain) = (secure.to_vec(), plain.to_vec());
        let (end, over) = watch::channel(false);
        let hands = built
            .presence
            .as_ref()
            .zip(built.control.as_ref())
            .map(|(presence, control)| {
                presence::run(config, presence, (built.passed, built.editions), (control, watch.clone()))
            })
            .transpose()?;
        let worker = NodeWorker(Arc::downgrade(&operator));
        let mut following = operator.fleet.as_ref().map(|fleet| fleet.run(Arc::new(worker)));
        if let (Some(following), Some(fleet)) = (&mut following, operator.fleet.clone()) {
            let mut phase = watch.clone();
            following.spawn(async move {
                // An error means that the node is gone, which is an end as well.
                let _ = phase.wait_for(|phase| *phase != Phase::Run).await;
                fleet.release();
            });
        }
        let door = Arc::new(Door::new(built.plane, built.control, built.presence.clone(), &built.metrics));
        let run = built.bound.run(door, watch);
        let server = tokio::spawn(async move {
            let summary = run.await;
            end.send_replace(true);
            summary
        });
        let (store, fills, access, tracer) = (built.store, built.fills, built.access, built.parts.tracer);
        let rate = config.cache.scrub_rate;
        let scrub = (rate > 0).then(|| tokio::spawn(scrub(store.clone(), rate, over.clone())));
        Ok(Self {
            addresses,
            plain,
            phase,
            server,
            over,
            admin: address,
            doors,
            following,
            operator,
            scrub,
            presence: built.presence.zip(hands),
            store,
            fills,
            access,
            tracer,
        })
    }

    /// Orders a phase; orders never go backwards.
    pub fn order(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let forward = phase > *now;
            if forward {
                *now = phase;
            }
            forward
        });
    }

    /// Continues the access log in a new file of the same name.
    pub fn reopen_logs(&self) {
        self.access.reopen();
    }

    /// Reads the configuration again, as `waypost reload` does. What came of it is in the log.
    pub async fn reload(&self) {
        // Said there, to whoever reads it.
        let _ = self.operator.reload(false).await;
    }

    /// Waits until the server has ended, then commits what the store still holds and closes the logs.
    ///
    /// # Errors
    /// The server did not run at all.
    pub async fn ended(mut self) -> anyhow::Result<Summary> {
        let summary = (&mut self.server).await.context("the server task died")?.context("cannot serve")?;
        if let Some(mut following) = self.following.take() {
            following.shutdown().await;
        }
        for door in self.doors.drain(..) {
            door.abort();
            // Its socket is gone when it has ended.
            let _ = door.await;
        }
        if let Some(scrub) = self.scrub.take() {
            scrub.await.context("the scrub died")?;
        }
        if let Some((presence, mut hands)) = self.presence.take() {
            hands.shutdown().await;
            presence.close().await;
        }
        // The last byte reaches an agent a moment before its file is sealed: do not throw the file away.
        self.fills.come_to_rest(LAST_SEALS).await;
        self.store.close().await;
        if let Some(tracer) = &self.tracer {
            tracer.flush(LAST_LINES).await;
        }
        // A few milliseconds of blocking at the very end disturb nobody.
        self.access.close(LAST_LINES);
        Ok(summary)
    }

    /// Returns when the server has ended, however it ended.
    async fn over(&self) {
        // An error means that its task is gone, which is an end as well.
        let _ = self.over.clone().wait_for(|over| *over).await;
    }
}

/// Reads what nobody asks for until the server has ended.
async fn scrub(store: Store, rate: u64, mut over: watch::Receiver<bool>) {
    tokio::select! {
        () = store.keep_scrubbing(rate) => {}
        _ = over.wait_for(|over| *over) => {}
    }
}

/// The node as its operators see it.
fn operate(
    config: &CheckedConfig,
    built: &build::Built,
    (phase, admin_tls, log): (watch::Receiver<Phase>, Option<AdminTls>, Option<LogHandle>),
) -> Arc<NodeOperator> {
    let plane = Arc::clone(&built.plane);
    let reloader = Arc::new(Reloader::new(
        config,
        (built.parts.clone(), Arc::clone(&plane), built.made.clone()),
        (built.tls.clone(), admin_tls, built.control.clone()),
        log,
    ));
    Arc::new_cyclic(|me| NodeOperator {
        me: me.clone(),
        plane,
        store: built.store.clone(),
        fills: built.fills.clone(),
        clock: built.clock.clone(),
        status: NodeStatus::new(built, phase.clone()),
        access: built.access.clone(),
        jobs: Jobs::default(),
        reloader,
        fleet: built.control.as_ref().and_then(|control| control.fleet()),
        phase,
        view: FleetView::new(built.presence.clone(), config.server.node.clone()),
    })
}

/// `waypost serve`: runs a node until it is told to end.
///
/// # Errors
/// The node could not be started; the message names the part.
pub fn serve(config: CheckedConfig) -> anyhow::Result<ExitCode> {
    let log = set_up_log(&config.log)?;
    let files = build::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.server.workers)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(async {
        let mut orders = Orders::listen()?;
        let node = Node::start_logging(&config, Clock::system(), Some(log)).await?;
        let (https, http) = (list(&node.addresses), list(&node.plain));
        let admin = node.admin.map(|address| address.to_string());
        tracing::info!(
            https,
            http,
            admin,
            open_files = files,
            version = env!("CARGO_PKG_VERSION"),
            "listening"
        );
        systemd::notify("READY=1");
        let interrupted = orders.follow(&node).await;
        systemd::notify("STOPPING=1");
        let summary = tokio::select! {
            summary = node.ended() => summary?,
            code = orders.insist() => leave_at_once(code),
        };
        tracing::info!(drained = summary.drained, cut = summary.cut, "ended");
        Ok(if interrupted { ExitCode::from(130) } else { ExitCode::SUCCESS })
    });
    // What still runs on its threads for blocking work (a file being hashed) has nobody left to tell.
    runtime.shutdown_background();
    ended
}

fn set_up_log(log: &config::LogConfig) -> anyhow::Result<LogHandle> {
    let format = match log.format {
        config::LogFormat::Auto => telemetry::LogFormat::Auto,
        config::LogFormat::Text => telemetry::LogFormat::Text,
        config::LogFormat::Json => telemetry::LogFormat::Json,
    };
    telemetry::init_tracing(log.level.as_str(), format).context("cannot set up logging")
}

/// Told to end while it was ending: whatever it still waits for, a disk that hangs perhaps, is not waited for. A node
/// survives worse at any moment.
#[expect(clippy::exit, reason = "returning would join the threads that are being waited for")]
fn leave_at_once(code: i32) -> ! {
    tracing::warn!("told again: leaving without the last commit");
    std::process::exit(code)
}

/// Addresses for a log line; none at all leaves its field out.
fn list(addresses: &[SocketAddr]) -> Option<String> {
    let all: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

/// The signals a node obeys.
struct Orders {
    terminate: Signal,
    interrupt: Signal,
    reopen: Signal,
    hangup: Signal,
}

impl Orders {
    fn listen() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            reopen: on(SignalKind::user_defined1())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    /// Waits until somebody insists on the end; the code to leave with.
    async fn insist(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => 143,
            _ = self.interrupt.recv() => 130,
        }
    }

    /// Obeys until the node has ended: TERM drains, a second one or INT stops now, USR1 reopens the access log,
    /// HUP reads the configuration again.
    /// Returns whether it was interrupted.
    async fn follow(&mut self, node: &Node) -> bool {
        let mut next = Phase::Drain;
        let every = systemd::watchdog();
        let mut alive = tokio::time::interval(every.unwrap_or(Duration::from_secs(3_600)));
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {
                    match next {
                        Phase::Drain => tracing::info!("draining: running transfers may end; tell me again to stop now"),
                        _ => tracing::info!("stopping now"),
                    }
                    systemd::notify("STOPPING=1");
                    node.order(next);
                    next = Phase::Stop;
                }
                _ = self.interrupt.recv() => {
                    node.order(Phase::Stop);
                    return true;
                }
                _ = self.reopen.recv() => node.reopen_logs(),
                _ = self.hangup.recv() => {
                    systemd::reloading();
                    node.reload().await;
                    systemd::notify("READY=1");
                }
                // Said from the task that obeys: where the runtime hangs, this does too.
                _ = alive.tick(), if every.is_some() => systemd::notify("WATCHDOG=1"),
                () = node.over() => return false,
            }
        }
    }
}

/// `waypost demo`.
///
/// # Errors
/// It could not be set up.
pub fn demo(args: DemoArgs, json: bool) -> anyhow::Result<ExitCode> {
    let DemoArgs { story, agents, size, wan, keep, port } = args;
    let story = match story {
        Story::Fleet => demo::Story::Fleet,
        Story::Cache => demo::Story::Cache,
    };
    let options = demo::Options { story, agents, size, wan, keep, port: port.unwrap_or(0), json };
    let program = std::env::current_exe().context("cannot find this program")?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(demo::run(&options, &DemoNodes, &program))
}

/// Starts the demo's nodes in this process, from the files it wrote for them.
struct DemoNodes;

impl StartNode for DemoNodes {
    async fn start(&self, config: &Path) -> anyhow::Result<RunningNode> {
        let (config, _) = config::load(config).map_err(|found| anyhow::anyhow!("{found}"))?;
        let node = Node::start(&config).await?;
        let (addresses, plain) = (node.addresses.clone(), node.plain.clone());
        let stop = Box::pin(async move {
            node.order(Phase::Stop);
            node.ended().await.map(drop)
        });
        Ok(RunningNode { addresses, plain, stop })
    }
}
