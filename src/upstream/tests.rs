//! The client against scripted origins: lies, timeouts, redirects, TLS, the pool, the health.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::health::State;
use super::*;
use crate::base::clock::{Clock, Timestamp};
use crate::protocol::reply::{Lie, ReplyKind};
use crate::testkit::content;
use crate::testkit::corpus::{self, Question, ReplyOutcome};
use crate::testkit::origin::Origin;
use crate::testkit::pki::Authority;
use crate::testkit::script::{Framing, Gate, Hold, How, Ranges, Raw, Script};

const SHORT: Duration = Duration::from_millis(300);

fn options(origin: &Origin) -> Options {
    Options { first_byte_timeout: Duration::from_secs(5), ..Options::new(origin.url()) }
}

fn upstream(origin: &Origin) -> Upstream {
    Upstream::new(options(origin), Clock::system()).unwrap()
}

fn ask(path: &str) -> Ask {
    Ask { path: path.to_owned(), ..Ask::default() }
}

fn ask_range(path: &str, start: u64, end: Option<u64>) -> Ask {
    Ask { range: Some(Span { start, end, if_range: None }), ..ask(path) }
}

/// The whole body, or how it broke.
async fn read(reply: &mut Reply) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    while let Some(frame) = reply.frame().await {
        body.extend_from_slice(&frame?);
    }
    Ok(body)
}

async fn fetch(upstream: &Upstream, ask: &Ask) -> Result<Vec<u8>, String> {
    let mut reply = upstream.fetch(ask).await.map_err(|error| error.blame().to_owned())?;
    read(&mut reply).await.map_err(|error| error.blame().to_owned())
}

#[tokio::test]
async fn a_body_comes_whole_and_its_connection_is_used_again() {
    let origin = Origin::start().await;
    origin.set("/base/f", Script::file(7, 300_000));
    origin.set("/base/chunks", Script { framing: Framing::Chunked, ..Script::file(8, 200_000) });
    let upstream = Upstream::new(Options::new(format!("{}base", origin.url())), Clock::system()).unwrap();
    assert_eq!(upstream.name(), format!("{}base/", origin.url()));
    for _ in 0..5 {
        let mut reply = upstream.fetch(&ask("f")).await.unwrap();
        assert_eq!(reply.kind, ReplyKind::Whole { length: Some(300_000), framed: true });
        assert_eq!(reply.headers.get("etag").unwrap(), "\"v1\"");
        assert_eq!(read(&mut reply).await.unwrap(), content::whole(7, 300_000));
        assert_eq!(fetch(&upstream, &ask("chunks")).await.unwrap(), content::whole(8, 200_000));
        assert!(matches!(upstream.fetch(&ask("none")).await.unwrap().kind, ReplyKind::Absent(_)));
    }
    // The 404 was dropped unread each time.
    assert!(origin.connections() <= 6, "{}", origin.connections());
}

#[tokio::test]
async fn parts_conditions_and_what_we_are_go_up() {
    let origin = Origin::start().await;
    origin.set("/f", Script::file(7, 1_000));
    let upstream = upstream(&origin);
    let mut question = ask_range("f", 100, Some(200));
    if let Some(span) = &mut question.range {
        span.if_range = Some(HeaderValue::from_static("\"v1\""));
    }
    let mut reply = upstream.fetch(&question).await.unwrap();
    assert_eq!(reply.kind, ReplyKind::Part { start: 100, end: 200, total: 1_000 });
    assert_eq!(read(&mut reply).await.unwrap(), content::piece(7, 100, 100));
    let mut condition = ask("f");
    condition.headers.insert("if-none-match", HeaderValue::from_static("\"v1\""));
    assert_eq!(upstream.fetch(&condition).await.unwrap().kind, ReplyKind::NotModified);
    let head = origin.heads().concat();
    for line in ["range: bytes=100-199", "if-range: \"v1\"", "accept-encoding: identity", "via: 1.1 waypost"]
    {
        assert!(head.contains(line), "{line} in {head}");
    }
}

