//! Too little of everything: descriptors, memory, processor, places for fetches. What is here is served all the same.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use waypost::testkit::client::{Client, End};
use waypost::testkit::content;
use waypost::testkit::node::eventually;
use waypost::testkit::process::Process;
use waypost::testkit::script::{Gate, Hold, Script};
use waypost::testkit::stage::Stage;

use super::scene::{WAYPOST, get};

const MIB: u64 = 1 << 20;

fn has(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

async fn right(node: &Process, seed: u64, length: u64) {
    let answer = node.get(&format!("/o/f{seed}"), &[]).await;
    assert_eq!((answer.status, answer.end), (200, End::Complete), "file {seed}: {}", node.log().join("\n"));
    let whole = content::whole(seed, usize::try_from(length).expect("small"));
    assert!(answer.body == whole, "wrong bytes of {seed}");
}

/// Ticks of processor time that a process has used so far.
fn ticks(node: &Process) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.id())).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    [11, 12].iter().map(|at| fields[*at].parse::<u64>().expect("a number")).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_descriptors_serves_who_is_here_and_all_when_some_leave() {
    if !has("prlimit") {
        return super::skip("prlimit is not here");
    }
    let mut stage = Stage::new(WAYPOST).await;
    stage.setup.server = "[limits]\nconnections_per_address = 5000\nconnections = 5000\n".to_owned();
    stage.site.configure(&stage.setup);
    stage.file(1, 3 * MIB);
    let node = stage.site.clone().under(&["prlimit", "--nofile=90:90"]).start().await;
    right(&node, 1, 3 * MIB).await;
    let mut agent = node.connect().await;
    assert_eq!(agent.get("/o/f1", &[]).await.expect("an answer").status, 200);
    let mut idle = Vec::new();
    for _ in 0..150 {
        idle.push(Client::connect(node.address).await.expect("the kernel takes it"));
    }
    eventually("there are none left", async || node.said("cannot accept")).await;
    for _ in 0..5 {
        let answer = agent.get("/o/f1", &[]).await.expect("an answer");
        assert_eq!((answer.status, answer.end), (200, End::Complete));
        assert!(answer.body == content::whole(1, 3 << 20), "wrong bytes");
    }
    // It does not turn in a circle over it: a hundredth of a second in fifty, and a line now and then.
    let (lines, before) = (node.log().len(), ticks(&node));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (lines, used) = (node.log().len() - lines, ticks(&node) - before);
    assert!(lines < 200 && used < 60, "{lines} lines and {used} hundredths of a second in one");
    drop(idle);
    eventually("others are served again", async || {
        get(&node, "/o/f1").await.is_some_and(|answer| answer.status == 200 && answer.end == End::Complete)
    })
    .await;
    stage.file(2, 3 * MIB);
    right(&node, 2, 3 * MIB).await;
    node.stop().await;
}

/// 20 slow downloads and a herd on cold files, with 256 MiB that it may ask for in all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_little_memory_serves_herds_and_slow_readers() {
    if !has("prlimit") {
        return super::skip("prlimit is not here");
    }
    let mut stage = Stage::new(WAYPOST).await;
    // Over loopback a socket holds megabytes: what a reader takes of them is seen in large steps only.
    stage.setup.server = "[limits]\nsend_timeout = \"5m\"\n".to_owned();
    stage.site.configure(&stage.setup);
    let length = 3 * MIB;
    for seed in 0..4 {
        stage.file(seed, length);
    }
    // Private memory that may be written, stacks of threads included: what an allocation beyond it gets is none.
    let node = stage.site.clone().under(&["prlimit", "--data=268435456"]).start().await;
    right(&node, 0, length).await;
    let address = node.address;
    let over = Arc::new(AtomicBool::new(false));
    let mut slow = JoinSet::new();
    for number in 0..20_u64 {
        let over = Arc::clone(&over);
        slow.spawn(async move {
            let (seed, mut at) = (number % 2, 0);
            let mut client = Client::connect(address).await.expect("it accepts");
            client.begin(&format!("/o/f{seed}"), &[]).await.expect("a head");
            while at < length {
                client.check(seed, at, 64 << 10).await.expect("all of it, slowly");
                at += 64 << 10;
                if !over.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        });
    }
    let mut herd = JoinSet::new();
    for number in 0..40_u64 {
        let seed = 2 + number % 2;
        herd.spawn(async move {
            let mut client = Client::connect(address).await.expect("it accepts");
            client.begin(&format!("/o/f{seed}"), &[]).await.expect("a head");
            client.check(seed, 0, length).await.expect("all of it");
        });
    }
    while let Some(ended) = herd.join_next().await {
        ended.expect("every byte was right");
    }
    let resident = node.anonymous() >> 20;
    println!("{resident} MiB resident");
    // 8 MiB of cache, 64 MiB, and 350 KiB for each of 60 downloads: what is promised.
    assert!(resident <= 8 + 64 + 60 * 350 / 1024, "{resident} MiB resident");
    over.store(true, Ordering::Relaxed);
    while let Some(ended) = slow.join_next().await {
        ended.expect("every byte was right");
    }
    for seed in 2..4 {
        assert_eq!(stage.origin.counts(&format!("/o/f{seed}")).requests, 1);
    }
    node.stop().await;
}

