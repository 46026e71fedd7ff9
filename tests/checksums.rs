//! Folders with a `SHA256SUMS`: what it lists is held to it, everything else goes by the rules.

#![expect(clippy::indexing_slicing, reason = "a test may stop at the first broken assumption")]

use bytes::Bytes;
use waypost::base::digest::Digest;
use waypost::testkit::content;
use waypost::testkit::node::{Home, Plan, TestNode, eventually};
use waypost::testkit::origin::Origin;
use waypost::testkit::script::Script;

const LIST: &str = "/iso/SHA256SUMS";

fn body(seed: u64) -> Bytes {
    content::whole(seed, 200_000)
}

/// A list in the form of coreutils.
fn list(files: &[(&str, &Bytes)]) -> String {
    files.iter().map(|(name, body)| format!("{}  {name}\n", Digest::of(body))).collect()
}

/// A node before an origin with two listed files and one that is not.
async fn scene() -> (Origin, TestNode) {
    let origin = Origin::start().await;
    for (name, seed) in [("one.iso", 1), ("two.iso", 2), ("README", 3)] {
        origin.set(&format!("/iso/{name}"), Script::text(body(seed)));
    }
    origin.set(LIST, Script::text(list(&[("one.iso", &body(1)), ("two.iso", &body(2))])));
    let text = format!(
        "[[repository]]\nname = \"images\"\npath = \"/\"\nchecksums = true\nupstreams = [{:?}]\n\
         check_every = \"1s\"\n",
        origin.url()
    );
    let node = Home::new().start(&Plan::new(text)).await;
    (origin, node)
}

async fn trouble(node: &TestNode) -> serde_json::Value {
    let status = node.status().await;
    let catalogues = status["catalogues"].as_array().cloned().unwrap_or_default();
    catalogues.iter().find(|it| it["root"] == LIST[1..]).map(|it| it["trouble"].clone()).unwrap_or_default()
}

#[tokio::test]
async fn what_is_listed_is_held_to_its_line() {
    let (origin, node) = scene().await;
    let answer = node.get("/iso/one.iso", &[]).await;
    assert_eq!((answer.status, &answer.body), (200, &body(1)));
    origin.set("/iso/two.iso", Script::text("<html>please log in</html>"));
    let answer = node.get("/iso/two.iso", &[]).await;
    assert!(answer.status == 502 || answer.status == 503, "{answer:?}");
    assert!(!String::from_utf8_lossy(&answer.body).contains("log in"), "{answer:?}");
    origin.set("/iso/two.iso", Script::text(body(2)));
    eventually("the right one goes out", async || {
        let answer = node.get("/iso/two.iso", &[]).await;
        assert!(answer.status != 200 || answer.body == body(2), "{answer:?}");
        answer.status == 200
    })
    .await;
}

#[tokio::test]
async fn what_every_upstream_has_wrong_is_not_fetched_for_each_agent() {
    let (origin, node) = scene().await;
    assert_eq!(node.get("/iso/one.iso", &[]).await.status, 200);
    let asked = || origin.counts("/iso/two.iso").requests;
    origin.set("/iso/two.iso", Script::text(body(9)));
    let answer = node.get("/iso/two.iso", &[]).await;
    assert_eq!((answer.status, answer.header("retry-after")), (502, None), "{answer:?}");
    let once = asked();
    assert!(once > 0, "it was fetched to find out");
    let answer = node.get("/iso/two.iso", &[]).await;
    // On a machine that stood still for long enough, it was asked for again: then nothing is said here.
    if asked() == once {
        assert_eq!(answer.status, 502);
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
        assert!(answer.header("cache-status").is_some_and(|it| it.contains("upstream-lied")), "{answer:?}");
    }
    origin.set("/iso/two.iso", Script::text(body(2)));
    eventually("the right one goes out", async || node.get("/iso/two.iso", &[]).await.status == 200).await;
}

