//! Upstream trouble from outside: it breaks, it lies, it is gone, and what agents see of it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use waypost::fill::{Cause, Options};
use waypost::testkit::client::{Answer, End};
use waypost::testkit::content;
use waypost::testkit::corpus::{self, Question, ReplyCase, ReplyOutcome};
use waypost::testkit::fills::FillBench;
use waypost::testkit::node::{Home, Plan, TestNode, eventually};
use waypost::testkit::origin::Origin;
use waypost::testkit::script::{Framing, Gate, Hold, How, Ranges, Raw, Script};
use waypost::upstream;

const MIB: u64 = 1 << 20;
const PATH: &str = "/package.zip";
const ALWAYS: usize = usize::MAX;

/// Origins with a script each for [`PATH`], the first one asked first, and a node in front of them.
async fn scene(scripts: impl IntoIterator<Item = Script>) -> (Vec<Origin>, TestNode) {
    scene_with(scripts, "").await
}

async fn scene_with(scripts: impl IntoIterator<Item = Script>, lines: &str) -> (Vec<Origin>, TestNode) {
    let mut origins = Vec::new();
    for script in scripts {
        let origin = Origin::start().await;
        origin.set(PATH, script);
        origins.push(origin);
    }
    let node = Home::new().start(&plan(&origins).with(lines)).await;
    (origins, node)
}

fn plan(origins: &[Origin]) -> Plan {
    let urls: Vec<String> = origins.iter().map(Origin::url).collect();
    Plan::upstreams(&urls.iter().map(String::as_str).collect::<Vec<_>>())
}

/// An address where nobody listens.
async fn nobody() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}/", listener.local_addr().unwrap())
}

fn assert_whole(answer: &Answer, seed: u64, length: u64) {
    assert_eq!((answer.status, answer.end, answer.body.len() as u64), (200, End::Complete, length));
    assert!(answer.body == content::whole(seed, answer.body.len()), "wrong bytes");
}

/// The body broke so that any client sees it, and what came of it is right.
fn assert_broken(answer: &Answer, seed: u64) {
    assert_eq!(answer.status, 200);
    assert!(matches!(answer.end, End::Short | End::Reset), "{:?}", answer.end);
    assert!(answer.body == content::whole(seed, answer.body.len()), "wrong bytes");
}

async fn assert_nothing_stored(node: &TestNode) {
    eventually("the fill is over", async || node.fills().await == 0).await;
    assert_eq!(node.metric("waypost_cache_objects").await, 0);
    assert_eq!(node.get(PATH, &[("cache-control", "only-if-cached")]).await.status, 504);
}

// Broken bodies: resumed.

#[tokio::test]
async fn a_body_that_ends_early_or_is_reset_is_resumed_on_the_same_upstream() {
    let length = 3 * MIB + 11;
    for (seed, how) in [(1, How::Finish), (2, How::Reset)] {
        let script = Script::file(seed, length).breaking(MIB + 500_000, how, 1);
        let (origins, node) = scene([script]).await;
        assert_whole(&node.get(PATH, &[]).await, seed, length);
        let counts = origins[0].counts(PATH);
        assert_eq!((counts.requests, counts.ranges.len()), (2, 1));
        let resumes = origins[0].heads();
        assert!(resumes[1].to_ascii_lowercase().contains("if-range: \"v1\""), "{}", resumes[1]);
        // The last byte reaches an agent a moment before its fill is over.
        let ended = "waypost_fills_ended_total{how=\"complete\"}";
        eventually("it is over", async || node.metric(ended).await == 1).await;
    }
}

#[tokio::test]
async fn a_body_is_resumed_as_often_as_it_breaks() {
    let (length, seed) = (2 * MIB, 3);
    let script = Script { ranges: Ranges::AtMost(200_000), ..Script::file(seed, length) };
    let (origins, node) = scene([script.breaking(100_000, How::Reset, 1)]).await;
    assert_whole(&node.get(PATH, &[]).await, seed, length);
    assert!(origins[0].counts(PATH).ranges.len() >= 10);
}