/// Takes what there is of one processor, at everybody else's priority, as long as it lives.
struct Hog(Child);

impl Hog {
    fn on_first() -> Self {
        let words = ["-c", "0", "nice", "-n", "-5", "sh", "-c", "while :; do :; done"];
        Self(Command::new("taskset").args(words).stderr(Stdio::null()).spawn().expect("taskset runs"))
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_fifth_of_a_processor_is_slow_and_breaks_nothing() {
    if !has("taskset") {
        return super::skip("taskset is not here");
    }
    let stage = Stage::new(WAYPOST).await;
    for seed in 0..6 {
        stage.file(seed, 2 * MIB + seed);
    }
    let node = stage.site.clone().under(&["taskset", "-c", "0", "nice", "-n", "5"]).start().await;
    let _hogs = [Hog::on_first(), Hog::on_first()];
    let mut agents = JoinSet::new();
    let address = node.address;
    for number in 0..18_u64 {
        let seed = number % 6;
        agents.spawn(async move {
            let mut client = Client::connect(address).await.expect("it accepts");
            client.begin(&format!("/o/f{seed}"), &[]).await.expect("a head");
            client.check(seed, 0, 2 * MIB + seed).await.expect("all of it");
        });
    }
    while let Some(ended) = agents.join_next().await {
        ended.expect("every byte was right");
    }
    for seed in 0..6 {
        assert_eq!(stage.origin.counts(&format!("/o/f{seed}")).requests, 1);
    }
    node.stop().await;
}

/// Three times as many misses as there are places for fetches and in the line: who has no place is told when to come
/// again, not all at the same moment, and whoever asks for what is here does not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_three_times_what_it_can_do_hits_go_on_and_misses_are_told_when_to_come_again() {
    let mut stage = Stage::new(WAYPOST).await;
    stage.setup.server =
        "[limits]\nfills = 8\nfills_per_upstream = 8\nqueue = 12\nqueue_wait = \"10m\"\n".to_owned();
    stage.site.configure(&stage.setup);
    let node = stage.site.start().await;
    stage.file(0, MIB);
    right(&node, 0, MIB).await;
    eventually("it is stored", async || node.metric("waypost_cache_objects").await == 1.0).await;
    let gate = Gate::default();
    for seed in 1..=60 {
        let path = stage.file(seed, 50_000);
        let hold = Some(Hold { at: Some(25_000), gate: gate.clone() });
        stage.origin.set(&path, Script { hold, ..Script::file(seed, 50_000) });
    }
    let mut agents = JoinSet::new();
    let address = node.address;
    for seed in 1..=60_u64 {
        agents.spawn(async move {
            let client = Client::connect(address).await.expect("it accepts");
            // In the line, as long as it takes to look at the others.
            let mut client = client.patient(Duration::from_secs(300));
            let answer = client.get(&format!("/o/f{seed}"), &[]).await.expect("an answer");
            (seed, answer)
        });
    }
    let mut told = Vec::new();
    while told.len() < 40 {
        let (seed, answer) = agents.join_next().await.expect("more").expect("no panic");
        assert_eq!((answer.status, answer.end), (503, End::Complete), "{seed}: {answer:?}");
        told.push(answer.header("retry-after").expect("when").parse::<u64>().expect("seconds"));
        if told.len().is_multiple_of(8) {
            right(&node, 0, MIB).await;
        }
    }
    assert!(told.iter().all(|seconds| (1..=120).contains(seconds)), "{told:?}");
    let different: BTreeSet<_> = told.iter().collect();
    assert!(different.len() >= 3, "all come back at once: {told:?}");
    gate.open();
    // Requests that wait for a head are in the line too, so a few more than forty may be told.
    let mut served = 0;
    while let Some(ended) = agents.join_next().await {
        let (seed, answer) = ended.expect("no panic");
        assert_eq!(answer.end, End::Complete, "{seed}: {answer:?}");
        if answer.status != 503 {
            assert_eq!(answer.status, 200, "{seed}: {answer:?}");
            assert!(answer.body == content::whole(seed, 50_000), "wrong bytes of {seed}");
            served += 1;
        }
    }
    assert!((8..=20).contains(&served), "{served} of 8 places and 12 in the line");
    assert_eq!(stage.requests(&["/o/f0".to_owned()]), 1);
    node.stop().await;
}
