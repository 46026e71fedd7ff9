//! The real process from outside: how it starts, ends, obeys signals, and what it tells its operators.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper that fails is a test that fails, and what was skipped is said"
)]

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use waypost::testkit::client::{Answer, End};
use waypost::testkit::content;
use waypost::testkit::pki::Authority;
use waypost::testkit::process::{Process, Signal, Site, eventually};
use waypost::testkit::script::{Gate, Script};
use waypost::testkit::stage::Stage;

const MIB: u64 = 1 << 20;

const WAYPOST: &str = env!("CARGO_BIN_EXE_waypost");

/// Whether nobody can connect any more.
fn is_closed(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err()
}

type Download = JoinHandle<std::io::Result<Answer>>;

/// A node with an agent that has the first MiB of a file of three; the rest comes when the gate is opened.
async fn downloading(stage: &Stage) -> (Process, Gate, Download) {
    let (path, gate) = stage.held(1, 3 * MIB, MIB);
    let node = stage.site.start().await;
    let mut agent = node.connect().await;
    let download = tokio::spawn(async move { agent.get(&path, &[]).await });
    eventually("the download runs", async || node.status().await["fills"][0]["readers"] == 1).await;
    (node, gate, download)
}

#[tokio::test]
async fn term_lets_a_running_download_finish_and_takes_no_new_ones() {
    let stage = Stage::new(WAYPOST).await;
    let (mut node, gate, download) = downloading(&stage).await;
    assert_eq!(node.ask("/readyz").await.status, 200);
    node.signal(Signal::TERM);
    eventually("new connections are refused", async || is_closed(node.address)).await;
    let ready = node.ask("/readyz").await;
    assert_eq!((ready.status, &*ready.body), (503, b"draining\n".as_slice()), "supervisors are told");
    assert_eq!(node.ask("/livez").await.status, 200);
    assert!(!node.is_over(), "it waits for the download");
    gate.open();
    let answer = download.await.expect("no panic").expect("an answer");
    assert_eq!((answer.status, answer.end), (200, End::Complete));
    assert_eq!(answer.body, content::whole(1, 3 << 20));
    assert_eq!(node.code().await, 0);
    assert!(node.said("\"cut\":0"), "{}", node.log().join("\n"));
    assert!(!stage.home.path("admin.sock").exists(), "the socket goes with its node");
}

#[tokio::test]
async fn what_arrived_before_the_drain_ended_is_there_after_a_restart() {
    let stage = Stage::new(WAYPOST).await;
    stage.origin.set("/o/f", Script::file(1, 3 * MIB));
    let node = stage.site.start().await;
    assert_eq!(node.get("/o/f", &[]).await.end, End::Complete);
    let first = node.log().join("\n");
    node.stop().await;
    let node = stage.site.start().await;
    let answer = node.get("/o/f", &[]).await;
    assert_eq!(answer.body, content::whole(1, 3 << 20));
    assert!(answer.header("cache-status").is_some_and(|it| it.starts_with("test; hit")), "{answer:?}");
    assert_eq!(stage.origin.counts("/o/f").requests, 1, "{first}");
    node.stop().await;
}

#[tokio::test]
async fn a_second_term_ends_it_now_and_the_download_is_visibly_broken() {
    let stage = Stage::new(WAYPOST).await;
    let (mut node, _gate, download) = downloading(&stage).await;
    node.signal(Signal::TERM);
    eventually("it drains", async || is_closed(node.address)).await;
    node.signal(Signal::TERM);
    assert_eq!(node.code().await, 0);
    if let Ok(answer) = download.await.expect("no panic") {
        assert!(matches!(answer.end, End::Short | End::Reset), "{:?}", answer.end);
        assert_eq!(answer.body, content::whole(1, answer.body.len()), "what came was right");
    }
}

