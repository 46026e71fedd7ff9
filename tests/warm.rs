//! Fetching ahead, explaining and following, through the real node.

#![expect(clippy::expect_used, reason = "a test may stop at the first broken assumption")]

use std::path::Path;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use waypost::testkit::origin::Origin;
use waypost::testkit::process::{Process, Setup, Site, eventually};
use waypost::testkit::script::{Gate, Hold, Script};

struct Scene {
    origin: Origin,
    site: Site,
    node: Process,
    _dir: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let origin = Origin::start().await;
        let site = Site::new(env!("CARGO_BIN_EXE_waypost"), dir.path());
        site.configure(&Setup::new(&site, &origin.url()));
        let node = site.start().await;
        Self { origin, site, node, _dir: dir }
    }

    async fn run(&self, words: &[&str]) -> (i32, String, String) {
        self.site.run(words).await
    }

    async fn json(&self, words: &[&str]) -> (i32, Value) {
        let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
        let (code, out, talk) = self.run(&words).await;
        let said = serde_json::from_str(&out);
        assert!(said.is_ok(), "{out}{talk}");
        (code, said.expect("it was looked at"))
    }

    fn requests(&self, path: &str) -> usize {
        self.origin.counts(path).requests
    }
}

fn command(dir: &Path, words: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_waypost"));
    command.args(words).args(["-c", "waypost.toml"]).current_dir(dir).stdin(std::process::Stdio::null());
    command.kill_on_drop(true);
    command
}

#[tokio::test]
async fn what_is_warm_is_a_hit_and_what_is_missing_is_named() {
    let scene = Scene::new().await;
    for number in 0..6 {
        scene.origin.set(&format!("/o/{number}.zip"), Script::file(number, 100_000));
    }
    scene.origin.set("/o/gone.zip", Script::status(404, &[]));
    std::fs::write(
        scene.site.dir.join("list"),
        "# the release\n/o/0.zip\n\nhttps://x.example/o/1.zip\n/o/2.zip\n",
    )
    .expect("a file");
    let (code, dry) = scene.json(&["warm", "--from-file", "list", "-n"]).await;
    assert_eq!(
        (code, &dry["total"], &dry["changed"], scene.requests("/o/0.zip")),
        (0, &json!(3), &json!(3), 0)
    );
    let (code, done) = scene.json(&["warm", "--from-file", "list", "-j", "2"]).await;
    assert_eq!(
        (code, &done["state"], &done["changed"], &done["bytes"]),
        (0, &json!("done"), &json!(3), &json!(300_000))
    );
    let answer = scene.node.get("/o/1.zip", &[]).await;
    assert!(answer.header("cache-status").is_some_and(|it| it.contains("hit")));
    let (code, again) = scene.json(&["warm", "/o/**"]).await;
    assert_eq!(
        (code, &again["total"], &again["changed"]),
        (0, &json!(3), &json!(0)),
        "nothing to do is success"
    );
    let (code, out, talk) = scene.run(&["warm", "/o/3.zip", "/o/gone.zip", "/elsewhere"]).await;
    assert_eq!(code, 6);
    assert!(out.contains("warmed 1 of 3 files") && out.contains("2 missing"), "{out}");
    assert!(talk.contains("/o/gone.zip: not-found") && talk.contains("/elsewhere: no repository"), "{talk}");
    assert_eq!([0, 1, 2, 3].map(|number| scene.requests(&format!("/o/{number}.zip"))), [1; 4]);
    for (words, told) in [
        (&["warm"][..], "--from-file"),
        (&["warm", "o/x"], "/o/x"),
        (&["warm", "/o/x", "-j", "0"], "1..=64"),
        (&["warm", "/o/x", "--limit-rate", "fast"], "rate"),
        (&["warm", "/o/x", "--limit-rate", "0B/s"], "no limit"),
        (&["warm", "/o/x", "--job", "1"], "cannot be used with"),
    ] {
        let (code, _, talk) = scene.run(words).await;
        assert_eq!((code, talk.contains(told)), (2, true), "{words:?}: {talk}");
    }
    for (words, told) in [
        (&["warm", "/o/typo/**"][..], "nothing is known that matches /o/typo/**"),
        (&["warm", "/o/typo/**", "-n"], "--from-file"),
        (&["warm", "--catalog"], "no repository has a catalogue"),
    ] {
        let (code, out, talk) = scene.run(words).await;
        assert_eq!((code, out.as_str(), talk.contains(told)), (7, "", true), "{words:?}: {talk}");
    }
    let (code, _, talk) = scene.run(&["warm", "--job", "99"]).await;
    assert_eq!((code, talk.contains("no job 99")), (7, true), "{talk}");
    scene.node.stop().await;
}

