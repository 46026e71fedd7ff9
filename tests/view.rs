//! What operators see of agents: who is behind with what, who is known from its update traffic only, who is stalled, and
//! that who is forgotten is forgotten everywhere.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may stop at the first broken assumption"
)]

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use waypost::base::clock::{Clock, Timestamp};
use waypost::base::digest::Digest;
use waypost::testkit::node::{Home, Plan, TestNode, eventually};
use waypost::testkit::origin::Origin;
use waypost::testkit::script::Script;

const START: Timestamp = Timestamp(1_800_000_000_000);

const FRESHCLAM: &str =
    "ClamAV/1.0.3 (OS: Linux, ARCH: x86_64, CPU: x86_64, UUID: 2b8c6f6c-0f6a-4d0a-9d1e-2f3a4b5c6d7e)";
const FRESHCLAM_ID: &str = "clamav:2b8c6f6c-0f6a-4d0a-9d1e-2f3a4b5c6d7e";

/// A node with a directory, and these lines about agents.
async fn start_at(home: &Home, lines: &str, clock: Clock) -> TestNode {
    home.write("files/a.txt", "a");
    let plan =
        Plan::directory(&home.path("files")).with(&format!("[agents]\nstate_dir = \"state\"\n{lines}"));
    home.start_with(&plan, 0, clock).await
}

