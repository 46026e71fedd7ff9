//! A disk that gives errors for a while, under a node that goes on running: every call that makes something durable
//! fails (`strace` gives the errors), and then none.

use std::process::{Child, Command, Stdio};

use waypost::testkit::client::End;
use waypost::testkit::content;
use waypost::testkit::node::eventually;
use waypost::testkit::process::Process;
use waypost::testkit::script::Script;
use waypost::testkit::stage::Stage;

use super::calls::can_trace;
use super::scene::{Scene, WAYPOST, Work, said};
use super::skip;

/// Calls that fail. Not `write`: the node wakes its own threads by it.
const CALLS: &str = "pwrite64,fsync,fdatasync,rename,renameat,renameat2,link,linkat,ftruncate,fallocate";

/// Gives errors to a process as long as it lives.
struct Sick(Child);

impl Sick {
    async fn make(node: &Process, error: &str) -> Self {
        let id = node.id().to_string();
        let words = [format!("trace={CALLS}"), format!("inject={CALLS}:error={error}")];
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", &words[0], "-e", &words[1], "-p", &id]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let this = Self(child.expect("strace runs"));
        let tracer = format!("TracerPid:\t{}", this.0.id());
        eventually("all of its threads are traced", async || {
            let tasks = std::fs::read_dir(format!("/proc/{id}/task")).expect("it runs").flatten();
            tasks
                .map(|task| std::fs::read_to_string(task.path().join("status")).unwrap_or_default())
                .all(|status| status.is_empty() || status.lines().any(|line| line == tracer))
        })
        .await;
        this
    }

    fn heal(mut self) {
        let id = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw).expect("an id");
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("our own child");
        self.0.wait().expect("it ends");
    }
}

impl Drop for Sick {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn get(node: &Process, seed: u64, length: u64) {
    let answer = node.get(&format!("/o/f{seed}"), &[]).await;
    assert_eq!((answer.status, answer.end), (200, End::Complete), "file {seed}: {}", node.log().join("\n"));
    assert!(
        answer.body == content::whole(seed, usize::try_from(length).expect("small")),
        "wrong bytes of {seed}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_gives_errors_stops_nobody_and_is_used_again_when_it_is_well() {
    if !can_trace() {
        return skip("strace is not here, or may not trace");
    }
    let stage = Stage::new(WAYPOST).await;
    let length = (2 << 20) + 7;
    let node = stage.site.start().await;
    let mut paths = Vec::new();
    for seed in 0..6 {
        paths.push(stage.file(seed, length));
        get(&node, seed, length).await;
    }
    eventually("they are committed", async || node.metric("waypost_cache_objects").await == 6.0).await;
    let mut next = 100;
    for error in ["EIO", "ENOSPC", "EROFS"] {
        let sick = Sick::make(&node, error).await;
        for _ in 0..3 {
            next += 1;
            let path = stage.file(next, length);
            get(&node, next, length).await;
            assert_eq!(stage.origin.counts(&path).requests, 1, "a miss is one fetch");
        }
        for seed in 0..6 {
            get(&node, seed, length).await;
        }
        assert_eq!(stage.requests(&paths), 6, "{error}: every hit is one");
        eventually("it says so", async || !node.status().await["cache"]["degraded"].is_null()).await;
        sick.heal();
        eventually("new files are stored again", async || {
            next += 1;
            let path = stage.file(next, length);
            get(&node, next, length).await;
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            get(&node, next, length).await;
            stage.origin.counts(&path).requests == 1
        })
        .await;
        eventually("and it says so", async || node.status().await["cache"]["degraded"].is_null()).await;
    }
    node.stop().await;
    let node = stage.site.start().await;
    for seed in 0..6 {
        get(&node, seed, length).await;
    }
    assert_eq!(stage.requests(&paths), 6, "and nothing was lost");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_that_the_disk_refused() {
    if !can_trace() {
        return skip("strace is not here, or may not trace");
    }
    let mut scene = Scene::new().await;
    let node = scene.site.start().await;
    assert!(scene.work(&node, &[Work::Agents, Work::Control, Work::Files]).await);
    let sick = Sick::make(&node, "EIO").await;
    for sequence in 1_000..1_003 {
        let (status, told) = said(&node, sequence).await.expect("an answer");
        assert_eq!(status, 503, "check-in {sequence} is not on the disk: {told}");
    }
    let before = node.status().await["control"]["version"].clone();
    let told = scene.tries_everything(&node).await;
    assert_eq!(node.status().await["control"]["version"], before, "{told:?}");
    sick.heal();
    eventually("check-ins are taken again", async || {
        scene.next_check_in();
        scene.work(&node, &[Work::Agents]).await
    })
    .await;
    assert!(scene.work(&node, &[Work::Control, Work::Files]).await);
    node.kill();
    scene.origin.set("/o/refused", Script::file(77, 5_000));
    let node = scene.site.start().await;
    scene.examine(&node, false).await;
    node.stop().await;
}