#[tokio::test]
async fn a_warm_up_survives_its_command_and_can_be_watched_again() {
    let scene = Scene::new().await;
    let gate = Gate::default();
    let hold = Some(Hold { at: Some(500_000), gate: gate.clone() });
    scene.origin.set("/o/big.zip", Script { hold, ..Script::file(1, 2_000_000) });
    let (code, out, talk) = scene.run(&["warm", "/o/big.zip", "--detach"]).await;
    assert_eq!((code, out.as_str()), (0, "1\n"), "{talk}");
    eventually("it shows how far it is", async || {
        let job: Value = serde_json::from_slice(&scene.node.ask("/v1/jobs/1").await.body).expect("JSON");
        job["running"][0]["bytes"].as_u64().is_some_and(|bytes| bytes >= 400_000)
    })
    .await;
    // Somebody watches and goes away in the middle.
    let mut watching = command(&scene.site.dir, &["warm", "--job", "1"]).spawn().expect("it runs");
    watching.kill().await.expect("it can be killed");
    gate.open();
    let (code, done) = scene.json(&["warm", "--job", "1"]).await;
    assert_eq!((code, &done["state"], &done["bytes"]), (0, &json!("done"), &json!(2_000_000)));
    assert_eq!(scene.requests("/o/big.zip"), 1);
    scene.node.stop().await;
}

#[tokio::test]
async fn a_fetch_can_be_ended_and_goes_on_later_from_where_it_was() {
    let scene = Scene::new().await;
    let gate = Gate::default();
    let hold = Some(Hold { at: Some(3_500_000), gate: gate.clone() });
    scene.origin.set("/o/big.zip", Script { hold, ..Script::file(1, 5_000_000) });
    let (code, _, _) = scene.run(&["warm", "/o/big.zip", "--detach"]).await;
    assert_eq!(code, 0);
    eventually("some of it is here", async || {
        scene.node.status().await["fills"][0]["bytes"].as_u64().is_some_and(|bytes| bytes >= 3_400_000)
    })
    .await;
    let (code, _, talk) = scene.run(&["fills", "cancel", "/o/big.zip"]).await;
    assert_eq!(code, 0, "{talk}");
    eventually("the job says what is missing", async || {
        let job: Value = serde_json::from_slice(&scene.node.ask("/v1/jobs/1").await.body).expect("JSON");
        job["state"] == "partly" && job["failed"][0]["why"] == "abandoned"
    })
    .await;
    gate.open();
    let (code, _, talk) = scene.run(&["fills", "cancel", "/o/big.zip"]).await;
    assert_eq!((code, talk.contains("not being fetched")), (7, true), "{talk}");
    let (code, _) = scene.json(&["warm", "/o/big.zip"]).await;
    assert_eq!((code, scene.node.get("/o/big.zip", &[]).await.body.len()), (0, 5_000_000));
    scene.node.stop().await;
}

#[tokio::test]
async fn explain_and_show_say_what_is_known_and_touch_nothing() {
    let scene = Scene::new().await;
    scene.origin.set("/o/x.zip", Script::file(1, 2_500_000));
    let (_, before) = scene.json(&["explain", "/o/x.zip"]).await;
    assert_eq!((&before["verdict"], &before["key"]), (&json!("miss"), &json!("o:/o/x.zip")));
    assert_eq!(scene.requests("/o/x.zip"), 0, "explaining asks nobody");
    scene.node.get("/o/x.zip", &[]).await;
    eventually("it is stored", async || scene.node.status().await["fills"] == json!([])).await;
    let (code, after) = scene.json(&["explain", "http://localhost/o/x.zip"]).await;
    assert_eq!((code, &after["verdict"]), (0, &json!("hit-immutable")));
    assert_eq!(
        (&after["facts"]["entry"]["blocks"], &after["facts"]["entry"]["blocks_held"]),
        (&json!(3), &json!(3))
    );
    assert_eq!(after["facts"]["rule"]["match"], "**");
    let (code, out, _) = scene.run(&["explain", "/elsewhere/x"]).await;
    assert_eq!((code, out.contains("404")), (0, true), "{out}");
    let (code, _, talk) = scene.run(&["cache", "show", "/o/unknown"]).await;
    assert_eq!((code, talk.contains("not stored")), (7, true), "{talk}");
    let (code, out, _) = scene.run(&["cache", "show", "/o/x.zip"]).await;
    assert_eq!((code, out.contains("sha256")), (0, true), "{out}");
    scene.node.stop().await;
}

