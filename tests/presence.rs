//! Agents at a whole node: check-ins, streams, tunnels, probes, and what is left of them after a restart.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at the first broken assumption"
)]

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{WebSocketStream, client_async};
use waypost::base::clock::{Clock, Timestamp};
use waypost::server::Phase;
use waypost::testkit::client::{Client, End};
use waypost::testkit::node::{Home, Plan, TestNode, eventually};
use waypost::testkit::process::{Dice, Setup, Site};

const START: Timestamp = Timestamp(1_800_000_000_000);

type Stream = WebSocketStream<TcpStream>;

/// A node at home, where a master repository is not missed.
async fn start_at(home: &Home, clock: Clock) -> TestNode {
    home.write("files/a.txt", "a");
    let agents = "[agents]\nstate_dir = \"state\"\ncheckin_interval = \"10m\"";
    home.start_with(&Plan::directory(&home.path("files")).with(agents), 0, clock).await
}

async fn start() -> (TestNode, Clock) {
    let clock = Clock::manual(START);
    (start_at(&Home::new(), clock.clone()).await, clock)
}

/// One question of an agent: status and what is said.
async fn ask(node: &TestNode, agent: &str, method: &str, call: &str, body: &str) -> (u16, Value) {
    let mut client = node.client().await;
    let length = body.len();
    let request = format!(
        "{method} /agent/v1/{call} HTTP/1.1\r\nhost: localhost\r\nwaypost-agent: {agent}\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    client.send(request.as_bytes()).await.expect("the node listens");
    let answer = client.read_answer(method).await.expect("the node answers");
    (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
}

fn said(sequence: u64) -> String {
    json!({ "sequence": sequence, "boot": "b001", "contact": "stream", "properties": {
        "host": "pc", "os": "linux", "tree": "/emea", "tags": ["kiosk"], "addresses": ["10.0.0.7"],
    }, "content": { "software/av": "5" } })
    .to_string()
}

async fn check_in(node: &TestNode, agent: &str, sequence: u64) -> (u16, Value) {
    ask(node, agent, "POST", "checkin", &said(sequence)).await
}

async fn stream(node: &TestNode, agent: &str) -> Stream {
    let url = "ws://localhost/agent/v1/channel";
    let mut request = url.into_client_request().expect("a URL");
    request.headers_mut().insert("waypost-agent", agent.parse().expect("a header"));
    let tcp = TcpStream::connect(node.plain).await.expect("the node accepts");
    client_async(request, tcp).await.expect("a channel").0
}

/// The next text on a stream.
async fn next(stream: &mut Stream) -> Value {
    loop {
        match stream.next().await.expect("a frame").expect("a whole one") {
            Frame::Text(text) => return serde_json::from_str(text.as_str()).expect("JSON"),
            Frame::Close(why) => panic!("closed: {why:?}"),
            _ => {}
        }
    }
}

/// Where an agent stands: state and cause.
async fn standing(node: &TestNode, agent: &str) -> (String, String) {
    let found = node.operate("GET", &format!("/v1/agents/{agent}"), "").await;
    let word = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    (word("state"), word("cause"))
}

async fn stands(node: &TestNode, agent: &str, state: &str, cause: &str) {
    eventually(&format!("{agent} is {state} ({cause})"), async || {
        standing(node, agent).await == (state.to_owned(), cause.to_owned())
    })
    .await;
}

#[tokio::test]
async fn a_check_in_is_acknowledged_once_and_outlives_the_node() {
    let (node, _) = start().await;
    let (status, answer) = check_in(&node, "pc-1", 3).await;
    assert_eq!((status, &answer["acknowledged"]), (200, &json!(3)));
    let next = answer["next_checkin_s"].as_u64().expect("a number");
    assert!((540..=660).contains(&next), "{next}");
    assert_eq!(check_in(&node, "pc-1", 3).await, (409, json!({ "expected": 4 })));
    assert_eq!(check_in(&node, "pc-1", 2).await.0, 409);
    assert_eq!(node.metric("waypost_agent_checkins_total{result=\"accepted\"}").await, 1);
    let home = node.stop().await;
    let node = start_at(&home, Clock::manual(START)).await;
    assert_eq!(check_in(&node, "pc-1", 3).await, (409, json!({ "expected": 4 })));
    assert_eq!(check_in(&node, "pc-1", 4).await.0, 200);
    let found = node.operate("GET", "/v1/agents/pc-1", "").await;
    assert_eq!((&found["check_ins"], &found["host"]), (&json!(2), &json!("pc")));
}

#[tokio::test]
async fn what_is_no_check_in_is_refused() {
    let (node, _) = start().await;
    assert_eq!(ask(&node, "pc-1", "POST", "checkin", "{").await.0, 400);
    let huge = format!("{{\"x\":\"{}\"}}", "x".repeat(65 << 10));
    assert_eq!(ask(&node, "pc-1", "POST", "checkin", &huge).await.0, 413);
    let many = json!({ "sequence": 1, "boot": "b", "properties": { "tags": vec!["t"; 65] } }).to_string();
    assert_eq!(ask(&node, "pc-1", "POST", "checkin", &many).await.0, 400);
    assert_eq!(ask(&node, "no agent", "POST", "checkin", &said(1)).await.0, 401);
    assert_eq!(ask(&node, "pc-1", "GET", "checkin", "").await.0, 405);
    assert_eq!(ask(&node, "pc-1", "GET", "nothing", "").await.0, 404);
    assert_eq!(node.operate("GET", "/v1/agents", "").await["agents"], json!([]));
}

#[tokio::test]
async fn a_wall_clock_that_is_set_neither_delays_nor_hastens_what_agents_wait_for() {
    let (node, clock) = start().await;
    check_in(&node, "pc-1", 1).await;
    let mut open = stream(&node, "pc-2").await;
    check_in(&node, "pc-2", 1).await;
    let seen = async |agent: &str| {
        let found = node.operate("GET", &format!("/v1/agents/{agent}"), "").await;
        found["heard"].as_u64().expect("a time")
    };
    for to in [START.moved(-86_400_000), START.moved(86_400_000), START.moved(-3_600_000)] {
        let before = seen("pc-1").await;
        clock.set(to);
        eventually("people see the new time", async || seen("pc-1").await != before).await;
        assert_eq!(standing(&node, "pc-1").await.0, "reporting");
        assert_eq!(standing(&node, "pc-2").await.0, "connected");
    }
    // Two intervals of ten minutes, and a ping after two minutes that nobody answers.
    clock.advance(Duration::from_secs(1_200));
    stands(&node, "pc-1", "late", "overdue").await;
    loop {
        match open.next().await.expect("a frame").expect("a whole one") {
            Frame::Ping(_) => break,
            other => assert!(!matches!(other, Frame::Close(_)), "{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_cut_is_grey_at_once_and_offline_after_its_time() {
    let (node, clock) = start().await;
    check_in(&node, "pc-1", 1).await;
    assert_eq!(standing(&node, "pc-1").await, ("reporting".to_owned(), "checked-in".to_owned()));
    let open = stream(&node, "pc-1").await;
    stands(&node, "pc-1", "connected", "opened").await;
    drop(open);
    stands(&node, "pc-1", "grey", "closed").await;
    clock.advance(Duration::from_secs(1_800));
    stands(&node, "pc-1", "offline", "closed").await;
    assert_eq!(node.metric("waypost_agent_disconnects_total{cause=\"closed\"}").await, 1);
    eventually("it is counted", async || {
        node.metric("waypost_agents{state=\"offline\",contact=\"stream\"}").await == 1
    })
    .await;
    assert_eq!(node.operate("GET", "/v1/agents", "").await["agents"], json!([]), "out of the live view");
}

#[tokio::test]
async fn a_stream_that_answers_pings_stays_and_one_that_does_not_ends() {
    let (node, clock) = start().await;
    let (mut answers, _mute) = (stream(&node, "answers").await, stream(&node, "mute").await);
    stands(&node, "mute", "connected", "opened").await;
    clock.advance(Duration::from_secs(120));
    // Reading is answering: the library sends the pong.
    let ping = answers.next().await.expect("a frame").expect("a whole one");
    assert!(ping.is_ping(), "{ping:?}");
    answers.flush().await.expect("the pong goes out");
    eventually("the pong has arrived", async || node.metric("waypost_agent_responses_total").await == 1)
        .await;
    // The mute one was pinged in the same turn of the hands.
    clock.advance(Duration::from_secs(20));
    stands(&node, "mute", "grey", "ping-timeout").await;
    assert_eq!(standing(&node, "answers").await.0, "connected");
}

#[tokio::test]
async fn a_second_stream_of_an_agent_replaces_the_first() {
    let (node, _) = start().await;
    let mut first = stream(&node, "pc-1").await;
    let _second = stream(&node, "pc-1").await;
    let end = loop {
        match first.next().await {
            Some(Ok(Frame::Close(why))) => break why.expect("a reason"),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(end.reason.contains("no longer"), "{end:?}");
    assert_eq!(standing(&node, "pc-1").await.0, "connected");
}

#[tokio::test]
async fn garbage_on_a_stream_ends_it_with_a_reason_and_no_other() {
    let (node, _) = start().await;
    let (mut bad, good) = (stream(&node, "bad").await, stream(&node, "good").await);
    bad.send(Frame::text("not JSON")).await.expect("it is taken");
    let end = bad.next().await.expect("a frame").expect("a whole one");
    assert!(matches!(&end, Frame::Close(Some(why)) if why.reason.contains("JSON")), "{end:?}");
    stands(&node, "bad", "grey", "bad-message").await;
    assert_eq!(standing(&node, "good").await.0, "connected");
    drop(good);
}

#[tokio::test]
async fn a_wake_up_reaches_streams_and_tunnels_now_and_others_at_their_next_contact() {
    let (node, clock) = start().await;
    for agent in ["streams", "tunnels", "calls"] {
        check_in(&node, agent, 1).await;
    }
    let mut open = stream(&node, "streams").await;
    clock.advance(Duration::from_millis(1));
    let poll = ask(&node, "tunnels", "POST", "poll", "{\"seen\":null}");
    let wake = async {
        stands(&node, "tunnels", "connected", "opened").await;
        node.operate("POST", "/v1/agents/wake", "{\"selector\":\"tag=kiosk\"}").await
    };
    let ((status, polled), ordered) = tokio::join!(poll, wake);
    let id = ordered["id"].as_u64().expect("a number");
    assert_eq!((status, &polled["messages"]), (200, &json!([{ "kind": "wake", "id": id }])));
    assert_eq!(next(&mut open).await, json!({ "kind": "wake", "id": id }));
    let woken = async |agent: &str| {
        let told = node.operate("GET", &format!("/v1/wakes/{id}"), "").await;
        let rows = told["agents"].as_array().cloned().unwrap_or_default();
        let row = rows.into_iter().find(|row| row["agent"] == agent).unwrap_or_default();
        row["woken"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!((woken("streams").await.as_str(), woken("calls").await.as_str()), ("told", "pending"));
    clock.advance(Duration::from_secs(1));
    let (_, answer) = check_in(&node, "calls", 2).await;
    assert_eq!(answer["actions"], json!([{ "id": id, "kind": "wake" }]));
    check_in(&node, "streams", 2).await;
    assert_eq!((woken("streams").await.as_str(), woken("calls").await.as_str()), ("answered", "answered"));
    assert_eq!(node.operate("DELETE", &format!("/v1/wakes/{id}"), "").await["changed"], true);
    assert_eq!(woken("tunnels").await, "aborted");
}

#[tokio::test]
async fn a_tunnel_that_is_not_polled_ends() {
    let (node, clock) = start().await;
    let (status, _) = tokio::join!(ask(&node, "pc-1", "POST", "poll", ""), async {
        stands(&node, "pc-1", "connected", "opened").await;
        clock.advance(Duration::from_secs(1));
        node.operate("POST", "/v1/agents/wake", "{\"agents\":[\"pc-1\"]}").await
    })
    .0;
    assert_eq!(status, 200);
    clock.advance(Duration::from_secs(60));
    stands(&node, "pc-1", "grey", "session-timeout").await;
}

#[tokio::test]
async fn a_probe_needs_no_identity_and_says_what_the_handler_sees() {
    let (node, _) = start().await;
    let answer = node.get("/agent/v1/probe", &[]).await;
    let probed: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!((&probed["node"], &probed["address"]), (&json!("localhost"), &json!("127.0.0.1")));
    assert_eq!((&probed["hops"], &probed["state"]), (&json!(0), &json!("active")));
}

#[tokio::test]
async fn a_goodbye_and_the_end_of_the_handler_are_no_surprise() {
    let (node, _) = start().await;
    let (leaves, mut stays) = (stream(&node, "leaves").await, stream(&node, "stays").await);
    assert_eq!(ask(&node, "leaves", "POST", "bye", "").await.0, 204);
    stands(&node, "leaves", "shutdown", "shutdown").await;
    node.order(Phase::Drain);
    assert_eq!(next(&mut stays).await, json!({ "kind": "shutdown" }));
    drop(leaves);
}

#[tokio::test]
async fn two_machines_with_one_identity_are_found() {
    let (node, _) = start().await;
    for sequence in 1..4 {
        for boot in ["aa", "bb"] {
            let said = json!({ "sequence": sequence, "boot": boot }).to_string();
            assert_eq!(ask(&node, "pc-1", "POST", "checkin", &said).await.0, 200);
        }
    }
    let found = node.operate("GET", "/v1/agents?selector=state%3Dclone", "").await;
    assert_eq!(found["agents"][0]["id"], "pc-1");
    assert_eq!(found["agents"][0]["cloned"], true);
}

#[tokio::test]
async fn who_is_forgotten_may_come_again() {
    let (node, _) = start().await;
    check_in(&node, "pc-1", 5).await;
    check_in(&node, "pc-2", 5).await;
    let forgotten = node.operate("POST", "/v1/agents/forget", "{\"agents\":[\"pc-1\",\"pc-9\"]}").await;
    assert_eq!((&forgotten["changed"], &forgotten["agents"]), (&json!(true), &json!(1)));
    let home = node.stop().await;
    let node = start_at(&home, Clock::manual(START)).await;
    let listed = node.operate("GET", "/v1/agents", "").await;
    assert_eq!(listed["agents"].as_array().map(Vec::len), Some(1));
    assert_eq!(check_in(&node, "pc-1", 1).await.0, 200);
}

/// The node that has the fleet's documents.
async fn authority() -> TestNode {
    let home = Home::new();
    home.write("files/a.txt", "a");
    home.write("fleet/fleet.toml", "");
    let control = "[control]\ndirectory = \"fleet\"\nstate_dir = \"state\"";
    home.start(&Plan::directory(&home.path("files")).named("hq").with(control)).await
}

/// A node below it.
async fn branch(home: &Home, name: &str, above: &TestNode) -> TestNode {
    home.write("files/a.txt", "a");
    let control = format!("[control]\nupstream = \"http://{}/\"\nstate_dir = \"state\"", above.plain);
    home.start(&Plan::directory(&home.path("files")).named(name).with(&control)).await
}

/// What a node knows of an agent: state, handler and check-ins.
async fn view(node: &TestNode, agent: &str) -> (String, String, u64) {
    let found = node.operate("GET", &format!("/v1/agents/{agent}"), "").await;
    let word = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    (word("state"), word("handler"), found["check_ins"].as_u64().unwrap_or_default())
}

async fn shows(node: &TestNode, agent: &str, state: &str, handler: &str, check_ins: u64) {
    eventually(&format!("{agent} is {state} at {handler} after {check_ins} check-ins"), async || {
        view(node, agent).await == (state.to_owned(), handler.to_owned(), check_ins)
    })
    .await;
}

#[tokio::test]
async fn the_authority_sees_agents_of_the_nodes_below_once_wherever_they_are() {
    let hq = authority().await;
    let (one, two) = (Home::new(), Home::new());
    let (one, two) = (branch(&one, "one", &hq).await, branch(&two, "two", &hq).await);
    assert_eq!(check_in(&one, "pc-1", 1).await.0, 200);
    shows(&hq, "pc-1", "reporting", "one", 1).await;
    let open = stream(&one, "pc-1").await;
    shows(&hq, "pc-1", "connected", "one", 1).await;
    // It goes to another handler, and the first one learns of that from above.
    assert_eq!(check_in(&two, "pc-1", 2).await.0, 200);
    shows(&hq, "pc-1", "reporting", "two", 1).await;
    drop(open);
    shows(&one, "pc-1", "moved", "one", 1).await;
    let all = hq.operate("GET", "/v1/agents?selector=id%3D*", "").await;
    assert_eq!(all["agents"].as_array().map(Vec::len), Some(1));
    assert_eq!(view(&hq, "pc-1").await.1, "two");
    assert_eq!(ask(&two, "pc-1", "POST", "bye", "").await.0, 204);
    shows(&hq, "pc-1", "shutdown", "two", 1).await;
}

#[tokio::test]
async fn what_was_acknowledged_while_the_authority_was_away_is_told_once_it_is_back() {
    let hq = authority().await;
    let (home, plain) = (Home::new(), hq.plain.port());
    let node = branch(&home, "one", &hq).await;
    let hq = hq.stop().await;
    for sequence in 1..=5 {
        assert_eq!(check_in(&node, "pc-1", sequence).await.0, 200);
    }
    assert_eq!(check_in(&node, "pc-2", 1).await.0, 200);
    // The branch is restarted meanwhile.
    drop(node.stop().await);
    let control = "[control]\ndirectory = \"fleet\"\nstate_dir = \"state\"";
    let plan = Plan::directory(&hq.path("files")).named("hq").with(control);
    let hq = hq.start_at(&plan, plain).await;
    let node = branch(&home, "one", &hq).await;
    shows(&hq, "pc-1", "reporting", "one", 5).await;
    shows(&hq, "pc-2", "reporting", "one", 1).await;
    eventually("all is told", async || node.metric("waypost_agents_unreported").await == 0).await;
}

#[tokio::test]
async fn a_wake_up_at_the_authority_reaches_agents_of_the_nodes_below() {
    let hq = authority().await;
    let home = Home::new();
    let node = branch(&home, "one", &hq).await;
    assert_eq!(check_in(&node, "pc-1", 1).await.0, 200);
    let mut open = stream(&node, "pc-1").await;
    shows(&hq, "pc-1", "connected", "one", 1).await;
    let ordered = hq.operate("POST", "/v1/agents/wake", "{\"selector\":\"handler=one\"}").await;
    assert_eq!(ordered["total"], 1, "{ordered}");
    // That there is a sitelist now may be said before.
    while next(&mut open).await["kind"] != "wake" {}
    assert_eq!(check_in(&node, "pc-1", 2).await.0, 200);
    let path = format!("/v1/wakes/{}", ordered["id"]);
    eventually("the authority knows that it has answered", async || {
        hq.operate("GET", &path, "").await["answered"] == 1
    })
    .await;
}

/// Checks in until the node is gone; the last sequence that was acknowledged.
async fn until_killed(node: SocketAddr, agent: String) -> u64 {
    let mut acknowledged = 0;
    let Ok(mut client) = Client::connect(node).await else { return 0 };
    for sequence in 1.. {
        let body = said(sequence);
        let head = format!(
            "POST /agent/v1/checkin HTTP/1.1\r\nhost: localhost\r\nwaypost-agent: {agent}\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        if client.send((head + &body).as_bytes()).await.is_err() {
            break;
        }
        match client.read_answer("POST").await {
            Ok(answer) if answer.status == 200 && answer.end == End::Complete => acknowledged = sequence,
            _ => break,
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_outlives_a_kill() {
    let dir = tempfile::tempdir().expect("a directory");
    let site = Site::new(env!("CARGO_BIN_EXE_waypost"), dir.path());
    let setup = Setup::new(&site, "http://127.0.0.1:9/");
    let agents = "[agents]\nstate_dir = \"state\"\n";
    site.configure(&setup);
    let config = std::fs::read_to_string(dir.path().join("waypost.toml")).expect("a configuration");
    site.write_config(&format!("{config}\n{agents}"));
    let mut dice = Dice::seeded(7);
    for round in 0..3 {
        let node = site.start().await;
        let agent = |number: u64| format!("pc-{round}-{number}");
        let all: Vec<_> =
            (0..8).map(|number| tokio::spawn(until_killed(node.address, agent(number)))).collect();
        // After so many check-ins, whenever that is.
        let enough = 20 + dice.below(200);
        eventually("agents have checked in", async || {
            node.metric("waypost_agent_checkins_total{result=\"accepted\"}").await >= enough as f64
        })
        .await;
        node.kill();
        let node = site.start().await;
        for (number, acknowledged) in (0..).zip(all) {
            let acknowledged = acknowledged.await.expect("it ended");
            let mut client = node.connect().await;
            let body = said(acknowledged);
            let head = format!(
                "POST /agent/v1/checkin HTTP/1.1\r\nhost: localhost\r\nwaypost-agent: {}\r\n\
                 content-length: {}\r\n\r\n",
                agent(number),
                body.len()
            );
            client.send((head + &body).as_bytes()).await.expect("the node listens");
            let answer = client.read_answer("POST").await.expect("the node answers");
            let told: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            if acknowledged > 0 {
                assert_eq!(answer.status, 409, "{} of {} is lost", acknowledged, agent(number));
                // One more may be on disk whose acknowledgement was on its way.
                let expected = told["expected"].as_u64().expect("a number");
                assert!((acknowledged + 1..=acknowledged + 2).contains(&expected), "{expected}");
            }
        }
        node.kill();
    }
}
