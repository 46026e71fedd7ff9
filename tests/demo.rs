//! `waypost demo`, the real program with small numbers: what it says, and what it leaves behind.

#![expect(clippy::expect_used, reason = "a test may stop at the first broken assumption")]

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

/// A debug build on a busy machine; no test waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(600);

fn demo(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waypost"));
    command.arg("demo").args(words).env("TMPDIR", folder).stdin(Stdio::null()).kill_on_drop(true);
    for name in ["WAYPOST_OUTPUT", "WAYPOST_SERVER", "WAYPOST_COLOR", "WAYPOST_CONFIG"] {
        command.env_remove(name);
    }
    command
}

async fn run(folder: &Path, words: &[&str]) -> Output {
    tokio::time::timeout(PATIENCE, demo(folder, words).output()).await.expect("it ends").expect("it runs")
}

/// Sockets need short paths, so this is not below the directory of the build.
fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("wd").tempdir().expect("a directory")
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).expect("it is there").next().is_none()
}

fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).expect(key)
}

#[tokio::test]
async fn the_demo_tells_the_whole_story_and_everything_in_it_holds() {
    if std::env::var_os("WAYPOST_LONG").is_none() {
        eprintln!("SKIPPED: the story takes half a minute; WAYPOST_LONG=1 has it told");
        return;
    }
    let folder = folder();
    let words = ["--agents", "8", "--size", "1MiB", "--wan", "100Mbit/s", "--json"];
    let ran = run(folder.path(), &words).await;
    let said = String::from_utf8_lossy(&ran.stderr);
    let told: Value = serde_json::from_slice(&ran.stdout).expect(&said);
    let of = |key| told.get(key).and_then(Value::as_array).expect(key);
    // Whether a busy machine is fast enough is not for a test to say.
    for it in of("checks").iter().chain(of("promises")).filter(|it| !flag(it, "timed")) {
        assert!(flag(it, "held"), "{it:#}\n{told:#}\n{said}");
    }
    assert_eq!(ran.status.code(), Some(if flag(&told, "held") { 0 } else { 8 }), "{said}");
    let promises: Vec<&str> = of("promises").iter().filter_map(|it| it.get("promise")?.as_str()).collect();
    assert_eq!(
        promises,
        [
            "copies of a file over each line",
            "fallback when a handler dies",
            "agents wrongly taken for lost",
            "served without a WAN",
            "wrong files at agents",
            "agents shown twice",
        ]
    );
    assert!(is_empty(folder.path()), "nothing of it stays");
}

#[tokio::test]
async fn a_demo_that_is_told_to_end_leaves_nothing_behind() {
    use rustix::process::{Pid, Signal, kill_process};
    let folder = folder();
    let mut running = demo(folder.path(), &["--agents", "4", "--size", "1MiB"])
        .stdout(Stdio::null())
        .spawn()
        .expect("it runs");
    // It is in the middle of its work as soon as one of its nodes has a socket.
    let begun = || {
        let run = fs::read_dir(folder.path()).ok()?.flatten().next()?;
        fs::metadata(run.path().join("hq.sock")).ok()
    };
    while begun().is_none() {
        assert!(running.try_wait().expect("it can be asked").is_none(), "it goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let id = running.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)).expect("it runs");
    kill_process(id, Signal::TERM).expect("it can be told");
    let ended = tokio::time::timeout(PATIENCE, running.wait()).await.expect("it ends").expect("it ends");
    assert_eq!(ended.code(), Some(143));
    assert!(is_empty(folder.path()), "nothing of it stays");
}