#[tokio::test]
async fn where_the_same_upstream_breaks_again_at_the_same_byte_the_next_one_goes_on() {
    let length = 3 * MIB;
    let first = Script::file(4, length).breaking(MIB + 77, How::Finish, ALWAYS);
    let (origins, node) = scene([first, Script::file(4, length)]).await;
    assert_whole(&node.get(PATH, &[]).await, 4, length);
    // Once from the start, once again on the same.
    assert_eq!(origins[0].counts(PATH).requests, 2);
    let second = origins[1].counts(PATH);
    assert_eq!((second.requests, second.ranges.len()), (1, 1));
    assert!(second.body_bytes < length, "only the rest");
}

#[tokio::test]
async fn an_upstream_that_dies_mid_body_is_replaced_by_the_next_one() {
    let length = 3 * MIB;
    let (mut origins, node) =
        scene([Script { rate: Some(4 * MIB), ..Script::file(5, length) }, Script::file(5, length)]).await;
    let mut client = node.client().await;
    client.begin(PATH, &[]).await.unwrap();
    client.check(5, 0, 200_000).await.unwrap();
    drop(origins.remove(0));
    client.check(5, 200_000, length - 200_000).await.unwrap();
    assert_eq!(origins[0].counts(PATH).ranges.len(), 1);
}

#[tokio::test]
async fn an_upstream_that_always_breaks_at_the_same_byte_is_not_asked_without_end() {
    let length = 3 * MIB;
    let origin = Origin::start().await;
    origin.set(PATH, Script::file(6, length).breaking(MIB + 77, How::Reset, ALWAYS));
    let options = Options { resume_for: Duration::from_secs(2), ..Options::default() };
    let bench = FillBench::new(options, vec![upstream::Options::new(origin.url())]);
    let begun = Instant::now();
    assert!(matches!(bench.read(PATH, 6).await, Err(Cause::Broken(_))));
    assert!(begun.elapsed() < Duration::from_secs(30));
    let requests = origin.counts(PATH).requests;
    assert!((2..=20).contains(&requests), "{requests}");
}

#[tokio::test]
async fn a_stall_leads_to_a_resume() {
    let length = 2 * MIB;
    let (origins, node) =
        scene_with([Script::file(7, length).breaking(MIB, How::Stall, 1)], "stall_timeout = \"300ms\"").await;
    assert_whole(&node.get(PATH, &[]).await, 7, length);
    assert_eq!(origins[0].counts(PATH).ranges.len(), 1);
}

#[tokio::test]
async fn a_trickle_below_the_minimum_rate_is_left_for_another_upstream() {
    let length = 2 * MIB;
    let (slow, good) = (Origin::start().await, Origin::start().await);
    slow.set(PATH, Script { rate: Some(100_000), ..Script::file(8, length) });
    good.set(PATH, Script::file(8, length));
    let slowly = upstream::Options {
        min_rate: MIB,
        rate_window: Duration::from_millis(500),
        ..upstream::Options::new(slow.url())
    };
    let next = upstream::Options { priority: 2, ..upstream::Options::new(good.url()) };
    let bench = FillBench::new(Options::default(), vec![slowly, next]);
    assert_eq!(bench.read(PATH, 8).await, Ok(length));
    assert_eq!((slow.counts(PATH).requests, good.counts(PATH).ranges.len()), (1, 1));
    assert_eq!(bench.notes("resumed").len(), 1);
}

#[tokio::test]
async fn a_range_that_is_ignored_on_resume_is_compared_and_skipped() {
    let length = 2 * MIB + 9;
    let script = Script { ranges: Ranges::Ignore, ..Script::file(9, length) };
    let (origins, node) = scene([script.breaking(MIB + 300_000, How::Finish, 1)]).await;
    assert_whole(&node.get(PATH, &[]).await, 9, length);
    assert_eq!(origins[0].counts(PATH).requests, 2);
}

