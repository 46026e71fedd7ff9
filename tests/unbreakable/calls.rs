//! The process is killed at the n-th system call of a kind, whatever it is for: what has no name in the program is
//! found so. The count is of each thread, and the first thread that comes so far ends all.

use std::process::Command;

use waypost::testkit::process::Dice;

use super::scene::{Scene, Work};
use super::{is_everything, skip};

/// Kinds of calls, and the highest number that is worth trying in a short run.
const KINDS: [(&str, u64); 5] = [
    ("pwrite64", 40),
    ("fsync,fdatasync", 8),
    ("rename,renameat,renameat2,link,linkat", 6),
    ("unlink,unlinkat,rmdir", 6),
    ("ftruncate,fallocate,mkdir,mkdirat", 8),
];

pub(crate) fn can_trace() -> bool {
    Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "true"])
        .status()
        .is_ok_and(|status| status.success())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_call_to_the_disk_costs_nothing_that_was_acknowledged() {
    if !can_trace() {
        return skip("strace is not here, or may not trace");
    }
    let work = [Work::Agents, Work::Control, Work::Files];
    let mut dice = Dice::seeded(13);
    let mut scene = Scene::new().await;
    let node = scene.site.start().await;
    assert!(scene.work(&node, &work).await);
    node.stop().await;
    let mut died = 0;
    for (kind, most) in KINDS {
        let mut number = 1;
        loop {
            let inject = format!("inject={kind}:signal=KILL:when={number}");
            let trace = format!("trace={kind}");
            // As a grandchild (-D), so that our child is the node.
            let words = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
            let died_here = match scene.site.clone().under(&words).try_start().await {
                Err(_) => true,
                Ok(node) => {
                    let lived = scene.work(&node, &work).await;
                    node.kill();
                    !lived
                }
            };
            died += u32::from(died_here);
            println!("{kind}, call {number}: {}", if died_here { "killed" } else { "never so often" });
            let node = scene.site.start().await;
            scene.examine(&node, false).await;
            node.kill();
            if !died_here {
                break;
            }
            number += if is_everything() { 1 } else { 1 + dice.below(most) };
            if !is_everything() && number > most {
                break;
            }
        }
    }
    println!("killed {died} times");
    assert!(died >= 5, "the kills strike: {died}");
}