async fn check_in(node: &TestNode, agent: &str, sequence: u64, content: Value) -> u16 {
    let mut client = node.client().await;
    let body =
        json!({ "sequence": sequence, "boot": "b001", "contact": "stream", "content": content }).to_string();
    let head = format!(
        "POST /agent/v1/checkin HTTP/1.1\r\nhost: localhost\r\nwaypost-agent: {agent}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.send((head + &body).as_bytes()).await.expect("the node listens");
    client.read_answer("POST").await.expect("the node answers").status
}

async fn agent(node: &TestNode, id: &str) -> Value {
    node.operate("GET", &format!("/v1/agents/{id}"), "").await
}

/// The ids of those that a selector means.
async fn selected(node: &TestNode, selector: &str) -> Vec<String> {
    let selector = selector.replace('=', "%3D").replace('*', "%2A").replace('!', "%21");
    let found = node.operate("GET", &format!("/v1/agents?selector={selector}"), "").await;
    let rows = found["agents"].as_array().cloned().unwrap_or_default();
    rows.iter().map(|row| row["id"].as_str().unwrap_or_default().to_owned()).collect()
}

async fn is_listed(node: &TestNode, id: &str, how: impl Fn(&Value) -> bool) {
    eventually(&format!("{id} is listed as it should be"), async || how(&agent(node, id).await)).await;
}

#[tokio::test]
async fn clients_that_do_not_check_in_are_listed_from_what_they_fetch_where_that_is_wanted() {
    let (home, clock) = (Home::new(), Clock::manual(START));
    let node = start_at(&home, "passive = true", clock.clone()).await;
    let pip = r#"pip/24.0 {"distro":{"name":"Debian GNU/Linux","version":"12"}}"#;
    for name in [FRESHCLAM, "Debian APT-HTTP/1.3 (2.6.1)", pip, "waypost/0.1.0"] {
        assert_eq!(node.get("/a.txt", &[("user-agent", name)]).await.status, 200);
    }
    assert_eq!(node.get("/nothing", &[("user-agent", "scanner/1")]).await.status, 404);
    for (id, version, os) in [
        (FRESHCLAM_ID, "ClamAV/1.0.3", "Linux x86_64"),
        ("apt:127.0.0.1", "apt/2.6.1", "Debian"),
        ("pip:127.0.0.1", "pip/24.0", "Debian GNU/Linux 12"),
    ] {
        is_listed(&node, id, |row| row["state"] == "passive" && row["cause"] == "traffic").await;
        let row = agent(&node, id).await;
        assert_eq!((&row["agent_version"], &row["os"]), (&json!(version), &json!(os)));
        assert_eq!(row["addresses"], json!(["127.0.0.1"]));
    }
    assert_eq!(selected(&node, "state=passive").await, ["apt:127.0.0.1", FRESHCLAM_ID, "pip:127.0.0.1"]);
    eventually("they are counted", async || {
        node.metric("waypost_agents{state=\"passive\",contact=\"checkin\"}").await == 3
    })
    .await;
    // Nobody asks them to check in, and one that is not seen for long is gone.
    let woken = node.operate("POST", "/v1/agents/wake", "{\"selector\":\"state=passive\"}").await;
    assert_eq!(woken["total"], 0, "{woken}");
    clock.advance(Duration::from_secs(259_199));
    assert_eq!(node.get("/a.txt", &[("user-agent", FRESHCLAM)]).await.status, 200);
    is_listed(&node, FRESHCLAM_ID, |row| row["heard"].as_u64() > Some(START.0 / 1_000)).await;
    clock.advance(Duration::from_secs(2));
    is_listed(&node, "apt:127.0.0.1", |row| row["state"] == "offline").await;
    assert_eq!(agent(&node, FRESHCLAM_ID).await["state"], "passive");
    // They are there after a restart, and not asked for any more they are not looked for.
    let home = node.stop().await;
    let node = start_at(&home, "", clock).await;
    assert_eq!(agent(&node, FRESHCLAM_ID).await["state"], "passive");
    assert_eq!(node.get("/a.txt", &[("user-agent", "curl/8")]).await.status, 200);
    assert_eq!(selected(&node, "id=curl*").await, [""; 0]);
}

#[tokio::test]
async fn who_checks_in_is_not_taken_for_a_client_that_does_not() {
    let home = Home::new();
    let node = start_at(&home, "passive = true", Clock::manual(START)).await;
    assert_eq!(check_in(&node, "pc-1", 1, json!({})).await, 200);
    let own = [("user-agent", "curl/8"), ("waypost-agent", "pc-1")];
    assert_eq!(node.get("/a.txt", &own).await.status, 200);
    assert_eq!(node.get("/a.txt", &[("user-agent", "pip/24")]).await.status, 200);
    is_listed(&node, "pip:127.0.0.1", |row| row["state"] == "passive").await;
    assert_eq!(selected(&node, "state=live").await, ["pc-1", "pip:127.0.0.1"]);
    assert_eq!(agent(&node, "pc-1").await["addresses"], json!(["127.0.0.1"]), "it has said none itself");
}

fn list(seed: &str) -> String {
    format!("{}  a.bin\n", Digest::of(seed.as_bytes()))
}

fn version(list: &str) -> String {
    Digest::of(list.as_bytes()).to_string().chars().take(16).collect()
}

#[tokio::test]
async fn content_is_compared_with_what_is_shown_here() {
    let origin = Origin::start().await;
    let (first, second) = (list("1"), list("2"));
    origin.set("/SHA256SUMS", Script::text(first.clone()));
    let text = format!(
        "[[repository]]\nname = \"images\"\npath = \"/iso/\"\nchecksums = true\nupstreams = [{:?}]\n\
         check_every = \"1s\"\n[agents]\nstate_dir = \"state\"\npassive = true\n",
        origin.url()
    );
    let node = Home::new().start(&Plan::new(text)).await;
    let fetch = async |wanted: &str| {
        eventually("it is shown", async || {
            node.get("/iso/SHA256SUMS", &[("user-agent", FRESHCLAM)]).await.body == wanted
        })
        .await;
    };
    fetch(&first).await;
    let key = "iso/SHA256SUMS";
    is_listed(&node, FRESHCLAM_ID, |row| row["content"][key] == version(&first)).await;
    assert_eq!(check_in(&node, "pc-1", 1, json!({ key: version(&first), "other/x": "1" })).await, 200);
    assert_eq!(agent(&node, "pc-1").await["behind"], json!([]));
    assert_eq!(check_in(&node, "pc-2", 1, json!({ "images/SHA256SUMS": "0123" })).await, 200);
    assert_eq!(selected(&node, "behind=*").await, ["pc-2"], "the repository's name is as good as its path");
    origin.set("/SHA256SUMS", Script::text(second.clone()));
    // A node below fetches it, which is no client: everybody else is behind from then on.
    let node_below = [("user-agent", "waypost/0.1.0")];
    eventually("the new one is shown", async || {
        node.get("/iso/SHA256SUMS", &node_below).await.body == second
    })
    .await;
    let row = agent(&node, "pc-1").await;
    assert_eq!((&row["behind"], &row["newer"][key]), (&json!(["content"]), &json!(version(&second))));
    assert_eq!(selected(&node, "behind=content").await, [FRESHCLAM_ID, "pc-1", "pc-2"]);
    assert_eq!(node.metric("waypost_agents_behind{what=\"content\"}").await, 3);
    assert_eq!(node.metric("waypost_agents_behind{what=\"sitelist\"}").await, 0);
    assert_eq!(check_in(&node, "pc-1", 2, json!({ key: version(&second) })).await, 200);
    assert_eq!(agent(&node, "pc-1").await["behind"], json!([]));
    assert_eq!(node.metric("waypost_agents_behind{what=\"content\"}").await, 2);
}

#[tokio::test]
async fn content_of_a_directory_is_read_behind() {
    let home = Home::new();
    home.write("files/SHA256SUMS", &list("1"));
    let node = start_at(&home, "", Clock::manual(START)).await;
    assert_eq!(check_in(&node, "pc-1", 1, json!({ "files/SHA256SUMS": "0123" })).await, 200);
    assert_eq!(check_in(&node, "pc-2", 1, json!({ "SHA256SUMS": version(&list("1")) })).await, 200);
    assert_eq!(check_in(&node, "pc-3", 1, json!({ "../../etc/passwd": "0", "none/x": "1" })).await, 200);
    is_listed(&node, "pc-1", |row| row["behind"] == json!(["content"])).await;
    assert_eq!(agent(&node, "pc-2").await["behind"], json!([]));
    assert_eq!(agent(&node, "pc-3").await["behind"], json!([]));
}

#[tokio::test]
async fn who_answers_pings_and_does_not_check_in_is_stalled_until_it_does() {
    let (home, clock) = (Home::new(), Clock::manual(START));
    let node = start_at(&home, "checkin_interval = \"10m\"\nping_after = \"10m\"", clock.clone()).await;
    assert_eq!(check_in(&node, "pc-1", 1, json!({})).await, 200);
    let mut request = "ws://localhost/agent/v1/channel".into_client_request().expect("a URL");
    request.headers_mut().insert("waypost-agent", "pc-1".parse().expect("a header"));
    let tcp = TcpStream::connect(node.plain).await.expect("the node accepts");
    let mut stream = client_async(request, tcp).await.expect("a channel").0;
    is_listed(&node, "pc-1", |row| row["state"] == "connected").await;
    for pongs in 1..=2 {
        clock.advance(Duration::from_secs(600));
        let ping = stream.next().await.expect("a frame").expect("a whole one");
        assert!(matches!(ping, Frame::Ping(_)), "{ping:?}");
        stream.flush().await.expect("the pong goes out");
        // The check-in is the first response.
        let responses = 1 + pongs;
        eventually("the pong has arrived", async || {
            node.metric("waypost_agent_responses_total").await == responses
        })
        .await;
    }
    assert_eq!(agent(&node, "pc-1").await["state"], "connected");
    clock.advance(Duration::from_secs(601));
    is_listed(&node, "pc-1", |row| row["state"] == "stalled" && row["cause"] == "overdue").await;
    eventually("it is counted", async || {
        node.metric("waypost_agents{state=\"stalled\",contact=\"stream\"}").await == 1
    })
    .await;
    assert_eq!(check_in(&node, "pc-1", 2, json!({})).await, 200);
    is_listed(&node, "pc-1", |row| row["state"] == "connected" && row["cause"] == "checked-in").await;
}

/// The node that has the fleet's documents, and one below it.
async fn two_nodes() -> (TestNode, TestNode) {
    let (above, below) = (Home::new(), Home::new());
    above.write("files/a.txt", "a");
    below.write("files/a.txt", "a");
    above.write("fleet/fleet.toml", "");
    let control = "[control]\ndirectory = \"fleet\"\nstate_dir = \"state\"";
    let hq = above.start(&Plan::directory(&above.path("files")).named("hq").with(control)).await;
    let control = format!("[control]\nupstream = \"http://{}/\"\nstate_dir = \"state\"", hq.plain);
    let control = format!("{control}\n[agents]\npassive = true\n");
    let plan = Plan::directory(&below.path("files")).named("branch").with(&control);
    let branch = below.start(&plan).await;
    (hq, branch)
}

async fn forget(node: &TestNode, id: &str) {
    let told = node.operate("POST", "/v1/agents/forget", &json!({ "agents": [id] }).to_string()).await;
    assert_eq!(told["agents"], 1, "{told}");
}

#[tokio::test]
async fn who_is_forgotten_at_a_node_is_forgotten_above_it_and_the_other_way_round() {
    let (hq, branch) = two_nodes().await;
    for id in ["pc-1", "pc-2", "pc-3"] {
        assert_eq!(check_in(&branch, id, 1, json!({})).await, 200);
        is_listed(&hq, id, |row| row["handler"] == "branch").await;
    }
    forget(&branch, "pc-1").await;
    is_listed(&hq, "pc-1", |row| row["id"].is_null()).await;
    forget(&hq, "pc-2").await;
    is_listed(&branch, "pc-2", |row| row["id"].is_null()).await;
    assert!(agent(&hq, "pc-2").await["id"].is_null());
    // One that has gone elsewhere meanwhile is not forgotten there.
    assert_eq!(check_in(&hq, "pc-3", 2, json!({})).await, 200);
    forget(&branch, "pc-3").await;
    assert_eq!(check_in(&branch, "pc-4", 1, json!({})).await, 200);
    is_listed(&hq, "pc-4", |row| row["handler"] == "branch").await;
    eventually("all is told", async || branch.metric("waypost_agents_unreported").await == 0).await;
    assert_eq!(selected(&hq, "id=*").await, ["pc-3", "pc-4"]);
    // They may come again.
    assert_eq!(check_in(&branch, "pc-1", 2, json!({})).await, 200);
    is_listed(&hq, "pc-1", |row| row["check_ins"] == 1).await;
}

#[tokio::test]
async fn clients_that_do_not_check_in_are_told_to_the_node_above() {
    let (hq, branch) = two_nodes().await;
    assert_eq!(branch.get("/a.txt", &[("user-agent", FRESHCLAM)]).await.status, 200);
    is_listed(&hq, FRESHCLAM_ID, |row| row["state"] == "passive" && row["handler"] == "branch").await;
}