#[tokio::test]
async fn an_ignored_range_with_other_bytes_under_the_same_name_breaks_visibly() {
    let length = 2 * MIB;
    let other = Script { ranges: Ranges::Ignore, ..Script::file(11, length) };
    let first = Script::file(10, length).breaking(MIB, How::Reset, ALWAYS);
    let (_origins, node) = scene([first, other]).await;
    assert_broken(&node.get(PATH, &[]).await, 10);
    assert_nothing_stored(&node).await;
}

#[tokio::test]
async fn a_last_modified_date_that_is_strong_proves_identity_too() {
    let length = 2 * MIB;
    let dated = Script {
        etag: None,
        last_modified: Some("Sun, 06 Nov 1994 08:49:37 GMT".to_owned()),
        headers: vec![("date".to_owned(), "Sat, 21 Nov 2026 08:49:37 GMT".to_owned())],
        ..Script::file(12, length)
    };
    let (origins, node) = scene([dated.breaking(MIB, How::Finish, 1)]).await;
    assert_whole(&node.get(PATH, &[]).await, 12, length);
    assert_eq!(origins[0].counts(PATH).ranges.len(), 1);
}

// Broken bodies: not resumed, and visibly so.

#[tokio::test]
async fn without_a_validator_a_broken_body_breaks_visibly() {
    let length = 2 * MIB;
    for etag in [None, Some("W/\"weak\"".to_owned())] {
        let script = Script { etag, ..Script::file(13, length) };
        let (_origins, node) = scene([script.breaking(MIB, How::Finish, 1)]).await;
        assert_broken(&node.get(PATH, &[]).await, 13);
        assert_nothing_stored(&node).await;
        assert_whole(&node.get(PATH, &[]).await, 13, length);
    }
}

#[tokio::test]
async fn another_file_on_resume_breaks_visibly_and_new_readers_get_the_new_file() {
    let length = 3 * MIB;
    for ranges in [Ranges::Honour, Ranges::Ignore, Ranges::IgnoreCondition] {
        let script =
            Script { becomes: Some((1, "\"v2\"".to_owned(), 15)), ranges, ..Script::file(14, length) };
        let (_origins, node) = scene([script.breaking(MIB + 5, How::Reset, 1)]).await;
        assert_broken(&node.get(PATH, &[]).await, 14);
        assert_nothing_stored(&node).await;
        let answer = node.get(PATH, &[]).await;
        assert_whole(&answer, 15, length);
        assert_eq!(answer.header("etag"), Some("\"v2\""), "{ranges:?}");
    }
}

#[tokio::test]
async fn a_mirror_with_other_bytes_under_the_same_etag_and_size_is_caught_by_the_overlap() {
    let length = 2 * MIB;
    let first = Script::file(16, length).breaking(MIB + 5, How::Finish, ALWAYS);
    let (_origins, node) = scene([first, Script::file(17, length)]).await;
    assert_broken(&node.get(PATH, &[]).await, 16);
    assert_nothing_stored(&node).await;
}

/// As a log or a database that has grown or was patched further on: the overlap is the same, the validator is not.
#[tokio::test]
async fn another_file_that_begins_alike_is_never_gone_on_with() {
    let (old, length) = (content::whole(40, 3 << 20), 3 * MIB);
    let mut new = old.to_vec();
    new[2_500_000] ^= 1;
    let script = |body: &[u8], etag: &str| Script {
        etag: Some(etag.to_owned()),
        ..Script::bytes(Bytes::copy_from_slice(body))
    };
    for ranges in [Ranges::Honour, Ranges::Ignore, Ranges::IgnoreCondition] {
        let first = script(&old, "\"v1\"").breaking(2 * MIB + 5, How::Reset, ALWAYS);
        let next = Script { ranges, ..script(&new, "\"v2\"") };
        let (origins, node) = scene([first, next]).await;
        assert_broken(&node.get(PATH, &[]).await, 40);
        assert!(origins[1].counts(PATH).requests > 0, "{ranges:?}: it was asked");
        assert_nothing_stored(&node).await;
        origins[0].set(PATH, Script::status(500, &[]));
        let answer = node.get(PATH, &[]).await;
        assert_eq!((answer.status, answer.end, answer.header("etag")), (200, End::Complete, Some("\"v2\"")));
        assert!(answer.body == new && answer.body.len() as u64 == length, "{ranges:?}: wrong bytes");
    }
}

