//! The wall clock jumps, as it does when a machine without a battery finds its time server.

use std::time::{Duration, SystemTime};

use waypost::base::clock::{Clock, Timestamp};
use waypost::testkit::client::End;
use waypost::testkit::content;
use waypost::testkit::node::{Home, Plan, eventually};
use waypost::testkit::origin::Origin;
use waypost::testkit::process::Dice;
use waypost::testkit::publisher::{Edition, ROOT};
use waypost::testkit::script::Script;

const DAY: Duration = Duration::from_secs(86_400);

/// A clock that was a day ahead when everything was fetched, and is right now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_back_a_day_keeps_nothing_fresh_and_nobody_down() {
    let origin = Origin::start().await;
    let fresh = vec![("cache-control".to_owned(), "max-age=60".to_owned())];
    let script = |tag: &str, seed| Script {
        headers: fresh.clone(),
        etag: Some(tag.to_owned()),
        ..Script::file(seed, 3_000)
    };
    origin.set("/f", script("\"one\"", 1));
    let right = Timestamp::from_system(SystemTime::now());
    let clock = Clock::manual(right.after(DAY));
    let node = Home::new().start_with(&Plan::upstreams(&[&origin.url()]), 0, clock.clone()).await;
    assert_eq!(node.get("/f", &[]).await.body, content::whole(1, 3_000));
    node.settled().await;
    // Upstream goes down, for a moment.
    origin.set("/gone", Script::status(500, &[]));
    for _ in 0..12 {
        node.get("/gone", &[]).await;
    }
    clock.set(right);
    origin.set("/f", script("\"two\"", 2));
    origin.set("/new", Script::file(3, 3_000));
    eventually("upstream is asked again", async || {
        let answer = node.get("/new", &[]).await;
        answer.status == 200 && answer.body == content::whole(3, 3_000)
    })
    .await;
    eventually("what was fetched in the future is asked about", async || {
        node.get("/f", &[]).await.body == content::whole(2, 3_000)
    })
    .await;
}

/// It jumps all the time, while agents download and editions come out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_about_costs_no_byte_and_no_publication() {
    let mut dice = Dice::seeded(14);
    let origin = Origin::start().await;
    Edition::new(1, 1, 2_000).publish(&origin, "/");
    let start = Timestamp::from_system(SystemTime::now());
    let clock = Clock::manual(start);
    let text = format!(
        "[[repository]]\nname = \"dats\"\npath = \"/\"\npreset = \"epo\"\nupstreams = [{:?}]\ncheck_every = \"1s\"\n",
        origin.url()
    );
    let node = Home::new().start_with(&Plan::new(text), 0, clock.clone()).await;
    for number in 1..=4 {
        Edition::new(number, 1, 2_000).publish(&origin, "/");
        let edition = Edition::new(number, 1, 2_000);
        eventually(&format!("edition {number} is shown"), async || {
            let days = dice.below(800);
            clock.set(Timestamp(start.0 - 400 * 86_400_000).after(DAY * u32::try_from(days).expect("small")));
            node.get(&format!("/{ROOT}"), &[]).await.body == edition.body(ROOT)
        })
        .await;
        for (path, body) in &edition.files {
            clock.set(start.after(DAY * u32::try_from(dice.below(800)).expect("small")));
            let answer = node.get(&format!("/{path}"), &[]).await;
            assert_eq!((answer.status, answer.end), (200, End::Complete), "{path}: {answer:?}");
            assert_eq!(answer.body, *body, "{path} of {number}");
        }
    }
}
