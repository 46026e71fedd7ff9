//! What nodes are told to do, by way of the fleet.

use serde_json::Value;
use waypost::testkit::node::{TestNode, eventually};

use super::fixtures::*;

async fn outcome(node: &TestNode, id: &str, name: &str) -> Value {
    let told = node.operate("GET", &format!("/v1/orders/{id}"), "").await;
    let of = told["nodes"].as_array().expect("a list").iter().find(|it| it["node"] == name).cloned();
    of.expect("the node is there")
}

async fn give(node: &TestNode, kind: &str, on: &str, ask: &str) -> String {
    let told = node
        .operate("POST", "/v1/orders", &format!("{{\"kind\":\"{kind}\",\"on\":\"{on}\",\"ask\":{ask}}}"))
        .await;
    told["id"].as_str().unwrap_or_else(|| panic!("no order: {told}")).to_owned()
}

async fn is(node: &TestNode, id: &str, name: &str, state: &str) {
    eventually(&format!("{name} has {state}"), async || outcome(node, id, name).await["state"] == state)
        .await;
}

#[tokio::test]
async fn a_group_is_told_and_a_node_that_was_away_gets_what_it_missed() {
    let (at_hq, at_region, at_branch) = (home_with_documents(), home(), home());
    let hq = at_hq.start(&authority_plan(&at_hq)).await;
    let first = version(&hq).await;
    let region = at_region.start(&mirror_plan(&at_region, "region", hq.plain.port())).await;
    has_version(&region, first).await;
    let purge = give(&hq, "purge", "everywhere", "{\"all\":true}").await;
    for name in ["hq", "region"] {
        is(&hq, &purge, name, "done").await;
    }
    let warm = give(&hq, "warm", "everywhere", "{\"patterns\":[\"/a.txt\"]}").await;
    assert_eq!(outcome(&hq, &purge, "branch").await["state"], "waiting");
    // It comes, behind the region and not at the authority itself.
    let branch = at_branch.start(&mirror_plan(&at_branch, "branch", region.plain.port())).await;
    is(&hq, &purge, "branch", "done").await;
    eventually("all have said how the warm-up went", async || {
        let told = hq.operate("GET", &format!("/v1/orders/{warm}"), "").await;
        told["nodes"].as_array().is_some_and(|nodes| nodes.iter().all(|it| it["state"] != "waiting"))
    })
    .await;
    has_version(&branch, first).await;
    let handlers = hq.operate("GET", "/v1/handlers", "").await;
    assert!(handlers["handlers"].as_array().is_some_and(|all| all.iter().all(|it| it["waiting"] == 0)));
}

#[tokio::test]
async fn what_a_node_is_told_survives_the_restart_of_both() {
    let (at_hq, at_region) = (home_with_documents(), home());
    let hq = at_hq.start(&authority_plan(&at_hq)).await;
    let port = hq.plain.port();
    give(&hq, "purge", "region", "{\"all\":true}").await;
    let at_hq = hq.stop().await;
    let hq = at_hq.start_at(&authority_plan(&at_hq), port).await;
    let waiting = async || {
        let all = hq.operate("GET", "/v1/handlers", "").await;
        let region =
            all["handlers"].as_array().and_then(|all| all.iter().find(|it| it["name"] == "region").cloned());
        region.expect("the region")["waiting"].clone()
    };
    let region = at_region.start(&mirror_plan(&at_region, "region", port)).await;
    eventually("it is taken", async || waiting().await == 0).await;
    let at_region = region.stop().await;
    let second = give(&hq, "purge", "region", "{\"all\":true}").await;
    let _region = at_region.start(&mirror_plan(&at_region, "region", port)).await;
    is(&hq, &second, "region", "done").await;
}

#[tokio::test]
async fn what_nobody_understands_and_nobody_is_called_is_said_at_once() {
    let home = home_with_documents();
    let hq = home.start(&authority_plan(&home)).await;
    let code = async |body: &str| hq.operate("POST", "/v1/orders", body).await["error"]["code"].clone();
    assert_eq!(code("{\"kind\":\"purge\",\"on\":\"nobody\",\"ask\":{\"all\":true}}").await, "not-found");
    assert_eq!(code("{\"kind\":\"reboot\",\"on\":\"hq\",\"ask\":{}}").await, "bad-request");
    assert_eq!(code("{\"kind\":\"purge\",\"on\":\"hq\",\"ask\":{\"oll\":true}}").await, "bad-request");
    let patterns = vec!["/a/very/long/path/of/a/file/that/is/not/there"; 2_000];
    let large = serde_json::json!({ "kind": "purge", "on": "hq", "ask": { "patterns": patterns } });
    assert_eq!(code(&large.to_string()).await, "too-large");
    let failed = give(&hq, "purge", "hq", "{}").await;
    is(&hq, &failed, "hq", "failed").await;
}

#[tokio::test]
async fn a_handler_that_drains_is_last_in_every_list_of_every_node() {
    let (at_hq, at_region) = (home_with_documents(), home());
    let hq = at_hq.start(&authority_plan(&at_hq)).await;
    let region = at_region.start(&mirror_plan(&at_region, "region", hq.plain.port())).await;
    has_version(&region, version(&hq).await).await;
    let order = async |node: &TestNode| {
        let told = node.operate("GET", "/v1/agents/explain?agent=pc-berlin", "").await;
        let handlers = told["handlers"].as_array().cloned().unwrap_or_default();
        handlers.iter().filter_map(|it| it["name"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(order(&region).await, ["branch", "region", "hq"]);
    let set = async |node: &TestNode, state: &str| {
        let ask = format!("{{\"name\":\"branch\",\"state\":\"{state}\"}}");
        node.operate("POST", "/v1/handlers/state", &ask).await
    };
    assert_eq!(set(&region, "draining").await["error"]["code"], "bad-request", "it is not the authority");
    assert_eq!(set(&hq, "draining").await["changed"], true);
    assert_eq!(set(&hq, "draining").await["changed"], false);
    let draining = ["region", "hq", "branch"];
    eventually("it is last", async || order(&region).await == draining).await;
    let at_hq = hq.stop().await;
    let hq = at_hq.start(&authority_plan(&at_hq)).await;
    assert_eq!(order(&hq).await, draining, "it stays so over a restart");
    // Somebody is at work on the documents, who does not keep anybody from resuming, and is not overtaken.
    change(&at_hq, "fleet.toml", "[[handler]]", "[[handler");
    assert_eq!(set(&hq, "active").await["changed"], true);
    assert_eq!(order(&hq).await, ["branch", "region", "hq"]);
    change(&at_hq, "fleet.toml", "[[handler", "[[handler]]");
    assert_eq!(reload(&hq).await["changed"], false, "the states are the same");
}