#[tokio::test]
async fn parts_that_lie_on_resume_are_refused_and_the_next_upstream_goes_on() {
    let length = 2 * MIB;
    let lies = [Ranges::Shifted(7), Ranges::Total(length + 1), Ranges::UnknownTotal, Ranges::Unplaced];
    for ranges in lies {
        let first = Script::file(18, length).breaking(MIB + 5, How::Finish, ALWAYS);
        let liar = Script { ranges, ..Script::file(18, length) };
        let (origins, node) = scene([first, liar, Script::file(18, length)]).await;
        assert_whole(&node.get(PATH, &[]).await, 18, length);
        assert_eq!(origins[1].counts(PATH).requests, 1, "{ranges:?}");
        assert_eq!(origins[2].counts(PATH).ranges.len(), 1, "{ranges:?}");
    }
}

#[tokio::test]
async fn all_readers_of_a_broken_fill_see_the_break() {
    let script = Script { etag: None, rate: Some(MIB), ..Script::file(19, 2 * MIB) };
    let (_origins, node) = scene([script.breaking(MIB, How::Reset, 1)]).await;
    let mut clients = Vec::new();
    for range in ["bytes=0-", "bytes=500000-", "bytes=-700000"] {
        let mut client = node.client().await;
        assert_eq!(client.begin(PATH, &[("range", range)]).await.unwrap().status, 206);
        clients.push(client);
    }
    let whole = node.get(PATH, &[]).await;
    assert_broken(&whole, 19);
    for mut client in clients {
        let end = loop {
            if let Err(end) = client.some(usize::MAX).await {
                break end;
            }
        };
        assert!(matches!(end, End::Short | End::Reset), "{end:?}");
    }
}

// Statuses.

#[tokio::test]
async fn refusals_and_errors_of_upstream_are_never_relayed() {
    for status in [401, 403, 407, 421, 429, 451, 500, 502, 503, 504, 508] {
        let bad = Script { etag: None, ..Script { status, ..Script::file(20, 500) } };
        let (_origins, node) = scene([bad.clone()]).await;
        let answer = node.get(PATH, &[]).await;
        assert_eq!((answer.status, answer.end), (503, End::Complete), "{status}");
        assert!(answer.header("retry-after").is_some(), "{status}");
        assert!(
            answer.body.len() < 200 && answer.header("etag").is_none(),
            "{status}: nothing of upstream's"
        );

        let (_origins, node) = scene([bad, Script::file(21, 70_000)]).await;
        assert_whole(&node.get(PATH, &[]).await, 21, 70_000);
    }
}

/// Stored, and to be asked about each time.
fn always_stale(seed: u64) -> Script {
    let headers = vec![("cache-control".to_owned(), "max-age=0".to_owned())];
    Script { headers, ..Script::file(seed, 50_000) }
}

const ASK_EACH_TIME: &str = "[[repository.rule]]\nmatch = \"**\"\nstale_while_revalidate = \"0s\"";

