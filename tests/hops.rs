//! Real routers: the real program in network namespaces, so that hops are what a TTL loses on its way, addresses come
//! and go as they do on a laptop, and a handler disappears behind a line that says nothing.
//!
//! ```text
//!   agent ── r1 ── near        one router
//!             └─── r2 ── far   two routers
//! ```
//!
//! Needs root and the right to make namespaces; elsewhere the tests print `SKIPPED: …` with the reason and pass, except
//! under CI (`CI` is set).

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may stop at the first broken assumption, and what was skipped is said"
)]

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use waypost::agent::{Listed, Order, Status, ask};
use waypost::testkit::node::eventually;
use waypost::testkit::pki::Authority;

const NEAR: &str = "10.91.2.2:8443";
const FAR: &str = "10.91.4.2:8443";
const NEAR_6: &str = "[fd00:91:2::2]:8443";
const FAR_6: &str = "[fd00:91:4::2]:8443";

/// Looks after which something may have gone wrong because everything is slow: some seconds.
const LOOKS: u32 = 500;

/// The namespaces, each of its own test.
const PLACES: [&str; 5] = ["agent", "r1", "r2", "near", "far"];

/// The cables: a place, the words of `ip`.
const CABLES: &[(&str, &str)] = &[
    ("agent", "link add out type veth peer name agent netns r1"),
    ("r1", "link add near type veth peer name out netns near"),
    ("r1", "link add r2 type veth peer name r1 netns r2"),
    ("r2", "link add far type veth peer name out netns far"),
];

/// Both ends of each cable: a place, its device, its number in the network of this number.
const ENDS: &[(&str, &str, u8, u8)] = &[
    ("agent", "out", 1, 2),
    ("r1", "agent", 1, 1),
    ("near", "out", 2, 2),
    ("r1", "near", 2, 1),
    ("r1", "r2", 3, 1),
    ("r2", "r1", 3, 2),
    ("far", "out", 4, 2),
    ("r2", "far", 4, 1),
];

/// Who sends what it does not know to whom.
const ROUTES: &[(&str, &str)] = &[
    ("agent", "route add default via 10.91.1.1"),
    ("agent", "route add default via fd00:91:1::1"),
    ("r1", "route add 10.91.4.0/24 via 10.91.3.2"),
    ("r1", "route add fd00:91:4::/64 via fd00:91:3::2"),
    ("near", "route add default via 10.91.2.1"),
    ("near", "route add default via fd00:91:2::1"),
    ("r2", "route add default via 10.91.3.1"),
    ("r2", "route add default via fd00:91:3::1"),
    ("far", "route add default via 10.91.4.1"),
    ("far", "route add default via fd00:91:4::1"),
];

/// Namespaces with cables between them, and the programs in them. Dropping it ends and removes all of it.
struct Lab {
    number: u32,
    handlers: Vec<Child>,
    agent: Option<Child>,
    dir: tempfile::TempDir,
}

impl Lab {
    /// `None` where we may not.
    fn new() -> Option<Self> {
        static NUMBERS: AtomicU32 = AtomicU32::new(0);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::tempdir().expect("a directory");
        let lab = Self { number, handlers: Vec::new(), agent: None, dir };
        lab.write("hosts", "127.0.0.1 localhost\n");
        match lab.build() {
            Ok(()) => {
                lab.wire();
                Some(lab)
            }
            Err(why) => {
                println!("SKIPPED: network namespaces cannot be made here: {why}");
                assert!(std::env::var_os("CI").is_none(), "this test may not be skipped in CI");
                None
            }
        }
    }

    /// What may not be allowed, or not be there.
    fn build(&self) -> Result<(), String> {
        for place in PLACES {
            done("ip", &["netns", "add", &self.name(place)])?;
        }
        for (place, words) in CABLES {
            self.ip(place, words)?;
        }
        for router in ["r1", "r2"] {
            let forward = "echo 1 >/proc/sys/net/ipv4/ip_forward && \
                           echo 1 >/proc/sys/net/ipv6/conf/all/forwarding";
            done("ip", &["netns", "exec", &self.name(router), "sh", "-c", forward])?;
        }
        Ok(())
    }

