//! The nodes: an authority that is a handler, too, and two handlers in a group, each the real program behind a relay,
//! so that it keeps its address however often it is killed.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;
use waypost::testkit::client::Client;
use waypost::testkit::origin::Origin;
use waypost::testkit::pki::Authority;
use waypost::testkit::process::{Process, Signal, Site};
use waypost::testkit::publisher::{CURRENT, Edition, ROOT};
use waypost::testkit::relay::{Carries, Relay};

use crate::pace;

/// The nodes, the authority first.
pub(crate) const NODES: [&str; 3] = ["hq", "north", "south"];

/// Bytes of a content file.
const LENGTH: usize = 6_000;
const PAYLOADS: usize = 2;

/// How a node is treated at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Well,
    Dead,
    Frozen,
    Cut,
}

/// One node.
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) site: Site,
    pub(crate) relay: Relay,
    pub(crate) health: Health,
    process: Option<Process>,
}

impl Node {
    /// Where agents find it.
    pub(crate) fn address(&self) -> String {
        self.relay.address().to_string()
    }

    pub(crate) fn process(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    async fn start(&mut self) {
        let process = self.site.start().await;
        self.relay.lead_to(process.tls);
        self.process = Some(process);
        self.health = Health::Well;
    }

    /// Ends what keeps it from working.
    pub(crate) async fn recover(&mut self) {
        match self.health {
            Health::Well => {}
            Health::Dead => self.start().await,
            Health::Frozen => self.process().signal(Signal::CONT),
            Health::Cut => self.relay.carry(Carries::All),
        }
        self.health = Health::Well;
    }

    /// Does this to it.
    pub(crate) fn suffer(&mut self, health: Health) {
        match health {
            Health::Well => {}
            Health::Dead => self.process.take().expect("it runs").kill(),
            Health::Frozen => self.process().signal(Signal::STOP),
            Health::Cut => self.relay.carry(Carries::Nothing),
        }
        self.health = health;
    }

    /// What its admin API answers to a GET; nothing where the answer is none.
    pub(crate) async fn ask(&self, path: &str) -> Value {
        let socket = self.site.dir.join("admin.sock");
        let Ok(mut client) = Client::connect_unix(&socket).await else { return Value::Null };
        let Ok(answer) = client.get(path, &[("connection", "close")]).await else { return Value::Null };
        serde_json::from_slice(&answer.body).unwrap_or_default()
    }

    /// Whether it shows this edition.
    pub(crate) async fn shows(&self, edition: u64, authority: &Authority) -> bool {
        let Ok(mut client) = Client::connect_tls(self.relay.address(), "127.0.0.1", authority).await else {
            return false;
        };
        let answer = client.get(&format!("/Software/{ROOT}"), &[]).await;
        let root = answer.map(|answer| String::from_utf8_lossy(&answer.body).into_owned());
        root.is_ok_and(|root| root.contains(&format!("CatalogVersion=\"{edition}\"")))
    }

    /// Streams and tunnels that it has given up although nobody had closed them.
    pub(crate) async fn given_up(&self) -> f64 {
        self.process().metric("waypost_agent_disconnects_total{cause=\"ping-timeout\"}").await
    }

    /// What an operator says on its command line; the answer as JSON.
    pub(crate) async fn operate(&self, words: &[&str]) -> Value {
        self.site.json(words).await
    }
}

/// Everything but the agents.
pub(crate) struct World {
    pub(crate) authority: Authority,
    pub(crate) nodes: Vec<Node>,
    pub(crate) edition: Arc<Edition>,
    pub(crate) master: Arc<Origin>,
    dir: TempDir,
}

impl World {
    /// With its first edition and its first documents.
    pub(crate) async fn begin(documents: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let authority = Authority::new("story's test CA");
        let master = Arc::new(Origin::start().await);
        let edition = Arc::new(Edition::new(1, PAYLOADS, LENGTH));
        edition.publish(&master, "/");
        let mut nodes = Vec::new();
        for name in NODES {
            // Where it leads to is said when the node has been started.
            let relay = Relay::open(SocketAddr::from(([127, 0, 0, 1], 9))).await;
            let home = dir.path().join(name);
            fs::create_dir(&home).expect("a directory");
            let site = Site::new(env!("CARGO_BIN_EXE_waypost"), &home);
            nodes.push(Node { name, site, relay, health: Health::Dead, process: None });
        }
        let mut world = Self { authority, nodes, edition, master, dir };
        world.document("fleet.toml", documents);
        world.document("rules.toml", "[[tree]]\npath = \"/\"\npolicies = [\"av/base\"]\n");
        world.document("policies/av/base.json", "{\"scan\":true}\n");
        for place in 0..NODES.len() {
            world.configure(place);
            world.nodes[place].start().await;
        }
        world
    }