#[tokio::test]
async fn a_stale_file_is_better_than_an_error_of_upstream() {
    let mut errors: Vec<Script> = [401, 403, 429, 500, 503].map(|status| Script::status(status, &[])).into();
    errors.push(Script::raw("SSH-2.0-OpenSSH_9.9\r\n\r\n"));
    errors.push(Script { framing: Framing::Close, etag: None, ..Script::file(23, 100) });
    for error in errors {
        let (origins, node) = scene_with([always_stale(22)], ASK_EACH_TIME).await;
        assert_whole(&node.get(PATH, &[]).await, 22, 50_000);
        eventually("the fill is over", async || node.fills().await == 0).await;
        origins[0].set(PATH, error.clone());
        let answer = node.get(PATH, &[]).await;
        assert_whole(&answer, 22, 50_000);
        assert_eq!(origins[0].counts(PATH).requests, 2, "{error:?}");
        let status = answer.header("cache-status").unwrap();
        assert!(status.contains("detail=upstream-"), "{status}");
    }
}

#[tokio::test]
async fn a_file_that_is_gone_upstream_is_gone() {
    for status in [404, 410] {
        let (origins, node) = scene_with([always_stale(22)], ASK_EACH_TIME).await;
        assert_whole(&node.get(PATH, &[]).await, 22, 50_000);
        eventually("the fill is over", async || node.fills().await == 0).await;
        origins[0].set(PATH, Script::status(status, &[]));
        let answer = node.get(PATH, &[]).await;
        assert_eq!((answer.status, answer.end), (status, End::Complete));
    }
}

#[tokio::test]
async fn a_stale_file_is_served_while_nobody_can_be_asked() {
    let (mut origins, node) = scene_with([always_stale(22)], ASK_EACH_TIME).await;
    assert_whole(&node.get(PATH, &[]).await, 22, 50_000);
    eventually("the fill is over", async || node.fills().await == 0).await;
    drop(origins.pop());
    for _ in 0..5 {
        assert_whole(&node.get(PATH, &[]).await, 22, 50_000);
    }
    assert_eq!(node.get("/other", &[]).await.status, 504);
}

#[tokio::test]
async fn not_found_is_believed_only_when_nobody_has_it() {
    let (origins, node) = scene([Script::status(404, &[]), Script::file(23, 60_000)]).await;
    assert_whole(&node.get(PATH, &[]).await, 23, 60_000);
    let answer = node.get("/nowhere", &[]).await;
    assert_eq!((answer.status, answer.end), (404, End::Complete));
    assert_eq!(node.get("/nowhere", &[]).await.status, 404);
    for origin in &origins {
        assert_eq!(origin.counts("/nowhere").requests, 1, "it is remembered for a while");
    }
}

#[tokio::test]
async fn when_nobody_answers_agents_hear_so_at_once() {
    let node = Home::new().start(&Plan::upstreams(&[&nobody().await, &nobody().await])).await;
    // The first ones find out …
    for number in 0..3 {
        let answer = node.get(&format!("/{number}"), &[]).await;
        assert_eq!((answer.status, answer.end), (504, End::Complete));
    }
    // … and then nobody is asked any more.
    for number in 3..30 {
        let begun = Instant::now();
        let answer = node.get(&format!("/{number}"), &[]).await;
        assert_eq!(answer.status, 504);
        assert!(answer.header("retry-after").is_some());
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
}

#[tokio::test]
async fn an_upstream_that_is_back_is_used_again() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let node = Home::new().start(&Plan::upstreams(&[&format!("http://{address}/")])).await;
    for number in 0..3 {
        assert_eq!(node.get(&format!("/{number}"), &[]).await.status, 504);
    }
    let origin = Origin::start_at(address).await;
    origin.set(PATH, Script::file(24, 10_000));
    eventually("it is asked again", async || node.get(PATH, &[]).await.status == 200).await;
}

// Redirects.

