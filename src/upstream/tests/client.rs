//! Good and broken bodies, the pool, the deadlines, the options.

use super::*;

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
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn many_at_once_get_their_own_bytes_and_few_connections_are_kept() {
    let origin = Origin::start().await;
    let upstream = Arc::new(upstream(&origin));
    for round in 0..2 {
        let mut fetches = tokio::task::JoinSet::new();
        for seed in 0..50 {
            let path = format!("f{seed}");
            origin.set(&format!("/{path}"), Script::file(seed, 30_000 + seed));
            let upstream = Arc::clone(&upstream);
            fetches.spawn(async move { (seed, fetch(&upstream, &ask(&path)).await.unwrap()) });
        }
        for (seed, body) in fetches.join_all().await {
            assert_eq!(body, content::whole(seed, 30_000 + usize::try_from(seed).unwrap()), "{round} {seed}");
        }
    }
    assert!((1..=16).contains(&upstream.kept_connections()), "{}", upstream.kept_connections());
}

#[tokio::test]
async fn a_small_body_nobody_wants_does_not_cost_the_connection() {
    let origin = Origin::start().await;
    origin.set("/error", Script { status: 500, ..Script::file(1, 2_000) });
    origin.set("/huge", Script { status: 500, ..Script::file(1, 2_000_000) });
    let upstream = upstream(&origin);
    for _ in 0..3 {
        upstream.fetch(&ask("error")).await.unwrap().discard().await;
    }
    assert_eq!((origin.connections(), upstream.kept_connections()), (1, 1));
    upstream.fetch(&ask("huge")).await.unwrap().discard().await;
    assert_eq!(upstream.kept_connections(), 0);
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