    fn wire(&self) {
        for (place, device, network, number) in ENDS {
            self.does(place, &format!("addr add 10.91.{network}.{number}/24 dev {device}"));
            self.does(place, &format!("addr add fd00:91:{network}::{number}/64 dev {device} nodad"));
            self.does(place, &format!("link set {device} up"));
        }
        ROUTES.iter().for_each(|(place, words)| self.does(place, words));
    }

    fn name(&self, place: &str) -> String {
        format!("wp{}-{}-{place}", std::process::id(), self.number)
    }

    /// `ip` in one of the places; names of places behind `netns` are ours.
    fn ip(&self, place: &str, words: &str) -> Result<(), String> {
        let (words, peer) = words.split_once(" netns ").map_or((words, None), |it| (it.0, Some(it.1)));
        let (place, peer) = (self.name(place), peer.map(|peer| self.name(peer)));
        let mut all = vec!["-n", &place];
        all.extend(words.split(' '));
        all.extend(peer.iter().flat_map(|peer| ["netns", peer.as_str()]));
        done("ip", &all)
    }

    fn does(&self, place: &str, words: &str) {
        self.ip(place, words).expect("what was possible is possible");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().expect("a directory")).expect("a directory");
        fs::write(self.path(name), text).expect("it can be written");
    }

    /// The program in one of the places. Names are looked up in our file: mounts in there are seen there only.
    fn program(&self, place: &str, words: &str) -> Command {
        let mut command = Command::new("ip");
        let run = "mount --bind hosts /etc/hosts && exec \"$0\" \"$@\"";
        command.args(["netns", "exec", &self.name(place), "sh", "-c", run, env!("CARGO_BIN_EXE_waypost")]);
        command.args(words.split(' ')).current_dir(self.dir.path()).stdin(Stdio::null());
        for name in ["WAYPOST_CONFIG", "WAYPOST_OUTPUT", "WAYPOST_TIMEOUT", "NOTIFY_SOCKET"] {
            command.env_remove(name);
        }
        command
    }

    /// Starts the agent, or starts it again: then it knows of no failure.
    fn start_agent(&mut self, config: &str) {
        if let Some(mut before) = self.agent.take() {
            let _ = before.kill();
            let _ = before.wait();
        }
        self.agent = Some(self.start("agent", &format!("agent run -c {config}.toml")));
    }

    fn start(&self, place: &str, words: &str) -> Child {
        let log = File::options().create(true).append(true).open(self.path(&format!("{place}.log")));
        let log = log.expect("a log");
        self.program(place, words).stdout(Stdio::null()).stderr(log).spawn().expect("it starts")
    }

    async fn told(&self, words: &str) -> Output {
        let mut command = self.program("agent", words);
        let ended = tokio::task::spawn_blocking(move || command.output()).await;
        ended.expect("nothing breaks off").expect("it runs")
    }

    async fn json(&self, words: &str) -> Value {
        let out = self.told(&format!("{words} --json")).await;
        serde_json::from_slice(&out.stdout).unwrap_or_default()
    }

    /// What the agent that runs says of itself.
    async fn status(&self) -> Status {
        let done = ask(&self.path("state"), Order::Status).await.ok().flatten();
        done.map(|done| done.status).unwrap_or_default()
    }

    /// Waits until this handler is used. On a machine that is so busy that a handler answers too late, the agent is right
    /// to use the other one: then its world is changed once more, and a failure forgotten.
    async fn uses(&mut self, address: &str, config: &str, change: impl Fn(&Self)) {
        let mut looks = 0;
        eventually(&format!("{address} is used over a stream"), async || {
            let status = self.status().await;
            if status.handler.as_deref() == Some(address) {
                return status.channel_open;
            }
            looks += 1;
            if looks % LOOKS == 0 {
                let failed = |it: &Listed| it.address == address && it.reason.contains("failed lately");
                if status.list.iter().any(failed) {
                    self.start_agent(config);
                }
                change(self);
            }
            false
        })
        .await;
    }

    /// Both handlers with a list of these, in this order.
    fn furnish(&mut self, listed: &[(&str, &str)]) {
        let authority = Authority::new("routers' test CA");
        self.write("ca.pem", &authority.pem());
        self.write("token", "a-token-of-the-routers-test");
        self.write("files/a.txt", "a");
        let handler =
            |(name, at): &(&str, &str)| format!("[[handler]]\nname = {name:?}\ninternal = {at:?}\n\n");
        let handlers: String = listed.iter().map(handler).collect();
        let names: Vec<&str> = listed.iter().map(|(name, _)| *name).collect();
        let fleet = format!(
            "selection = \"nearest\"\n\n{handlers}[[assignment]]\nname = \"all\"\nhandlers = {names:?}\n"
        );
        self.write("fleet/fleet.toml", &fleet);
        for (name, four, six) in [("near", NEAR, NEAR_6), ("far", FAR, FAR_6)] {
            let host = |address: &str| {
                let host = address.rsplit_once(':').expect("it has a port").0;
                host.trim_matches(['[', ']']).to_owned()
            };
            let issued = authority.server(&[&host(four), &host(six), "handler.test"]);
            self.write(&format!("{name}.pem"), &issued.cert);
            self.write(&format!("{name}.key"), &issued.key);
            let config = format!(
                "[server]\nnode = {name:?}\nlisten = [{four:?}, {six:?}]\n\
                 tls = {{ cert = \"{name}.pem\", key = {{ file = \"{name}.key\" }} }}\n\n\
                 [cache]\ndir = \"{name}-cache\"\nsize = \"256MiB\"\nmin_free = \"0B\"\nmemory = \"8MiB\"\n\n\
                 [control]\ndirectory = \"fleet\"\nstate_dir = \"{name}-state\"\n\n\
                 [agents]\ntokens = [{{ name = \"all\", secret = {{ file = \"token\" }} }}]\n\n\
                 [[repository]]\nname = \"software\"\npath = \"/Software/\"\ndirectory = \"files\"\n"
            );
            self.write(&format!("{name}.toml"), &config);
            let handler = self.start(name, &format!("serve -c {name}.toml"));
            self.handlers.push(handler);
        }
    }

    /// A list that has the far one first, and an agent that was installed with it, knows the list, and does not run.
    async fn furnished(&mut self) {
        self.furnish(&[("far", FAR), ("near", NEAR)]);
        self.configure("agent", &[FAR], "");
        eventually("both handlers answer, and the agent has its list", async || {
            let known = self.told("agent checkin -c agent.toml").await.status.success();
            let hops = self.hops("agent").await;
            known && hops.len() == 2 && hops.iter().all(|(_, hops)| hops.is_some())
        })
        .await;
    }

    fn configure(&self, name: &str, handlers: &[&str], more: &str) {
        let config = format!(
            "[agent]\nid = \"pc-17\"\nhandlers = {handlers:?}\nca = \"ca.pem\"\ntoken = {{ file = \"token\" }}\n\
             state_dir = \"state\"\nfirst_checkin = \"0s\"\nretry = \"1s\"\n{more}"
        );
        self.write(&format!("{name}.toml"), &config);
    }

    /// The evaluated list: addresses with hops.
    async fn hops(&self, name: &str) -> Vec<(String, Option<u64>)> {
        let answer = self.json(&format!("agent probe -c {name}.toml")).await;
        let list = answer["list"].as_array().cloned().unwrap_or_default();
        list.iter()
            .map(|it| (it["address"].as_str().unwrap_or_default().into(), it["hops"].as_u64()))
            .collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in self.handlers.iter_mut().chain(&mut self.agent) {
            let _ = child.kill();
            let _ = child.wait();
        }
        for place in PLACES {
            let _ = done("ip", &["netns", "del", &self.name(place)]);
        }
        if std::thread::panicking() {
            for place in ["agent", "near", "far"] {
                let log = fs::read_to_string(self.path(&format!("{place}.log"))).unwrap_or_default();
                println!("-- {place}\n{log}");
            }
        }
    }
}

