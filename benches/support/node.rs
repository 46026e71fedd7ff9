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
    dir: tempfile::TempDir,
}

/// What a node is started with.
pub struct Setup {
    /// Where its repository comes from: a URL with a slash at the end.
    pub upstream: String,
    /// Memory for hot objects, a size with its unit.
    pub memory: &'static str,
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
    pub fn new(origin: SocketAddr, memory: &'static str) -> Self {
        let upstream = format!("http://{origin}/o/");
        let repository = "[[repository.rule]]\nmatch = \"**\"\nimmutable = true\n";
        Self { upstream, memory, repository, access: false, counted: false, cache: None }
    }
}

impl Node {
    /// Starts the binary with an empty cache and `memory` for hot objects, and waits until it listens.
    pub fn start(origin: SocketAddr, memory: &'static str) -> anyhow::Result<Self> {
        Self::launch(Setup::new(origin, memory))
    }

    /// Starts the binary, and waits until it listens.
    pub fn launch(setup: Setup) -> anyhow::Result<Self> {
        let config = setup.config();
        let dir = match setup.cache {
            Some(dir) => dir,
            None => tempfile::Builder::new().prefix("waypost-e2e").tempdir()?,
        };
        let authority = Authority::new("waypost bench CA");
        let issued = authority.server(&["localhost"]);
        fs::write(dir.path().join("server.pem"), issued.cert)?;
        fs::write(dir.path().join("server.key"), issued.key)?;
        // The child cannot tell us a port that the kernel chose for it; this one was free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = config.replace("ADDRESS", &address.to_string());
        let file = dir.path().join("waypost.toml");
        fs::write(&file, config)?;
        let log = fs::File::create(dir.path().join("log"))?;
        let binary = std::env::var_os("WAYPOST_BIN")
            .map_or_else(|| env!("CARGO_BIN_EXE_waypost").into(), PathBuf::from);
        let mut command = if setup.counted {
            let mut valgrind = Command::new("valgrind");
            let out = format!("--callgrind-out-file={}", dir.path().join("callgrind").display());
            valgrind.args(["--tool=callgrind", &out]).arg(&binary);
            valgrind
        } else {
            Command::new(&binary)
        };
        let child = command
            .args(["serve", "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let mut node = Self { child, address, authority, dir };
        node.wait()?;
        Ok(node)
    }

    /// The socket of its admin API.
    pub fn admin(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    /// Ends a node whose instructions were counted, and tells how many there were.
    pub fn instructions(mut self) -> anyhow::Result<u64> {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id())?).context("a process")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        self.child.wait()?;
        let text = fs::read_to_string(self.dir.path().join("callgrind"))?;
        let totals = text.lines().find_map(|line| line.strip_prefix("totals: ")).context("no totals")?;
        Ok(totals.trim().parse()?)
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

    /// The certificate of its authority, in a file.
    pub fn ca(&self) -> anyhow::Result<PathBuf> {
        let file = self.dir.path().join("ca.pem");
        fs::write(&file, self.authority.pem())?;
        Ok(file)
    }

    /// The memory it has resident, in bytes.
    pub fn memory(&self) -> anyhow::Result<u64> {
        self.status("VmRSS:")
    }

    /// The most memory it ever had resident, in bytes.
    pub fn peak_memory(&self) -> anyhow::Result<u64> {
        self.status("VmHWM:")
    }

    fn status(&self, name: &'static str) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context(name)?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                bail!("the node ended with {status}:\n{log}");
            }
            anyhow::ensure!(began.elapsed() < Duration::from_secs(60), "the node does not listen");
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

impl Setup {
    fn config(&self) -> String {
        let Self { upstream, memory, repository, access, .. } = self;
        let log = if *access { "[log]\naccess = \"access.log\"\n" } else { "" };
        format!(
            r#"[server]
listen = "ADDRESS"
tls = {{ cert = "server.pem", key = {{ file = "server.key" }} }}

[admin]
socket = "admin.sock"

[cache]
dir = "cache"
size = "64GiB"
memory = "{memory}"

[limits]
connections_per_address = 5000

[[repository]]
name = "o"
path = "/o/"
upstreams = ["{upstream}"]
{repository}
{log}"#
        )
    }
}
