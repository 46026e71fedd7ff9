//! Purging, pinning and listing through the real node: true at once, against fills under way, across a crash.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may stop at the first broken assumption"
)]

use serde_json::{Value, json};
use tempfile::TempDir;
use waypost::testkit::content;
use waypost::testkit::origin::Origin;
use waypost::testkit::process::{Process, Setup, Site, eventually};
use waypost::testkit::script::{Gate, Hold, Script};

struct Scene {
    origin: Origin,
    site: Site,
    _dir: TempDir,
}

impl Scene {
    async fn new(repository: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let origin = Origin::start().await;
        let site = Site::new(env!("CARGO_BIN_EXE_waypost"), dir.path());
        let setup = Setup { repository: repository.to_owned(), ..Setup::new(&site, &origin.url()) };
        site.configure(&setup);
        Self { origin, site, _dir: dir }
    }

    fn requests(&self, path: &str) -> u64 {
        self.origin.counts(path).requests as u64
    }
}

async fn settled(node: &Process) {
    eventually("no fill runs", async || node.status().await["fills"].as_array().is_some_and(Vec::is_empty))
        .await;
}

fn verdict(answer: &waypost::testkit::client::Answer) -> String {
    answer.header("cache-status").unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_hard_purge_is_true_for_the_next_request_and_for_nobody_else() {
    let scene = Scene::new("").await;
    for (number, name) in ["/o/a/x.zip", "/o/a/y.txt", "/o/b/x.zip"].into_iter().enumerate() {
        scene.origin.set(name, Script::file(number as u64, 40_000));
    }
    let node = scene.site.start().await;
    for name in ["/o/a/x.zip", "/o/a/y.txt", "/o/b/x.zip"] {
        assert_eq!(node.get(name, &[]).await.status, 200);
    }
    settled(&node).await;
    let dry = scene.site.json(&["purge", "/o/a/**", "-n"]).await;
    assert_eq!((&dry["entries"], &dry["changed"]), (&json!(2), &json!(false)));
    assert!(dry["bytes"].as_u64().expect("a number") >= 80_000);
    assert!(verdict(&node.get("/o/a/x.zip", &[]).await).contains("hit"), "counting purges nothing");

    let done = scene.site.json(&["purge", "/o/a/**"]).await;
    assert_eq!((&done["entries"], &done["changed"]), (&json!(2), &json!(true)));
    assert!(verdict(&node.get("/o/a/x.zip", &[]).await).contains("fwd=uri-miss"));
    assert!(verdict(&node.get("/o/b/x.zip", &[]).await).contains("hit"));
    assert_eq!((scene.requests("/o/a/x.zip"), scene.requests("/o/b/x.zip")), (2, 1));
    settled(&node).await;
    assert!(verdict(&node.get("/o/a/x.zip", &[]).await).contains("hit"), "what came later stays");

    let again = scene.site.json(&["purge", "/o/a/y.txt"]).await;
    assert_eq!(
        (&again["entries"], &again["changed"]),
        (&json!(0), &json!(false)),
        "nothing to do is no error"
    );
    let left = scene.site.json(&["cache", "ls"]).await;
    let keys: Vec<_> =
        left["entries"].as_array().expect("a list").iter().map(|it| it["key"].clone()).collect();
    assert_eq!(keys, ["o:/o/a/x.zip", "o:/o/b/x.zip"]);
    node.stop().await;
}

#[tokio::test]
async fn a_purge_outlives_a_crash_right_after_it() {
    let scene = Scene::new("").await;
    scene.origin.set("/o/x.zip", Script::file(1, 3_000_000));
    let node = scene.site.start().await;
    node.get("/o/x.zip", &[]).await;
    settled(&node).await;
    scene.site.json(&["purge", "/o/x.zip"]).await;
    node.kill();
    scene.origin.set("/o/x.zip", Script::file(2, 3_000_000));
    let node = scene.site.start().await;
    let answer = node.get("/o/x.zip", &[]).await;
    assert_eq!(answer.body, content::whole(2, 3_000_000));
    assert!(verdict(&answer).contains("fwd=uri-miss"));
    node.stop().await;
}

#[tokio::test]
async fn a_soft_purge_asks_first_and_goes_on_without_upstream() {
    let scene = Scene::new("").await;
    scene.origin.set("/o/x.zip", Script::file(1, 40_000));
    let node = scene.site.start().await;
    node.get("/o/x.zip", &[]).await;
    settled(&node).await;
    scene.site.json(&["purge", "--soft", "/o/x.zip"]).await;
    let words = scene.site.json(&["explain", "/o/x.zip"]).await;
    assert_eq!(words["verdict"], "revalidate-purged");
    let asked = node.get("/o/x.zip", &[]).await;
    assert!(
        verdict(&asked).contains("fwd-status=304") || verdict(&asked).contains("fwd=stale"),
        "{}",
        verdict(&asked)
    );
    assert!(verdict(&node.get("/o/x.zip", &[]).await).contains("hit"), "once is enough");

    scene.site.json(&["purge", "--soft", "--all", "--yes"]).await;
    drop(scene.origin);
    let without = node.get("/o/x.zip", &[]).await;
    assert_eq!((without.status, without.body), (200, content::whole(1, 40_000)));
    node.stop().await;
}

#[tokio::test]
async fn a_hard_purge_wins_over_a_fill_that_began_before_it_and_its_reader_finishes() {
    let scene = Scene::new("").await;
    let gate = Gate::default();
    let hold = Some(Hold { at: Some(1_000_000), gate: gate.clone() });
    scene.origin.set("/o/x.zip", Script { hold, ..Script::file(1, 3_000_000) });
    let node = scene.site.start().await;
    let mut reader = node.connect().await;
    let reading = tokio::spawn(async move { reader.get("/o/x.zip", &[]).await.expect("an answer") });
    eventually("half of it is here", async || {
        node.status().await["fills"][0]["bytes"].as_u64().is_some_and(|bytes| bytes >= 900_000)
    })
    .await;
    let done = scene.site.json(&["purge", "/o/x.zip"]).await;
    assert_eq!((&done["fills"], &done["changed"]), (&json!(1), &json!(true)));
    assert_eq!(node.status().await["fills"], json!([]), "nobody joins it any more");
    scene.origin.set("/o/x.zip", Script::file(2, 3_000_000));
    let fresh = node.get("/o/x.zip", &[]).await;
    assert_eq!(fresh.body, content::whole(2, 3_000_000), "a request after the purge gets what came after it");
    gate.open();
    let old = reading.await.expect("the reader ends");
    assert_eq!(old.body, content::whole(1, 3_000_000), "who was reading gets it whole");
    settled(&node).await;
    let last = node.get("/o/x.zip", &[]).await;
    assert!(verdict(&last).contains("hit"));
    assert_eq!(last.body, content::whole(2, 3_000_000), "the old fill leaves nothing behind");
    node.stop().await;
}

#[tokio::test]
async fn what_was_purged_is_not_confirmed_by_a_question_that_was_under_way() {
    let scene = Scene::new("").await;
    scene.origin.set("/o/x.zip", Script::file(1, 40_000));
    let node = scene.site.start().await;
    node.get("/o/x.zip", &[]).await;
    settled(&node).await;
    scene.site.json(&["purge", "--soft", "/o/x.zip"]).await;
    let gate = Gate::default();
    let hold = Some(Hold { at: None, gate: gate.clone() });
    scene.origin.set("/o/x.zip", Script { hold, ..Script::file(1, 40_000) });
    let mut reader = node.connect().await;
    let reading = tokio::spawn(async move { reader.get("/o/x.zip", &[]).await.expect("an answer") });
    eventually("upstream is asked", async || node.status().await["fills"] != json!([])).await;
    let done = scene.site.json(&["purge", "/o/x.zip"]).await;
    assert_eq!(done["fills"], 1);
    // Under the same validator: what the operator wants to be rid of.
    scene.origin.set("/o/x.zip", Script::file(2, 40_000));
    gate.open();
    assert_eq!(reading.await.expect("an answer").status, 200);
    settled(&node).await;
    let fresh = node.get("/o/x.zip", &[]).await;
    assert!(verdict(&fresh).contains("fwd=uri-miss"), "{}", verdict(&fresh));
    assert_eq!(fresh.body, content::whole(2, 40_000));
    node.stop().await;
}

#[tokio::test]
async fn what_is_dangerous_has_to_be_confirmed() {
    let scene = Scene::new("").await;
    scene.origin.set("/o/x.zip", Script::file(1, 40_000));
    let node = scene.site.start().await;
    node.get("/o/x.zip", &[]).await;
    settled(&node).await;
    for words in
        [&["purge", "--all"][..], &["purge", "--older-than", "0s"], &["purge", "--all", "--no-input"]]
    {
        let (code, _, talk) = scene.site.run(words).await;
        assert_eq!((code, talk.contains("--yes")), (2, true), "{words:?}: {talk}");
    }
    assert!(verdict(&node.get("/o/x.zip", &[]).await).contains("hit"));
    for (words, told) in [
        (&["purge"][..], "--all"),
        (&["purge", "o/x.zip"], "/o/x.zip"),
        (&["purge", "/o/[x"], "closed"),
        (&["purge", "--all", "/o/x"], "cannot be used with"),
        (&["purge", "--older-than", "30", "/o/"], "unit"),
        (&["purge", "--from-file", "no-such-file"], "one path or pattern a line"),
        (&["cache", "pin"], "PATTERN"),
        (&["cache", "ls", "--limit", "0"], "0"),
        (&["explain", "not a path"], "/Software"),
    ] {
        let (code, out, talk) = scene.site.run(words).await;
        assert_eq!((code, out.as_str(), talk.contains(told)), (2, "", true), "{words:?}: {talk}");
    }
    let young = scene.site.json(&["purge", "--older-than", "1h", "--yes"]).await;
    assert_eq!(young["entries"], 0);
    let all = scene.site.json(&["purge", "--all", "--yes"]).await;
    assert_eq!(all["entries"], 1);
    node.stop().await;
}

#[tokio::test]
async fn pins_are_kept_and_lists_come_in_pages() {
    let scene = Scene::new("").await;
    for number in 0..5 {
        scene.origin.set(&format!("/o/{number}.txt"), Script::file(number, 100));
    }
    let node = scene.site.start().await;
    for number in 0..5 {
        node.get(&format!("/o/{number}.txt"), &[]).await;
    }
    settled(&node).await;
    let pinned = scene.site.json(&["cache", "pin", "/o/1.txt", "/o/2.txt"]).await;
    assert_eq!((&pinned["entries"], &pinned["changed"]), (&json!(2), &json!(true)));
    assert_eq!(scene.site.json(&["cache", "pin", "/o/1.txt"]).await["changed"], false);
    assert_eq!(scene.site.json(&["cache", "unpin", "/o/2.txt"]).await["entries"], 1);
    node.stop().await;
    let node = scene.site.start().await;
    let page: Value = serde_json::from_slice(&node.ask("/v1/entries?limit=2").await.body).expect("JSON");
    let rows = page["entries"].as_array().expect("a list");
    assert_eq!((rows.len(), &rows[1]["key"], &rows[1]["pinned"]), (2, &json!("o:/o/1.txt"), &json!(true)));
    let next = page["next"].as_str().expect("there is more");
    let page: Value =
        serde_json::from_slice(&node.ask(&format!("/v1/entries?after={next}")).await.body).expect("JSON");
    assert_eq!((page["entries"].as_array().map(Vec::len), &page["next"]), (Some(3), &Value::Null));
    node.stop().await;
}
