//! What only a node that knows the kind of repository can do: catalogue and files switch together, and a file that is
//! not what its catalogue says never reaches a client.

use std::sync::atomic::{AtomicBool, Ordering};

use waypost::testkit::process::eventually;
use waypost::testkit::script::{Gate, Hold, How, Script};

use super::agent::Outcome;
use super::apt::{self, Machine};
use super::freshclam::{self, NEWEST, Scanner};
use super::repository::Published;
use super::stage::{Stage, file};

const APT: &str = "preset = \"apt\"";

const CLAMAV: &str = "preset = \"clamav\"";

/// Asks for indexes by the name that all publications have in common, as machines and archives without by-hash do.
const BY_NAME: &str = "Acquire::By-Hash \"no\";";

const IN_RELEASE: &str = "dists/stable/InRelease";

/// Whether apt got an index that is not the one its `InRelease` names.
fn is_torn(outcome: &Outcome) -> bool {
    ["Hash Sum mismatch", "Mirror sync in progress", "unexpected size"]
        .iter()
        .any(|words| outcome.said.contains(words))
}

/// apt updates from `url` while the second publication appears between `InRelease` and the index: the old index is
/// gone when it is asked for.
async fn update_during_a_publication(stage: &Stage, second: &Published, url: &str) -> (Machine, Outcome) {
    let (path, body) = second.index();
    let gate = Gate::default();
    stage.set(path, Script { hold: Some(Hold { at: None, gate: gate.clone() }), ..file(1, body) });
    let machine = Machine::new(stage, "during", url, BY_NAME);
    let mut running = machine.update().start();
    eventually("the index is asked for", async || stage.asked(path) > 0 || running.is_over()).await;
    stage.publish(1, &second.files);
    gate.open();
    (machine, running.end().await)
}

#[tokio::test]
async fn apt_sees_a_publication_in_the_middle_of_its_update_past_the_node() {
    let Some((stage, [_, second])) = apt::stage(APT).await else { return };
    let (_, outcome) = update_during_a_publication(&stage, second, &stage.origin_url("")).await;
    assert!(outcome.code != 0 && is_torn(&outcome), "the scene is not what it should be: {outcome}");
}

#[tokio::test]
async fn apt_never_sees_a_publication_in_the_middle_of_its_update() {
    let Some((stage, [first, second])) = apt::stage(APT).await else { return };
    let (machine, outcome) = update_during_a_publication(&stage, second, &stage.url("")).await;
    assert!(!is_torn(&outcome), "{outcome}");
    outcome.succeeds();
    machine.update().run().await.succeeds();
    machine.install().run().await.succeeds();
    let counts = [first, second].map(|published| machine.count_packages(published));
    assert!(matches!(counts, [3, 0] | [0, 3]), "all of one publication, whichever: {counts:?}");
}

#[tokio::test]
async fn apt_never_sees_an_archive_that_changes_whenever_somebody_looks() {
    let Some((stage, [first, second])) = apt::stage(APT).await else { return };
    let before = Machine::new(&stage, "before", &stage.url(""), "");
    before.update().run().await.succeeds();
    stage.settles().await;
    let over = AtomicBool::new(false);
    // Whoever asked for `InRelease` finds the indexes of the other publication.
    let publisher = async {
        for (number, published) in (1..).zip([second, first].into_iter().cycle()) {
            let asked = stage.asked(IN_RELEASE);
            eventually("somebody looks, or all are done", async || {
                over.load(Ordering::Acquire) || stage.asked(IN_RELEASE) > asked
            })
            .await;
            if over.load(Ordering::Acquire) {
                break;
            }
            stage.publish(number, &published.files);
        }
    };
    let machines = async {
        for number in 0..8 {
            let conf = if number % 2 == 0 { BY_NAME } else { "" };
            let machine = Machine::new(&stage, &format!("machine-{number}"), &stage.url(""), conf);
            let outcome = machine.update().run().await;
            assert!(!is_torn(&outcome), "{number}: {outcome}");
            outcome.succeeds();
        }
        over.store(true, Ordering::Release);
    };
    tokio::join!(publisher, machines);
}

#[tokio::test]
async fn apt_updates_where_the_indexes_of_the_last_publication_are_gone() {
    let Some((stage, [first, second])) = apt::stage(APT).await else { return };
    Machine::new(&stage, "before", &stage.url(""), "").update().run().await.succeeds();
    stage.settles().await;
    for (path, _) in first.files.iter().filter(|(path, _)| path.contains("/by-hash/")) {
        stage.set(path, Script::status(404, &[]));
    }
    stage.publish(1, &second.files);
    for name in ["one", "two"] {
        let machine = Machine::new(&stage, name, &stage.url(""), "");
        let outcome = machine.update().run().await;
        assert!(!is_torn(&outcome), "{outcome}");
        outcome.succeeds();
    }
}

#[tokio::test]
async fn apt_never_sees_that_the_origin_sends_packages_and_indexes_with_a_wrong_byte() {
    let Some((mut stage, [first, _])) = apt::stage(APT).await else { return };
    for (path, body) in first.files.iter().filter(|(path, _)| !path.ends_with("Release")) {
        stage.set(path, file(0, body).breaking(body.len() as u64 / 2, How::Flip, 1));
    }
    let (path, _) = first.largest_package();
    for name in ["cold", "warm"] {
        let machine = Machine::new(&stage, name, &stage.url(""), "");
        machine.update().run().await.succeeds();
        machine.install().run().await.succeeds();
        machine.has_packages(first);
        assert!((1..=2).contains(&stage.asked(path)), "wrong once, then right");
        stage.settles().await;
    }
    stage.lose_origin();
    let machine = Machine::new(&stage, "dead", &stage.url(""), "");
    machine.update().run().await.succeeds();
    machine.install().run().await.succeeds();
    machine.has_packages(first);
}

#[tokio::test]
async fn freshclam_never_sees_that_the_origin_sends_a_database_with_a_wrong_byte() {
    // In the MD5 that the header names, in the signature, and in the body.
    for at in [60, 200, 5_000] {
        let Some(mut stage) = freshclam::stage(CLAMAV, NEWEST).await else { return };
        let path = "clamav/test.cvd";
        let body = freshclam::data("test-6.cvd");
        stage.set(path, file(NEWEST, &body).breaking(at, How::Flip, 1));
        for name in ["cold", "warm", "dead"] {
            if name == "dead" {
                stage.lose_origin();
            }
            let scanner = Scanner::new(&stage, name, None).await;
            scanner.update().await.succeeds();
            assert!(scanner.database("test.cvd") == Some(body.clone()), "{at}, {name}");
            stage.settles().await;
        }
    }
}
