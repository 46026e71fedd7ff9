//! `waypost fleet` against a node that runs, with agents that are there.

use serde_json::{Value, json};
use waypost::agent::Options;
use waypost::protocol::agent_api::Contact;
use waypost::testkit::node::{Home, Plan, TestNode, eventually};
use waypost::testkit::process::Site;

use crate::scene::{Running, Scene};

/// The handler of these agents, with one group that it is in.
async fn node(home: &Home) -> TestNode {
    home.write("files/SHA256SUMS", "");
    let fleet = "[[handler]]\nname = \"branch\"\ninternal = \"127.0.0.1:9\"\n\n\
                 [[group]]\nname = \"near\"\nmembers = [\"branch\"]\n";
    home.write("fleet/fleet.toml", fleet);
    let control =
        "[control]\ndirectory = \"fleet\"\nstate_dir = \"state\"\n[agents]\ncheckin_interval = \"1h\"";
    home.start(&Plan::directory(&home.path("files")).named("branch").with(control)).await
}

fn options(scene: &Scene, node: &TestNode, id: &str, contact: Contact) -> Options {
    // The documents name a handler that is not there: what it was installed with answers.
    let mut options = scene.options(&[node.tls.to_string()]);
    (options.id, options.state_dir) = (id.to_owned(), scene.path(id));
    options.identity.id = id.to_owned();
    options.identity.trust = Some(node.home().authority().pem().into_bytes());
    options.contact = contact;
    options.tags = vec![contact.as_str().to_owned()];
    options
}

fn ids(answer: &Value) -> Vec<&str> {
    let rows = answer["agents"].as_array().map(Vec::as_slice).unwrap_or_default();
    rows.iter().filter_map(|row| row["id"].as_str()).collect()
}

#[tokio::test]
async fn people_list_show_wake_and_forget_agents() {
    let (home, scene) = (Home::new(), Scene::new());
    let node = node(&home).await;
    let people = Site::new(env!("CARGO_BIN_EXE_waypost"), home.dir());
    let (code, out, _) = people.run(&["fleet", "ls"]).await;
    assert!(code == 0 && out.contains("no agent matches"), "{out}");

    let streams = Running::start(options(&scene, &node, "pc-1", Contact::Stream));
    let calls = Running::start(options(&scene, &node, "pc-2", Contact::Checkin));
    eventually("both are there", async || {
        let states = [("pc-1", "connected"), ("pc-2", "reporting")];
        for (id, state) in states {
            if node.operate("GET", &format!("/v1/agents/{id}"), "").await["state"] != state {
                return false;
            }
        }
        true
    })
    .await;
    let (code, out, _) = people.run(&["fleet", "ls"]).await;
    assert_eq!(code, 0);
    let line = |id: &str| out.lines().find(|line| line.starts_with(id)).unwrap_or_default().to_owned();
    assert!(line("pc-1").contains("connected (opened)") && line("pc-1").contains("stream"), "{out}");
    assert!(line("pc-2").contains("reporting (checked-in)") && line("pc-2").contains("branch"), "{out}");
    assert_eq!(ids(&people.json(&["fleet", "ls", "-l", "tag=stream"]).await), ["pc-1"]);
    assert_eq!(ids(&people.json(&["fleet", "ls", "--state", "reporting"]).await), ["pc-2"]);
    assert_eq!(ids(&people.json(&["fleet", "ls", "--state", "grey"]).await), [""; 0]);
    let (code, _, talk) = people.run(&["fleet", "ls", "-l", "colour=red"]).await;
    assert!(code == 2 && talk.contains("colour"), "{code}: {talk}");

    let (code, out, _) = people.run(&["fleet", "show", "pc-1"]).await;
    assert!(code == 0 && out.contains("contact      stream at branch"), "{out}");
    let (code, _, talk) = people.run(&["fleet", "show", "pc-9"]).await;
    assert!(code == 7 && talk.contains("pc-9"), "{code}: {talk}");

    wakes(&people, &node, &streams).await;

    streams.stop().await;
    eventually("it has left", async || {
        ids(&people.json(&["fleet", "ls", "--state", "shutdown"]).await) == ["pc-1"]
    })
    .await;
    assert_eq!(ids(&people.json(&["fleet", "ls"]).await), ["pc-2"], "who said good-bye is not in the view");
    let (code, _, talk) = people.run(&["fleet", "forget", "pc-1"]).await;
    assert!(code == 2 && talk.contains("--yes"), "{code}: {talk}");
    let forgotten = people.json(&["fleet", "forget", "pc-1", "pc-9", "--yes"]).await;
    assert_eq!((&forgotten["changed"], &forgotten["agents"]), (&json!(true), &json!(1)));
    let (code, out, _) = people.run(&["fleet", "forget", "pc-1", "--yes"]).await;
    assert!(code == 0 && out.contains("nothing to do"), "{out}");
    assert_eq!(people.run(&["fleet", "show", "pc-1"]).await.0, 7);
    calls.stop().await;
}

/// Wake-ups by id, by selector and by group; what came of them; calling one off.
async fn wakes(people: &Site, node: &TestNode, streams: &Running) {
    let before = streams.status().await.check_ins;
    let begun = people.json(&["fleet", "wake", "pc-1"]).await;
    let number = begun["id"].to_string();
    assert_eq!(begun["total"], 1);
    eventually("it has answered", async || {
        people.json(&["fleet", "wake", "--result", &number]).await["answered"] == 1
    })
    .await;
    assert!(streams.status().await.check_ins > before);
    let (code, out, _) = people.run(&["fleet", "wake", "--result", &number]).await;
    assert!(code == 0 && out.contains("answered") && out.contains("1 of 1 have answered"), "{out}");

    let all = people.json(&["fleet", "wake", "--group", "near"]).await;
    assert_eq!(all["total"], 2);
    let selected = people.json(&["fleet", "wake", "-l", "contact=checkin", "--attempts", "1"]).await;
    assert_eq!(selected["total"], 1);
    let number = selected["id"].to_string();
    // Nothing can be told to it before its next check-in, in an hour.
    let (code, out, _) = people.run(&["fleet", "wake", "--abort", &number]).await;
    assert!(code == 0 && out.contains("called off"), "{out}");
    let told = people.json(&["fleet", "wake", "--result", &number]).await;
    assert_eq!((&told["aborted"], &told["agents"][0]["woken"]), (&json!(true), &json!("aborted")));
    for (words, expected) in [
        (&["fleet", "wake", "pc-9"][..], 7),
        (&["fleet", "wake", "--group", "far"], 7),
        (&["fleet", "wake", "--result", "1"], 7),
        (&["fleet", "wake"], 2),
    ] {
        let (code, _, talk) = people.run(words).await;
        assert_eq!(code, expected, "{words:?}: {talk}");
    }
    assert_eq!(node.metric("waypost_agents{state=\"connected\",contact=\"stream\"}").await, 1);
}
