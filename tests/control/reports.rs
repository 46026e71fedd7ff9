//! What handlers have acknowledged reaches the authority at least once and counts once, wherever on its way the handler
//! is killed.

use std::path::Path;

use serde_json::json;
use tempfile::TempDir;
use waypost::testkit::client::{Client, End};
use waypost::testkit::node::{TestNode, eventually};
use waypost::testkit::process::{Dice, Process, Site, is_long};
use waypost::testkit::relay::{Carries, Relay};

use super::fixtures::*;

/// An authority, a line, and a handler below it that can be killed.
struct Office {
    hq: TestNode,
    line: Relay,
    site: Site,
    _dir: TempDir,
}

impl Office {
    async fn new() -> Self {
        let home = home_with_documents();
        let hq = home.start(&authority_plan(&home)).await;
        let line = Relay::open(hq.plain).await;
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("files")).expect("a directory");
        let site = Site::new(env!("CARGO_BIN_EXE_waypost"), dir.path());
        let above = line.address();
        site.write_config(&format!(
            "[server]\nplain_listen = \"127.0.0.1:0\"\nnode = \"branch\"\n\n[admin]\nsocket = \"admin.sock\"\n\n\
             [cache]\ndir = \"cache\"\nsize = \"16MiB\"\nmemory = \"8MiB\"\nmin_free = \"0B\"\n\n\
             [[repository]]\nname = \"f\"\npath = \"/\"\ndirectory = \"files\"\n\n\
             [control]\nstate_dir = \"state\"\nhold = \"5s\"\nupstream = \"http://{above}/\"\n\n\
             [log]\nformat = \"json\"\n"
        ));
        Self { hq, line, site, _dir: dir }
    }

    /// Check-ins of an agent that the authority has counted.
    async fn counted(&self, agent: &str) -> u64 {
        let told = self.hq.operate("GET", &format!("/v1/agents/{agent}"), "").await;
        told["check_ins"].as_u64().unwrap_or_default()
    }

    async fn counts(&self, agents: &[String], wanted: u64) {
        eventually(&format!("{wanted} check-ins are counted"), async || {
            for agent in agents {
                if self.counted(agent).await != wanted {
                    return false;
                }
            }
            true
        })
        .await;
    }
}

/// Nothing is left to tell.
async fn all_is_told(node: &Process) {
    eventually("all is told", async || {
        // The number is that of the last look at the spool, which goes on after it.
        node.said("listening") && node.metric("waypost_agents_unreported").await == 0.0
    })
    .await;
}

/// One check-in; whether it was acknowledged.
async fn check_in(client: &mut Client, agent: &str, sequence: u64) -> bool {
    let said = json!({ "sequence": sequence, "boot": "b001", "contact": "checkin" }).to_string();
    let length = said.len();
    let request = format!(
        "POST /agent/v1/checkin HTTP/1.1\r\nhost: localhost\r\nwaypost-agent: {agent}\r\n\
         content-length: {length}\r\n\r\n{said}"
    );
    if client.send(request.as_bytes()).await.is_err() {
        return false;
    }
    let answer = client.read_answer("POST").await;
    answer.is_ok_and(|answer| answer.status == 200 && answer.end == End::Complete)
}

async fn all_check_in(node: &Process, agents: &[String], sequence: u64) {
    let mut client = node.connect().await;
    for agent in agents {
        assert!(check_in(&mut client, agent, sequence).await, "{agent} {sequence}");
    }
}

