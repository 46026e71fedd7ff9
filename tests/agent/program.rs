//! The real program: killed while it updates, asked by people, and as small as it has to be.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::process::{Child, Command};
use waypost::agent::{Order, ask};
use waypost::base::digest::Digest;
use waypost::testkit::content;
use waypost::testkit::handler::{Handler, Script as HandlerScript};
use waypost::testkit::node::eventually;
use waypost::testkit::origin::Origin;
use waypost::testkit::pki::Authority;
use waypost::testkit::script::Script;

use crate::scene::{Scene, status};

/// Bytes of its own that an agent may have at work; pages of the program file, which a debug build has many of and the
/// system takes back when it likes, are not counted.
const OWN: u64 = 20 << 20;

fn program(scene: &Scene, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waypost"));
    let file = scene.path("agent.toml");
    command.args(["agent"]).args(words).arg("-c").arg(file).stdin(Stdio::null());
    for name in ["WAYPOST_CONFIG", "WAYPOST_OUTPUT", "WAYPOST_TIMEOUT", "NOTIFY_SOCKET"] {
        command.env_remove(name);
    }
    command.kill_on_drop(true);
    command
}

fn configure(scene: &Scene, handler: &str, contact: &str) {
    std::fs::write(scene.path("ca.pem"), scene.authority.pem()).expect("it can be written");
    let text = format!(
        "[agent]\nid = \"pc-17\"\nhandlers = \"{handler}\"\nca = \"ca.pem\"\nstate_dir = \"state\"\n\
         contact = \"{contact}\"\nfirst_checkin = \"0s\"\nretry = \"1s\"\n\n[[update]]\nname = \"dat\"\n\
         path = \"/Software/\"\ndirectory = \"dat\"\n"
    );
    std::fs::write(scene.path("agent.toml"), text).expect("it can be written");
}