#[tokio::test]
async fn a_redirect_on_the_upstreams_own_host_is_followed() {
    let (origins, node) = scene([Script::redirect("/elsewhere.zip")]).await;
    origins[0].set("/elsewhere.zip", Script::file(25, 30_000));
    assert_whole(&node.get(PATH, &[]).await, 25, 30_000);
    assert_whole(&node.get(PATH, &[]).await, 25, 30_000);
    assert_eq!(origins[0].counts("/elsewhere.zip").requests, 1, "stored under the name that was asked for");
}

#[tokio::test]
async fn a_redirect_to_another_host_is_followed_only_where_it_is_listed() {
    let elsewhere = Origin::start().await;
    elsewhere.set("/x", Script::file(26, 30_000));
    let redirect = Script::redirect(&format!("{}x", elsewhere.url()));
    let (_origins, node) = scene([redirect.clone()]).await;
    let answer = node.get(PATH, &[]).await;
    assert!(answer.status >= 500 && answer.header("location").is_none(), "{answer:?}");
    assert_eq!(elsewhere.connections(), 0, "nobody was led there");

    let listed = format!("redirect_hosts = [\"{}\"]", elsewhere.authority());
    let (_origins, node) = scene_with([redirect], &listed).await;
    assert_whole(&node.get(PATH, &[]).await, 26, 30_000);
}

#[tokio::test]
async fn redirects_without_end_end() {
    let (origins, node) = scene([Script::redirect(PATH), Script::file(27, 10_000)]).await;
    assert_whole(&node.get(PATH, &[]).await, 27, 10_000);
    assert!(origins[0].counts(PATH).requests <= 5);
}

#[tokio::test]
async fn a_redirect_from_https_to_http_is_refused() {
    let home = Home::new();
    let issued = home.authority().server(&["127.0.0.1"]);
    let secure = Origin::start_tls(&issued, None).await;
    let plain = Origin::start().await;
    plain.set("/x", Script::file(28, 1_000));
    secure.set(PATH, Script::redirect(&format!("{}x", plain.url())));
    secure.set("/good", Script::file(29, 1_000));
    let listed = format!("redirect_hosts = [\"{}\"]", plain.authority());
    let node = home.start(&Plan::upstreams(&[&secure.url()]).with(&listed)).await;
    assert_whole(&node.get("/good", &[]).await, 29, 1_000);
    assert!(node.get(PATH, &[]).await.status >= 500);
    assert_eq!(plain.connections(), 0);
}

// Lies.

#[tokio::test]
async fn a_body_that_only_ends_by_closing_is_never_taken_for_the_whole() {
    let unframed = Script { framing: Framing::Close, ..Script::file(30, 30_000) };
    let (_origins, node) = scene([unframed.clone()]).await;
    let answer = node.get(PATH, &[]).await;
    assert_eq!((answer.status, answer.end), (502, End::Complete));
    assert_nothing_stored(&node).await;

    let (_origins, node) = scene([unframed, Script::file(31, 30_000)]).await;
    assert_whole(&node.get(PATH, &[]).await, 31, 30_000);
}

fn canned(case: &ReplyCase) -> Script {
    let raw = Raw { bytes: Bytes::from(case.bytes.clone()), close: case.close, later: None };
    Script { raw: Some(raw), ..Script::default() }
}

fn plain_cases() -> Vec<ReplyCase> {
    corpus::replies().into_iter().filter(|case| matches!(case.asked, Question::Plain)).collect()
}

#[tokio::test]
async fn nothing_of_a_reply_that_lies_is_stored_or_served_as_complete() {
    for case in plain_cases() {
        let (_origins, node) = scene([canned(&case)]).await;
        let answer = node.get(PATH, &[]).await;
        let id = case.id;
        match case.outcome {
            ReplyOutcome::Good | ReplyOutcome::OnceOnly => {
                let fits = answer.status == 503 || (answer.status, &answer.body[..]) == (200, b"abc");
                assert!(fits && answer.end == End::Complete, "{id}: {answer:?}");
                continue;
            }
            ReplyOutcome::Body(_) => {
                let visible = answer.status >= 500 || matches!(answer.end, End::Short | End::Reset);
                assert!(visible, "{id}: {answer:?}");
            }
            ReplyOutcome::Lie(_) | ReplyOutcome::NoHead(_) | ReplyOutcome::Unproven => {
                assert!(matches!(answer.status, 502..=504), "{id}: {answer:?}");
                assert_eq!(answer.end, End::Complete, "{id}");
            }
        }
        assert_nothing_stored(&node).await;
    }
}

