//! Everything at once, from one seed: agents that download, resume, dawdle and leave; an origin that breaks, lies and
//! changes its files; publications, purges, warm-ups, reloads good and bad, documents, check-ins; `kill -9`, full
//! and read-only disks, rot. Afterwards what must always hold is looked at, each with a name.
//!
//! `WAYPOST_STORM=30` has it last thirty minutes instead of some seconds, `WAYPOST_SEED` begins elsewhere.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use waypost::testkit::client::{Answer, Client, End};
use waypost::testkit::content;
use waypost::testkit::node::Home;
use waypost::testkit::origin::Origin;
use waypost::testkit::process::{Dice, Process, Signal, Site, eventually};
use waypost::testkit::publisher::{Edition, ROOT};
use waypost::testkit::script::{How, Script};

use super::number;

const MIB: u64 = 1 << 20;
/// Lengths of the files that change, and there are some of each.
const LENGTHS: [u64; 5] = [600, 40_000, MIB, 2 * MIB + 3, 5 * MIB + 77];
const FILES: u64 = 25;
/// Files of an upstream that never fails: 3 MiB, and they never change.
const STEADY: u64 = 3;
/// How long it lasts, and longer on a machine that is too busy for a storm.
const SHORT: Duration = Duration::from_secs(12);

fn length(file: u64) -> u64 {
    LENGTHS[usize::try_from(file).expect("small") % LENGTHS.len()]
}

/// Version `version` of a file: its seed, and its tag.
fn identity(file: u64, version: u64) -> (u64, String) {
    (file * 100_000 + version, format!("\"{file}-{version}\""))
}

fn script(file: u64, version: u64) -> Script {
    let (seed, tag) = identity(file, version);
    Script { etag: Some(tag), ..Script::file(seed, length(file)) }
}

/// What all know of each other.
struct Sky {
    node: std::net::SocketAddr,
    admin: std::path::PathBuf,
    over: AtomicBool,
    /// Grows when the node is killed, and when it is back.
    lives: AtomicU64,
    /// The version of each file that the origin has now.
    versions: Mutex<Vec<u64>>,
    /// Check-ins acknowledged, and sent.
    check_in: Mutex<(u64, u64)>,
    /// Documents written, and the version that was said to be in force.
    documents: Mutex<(u64, u64)>,
    edition: AtomicU64,
    /// Held by who writes the configuration or starts a node with it.
    configuration: tokio::sync::Mutex<()>,
    counts: [AtomicU64; 8],
}

/// What is counted.
#[derive(Clone, Copy, Debug)]
enum What {
    Complete,
    Broken,
    Refused,
    Left,
    Steady,
    CheckedIn,
    Editions,
    Kills,
}

const NAMES: [&str; 8] =
    ["complete", "broken", "refused", "left", "steady", "check-ins", "editions", "kills"];

