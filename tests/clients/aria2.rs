//! aria2, which fetches a file in segments over several connections and remembers which it has.

use std::path::Path;

use waypost::testkit::process::Signal;
use waypost::testkit::script::How;

use super::agent::Agent;
use super::stage::answered;
use super::transfer::{FILE, LEN, Transfer};

async fn transfer() -> Option<Transfer> {
    let transfer = Transfer::new(&["aria2c", "--version"]).await?;
    // As a line is: over bare loopback megabytes lie in the kernel when a lane ends where another one began.
    transfer.stage.origin().set_rate(8 << 20);
    Some(transfer)
}

fn aria2(transfer: &Transfer, dir: &Path) -> Agent {
    let agent = Agent::new("aria2c").args(&["--no-conf", "--no-netrc", "--max-tries=1", "--timeout=60"]);
    let agent = agent.args(&["-x4", "-s4", "-k1M", "-c", "--file-allocation=none", "--disk-cache=0"]);
    let agent = agent.args(&["--summary-interval=0", "--console-log-level=warn", "--disable-ipv6=true"]);
    agent
        .arg(format!("--ca-certificate={}", transfer.stage.ca().display()))
        .arg("-d")
        .arg(dir)
        .arg(transfer.stage.url(FILE))
}

#[tokio::test]
async fn aria2_fetches_in_segments_and_the_file_crosses_once() {
    let Some(mut transfer) = transfer().await else { return };
    for name in ["cold", "warm"] {
        let (dir, file) = transfer.place(name);
        aria2(&transfer, &dir).run().await.succeeds();
        transfer.is_right(&file);
        transfer.stage.logs("a segment", answered(206, FILE)).await;
        transfer.crossed_about_once();
        transfer.stage.settles().await;
    }
    transfer.stage.lose_origin();
    let (dir, file) = transfer.place("dead");
    aria2(&transfer, &dir).run().await.succeeds();
    transfer.is_right(&file);
}

#[tokio::test]
async fn aria2_goes_on_after_it_was_ended_or_killed() {
    for signal in [Signal::TERM, Signal::KILL] {
        let Some(transfer) = transfer().await else { return };
        let gate = transfer.hold_at(LEN / 2);
        let (dir, file) = transfer.place("one");
        transfer.break_off(aria2(&transfer, &dir), &file, LEN / 8, signal).await;
        gate.open();
        aria2(&transfer, &dir).run().await.succeeds();
        transfer.is_right(&file);
        transfer.crossed_about_once();
    }
}

#[tokio::test]
async fn aria2_does_not_notice_that_the_origin_breaks_off() {
    let Some(transfer) = transfer().await else { return };
    transfer.stage.set(FILE, transfer.script().breaking(LEN / 2, How::Reset, 1));
    let (dir, file) = transfer.place("one");
    aria2(&transfer, &dir).run().await.succeeds();
    transfer.is_right(&file);
    transfer.crossed_about_once();
}