/// Runs a program of the system; what it complains about.
fn done(program: &str, words: &[&str]) -> Result<(), String> {
    let out = Command::new(program).args(words).output().map_err(|error| format!("{program}: {error}"))?;
    let said = || format!("{program} {}: {}", words.join(" "), String::from_utf8_lossy(&out.stderr).trim());
    out.status.success().then_some(()).ok_or_else(said)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn the_nearest_handler_is_the_one_behind_fewer_routers_whatever_the_list_says() {
    let Some(mut lab) = Lab::new() else { return };
    lab.furnished().await;
    let mut lines = Vec::new();
    eventually("both handlers answer in time", async || {
        let shown = lab.told("agent probe --explain -c agent.toml").await;
        lines = text(&shown.stdout).lines().map(str::to_owned).collect();
        shown.status.success() && !text(&shown.stdout).contains("no answer")
    })
    .await;
    let words = |at: usize| lines[at].split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines.len(), 3, "{lines:?}");
    // Priority is the class of the address: both are internal.
    assert_eq!(words(1)[..2], ["1", "1"], "{lines:?}");
    assert!(lines[1].contains(NEAR) && lines[1].ends_with("chosen: fewest hops"), "{lines:?}");
    assert_eq!(words(2)[..2], ["1", "2"], "{lines:?}");
    assert!(lines[2].contains(FAR) && lines[2].ends_with("more hops"), "{lines:?}");
    eventually("without --explain it is the chosen one", async || {
        text(&lab.told("agent probe -c agent.toml").await.stdout).trim() == NEAR
    })
    .await;
    // Without a list, over IPv6: hop limits are counted as TTLs are.
    lab.configure("six", &[FAR_6, NEAR_6], "select = \"nearest\"\n");
    let config = fs::read_to_string(lab.path("six.toml")).expect("it is there");
    lab.write("six.toml", &config.replace("\"state\"", "\"six-state\""));
    let expected = [(NEAR_6.to_owned(), Some(1)), (FAR_6.to_owned(), Some(2))];
    eventually("it is the same over IPv6", async || lab.hops("six").await == expected).await;
}

