//! The only file that sees every part: builds a node from its configuration, runs it, and ends it.

mod build;
mod events;
mod status;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admin::AdminSocket;
use crate::base::clock::Clock;
use crate::cli::DemoArgs;
use crate::config::{self, CheckedConfig};
use crate::demo::{self, RunningNode, StartNode};
use crate::fill::Fills;
use crate::server::{Phase, Summary};
use crate::store::Store;
use crate::telemetry::{self, AccessLog};

use status::NodeStatus;

/// How long files whose bytes are all here may take to be sealed.
const LAST_SEALS: Duration = Duration::from_secs(2);

/// How long the access log may take to write its last lines.
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
    admin: Option<JoinHandle<()>>,
    scrub: Option<JoinHandle<()>>,
    store: Store,
    fills: Fills,
    access: Option<AccessLog>,
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
        let built = build::build(config, clock)?;
        let (phase, watch) = watch::channel(Phase::Run);
        let status = Arc::new(NodeStatus::new(&built, watch.clone()));
        let admin = match &config.admin_socket {
            Some(path) => Some(tokio::spawn(AdminSocket::bind(path)?.serve(status))),
            None => None,
        };
        let addresses = built.bound.addresses();
        let (secure, plain) =
            addresses.split_at_checked(config.server.listen.len()).unwrap_or((&addresses, &[]));
        let (addresses, plain) = (secure.to_vec(), plain.to_vec());
        let (end, over) = watch::channel(false);
        let run = built.bound.run(built.plane, watch);
        let server = tokio::spawn(async move {
            let summary = run.await;
            end.send_replace(true);
            summary
        });
        let (store, fills, access) = (built.store, built.fills, built.access);
        let rate = config.cache.scrub_rate;
        let scrub = (rate > 0).then(|| tokio::spawn(scrub(store.clone(), rate, over.clone())));
        Ok(Self { addresses, plain, phase, server, over, admin, scrub, store, fills, access })
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
        if let Some(access) = &self.access {
            access.reopen();
        }
    }

    /// Waits until the server has ended, then commits what the store still holds and closes the logs.
    ///
    /// # Errors
    /// The server did not run at all.
    pub async fn ended(mut self) -> anyhow::Result<Summary> {
        let summary = (&mut self.server).await.context("the server task died")?.context("cannot serve")?;
        if let Some(admin) = self.admin.take() {
            admin.abort();
        }
        if let Some(scrub) = self.scrub.take() {
            scrub.await.context("the scrub died")?;
        }
        // The last byte reaches an agent a moment before its file is sealed: do not throw the file away.
        self.fills.come_to_rest(LAST_SEALS).await;
        self.store.close().await;
        if let Some(access) = self.access.take() {
            // A few milliseconds of blocking at the very end disturb nobody.
            access.close(LAST_LINES);
        }
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

/// `waypost serve`: runs a node until it is told to end.
///
/// # Errors
/// The node could not be started; the message names the part.
pub fn serve(config: CheckedConfig) -> anyhow::Result<ExitCode> {
    let log = &config.log;
    let format = match log.format {
        config::LogFormat::Auto => telemetry::LogFormat::Auto,
        config::LogFormat::Text => telemetry::LogFormat::Text,
        config::LogFormat::Json => telemetry::LogFormat::Json,
    };
    telemetry::init_tracing(log.level.as_str(), format).context("cannot set up logging")?;
    let files = build::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.server.workers)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(async {
        let mut orders = Orders::listen()?;
        let node = Node::start(&config).await?;
        let (https, http) = (list(&node.addresses), list(&node.plain));
        tracing::info!(https, http, open_files = files, version = env!("CARGO_PKG_VERSION"), "listening");
        let interrupted = orders.follow(&node).await;
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

    /// Obeys until the node has ended: TERM drains, a second one or INT stops now, USR1 reopens the access log.
    /// Returns whether it was interrupted.
    async fn follow(&mut self, node: &Node) -> bool {
        let mut next = Phase::Drain;
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {
                    match next {
                        Phase::Drain => tracing::info!("draining: running transfers may end; tell me again to stop now"),
                        _ => tracing::info!("stopping now"),
                    }
                    node.order(next);
                    next = Phase::Stop;
                }
                _ = self.interrupt.recv() => {
                    node.order(Phase::Stop);
                    return true;
                }
                _ = self.reopen.recv() => node.reopen_logs(),
                // Ignoring it is safe; dying of it, as is the default, is not what anybody means.
                _ = self.hangup.recv() => tracing::warn!("reloading is not available yet; restart to change the configuration"),
                () = node.over() => return false,
            }
        }
    }
}

/// `waypost demo`.
///
/// # Errors
/// It could not be set up.
pub fn demo(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let DemoArgs { agents, size, wan, keep, port } = args;
    let options = demo::Options { agents, size, wan, keep, port: port.unwrap_or(0) };
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(demo::run(&options, &DemoNodes))
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
