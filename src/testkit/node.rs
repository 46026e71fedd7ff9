//! A whole node in this process: from a `waypost.toml` made for it, in a directory of its own, with its own CA.
//!
//! [`Home`] is what survives a restart (directory, CA, cache), [`Plan`] what the configuration says, [`TestNode`] a
//! node that runs. `Home::new().start(&Plan::upstreams(&[&origin.url()])).await` is enough for most tests.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::client::{Answer, Client};
use super::pki::Authority;
pub use super::wait::eventually;
use crate::app::Node;
use crate::base::clock::Clock;
use crate::config;
use crate::server::Phase;

/// The name in the node's certificate and in its `Via`.
pub const NAME: &str = "localhost";

/// What a node's configuration says. Every part is lines of TOML for that table.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `[server]`, beside addresses, certificate and node name.
    pub server: String,
    /// `[cache]`, beside the directory.
    pub cache: String,
    /// `[limits]`, beside `connections_per_address`.
    pub limits: String,
    /// All `[[repository]]` and `[[repository.rule]]` tables.
    pub repositories: String,
    /// The node's name.
    pub node: String,
}

impl Plan {
    /// With these repositories, 256 MiB of cache, and 16 MiB of memory.
    pub fn new(repositories: impl Into<String>) -> Self {
        Self {
            server: String::new(),
            cache: "size = \"256MiB\"\nmemory = \"16MiB\"\nmin_free = \"0B\"\n".to_owned(),
            limits: String::new(),
            repositories: repositories.into(),
            node: NAME.to_owned(),
        }
    }

    /// One repository `files` at `/` from these URLs, the first one first.
    pub fn upstreams(urls: &[&str]) -> Self {
        let trust = if urls.iter().any(|url| url.starts_with("https:")) { "ca = \"ca.pem\"\n" } else { "" };
        Self::new(format!("[[repository]]\nname = \"files\"\npath = \"/\"\nupstreams = {urls:?}\n{trust}"))
    }

    /// One repository `files` at `/` from `directory`.
    pub fn directory(directory: &Path) -> Self {
        Self::new(format!("[[repository]]\nname = \"files\"\npath = \"/\"\ndirectory = {directory:?}\n"))
    }

    /// With further lines at the end: keys of the last repository, or tables.
    #[must_use]
    pub fn with(mut self, lines: &str) -> Self {
        self.repositories.push_str(lines);
        self.repositories.push('\n');
        self
    }

    /// Of a node of this name.
    #[must_use]
    pub fn named(mut self, node: &str) -> Self {
        node.clone_into(&mut self.node);
        self
    }

    /// With further lines in `[limits]`.
    #[must_use]
    pub fn with_limits(mut self, lines: &str) -> Self {
        self.limits.push_str(lines);
        self.limits.push('\n');
        self
    }

    /// With exactly these lines in `[cache]`, beside the directory.
    #[must_use]
    pub fn with_cache(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.cache);
        self
    }

    fn render(&self, plain: u16) -> String {
        let Self { server, cache, limits, repositories, node } = self;
        format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nplain_listen = \"127.0.0.1:{plain}\"\n\
             tls = {{ cert = \"node.pem\", key = {{ file = \"node.key\" }} }}\nnode = \"{node}\"\n{server}\n\
             [admin]\nsocket = \"admin.sock\"\n\n[cache]\ndir = \"cache\"\n{cache}\n\
             [limits]\nconnections_per_address = 5000\n{limits}\n{repositories}"
        )
    }
}

/// A directory for one node: configuration, certificates, cache. It goes when the last holder of it goes.
#[derive(Clone, Debug)]
pub struct Home(Arc<Folder>);

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    authority: Authority,
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A node that was dropped may still write for a moment.
        for _ in 0..20 {
            if fs::remove_dir_all(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    /// With a new CA (`ca.pem`) and a certificate for [`NAME`] and 127.0.0.1.
    pub fn new() -> Self {
        let mut random = [0; 8];
        getrandom::fill(&mut random).expect("the system has random numbers");
        let name = format!("waypost-test-{:016x}", u64::from_le_bytes(random));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a directory can be made");
        let authority = Authority::new("waypost test CA");
        let issued = authority.server(&[NAME, "127.0.0.1"]);
        let home = Self(Arc::new(Folder { path, authority }));
        home.write("ca.pem", &home.authority().pem());
        home.write("node.pem", &issued.cert);
        home.write("node.key", &issued.key);
        home
    }

    /// The CA, for origins that the node is to trust and for clients that trust the node.
    pub fn authority(&self) -> &Authority {
        &self.0.authority
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.0.path
    }

    /// A path in it. Relative paths of the configuration are below it; the cache is `cache`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path.join(name)
    }

    /// Writes a file into it, with the directories above.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a file has a directory")).expect("directories can be made");
        fs::write(&path, text).expect("a file can be written");
        path
    }

    /// Starts a node here.
    pub async fn start(&self, plan: &Plan) -> TestNode {
        self.start_at(plan, 0).await
    }

    /// As [`Home::start`], with a plain port chosen before: for a node that is its own upstream, or a restart.
    pub async fn start_at(&self, plan: &Plan, plain: u16) -> TestNode {
        self.start_with(plan, plain, Clock::system()).await
    }

    /// As [`Home::start_at`], with a clock that the test turns.
    pub async fn start_with(&self, plan: &Plan, plain: u16, clock: Clock) -> TestNode {
        // The socket of a node that was dropped without stopping is in the way.
        drop(fs::remove_file(self.path("admin.sock")));
        let file = self.write("waypost.toml", &plan.render(plain));
        let config = match config::load(&file) {
            Ok((config, _)) => config,
            Err(found) => unreachable!("the plan is wrong: {found}"),
        };
        let node = Node::start_with(&config, clock).await.expect("a checked configuration starts");
        let first = |addresses: &[SocketAddr]| *addresses.first().expect("it listens");
        TestNode {
            tls: first(&node.addresses),
            plain: first(&node.plain),
            node: Some(node),
            home: self.clone(),
        }
    }
}