#[tokio::test]
async fn what_is_not_listed_goes_by_the_rules() {
    let (origin, node) = scene().await;
    let answer = node.get("/iso/README", &[]).await;
    assert_eq!((answer.status, &answer.body), (200, &body(3)));
    assert_eq!(answer.header("waypost-generation"), None);
    assert_eq!(node.get("/iso/nothing", &[]).await.status, 404);
    assert_eq!(origin.counts("/iso/nothing").requests, 1);
    let list = node.get(LIST, &[]).await;
    assert!(list.header("waypost-generation").is_some(), "the list itself is a generation's: {list:?}");
}

#[tokio::test]
async fn a_folder_without_a_list_works_plainly() {
    let (origin, node) = scene().await;
    for name in ["a", "b"] {
        origin.set(&format!("/plain/{name}"), Script::text(body(4)));
    }
    for name in ["a", "b", "a"] {
        let answer = node.get(&format!("/plain/{name}"), &[]).await;
        assert_eq!((answer.status, &answer.body), (200, &body(4)));
    }
    assert_eq!(node.get("/plain/SHA256SUMS", &[]).await.status, 404);
    assert_eq!(node.get("/iso/one.iso", &[]).await.status, 200, "the other folder has its list");
    // Later it gets one, and a file that contradicts it: from the next look on the list holds.
    origin.set("/plain/SHA256SUMS", Script::text(list(&[("a", &body(4)), ("c", &body(5))])));
    origin.set("/plain/c", Script::text(body(6)));
    eventually("the list is a generation", async || {
        node.get("/plain/SHA256SUMS", &[]).await.header("waypost-generation").is_some()
    })
    .await;
    assert_eq!(node.get("/plain/a", &[]).await.body, body(4));
    assert_ne!(node.get("/plain/c", &[]).await.status, 200);
}

#[tokio::test]
async fn a_list_that_contradicts_itself_never_replaces_one_that_did_not() {
    let (origin, node) = scene().await;
    assert_eq!(node.get("/iso/one.iso", &[]).await.status, 200);
    let shown = node.get(LIST, &[]).await.body;
    origin.set(
        LIST,
        Script::text(list(&[("one.iso", &body(1)), ("two.iso", &body(2)), ("one.iso", &body(9))])),
    );
    eventually("it is refused", async || trouble(&node).await["reason"] == "malformed").await;
    let detail = trouble(&node).await["detail"].as_str().expect("it is said why").to_owned();
    assert!(detail.contains("SHA256SUMS") && detail.contains("line 3"), "{detail}");
    assert_eq!(node.get(LIST, &[]).await.body, shown);
    for (name, seed) in [("one.iso", 1), ("two.iso", 2)] {
        let answer = node.get(&format!("/iso/{name}"), &[]).await;
        assert_eq!((answer.status, &answer.body), (200, &body(seed)), "{name}");
    }
    let refused = "waypost_generations_refused_total{repository=\"images\",reason=\"malformed\"}";
    assert!(node.metric(refused).await > 0);
}

#[tokio::test]
async fn a_new_list_waits_for_the_files_that_agents_use() {
    let (origin, node) = scene().await;
    let old = node.get(LIST, &[]).await.body;
    assert_eq!(node.get("/iso/one.iso", &[]).await.status, 200);
    origin.set(LIST, Script::text(list(&[("one.iso", &body(7)), ("two.iso", &body(8))])));
    eventually("it is not complete", async || trouble(&node).await["reason"] == "not-ready").await;
    assert_eq!(node.get(LIST, &[]).await.body, old);
    assert_eq!(node.get("/iso/one.iso", &[]).await.body, body(1));
    origin.set("/iso/one.iso", Script::text(body(7)));
    eventually("the new one is shown", async || node.get(LIST, &[]).await.body != old).await;
    assert_eq!(node.get("/iso/one.iso", &[]).await.body, body(7));
}
