//! A node of the story: this program once more, as a process of its own, so that it can be killed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};

/// A debug build on a busy machine needs seconds to listen.
const READY: Duration = Duration::from_secs(60);
/// Between two looks.
const EVERY: Duration = Duration::from_millis(20);
/// Of a node that did not come up, this much of its log is shown.
const LAST_LINES: usize = 5;

/// Dropping it kills the process.
pub(super) struct Node {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    pub(super) socket: PathBuf,
    program: PathBuf,
    config: PathBuf,
    child: Child,
}

impl Node {
    /// Starts `program serve` with this configuration, which says that it listens at `address` and `socket`, and waits
    /// until it does.
    pub(super) async fn start(
        program: &Path,
        name: &'static str,
        config: PathBuf,
        (address, socket): (SocketAddr, PathBuf),
    ) -> anyhow::Result<Self> {
        let child = spawn(program, &config)?;
        let mut node = Self { name, address, socket, program: program.to_owned(), config, child };
        node.ready().await?;
        Ok(node)
    }

    /// As a power cut does it: nothing is said to anybody.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// The same node once more, with the cache and the state that it had.
    pub(super) async fn start_again(&mut self) -> anyhow::Result<()> {
        self.child = spawn(&self.program, &self.config)?;
        self.ready().await
    }

    /// The most memory it ever had, in bytes.
    pub(super) fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + READY;
        loop {
            if TcpStream::connect(self.address).await.is_ok()
                && UnixStream::connect(&self.socket).await.is_ok()
            {
                return Ok(());
            }
            if self.child.try_wait()?.is_some() || Instant::now() > until {
                bail!("{} does not listen; the last it said:\n{}", self.name, self.last_words());
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(log_of(&self.config)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(LAST_LINES)).map(|line| format!("  {line}\n")).collect()
    }
}

fn log_of(config: &Path) -> PathBuf {
    config.with_extension("log")
}

fn spawn(program: &Path, config: &Path) -> anyhow::Result<Child> {
    let log = std::fs::File::options().create(true).append(true).open(log_of(config))?;
    let mut command = command(program);
    command.arg("serve").arg("-c").arg(config).stdout(Stdio::null()).stderr(log);
    command.spawn().context("cannot start this program once more")
}

/// This program, deaf to what the environment says to the one that runs, and gone with whoever waits for it.
pub(super) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        // A service manager's words are for its own child.
        if text.starts_with("WAYPOST_") || ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID"].contains(&&*text) {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}