/// Every case gets an origin of its own, answered by its bytes; then the path is well-behaved and asked again: what
/// comes must be that file, never the rest of the lie.
#[tokio::test]
async fn every_lie_is_refused_and_leaves_no_connection_behind() {
    for case in corpus::replies() {
        let origin = Origin::start().await;
        origin.set(
            "/f",
            Script {
                raw: Some(Raw { bytes: case.bytes.into(), close: case.close, later: None }),
                ..Script::default()
            },
        );
        let upstream = upstream(&origin);
        let mut question = match case.asked {
            Question::Range => ask_range("f", 10, Some(20)),
            Question::Plain | Question::Conditional => ask("f"),
        };
        if case.asked == Question::Conditional {
            question.headers.insert("if-none-match", HeaderValue::from_static("\"v1\""));
        }
        let outcome = outcome_of(&upstream, &question).await;
        let id = case.id;
        let keeps = match case.outcome {
            ReplyOutcome::Lie(word) | ReplyOutcome::NoHead(word) => {
                assert_eq!(outcome, Err(word.to_owned()), "{id}");
                false
            }
            ReplyOutcome::Body(word) => {
                assert_eq!(outcome, Err(word.to_owned()), "{id}");
                false
            }
            ReplyOutcome::Unproven => {
                assert_eq!(outcome, Ok(false), "{id}");
                false
            }
            ReplyOutcome::OnceOnly => {
                assert_eq!(outcome, Ok(true), "{id}");
                false
            }
            ReplyOutcome::Good => {
                assert_eq!(outcome, Ok(true), "{id}");
                true
            }
        };
        origin.set("/f", Script::file(9, 70_000));
        assert_eq!(fetch(&upstream, &ask("f")).await.unwrap(), content::whole(9, 70_000), "{id}");
        assert_eq!(origin.connections(), if keeps { 1 } else { 2 }, "{id}");
    }
}

/// Whether the body ended proven, or the word of the refusal.
async fn outcome_of(upstream: &Upstream, question: &Ask) -> Result<bool, String> {
    let mut reply = upstream.fetch(question).await.map_err(|error| error.blame().to_owned())?;
    read(&mut reply).await.map_err(|error| error.blame().to_owned())?;
    Ok(reply.kind != ReplyKind::Whole { length: None, framed: false })
}