#[tokio::test]
async fn requests_can_be_followed_by_kind() {
    let scene = Scene::new().await;
    scene.origin.set("/o/x.zip", Script::file(1, 1_000));
    let follow = |flags: &[&str]| {
        let words: Vec<&str> = ["tail", "-o", "jsonl"].iter().chain(flags).copied().collect();
        let mut child =
            command(&scene.site.dir, &words).stdout(std::process::Stdio::piped()).spawn().expect("it runs");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        (child, lines)
    };
    let (_all, mut all) = follow(&[]);
    let (_misses, mut misses) = follow(&["--misses"]);
    let (_errors, mut errors) = follow(&["--errors", "--match", "/o/"]);
    // Nobody can say when the three have begun: requests go on until each of them has shown one.
    let asking = async {
        loop {
            for path in ["/o/x.zip", "/o/unknown", "/elsewhere"] {
                scene.node.get(path, &[]).await;
            }
            scene.run(&["purge", "/o/x.zip", "-q"]).await;
        }
    };
    let shown = async {
        let first = async |lines: &mut tokio::io::Lines<BufReader<tokio::process::ChildStdout>>| -> Value {
            let line = lines.next_line().await.expect("readable").expect("a line");
            serde_json::from_str(&line).expect("JSON")
        };
        (first(&mut all).await, first(&mut misses).await, first(&mut errors).await)
    };
    let (any, miss, error) = tokio::select! {
        shown = shown => shown,
        () = asking => unreachable!("it never ends"),
    };
    assert!(any["target"].is_string());
    assert!(["miss", "collapsed"].contains(&miss["result"].as_str().unwrap_or_default()), "{miss}");
    assert_eq!((&error["target"], &error["status"]), (&json!("/o/unknown"), &json!(404)));
    let (code, _, talk) = scene.run(&["tail", "--match", "o/x"]).await;
    assert_eq!((code, talk.contains("/o/x")), (2, true), "{talk}");
    scene.node.stop().await;
}

#[tokio::test]
async fn damaged_blocks_are_found_and_fetched_again() {
    let scene = Scene::new().await;
    scene.origin.set("/o/x.zip", Script::file(1, 3_000_000));
    scene.node.get("/o/x.zip", &[]).await;
    eventually("it is stored", async || scene.node.status().await["fills"] == json!([])).await;
    let (code, well) = scene.json(&["cache", "verify"]).await;
    assert_eq!((code, &well["finished"], &well["failures"]), (0, &json!(3), &json!(0)));
    let mut files = Vec::new();
    blocks(&scene.site.dir.join("cache/content-v2"), &mut files);
    let damaged = files.first().expect("blocks on disk");
    let mut bytes = std::fs::read(damaged).expect("a block");
    bytes[7] ^= 1;
    std::fs::write(damaged, bytes).expect("writable");
    let (code, found) = scene.json(&["cache", "verify", "--repair", "--limit-rate", "1GiB/s"]).await;
    assert_eq!((code, &found["changed"], &found["failures"]), (0, &json!(1), &json!(0)));
    let (code, _) = scene.json(&["cache", "verify"]).await;
    assert_eq!(code, 0);
    scene.node.stop().await;
}

#[tokio::test]
async fn garbage_is_counted_removed_and_told_from_what_is_used() {
    let scene = Scene::new().await;
    scene.origin.set("/o/x.zip", Script::file(1, 1_500_000));
    scene.node.get("/o/x.zip", &[]).await;
    eventually("it is stored", async || scene.node.status().await["fills"] == json!([])).await;
    let (code, out, _) = scene.run(&["cache", "gc"]).await;
    assert_eq!((code, out.as_str()), (0, "removed 0 blocks that nothing names, 0 B\n"));
    let Scene { origin, site, node, _dir } = scene;
    node.stop().await;

    // What a start finds, it removes by itself; the next one comes when it has looked there.
    let found = plant(&site.dir, 'a');
    let node = site.start().await;
    eventually("the start has looked there", async || !found.exists()).await;
    let garbage = plant(&site.dir, 'b');
    let (code, out, _) = site.run(&["cache", "gc", "-n"]).await;
    assert_eq!((code, out.as_str()), (0, "would remove 1 block that nothing names, 7 B\n"));
    assert!(garbage.exists(), "a dry run changes nothing");
    let (code, out, _) = site.run(&["cache", "gc"]).await;
    assert_eq!((code, out.as_str()), (0, "removed 1 block that nothing names, 7 B\n"));
    assert!(!garbage.exists());
    let again = site.json(&["cache", "gc"]).await;
    assert_eq!((&again["changed"], &again["entries"]), (&json!(false), &json!(0)));
    let (code, _, talk) = site.run(&["cache", "verify"]).await;
    assert_eq!(code, 0, "{talk}");
    assert_eq!(node.get("/o/x.zip", &[]).await.body.len(), 1_500_000);
    assert_eq!(origin.counts("/o/x.zip").requests, 1, "what is used is still there");
    node.stop().await;
}

/// Makes a block that nothing names, as a power cut leaves it behind. Its name begins with zeros, and so differs from
/// any other in the first directory.
fn plant(dir: &Path, letter: char) -> std::path::PathBuf {
    let rest = letter.to_string().repeat(60);
    let path = dir.join("cache/content-v2/sha256/00/00").join(rest);
    std::fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
    let mut file = std::fs::File::create(&path).expect("a file");
    std::io::Write::write_all(&mut file, b"garbage").expect("writable");
    file.set_modified(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000))
        .expect("a date");
    path
}

fn blocks(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() { blocks(&path, found) } else { found.push(path) }
    }
}