#[tokio::test]
async fn after_a_reply_that_lies_the_next_upstream_is_asked() {
    for case in plain_cases() {
        if matches!(case.outcome, ReplyOutcome::Good | ReplyOutcome::OnceOnly | ReplyOutcome::Body(_)) {
            continue;
        }
        let (origins, node) = scene([canned(&case), Script::file(32, 40_000)]).await;
        assert_whole(&node.get(PATH, &[]).await, 32, 40_000);
        assert_eq!(origins[0].counts(PATH).requests, 1, "{}", case.id);
    }
}

#[tokio::test]
async fn bytes_behind_a_reply_are_never_the_next_reply() {
    for case in plain_cases() {
        if !matches!(case.outcome, ReplyOutcome::OnceOnly) {
            continue;
        }
        let (origins, node) = scene([canned(&case)]).await;
        origins[0].set("/next", Script::file(33, 20_000));
        drop(node.get(PATH, &[]).await);
        for _ in 0..3 {
            let answer = node.get("/next", &[]).await;
            assert!(answer.status == 200, "{}: {answer:?}", case.id);
            assert!(answer.body == content::whole(33, 20_000), "{}", case.id);
        }
    }
}

#[tokio::test]
async fn a_captive_portal_that_answers_every_range_with_its_page_changes_nothing() {
    let length = 2 * MIB;
    let page = Script {
        headers: vec![("content-type".to_owned(), "text/html".to_owned())],
        etag: None,
        ranges: Ranges::Ignore,
        ..Script::file(35, 3_000)
    };
    let first = Script::file(34, length).breaking(MIB + 5, How::Finish, ALWAYS);
    let (_origins, node) = scene([first, page, Script::file(34, length)]).await;
    assert_whole(&node.get(PATH, &[]).await, 34, length);
}

/// One that came while upstream was in back-off was refused, although the file was on its way to another.
#[tokio::test]
async fn a_late_one_joins_a_fill_that_runs_while_its_upstream_is_in_back_off() {
    let gate = Gate::default();
    let hold = Some(Hold { at: Some(MIB), gate: gate.clone() });
    let (origins, node) = scene_with(
        [Script { hold, ..Script::file(77, 2 * MIB) }],
        "first_byte_timeout = \"5m\"\nstall_timeout = \"5m\"",
    )
    .await;
    let [origin] = origins.as_slice() else { unreachable!("one origin") };
    let mut first = node.client().await;
    assert_eq!(first.begin(PATH, &[]).await.unwrap().status, 200);
    first.check(77, 0, MIB).await.unwrap();
    let up = format!("waypost_upstream_up{{upstream=\"{}\"}}", origin.url());
    let mut number = 0;
    eventually("upstream is in back-off", async || {
        number += 1;
        let path = format!("/bad{number}");
        origin.set(&path, Script::status(500, &[]));
        node.get(&path, &[]).await.status >= 500 && node.metric(&up).await == 0
    })
    .await;
    let mut late = node.client().await;
    let head = late.begin(PATH, &[]).await.unwrap();
    assert_eq!(head.status, 200, "{head:?}");
    assert!(head.header("cache-status").is_some_and(|it| it.contains("; collapsed")), "{head:?}");
    late.check(77, 0, MIB).await.unwrap();
    gate.open();
    late.check(77, MIB, MIB).await.unwrap();
    first.check(77, MIB, MIB).await.unwrap();
    assert_eq!(origin.counts(PATH).requests, 1);
}