/// A node that runs. Dropping it stops it without waiting.
pub struct TestNode {
    /// Where it listens with TLS.
    pub tls: SocketAddr,
    /// Where it listens without.
    pub plain: SocketAddr,
    node: Option<Node>,
    home: Home,
}

impl TestNode {
    /// A plain connection to it.
    pub async fn client(&self) -> Client {
        Client::connect(self.plain).await.expect("the node accepts")
    }

    /// An HTTPS connection to it.
    pub async fn tls_client(&self) -> Client {
        let authority = self.home.authority();
        Client::connect_tls(self.tls, NAME, authority).await.expect("the node accepts and its CA is ours")
    }

    /// One GET on a plain connection of its own.
    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.client().await.get(path, headers).await.expect("the node answers")
    }

    /// What the operator's socket says at `path`, such as `/metrics`: the body alone.
    pub async fn admin(&self, path: &str) -> String {
        self.ask_admin(&format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")).await
    }

    /// What the operator's API answers to a question with this JSON.
    pub async fn operate(&self, method: &str, path: &str, json: &str) -> serde_json::Value {
        let length = json.len();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n");
        let body = format!("content-type: application/json\r\ncontent-length: {length}\r\n\r\n{json}");
        let ends = if json.is_empty() { "\r\n" } else { &body };
        serde_json::from_str(&self.ask_admin(&(head + ends)).await).expect("the answer is JSON")
    }

    async fn ask_admin(&self, request: &str) -> String {
        let mut socket =
            UnixStream::connect(self.home.path("admin.sock")).await.expect("the socket is there");
        socket.write_all(request.as_bytes()).await.expect("the socket takes a request");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("the socket answers");
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
    }

    /// What the node says it is doing (`/v1/status`).
    pub async fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.admin("/v1/status").await).expect("the status is JSON")
    }

    /// Fills that run now.
    pub async fn fills(&self) -> usize {
        self.status()
            .await
            .get("fills")
            .and_then(|fills| fills.as_array().map(Vec::len))
            .expect("it is a list")
    }

    /// Readers of the fills that run now.
    pub async fn readers(&self) -> u64 {
        self.metric("waypost_fill_followers").await
    }

    /// The value of a series in the metrics, named as there with its labels; 0 where there is none.
    pub async fn metric(&self, series: &str) -> u64 {
        let text = self.admin("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// Waits until no fill runs: the last byte reaches an agent a moment before its fill is over.
    ///
    /// # Panics
    /// A fill goes on for half a minute.
    pub async fn settled(&self) {
        eventually("no fill runs", async || {
            let status = self.admin("/v1/status").await;
            let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
            status.get("fills").and_then(|fills| fills.as_array()).is_some_and(Vec::is_empty)
        })
        .await;
    }

    /// Where it lives.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Orders a phase, without waiting.
    pub fn order(&self, phase: Phase) {
        if let Some(node) = &self.node {
            node.order(phase);
        }
    }

    /// Stops it in order; its home is free for the next one then.
    pub async fn stop(mut self) -> Home {
        if let Some(node) = self.node.take() {
            node.order(Phase::Stop);
            node.ended().await.expect("the node ran");
        }
        self.home.clone()
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.order(Phase::Stop);
    }
}

impl std::fmt::Debug for TestNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestNode").field("tls", &self.tls).field("plain", &self.plain).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::content;
    use crate::testkit::origin::Origin;
    use crate::testkit::script::Script;

    #[tokio::test]
    async fn a_node_starts_serves_stops_and_starts_again_with_its_cache() {
        let origin = Origin::start().await;
        origin.set("/a.zip", Script::file(5, 70_000));
        let plan =
            Plan::upstreams(&[&origin.url()]).with("[[repository.rule]]\nmatch = \"**\"\nimmutable = true");
        let node = Home::new().start(&plan).await;
        let answer = node.get("/a.zip", &[]).await;
        assert_eq!((answer.status, answer.body), (200, content::whole(5, 70_000)));
        // The last byte is sent before the last block is sealed.
        eventually("the fill is over", async || node.fills().await == 0).await;
        let home = node.stop().await;
        let node = home.start(&plan).await;
        let answer = node.tls_client().await.get("/a.zip", &[]).await.unwrap();
        assert_eq!((answer.status, answer.body), (200, content::whole(5, 70_000)));
        assert_eq!(node.fills().await, 0);
        eventually("it is counted", async || node.metric("waypost_cache_objects").await == 1).await;
        assert_eq!(origin.counts("/a.zip").requests, 1);
    }
}