#[tokio::test]
async fn bytes_that_come_late_behind_a_reply_close_the_idle_connection() {
    let origin = Origin::start().await;
    let gate = Duration::from_millis(50);
    let evil = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    let raw = Raw {
        bytes: "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc".into(),
        close: false,
        later: Some((gate, evil.into())),
    };
    origin.set("/f", Script { raw: Some(raw), ..Script::default() });
    let upstream = upstream(&origin);
    assert_eq!(fetch(&upstream, &ask("f")).await.unwrap(), b"abc");
    assert_eq!(upstream.kept_connections(), 1);
    tokio::time::sleep(gate * 4).await;
    origin.set("/f", Script::file(9, 10));
    assert_eq!(fetch(&upstream, &ask("f")).await.unwrap(), content::whole(9, 10));
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn a_reply_dropped_before_its_end_closes_its_connection() {
    let origin = Origin::start().await;
    let gate = Gate::default();
    let hold = Some(Hold { at: Some(100_000), gate: gate.clone() });
    origin.set("/f", Script { hold, ..Script::file(7, 200_000) });
    let upstream = upstream(&origin);
    let mut reply = upstream.fetch(&ask("f")).await.unwrap();
    assert!(reply.frame().await.unwrap().is_ok());
    drop(reply);
    gate.open();
    assert_eq!(upstream.kept_connections(), 0);
    assert_eq!(fetch(&upstream, &ask("f")).await.unwrap().len(), 200_000);
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn a_kept_connection_that_the_server_closed_is_replaced_without_an_error() {
    let origin = Origin::start().await;
    origin.set(
        "/f",
        Script {
            raw: Some(Raw {
                bytes: "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na".into(),
                close: true,
                later: None,
            }),
            ..Script::default()
        },
    );
    let upstream = upstream(&origin);
    for _ in 0..20 {
        assert_eq!(fetch(&upstream, &ask("f")).await.unwrap(), b"a");
    }
    assert_eq!(upstream.health().failures(), 0);
}

#[tokio::test]
async fn broken_bodies_say_how_they_broke() {
    let origin = Origin::start().await;
    let file = Script::file(7, 100_000);
    origin.set("/short", file.clone().breaking(50_000, How::Finish, usize::MAX));
    origin.set("/reset", file.clone().breaking(50_000, How::Reset, usize::MAX));
    origin.set("/stall", file.clone().breaking(50_000, How::Stall, usize::MAX));
    origin.set("/slow", Script { rate: Some(20_000), ..file.clone() });
    origin.set("/wrong", Script { framing: Framing::WrongLength(100_001), ..file });
    let options = Options { stall_timeout: SHORT, min_rate: 100_000, rate_window: SHORT, ..options(&origin) };
    // A trickle of 16 KiB pieces at 20 kB/s pauses 0.8 s: a stall here, unless that limit is wide.
    let patient = Options { stall_timeout: Duration::from_secs(5), ..options.clone() };
    let upstream = Upstream::new(options, Clock::system()).unwrap();
    for (path, word) in [("short", "short"), ("reset", "reset"), ("stall", "stalled"), ("wrong", "short")] {
        assert_eq!(fetch(&upstream, &ask(path)).await, Err(word.to_owned()), "{path}");
    }
    let patient = Upstream::new(patient, Clock::system()).unwrap();
    assert_eq!(fetch(&patient, &ask("slow")).await, Err("too-slow".to_owned()));
    assert_eq!(upstream.kept_connections() + patient.kept_connections(), 0);
}

#[tokio::test]
async fn broken_off_waits_do_not_put_off_the_stall() {
    let origin = Origin::start().await;
    origin.set("/stall", Script::file(7, 1_000).breaking(10, How::Stall, usize::MAX));
    let upstream =
        Upstream::new(Options { stall_timeout: SHORT, ..options(&origin) }, Clock::system()).unwrap();
    let mut reply = upstream.fetch(&ask("stall")).await.unwrap();
    assert!(reply.frame().await.unwrap().is_ok());
    let mut broken_off = 0;
    let end = loop {
        match tokio::time::timeout(SHORT / 6, reply.frame()).await {
            Err(_) => broken_off += 1,
            Ok(end) => break end,
        }
    };
    assert_eq!(end, Some(Err(BodyError::Stalled(SHORT))));
    assert!((4..=7).contains(&broken_off), "{broken_off}");
    assert_eq!(reply.frame().await, None);
}

#[tokio::test]
async fn a_head_has_one_deadline_whatever_comes_before_it() {
    let origin = Origin::start().await;
    origin.set("/late", Script { delay: SHORT * 20, ..Script::default() });
    origin.set("/hints", Script { hints: (5_000, Duration::from_millis(5)), ..Script::default() });
    origin.set("/few", Script { hints: (3, Duration::ZERO), ..Script::default() });
    let upstream =
        Upstream::new(Options { first_byte_timeout: SHORT, ..options(&origin) }, Clock::system()).unwrap();
    for path in ["late", "hints"] {
        let begun = std::time::Instant::now();
        assert_eq!(fetch(&upstream, &ask(path)).await, Err("first-byte-timeout".to_owned()), "{path}");
        assert!(begun.elapsed() < SHORT * 5);
    }
    assert_eq!(fetch(&upstream, &ask("few")).await.unwrap().len(), 1_000);
}

#[tokio::test]
async fn nobody_there_is_said_at_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let upstream = Upstream::new(Options::new(url), Clock::system()).unwrap();
    let error = upstream.fetch(&ask("f")).await.unwrap_err();
    assert!(matches!(error, FetchError::Connect { .. }) && error.retriable(), "{error}");
    let upstream = Upstream::new(Options::new("http://no.such.invalid/"), Clock::system()).unwrap();
    let error = upstream.fetch(&ask("f")).await.unwrap_err();
    assert_eq!(error.blame(), "resolve");
}

#[tokio::test]
async fn redirects_are_followed_within_the_configured_hosts_only() {
    let (origin, other) = (Origin::start().await, Origin::start().await);
    other.set("/f", Script::file(5, 100));
    origin.set("/f", Script::file(6, 100));
    origin.set("/here", Script::redirect("f"));
    origin.set("/there", Script::redirect(&format!("{}f", other.url())));
    origin.set("/loop", Script::redirect("/loop"));
    origin.set("/metadata", Script::redirect("http://169.254.169.254/latest/"));
    origin.set("/nowhere", Script::redirect("ftp://x/"));
    let strict = upstream(&origin);
    assert_eq!(fetch(&strict, &ask("here")).await.unwrap(), content::whole(6, 100));
    let problem = async |upstream: &Upstream, path: &str| match upstream.fetch(&ask(path)).await {
        Err(FetchError::Redirect { problem, .. }) => problem,
        other => panic!("{path}: {other:?}"),
    };
    assert_eq!(problem(&strict, "there").await, RedirectProblem::Host);
    assert_eq!(problem(&strict, "metadata").await, RedirectProblem::Host);
    assert_eq!(problem(&strict, "nowhere").await, RedirectProblem::Unusable);
    assert_eq!(problem(&strict, "loop").await, RedirectProblem::TooMany);
    assert_eq!(origin.counts("/loop").requests, 4);
    assert_eq!(other.connections(), 0);
    let options = Options { redirect_hosts: vec![other.authority()], ..options(&origin) };
    let open = Upstream::new(options, Clock::system()).unwrap();
    let mut question = ask("there");
    question.headers.insert("authorization", HeaderValue::from_static("secret"));
    assert_eq!(fetch(&open, &question).await.unwrap(), content::whole(5, 100));
    assert!(origin.heads().concat().contains("secret"));
    assert!(!other.heads().concat().contains("secret"));
    assert_eq!(strict.health().failures() + open.health().failures(), 0);
}

#[tokio::test]
async fn a_redirect_never_leaves_tls() {
    let ca = Authority::new("ca");
    let (origin, plain) = (Origin::start_tls(&ca.server(&["127.0.0.1"]), None).await, Origin::start().await);
    plain.set("/f", Script::file(5, 100));
    origin.set("/down", Script::redirect(&format!("{}f", plain.url())));
    let options = Options {
        trust: Trust::Exactly(ca.pem().into_bytes()),
        redirect_hosts: vec![plain.authority()],
        ..options(&origin)
    };
    let upstream = Upstream::new(options, Clock::system()).unwrap();
    let error = upstream.fetch(&ask("down")).await.unwrap_err();
    assert!(matches!(error, FetchError::Redirect { problem: RedirectProblem::Plaintext, .. }), "{error}");
    assert_eq!(plain.connections(), 0);
}

#[tokio::test]
async fn a_private_ca_is_believed_and_every_other_certificate_refused_by_name() {
    let (ca, foreign) = (Authority::new("ca"), Authority::new("foreign"));
    for (certificate, expected) in [
        (ca.server(&["127.0.0.1", "localhost"]), Ok(1_000)),
        (foreign.server(&["127.0.0.1"]), Err("tls-unknown-issuer")),
        (ca.expired(&["127.0.0.1"]), Err("tls-expired")),
        (ca.server(&["other.example"]), Err("tls-wrong-name")),
    ] {
        let origin = Origin::start_tls(&certificate, None).await;
        origin.set("/f", Script::default());
        let trust = Trust::Exactly(ca.pem().into_bytes());
        let upstream = Upstream::new(Options { trust, ..options(&origin) }, Clock::system()).unwrap();
        for _ in 0..2 {
            let got = fetch(&upstream, &ask("f")).await.map(|body| body.len());
            assert_eq!(got, expected.map_err(str::to_owned));
        }
        // TLS connections are kept as well.
        assert_eq!(origin.connections(), if expected.is_ok() { 1 } else { 2 });
        assert_eq!(origin.heads().len(), if expected.is_ok() { 2 } else { 0 });
    }
}

#[tokio::test]
async fn plaintext_where_tls_is_expected_is_refused_without_falling_back() {
    let (ca, origin) = (Authority::new("ca"), Origin::start().await);
    let url = origin.url().replace("http:", "https:");
    let trust = Trust::Exactly(ca.pem().into_bytes());
    let options = Options { trust, connect_timeout: SHORT, ..Options::new(url) };
    let upstream = Upstream::new(options, Clock::system()).unwrap();
    let error = upstream.fetch(&ask("f")).await.unwrap_err();
    assert!(matches!(error, FetchError::Tls { .. }), "{error}");
    assert!(origin.heads().is_empty());
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_it_is_asked_for() {
    let ca = Authority::new("ca");
    let origin = Origin::start_tls(&ca.server(&["127.0.0.1"]), Some(&ca)).await;
    origin.set("/f", Script::default());
    let trust = Trust::Exactly(ca.pem().into_bytes());
    let without = Options { trust, ..options(&origin) };
    let client = ca.client("branch-7");
    let with =
        Options { identity: Some((client.cert.into_bytes(), client.key.into_bytes())), ..without.clone() };
    let upstream = Upstream::new(with, Clock::system()).unwrap();
    assert_eq!(fetch(&upstream, &ask("f")).await.unwrap().len(), 1_000);
    let upstream = Upstream::new(without, Clock::system()).unwrap();
    let error = upstream.fetch(&ask("f")).await.unwrap_err();
    assert_eq!(error.blame(), "tls-refused", "{error}");
}

#[test]
fn what_is_wrong_with_the_options_is_said_when_it_is_made() {
    let make = |options| Upstream::new(options, Clock::system()).map(|upstream| upstream.name().to_owned());
    for url in [
        "",
        "x",
        "/a",
        "ftp://h/",
        "http://",
        "http://u@h/",
        "http://h/?q",
        "http://h/#f",
        "http://h/a//b/",
        "http://h/../",
        "http://h:0/",
        "https://h:70000/",
    ] {
        assert!(matches!(make(Options::new(url)), Err(UpstreamError::Url { .. })), "{url}");
    }
    assert_eq!(make(Options::new("http://H.example:80/a")), Ok("http://h.example/a/".to_owned()));
    assert_eq!(make(Options::new("http://[::1]:8080")), Ok("http://[::1]:8080/".to_owned()));
    let https = Options { trust: Trust::Exactly(b"nothing".to_vec()), ..Options::new("https://h/") };
    assert!(matches!(make(https), Err(UpstreamError::Trust { .. })));
    let trust = Trust::Exactly(Authority::new("ca").pem().into_bytes());
    let identity = Some((b"x".to_vec(), b"y".to_vec()));
    let https = Options { trust, identity, ..Options::new("https://h/") };
    assert!(matches!(make(https), Err(UpstreamError::Identity { .. })));
    let node = Options { node: "a b\r\n".to_owned(), ..Options::new("http://h/") };
    assert!(matches!(make(node), Err(UpstreamError::Node(_))));
}

#[tokio::test]
async fn places_are_limited_and_given_back() {
    let upstream =
        Upstream::new(Options { concurrent: 2, ..Options::new("http://h/") }, Clock::system()).unwrap();
    let (first, _second) = (upstream.acquire().await.unwrap(), upstream.acquire().await.unwrap());
    assert_eq!(upstream.try_acquire().err(), Some(FetchError::Overloaded));
    drop(first);
    assert!(upstream.try_acquire().is_ok());
}

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

#[tokio::test]
async fn a_mirror_that_ignores_if_range_is_told_by_its_part() {
    let origin = Origin::start().await;
    let becomes = Some((1, "\"v2\"".to_owned(), 99));
    origin.set("/f", Script { becomes, ranges: Ranges::IgnoreCondition, ..Script::file(7, 1_000) });
    let upstream = upstream(&origin);
    assert_eq!(fetch(&upstream, &ask("f")).await.unwrap(), content::whole(7, 1_000));
    let mut question = ask_range("f", 500, None);
    if let Some(span) = &mut question.range {
        span.if_range = Some(HeaderValue::from_static("\"v1\""));
    }
    // The gate cannot know whose bytes these are; the fill compares the ETag and the overlap.
    let mut reply = upstream.fetch(&question).await.unwrap();
    assert_eq!(reply.headers.get("etag").unwrap(), "\"v2\"");
    assert_eq!(read(&mut reply).await.unwrap(), content::piece(99, 500, 500));
    for (ranges, lie) in [
        (Ranges::Shifted(5), Lie::PartElsewhere),
        (Ranges::UnknownTotal, Lie::PartUnclear),
        (Ranges::Unplaced, Lie::PartUnclear),
    ] {
        origin.set("/f", Script { ranges, ..Script::file(7, 1_000) });
        let error = upstream.fetch(&ask_range("f", 500, None)).await.unwrap_err();
        assert_eq!(error, FetchError::Lie(lie), "{ranges:?}");
    }
}