impl Sky {
    fn count(&self, what: What) {
        self.counts[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// The life of the node that is on now; nothing while it is down.
    fn life(&self) -> Option<u64> {
        Some(self.lives.load(Ordering::SeqCst)).filter(|life| life.is_multiple_of(2))
    }

    fn has(&self, what: What) -> u64 {
        self.counts[what as usize].load(Ordering::Relaxed)
    }

    /// Whether nothing was tried that is worth the name of a storm.
    fn is_calm(&self) -> bool {
        let seldom = [What::CheckedIn, What::Kills].map(|what| self.has(what));
        self.has(What::Complete) <= 20 || self.has(What::Steady) <= 5 || seldom.contains(&0)
    }

    async fn operate(&self, method: &str, path: &str, ask: &Value) -> Option<Value> {
        let body = if ask.is_null() { String::new() } else { ask.to_string() };
        let mut client = Client::connect_unix(&self.admin).await.ok()?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        client.send(request.as_bytes()).await.ok()?;
        serde_json::from_slice(&client.read_answer(method).await.ok()?.body).ok()
    }
}

/// Looks at every byte of an answer for a file: by its tag it is one version's, from where it says it begins.
fn check(file: u64, answer: &Answer) {
    let tag = answer.header("etag").unwrap_or_else(|| panic!("an answer without a tag: {answer:?}"));
    let mut words = tag.trim_matches('"').split('-').map(|word| word.parse::<u64>().expect("a number"));
    assert_eq!(words.next(), Some(file), "another file: {answer:?}");
    let (seed, _) = identity(file, words.next().expect("a version"));
    let from = match answer.status {
        200 => 0,
        206 => {
            let range = answer.header("content-range").expect("where it is from");
            let from = range.trim_start_matches("bytes ").split('-').next().expect("a first byte");
            from.parse::<u64>().expect("a number")
        }
        other => panic!("{other} is no answer with a tag: {answer:?}"),
    };
    assert!(
        answer.body == content::piece(seed, from, answer.body.len()),
        "wrong bytes of {file}: {answer:?}"
    );
    if answer.end == End::Complete && answer.status == 200 {
        assert_eq!(answer.body.len() as u64, length(file), "a stump of {file} that looks whole: {answer:?}");
    }
}

/// Downloads what it likes, in every way there is.
async fn agent(sky: Arc<Sky>, mut dice: Dice) {
    while !sky.is_over() {
        let Ok(mut client) = Client::connect(sky.node).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        for _ in 0..1 + dice.below(6) {
            let file = dice.below(FILES);
            let path = format!("/o/{file}");
            let version = sky.versions.lock()[usize::try_from(file).expect("small")];
            let (from, (_, tag)) = (dice.below(length(file)), identity(file, version));
            let range = match dice.below(3) {
                0 => format!("bytes={from}-"),
                1 => format!("bytes={from}-{}", (from + 70_000).min(length(file) - 1)),
                _ => String::new(),
            };
            let resume = [("range", range.as_str()), ("if-range", tag.as_str())];
            let headers = if range.is_empty() { &[][..] } else { &resume };
            match dice.below(10) {
                0 => {
                    // Leaves in the middle, or dawdles first.
                    if client.begin(&path, headers).await.is_ok() {
                        for _ in 0..dice.below(4) {
                            let _ = client.some(4_096).await;
                            tokio::time::sleep(Duration::from_millis(dice.below(150))).await;
                        }
                    }
                    sky.count(What::Left);
                    break;
                }
                1 => strange(&mut client, &mut dice).await,
                _ => {}
            }
            let Ok(answer) = client.get(&path, headers).await else {
                sky.count(What::Broken);
                break;
            };
            match answer.status {
                200 | 206 => check(file, &answer),
                502..=504 => {
                    sky.count(What::Refused);
                    continue;
                }
                other => panic!("{other} for {path} {headers:?}: {answer:?}"),
            }
            if answer.end == End::Complete {
                sky.count(What::Complete);
            } else {
                sky.count(What::Broken);
                break;
            }
        }
    }
}

/// What no honest agent says: a proxy's request, a path that leads out. Refused, and nobody is asked for it.
async fn strange(client: &mut Client, dice: &mut Dice) {
    let target = match dice.below(3) {
        0 => "http://127.0.0.1:1/o/1".to_owned(),
        1 => "/o/../../etc/passwd".to_owned(),
        _ => "/o/%2e%2e/%2e%2e/x".to_owned(),
    };
    if let Ok(answer) = client.get(&target, &[]).await {
        assert!((400..500).contains(&answer.status), "{target}: {answer:?}");
    }
}

/// Asks for files that are here, of an upstream that is well: nothing else may cost it anything but time.
async fn steady(sky: Arc<Sky>, mut dice: Dice) {
    while !sky.is_over() {
        let file = dice.below(STEADY);
        let life = sky.life();
        let answer =
            async { Client::connect(sky.node).await.ok()?.get(&format!("/steady/{file}"), &[]).await.ok() };
        let answer = answer.await;
        let lived = life.is_some() && life == sky.life();
        match answer {
            Some(answer) if answer.status == 200 => {
                let right = content::piece(900 + file, 0, answer.body.len());
                assert!(answer.body == right, "wrong bytes of a steady file");
                assert!(answer.end == End::Complete || !lived, "broken, although the node lives: {answer:?}");
                sky.count(What::Steady);
            }
            other => assert!(!lived, "not served, although the node lives: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(dice.below(40))).await;
    }
}

/// Reads editions; all of one reading is of one edition, where it comes.
async fn reader(sky: Arc<Sky>, mut dice: Dice) {
    while !sky.is_over() {
        tokio::time::sleep(Duration::from_millis(dice.below(200))).await;
        let life = sky.life();
        let Ok(mut client) = Client::connect(sky.node).await else { continue };
        let Ok(root) = client.get(&format!("/dats/{ROOT}"), &[]).await else { continue };
        if root.status != 200 || root.end != End::Complete {
            continue;
        }
        let edition = number(&root.body).expect("a version");
        assert!(edition <= sky.edition.load(Ordering::SeqCst), "edition {edition} is not out yet");
        if edition == 0 {
            // Nothing is offered at the moment, and an agent comes again later.
            continue;
        }
        let edition = Edition::new(edition, 2, 20_000);
        for (path, body) in edition.files.iter().filter(|(path, _)| path != ROOT) {
            let Ok(answer) = client.get(&format!("/dats/{path}"), &[]).await else { break };
            if answer.status != 200 || answer.end != End::Complete {
                break;
            }
            // Over a kill the session is another one, and may begin with another edition.
            assert!(
                answer.body == *body || life.is_none() || life != sky.life(),
                "{path} is not of edition {}: {root:?} {answer:?}",
                edition.number
            );
        }
        sky.count(What::Editions);
    }
}

/// Checks in, and knows what was acknowledged.
async fn checks_in(sky: Arc<Sky>, mut dice: Dice) {
    while !sky.is_over() {
        tokio::time::sleep(Duration::from_millis(dice.below(60))).await;
        let sequence = {
            let mut state = sky.check_in.lock();
            state.1 += 1;
            state.1
        };
        if let Some((200, _)) = said(sky.node, sequence).await {
            sky.check_in.lock().0 = sequence;
            sky.count(What::CheckedIn);
        }
    }
}

async fn said(node: std::net::SocketAddr, sequence: u64) -> Option<(u16, Value)> {
    let body = json!({ "sequence": sequence, "boot": "b1", "properties": { "host": "pc" } }).to_string();
    let length = body.len();
    let mut client = Client::connect(node).await.ok()?;
    let request = format!(
        "POST /agent/v1/checkin HTTP/1.1\r\nhost: localhost\r\nwaypost-agent: pc-1\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    client.send(request.as_bytes()).await.ok()?;
    let answer = client.read_answer("POST").await.ok()?;
    Some((answer.status, serde_json::from_slice(&answer.body).unwrap_or_default()))
}

/// Breaks, changes and mends what is on the origin.
async fn weather(sky: Arc<Sky>, origin: Arc<Origin>, mut dice: Dice) {
    while !sky.is_over() {
        tokio::time::sleep(Duration::from_millis(dice.below(120))).await;
        let file = dice.below(FILES);
        let version = {
            let mut versions = sky.versions.lock();
            let version = &mut versions[usize::try_from(file).expect("small")];
            *version += u64::from(dice.below(4) == 0);
            *version
        };
        let (good, at) = (script(file, version), dice.below(length(file)));
        let bad = match dice.below(6) {
            0 => good.breaking(at, How::Reset, 2),
            1 => good.breaking(at, How::Finish, 2),
            2 => good.breaking(at, How::Stall, 1),
            3 => Script::status(503, &[]),
            4 => Script { rate: Some(2 * MIB), ..good },
            _ => good,
        };
        origin.set(&format!("/o/{file}"), bad);
        if dice.below(6) == 0 {
            origin.set_rate([0, 8 * MIB, 30 * MIB][usize::try_from(dice.below(3)).expect("small")]);
        }
        tokio::time::sleep(Duration::from_millis(dice.below(300))).await;
        let version = sky.versions.lock()[usize::try_from(file).expect("small")];
        origin.set(&format!("/o/{file}"), script(file, version));
    }
}

/// Publishes, now and then badly: a file of the edition is broken for a while, or altered.
async fn publisher(sky: Arc<Sky>, origin: Arc<Origin>, mut dice: Dice) {
    while !sky.is_over() {
        let edition = Edition::new(sky.edition.fetch_add(1, Ordering::SeqCst) + 1, 2, 20_000);
        edition.publish(&origin, "/d/");
        if dice.below(2) == 0 {
            let at = usize::try_from(dice.below(edition.files.len() as u64)).expect("small");
            let (path, body) = &edition.files[at];
            // A catalogue that is altered twice in the same way is what its publisher says; only what it names is proven.
            let how = if path.ends_with(".bin") || path.ends_with(".zip") { How::Flip } else { How::Reset };
            let bad = Script::text(body.clone()).breaking(body.len() as u64 / 2, how, 3);
            origin.set(&format!("/d/{path}"), bad);
        }
        tokio::time::sleep(Duration::from_millis(1_500 + dice.below(2_500))).await;
        edition.publish(&origin, "/d/");
    }
}

/// Purges, warms, pins, verifies, reloads what is right and what is not, changes documents.
async fn operator(sky: Arc<Sky>, home: Home, config: String, mut dice: Dice) {
    while !sky.is_over() {
        tokio::time::sleep(Duration::from_millis(dice.below(250))).await;
        let file = dice.below(FILES);
        let pattern = if dice.below(8) == 0 { "/o/**".to_owned() } else { format!("/o/{file}") };
        match dice.below(7) {
            0 => drop(sky.operate("POST", "/v1/purge", &json!({ "patterns": [pattern] })).await),
            1 => {
                drop(sky.operate("POST", "/v1/purge", &json!({ "patterns": [pattern], "soft": true })).await)
            }
            2 => drop(sky.operate("POST", "/v1/warm", &json!({ "patterns": [format!("/o/{file}")] })).await),
            3 => drop(sky.operate("POST", "/v1/gc", &json!({})).await),
            4 => {
                let _ours = sky.configuration.lock().await;
                home.write("waypost.toml", &format!("{config}nonsense = \n"));
                let told = sky.operate("POST", "/v1/reload", &json!({})).await;
                assert!(told.is_none_or(|told| told["error"].is_object()), "nonsense is in force");
                home.write("waypost.toml", &config);
            }
            _ => {
                let number = {
                    let mut documents = sky.documents.lock();
                    documents.0 += 1;
                    documents.0
                };
                write_documents(&home, number);
                sky.operate("POST", "/v1/reload", &json!({})).await;
                if let Some(status) = sky.operate("GET", "/v1/status", &Value::Null).await {
                    let version = status["control"]["version"].as_u64().unwrap_or_default();
                    let mut documents = sky.documents.lock();
                    assert!(version >= documents.1, "version {version} after {}", documents.1);
                    documents.1 = version;
                }
            }
        }
    }
}

fn write_documents(home: &Home, number: u64) {
    let fleet = format!(
        "[[handler]]\nname = \"hq\"\ninternal = \"hq{number}.example:8443\"\n\n\
         [[assignment]]\nname = \"all\"\nhandlers = [\"hq\"]\n"
    );
    home.write("fleet/fleet.toml", &fleet);
}

fn mount(words: &[&str], dir: &Path) -> bool {
    let mut command = Command::new("mount");
    command.args(words).arg(dir).stderr(std::process::Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// The file system of the cache; it goes with this. A plain directory where nothing may be mounted.
struct Ground {
    dir: std::path::PathBuf,
    mounted: bool,
}

impl Ground {
    fn new(dir: std::path::PathBuf) -> Self {
        fs::create_dir_all(&dir).expect("a directory");
        let root = rustix::process::geteuid().is_root();
        let mounted = root && mount(&["-t", "tmpfs", "-o", "size=96m", "tmpfs"], &dir);
        if !mounted {
            println!("SKIPPED: full and read-only disks need root and CAP_SYS_ADMIN");
            assert!(std::env::var_os("CI").is_none(), "this part may not be skipped in CI");
        }
        Self { dir, mounted }
    }

    /// Something happens to the disk, for a while.
    async fn suffer(&self, dice: &mut Dice) {
        let hog = self.dir.join("hog");
        let pause = Duration::from_millis(200 + dice.below(900));
        match dice.below(3) {
            0 if self.mounted => {
                let free = rustix::fs::statvfs(&self.dir).map_or(0, |it| it.f_bavail * it.f_frsize);
                if let Ok(file) = fs::File::create(&hog) {
                    let flags = rustix::fs::FallocateFlags::empty();
                    let _ = rustix::fs::fallocate(&file, flags, 0, free.saturating_sub(100_000).max(1));
                }
                tokio::time::sleep(pause).await;
                let _ = fs::remove_file(hog);
            }
            1 if self.mounted => {
                // Refused while a file is open for writing; then it is not read-only this time.
                let done = mount(&["-o", "remount,ro"], &self.dir);
                tokio::time::sleep(pause).await;
                assert!(!done || mount(&["-o", "remount,rw"], &self.dir), "it comes back");
            }
            _ => rot(&self.dir.join("cache/content-v2"), dice),
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if self.mounted {
            // Lazily: the node may still have files open when a test panics.
            let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
        }
    }
}

/// Flips a bit in some block.
fn rot(dir: &Path, dice: &mut Dice) {
    use std::os::unix::fs::FileExt as _;
    let mut path = dir.to_owned();
    while path.is_dir() {
        let below: Vec<_> = fs::read_dir(&path).into_iter().flatten().flatten().map(|it| it.path()).collect();
        let Some(next) = below.get(usize::try_from(dice.below(below.len() as u64)).expect("small")) else {
            return;
        };
        path.clone_from(next);
    }
    // It may go at any moment.
    if let Ok(file) = fs::File::options().read(true).write(true).open(&path) {
        let at = dice.below(file.metadata().map_or(1, |meta| meta.len()));
        let mut byte = [0];
        let _ = file.read_exact_at(&mut byte, at).and_then(|()| file.write_all_at(&[byte[0] ^ 4], at));
    }
}

fn descriptors(node: &Process) -> usize {
    fs::read_dir(format!("/proc/{}/fd", node.id())).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_storm_of_everything_all_that_must_hold_holds() {
    let minutes = std::env::var("WAYPOST_STORM").ok().and_then(|text| text.parse::<u64>().ok());
    let lasts = minutes.map_or(SHORT, |minutes| Duration::from_secs(60 * minutes));
    let mut dice = Dice::seeded(4_242);
    let home = Home::new();
    let ground = Ground::new(home.path("disk"));
    let (origin, well) = (Arc::new(Origin::start().await), Origin::start().await);
    let foreign = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    (0..FILES).for_each(|file| origin.set(&format!("/o/{file}"), script(file, 0)));
    (0..STEADY).for_each(|file| well.set(&format!("/steady/{file}"), Script::file(900 + file, 3 * MIB)));
    Edition::new(1, 2, 20_000).publish(&origin, "/d/");
    write_documents(&home, 0);
    let port = {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        socket.local_addr().expect("its address").port()
    };
    let config = format!(
        "[server]\nplain_listen = \"127.0.0.1:{port}\"\nnode = \"hq\"\n\n[admin]\nsocket = \"admin.sock\"\n\n\
         [cache]\ndir = \"disk/cache\"\nsize = \"48MiB\"\nmemory = \"8MiB\"\nmin_free = \"0B\"\n\n\
         [control]\nstate_dir = \"state\"\ndirectory = \"fleet\"\nhold = \"5s\"\ncheck_every = \"1h\"\n\n\
         [agents]\nstate_dir = \"agents\"\ncheckin_interval = \"10m\"\n\n[log]\nformat = \"json\"\n\n\
         [[repository]]\nname = \"steady\"\npath = \"/steady/\"\nupstreams = [\"{}steady/\"]\n\n\
         [[repository.rule]]\nmatch = \"**\"\nimmutable = true\n\n\
         [[repository]]\nname = \"dats\"\npath = \"/dats/\"\npreset = \"epo\"\nupstreams = [\"{}d/\"]\n\
         check_every = \"1s\"\nstall_timeout = \"1s\"\n\n\
         [[repository]]\nname = \"o\"\npath = \"/o/\"\nupstreams = [\"{}o/\"]\nstall_timeout = \"1s\"\n\n\
         [[repository.rule]]\nmatch = \"**\"\nfresh_for = \"1s\"\n",
        well.url(),
        origin.url(),
        origin.url(),
    );
    let site = Site::new(env!("CARGO_BIN_EXE_waypost"), home.dir());
    site.write_config(&config);
    let mut node = site.start().await;
    let first_descriptors = descriptors(&node);
    let sky = Arc::new(Sky {
        node: node.address,
        admin: node.admin().to_owned(),
        over: AtomicBool::new(false),
        lives: AtomicU64::new(0),
        versions: Mutex::new(vec![0; usize::try_from(FILES).expect("small")]),
        check_in: Mutex::default(),
        documents: Mutex::default(),
        edition: AtomicU64::new(1),
        configuration: tokio::sync::Mutex::default(),
        counts: Default::default(),
    });
    let mut actors = JoinSet::new();
    for _ in 0..6 {
        actors.spawn(agent(Arc::clone(&sky), dice.split()));
    }
    for _ in 0..2 {
        actors.spawn(steady(Arc::clone(&sky), dice.split()));
        actors.spawn(reader(Arc::clone(&sky), dice.split()));
    }
    actors.spawn(checks_in(Arc::clone(&sky), dice.split()));
    actors.spawn(weather(Arc::clone(&sky), Arc::clone(&origin), dice.split()));
    actors.spawn(publisher(Arc::clone(&sky), Arc::clone(&origin), dice.split()));
    actors.spawn(operator(Arc::clone(&sky), home.clone(), config.clone(), dice.split()));

    let began = Instant::now();
    let mut most_resident = 0;
    while began.elapsed() < lasts || sky.is_calm() && began.elapsed() < 5 * lasts {
        tokio::time::sleep(Duration::from_millis(300 + dice.below(900))).await;
        if let Some(ended) = actors.try_join_next() {
            ended.unwrap_or_else(|error| panic!("{error}\n{}", node.log().join("\n")));
        }
        most_resident = most_resident.max(node.anonymous());
        match dice.below(5) {
            0 => {
                assert!(!node.said("panicked"), "{}", node.log().join("\n"));
                sky.lives.fetch_add(1, Ordering::SeqCst);
                node.kill();
                sky.count(What::Kills);
                let ours = sky.configuration.lock().await;
                node = site.start().await;
                drop(ours);
                sky.lives.fetch_add(1, Ordering::SeqCst);
            }
            1 => node.signal(Signal::HUP),
            _ => ground.suffer(&mut dice).await,
        }
    }
    sky.over.store(true, Ordering::Relaxed);
    while let Some(ended) = actors.join_next().await {
        ended.unwrap_or_else(|error| panic!("{error}\n{}", node.log().join("\n")));
    }
    let counts: Vec<u64> = sky.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    println!("{:?}; at most {} MiB", NAMES.iter().zip(&counts).collect::<Vec<_>>(), most_resident >> 20);
    assert!(!sky.is_calm(), "the storm was a calm");

    origin.set_rate(0);
    for file in 0..FILES {
        let version = sky.versions.lock()[usize::try_from(file).expect("small")];
        origin.set(&format!("/o/{file}"), script(file, version));
    }
    site.write_config(&config);
    let storm = After { sky, node, origin, ground, most_resident, first_descriptors };
    storm.every_file_is_right_and_whole().await;
    storm.a_herd_is_one_fetch_and_leaving_costs_nobody_else().await;
    let storm = storm.what_was_acknowledged_is_there_after_one_more_kill(&site).await;
    storm.an_edition_is_shown_whole().await;
    storm.nothing_has_grown_beyond_its_bound().await;
    let asked = tokio::time::timeout(Duration::from_millis(1), foreign.accept()).await;
    assert!(asked.is_err(), "the node was a proxy");
    storm.node.stop().await;
}

/// When it is over.
struct After {
    sky: Arc<Sky>,
    node: Process,
    origin: Arc<Origin>,
    ground: Ground,
    most_resident: u64,
    first_descriptors: usize,
}

impl After {
    /// 1: no wrong byte as complete, no unfinished body that looks finished. All along, and now.
    async fn every_file_is_right_and_whole(&self) {
        for file in 0..FILES {
            // Its upstream may be left alone for a minute after all that.
            let began = Instant::now();
            loop {
                let answer = self.node.get(&format!("/o/{file}"), &[]).await;
                if answer.status == 200 {
                    check(file, &answer);
                    if answer.end == End::Complete {
                        break;
                    }
                }
                assert!(began.elapsed() < Duration::from_secs(240), "file {file} never comes: {answer:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// 2 and 3: one fetch for a key at a time, whoever asks; half of them leave, and nobody else notices.
    async fn a_herd_is_one_fetch_and_leaving_costs_nobody_else(&self) {
        self.origin.set_rate(20 * MIB);
        for seed in 5_000..5_004_u64 {
            let path = format!("/o/new-{seed}");
            self.origin.set(&path, Script::file(seed, 2 * MIB));
            let mut herd = JoinSet::new();
            for number in 0..20 {
                let (node, path) = (self.node.address, path.clone());
                herd.spawn(async move {
                    let mut client = Client::connect(node).await.expect("it accepts");
                    let head = client.begin(&path, &[]).await.expect("a head");
                    assert_eq!(head.status, 200, "{head:?}");
                    let length = if number % 2 == 0 { 2 * MIB } else { 100_000 };
                    client.check(seed, 0, length).await.expect("it comes");
                });
            }
            while let Some(ended) = herd.join_next().await {
                ended.expect("every byte was right");
            }
            let counts = self.origin.counts(&path);
            assert_eq!((counts.requests, counts.concurrent), (1, 1), "{path}: one fetch for all");
        }
        self.origin.set_rate(0);
    }

    /// 4: a restart, a kill, a full disk lose nothing that was acknowledged.
    async fn what_was_acknowledged_is_there_after_one_more_kill(self, site: &Site) -> Self {
        let purged = self.sky.operate("POST", "/v1/purge", &json!({ "patterns": ["/o/new-5000"] })).await;
        assert!(purged.expect("an answer")["error"].is_null(), "it is not purged");
        self.origin
            .set("/o/new-5000", Script { etag: Some("\"other\"".to_owned()), ..Script::file(1, 2 * MIB) });
        self.node.kill();
        let node = site.start().await;
        let (acknowledged, sent) = *self.sky.check_in.lock();
        assert!(acknowledged > 0, "no check-in was acknowledged in the whole storm");
        let (status, told) = said(node.address, acknowledged).await.expect("an answer");
        let expected = told["expected"].as_u64().unwrap_or_default();
        assert_eq!(status, 409, "check-in {acknowledged} is not known: {told}");
        assert!((acknowledged + 1..=sent + 1).contains(&expected), "{told}, sent {sent}");
        let version = node.status().await["control"]["version"].as_u64().unwrap_or_default();
        let promised = self.sky.documents.lock().1;
        assert!(version >= promised && version > 0, "{version} is in force, {promised} was");
        let sitelist = node.get("/agent/v1/sitelist.xml", &[("waypost-agent", "pc-1")]).await;
        assert_eq!(sitelist.status, 200);
        let body = node.get("/o/new-5000", &[]).await.body;
        assert!(body == content::whole(1, 2 << 20), "what was purged is back");
        Self { node, ..self }
    }

    async fn an_edition_is_shown_whole(&self) {
        let last = self.sky.edition.load(Ordering::SeqCst);
        let edition = Edition::new(last, 2, 20_000);
        edition.publish(&self.origin, "/d/");
        eventually("the last edition is shown", async || {
            number(&self.node.get(&format!("/dats/{ROOT}"), &[]).await.body) == Some(last)
        })
        .await;
        for (path, body) in &edition.files {
            let answer = self.node.get(&format!("/dats/{path}"), &[]).await;
            assert!(answer.status == 200 && answer.body == *body, "{path}: {answer:?}");
        }
    }

    /// 5: memory, descriptors, fills, the disk.
    async fn nothing_has_grown_beyond_its_bound(&self) {
        // 8 MiB of cache, 64 MiB, and 350 KiB for each download: some of which last on where an agent has left.
        let allowed = 8 * MIB + 64 * MIB + 60 * 350 * 1024;
        let resident = self.most_resident.max(self.node.anonymous());
        assert!(resident <= allowed, "{} MiB resident", resident >> 20);
        eventually("no fill runs", async || self.node.status().await["fills"] == json!([])).await;
        eventually("connections are given back", async || {
            descriptors(&self.node) <= self.first_descriptors + 40
        })
        .await;
        let size = self.node.metric("waypost_cache_size_bytes").await;
        assert!(size <= 48.0 * MIB as f64, "{size} bytes stored");
        eventually("no temporary file is left", async || {
            let left = |name: &str| {
                fs::read_dir(self.ground.dir.join("cache").join(name)).map_or(0, Iterator::count)
            };
            left("tmp") == 0 && left("tmp.old") == 0
        })
        .await;
    }
}