#[tokio::test]
async fn a_drain_ends_at_its_deadline() {
    let mut stage = Stage::new(WAYPOST).await;
    stage.setup.server = "drain = \"300ms\"".to_owned();
    stage.site.configure(&stage.setup);
    let (mut node, _gate, download) = downloading(&stage).await;
    node.signal(Signal::TERM);
    assert_eq!(node.code().await, 0);
    assert!(node.said("\"cut\":1"), "{}", node.log().join("\n"));
    assert_ne!(download.await.expect("no panic").expect("a head").end, End::Complete);
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let stage = Stage::new(WAYPOST).await;
    stage.origin.set("/o/f", Script::file(1, 1_000));
    let mut node = stage.site.start().await;
    let mut used = node.connect().await;
    assert_eq!(used.get("/o/f", &[]).await.expect("an answer").status, 200);
    let mut unused = node.connect().await;
    node.signal(Signal::TERM);
    assert_eq!(node.code().await, 0);
    assert!(used.closes().await && unused.closes().await);
}

#[tokio::test]
async fn an_interrupt_ends_it_at_once_with_130() {
    let stage = Stage::new(WAYPOST).await;
    let (mut node, _gate, download) = downloading(&stage).await;
    node.signal(Signal::INT);
    assert_eq!(node.code().await, 130);
    // Even the head may have been cut off.
    let answer = download.await.expect("no panic");
    assert!(answer.is_err() || answer.is_ok_and(|it| it.end != End::Complete));
}

#[tokio::test]
async fn a_hangup_does_not_end_it() {
    let stage = Stage::new(WAYPOST).await;
    stage.origin.set("/o/f", Script::file(1, 1_000));
    let node = stage.site.start().await;
    node.signal(Signal::HUP);
    eventually("it says so", async || node.said("configuration reloaded")).await;
    assert_eq!(node.get("/o/f", &[]).await.status, 200);
    node.stop().await;
}

#[tokio::test]
async fn two_nodes_do_not_share_a_cache_directory() {
    let stage = Stage::new(WAYPOST).await;
    let node = stage.site.start().await;
    let other_dir = tempfile::tempdir().expect("a directory");
    let other = Site::new(env!("CARGO_BIN_EXE_waypost"), other_dir.path());
    other.configure(&stage.setup);
    let mut second = other.spawn();
    assert_eq!(second.code().await, 1);
    eventually("it says why", async || second.said("is in use by another process")).await;
    assert!(second.said(&stage.setup.cache.display().to_string()), "{:?}", second.log());
    // The first one did not notice, and the directory is free as soon as it is gone, however it went.
    assert_eq!(node.ask("/livez").await.status, 200);
    node.kill();
    other.start().await.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_said_and_nothing_on_disk_is_touched() {
    let mut stage = Stage::new(WAYPOST).await;
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    stage.setup.listen = address.to_string();
    stage.site.configure(&stage.setup);
    let mut node = stage.site.spawn();
    assert_eq!(node.code().await, 1);
    eventually("it says which", async || node.said(&format!("cannot listen on {address}"))).await;
    assert!(node.said("in use"), "{:?}", node.log());
    assert!(!stage.setup.cache.exists());
}

#[tokio::test]
async fn a_bad_configuration_ends_it_with_3_and_says_every_place() {
    let stage = Stage::new(WAYPOST).await;
    let text = "[server]\nplain_listen = \"0.0.0.0:80\"\n\n[cache]\nsize = \"1 parsec\"\n\n\
                [[repository]]\nname = \"o\"\npath = \"/o\"\nupstreams = [\"ftp://x/\"]\n";
    stage.site.write_config(text);
    let mut node = stage.site.spawn();
    assert_eq!(node.code().await, 3);
    for place in ["waypost.toml:2:16", "waypost.toml:5:8", "waypost.toml:9:8", "waypost.toml:10:14"] {
        eventually(place, async || node.said(place)).await;
    }
}

#[tokio::test]
async fn the_access_log_goes_on_in_a_new_file_after_usr1() {
    let mut stage = Stage::new(WAYPOST).await;
    stage.setup.access = true;
    stage.site.configure(&stage.setup);
    stage.origin.set("/o/f", Script::file(1, 1_000));
    let node = stage.site.start().await;
    let (log, old) = (stage.home.path("access.log"), stage.home.path("access.log.1"));
    let lines = |path: &std::path::Path| -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
    };
    let first = node.get("/o/f", &[]).await;
    eventually("the line is written", async || lines(&log).len() == 1).await;
    std::fs::rename(&log, &old).expect("a log can be moved");
    node.signal(Signal::USR1);
    eventually("there is a new file", async || log.exists()).await;
    assert_eq!(node.get("/o/f", &[]).await.status, 200);
    node.stop().await;
    let (before, after) = (lines(&old), lines(&log));
    assert_eq!((before.len(), after.len()), (1, 1), "no line is lost, none comes twice");
    assert_eq!(before[0]["request_id"].as_str(), first.header("x-request-id"));
    assert_eq!(
        (before[0]["verdict"].as_str(), after[0]["verdict"].as_str()),
        (Some("miss"), Some("hit-immutable"))
    );
    assert_eq!((&before[0]["status"], &before[0]["bytes"]), (&200.into(), &1_000.into()));
    assert_eq!((&before[0]["target"], &before[0]["complete"]), (&"/o/f".into(), &true.into()));
}

