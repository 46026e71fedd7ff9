//! The real binary as a server.

use std::fs;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

use super::server::Server;

/// A handler in front of an origin.
pub struct Node(Server);

/// What a node is started with.
pub struct Setup {
    /// Where its repository comes from: a URL with a slash at the end.
    pub upstream: String,
    /// Memory for hot objects, MiB.
    pub memory: u64,
    /// Room on disk, MiB.
    pub disk: u64,
    /// Further keys of its repository.
    pub repository: &'static str,
    /// Whether it writes an access log.
    pub access: bool,
    /// Whether its instructions are counted, which makes it fifty times slower.
    pub counted: bool,
    /// Fills its cache before it starts.
    pub cache: Option<tempfile::TempDir>,
}

impl Setup {
    /// In front of `origin`, whose files never change.
    pub fn new(origin: SocketAddr, memory: u64) -> Self {
        let upstream = format!("http://{origin}/o/");
        let repository = "[[repository.rule]]\nmatch = \"**\"\nimmutable = true\n";
        Self { upstream, memory, disk: 64 << 10, repository, access: false, counted: false, cache: None }
    }

    fn config(&self, address: SocketAddr) -> String {
        let Self { upstream, memory, disk, repository, access, .. } = self;
        let log = if *access { "[log]\naccess = \"access.log\"\n" } else { "" };
        format!(
            r#"[server]
listen = "{address}"
tls = {{ cert = "server.pem", key = {{ file = "server.key" }} }}

[admin]
socket = "admin.sock"

[cache]
dir = "cache"
size = "{disk}MiB"
memory = "{memory}MiB"

[limits]
connections = 20000
connections_per_address = 20000

[[repository]]
name = "o"
path = "/o/"
upstreams = ["{upstream}"]
{repository}
{log}"#
        )
    }
}

impl Node {
    /// Starts the binary, and waits until it listens.
    pub fn launch(mut setup: Setup) -> anyhow::Result<Self> {
        let mut server = Server::prepare(setup.cache.take())?;
        let file = server.dir().join("waypost.toml");
        fs::write(&file, setup.config(server.address()))?;
        let binary = std::env::var_os("WAYPOST_BIN")
            .map_or_else(|| env!("CARGO_BIN_EXE_waypost").into(), PathBuf::from);
        let mut command = if setup.counted {
            let mut valgrind = Command::new("valgrind");
            let out = format!("--callgrind-out-file={}", server.dir().join("callgrind").display());
            valgrind.args(["--tool=callgrind", &out]).arg(&binary);
            valgrind
        } else {
            Command::new(&binary)
        };
        let log = server.log();
        server.tree.start(command.args(["serve", "-c"]).arg(&file), &log)?;
        server.wait()?;
        Ok(Self(server))
    }

    /// Only the server of it.
    pub fn into_server(self) -> Server {
        self.0
    }

    /// The socket of its admin API.
    pub fn admin(&self) -> PathBuf {
        self.dir().join("admin.sock")
    }

    /// Ends a node whose instructions were counted, and tells how many there were.
    pub fn instructions(mut self) -> anyhow::Result<u64> {
        self.tree.finish()?;
        let text = fs::read_to_string(self.dir().join("callgrind"))?;
        let totals = text.lines().find_map(|line| line.strip_prefix("totals: ")).context("no totals")?;
        Ok(totals.trim().parse()?)
    }
}

impl Deref for Node {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

impl DerefMut for Node {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.0
    }
}
