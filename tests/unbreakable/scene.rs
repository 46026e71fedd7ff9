//! A node that does everything which ends on its disk, what it has acknowledged of that, and whether it is true.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use waypost::testkit::client::{Answer, Client, End};
use waypost::testkit::content;
use waypost::testkit::node::Home;
use waypost::testkit::origin::Origin;
use waypost::testkit::process::{Process, Site, eventually};
use waypost::testkit::publisher::{Edition, ROOT};
use waypost::testkit::script::Script;

pub(crate) const WAYPOST: &str = env!("CARGO_BIN_EXE_waypost");

/// Files of all sizes that are kept differently: in the record, in one block, in several.
const FILES: [(&str, u64); 3] = [("small", 700), ("one", 300_000), ("three", (2 << 20) + 5)];

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Files are fetched, and one is purged.
    Files,
    /// An agent checks in.
    Agents,
    /// Documents change; nodes are told to do something.
    Control,
    /// A new edition of a repository comes out.
    Edition,
}

/// A place with a node, and what was acknowledged there.
pub(crate) struct Scene {
    pub(crate) origin: Origin,
    pub(crate) site: Site,
    pub(crate) home: Home,
    /// Rounds of work so far; every one has other files.
    round: u64,
    /// The last check-in that was acknowledged, and the last one sent.
    check_in: (u64, u64),
    /// The version of the documents that was said to be in force.
    version: u64,
    /// Documents written so far.
    documents: u64,
    /// Orders that were taken for a node which never comes.
    orders: u64,
    /// What `/o/purged` holds now, and whether the purge of what it held before was acknowledged.
    purged: (u64, bool),
    /// The number of the edition that is on the origin.
    edition: u64,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let home = Home::new();
        let origin = Origin::start().await;
        let url = origin.url();
        let site = Site::new(WAYPOST, home.dir());
        site.write_config(&format!(
            "[server]\nplain_listen = \"127.0.0.1:0\"\nnode = \"hq\"\n\n[admin]\nsocket = \"admin.sock\"\n\n\
             [cache]\ndir = \"disk/cache\"\nsize = \"64MiB\"\nmemory = \"8MiB\"\nmin_free = \"0B\"\n\n\
             [control]\nstate_dir = \"disk/state\"\ndirectory = \"fleet\"\nhold = \"5s\"\ncheck_every = \"1h\"\n\n\
             [agents]\nstate_dir = \"disk/agents\"\ncheckin_interval = \"10m\"\n\n\
             [[repository]]\nname = \"o\"\npath = \"/o/\"\nupstreams = [\"{url}o/\"]\n\n\
             [[repository.rule]]\nmatch = \"**\"\nimmutable = true\n\n\
             [[repository]]\nname = \"dats\"\npath = \"/dats/\"\npreset = \"epo\"\nupstreams = [\"{url}\"]\n\
             check_every = \"1s\"\nstall_timeout = \"2s\"\n\n[log]\nformat = \"json\"\n"
        ));
        fs::create_dir(home.path("disk")).expect("a directory");
        let mut scene = Self {
            origin,
            site,
            home,
            round: 0,
            check_in: (0, 0),
            version: 0,
            documents: 0,
            orders: 0,
            purged: (0, false),
            edition: 1,
        };
        scene.write_documents();
        scene.origin.set("/o/purged", Script::file(0, 5_000));
        Edition::new(1, 2, 3_000).publish(&scene.origin, "/");
        scene
    }

    /// Where all of its state is.
    pub(crate) fn disk(&self) -> PathBuf {
        self.home.path("disk")
    }

    fn write_documents(&mut self) {
        self.documents += 1;
        let number = self.documents;
        let fleet = format!(
            "[[handler]]\nname = \"hq\"\ninternal = \"hq{number}.example:8443\"\n\n\
             [[handler]]\nname = \"branch\"\ninternal = \"branch.example:8443\"\n\n\
             [[assignment]]\nname = \"all\"\nhandlers = [\"hq\", \"branch\"]\n"
        );
        self.home.write("fleet/fleet.toml", &fleet);
    }

    /// Does one round of work with a node that may die at any moment; returns whether it did not.
    pub(crate) async fn work(&mut self, node: &Process, what: &[Work]) -> bool {
        self.round += 1;
        for work in what {
            let done = match work {
                Work::Files => self.fetch(node).await.is_some() && self.purge(node).await.is_some(),
                Work::Agents => self.check_in(node).await.is_some(),
                Work::Control => self.control(node).await.is_some(),
                Work::Edition => self.publish(node).await.is_some(),
            };
            if !done {
                return false;
            }
        }
        // What is committed behind is part of the work.
        let mut answers = 0;
        while answers < 3 {
            tokio::time::sleep(std::time::Duration::from_millis(60)).await;
            if get(node, "/o/purged").await.is_none() {
                return false;
            }
            answers += 1;
        }
        true
    }

    async fn fetch(&self, node: &Process) -> Option<()> {
        for (seed, (name, length)) in FILES.into_iter().enumerate() {
            let (seed, path) = (self.round * 10 + seed as u64, format!("/o/{}-{name}", self.round));
            self.origin.set(&path, Script::file(seed, length));
            let answer = get(node, &path).await?;
            check(&answer, seed, length);
            (answer.end == End::Complete).then_some(())?;
        }
        Some(())
    }

    async fn purge(&mut self, node: &Process) -> Option<()> {
        get(node, "/o/purged").await?;
        self.purged = (self.round, false);
        self.origin.set("/o/purged", Script::file(self.round, 5_000));
        let told = operate(node, "POST", "/v1/purge", &json!({ "patterns": ["/o/purged"] })).await?;
        assert!(told["error"].is_null(), "{told}");
        self.purged.1 = true;
        Some(())
    }

    async fn check_in(&mut self, node: &Process) -> Option<()> {
        for _ in 0..2 {
            self.check_in.1 += 1;
            let (status, _) = said(node, self.check_in.1).await?;
            if status == 503 {
                return None;
            }
            assert_eq!(status, 200, "check-in {:?}", self.check_in);
            self.check_in.0 = self.check_in.1;
        }
        Some(())
    }

    async fn control(&mut self, node: &Process) -> Option<()> {
        self.write_documents();
        let told = operate(node, "POST", "/v1/reload", &json!({})).await?;
        let list = operate(node, "GET", "/v1/status", &Value::Null).await?;
        let version = list["control"]["version"].as_u64().unwrap_or_default();
        assert!(version > self.version, "{told} {list}");
        self.version = version;
        let ask = json!({ "kind": "purge", "on": "branch", "ask": { "patterns": ["/o/none"] } });
        let told = operate(node, "POST", "/v1/orders", &ask).await?;
        assert!(told["id"].is_string(), "{told}");
        self.orders += 1;
        let ask = json!({ "kind": "purge", "on": "hq", "ask": { "patterns": ["/o/none"] } });
        let told = operate(node, "POST", "/v1/orders", &ask).await?;
        assert!(told["id"].is_string(), "{told}");
        Some(())
    }

    /// Asks for what has to be on the disk, on a disk that takes nothing; what was said.
    pub(crate) async fn tries_everything(&mut self, node: &Process) -> [Value; 3] {
        let purge = operate(node, "POST", "/v1/purge", &json!({ "patterns": ["/o/purged"] })).await;
        let purge = purge.expect("an answer");
        assert!(purge["error"].is_object(), "a purge that does not last: {purge}");
        self.write_documents();
        let reload = operate(node, "POST", "/v1/reload", &json!({})).await.expect("an answer");
        let ask = json!({ "kind": "purge", "on": "branch", "ask": { "patterns": ["/o/none"] } });
        let order = operate(node, "POST", "/v1/orders", &ask).await.expect("an answer");
        let became = &order["nodes"][0]["state"];
        assert_eq!(became, "failed", "an order that does not last: {order}");
        [purge, reload, order]
    }

    /// What was sent last was not acknowledged, and may have been taken all the same.
    pub(crate) fn next_check_in(&mut self) {
        self.check_in.1 = self.check_in.1.max(2_000) + 10;
    }

    async fn publish(&mut self, node: &Process) -> Option<()> {
        self.edition += 1;
        Edition::new(self.edition, 2, 3_000).publish(&self.origin, "/");
        // Two looks a second apart, and the answers of both; many times that on a busy machine.
        for _ in 0..600 {
            let root = get(node, &format!("/dats/{ROOT}")).await?;
            if root.status == 200 && number(&root) == Some(self.edition) {
                return Some(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("edition {} is never shown", self.edition);
    }

    /// Whether everything that was acknowledged is there, all bytes are right, and nothing is left lying about.
    pub(crate) async fn examine(&mut self, node: &Process, power_cut: bool) {
        let log = || node.log().join("\n");
        assert!(!node.said("panicked") && !node.said("damaged"), "{}", log());
        self.examine_agents(node).await;
        self.examine_control(node).await;
        // What is older was looked at before.
        for round in self.round.saturating_sub(2).max(1)..=self.round {
            for (seed, (name, length)) in FILES.into_iter().enumerate() {
                let (seed, path) = (round * 10 + seed as u64, format!("/o/{round}-{name}"));
                self.origin.set(&path, Script::file(seed, length));
                let answer = node.get(&path, &[]).await;
                assert_eq!((answer.status, answer.end), (200, End::Complete), "{path}\n{}", log());
                check(&answer, seed, length);
            }
        }
        let purged = node.get("/o/purged", &[]).await;
        let (seed, acknowledged) = self.purged;
        let is_new = purged.body == content::whole(seed, 5_000);
        assert!(is_new || !acknowledged, "what was purged is back");
        assert_eq!((purged.status, purged.body.len()), (200, 5_000));
        self.examine_edition(node).await;
        if !power_cut {
            let bad = node.metric("waypost_cache_integrity_failures_total{where=\"read\"}").await;
            assert_eq!(bad, 0.0, "a kill costs no block that is named");
        }
        eventually("no temporary file is left", async || leftovers(&self.disk()).is_empty()).await;
    }

    async fn examine_agents(&mut self, node: &Process) {
        let (acknowledged, sent) = self.check_in;
        if acknowledged > 0 {
            let (status, told) = said(node, acknowledged).await.expect("an answer");
            let expected = told["expected"].as_u64().unwrap_or_default();
            assert_eq!(status, 409, "check-in {acknowledged} was acknowledged and is not known: {told}");
            assert!(
                (acknowledged + 1..=sent + 1).contains(&expected),
                "{expected} after {:?}",
                self.check_in
            );
        }
    }

    async fn examine_control(&mut self, node: &Process) {
        let list = node.status().await;
        let version = list["control"]["version"].as_u64().unwrap_or_default();
        assert!(version >= self.version, "version {} was in force, {version} is now", self.version);
        let answer = node.get("/agent/v1/sitelist.xml", &[("waypost-agent", "pc-1")]).await;
        assert_eq!(answer.status, 200);
        let handlers = operate(node, "GET", "/v1/handlers", &Value::Null).await.expect("an answer");
        let all = handlers["handlers"].as_array().cloned().unwrap_or_default();
        let waiting = all.iter().find(|it| it["name"] == "branch").and_then(|it| it["waiting"].as_u64());
        let waiting = waiting.unwrap_or_default();
        assert!(waiting >= self.orders, "{} orders were taken, {waiting} wait", self.orders);
    }

    /// All that an agent reads is of one edition.
    async fn examine_edition(&self, node: &Process) {
        let mut root = node.get(&format!("/dats/{ROOT}"), &[]).await;
        // After a power cut there may be nothing to show before upstream was asked.
        for _ in 0..200 {
            if root.status == 200 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            root = node.get(&format!("/dats/{ROOT}"), &[]).await;
        }
        let number = number(&root).unwrap_or_else(|| panic!("no root: {root:?}\n{}", node.log().join("\n")));
        assert!((1..=self.edition).contains(&number), "edition {number} was never published");
        let edition = Edition::new(number, 2, 3_000);
        for (path, body) in edition.files.iter().filter(|(path, _)| path != ROOT) {
            let answer = node.get(&format!("/dats/{path}"), &[]).await;
            // What the edition before had under a name of its own is gone from the origin.
            assert!(answer.status == 200 || number < self.edition, "{path} of {number}: {answer:?}");
            if answer.status == 200 && answer.end == End::Complete {
                let later = Edition::new(self.edition, 2, 3_000);
                let is_later = number < self.edition && later.find(path) == Some(&answer.body);
                assert!(answer.body == *body || is_later, "{path} of edition {number} is another's");
            }
        }
    }
}

fn number(root: &Answer) -> Option<u64> {
    let text = std::str::from_utf8(&root.body).ok()?;
    text.split("CatalogVersion=\"").nth(1)?.split('"').next()?.parse().ok()
}

/// Whatever came of it has to be the beginning of the file, and all of it where it looks whole.
fn check(answer: &Answer, seed: u64, length: u64) {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body == content::piece(seed, 0, answer.body.len()), "wrong bytes of {seed}");
    assert!(answer.end != End::Complete || answer.body.len() as u64 == length, "a stump of {seed}");
}

/// A GET; nothing where the node is gone.
pub(crate) async fn get(node: &Process, path: &str) -> Option<Answer> {
    Client::connect(node.address).await.ok()?.get(path, &[]).await.ok()
}

/// A check-in; nothing where nobody answers.
pub(crate) async fn said(node: &Process, sequence: u64) -> Option<(u16, Value)> {
    let body = json!({ "sequence": sequence, "boot": "b001", "properties": { "host": "pc" } }).to_string();
    let length = body.len();
    let mut client = Client::connect(node.address).await.ok()?;
    let request = format!(
        "POST /agent/v1/checkin HTTP/1.1\r\nhost: localhost\r\nwaypost-agent: pc-1\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    client.send(request.as_bytes()).await.ok()?;
    let answer = client.read_answer("POST").await.ok()?;
    Some((answer.status, serde_json::from_slice(&answer.body).unwrap_or_default()))
}

/// An operator's question; nothing where the node is gone.
pub(crate) async fn operate(node: &Process, method: &str, path: &str, ask: &Value) -> Option<Value> {
    let body = if ask.is_null() { String::new() } else { ask.to_string() };
    let mut client = Client::connect_unix(node.admin()).await.ok()?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    client.send(request.as_bytes()).await.ok()?;
    let answer = client.read_answer(method).await.ok()?;
    serde_json::from_slice(&answer.body).ok()
}

/// All regular files below `dir`.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let below = entries.flatten().flat_map(|entry| {
        let path = entry.path();
        if path.is_dir() { files_below(&path) } else { vec![path] }
    });
    below.collect()
}

/// Files that nobody but a crash leaves behind.
fn leftovers(dir: &Path) -> Vec<PathBuf> {
    let is_left = |path: &PathBuf| {
        let within = path.strip_prefix(dir).unwrap_or(path);
        let of_temporaries = within.iter().any(|part| part == "tmp" || part == "tmp.old");
        of_temporaries || path.extension().is_some_and(|it| it == "new")
    };
    files_below(dir).into_iter().filter(is_left).collect()
}
