//! The real binary as a child process, and what it costs.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio_rustls::TlsConnector;
use waypost::testkit::pki::Authority;

/// `USER_HZ`, in which Linux tells process times on every architecture that we build for.
const TICKS: f64 = 100.0;

/// A handler in front of an origin. Dropping it kills the process.
pub struct Node {
    child: Child,
    address: SocketAddr,
    authority: Authority,
    _dir: tempfile::TempDir,
}

impl Node {
    /// Starts the binary with an empty cache and `memory` (a size with unit) for hot objects, and waits until it listens.
    pub fn start(origin: SocketAddr, memory: &str) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("waypost-e2e").tempdir()?;
        let authority = Authority::new("waypost bench CA");
        let issued = authority.server(&["localhost"]);
        fs::write(dir.path().join("server.pem"), issued.cert)?;
        fs::write(dir.path().join("server.key"), issued.key)?;
        // The child cannot tell us a port that the kernel chose for it; this one was free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = config(address, origin, memory);
        let file = dir.path().join("waypost.toml");
        fs::write(&file, config)?;
        let log = fs::File::create(dir.path().join("log"))?;
        let binary = std::env::var_os("WAYPOST_BIN")
            .map_or_else(|| env!("CARGO_BIN_EXE_waypost").into(), PathBuf::from);
        let child = Command::new(&binary)
            .args(["serve", "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let mut node = Self { child, address, authority, _dir: dir };
        node.wait()?;
        Ok(node)
    }

    /// Where it listens with TLS.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// TLS towards it, speaking `protocol`.
    pub fn tls(&self, protocol: &str) -> TlsConnector {
        self.authority.connector(&[protocol])
    }

    /// CPU time used so far, user and system.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name may hold spaces; the fields after its parenthesis do not. utime and stime are 14 and 15.
        let (_, fields) = stat.rsplit_once(')').context("stat")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        let ticks: u64 = ticks.sum::<Result<_, _>>()?;
        Ok(Duration::from_secs_f64(ticks as f64 / TICKS))
    }

    /// The most memory it ever had resident, in bytes.
    pub fn peak_memory(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                let log = fs::read_to_string(self._dir.path().join("log")).unwrap_or_default();
                bail!("the node ended with {status}:\n{log}");
            }
            anyhow::ensure!(began.elapsed() < Duration::from_secs(10), "the node does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config(address: SocketAddr, origin: SocketAddr, memory: &str) -> String {
    format!(
        r#"[server]
listen = "{address}"
tls = {{ cert = "server.pem", key = {{ file = "server.key" }} }}

[cache]
dir = "cache"
size = "4GiB"
memory = "{memory}"

[limits]
connections_per_address = 5000

[[repository]]
name = "origin"
path = "/o/"
preset = "generic"
upstreams = ["http://{origin}/o/"]

[[repository.rule]]
match = "**"
immutable = true
"#
    )
}
