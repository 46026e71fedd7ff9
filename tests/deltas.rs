//! Incremental updates: what a mirror of ClamAV's databases has of them, where they are fetched from, and what a
//! missing one costs.

#![expect(clippy::indexing_slicing, reason = "a test may stop at the first broken assumption")]

use waypost::testkit::node::{Home, Plan, TestNode, eventually};
use waypost::testkit::origin::Origin;
use waypost::testkit::script::{Gate, Hold, Script};

/// The project's own test databases, versions 1 to 6.
const DATABASES: [&[u8]; 6] = [
    include_bytes!("data/freshclam/test-1.cvd"),
    include_bytes!("data/freshclam/test-2.cvd"),
    include_bytes!("data/freshclam/test-3.cvd"),
    include_bytes!("data/freshclam/test-4.cvd"),
    include_bytes!("data/freshclam/test-5.cvd"),
    include_bytes!("data/freshclam/test-6.cvd"),
];

/// The increments that lead to versions 2 to 6.
const INCREMENTS: [&[u8]; 5] = [
    include_bytes!("data/freshclam/test-2.cdiff"),
    include_bytes!("data/freshclam/test-3.cdiff"),
    include_bytes!("data/freshclam/test-4.cdiff"),
    include_bytes!("data/freshclam/test-5.cdiff"),
    include_bytes!("data/freshclam/test-6.cdiff"),
];

const FULL: &str = "/test.cvd";
const MISSING: &str = "waypost_deltas_missing_total{repository=\"clam\"}";
const WASTE: &str = "waypost_deltas_waste_bytes_total{repository=\"clam\"}";

fn increment(version: usize) -> String {
    format!("/test-{version}.cdiff")
}

/// Shows `version`, with the increments that lead to it.
fn publish(origin: &Origin, version: usize) {
    for to in 2..=version {
        origin.set(&increment(to), Script::text(INCREMENTS[to - 2]));
    }
    origin.set(FULL, Script::text(DATABASES[version - 1]));
}

async fn node(origins: &[&Origin], lines: &str) -> TestNode {
    let urls: Vec<String> = origins.iter().map(|origin| origin.url()).collect();
    let text = format!(
        "[[repository]]\nname = \"clam\"\npath = \"/\"\npreset = \"clamav\"\nupstreams = {urls:?}\n\
         check_every = \"1s\"\n{lines}\n"
    );
    Home::new().start(&Plan::new(text)).await
}

async fn scene(version: usize) -> (Origin, TestNode) {
    let origin = Origin::start().await;
    publish(&origin, version);
    let node = node(&[&origin], "").await;
    shows(&node, version).await;
    (origin, node)
}

async fn shows(node: &TestNode, version: usize) {
    eventually(&format!("version {version} is shown"), async || {
        node.get(FULL, &[("user-agent", "a look")]).await.body == DATABASES[version - 1]
    })
    .await;
}

#[tokio::test]
async fn a_missing_increment_is_asked_of_everybody_before_it_is_called_missing() {
    let (one, two) = (Origin::start().await, Origin::start().await);
    publish(&one, 6);
    publish(&two, 6);
    one.unset(&increment(4));
    let node = node(&[&one, &two], "").await;
    shows(&node, 6).await;
    let answer = node.get(&increment(4), &[]).await;
    assert_eq!((answer.status, &*answer.body), (200, INCREMENTS[2]), "the second one has it");
    assert_eq!((one.counts(&increment(4)).requests, node.metric(MISSING).await), (1, 0));
    for origin in [&one, &two] {
        origin.unset(&increment(2));
    }
    assert_eq!(node.get(&increment(2), &[]).await.status, 404);
    let asked = [&one, &two].map(|origin| origin.counts(&increment(2)).requests);
    assert_eq!((asked, node.metric(MISSING).await), ([1, 1], 1));
}

#[tokio::test]
async fn that_an_increment_is_missing_is_never_remembered() {
    let (origin, node) = scene(5).await;
    origin.unset(&increment(3));
    for times in 1..=3 {
        assert_eq!(node.get(&increment(3), &[]).await.status, 404);
        assert_eq!(origin.counts(&increment(3)).requests, times, "asked anew");
    }
    origin.set(&increment(3), Script::text(INCREMENTS[1]));
    let answer = node.get(&increment(3), &[]).await;
    assert_eq!((answer.status, &*answer.body), (200, INCREMENTS[1]));
    assert_eq!(node.get(&increment(3), &[]).await.status, 200);
    assert_eq!(origin.counts(&increment(3)).requests, 4, "and what is there stays");
}

