//! `waypost demo`: the product at work on this machine, with made-up files, and the figures measured while it works.
//!
//! Two stories: `fleet`, the day of a branch office in which everything happens, and `cache`, one file and many agents
//! behind one thin line. What a story needs is here: a directory that
//! goes with it (`folder::Folder`), certificates, made-up bodies, and the WAN, a throttled line that counts
//! the bytes that cross it and can be cut.

mod cache;
mod fleet;
mod folder;
mod noise;
mod pki;
mod print;
mod wan;

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;

use anyhow::ensure;
use tokio::signal::unix::{SignalKind, signal};

use self::print::say;

/// Exit code of a demo in which a check failed (INTERFACE: failed verification).
const FAILED: u8 = 8;
/// Exit code after Ctrl-C.
const INTERRUPTED: u8 = 130;
/// Exit code after TERM, or when the terminal went away.
const TERMINATED: u8 = 143;

/// Which story is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Story {
    /// Headquarters, two handlers and their agents, and what happens when one of them or the WAN dies.
    #[default]
    Fleet,
    /// One handler, and agents that all want the same file.
    Cache,
}

/// What the demo shows.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which story.
    pub story: Story,
    /// Agents, 2 to 2,000.
    pub agents: usize,
    /// Bytes of the largest file, 1 MiB to 4 GiB.
    pub size: u64,
    /// Bytes per second that the WAN carries in each direction, at least 100 KB.
    pub wan: u64,
    /// Leave the nodes running at the end, until Ctrl-C.
    pub keep: bool,
    /// Port of the handler on 127.0.0.1; 0 lets the kernel choose. The story of the fleet chooses itself.
    pub port: u16,
    /// Of the story of the fleet nothing is said but its outcome, as JSON.
    pub json: bool,
}

impl Options {
    /// Checks the bounds above.
    ///
    /// # Errors
    /// Says which value is wrong, and what is allowed.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!((2..=2_000).contains(&self.agents), "--agents: 2 to 2000 are possible");
        ensure!((1 << 20..=4 << 30).contains(&self.size), "--size: 1MiB to 4GiB are possible");
        ensure!((100_000..=1_250_000_000).contains(&self.wan), "--wan: 0.8Mbit/s to 10Gbit/s are possible");
        Ok(())
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            story: Story::default(),
            agents: 50,
            size: 8 << 20,
            wan: 2_500_000,
            keep: false,
            port: 0,
            json: false,
        }
    }
}

/// A node that runs in this process.
pub struct RunningNode {
    /// Where it listens with TLS.
    pub addresses: Vec<SocketAddr>,
    /// Where it listens without.
    pub plain: Vec<SocketAddr>,
    /// Awaited to end it; dropping it ends it too, less politely.
    pub stop: Stop,
}

/// Ends a node when awaited.
pub type Stop = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// Starts a node from its configuration file and returns once it listens. It installs no signal handlers.
pub trait StartNode: Sync {
    /// Starts the node that `config` describes.
    fn start(&self, config: &Path) -> impl Future<Output = anyhow::Result<RunningNode>> + Send;
}

/// Runs the demo: story and figures on stdout, progress on stderr. The story of the fleet runs `program` (this one)
/// for its nodes, that of the cache has `nodes` started in this process. Exit code 8 if a check failed, 130 after
/// Ctrl-C, 143 after TERM or when its terminal went away.
///
/// # Errors
/// It could not be set up: no room, no ports, too few file descriptors, a node that does not start.
pub async fn run(options: &Options, nodes: &impl StartNode, program: &Path) -> anyhow::Result<ExitCode> {
    options.check()?;
    allow_descriptors(options.agents)?;
    // A default TERM would leave the directory of the run and its nodes behind, and so would a terminal that goes away.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::select! {
        held = tell(options, nodes, program) => Ok(if held? { ExitCode::SUCCESS } else { FAILED.into() }),
        _ = tokio::signal::ctrl_c() => interrupted(INTERRUPTED),
        _ = terminate.recv() => interrupted(TERMINATED),
        _ = hang_up.recv() => Ok(TERMINATED.into()),
    }
}

async fn tell(options: &Options, nodes: &impl StartNode, program: &Path) -> anyhow::Result<bool> {
    match options.story {
        Story::Fleet => fleet::tell(options, program).await,
        Story::Cache => cache::tell(options, nodes).await,
    }
}

fn interrupted(code: u8) -> anyhow::Result<ExitCode> {
    say("\nInterrupted.")?;
    Ok(code.into())
}

/// Each agent is some files and sockets in this process: two in the story of the cache, up to eight in that of the fleet.
fn allow_descriptors(agents: usize) -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let need = agents as u64 * 10 + 300;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < need) {
        let raised =
            Rlimit { current: limit.maximum.map_or(Some(need), |most| Some(most.min(need))), ..limit };
        setrlimit(Resource::Nofile, raised)?;
        let enough = limit.maximum.is_none_or(|most| most >= need);
        ensure!(enough, "{agents} agents need {need} file descriptors; the hard limit is lower (ulimit -Hn)");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_bounds_is_said() {
        let good = Options::default();
        assert!(good.check().is_ok());
        for bad in [
            Options { agents: 1, ..good.clone() },
            Options { size: 1 << 10, ..good.clone() },
            Options { wan: 1 << 10, ..good },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