/// Runs a command to its end: code, stdout, stderr.
async fn told(scene: &Scene, words: &[&str]) -> (Option<i32>, String, String) {
    let out = program(scene, words).output().await.expect("it runs");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

fn start(scene: &Scene) -> Child {
    program(scene, &["run"]).stderr(Stdio::null()).spawn().expect("it starts")
}

/// Puts files with their list on an origin that is a handler as far as probes and check-ins go.
fn publish(origin: &Origin, files: &[(&str, Bytes)]) {
    let mut list = String::new();
    for (name, body) in files {
        list += &format!("{}  {name}\n", Digest::of(body));
        origin.set(&format!("/Software/{name}"), Script::text(body.clone()));
    }
    origin.set("/Software/SHA256SUMS", Script::text(list));
}

async fn origin(scene: &Scene) -> Origin {
    let origin = Origin::start_tls(&scene.authority.server(&["127.0.0.1"]), None).await;
    origin.set("/agent/v1/probe", Script::bytes(r#"{"node":"o","address":"127.0.0.1","hops":3}"#));
    origin
}

fn partial(scene: &Scene) -> Option<PathBuf> {
    let mut found = std::fs::read_dir(scene.path("dat/.waypost/partial")).ok()?.flatten();
    let begun = found
        .find(|it| it.path().extension().is_none() && it.metadata().is_ok_and(|meta| meta.len() > 100_000));
    begun.map(|it| it.path())
}

#[tokio::test]
async fn an_agent_that_is_killed_while_it_updates_goes_on_and_shows_the_old_or_the_new() {
    let scene = Scene::new();
    let origin = origin(&scene).await;
    configure(&scene, &origin.authority(), "checkin");
    publish(&origin, &[("a.bin", content::whole(1, 3_000)), ("b.bin", content::whole(2, 3_000))]);
    let (code, out, err) = told(&scene, &["update"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    let whole = content::whole(4, 600_000);
    publish(&origin, &[("a.bin", content::whole(3, 3_000)), ("b.bin", whole.clone())]);
    let mut slow = Script::text(whole.clone());
    slow.rate = Some(100_000);
    origin.set("/Software/b.bin", slow);
    let mut agent =
        program(&scene, &["update"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    eventually("a part of the file is there", async || partial(&scene).is_some()).await;
    agent.kill().await.expect("it can be killed");
    assert_eq!(scene.installed("a.bin").unwrap(), content::whole(1, 3_000));
    assert_eq!(scene.installed("b.bin").unwrap(), content::whole(2, 3_000));
    origin.set("/Software/b.bin", Script::text(whole.clone()));
    let (code, out, err) = told(&scene, &["update", "--json"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    let answer: Value = serde_json::from_str(&out).expect("it is JSON");
    let bytes = answer.pointer("/updates/0/bytes").and_then(Value::as_u64).expect("it says so");
    assert!(answer["changed"] == true && bytes < 510_000, "{out}");
    assert_eq!(scene.installed("a.bin").unwrap(), content::whole(3, 3_000));
    assert_eq!(scene.installed("b.bin").unwrap(), whole);
    let (code, out, _) = told(&scene, &["update"]).await;
    assert!(code == Some(0) && out.contains("is current"), "{out}");
}

#[tokio::test]
async fn people_see_which_handler_is_chosen_and_why() {
    let scene = Scene::new();
    let origin = origin(&scene).await;
    configure(&scene, &origin.authority(), "checkin");
    let (code, out, err) = told(&scene, &["probe", "--explain"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    let line = out.lines().nth(1).expect("a line for the handler");
    let address = origin.authority();
    for words in ["last", "3", " ms", &address, "chosen: no other answers"] {
        assert!(line.contains(words), "{words}: {out}");
    }
    assert!(out.starts_with("PRIORITY  TTL"), "{out}");
    let (_, out, _) = told(&scene, &["probe"]).await;
    assert_eq!(out.trim(), address);
    drop(origin);
    let (code, out, err) = told(&scene, &["probe", "--explain"]).await;
    assert_eq!(code, Some(4), "{out}{err}");
    assert!(out.contains("no answer: ") && err.contains("No Connection"), "{out}{err}");
    let (code, _, err) = told(&scene, &["checkin"]).await;
    assert!(code == Some(4) && err.contains("No Connection"), "{err}");
    let (code, _, err) = told(&scene, &["status"]).await;
    assert!(code == Some(4) && err.contains("no agent runs"), "{err}");
    std::fs::write(scene.path("agent.toml"), "[agent]\nid = 1\n").expect("it can be written");
    let (code, _, err) = told(&scene, &["run"]).await;
    assert!(code == Some(3) && err.contains("agent.toml:2:6"), "{err}");
}

#[tokio::test]
async fn a_running_agent_is_small_answers_people_and_leaves_in_order() {
    let scene = Scene::new();
    let handler = Handler::start(&scene.authority, HandlerScript::default()).await;
    configure(&scene, &handler.authority(), "stream");
    let mut agent = start(&scene);
    let state = scene.path("state");
    eventually("its stream is open", async || status(&state).await.is_some_and(|it| it.channel_open)).await;
    let (code, out, err) = told(&scene, &["status"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.starts_with("agent pc-17: Connected\n") && out.contains("stream, open"), "{out}");
    let (code, out, _) = told(&scene, &["checkin", "--json"]).await;
    let answer: Value = serde_json::from_str(&out).expect("it is JSON");
    assert!(code == Some(0) && answer["state"] == "Connected", "{out}");
    let (code, _, err) = told(&scene, &["update"]).await;
    assert!(code == Some(1) && err.contains("answered 404"), "{err}");
    let pid = agent.id().expect("it runs");
    let (own, all) = (resident(pid, "RssAnon:"), resident(pid, "VmRSS:"));
    println!("an agent with an open stream has {} KiB, {} KiB with its program", own >> 10, all >> 10);
    assert!(own <= OWN, "{} KiB", own >> 10);
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("it is a pid")).expect("it is a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it can be told");
    let ended = tokio::time::timeout(Duration::from_secs(60), agent.wait()).await;
    assert_eq!(ended.expect("it ends").expect("it ran").code(), Some(0));
    assert_eq!(handler.count("POST /agent/v1/bye"), 1);
    assert!(ask(&state, Order::Status).await.expect("it can be asked").is_none());
}

#[tokio::test]
async fn a_token_and_an_authority_that_are_replaced_are_used_by_the_agent_that_runs() {
    let scene = Scene::new();
    let handler = Handler::start(&scene.authority, HandlerScript::default()).await;
    configure(&scene, &handler.authority(), "checkin");
    let write = |name: &str, text: &str| std::fs::write(scene.path(name), text).expect("it can be written");
    let config = std::fs::read_to_string(scene.path("agent.toml")).expect("it is there");
    write("agent.toml", &config.replace("state_dir", "token = { file = \"token\" }\nstate_dir"));
    write("token", "first\n");
    let _agent = start(&scene);
    let state = scene.path("state");
    eventually("it has checked in", async || {
        status(&state).await.is_some_and(|it| it.last_checkin_ms.is_some())
    })
    .await;
    assert!(handler.identities().iter().all(|it| it == "pc-17 Bearer first"));
    write("token", "second\n");
    let (code, _, err) = told(&scene, &["checkin"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(handler.identities().last().map(String::as_str), Some("pc-17 Bearer second"));
    // A file that is gone for a moment changes nothing.
    std::fs::remove_file(scene.path("token")).expect("it can be removed");
    let done = ask(&state, Order::CheckIn).await.expect("it can be asked").expect("it runs");
    assert_eq!(done.error, None);
    assert_eq!(handler.identities().last().map(String::as_str), Some("pc-17 Bearer second"));
    write("token", "second\n");
    // The same place with a certificate of another authority.
    let (port, other) = (handler.port(), Authority::new("the next CA"));
    let gone = handler.authority();
    drop(handler);
    eventually("its port is free", async || tokio::net::TcpStream::connect(&gone).await.is_err()).await;
    let handler = Handler::start_at(&other, HandlerScript::default(), port).await;
    let (code, _, err) = told(&scene, &["checkin"]).await;
    assert!(code == Some(4) && err.contains("No Connection"), "{code:?} {err}");
    write("ca.pem", &other.pem());
    let (code, _, err) = told(&scene, &["checkin"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(handler.identities().last().map(String::as_str), Some("pc-17 Bearer second"));
}

fn resident(pid: u32, kind: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(kind));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.expect("the system says how large it is") << 10
}
