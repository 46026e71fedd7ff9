//! The real program as a child process that can be killed, and a directory in which it starts again and again.
//!
//! [`Site`] is what survives a `kill -9` (configuration and cache), [`Setup`] what the configuration says,
//! [`Process`] one run. A run that is dropped is killed.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

use super::client::{Answer, Client};
pub use super::wait::eventually;
use super::wait::{DEADLINE, LOOK};

/// From the end of its connections to the end of a process that goes down.
const LAST_BREATH: Duration = Duration::from_secs(1);

/// Whether the long versions of tests are asked for (`WAYPOST_LONG=1`, as continuous integration does).
pub fn is_long() -> bool {
    std::env::var_os("WAYPOST_LONG").is_some_and(|value| value == "1")
}

/// Numbers that look random and come again with the same seed.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Seeded by `WAYPOST_SEED`, else by `default`; says which, so that a failure can be replayed.
    pub fn seeded(default: u64) -> Self {
        let seed = std::env::var("WAYPOST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(default);
        say_seed(seed);
        Self(seed)
    }

    /// Another one, for a task of its own.
    #[must_use]
    pub fn split(&mut self) -> Self {
        Self(self.next())
    }

    /// From 0 up to `end`, which it never reaches.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}

#[expect(clippy::print_stderr, reason = "a test runner shows it beside the failure")]
fn say_seed(seed: u64) {
    eprintln!("replay with WAYPOST_SEED={seed}");
}

/// What the configuration says: one repository `o` at `/o/`, all of it immutable by rule.
#[derive(Clone, Debug)]
pub struct Setup {
    /// URLs of the upstreams.
    pub upstreams: Vec<String>,
    /// The cache directory.
    pub cache: PathBuf,
    /// The plain listener.
    pub listen: String,
    /// `size` of the cache.
    pub size: String,
    /// More lines in `[server]`.
    pub server: String,
    /// More lines of the repository.
    pub repository: String,
    /// Whether the node has an access log, `access.log` in the site.
    pub access: bool,
}

impl Setup {
    /// A cache of 256 MiB in front of `upstream`, with the least memory there is, so that hits come from disk.
    pub fn new(site: &Site, upstream: &str) -> Self {
        Self {
            upstreams: vec![format!("{upstream}o/")],
            cache: site.dir.join("cache"),
            listen: "127.0.0.1:0".to_owned(),
            size: "256MiB".to_owned(),
            server: String::new(),
            repository: String::new(),
            access: false,
        }
    }

    fn render(&self) -> String {
        let Self { upstreams, cache, listen, size, server, repository, access } = self;
        let access = if *access { "access = \"access.log\"\n" } else { "" };
        format!(
            "[server]\nplain_listen = {listen:?}\nnode = \"test\"\n{server}\n[admin]\nsocket = \"admin.sock\"\n\n\
             [cache]\ndir = {cache:?}\nsize = {size:?}\nmemory = \"8MiB\"\nmin_free = \"0B\"\n\n\
             [[repository]]\nname = \"o\"\npath = \"/o/\"\nupstreams = {upstreams:?}\n{repository}\n\n\
             [[repository.rule]]\nmatch = \"**\"\nimmutable = true\n\n[log]\nformat = \"json\"\n{access}"
        )
    }
}

/// A directory with a configuration, in which nodes run one after the other.
#[derive(Clone, Debug)]
pub struct Site {
    binary: PathBuf,
    /// Where everything is.
    pub dir: PathBuf,
    environment: Vec<(String, String)>,
    under: Vec<String>,
}

impl Site {
    /// In `dir`, with the program at `binary`.
    pub fn new(binary: &str, dir: &Path) -> Self {
        Self { binary: binary.into(), dir: dir.to_owned(), environment: Vec::new(), under: Vec::new() }
    }

    /// The same one, whose nodes have this in their environment.
    #[must_use]
    pub fn with_environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same one, whose nodes are started by this program (such as `prlimit`), which has to become the node.
    #[must_use]
    pub fn under(mut self, words: &[&str]) -> Self {
        self.under = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Writes the configuration.
    pub fn configure(&self, setup: &Setup) {
        self.write_config(&setup.render());
    }

    /// Writes a configuration as it is.
    pub fn write_config(&self, text: &str) {
        std::fs::write(self.dir.join("waypost.toml"), text).expect("the configuration can be written");
    }

    /// Runs the command line against the node of this site, and waits for its end: exit code, stdout and stderr.
    pub async fn run(&self, words: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(&self.binary);
        command.args(words).args(["-c", "waypost.toml"]).current_dir(&self.dir).stdin(Stdio::null());
        let ended = tokio::task::spawn_blocking(move || command.output()).await;
        let output = ended.expect("nothing breaks off").expect("the program runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    /// Runs a command that has to end well, and reads its answer.
    ///
    /// # Panics
    /// It does not.
    pub async fn json(&self, words: &[&str]) -> serde_json::Value {
        let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
        let (code, out, talk) = self.run(&words).await;
        assert_eq!(code, 0, "{words:?}: {talk}");
        serde_json::from_str(&out).expect("JSON")
    }

    /// Starts the node and does not wait for anything.
    pub fn spawn(&self) -> Process {
        let began = Instant::now();
        let mut words = self.under.iter().map(AsRef::as_ref).chain([self.binary.as_os_str()]);
        let mut child = Command::new(words.next().unwrap_or_default())
            .args(words)
            .args(["serve", "-c", "waypost.toml"])
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.dir)
            .env_remove("WAYPOST_CONFIG")
            .env_remove("WAYPOST_COLOR")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let talk = child.stderr.take().expect("its stderr is a pipe");
        listen_to(talk, Arc::clone(&lines));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Process {
            child: Mutex::new(child),
            lines,
            admin: self.dir.join("admin.sock"),
            address: nowhere,
            tls: nowhere,
            began,
            took: Duration::ZERO,
        }
    }

    /// Starts the node and waits until it listens.
    ///
    /// # Panics
    /// It ends before, or does not listen within a minute.
    pub async fn start(&self) -> Process {
        match self.try_start().await {
            Ok(process) => process,
            Err(process) => unreachable!("the node does not listen\n{}", process.log().join("\n")),
        }
    }

    /// As [`Site::start`]; the process where it has ended, or has not listened within a minute.
    ///
    /// # Errors
    /// That process.
    pub async fn try_start(&self) -> Result<Process, Box<Process>> {
        let mut process = self.spawn();
        loop {
            if let Some((plain, tls)) = process.log().iter().find_map(|line| listening(line)) {
                process.address = plain.unwrap_or(process.address);
                process.tls = tls.unwrap_or(process.tls);
                process.took = process.began.elapsed();
                return Ok(process);
            }
            if process.is_over() || process.began.elapsed() > DEADLINE {
                return Err(Box::new(process));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// The first plain and the first TLS address in the line that says where the node listens.
fn listening(line: &str) -> Option<(Option<SocketAddr>, Option<SocketAddr>)> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    if line.get("message")? != "listening" {
        return None;
    }
    let first = |list: &str| line.get(list)?.as_str()?.split(", ").next()?.parse().ok();
    Some((first("http"), first("https")))
}

fn listen_to(talk: ChildStderr, lines: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(talk).lines().map_while(Result::ok) {
            lines.lock().push(line);
        }
    });
}

/// One run of the program.
#[derive(Debug)]
pub struct Process {
    child: Mutex<Child>,
    lines: Arc<Mutex<Vec<String>>>,
    admin: PathBuf,
    began: Instant,
    /// Where it listens without TLS.
    pub address: SocketAddr,
    /// Where it listens with TLS.
    pub tls: SocketAddr,
    /// From its start to its line that it listens.
    pub took: Duration,
}

impl Process {
    /// What it said on stderr so far.
    pub fn log(&self) -> Vec<String> {
        self.lines.lock().clone()
    }

    /// Whether a line of its log has this in it.
    pub fn said(&self, words: &str) -> bool {
        self.lines.lock().iter().any(|line| line.contains(words))
    }

    /// Where its admin socket is.
    pub fn admin(&self) -> &Path {
        &self.admin
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.child.lock().id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw).expect("a child has an id");
        kill_process(pid, signal).expect("our own child can be signalled");
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(mut self) {
        self.child.get_mut().kill().expect("our own child can be killed");
        self.child.get_mut().wait().expect("a child can be waited for");
    }

    /// Whether it has ended.
    pub fn is_over(&mut self) -> bool {
        self.child.get_mut().try_wait().expect("a child can be waited for").is_some()
    }

    /// Waits until it has ended by itself; the code, or 128 and the signal that ended it.
    pub async fn code(&mut self) -> i32 {
        let mut status: Option<ExitStatus> = None;
        eventually("the process ends", async || {
            status = self.child.get_mut().try_wait().expect("a child can be waited for");
            status.is_some()
        })
        .await;
        let status = status.expect("it has ended");
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
    }

    /// Tells it to end, and waits until it has.
    ///
    /// # Panics
    /// It did not end well, or it panicked on the way.
    pub async fn stop(self) {
        assert!(!self.said("panicked"), "{}", self.log().join("\n"));
        self.stop_whatever_it_said().await;
    }

    /// As [`Process::stop`], where a library may have panicked over a damaged file and was caught.
    ///
    /// # Panics
    /// It did not end well.
    pub async fn stop_whatever_it_said(mut self) {
        self.signal(Signal::TERM);
        let code = self.code().await;
        assert_eq!(code, 0, "{}", self.log().join("\n"));
    }

    /// A connection to it.
    pub async fn connect(&self) -> Client {
        Client::connect(self.address).await.expect("it listens")
    }

    /// One GET on a connection of its own.
    ///
    /// # Panics
    /// There is no answer; says what the node said, and whether and how it has ended.
    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let answer = async { Client::connect(self.address).await?.get(path, headers).await }.await;
        if let Err(error) = &answer {
            let fate = self.fate().await;
            assert!(answer.is_ok(), "{path}: {error}; the node {fate}\n{}", self.log().join("\n"));
        }
        answer.expect("it was looked at")
    }

    /// Whether it runs, or how it ended. One that just closed its sockets has a second to be gone.
    async fn fate(&self) -> String {
        let looked = Instant::now();
        while looked.elapsed() < LAST_BREATH {
            if let Some(status) = self.child.lock().try_wait().expect("a child can be waited for") {
                return format!("has ended: {status}");
            }
            tokio::time::sleep(LOOK).await;
        }
        "is running".to_owned()
    }

    /// One GET over the admin socket.
    pub async fn ask(&self, path: &str) -> Answer {
        let mut client = Client::connect_unix(&self.admin).await.expect("the admin socket listens");
        client.get(path, &[("connection", "close")]).await.expect("an answer")
    }

    /// The node's state as it tells it.
    pub async fn status(&self) -> serde_json::Value {
        serde_json::from_slice(&self.ask("/v1/status").await.body).expect("JSON")
    }

    /// A metric by its name and labels as they are exposed; 0 where there is none.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.ask("/metrics").await.body;
        let text = String::from_utf8_lossy(&text).into_owned();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_default()
    }

    /// Bytes of it that are resident.
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// Those that are its own, without the pages of the program, which is large where it is not optimised.
    pub fn anonymous(&self) -> u64 {
        self.memory("RssAnon:")
    }

    fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() << 10
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.get_mut().kill();
        let _ = self.child.get_mut().wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_says_where_it_listens_is_understood() {
        let line = r#"{"level":"INFO","message":"listening","http":"127.0.0.1:4000, [::1]:4001"}"#;
        assert_eq!(listening(line), Some((Some(SocketAddr::from(([127, 0, 0, 1], 4000))), None)));
        let line = r#"{"level":"INFO","message":"listening","http":"","https":"127.0.0.1:4002"}"#;
        assert_eq!(listening(line), Some((None, Some(SocketAddr::from(([127, 0, 0, 1], 4002))))));
        assert_eq!(listening("{}"), None);
        assert_eq!(listening("no JSON"), None);
    }

    #[test]
    fn dice_of_one_seed_fall_alike() {
        let (mut one, mut two) = (Dice(7), Dice(7));
        assert_eq!([one.below(100), one.below(100)], [two.below(100), two.below(100)]);
        assert_eq!(one.below(0), 0);
    }
}