#[tokio::test]
async fn the_admin_socket_answers_and_is_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let stage = Stage::new(WAYPOST).await;
    stage.origin.set("/o/f", Script::file(1, 2 * MIB));
    let node = stage.site.start().await;
    let mode = std::fs::metadata(stage.home.path("admin.sock")).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for _ in 0..2 {
        assert_eq!(node.get("/o/f", &[]).await.end, End::Complete);
    }
    for path in ["/livez", "/readyz"] {
        let answer = node.ask(path).await;
        assert_eq!((answer.status, &*answer.body), (200, b"ok\n".as_slice()), "{path}");
    }
    let hits = "waypost_cache_requests_total{repository=\"o\",result=\"hit\"}";
    eventually("the hit is counted", async || node.metric(hits).await == 1.0).await;
    let received = format!("waypost_upstream_received_bytes_total{{upstream=\"{}o/\"}}", stage.origin.url());
    assert_eq!(node.metric(&received).await, 2_097_152.0);
    eventually("the entry is committed", async || node.metric("waypost_cache_objects").await == 1.0).await;
    let status = node.status().await;
    assert_eq!((&status["phase"], &status["cache"]["degraded"]), (&"run".into(), &serde_json::Value::Null));
    node.stop().await;
}

/// An address that accepts nothing and refuses nothing, as a cut line does: its queue is full.
struct BlackHole {
    address: SocketAddr,
    _held: (socket2::Socket, Vec<socket2::Socket>),
}

impl BlackHole {
    fn dig() -> Self {
        let socket =
            || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        let listener = socket();
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        listener.bind(&any.into()).expect("a port");
        listener.listen(0).expect("it listens");
        let address = listener.local_addr().expect("an address").as_socket().expect("IPv4");
        let queue = (0..4).map(|_| {
            let client = socket();
            client.set_nonblocking(true).expect("it does not wait");
            let _ = client.connect(&address.into());
            client
        });
        let queue = queue.collect();
        Self { address, _held: (listener, queue) }
    }
}