    /// A place in the directory of all of it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn configure(&self, place: usize) {
        let Node { name, site, .. } = &self.nodes[place];
        let (hq, above) = (self.nodes[0].address(), place > 0);
        let issued = self.authority.server(&["127.0.0.1"]);
        for (file, text) in
            [("node.pem", issued.cert), ("node.key", issued.key), ("ca.pem", self.authority.pem())]
        {
            fs::write(site.dir.join(file), text).expect("it can be written");
        }
        let (upstream, control) = if above {
            (
                format!("upstreams = [\"https://{hq}/Software/\"]\nca = \"ca.pem\""),
                format!("upstream = \"https://{hq}/\"\nca = \"ca.pem\""),
            )
        } else {
            let master = self.master.url();
            (format!("upstreams = [\"{master}\"]"), "directory = \"fleet\"\ncheck_every = \"1h\"".to_owned())
        };
        let interval = pace::CHECK_IN.as_secs();
        site.write_config(&format!(
            "[server]\nlisten = \"127.0.0.1:0\"\ntls = {{ cert = \"node.pem\", key = {{ file = \"node.key\" }} }}\n\
             node = \"{name}\"\n\n[admin]\nsocket = \"admin.sock\"\n\n\
             [cache]\ndir = \"cache\"\nsize = \"64MiB\"\nmemory = \"8MiB\"\nmin_free = \"0B\"\n\n\
             [limits]\nconnections_per_address = 5000\n\n\
             [[repository]]\nname = \"software\"\npath = \"/Software/\"\npreset = \"epo\"\n{upstream}\n\
             check_every = \"1s\"\nprepare = \"all\"\n\n\
             [control]\nstate_dir = \"state\"\nhold = \"5s\"\n{control}\n\n\
             [agents]\ncheckin_interval = \"{interval}s\"\nping_after = \"5s\"\nping_timeout = \"60s\"\n\n\
             [log]\nformat = \"json\"\n"
        ));
    }

    /// Writes one of the fleet's documents.
    pub(crate) fn document(&self, name: &str, text: &str) {
        let path = self.nodes[0].site.dir.join("fleet").join(name);
        fs::create_dir_all(path.parent().expect("it has a directory")).expect("a directory");
        fs::write(path, text).expect("it can be written");
    }

    /// The addresses of the nodes, by their names.
    pub(crate) fn addresses(&self) -> BTreeMap<&'static str, String> {
        self.nodes.iter().map(|node| (node.name, node.address())).collect()
    }

    /// The next edition, as it will be when it is published.
    pub(crate) fn next_edition(&mut self) -> (Arc<Edition>, Arc<Edition>) {
        let before = Arc::clone(&self.edition);
        self.edition = Arc::new(Edition::new(before.number + 1, PAYLOADS, LENGTH));
        (before, Arc::clone(&self.edition))
    }

    /// What the directory of every agent has when it is up to date.
    pub(crate) fn published(&self) -> BTreeMap<String, Vec<u8>> {
        let own = |path: &str| path.strip_prefix(CURRENT).map(str::to_owned);
        let files = self.edition.files.iter().filter_map(|(path, body)| Some((own(path)?, body.to_vec())));
        files.filter(|(name, _)| name != "Replica.log").collect()
    }

    /// All that nodes said, for who looks for the cause of a failure.
    pub(crate) fn logs(&self) -> String {
        let log = |node: &Node| {
            let lines = node.process.as_ref().map(Process::log).unwrap_or_default();
            let from = lines.len().saturating_sub(40);
            format!("{}:\n{}\n", node.name, lines.get(from..).unwrap_or_default().join("\n"))
        };
        self.nodes.iter().map(log).collect()
    }
}

/// The documents: who belongs where, and which handlers each place has. `turn` has them the other way round.
pub(crate) fn documents(nodes: &BTreeMap<&str, String>, agents: &[(String, usize)], turn: bool) -> String {
    let mut text = String::new();
    for (name, address) in nodes {
        text += &format!(
            "[[handler]]\nname = \"{name}\"\ninternal = \"{address}\"\nrepositories = [\"Software\"]\n\n"
        );
    }
    text += "[[group]]\nname = \"branch\"\norder = \"balanced\"\nmembers = [\"north\", \"south\"]\n\n";
    text += "[[group]]\nname = \"southern\"\norder = \"priority\"\nmembers = [\"south\", \"north\"]\n\n";
    for (place, name) in PLACES.iter().enumerate() {
        let of = agents.iter().filter(|(_, at)| *at == place).map(|(id, _)| format!("{id:?}"));
        let of: Vec<String> = of.collect();
        text += &format!("[[tree]]\npath = \"/{name}\"\nagents = [{}]\n\n", of.join(", "));
    }
    let handlers = if turn {
        ["\"southern\", \"hq\"", "\"branch\", \"hq\"", "\"north\", \"hq\", \"south\""]
    } else {
        ["\"branch\", \"hq\"", "\"southern\", \"hq\"", "\"hq\", \"branch\""]
    };
    for (name, handlers) in PLACES.iter().zip(handlers) {
        text +=
            &format!("[[assignment]]\nname = \"{name}\"\ntree = [\"/{name}\"]\nhandlers = [{handlers}]\n\n");
    }
    text
}

/// Where agents are.
pub(crate) const PLACES: [&str; 3] = ["shop", "depot", "office"];

/// Whether the files of a directory are these, and no others.
pub(crate) fn has_exactly(dir: &Path, wanted: &BTreeMap<String, Vec<u8>>) -> Result<(), String> {
    let found = fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let mut seen = 0;
    for entry in found.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let body = fs::read(entry.path()).map_err(|error| format!("{name}: {error}"))?;
        match wanted.get(&name) {
            Some(right) if *right == body => seen += 1,
            Some(_) => return Err(format!("{name} has wrong bytes")),
            None => return Err(format!("{name} was not published")),
        }
    }
    if seen == wanted.len() { Ok(()) } else { Err(format!("{seen} of {} files", wanted.len())) }
}
