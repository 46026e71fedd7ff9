//! Storms: of everything ([`everything`]), and here of publications.
//!
//! Two hundred editions in bursts, an origin that breaks now and then, and agents that read all the while: whatever
//! an agent gets under a listed name is some edition's content of it, and all of one reading is of one edition.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may stop at the first broken assumption, and what was skipped is said"
)]

#[path = "storm/everything.rs"]
mod everything;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use waypost::testkit::client::{Client, End};
use waypost::testkit::node::{Home, Plan, TestNode};
use waypost::testkit::origin::Origin;
use waypost::testkit::process::{Dice, eventually};
use waypost::testkit::publisher::{CURRENT, Edition, ROOT};
use waypost::testkit::script::{Framing, How, Script};

const EDITIONS: u64 = 200;
const BURST: u64 = 20;
const AGENTS: u64 = 8;

/// Every edition whose publication has begun.
type History = Arc<Mutex<BTreeMap<u64, Arc<Edition>>>>;

fn edition(number: u64) -> Edition {
    Edition::new(number, 3, 20_000)
}

fn number(root: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(root).ok()?;
    text.split("CatalogVersion=\"").nth(1)?.split('"').next()?.parse().ok()
}

/// What an agent saw.
#[derive(Debug, Default)]
struct Seen {
    editions: BTreeSet<u64>,
    files: usize,
    /// Answers that failed, visibly: the origin was broken.
    failed: usize,
}

/// Reads editions over one connection after the other until told to stop.
async fn read(node: std::net::SocketAddr, history: History, over: Arc<AtomicBool>, mut dice: Dice) -> Seen {
    let mut seen = Seen::default();
    while !over.load(Ordering::Relaxed) {
        let mut client = Client::connect(node).await.expect("the node accepts");
        for _ in 0..1 + dice.below(3) {
            if !read_one(&mut client, &history, &mut dice, &mut seen).await {
                break;
            }
        }
    }
    seen
}

/// Reads an edition in part or whole. Returns whether the connection is good for more.
async fn read_one(client: &mut Client, history: &History, dice: &mut Dice, seen: &mut Seen) -> bool {
    let root = client.get(&format!("/{ROOT}"), &[]).await.expect("a root");
    assert_eq!((root.status, root.end), (200, End::Complete), "there is always one to offer: {root:?}");
    let number = number(&root.body).expect("a version");
    let edition = history.lock().get(&number).cloned();
    let edition = edition.unwrap_or_else(|| unreachable!("edition {number} was never published"));
    assert_eq!(root.body, edition.body(ROOT));
    seen.editions.insert(number);
    for (path, body) in edition.files.iter().filter(|(path, _)| path != ROOT) {
        if dice.below(3) == 0 {
            continue;
        }
        tokio::time::sleep(Duration::from_millis(dice.below(60))).await;
        let Ok(answer) = client.get(&format!("/{path}"), &[]).await else {
            seen.failed += 1;
            return false;
        };
        if answer.status != 200 || answer.end != End::Complete {
            let payload = path.ends_with(".bin") || path.ends_with(".zip");
            assert!(payload && answer.status != 404, "{path} of edition {number}: {answer:?}");
            seen.failed += 1;
            return answer.end == End::Complete;
        }
        let of = || {
            let history = history.lock();
            let whose = history.iter().filter(|(_, it)| it.find(path) == Some(&answer.body));
            whose.map(|(number, _)| *number).collect::<Vec<_>>()
        };
        assert!(answer.body == *body, "{path} of edition {number} is that of {:?}: {answer:?}", of());
        seen.files += 1;
    }
    true
}

/// Something that an origin does on a bad day, instead of what it should send.
fn broken(good: Script, dice: &mut Dice) -> Script {
    let half = good.length / 2;
    match dice.below(7) {
        0 => Script::status(503, &[]),
        1 => Script::status(404, &[]),
        2 => Script::text("<html>please log in</html>"),
        3 => good.breaking(half, How::Reset, usize::MAX),
        4 => good.breaking(half, How::Finish, usize::MAX),
        5 => good.breaking(half, How::Flip, usize::MAX),
        _ => Script { framing: Framing::WrongLength(half), ..good },
    }
}

async fn publish(origin: &Origin, history: &History, dice: &mut Dice) {
    let mut before = Arc::new(edition(1));
    while before.number < EDITIONS {
        for step in 1..=BURST {
            let next = Arc::new(edition(before.number + 1));
            history.lock().insert(next.number, Arc::clone(&next));
            if step == BURST {
                next.publish_badly(origin, &before, true, dice).await;
            } else {
                next.publish(origin, "/");
                tokio::time::sleep(Duration::from_millis(dice.below(20))).await;
            }
            before = next;
            if before.number >= EDITIONS {
                break;
            }
        }
        let at = usize::try_from(dice.below(before.files.len() as u64)).expect("it is small");
        let (path, body) = before.files.get(at).expect("it is below the number of files");
        let path = format!("/{path}");
        origin.set(&path, broken(Script::text(body.clone()), dice));
        tokio::time::sleep(Duration::from_millis(dice.below(1_500))).await;
        origin.set(&path, Script::text(body.clone()));
        tokio::time::sleep(Duration::from_millis(1_000 + dice.below(1_500))).await;
    }
}

async fn shows(node: &TestNode, wanted: u64) {
    eventually(&format!("edition {wanted} is shown"), async || {
        number(&node.get(&format!("/{ROOT}"), &[]).await.body) == Some(wanted)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_storm_of_editions_and_faults_makes_a_mixture() {
    let mut dice = Dice::seeded(77);
    let origin = Origin::start().await;
    let first = Arc::new(edition(1));
    first.publish(&origin, "/");
    let history: History = Arc::new(Mutex::new(BTreeMap::from([(1, first)])));
    let text = format!(
        "[[repository]]\nname = \"dats\"\npath = \"/\"\npreset = \"epo\"\nupstreams = [{:?}]\n\
         check_every = \"1s\"\nstall_timeout = \"1s\"\n",
        origin.url()
    );
    let node = Home::new().start(&Plan::new(text)).await;
    shows(&node, 1).await;
    let over = Arc::new(AtomicBool::new(false));
    let mut agents = JoinSet::new();
    for _ in 0..AGENTS {
        agents.spawn(read(node.plain, Arc::clone(&history), Arc::clone(&over), dice.split()));
    }
    publish(&origin, &history, &mut dice).await;
    shows(&node, EDITIONS).await;
    over.store(true, Ordering::Relaxed);
    let mut all = Seen::default();
    for seen in agents.join_all().await {
        all.editions.extend(seen.editions);
        all.files += seen.files;
        all.failed += seen.failed;
    }
    eprintln!("{} files of editions {:?}; {} answers failed", all.files, all.editions, all.failed);
    assert!(all.editions.len() >= 3 && all.files >= 500, "the storm was a calm");
    let name = format!("{CURRENT}part2.bin");
    assert_eq!(node.get(&format!("/{name}"), &[]).await.body, edition(EDITIONS).body(&name));
}