#[tokio::test]
async fn with_the_wan_dead_cached_files_are_served_and_misses_are_answered_soon() {
    let mut stage = Stage::new(WAYPOST).await;
    stage.origin.set("/o/cached", Script::file(1, 12 * MIB));
    let node = stage.site.start().await;
    assert_eq!(node.get("/o/cached", &[]).await.end, End::Complete);
    node.stop().await;
    // The line is cut: packets go nowhere, which is worse than being refused.
    let hole = BlackHole::dig();
    stage.setup.upstreams = vec![format!("http://{}/o/", hole.address)];
    stage.site.configure(&stage.setup);
    let node = stage.site.start().await;
    let down = "\"up\": false";
    eventually("upstream is known to be down", async || {
        let answer = node.get("/o/miss", &[]).await;
        assert_eq!(answer.status, 504);
        String::from_utf8_lossy(&node.ask("/v1/status").await.body).contains(down)
    })
    .await;
    // Long enough for several back-offs to end: whoever comes then must not pay for the probe.
    let (began, mut slowest, mut misses) = (Instant::now(), Duration::ZERO, 0);
    while began.elapsed() < Duration::from_secs(12) {
        let asked = Instant::now();
        let answer = node.get("/o/miss", &[]).await;
        slowest = slowest.max(asked.elapsed());
        misses += 1;
        assert_eq!((answer.status, answer.end), (504, End::Complete), "{answer:?}");
        assert!(answer.header("retry-after").is_some() && answer.header("cache-status").is_some());
        let answer = node.get("/o/cached", &[]).await;
        assert_eq!((answer.status, answer.end), (200, End::Complete));
        assert_eq!(answer.body, content::whole(1, 12 << 20));
        assert!(answer.header("age").is_some());
    }
    println!("{misses} misses with the WAN dead, the slowest answered after {slowest:?}");
    assert!(slowest <= Duration::from_secs(2), "a miss took {slowest:?}");
    assert_eq!(node.ask("/readyz").await.status, 200, "upstream's trouble is not ours");
    node.stop().await;
}

#[tokio::test]
async fn a_certificate_that_expires_in_three_days_is_told_at_the_start_and_one_of_a_month_is_not() {
    const DAY: u64 = 86_400;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    for (days, warns) in [(3, true), (30, false)] {
        let mut stage = Stage::new(WAYPOST).await;
        // Half a day more, so that the number of whole days is the same at whatever moment it is looked at.
        let issued = Authority::new("CA")
            .expiring(&["localhost"], Duration::from_secs(now.as_secs() + days * DAY + DAY / 2));
        fs::write(stage.home.path("node.pem"), issued.cert).expect("a file");
        fs::write(stage.home.path("node.key"), issued.key).expect("a file");
        stage.setup.server =
            "listen = \"127.0.0.1:0\"\ntls = { cert = \"node.pem\", key = { file = \"node.key\" } }"
                .to_owned();
        stage.site.configure(&stage.setup);
        let node = stage.site.start().await;
        let line = node.log().into_iter().find(|line| line.contains("the certificate expires soon"));
        assert_eq!(line.is_some(), warns, "{}", node.log().join("\n"));
        let told = line.is_none_or(|line| line.contains("\"days\":3") && line.contains("node.pem"));
        assert!(told, "{}", node.log().join("\n"));
        assert!(!node.said("has expired"));
        node.stop().await;
    }
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_told_at_the_start_and_in_the_metrics() {
    const EXPIRY: &str = "waypost_tls_certificate_expiry_timestamp_seconds{listener=\"https\"}";
    let mut stage = Stage::new(WAYPOST).await;
    let issued = Authority::new("CA").expired(&["localhost"]);
    fs::write(stage.home.path("node.pem"), issued.cert).expect("a file");
    fs::write(stage.home.path("node.key"), issued.key).expect("a file");
    stage.setup.server =
        "listen = \"127.0.0.1:0\"\ntls = { cert = \"node.pem\", key = { file = \"node.key\" } }".to_owned();
    stage.site.configure(&stage.setup);
    let node = stage.site.start().await;
    assert!(node.said("the certificate has expired"), "{}", node.log().join("\n"));
    assert_eq!(node.metric(EXPIRY).await, 978_307_200.0, "2001-01-01");
    node.stop().await;
}
