//! With the WAN down what is here is served with its true age, and who asks for something else hears so without anybody
//! trying to connect for it. Sitelists and policies are in `tests/control/mirror.rs`.

use std::time::Duration;

use waypost::base::clock::{Clock, Timestamp};
use waypost::testkit::client::End;
use waypost::testkit::content;
use waypost::testkit::node::{Home, Plan, eventually};
use waypost::testkit::origin::Origin;
use waypost::testkit::script::{Raw, Script};

#[tokio::test]
async fn a_miss_is_answered_504_without_another_attempt_and_what_is_here_says_how_old_it_is() {
    let clock = Clock::manual(Timestamp(1_800_000_000_000));
    let origin = Origin::start().await;
    let headers = vec![("cache-control".to_owned(), "max-age=10".to_owned())];
    origin.set("/f", Script { headers, ..Script::file(1, 300_000) });
    let node = Home::new().start_with(&Plan::upstreams(&[&origin.url()]), 0, clock.clone()).await;
    assert_eq!(node.get("/f", &[]).await.end, End::Complete);
    node.settled().await;
    // From now on every connection ends without a word.
    let dead =
        || Script { raw: Some(Raw { bytes: "".into(), close: true, later: None }), ..Script::default() };
    origin.set("/f", dead());
    let mut number = 0;
    eventually("upstream is known to be down", async || {
        number += 1;
        let path = format!("/gone{number}");
        origin.set(&path, dead());
        let answer = node.get(&path, &[]).await;
        assert!((502..=504).contains(&answer.status), "{answer:?}");
        answer.header("cache-status").is_some_and(|it| it.contains("upstream-down"))
    })
    .await;
    let (connections, heads) = (origin.connections(), origin.heads().len());
    for number in 0..50 {
        let missing = node.get(&format!("/missing{number}"), &[]).await;
        assert_eq!((missing.status, missing.end), (504, End::Complete), "{missing:?}");
        assert!(missing.header("retry-after").is_some() && missing.header("cache-status").is_some());
    }
    assert_eq!((origin.connections(), origin.heads().len()), (connections, heads), "nobody was asked");
    for age in [600, 4_200, 7_800] {
        clock.advance(Duration::from_secs(if age == 600 { 600 } else { 3_600 }));
        let answer = node.get("/f", &[]).await;
        assert!(answer.status == 200 && answer.body == content::whole(1, 300_000), "{answer:?}");
        assert_eq!(answer.header("age"), Some(age.to_string().as_str()), "its true age");
    }
}
