//! What fetches do to the health, and what that does to the order.

use super::*;

#[tokio::test]
async fn what_a_fetch_meets_is_the_health_of_its_upstream() {
    let clock = Clock::manual(Timestamp(1_000_000));
    let origin = Origin::start().await;
    origin.set("/gone", Script::status(503, &[]));
    origin.set("/busy", Script::status(429, &[("retry-after", "30")]));
    origin.set("/forbidden", Script::status(403, &[]));
    origin.set("/f", Script::file(1, 100));
    origin.set("/short", Script::file(1, 100).breaking(50, How::Finish, usize::MAX));
    let make = || Upstream::new(options(&origin), clock.clone()).unwrap();

    let upstream = make();
    for _ in 0..4 {
        upstream.fetch(&ask("gone")).await.unwrap();
        assert_eq!(fetch(&upstream, &ask("short")).await, Err("short".to_owned()));
        upstream.fetch(&ask("forbidden")).await.unwrap();
        fetch(&upstream, &ask("f")).await.unwrap();
    }
    assert_eq!(upstream.health().state(clock.now()), State::Up);
    for _ in 0..5 {
        upstream.fetch(&ask("gone")).await.unwrap();
    }
    assert!(matches!(upstream.health().state(clock.now()), State::Down { .. }));

    let upstream = make();
    for _ in 0..5 {
        assert_eq!(fetch(&upstream, &ask("short")).await, Err("short".to_owned()));
    }
    assert!(matches!(upstream.health().state(clock.now()), State::Down { .. }));

    let upstream = make();
    upstream.fetch(&ask("busy")).await.unwrap();
    let until = clock.now().after(Duration::from_secs(30));
    assert_eq!(upstream.health().state(clock.now()), State::Down { until });
}

#[tokio::test]
async fn sources_come_by_priority_and_health_and_a_failed_one_probes_once() {
    let clock = Clock::manual(Timestamp(1_000_000));
    let make = |name: &str, priority| {
        let options = Options { priority, ..Options::new(format!("http://{name}.example/")) };
        Arc::new(Upstream::new(options, clock.clone()).unwrap())
    };
    let (second, first, twin) = (make("second", 2), make("first", 1), make("twin", 1));
    let sources = Sources::new(vec![Arc::clone(&second), Arc::clone(&first), Arc::clone(&twin)]);
    let names = |sources: &Sources| {
        let names = sources.candidates(clock.now()).map(|upstream| upstream.name().chars().nth(7).unwrap());
        names.collect::<String>()
    };
    assert_eq!(names(&sources), "fts");
    first.health().report_failure(clock.now(), Trouble::Failing);
    assert_eq!(names(&sources), "tfs");
    for _ in 0..2 {
        twin.health().report_failure(clock.now(), Trouble::Unreachable);
    }
    assert_eq!(names(&sources), "fs");
    assert_eq!(sources.down_until(clock.now()), None);
    clock.advance(Duration::from_secs(2));
    assert_eq!(names(&sources), "fts");
    assert_eq!(names(&sources), "fs");
    for upstream in [&first, &second] {
        for _ in 0..2 {
            upstream.health().report_failure(clock.now(), Trouble::Unreachable);
        }
    }
    assert_eq!(names(&sources), "");
    let until = sources.down_until(clock.now()).unwrap();
    assert!(until.since(clock.now()) <= Duration::from_millis(1_200), "{until:?}");
    assert_eq!(Sources::default().down_until(clock.now()), None);
}
