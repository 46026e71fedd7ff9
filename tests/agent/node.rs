//! The agent and a whole node, which has been told nothing of each other but an address.

use serde_json::Value;
use waypost::protocol::agent_api::Contact;
use waypost::testkit::node::{Home, Plan, TestNode, eventually};

use crate::scene::{Running, Scene};

async fn node(home: &Home) -> TestNode {
    home.write("files/SHA256SUMS", "");
    let agents = "[agents]\nstate_dir = \"state\"\ncheckin_interval = \"1h\"";
    home.start(&Plan::directory(&home.path("files")).with(agents)).await
}

/// What the node says of the agent.
async fn told(node: &TestNode, what: &str) -> String {
    let known = node.operate("GET", "/v1/agents/pc-17", "").await;
    known.get(what).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// An agent in contact with a node, told by the node.
async fn meets(contact: Contact) {
    let (scene, home) = (Scene::new(), Home::new());
    let node = node(&home).await;
    let mut options = scene.options(&[node.tls.to_string()]);
    options.identity.trust = Some(home.authority().pem().into_bytes());
    options.contact = contact;
    options.host = "desk".to_owned();
    let agent = Running::start(options);
    eventually("the node knows it", async || told(&node, "contact").await == contact.as_str()).await;
    eventually("the line is open", async || agent.status().await.channel_open).await;
    let before = agent.status().await.last_checkin_ms;
    node.operate("POST", "/v1/agents/wake", r#"{"agents":["pc-17"]}"#).await;
    eventually("it was woken", async || agent.status().await.last_checkin_ms > before).await;
    let listed = agent.status().await.list;
    let listed = listed.first().expect("its handler");
    assert_eq!(listed.reason, "chosen: no other answers");
    assert_eq!(listed.hops, Some(0), "nothing is nearer than oneself");
    agent.stop().await;
    eventually("the node knows that it left", async || told(&node, "state").await == "shutdown").await;
}

#[tokio::test]
async fn an_agent_with_a_stream_is_seen_woken_and_seen_leaving() {
    meets(Contact::Stream).await;
}

#[tokio::test]
async fn an_agent_with_a_tunnel_is_seen_woken_and_seen_leaving() {
    meets(Contact::Tunnel).await;
}
