//! Freshness as agents see it: what is served without asking, what is asked about, and what happens when upstream
//! fails. Time is turned by hand.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::time::{Duration, SystemTime};

use waypost::base::clock::{Clock, Timestamp};
use waypost::testkit::client::{Answer, End};
use waypost::testkit::content;
use waypost::testkit::node::{Home, Plan, TestNode, eventually};
use waypost::testkit::origin::Origin;
use waypost::testkit::script::{Gate, Hold, How, Script};

const LEN: u64 = 1_000;

/// An origin, a node in front of it, and the hand of its clock.
struct Scene {
    origin: Origin,
    node: TestNode,
    clock: Clock,
    plan: Plan,
}

impl Scene {
    async fn new() -> Self {
        Self::with("").await
    }

    /// With further lines of configuration for the repository.
    async fn with(lines: &str) -> Self {
        let origin = Origin::start().await;
        let plan = Plan::upstreams(&[&origin.url()]).with(lines);
        let clock = Clock::manual(Timestamp::from_system(SystemTime::now()));
        let node = Home::new().start_with(&plan, 0, clock.clone()).await;
        Self { origin, node, clock, plan }
    }

    fn set(&self, path: &str, cache_control: &str) {
        self.origin.set(path, script(cache_control));
    }

    /// A GET after which nothing is going on.
    async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let answer = self.node.get(path, headers).await;
        self.node.settled().await;
        answer
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn asked(&self, path: &str) -> usize {
        self.origin.counts(path).requests
    }
}

fn script(cache_control: &str) -> Script {
    Script { headers: fields(&[("cache-control", cache_control)]), ..Script::file(1, LEN) }
}

