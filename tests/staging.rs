//! What is fetched before agents ask: how much of it, how fast, and what happens when it is interrupted.

#![expect(clippy::indexing_slicing, reason = "a test may stop at the first broken assumption")]

use waypost::testkit::client::{Answer, End};
use waypost::testkit::node::{Home, Plan, TestNode, eventually};
use waypost::testkit::origin::Origin;
use waypost::testkit::publisher::{CURRENT, Edition, ROOT};
use waypost::testkit::script::{Gate, Hold, Script};

const LENGTH: usize = 100_000;

fn plan(origins: &[&Origin], lines: &str) -> Plan {
    let urls: Vec<String> = origins.iter().map(|origin| origin.url()).collect();
    Plan::new(format!(
        "[[repository]]\nname = \"dats\"\npath = \"/\"\npreset = \"epo\"\nupstreams = {urls:?}\n\
         check_every = \"1s\"\n{lines}\n"
    ))
}

fn edition(number: u64) -> Edition {
    Edition::new(number, 2, LENGTH)
}

fn path(name: &str) -> String {
    format!("/{CURRENT}{name}")
}

fn body(number: u64, name: &str) -> bytes::Bytes {
    edition(number).body(&format!("{CURRENT}{name}"))
}

fn version(answer: &Answer) -> String {
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    text.split("CatalogVersion=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap_or_default()
        .to_owned()
}

async fn shows(node: &TestNode, number: u64) {
    eventually(&format!("edition {number} is shown"), async || {
        version(&node.get(&format!("/{ROOT}"), &[]).await) == number.to_string()
    })
    .await;
}

async fn trouble(node: &TestNode) -> serde_json::Value {
    node.status().await["catalogues"][0]["trouble"]["reason"].clone()
}

async fn scene(lines: &str) -> (Origin, TestNode) {
    let origin = Origin::start().await;
    edition(1).publish(&origin, "/");
    let node = Home::new().start(&plan(&[&origin], lines)).await;
    shows(&node, 1).await;
    (origin, node)
}

/// Publishes with `name` held at its head until the gate opens.
fn publish_held(edition: &Edition, origin: &Origin, name: &str) -> Gate {
    let gate = Gate::default();
    edition.publish(origin, "/");
    let hold = Some(Hold { at: None, gate: gate.clone() });
    origin.set(&path(name), Script { hold, ..Script::text(edition.body(&format!("{CURRENT}{name}"))) });
    gate
}

fn requests(origin: &Origin, name: &str) -> usize {
    origin.counts(&path(name)).requests
}

#[tokio::test]
async fn nothing_is_prepared_where_the_administrator_says_so() {
    let (origin, node) = scene("prepare = \"none\"\nprefetch = false").await;
    assert_eq!(node.get(&path("part0.bin"), &[]).await.body, body(1, "part0.bin"));
    let gate = publish_held(&edition(2), &origin, "part0.bin");
    shows(&node, 2).await;
    assert_eq!((requests(&origin, "part0.bin"), requests(&origin, "part1.bin")), (1, 0));
    gate.open();
    assert_eq!(node.get(&path("part0.bin"), &[]).await.body, body(2, "part0.bin"), "fetched when asked for");
}

#[tokio::test]
async fn only_what_the_globs_match_is_prepared() {
    let (origin, node) = scene("prepare = [\"**/part1.bin\"]\nprefetch = false").await;
    assert_eq!((requests(&origin, "part0.bin"), requests(&origin, "part1.bin")), (0, 1));
    let gate = publish_held(&edition(2), &origin, "part1.bin");
    eventually("it is fetched", async || requests(&origin, "part1.bin") == 2).await;
    assert_eq!(version(&node.get(&format!("/{ROOT}"), &[]).await), "1");
    gate.open();
    shows(&node, 2).await;
    assert_eq!(requests(&origin, "part0.bin"), 0);
    assert_eq!(node.get(&path("part1.bin"), &[]).await.body, body(2, "part1.bin"));
    assert_eq!(requests(&origin, "part1.bin"), 2);
}

#[tokio::test]
async fn what_is_fetched_ahead_keeps_to_its_rate_until_somebody_wants_it() {
    const LARGE: usize = 16 << 20;
    let origin = Origin::start().await;
    let large = |number| Edition::new(number, 1, LARGE);
    large(1).publish(&origin, "/");
    let lines = "prepare = \"none\"\nprefetch_rate = \"1KiB/s\"";
    let node = Home::new().start(&plan(&[&origin], lines)).await;
    let name = format!("{CURRENT}part0.bin");
    assert_eq!(node.get(&path("part0.bin"), &[]).await.body, large(1).body(&name));
    let before = origin.counts(&path("part0.bin")).body_bytes;
    large(2).publish(&origin, "/");
    shows(&node, 2).await;
    eventually("it is begun", async || origin.counts(&path("part0.bin")).body_bytes > before).await;
    // All of it would take four hours; an agent that asks has it now.
    assert_eq!(node.fills().await, 1);
    let answer = node.get(&path("part0.bin"), &[]).await;
    assert_eq!((answer.status, answer.end), (200, End::Complete));
    assert_eq!(answer.body, large(2).body(&name));
    assert_eq!(origin.counts(&path("part0.bin")).requests, 2, "it is the same fill");
}

#[tokio::test]
async fn a_restart_in_the_middle_of_staging_goes_on_where_it_was() {
    let (origin, node) = scene("prepare = \"all\"").await;
    let gate = publish_held(&edition(2), &origin, "part1.bin");
    let others = || requests(&origin, "part0.bin") == 2 && requests(&origin, "avvdat-2.zip") == 1;
    eventually("the rest is here", async || {
        others() && requests(&origin, "part1.bin") == 2 && node.fills().await == 1
    })
    .await;
    let plan = plan(&[&origin], "prepare = \"all\"");
    let home = node.stop().await;
    let node = home.start(&plan).await;
    assert_eq!(version(&node.get(&format!("/{ROOT}"), &[]).await), "1");
    assert_eq!(node.get(&path("part1.bin"), &[]).await.body, body(1, "part1.bin"));
    gate.open();
    shows(&node, 2).await;
    for name in ["part0.bin", "part1.bin", "avvdat-2.zip"] {
        assert_eq!(node.get(&path(name), &[]).await.body, body(2, name), "{name}");
    }
    let asked = [requests(&origin, "part0.bin"), requests(&origin, "avvdat-2.zip")];
    assert_eq!(asked, [2, 1], "what was here was not fetched again");
}

#[tokio::test]
async fn a_disk_that_takes_nothing_leaves_catalogues_served_and_files_proven() {
    let origin = Origin::start().await;
    edition(1).publish(&origin, "/");
    let full = "size = \"256MiB\"\nmemory = \"16MiB\"\nmin_free = \"900TiB\"\n";
    let node = Home::new().start(&plan(&[&origin], "").with_cache(full)).await;
    shows(&node, 1).await;
    for times in 1..=2 {
        assert_eq!(node.get(&path("avvdat-1.zip"), &[]).await.body, body(1, "avvdat-1.zip"));
        node.settled().await;
        assert_eq!(requests(&origin, "avvdat-1.zip"), times, "nothing is kept of it");
    }
    for name in ["Replica.log", "avvdat.ini", "part0.bin"] {
        let answer = node.get(&path(name), &[]).await;
        assert_eq!((answer.status, answer.body), (200, body(1, name)), "{name}");
    }
    origin.set(&path("part1.bin"), Script::text(body(7, "part1.bin")));
    let answer = node.get(&path("part1.bin"), &[]).await;
    assert!(answer.status != 200 || answer.end != End::Complete, "a wrong one looks whole: {answer:?}");
    edition(2).publish(&origin, "/");
    shows(&node, 2).await;
    for name in ["Replica.log", "part1.bin"] {
        let answer = node.get(&path(name), &[]).await;
        assert_eq!((answer.status, answer.body), (200, body(2, name)), "{name}");
    }
}

#[tokio::test]
async fn a_half_replicated_upstream_is_passed_over_for_a_whole_one() {
    let (half, whole) = (Origin::start().await, Origin::start().await);
    for origin in [&half, &whole] {
        edition(1).publish(origin, "/");
    }
    half.unset(&path("Replica.log"));
    half.unset(&path("part0.bin"));
    let node = Home::new().start(&plan(&[&half, &whole], "prepare = \"all\"")).await;
    shows(&node, 1).await;
    assert_eq!(node.status().await["catalogues"][0]["upstream"].as_str(), Some(&*whole.url()));
    assert_eq!(node.get(&path("part0.bin"), &[]).await.body, body(1, "part0.bin"));
    // Catalogue whole, a payload still on its way: what the other one has will do.
    edition(2).publish(&whole, "/");
    edition(2).publish(&half, "/");
    half.unset(&path("part1.bin"));
    shows(&node, 2).await;
    for name in ["part0.bin", "part1.bin"] {
        assert_eq!(node.get(&path(name), &[]).await.body, body(2, name), "{name}");
    }
    // Neither is whole: the last one stays.
    for origin in [&half, &whole] {
        edition(3).publish(origin, "/");
        origin.unset(&path("avvdat.ini"));
    }
    eventually("it is seen", async || trouble(&node).await.is_string()).await;
    assert_eq!(version(&node.get(&format!("/{ROOT}"), &[]).await), "2");
    assert_eq!(node.get(&path("avvdat.ini"), &[]).await.body, body(2, "avvdat.ini"));
}
