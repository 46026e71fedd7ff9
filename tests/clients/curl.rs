//! curl, which goes on with what it has (`-C -`), in front of the real program.

use std::path::Path;

use waypost::testkit::process::Signal;

use super::agent::Agent;
use super::stage::answered;
use super::transfer::{FILE, LEN, Transfer};

/// Both versions of the protocol.
const VERSIONS: [&str; 2] = ["--http1.1", "--http2"];

async fn transfer() -> Option<Transfer> {
    Transfer::new(&["curl", "--version"]).await
}

fn curl(transfer: &Transfer, version: &str, file: &Path) -> Agent {
    let agent =
        Agent::new("curl").args(&["-q", "-sS", "--fail", "--noproxy", "*", "--max-time", "100", "-C", "-"]);
    agent
        .arg("--cacert")
        .arg(transfer.stage.ca())
        .arg(version)
        .arg("-o")
        .arg(file)
        .arg(transfer.stage.url(FILE))
}

#[tokio::test]
async fn curl_fetches_cold_and_warm_and_with_the_origin_dead() {
    let Some(mut transfer) = transfer().await else { return };
    for version in VERSIONS {
        let (_, file) = transfer.place(version);
        curl(&transfer, version, &file).run().await.succeeds();
        transfer.is_right(&file);
        transfer.crossed_once();
        transfer.stage.settles().await;
    }
    transfer.stage.lose_origin();
    let (_, file) = transfer.place("dead");
    curl(&transfer, "--http2", &file).run().await.succeeds();
    transfer.is_right(&file);
}

#[tokio::test]
async fn curl_goes_on_after_it_was_killed() {
    for version in VERSIONS {
        let Some(transfer) = transfer().await else { return };
        let gate = transfer.hold_at(LEN / 2);
        let (_, file) = transfer.place("one");
        let agent = curl(&transfer, version, &file);
        let had = transfer.break_off(agent, &file, LEN / 4, Signal::KILL).await;
        gate.open();
        curl(&transfer, version, &file).run().await.succeeds();
        transfer.is_right(&file);
        let rest = transfer.stage.logs("the rest", answered(206, FILE)).await;
        assert_eq!(rest["bytes"], LEN - had, "{rest}");
        transfer.crossed_once();
    }
}

#[tokio::test]
async fn curl_goes_on_after_the_node_was_killed() {
    for version in VERSIONS {
        let Some(mut transfer) = transfer().await else { return };
        let gate = transfer.hold_at(LEN / 2);
        let (_, file) = transfer.place("one");
        let running = curl(&transfer, version, &file).start();
        let has = || std::fs::metadata(&file).map_or(0, |meta| meta.len());
        waypost::testkit::process::eventually("a part is there", async || has() > LEN / 4).await;
        transfer.kill_the_node().await;
        let cut = running.end().await;
        assert_ne!(cut.code, 0, "a stump is no file: {cut}");
        gate.open();
        curl(&transfer, version, &file).run().await.succeeds();
        transfer.is_right(&file);
        transfer.crossed_not_all_again();
    }
}