#[tokio::test]
async fn a_change_of_address_is_noticed_at_once_and_a_handler_in_a_black_hole_is_left() {
    let Some(mut lab) = Lab::new() else { return };
    lab.furnished().await;
    // Verified hourly: whatever happens here within a minute happens because of an address.
    lab.start_agent("agent");
    let change = |lab: &Lab| {
        // Comes, or goes where it was there.
        if lab.ip("agent", "addr add 10.91.1.88/24 dev out").is_err() {
            lab.does("agent", "addr del 10.91.1.88/24 dev out");
        }
    };
    lab.uses(NEAR, "agent", change).await;
    lab.does("r1", "route add blackhole 10.91.2.2/32");
    lab.does("agent", "addr add 10.91.1.77/24 dev out");
    lab.uses(FAR, "agent", change).await;
    let list = lab.status().await.list;
    assert_eq!(list.len(), 2);
    assert!(list[1].address == NEAR && list[1].reason.starts_with("no answer"), "{list:?}");
    lab.does("r1", "route del blackhole 10.91.2.2/32");
    lab.does("agent", "addr del 10.91.1.77/24 dev out");
    lab.uses(NEAR, "agent", change).await;
}

#[tokio::test]
async fn an_agent_whose_handler_lost_its_cable_comes_back_with_a_verification() {
    let Some(mut lab) = Lab::new() else { return };
    lab.furnished().await;
    lab.configure("often", &[FAR], "verify_interval = \"1s\"\n");
    lab.start_agent("often");
    lab.uses(NEAR, "often", |_| ()).await;
    lab.does("r1", "link set near down");
    lab.uses(FAR, "often", |_| ()).await;
    lab.does("r1", "link set near up");
    lab.uses(NEAR, "often", |_| ()).await;
}

#[tokio::test]
async fn a_handler_whose_name_was_given_to_another_machine_is_followed_although_the_old_one_answers() {
    const NAME: &str = "handler.test:8443";
    let Some(mut lab) = Lab::new() else { return };
    lab.furnish(&[("near", NAME)]);
    lab.write("hosts", "10.91.2.2 handler.test\n");
    lab.configure("agent", &[NAME], "");
    lab.start_agent("agent");
    for (hops, host) in [(1, "10.91.4.2"), (2, "10.91.2.2")] {
        eventually(&format!("the handler behind {hops} routers is used"), async || {
            let status = lab.status().await;
            status.channel_open && status.list.first().is_some_and(|it| it.hops == Some(hops))
        })
        .await;
        lab.write("hosts", &format!("{host} handler.test\n"));
    }
}