/// Promise 19, step by step: in the ledger and not sent; sent and not arrived; taken and not answered; answered.
#[tokio::test]
async fn promise_19_a_check_in_counts_once_whichever_step_of_its_way_up_the_handler_is_killed_at() {
    let office = Office::new().await;
    let agents: Vec<String> = (0..3).map(|number| format!("pc-{number}")).collect();
    let mut node = office.site.start().await;
    all_check_in(&node, &agents, 1).await;
    office.counts(&agents, 1).await;

    // In the ledger; the line is dead, so it is not sent, or has not arrived.
    office.line.carry(Carries::Nothing);
    all_check_in(&node, &agents, 2).await;
    node.kill();
    node = office.site.start().await;
    all_check_in(&node, &agents, 3).await;
    assert_eq!(office.counted(&agents[0]).await, 1, "nothing gets through");
    office.line.carry(Carries::All);
    office.counts(&agents, 3).await;
    all_is_told(&node).await;

    // Taken, and the answer does not come: once more after the restart, and once more after that.
    office.line.carry(Carries::Questions);
    all_check_in(&node, &agents, 4).await;
    office.counts(&agents, 4).await;
    node.kill();
    node = office.site.start().await;
    all_check_in(&node, &agents[..1], 5).await;
    eventually("the newest is counted", async || office.counted(&agents[0]).await == 5).await;
    node.kill();
    office.line.cut();
    office.line.carry(Carries::All);
    node = office.site.start().await;
    all_is_told(&node).await;
    assert_eq!(office.counted(&agents[0]).await, 5);
    office.counts(&agents[1..], 4).await;

    // Answered, and killed as soon as the authority knows it: the acknowledgement is on disk or not.
    all_check_in(&node, &agents, 6).await;
    eventually("it is taken", async || office.counted(&agents[0]).await == 6).await;
    node.kill();
    node = office.site.start().await;
    all_check_in(&node, &agents, 7).await;
    eventually("the first has seven", async || office.counted(&agents[0]).await == 7).await;
    office.counts(&agents[1..], 6).await;
    all_is_told(&node).await;
}

/// Checks in until the node is gone; the last sequence that was acknowledged.
async fn until_killed(client: Option<Client>, agent: String, from: u64) -> u64 {
    let Some(mut client) = client else { return from };
    let mut acknowledged = from;
    while check_in(&mut client, &agent, acknowledged + 1).await {
        acknowledged += 1;
    }
    acknowledged
}

async fn own_count(dir: &Path, agent: &str) -> u64 {
    let socket = dir.join("admin.sock");
    let mut client = Client::connect_unix(&socket).await.expect("the admin socket listens");
    let path = format!("/v1/agents/{agent}");
    let answer = client.get(&path, &[("connection", "close")]).await.expect("an answer");
    let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    told["check_ins"].as_u64().unwrap_or_default()
}

/// Promise 19, at moments that nobody chose.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_19_nothing_acknowledged_is_lost_and_nothing_counts_twice_through_kills_at_any_moment() {
    let office = Office::new().await;
    let mut dice = Dice::seeded(19);
    let agents: Vec<String> = (0..6).map(|number| format!("pc-{number}")).collect();
    let mut last = vec![0; agents.len()];
    let rounds = if is_long() { 12 } else { 4 };
    for _ in 0..rounds {
        let node = office.site.start().await;
        let mut all = Vec::new();
        for (agent, from) in agents.iter().zip(&last) {
            // The one whose answer was lost may be known: that number is not used again.
            let client = Client::connect(node.address).await.ok();
            all.push(tokio::spawn(until_killed(client, agent.clone(), *from)));
        }
        let enough = 20 + dice.below(200);
        eventually("agents have checked in", async || {
            node.metric("waypost_agent_checkins_total{result=\"accepted\"}").await >= enough as f64
        })
        .await;
        node.kill();
        for (last, ended) in last.iter_mut().zip(all) {
            *last = ended.await.expect("it ended") + 1;
        }
    }
    let node = office.site.start().await;
    all_is_told(&node).await;
    for (agent, sent) in agents.iter().zip(&last) {
        let own = own_count(&office.site.dir, agent).await;
        eventually("the authority has what the handler has", async || office.counted(agent).await == own)
            .await;
        // Each round may have one at its end that was not acknowledged.
        assert!((sent - rounds..=*sent).contains(&own), "{agent}: {own} of {sent}");
    }
}
