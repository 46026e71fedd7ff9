//! A WAN outage disconnects nobody, a reset is seen at once, and an agent that moves is shown once: the node judges
//! what it sees itself, by a clock that the test turns.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{WebSocketStream, client_async};
use waypost::base::clock::{Clock, Timestamp};
use waypost::testkit::node::{Home, Plan, TestNode, eventually};

const CONTROL: &str = "[control]\ndirectory = \"fleet\"\nstate_dir = \"state\"";

/// The node that has the fleet's documents.
async fn authority() -> (TestNode, Plan) {
    let home = Home::new();
    home.write("files/a.txt", "a");
    home.write("fleet/fleet.toml", "");
    let plan = Plan::directory(&home.path("files")).named("hq").with(CONTROL);
    (home.start(&plan).await, plan)
}

/// A node below it, with a clock of its own.
async fn branch(name: &str, above: &TestNode, clock: &Clock) -> TestNode {
    let home = Home::new();
    home.write("files/a.txt", "a");
    let control = format!("[control]\nupstream = \"http://{}/\"\nstate_dir = \"state\"", above.plain);
    let plan = Plan::directory(&home.path("files")).named(name).with(&control);
    home.start_with(&plan, 0, clock.clone()).await
}

async fn stream(node: &TestNode, agent: &str) -> WebSocketStream<TcpStream> {
    let mut request = "ws://localhost/agent/v1/channel".into_client_request().expect("a URL");
    request.headers_mut().insert("waypost-agent", agent.parse().expect("a header"));
    let tcp = TcpStream::connect(node.plain).await.expect("the node accepts");
    client_async(request, tcp).await.expect("a channel").0
}

/// What a node says of an agent: state, cause, handler.
async fn stands(node: &TestNode, agent: &str, expected: (&str, &str)) {
    eventually(&format!("{agent} is {expected:?}"), async || {
        let found = node.operate("GET", &format!("/v1/agents/{agent}"), "").await;
        (found["state"].as_str(), found["cause"].as_str()) == (Some(expected.0), Some(expected.1))
    })
    .await;
}

/// Disconnects of any cause.
async fn disconnects(node: &TestNode) -> u64 {
    let metrics = node.admin("/metrics").await;
    let counts = metrics.lines().filter(|line| line.starts_with("waypost_agent_disconnects_total"));
    counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[tokio::test]
async fn ten_minutes_without_the_wan_disconnect_nobody() {
    let clock = Clock::manual(Timestamp(1_800_000_000_000));
    let (hq, plan) = authority().await;
    let node = branch("branch", &hq, &clock).await;
    let mut agents = Vec::new();
    for number in 0..5 {
        agents.push(stream(&node, &format!("pc-{number}")).await);
    }
    stands(&node, "pc-4", ("connected", "opened")).await;
    let port = hq.plain.port();
    let home = hq.stop().await;
    for minutes in (2..=10).step_by(2) {
        clock.advance(Duration::from_secs(120));
        for agent in &mut agents {
            // What there is to say to it may be said before.
            while !agent.next().await.expect("a frame").expect("a whole one").is_ping() {}
            agent.flush().await.expect("the pong goes out");
        }
        let heard = minutes / 2 * agents.len() as u64;
        eventually("all pongs are here", async || {
            node.metric("waypost_agent_responses_total").await == heard
        })
        .await;
    }
    assert_eq!(disconnects(&node).await, 0, "nobody was called disconnected");
    for number in 0..agents.len() {
        stands(&node, &format!("pc-{number}"), ("connected", "opened")).await;
    }
    // The authority hears of them when it is back.
    let hq = home.start_at(&plan, port).await;
    stands(&hq, "pc-4", ("connected", "opened")).await;
    assert_eq!(disconnects(&node).await, 0);
}

#[tokio::test]
async fn a_reset_is_seen_at_once_and_silence_after_ping_and_timeout() {
    let clock = Clock::manual(Timestamp(1_800_000_000_000));
    let (hq, _) = authority().await;
    let node = branch("branch", &hq, &clock).await;
    let reset = stream(&node, "reset").await;
    let _mute = stream(&node, "mute").await;
    stands(&node, "mute", ("connected", "opened")).await;
    SockRef::from(reset.get_ref()).set_linger(Some(Duration::ZERO)).expect("an option");
    drop(reset);
    // No hand of the clock has moved.
    stands(&node, "reset", ("grey", "closed")).await;
    clock.advance(Duration::from_secs(120));
    eventually("the mute one is still believed", async || {
        let found = node.operate("GET", "/v1/agents/mute", "").await;
        found["state"] == "connected"
    })
    .await;
    // The ping goes out in a turn of its own; its timeout counts from there.
    eventually("ping and timeout are over", async || {
        clock.advance(Duration::from_secs(20));
        let found = node.operate("GET", "/v1/agents/mute", "").await;
        (found["state"].as_str(), found["cause"].as_str()) == (Some("grey"), Some("ping-timeout"))
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_moves_back_and_forth_is_shown_once() {
    let clock = Clock::manual(Timestamp(1_800_000_000_000));
    let (hq, _) = authority().await;
    let (one, two) = (branch("one", &hq, &clock).await, branch("two", &hq, &clock).await);
    for round in 0..4 {
        let (here, name) = if round % 2 == 0 { (&one, "one") } else { (&two, "two") };
        // Whoever was heard last is right, so time goes on between two moves.
        clock.advance(Duration::from_secs(1));
        let open = stream(here, "pc-1").await;
        eventually(&format!("the authority shows it at {name}"), async || {
            let shown = hq.operate("GET", "/v1/agents?selector=id%3Dpc-1", "").await;
            let agents = shown["agents"].as_array().cloned().unwrap_or_default();
            assert!(agents.len() <= 1, "shown twice: {shown}");
            agents.first().is_some_and(|it| it["handler"] == name && it["state"] == "connected")
        })
        .await;
        // It vanishes without a word, as a machine does that is carried away.
        drop(open);
        stands(here, "pc-1", ("grey", "closed")).await;
    }
}
