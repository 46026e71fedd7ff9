//! A fleet of three nodes, and what its agents see.

use std::fs;

use serde_json::Value;
use waypost::testkit::client::Answer;
use waypost::testkit::node::{Home, Plan, TestNode, eventually};

/// Three handlers in a group, two parts of a tree, a token for each.
pub(crate) const FLEET: &str = r#"
[[handler]]
name = "hq"
internal = "hq.example:8443"

[[handler]]
name = "region"
internal = "region.example:8443"

[[handler]]
name = "branch"
internal = "branch.example:8443"

[[group]]
name = "everywhere"
members = ["hq", "region", "branch"]

[[tree]]
path = "/berlin"
agents = ["pc-berlin"]

[[tree]]
path = "/lisbon"
agents = ["pc-lisbon"]

[[assignment]]
name = "all"
handlers = ["branch", "region", "hq"]
"#;

/// Each part of the tree has a policy of its own.
pub(crate) const RULES: &str = r#"
[[tree]]
path = "/berlin"
policies = ["av/berlin"]

[[tree]]
path = "/lisbon"
policies = ["av/lisbon"]
"#;

/// A home with the documents of the fleet in `fleet`.
pub(crate) fn home_with_documents() -> Home {
    let home = home();
    home.write("fleet/fleet.toml", FLEET);
    home.write("fleet/rules.toml", RULES);
    home.write("fleet/policies/av/berlin.json", "{\"of\":\"berlin\"}\n");
    home.write("fleet/policies/av/lisbon.json", "{\"of\":\"lisbon\"}\n");
    home
}

/// A home with files to serve.
pub(crate) fn home() -> Home {
    let home = Home::new();
    home.write("files/a.txt", "a");
    home
}

fn plan(home: &Home, name: &str, control: &str) -> Plan {
    let text = format!("[control]\nstate_dir = \"state\"\nhold = \"5s\"\n{control}");
    Plan::directory(&home.path("files")).named(name).with(&text)
}

/// The authority, which looks at its directory when it is told to and else hardly ever.
pub(crate) fn authority_plan(home: &Home) -> Plan {
    plan(home, "hq", "directory = \"fleet\"\ncheck_every = \"1h\"\n")
}

/// A node that follows the one at `port`.
pub(crate) fn mirror_plan(home: &Home, name: &str, port: u16) -> Plan {
    plan(home, name, &format!("upstream = \"http://127.0.0.1:{port}/\"\n"))
}

/// The version in force; 0 for none.
pub(crate) async fn version(node: &TestNode) -> u64 {
    node.metric("waypost_bundle_version").await
}

/// What keeps newer documents back.
pub(crate) async fn trouble(node: &TestNode) -> Option<String> {
    node.status().await["control"]["trouble"]["reason"].as_str().map(str::to_owned)
}

/// Waits until a node has this version.
pub(crate) async fn has_version(node: &TestNode, wanted: u64) {
    eventually(&format!("version {wanted} is in force"), async || version(node).await == wanted).await;
}

/// Has the authority look, and gives what it says.
pub(crate) async fn reload(node: &TestNode) -> Value {
    node.operate("POST", "/v1/reload", "{}").await
}

/// Asks as an agent of this machine.
pub(crate) async fn ask(node: &TestNode, agent: &str, path: &str) -> Answer {
    node.get(&format!("/agent/v1/{path}"), &[("waypost-agent", agent)]).await
}

/// A body as text.
pub(crate) fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.to_vec()).expect("it is text")
}

/// Replaces something in the documents.
pub(crate) fn change(home: &Home, file: &str, from: &str, to: &str) {
    let path = home.path(&format!("fleet/{file}"));
    let before = fs::read_to_string(&path).expect("the document is there");
    assert!(before.contains(from));
    fs::write(path, before.replace(from, to)).expect("it can be written");
}

/// A port that nobody listens on, for a node that is started later or again.
pub(crate) fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    socket.local_addr().expect("it has an address").port()
}
