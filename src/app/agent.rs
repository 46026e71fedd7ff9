//! Runs an agent: one thread, small buffers, signals.

use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::{set_up_log, systemd};
use crate::agent::Agent;
use crate::config::AgentConfig;

/// Threads for what blocks: looking up names, one at a time.
const BLOCKING: usize = 2;

/// Runs an agent until it is told to stop.
///
/// # Errors
/// It cannot begin: secrets, directories, another agent.
pub fn agent(config: AgentConfig) -> anyhow::Result<ExitCode> {
    let _log = set_up_log(&config.log)?;
    let options = config.options().context("cannot read a secret")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(BLOCKING)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let id = options.id.clone();
        let agent = Agent::open(options)?;
        tracing::info!(id, version = env!("CARGO_PKG_VERSION"), "the agent runs");
        systemd::notify("READY=1");
        let mut code = ExitCode::SUCCESS;
        agent
            .run(async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => code = ExitCode::from(130),
                }
                systemd::notify("STOPPING=1");
            })
            .await;
        tracing::info!("ended");
        Ok(code)
    });
    runtime.shutdown_background();
    ended
}
