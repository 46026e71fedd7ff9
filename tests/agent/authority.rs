//! The agent and the fleet's documents: what is said at the authority arrives at the agent by way of its handler.

use std::fs;

use serde_json::Value;
use waypost::agent::{Order, ask};
use waypost::protocol::agent_api::Contact;
use waypost::testkit::node::{Home, Plan, TestNode, eventually};

use crate::scene::{Running, Scene};

/// An authority and a handler below it, at rest: check-ins are an hour apart.
async fn fleet() -> (Home, TestNode, TestNode) {
    let (at_hq, at_branch) = (Home::new(), Home::new());
    let plan = |home: &Home, name: &str, control: &str| {
        home.write("files/SHA256SUMS", "");
        let control = format!(
            "[control]\nstate_dir = \"state\"\nhold = \"5s\"\n{control}\n[agents]\ncheckin_interval = \"1h\""
        );
        Plan::directory(&home.path("files")).named(name).with(&control)
    };
    at_hq.write("fleet/fleet.toml", "");
    let hq = at_hq.start(&plan(&at_hq, "hq", "directory = \"fleet\"\ncheck_every = \"1h\"")).await;
    let above = format!("upstream = \"http://{}/\"", hq.plain);
    let branch = at_branch.start(&plan(&at_branch, "branch", &above)).await;
    (at_hq, hq, branch)
}

/// The documents, with handlers in this order, in force at both nodes.
async fn say(at_hq: &Home, (hq, branch): (&TestNode, &TestNode), order: &str, policy: &str) {
    let handler = |name: &str, node: &TestNode| {
        format!("[[handler]]\nname = \"{name}\"\ninternal = \"{}\"\n\n", node.tls)
    };
    let rule = format!("[[assignment]]\nname = \"all\"\nhandlers = [{order}]\n");
    at_hq.write("fleet/fleet.toml", &(handler("hq", hq) + &handler("branch", branch) + &rule));
    at_hq.write("fleet/rules.toml", "[[tree]]\npath = \"/\"\npolicies = [\"av/base\"]\n");
    at_hq.write("fleet/policies/av/base.toml", policy);
    assert_eq!(hq.operate("POST", "/v1/reload", "{}").await["changed"], true);
    eventually("both have it", async || {
        branch.metric("waypost_bundle_version").await == hq.metric("waypost_bundle_version").await
    })
    .await;
}

/// Wakes the agent, and waits until it has answered.
async fn wake(hq: &TestNode) {
    let begun = hq.operate("POST", "/v1/agents/wake", r#"{"agents":["pc-17"]}"#).await;
    let path = format!("/v1/wakes/{}", begun["id"]);
    eventually("it has answered", async || hq.operate("GET", &path, "").await["answered"] == 1).await;
}

async fn row(node: &TestNode) -> Value {
    node.operate("GET", "/v1/agents/pc-17", "").await
}

#[tokio::test]
async fn what_the_authority_says_becomes_files_and_the_handler_in_use() {
    let (at_hq, hq, branch) = fleet().await;
    let nodes = (&hq, &branch);
    say(&at_hq, nodes, "\"branch\", \"hq\"", "scan = 1\n").await;
    let scene = Scene::new();
    let mut options = scene.options(&[branch.tls.to_string()]);
    let trust = at_hq.authority().pem() + &branch.home().authority().pem();
    options.identity.trust = Some(trust.into_bytes());
    options.contact = Contact::Stream;
    // It comes for news within this time.
    options.checkin_interval = std::time::Duration::from_secs(1);
    let agent = Running::start(options);
    let policy = scene.path("state/policies/av/base");
    let has = |text: &str| fs::read_to_string(&policy).is_ok_and(|it| it == text);
    eventually("it has its policy", async || has("scan = 1\n")).await;
    eventually("its line is open", async || agent.status().await.channel_open).await;
    assert_eq!(agent.status().await.handler, Some(branch.tls.to_string()));
    eventually("the authority knows it", async || row(&hq).await["state"] == "connected").await;

    // A policy changes: with the next check-in, which a wake-up at the authority brings about where there is no other
    // reason for one.
    let before = agent.status().await.sitelist;
    say(&at_hq, nodes, "\"branch\", \"hq\"", "scan = 2\n").await;
    wake(&hq).await;
    eventually("it has the new one", async || has("scan = 2\n")).await;
    assert_eq!(agent.status().await.sitelist, before, "no handler changed");

    // The list changes: it is told, fetches it, and stays where it is until it has something to say again.
    say(&at_hq, nodes, "\"hq\", \"branch\"", "scan = 2\n").await;
    eventually("it has the new list", async || agent.status().await.sitelist != before).await;
    assert_eq!(agent.status().await.handler, Some(branch.tls.to_string()), "the next check-in is in an hour");
    let done = ask(&scene.path("state"), Order::CheckIn).await.expect("it answers").expect("it runs");
    assert_eq!((done.error, done.status.handler), (None, Some(hq.tls.to_string())));
    eventually("the authority has it at itself", async || {
        let row = row(&hq).await;
        row["handler"] == "hq" && row["state"] == "connected" && row["behind"] == serde_json::json!([])
    })
    .await;

    // Back again, and woken: at once.
    say(&at_hq, nodes, "\"branch\", \"hq\"", "scan = 3\n").await;
    wake(&hq).await;
    eventually("it has gone to the branch", async || {
        let status = agent.status().await;
        status.handler == Some(branch.tls.to_string()) && status.channel_open && has("scan = 3\n")
    })
    .await;
    eventually("the authority knows", async || {
        let row = row(&hq).await;
        row["handler"] == "branch" && row["state"] == "connected" && row["behind"] == serde_json::json!([])
    })
    .await;
    let status = agent.status().await;
    eventually("all check-ins are counted", async || row(&hq).await["check_ins"] == status.check_ins).await;
    agent.stop().await;
}