fn fields(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// `Cache-Status` without the node's name.
fn status(answer: &Answer) -> &str {
    answer.header("cache-status").and_then(|it| it.strip_prefix("localhost; ")).unwrap_or_default()
}

fn check(answer: &Answer, seed: u64) {
    assert_eq!((answer.status, answer.end), (200, End::Complete));
    assert!(answer.body == content::whole(seed, answer.body.len()) && answer.body.len() as u64 == LEN);
}

#[tokio::test]
async fn an_answer_says_what_it_is_and_where_it_came_from() {
    let scene = Scene::new().await;
    scene.set("/f", "max-age=100");
    let miss = scene.get("/f").await;
    check(&miss, 1);
    assert_eq!(status(&miss), "fwd=uri-miss; fwd-status=200; stored");
    assert_eq!((miss.header("age"), miss.header("via")), (Some("0"), Some("1.1 localhost")));
    scene.pass(40);
    let hit = scene.get("/f").await;
    check(&hit, 1);
    assert_eq!(status(&hit), "hit; ttl=60");
    assert_eq!((hit.header("age"), hit.header("via")), (Some("40"), Some("1.1 localhost")));
    assert!(hit.header("repr-digest").unwrap().starts_with("sha-256=:"));
    assert_eq!(hit.header("cache-control"), Some("max-age=100"));
    let ids: Vec<_> = [&miss, &hit].iter().map(|it| it.header("x-request-id").unwrap().to_owned()).collect();
    assert!(ids[0] != ids[1] && ids.iter().all(|id| id.len() == 16));
    for (headers, expected) in [
        (vec![("if-none-match", "\"v1\"")], 304),
        (vec![("if-match", "\"other\"")], 412),
        (vec![("range", "bytes=5000-")], 416),
        (vec![("range", "bytes=0-1")], 206),
    ] {
        let answer = scene.get_with("/f", &headers).await;
        assert_eq!(answer.status, expected);
        assert_eq!(status(&answer), "hit; ttl=60", "{expected}");
        assert_eq!((answer.header("age"), answer.header("via")), (Some("40"), Some("1.1 localhost")));
        assert!(answer.header("x-request-id").is_some());
    }
}

#[tokio::test]
async fn what_upstream_had_kept_for_a_while_is_as_old_as_it_says() {
    let scene = Scene::new().await;
    scene.origin.set(
        "/f",
        Script {
            headers: fields(&[("cache-control", "max-age=100"), ("age", "70")]),
            ..Script::file(1, LEN)
        },
    );
    let miss = scene.get("/f").await;
    assert_eq!(miss.header("age"), Some("70"), "a cache behind us must not think it new");
    scene.pass(20);
    let hit = scene.get("/f").await;
    assert_eq!((hit.header("age"), status(&hit)), (Some("90"), "hit; ttl=10"));
    scene.pass(20);
    let stale = scene.get("/f").await;
    assert_eq!(status(&stale), "hit; ttl=-10; detail=stale-while-revalidate");
}

#[tokio::test]
async fn the_origins_date_is_passed_on() {
    let scene = Scene::new().await;
    let date = httpdate(&scene.clock, -30);
    let expires = httpdate(&scene.clock, 70);
    scene.origin.set(
        "/f",
        Script { headers: fields(&[("date", &date), ("expires", &expires)]), ..Script::file(1, LEN) },
    );
    scene.get("/f").await;
    scene.pass(10);
    let hit = scene.get("/f").await;
    // With a date of ours beside it, a cache behind us would count the time since then twice.
    assert_eq!((hit.header("date"), hit.header("expires")), (Some(date.as_str()), Some(expires.as_str())));
    assert!(matches!(hit.header("age"), Some("40" | "41")), "{:?}", hit.header("age"));
}

fn httpdate(clock: &Clock, seconds: i64) -> String {
    let now = clock.now().0.checked_add_signed(seconds * 1_000).unwrap();
    httpdate::fmt_http_date(Timestamp(now).to_system())
}

#[tokio::test]
async fn fresh_is_served_and_stale_is_asked_about() {
    let scene = Scene::new().await;
    scene.set("/f", "max-age=100, stale-while-revalidate=0");
    scene.get("/f").await;
    scene.pass(99);
    scene.get("/f").await;
    assert_eq!(scene.asked("/f"), 1);
    scene.pass(1);
    let revalidated = scene.get("/f").await;
    check(&revalidated, 1);
    assert_eq!(status(&revalidated), "fwd=stale; fwd-status=304; ttl=100; stored");
    assert_eq!(revalidated.header("age"), Some("0"));
    let asked = scene.origin.heads().pop().unwrap().to_lowercase();
    assert!(asked.contains("if-none-match: \"v1\"\r\n"), "{asked}");
    scene.pass(99);
    assert_eq!(status(&scene.get("/f").await), "hit; ttl=1");
    assert_eq!((scene.asked("/f"), scene.origin.counts("/f").body_bytes), (2, LEN));
}

#[tokio::test]
async fn a_304_updates_the_head_but_not_the_bytes() {
    let scene = Scene::new().await;
    scene.origin.set(
        "/f",
        Script {
            headers: fields(&[
                ("cache-control", "max-age=10, stale-while-revalidate=0"),
                ("content-type", "a/b"),
            ]),
            ..Script::file(1, LEN)
        },
    );
    scene.get("/f").await;
    scene.origin.set(
        "/f",
        Script {
            headers: fields(&[
                ("cache-control", "max-age=500"),
                ("content-type", "evil/x"),
                ("content-disposition", "attachment"),
            ]),
            ..Script::file(2, LEN)
        },
    );
    scene.pass(20);
    let answer = scene.get("/f").await;
    check(&answer, 1);
    assert_eq!(answer.header("cache-control"), Some("max-age=500"));
    assert_eq!(answer.header("content-disposition"), Some("attachment"));
    assert_eq!(answer.header("content-type"), Some("a/b"));
    scene.pass(400);
    assert_eq!(status(&scene.get("/f").await), "hit; ttl=100");
}

#[tokio::test]
async fn another_tag_is_another_file() {
    let scene = Scene::new().await;
    scene.set("/f", "max-age=10, stale-while-revalidate=0");
    let old = scene.get("/f").await;
    scene.origin.set("/f", Script { etag: Some("\"v2\"".to_owned()), seed: 2, ..script("max-age=10") });
    scene.pass(20);
    let new = scene.get("/f").await;
    check(&new, 2);
    assert_eq!((new.header("etag"), status(&new)), (Some("\"v2\""), "fwd=stale; fwd-status=200; stored"));
    let hit = scene.get("/f").await;
    check(&hit, 2);
    assert_ne!(hit.header("repr-digest"), old.header("repr-digest"));
    assert_eq!(scene.get_with("/f", &[("if-none-match", "\"v1\"")]).await.status, 200);
    assert_eq!(scene.get_with("/f", &[("if-none-match", "W/\"v2\"")]).await.status, 304);
}

#[tokio::test]
async fn a_date_is_enough_to_ask_with() {
    let scene = Scene::new().await;
    let modified = "Sun, 06 Nov 1994 08:49:37 GMT";
    let dated = Script {
        etag: None,
        last_modified: Some(modified.to_owned()),
        ..script("max-age=10, stale-while-revalidate=0")
    };
    scene.origin.set("/f", dated);
    let first = scene.get("/f").await;
    assert!(first.header("etag").is_none(), "not known before the last byte");
    scene.pass(20);
    let answer = scene.get("/f").await;
    check(&answer, 1);
    assert_eq!(status(&answer), "fwd=stale; fwd-status=304; ttl=10; stored");
    let asked = scene.origin.heads().pop().unwrap().to_lowercase();
    assert!(asked.contains("if-modified-since: sun, 06 nov 1994 08:49:37 gmt\r\n"), "{asked}");
    assert!(!asked.contains("if-none-match"), "the tag is ours, upstream does not know it: {asked}");
    let tag = answer.header("etag").unwrap();
    assert!(tag.starts_with("\"sha256-"), "{tag}");
    assert_eq!(scene.get_with("/f", &[("if-none-match", tag)]).await.status, 304);
    assert_eq!(scene.get_with("/f", &[("if-modified-since", modified)]).await.status, 304);
    let before = [("if-unmodified-since", "Sun, 06 Nov 1994 08:49:36 GMT")];
    assert_eq!(scene.get_with("/f", &before).await.status, 412);
}

#[tokio::test]
async fn five_hundred_who_insist_are_one_question() {
    let scene = Scene::new().await;
    scene.set("/f", "max-age=1000");
    scene.get("/f").await;
    scene.pass(10);
    let gate = Gate::default();
    let hold = Some(Hold { at: None, gate: gate.clone() });
    scene.origin.set("/f", Script { hold, ..script("max-age=1000") });
    let mut agents = tokio::task::JoinSet::new();
    for number in 0..500 {
        let mut client = scene.node.client().await;
        let headers = match number % 3 {
            0 => ("cache-control", "no-cache"),
            1 => ("cache-control", "max-age=0"),
            _ => ("pragma", "no-cache"),
        };
        agents.spawn(async move { client.get("/f", &[headers]).await.unwrap() });
    }
    eventually("all wait", async || scene.node.admin("/v1/status").await.contains("\"readers\": 500")).await;
    gate.open();
    while let Some(answer) = agents.join_next().await {
        let answer = answer.unwrap();
        check(&answer, 1);
        assert!(status(&answer).starts_with("fwd=request; fwd-status=304; ttl=1000; stored"), "{answer:?}");
    }
    assert_eq!(scene.asked("/f"), 2);
    scene.node.settled().await;
    // Who insists right after that gets what was confirmed a moment ago.
    scene.pass(4);
    let hit = scene.get_with("/f", &[("cache-control", "no-cache")]).await;
    assert_eq!((status(&hit), scene.asked("/f")), ("hit; ttl=996", 2));
    scene.pass(1);
    scene.get_with("/f", &[("cache-control", "no-cache")]).await;
    assert_eq!(scene.asked("/f"), 3);
}

#[tokio::test]
async fn stale_goes_out_while_it_is_asked_about() {
    let scene = Scene::new().await;
    scene.set("/f", "max-age=10, stale-while-revalidate=30");
    scene.get("/f").await;
    scene.pass(20);
    let gate = Gate::default();
    let changed = Script {
        etag: Some("\"v2\"".to_owned()),
        seed: 2,
        hold: Some(Hold { at: None, gate: gate.clone() }),
        ..script("max-age=100")
    };
    scene.origin.set("/f", changed);
    for _ in 0..20 {
        let answer = scene.node.get("/f", &[]).await;
        check(&answer, 1);
        assert_eq!(status(&answer), "hit; ttl=-10; detail=stale-while-revalidate");
        assert_eq!(answer.header("age"), Some("20"));
    }
    gate.open();
    scene.node.settled().await;
    let new = scene.get("/f").await;
    check(&new, 2);
    assert_eq!((status(&new), scene.asked("/f")), ("hit; ttl=100", 2));
    // Beyond the window an agent waits.
    scene.pass(161);
    assert!(status(&scene.get("/f").await).starts_with("fwd=stale; fwd-status=304"));
}

#[tokio::test]
async fn whatever_upstreams_trouble_is_stale_is_better() {
    for (trouble, word) in [
        (Script::status(500, &[]), "refused"),
        (Script::status(503, &[("retry-after", "120")]), "refused"),
        (Script::status(429, &[]), "refused"),
        (Script::status(403, &[]), "refused"),
        (Script::raw("SSH-2.0-OpenSSH_9.9\r\n\r\n"), "unreachable"),
        (Script::raw("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n"), "lied"),
    ] {
        let scene = Scene::new().await;
        scene.set("/f", "max-age=10, stale-while-revalidate=0");
        scene.get("/f").await;
        scene.pass(3_600);
        scene.origin.set("/f", trouble);
        for _ in 0..3 {
            let answer = scene.get("/f").await;
            check(&answer, 1);
            assert_eq!(answer.header("age"), Some("3600"), "its true age");
            let status = status(&answer);
            assert!(status.starts_with("hit; ttl=-3590; detail="), "{status}");
        }
        // A file that is not here gets an error of ours, never upstream's.
        scene.origin.set("/g", Script::status(429, &[("retry-after", "1")]));
        let missing = scene.get("/g").await;
        assert!(matches!(missing.status, 503 | 504), "{word}: {missing:?}");
        assert!(missing.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
        // Eight days later it is too old for anybody.
        scene.pass(8 * 86_400);
        let refused = scene.get("/f").await;
        assert!(matches!(refused.status, 502..=504), "{word}: {refused:?}");
    }
}

#[tokio::test]
async fn a_dead_upstream_is_noticed_and_a_miss_gets_a_quick_504() {
    let scene = Scene::new().await;
    scene.set("/f", "max-age=10");
    scene.get("/f").await;
    drop(scene.origin);
    scene.clock.advance(Duration::from_secs(600));
    for _ in 0..5 {
        let answer = scene.node.get("/f", &[]).await;
        check(&answer, 1);
        let missing = scene.node.get("/g", &[]).await;
        assert_eq!(missing.status, 504);
        assert_eq!(missing.header("cache-control"), Some("no-store"));
        assert!(missing.header("retry-after").is_some());
    }
    let known = scene.node.get("/f", &[]).await;
    assert_eq!(status(&known), "hit; ttl=-590; detail=stale-upstream-down");
    let known = scene.node.get("/g", &[]).await;
    assert_eq!((known.status, status(&known)), (504, "fwd=uri-miss; detail=upstream-down"));
    assert_eq!(known.body, "upstream cannot be reached at the moment\n");
}

#[tokio::test]
async fn must_revalidate_is_obeyed_even_without_upstream() {
    let scene = Scene::new().await;
    scene.set("/f", "max-age=10, must-revalidate");
    scene.get("/f").await;
    scene.pass(9);
    assert_eq!(status(&scene.get("/f").await), "hit; ttl=1");
    scene.pass(1);
    assert!(status(&scene.get("/f").await).starts_with("fwd=stale; fwd-status=304"));
    scene.pass(10);
    scene.origin.set("/f", Script::status(500, &[]));
    for _ in 0..3 {
        let refused = scene.get("/f").await;
        assert_eq!(
            (refused.status, refused.header("content-type")),
            (504, Some("text/plain; charset=utf-8"))
        );
    }
    scene.set("/f", "max-age=10, must-revalidate");
    scene.pass(120);
    check(&scene.get("/f").await, 1);
}

#[tokio::test]
async fn no_cache_of_an_origin_asks_each_time() {
    let scene = Scene::new().await;
    scene.set("/f", "no-cache");
    for round in 1..=4 {
        check(&scene.get("/f").await, 1);
        assert_eq!(scene.asked("/f"), round);
        scene.clock.advance(Duration::from_millis(10));
    }
    assert_eq!(scene.origin.counts("/f").body_bytes, LEN);
}

#[tokio::test]
async fn immutable_is_not_asked_about_while_it_is_fresh() {
    let scene = Scene::new().await;
    scene.set("/f", "max-age=1000, immutable");
    scene.get("/f").await;
    scene.pass(900);
    let insisted = scene.get_with("/f", &[("cache-control", "no-cache")]).await;
    assert_eq!((status(&insisted), scene.asked("/f")), ("hit; ttl=100; detail=hit-immutable", 1));
}

#[tokio::test]
async fn not_found_is_believed_for_a_short_time_and_then_asked_again() {
    let scene = Scene::new().await;
    let absent = scene.get("/f").await;
    assert_eq!((absent.status, absent.body.as_ref()), (404, b"not found\n".as_slice()));
    assert_eq!(status(&absent), "fwd=uri-miss; fwd-status=404; stored");
    scene.pass(9);
    let absent = scene.get("/f").await;
    assert_eq!((absent.status, status(&absent)), (404, "hit; detail=negative-hit"));
    assert_eq!(absent.header("age"), Some("9"));
    assert_eq!(scene.asked("/f"), 1);
    scene.set("/f", "max-age=100");
    assert_eq!(scene.get("/f").await.status, 404);
    scene.pass(1);
    check(&scene.get("/f").await, 1);
    assert_eq!(scene.asked("/f"), 2);
    // And gone again: what upstream takes away is gone here too.
    scene.origin.set("/f", Script::status(410, &[]));
    scene.pass(1_000);
    assert_eq!(scene.get("/f").await.status, 410);
    scene.set("/f", "max-age=100");
    scene.pass(5);
    check(&scene.get_with("/f", &[("cache-control", "no-cache")]).await, 1);
}

#[tokio::test]
async fn only_if_cached_never_goes_upstream() {
    let scene = Scene::new().await;
    scene.set("/f", "max-age=10, stale-while-revalidate=5");
    let only = [("cache-control", "only-if-cached")];
    let missing = scene.get_with("/f", &only).await;
    assert_eq!((missing.status, missing.body.as_ref()), (504, b"not in the cache\n".as_slice()));
    assert_eq!(scene.asked("/f"), 0);
    scene.get("/f").await;
    check(&scene.get_with("/f", &only).await, 1);
    scene.pass(12);
    check(&scene.get_with("/f", &only).await, 1);
    scene.pass(12);
    assert_eq!(scene.get_with("/f", &only).await.status, 504);
    assert_eq!(scene.asked("/f"), 1);
}

/// A 404 with `no-store` was repeated to everybody for ten seconds.
#[tokio::test]
async fn not_found_that_may_not_be_stored_is_asked_each_time_unless_a_rule_says_how_long() {
    let rules = "[[repository.rule]]\nmatch = \"said/**\"\nnegative_for = \"5s\"\n";
    let scene = Scene::with(rules).await;
    for (path, cache_control, asked) in
        [("/a", "no-store", 3), ("/b", "private", 3), ("/c", "max-age=60", 1), ("/said/d", "no-store", 1)]
    {
        scene.origin.set(path, Script::status(404, &[("cache-control", cache_control)]));
        for _ in 0..3 {
            assert_eq!(scene.get(path).await.status, 404);
        }
        assert_eq!(scene.asked(path), asked, "{path}: {cache_control}");
    }
}

#[tokio::test]
async fn a_rule_outranks_the_origin() {
    let rules = "[[repository.rule]]\nmatch = \"*.cat\"\nfresh_for = \"60s\"\nstale_while_revalidate = \"0s\"\n\
                 [[repository.rule]]\nmatch = \"**/*.zip\"\nimmutable = true\n\
                 [[repository.rule]]\nmatch = \"new/**\"\nnegative_for = \"2s\"\n";
    let scene = Scene::with(rules).await;
    for (path, cache_control) in
        [("/a.cat", "no-store"), ("/b.cat", "max-age=86400"), ("/x/y.zip", "no-cache")]
    {
        scene.set(path, cache_control);
        scene.get(path).await;
    }
    scene.pass(59);
    for path in ["/a.cat", "/b.cat", "/x/y.zip"] {
        check(&scene.get(path).await, 1);
        assert_eq!(scene.asked(path), 1, "{path}");
    }
    scene.pass(1);
    for path in ["/a.cat", "/b.cat"] {
        check(&scene.get(path).await, 1);
        assert_eq!(scene.asked(path), 2, "{path}");
    }
    scene.pass(10 * 365 * 86_400);
    let forever = scene.get_with("/x/y.zip", &[("cache-control", "no-cache")]).await;
    assert_eq!((status(&forever), scene.asked("/x/y.zip")), ("hit; detail=hit-immutable", 1));
    assert_eq!(scene.get("/new/f").await.status, 404);
    scene.pass(2);
    scene.set("/new/f", "max-age=10");
    check(&scene.get("/new/f").await, 1);
}

#[tokio::test]
async fn where_the_origin_says_nothing_a_tenth_of_its_age_is_guessed() {
    let scene = Scene::new().await;
    for (path, modified, lifetime) in
        [("/young", -1_000, 100), ("/old", -86_400, 3_600), ("/older", -86_400_000, 3_600)]
    {
        let (date, modified) = (httpdate(&scene.clock, 0), httpdate(&scene.clock, modified));
        let script = Script {
            headers: fields(&[("date", &date)]),
            last_modified: Some(modified),
            ..Script::file(1, LEN)
        };
        scene.origin.set(path, script);
        scene.get(path).await;
        let hit = scene.get(path).await;
        let ttl: u64 = status(&hit).strip_prefix("hit; ttl=").unwrap().parse().unwrap();
        assert!(ttl.abs_diff(lifetime) <= 2, "{path}: {ttl}");
    }
    scene.origin.set("/nothing", Script::file(1, LEN));
    scene.get("/nothing").await;
    let again = scene.get("/nothing").await;
    check(&again, 1);
    assert!(status(&again).starts_with("hit; ttl=0"), "{}", status(&again));
}

#[tokio::test]
async fn what_is_not_for_everybody_is_not_kept() {
    for headers in [
        vec![("cache-control", "no-store")],
        vec![("cache-control", "private, max-age=100")],
        vec![("set-cookie", "a=b"), ("cache-control", "max-age=100")],
        vec![("vary", "*"), ("cache-control", "max-age=100")],
    ] {
        let scene = Scene::new().await;
        scene.origin.set("/f", Script { headers: fields(&headers), ..Script::file(1, LEN) });
        for round in 1..=3 {
            let answer = scene.get("/f").await;
            check(&answer, 1);
            assert_eq!(status(&answer), "fwd=bypass; fwd-status=200", "{headers:?}");
            assert_eq!(answer.header("set-cookie"), None);
            assert!(answer.header("via").is_some() && answer.header("x-request-id").is_some());
            assert_eq!(scene.asked("/f"), round);
        }
        let mut client = scene.node.client().await;
        let head = client.request("HEAD", "/f", &[]).await.unwrap();
        assert_eq!((head.status, head.header("content-length")), (200, Some("1000")));
        check(&client.get("/f", &[]).await.unwrap(), 1);
        // Later it turns out to be for everybody after all.
        scene.set("/f", "max-age=100");
        scene.pass(31);
        scene.get("/f").await;
        let asked = scene.asked("/f");
        check(&scene.get("/f").await, 1);
        assert_eq!(scene.asked("/f"), asked);
    }
}

#[tokio::test]
async fn a_body_that_breaks_while_it_is_renewed_leaves_the_old_one() {
    let scene = Scene::with("stall_timeout = \"200ms\"\n").await;
    scene.set("/f", "max-age=10, stale-while-revalidate=60");
    scene.get("/f").await;
    scene.pass(20);
    let broken = Script { etag: None, seed: 2, ..script("max-age=10") }.breaking(500, How::Reset, usize::MAX);
    scene.origin.set("/f", broken);
    for _ in 0..3 {
        check(&scene.get("/f").await, 1);
    }
}

#[tokio::test]
async fn age_and_freshness_survive_a_restart() {
    let scene = Scene::new().await;
    scene.set("/f", "max-age=100, stale-while-revalidate=0");
    scene.get("/f").await;
    scene.pass(60);
    let home = scene.node.stop().await;
    let node = home.start_with(&scene.plan, 0, scene.clock.clone()).await;
    let hit = node.get("/f", &[]).await;
    assert_eq!((hit.header("age"), status(&hit)), (Some("60"), "hit; ttl=40"));
    scene.clock.advance(Duration::from_secs(40));
    let asked = node.get("/f", &[]).await;
    assert!(status(&asked).starts_with("fwd=stale; fwd-status=304"), "{}", status(&asked));
    assert_eq!(scene.origin.counts("/f").body_bytes, LEN);
}
