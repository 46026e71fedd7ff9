//! wget, which goes on with what it has (`-c`).

use std::path::Path;

use waypost::testkit::process::Signal;
use waypost::testkit::script::How;

use super::agent::Agent;
use super::stage::answered;
use super::transfer::{FILE, LEN, Transfer};

async fn transfer() -> Option<Transfer> {
    Transfer::new(&["wget", "--version"]).await
}

fn wget(transfer: &Transfer, dir: &Path) -> Agent {
    let agent =
        Agent::new("wget").args(&["--no-config", "--no-hsts", "-nv", "--tries=1", "--timeout=60", "-c"]);
    agent.arg("--ca-certificate").arg(transfer.stage.ca()).arg(transfer.stage.url(FILE)).dir(dir)
}

#[tokio::test]
async fn wget_fetches_cold_and_warm_and_with_the_origin_dead() {
    let Some(mut transfer) = transfer().await else { return };
    for name in ["cold", "warm"] {
        let (dir, file) = transfer.place(name);
        wget(&transfer, &dir).run().await.succeeds();
        transfer.is_right(&file);
        transfer.crossed_once();
        transfer.stage.settles().await;
    }
    transfer.stage.lose_origin();
    let (dir, file) = transfer.place("dead");
    wget(&transfer, &dir).run().await.succeeds();
    transfer.is_right(&file);
}

#[tokio::test]
async fn wget_goes_on_after_it_was_killed() {
    let Some(transfer) = transfer().await else { return };
    let gate = transfer.hold_at(LEN / 2);
    let (dir, file) = transfer.place("one");
    let had = transfer.break_off(wget(&transfer, &dir), &file, LEN / 4, Signal::KILL).await;
    gate.open();
    wget(&transfer, &dir).run().await.succeeds();
    transfer.is_right(&file);
    let rest = transfer.stage.logs("the rest", answered(206, FILE)).await;
    assert_eq!(rest["bytes"], LEN - had, "{rest}");
    transfer.crossed_once();
    // There is no more, and it says so.
    wget(&transfer, &dir).run().await.succeeds();
    transfer.stage.logs("nothing left", answered(416, FILE)).await;
}

#[tokio::test]
async fn wget_goes_on_after_the_node_was_killed() {
    let Some(mut transfer) = transfer().await else { return };
    let gate = transfer.hold_at(LEN / 2);
    let (dir, file) = transfer.place("one");
    transfer.break_off(wget(&transfer, &dir), &file, LEN / 4, Signal::KILL).await;
    transfer.kill_the_node().await;
    gate.open();
    wget(&transfer, &dir).run().await.succeeds();
    transfer.is_right(&file);
    transfer.crossed_not_all_again();
}

#[tokio::test]
async fn wget_does_not_notice_that_the_origin_breaks_off() {
    let Some(transfer) = transfer().await else { return };
    for (name, how) in [("reset", How::Reset), ("finish", How::Finish)] {
        let path = format!("{name}.bin");
        transfer.stage.set(&path, transfer.script().breaking(LEN / 3, how, 1));
        let (dir, file) = transfer.place(name);
        let agent =
            Agent::new("wget").args(&["--no-config", "--no-hsts", "-nv", "--tries=1", "-O"]).arg(&file);
        let agent = agent.arg("--ca-certificate").arg(transfer.stage.ca()).dir(&dir);
        agent.arg(transfer.stage.url(&path)).run().await.succeeds();
        transfer.is_right(&file);
        assert_eq!(transfer.stage.asked(&path), 2);
    }
}