#[tokio::test]
async fn the_next_increment_comes_while_an_agent_takes_the_one_before() {
    let (origin, node) = scene(5).await;
    // There already, and still nobody's business: version 5 is shown.
    origin.set(&increment(6), Script::text(INCREMENTS[4]));
    let asked = |version| origin.counts(&increment(version)).requests;
    assert_eq!(node.get(&increment(3), &[]).await.status, 200);
    eventually("the next one is fetched", async || asked(4) == 1).await;
    node.settled().await;
    assert_eq!(asked(5), 0, "one ahead is enough");
    let answer = node.get(&increment(4), &[]).await;
    assert!(answer.header("cache-status").is_some_and(|it| it.contains("hit")), "{answer:?}");
    eventually("and the one after that", async || asked(5) == 1).await;
    node.settled().await;
    assert_eq!(node.get(&increment(5), &[]).await.body, INCREMENTS[3]);
    // Whatever was to be begun by that has been: the next look at upstream comes behind it in the queue.
    shows(&node, 5).await;
    node.settled().await;
    assert_eq!((asked(4), asked(5), asked(6)), (1, 1, 0), "beyond what is shown there is nothing");
}

#[tokio::test]
async fn a_new_version_is_shown_with_the_way_to_it_already_here() {
    let (origin, node) = scene(3).await;
    let gate = Gate::default();
    let hold = Some(Hold { at: Some(100), gate: gate.clone() });
    origin.set(&increment(4), Script::text(INCREMENTS[2]));
    origin.set(&increment(5), Script { hold, ..Script::text(INCREMENTS[3]) });
    origin.set(FULL, Script::text(DATABASES[4]));
    eventually("the chain is fetched", async || origin.counts(&increment(5)).requests == 1).await;
    assert_eq!(node.get(FULL, &[]).await.body, DATABASES[2], "the old one, as long as the way is not here");
    gate.open();
    shows(&node, 5).await;
    for (version, body) in [(4, INCREMENTS[2]), (5, INCREMENTS[3])] {
        let answer = node.get(&increment(version), &[]).await;
        assert_eq!((answer.status, &*answer.body), (200, body));
        assert!(answer.header("cache-status").is_some_and(|it| it.contains("hit")), "{answer:?}");
        assert_eq!(origin.counts(&increment(version)).requests, 1);
    }
}

#[tokio::test]
async fn a_version_whose_increment_nobody_has_is_shown_all_the_same() {
    let (origin, node) = scene(3).await;
    origin.set(FULL, Script::text(DATABASES[3]));
    shows(&node, 4).await;
    assert_eq!(node.metric(MISSING).await, 0, "no agent missed it yet");
}

#[tokio::test]
async fn what_a_missing_increment_costs_is_counted_for_the_agent_that_missed_it() {
    let (origin, node) = scene(4).await;
    origin.unset(&increment(4));
    let (unlucky, other) = ([("user-agent", "unlucky/1")], [("user-agent", "other/1")]);
    assert_eq!(node.get(&increment(4), &unlucky).await.status, 404);
    assert_eq!(node.get(FULL, &other).await.status, 200);
    assert_eq!((node.metric(MISSING).await, node.metric(WASTE).await), (1, 0), "the other missed nothing");
    let check = node.get(FULL, &[unlucky[0], ("range", "bytes=0-511")]).await;
    assert_eq!((check.status, node.metric(WASTE).await), (206, 0), "a look at the header is not the file");
    assert_eq!(node.get(FULL, &unlucky).await.status, 200);
    let length = DATABASES[3].len() as u64;
    assert_eq!(node.metric(WASTE).await, length);
    assert_eq!(node.get(FULL, &unlucky).await.status, 200);
    assert_eq!((node.metric(MISSING).await, node.metric(WASTE).await), (1, length), "once for each miss");
}

#[tokio::test]
async fn a_look_at_the_version_is_answered_out_of_the_generation() {
    let (origin, node) = scene(2).await;
    let asked = origin.counts(FULL).ranges.len();
    let range = [("range", "bytes=0-511")];
    let answer = node.get(FULL, &range).await;
    assert_eq!((answer.status, &*answer.body), (206, &DATABASES[1][..512]));
    assert!(answer.header("waypost-generation").is_some_and(|it| it.contains("version=\"2\"")), "{answer:?}");
    // One whose header promises another content never gets as far.
    let mut torn = DATABASES[2].to_vec();
    *torn.last_mut().expect("it is not empty") ^= 1;
    origin.set(FULL, Script::text(torn));
    eventually("it is refused", async || {
        node.status().await["catalogues"][0]["trouble"]["reason"] == "malformed"
    })
    .await;
    assert_eq!(node.get(FULL, &range).await.body, DATABASES[1][..512]);
    assert_eq!(origin.counts(FULL).ranges.len(), asked, "no range was asked of upstream");
}

#[tokio::test]
async fn increments_are_prepared_as_the_administrator_says() {
    for (prepare, fetched) in [("deltas", 1), ("none", 0)] {
        let origin = Origin::start().await;
        publish(&origin, 3);
        let node = node(&[&origin], &format!("prepare = {prepare:?}\nprefetch = false")).await;
        shows(&node, 3).await;
        publish(&origin, 4);
        shows(&node, 4).await;
        assert_eq!(origin.counts(&increment(4)).requests, fetched, "{prepare}");
        assert_eq!(node.get(&increment(4), &[]).await.body, INCREMENTS[2], "{prepare}");
    }
}
