//! The front door: what bad requests get, and that nothing of any request but its path goes upstream.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use waypost::testkit::client::{Answer, Client, End};
use waypost::testkit::content;
use waypost::testkit::corpus::{Outcome, RequestCase, requests};
use waypost::testkit::http2::Http2;
use waypost::testkit::node::{Home, NAME, Plan, TestNode, eventually};
use waypost::testkit::origin::Origin;
use waypost::testkit::script::Script;

/// As [`scene`], answering to one name alone.
async fn named_scene() -> (Origin, TestNode) {
    let origin = Origin::start().await;
    origin.set("/f", file("max-age=1000"));
    let mut plan = Plan::upstreams(&[&origin.url()]);
    plan.server.push_str("names = [\"localhost\"]\n");
    let node = Home::new().start(&plan).await;
    (origin, node)
}

/// What an inside looks like when it leaks.
const INSIDE: [&str; 9] =
    ["127.0.0.1", "/tmp", "src/", ".rs", "hyper", "panick", "Error", "error:", "waypost/"];

/// An origin with `/f`, and a node with it at `/`.
async fn scene() -> (Origin, TestNode) {
    scene_with("").await
}

async fn scene_with(lines: &str) -> (Origin, TestNode) {
    let origin = Origin::start().await;
    origin.set("/f", file("max-age=1000"));
    let node = Home::new().start(&Plan::upstreams(&[&origin.url()]).with(lines)).await;
    (origin, node)
}

fn file(cache_control: &str) -> Script {
    Script { headers: vec![("cache-control".to_owned(), cache_control.to_owned())], ..Script::file(1, 1_000) }
}

/// Error answers are short and plain and say nothing about the inside.
fn check_plain(answer: &Answer, what: &str) {
    assert!((400..600).contains(&answer.status), "{what}: {}", answer.status);
    assert!(answer.body.len() <= 100, "{what}: {:?}", answer.body);
    let text = String::from_utf8_lossy(&answer.body);
    assert!(text.is_empty() || text.ends_with('\n'), "{what}: {text:?}");
    for word in INSIDE {
        assert!(!text.contains(word), "{what}: {text:?}");
        for (name, value) in &answer.headers {
            assert!(!value.contains(word), "{what}: {name}: {value}");
        }
    }
    assert!(answer.header("server").is_none(), "{what}");
}

/// What came of raw bytes: the outcome, checked for shape.
async fn outcome(client: &mut Client, case: &RequestCase) -> Outcome {
    match client.read_answer("GET").await {
        Err(_) => Outcome::Silence,
        Ok(answer) => {
            check_plain(&answer, case.id);
            assert_eq!(answer.end, End::Complete, "{}", case.id);
            let stays = answer.header("connection").is_none_or(|it| !it.eq_ignore_ascii_case("close"));
            if answer.status == 405 && stays {
                assert_eq!(answer.header("allow"), Some("GET, HEAD"), "{}", case.id);
                return Outcome::Status(answer.status);
            }
            if stays { Outcome::Status(answer.status) } else { Outcome::Close(answer.status) }
        }
    }
}

async fn check_case(client: Client, case: &RequestCase, pieces: &[&[u8]]) {
    let mut client = client.patient(Duration::from_secs(5));
    for piece in pieces {
        if client.send(piece).await.is_err() {
            break;
        }
        // A piece of its own, if anything on the way can still tell.
        tokio::task::yield_now().await;
    }
    let outcome = outcome(&mut client, case).await;
    assert!(case.allowed.contains(&outcome), "{}: {outcome:?}, allowed: {:?}", case.id, case.allowed);
    if !matches!(outcome, Outcome::Status(_)) {
        assert!(client.closes().await, "{}: stays open or says more", case.id);
    }
}

/// A panic in a task of the node ends only that task; here it ends the test.
fn watch_for_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICKED.store(true, Ordering::Relaxed);
        before(panic);
    }));
}

static PANICKED: AtomicBool = AtomicBool::new(false);

async fn check_untouched(origin: &Origin, node: &TestNode) {
    assert!(!PANICKED.load(Ordering::Relaxed), "something panicked");
    assert_eq!(origin.heads(), Vec::<String>::new(), "something went upstream");
    let answer = node.tls_client().await.get("/f", &[]).await.unwrap();
    assert_eq!((answer.status, answer.body), (200, content::whole(1, 1_000)));
    assert_eq!(origin.heads().len(), 1);
}

#[tokio::test]
async fn requests_no_honest_agent_sends_have_no_effect() {
    watch_for_panics();
    let (origin, node) = named_scene().await;
    for case in requests() {
        check_case(node.client().await, &case, &[&case.bytes]).await;
        check_case(node.tls_client().await, &case, &[&case.bytes]).await;
    }
    check_untouched(&origin, &node).await;
}

#[tokio::test]
async fn they_have_none_in_pieces_either() {
    watch_for_panics();
    let (origin, node) = named_scene().await;
    for case in requests() {
        let len = case.bytes.len();
        let line = case.bytes.windows(2).position(|at| at == b"\r\n").unwrap_or(1);
        for at in BTreeSet::from([1, line.max(1), line + 1, len / 2, len - 1]) {
            let (one, other) = case.bytes.split_at(at.min(len));
            check_case(node.client().await, &case, &[one, other]).await;
        }
        let (one, rest) = case.bytes.split_at(len / 3);
        let (two, three) = rest.split_at(rest.len() / 2);
        check_case(node.tls_client().await, &case, &[one, two, three]).await;
    }
    check_untouched(&origin, &node).await;
}

#[tokio::test]
async fn a_byte_at_a_time_is_a_request_too() {
    let (_origin, node) = scene().await;
    let mut client = node.tls_client().await;
    for byte in b"GET /f HTTP/1.1\r\nHost: localhost\r\n\r\n" {
        client.send(&[*byte]).await.unwrap();
    }
    assert_eq!(client.read_answer("GET").await.unwrap().body, content::whole(1, 1_000));
}

#[tokio::test]
async fn what_follows_a_refused_body_is_never_a_request() {
    let (origin, node) = scene().await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for head in [
        format!("Content-Length: {}\r\n\r\n", smuggled.len()),
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "Expect: 100-continue\r\nContent-Length: 4\r\n\r\nabcd".to_owned(),
        "Transfer-Encoding: xchunked\r\n\r\n".to_owned(),
    ] {
        for method in ["GET", "HEAD", "POST", "PUT"] {
            let mut client = node.client().await;
            let bytes = format!("{method} /f HTTP/1.1\r\nHost: localhost\r\n{head}{smuggled}");
            client.send(bytes.as_bytes()).await.unwrap();
            if let Ok(answer) = client.read_answer(method).await {
                assert!((400..500).contains(&answer.status), "{method} {head:?}: {}", answer.status);
            }
            assert!(client.closes().await, "{method} {head:?}: a second answer");
        }
    }
    check_untouched(&origin, &node).await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (origin, node) = scene().await;
    let mut client = node.client().await;
    let mut bytes = Vec::new();
    for number in 0..50 {
        let range = format!("GET /f HTTP/1.1\r\nHost: localhost\r\nRange: bytes={number}-{number}\r\n\r\n");
        bytes.extend_from_slice(range.as_bytes());
    }
    client.send(&bytes).await.unwrap();
    for number in 0..50_u64 {
        let answer = client.read_answer("GET").await.unwrap();
        assert_eq!((answer.status, answer.body), (206, content::piece(1, number, 1)));
    }
    assert_eq!(origin.counts("/f").requests, 1);
}

#[tokio::test]
async fn over_http2_the_same_is_refused() {
    watch_for_panics();
    let (origin, node) = scene().await;
    let authority = format!("localhost:{}", node.tls.port());
    let mut agent = Http2::connect(node.tls, NAME, node.home().authority()).await.unwrap();
    let targets = [
        "/a/../../x",
        "/a/./b",
        "//host/x",
        "/a//b",
        "/a/%2e%2e%2fx",
        "/a/%2e%2E/x",
        "/a/.%2e/x",
        "/a%2fb",
        "/a%5cb",
        "/a%00b",
        "/a%252e%252e/b",
        "/a%c0%ae/b",
        "/a%ff/b",
        "/a%zz",
        "/a%4",
        "/a%0d%0aX:b",
        "/f?x=1",
        "/f?",
    ];
    for target in targets {
        let answer = agent.request("GET", target, &[]).await.unwrap();
        check_plain(&answer, target);
        assert_eq!((answer.status, answer.end), (400, End::Complete), "{target}");
        let head = agent.request("HEAD", target, &[]).await.unwrap();
        assert_eq!((head.status, head.body.len(), head.end), (400, 0, End::Complete), "{target}");
    }
    for method in ["POST", "PUT", "DELETE", "PURGE", "get", "OPTIONS", "TRACE", "PATCH"] {
        let answer = agent.request(method, "/f", &[]).await.unwrap();
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
        check_plain(&answer, method);
    }
    for (headers, status) in [
        (vec![("expect", "100-continue")], 417),
        (vec![("content-length", "00")], 400),
        (vec![("host", "evil.example")], 400),
        (vec![("host", "a/b@c")], 400),
        (vec![("x", &*"a".repeat(60_000))], 431),
    ] {
        // hyper or h2 may refuse it before we do: by resetting the stream.
        if let Ok(answer) = agent.request("GET", "/f", &headers).await {
            assert_eq!(answer.status, status, "{:?}", headers.iter().map(|it| it.0).collect::<Vec<_>>());
            check_plain(&answer, "head");
        }
    }
    let long = format!("/{}", "a".repeat(5_000));
    assert_eq!(agent.request("GET", &long, &[]).await.unwrap().status, 414);
    let many: Vec<_> = (0..100).map(|number| format!("x{number}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "1")).collect();
    assert_eq!(agent.request("GET", "/f", &many).await.map_or(431, |answer| answer.status), 431);
    for (method, uri, body) in [
        ("GET", format!("https://{authority}/f"), "abc"),
        ("HEAD", format!("https://{authority}/f"), "abc"),
        ("POST", format!("https://{authority}/f"), "abc"),
        ("GET", "https://evil.example/f".to_owned(), ""),
        ("GET", "http://169.254.169.254/latest/meta-data".to_owned(), ""),
        ("GET", "ftp://localhost/f".to_owned(), ""),
    ] {
        let mut agent = Http2::connect(node.tls, NAME, node.home().authority()).await.unwrap();
        let request = http::Request::builder().method(method).uri(&uri);
        let request = request.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap();
        let answer = agent.send(request).await;
        assert!(answer.is_ok() || body.is_empty(), "{method} {uri}: {answer:?}");
        if let Ok(answer) = answer {
            let expected: &[u16] = if method == "POST" { &[405] } else { &[400, 421] };
            assert!(expected.contains(&answer.status), "{method} {uri}: {}", answer.status);
            check_plain(&answer, &uri);
        }
    }
    let connect = http::Request::connect("127.0.0.1:22").body(Full::default()).unwrap();
    let mut other = Http2::connect(node.tls, NAME, node.home().authority()).await.unwrap();
    assert!(other.send(connect).await.map_or(405, |answer| answer.status) >= 400, "never a tunnel");
    check_untouched(&origin, &node).await;
    // A stream that was refused costs the others nothing.
    let mut agent = Http2::connect(node.tls, NAME, node.home().authority()).await.unwrap();
    assert_eq!(agent.request("GET", "//", &[]).await.unwrap().status, 400);
    assert_eq!(agent.request("GET", "/f", &[]).await.unwrap().body, content::whole(1, 1_000));
}

#[tokio::test]
async fn over_http2_a_refusal_waits_for_the_end_of_the_body_within_bounds() {
    let (origin, node) = scene().await;
    let mut agent = Http2::connect(node.tls, NAME, node.home().authority()).await.unwrap();
    let post = || http::Request::post(format!("https://localhost:{}/f", node.tls.port()));
    let sized = |length| Bytes::from(vec![b'x'; length]);
    for length in [1, 30_000, 64 << 10] {
        for _ in 0..20 {
            let answer = agent.send(post().body(Full::new(sized(length))).unwrap()).await.unwrap();
            assert_eq!((answer.status, answer.end), (405, End::Complete), "{length}");
            check_plain(&answer, "POST");
        }
    }
    // Longer ones may see their stream reset, and those that never end are answered nevertheless.
    for length in [300_000, 3_000_000] {
        let answer = agent.send(post().body(Full::new(sized(length))).unwrap()).await;
        assert_eq!(answer.map_or(405, |answer| answer.status), 405, "{length}");
    }
    for length in [0, 100] {
        let answer = agent.send_unended(post().body(sized(length)).unwrap()).await.unwrap();
        assert_eq!((answer.status, answer.body.is_empty()), (405, false), "{length}");
    }
    assert_eq!(agent.request("GET", "/f", &[]).await.unwrap().status, 200, "the others do not notice");
    assert_eq!(origin.counts("/f").requests, 1);
}

#[tokio::test]
async fn the_host_must_be_the_one_of_the_connection_and_one_of_ours() {
    let origin = Origin::start().await;
    origin.set("/f", Script::file(1, 1_000));
    let mut plan = Plan::upstreams(&[&origin.url()]);
    plan.server.push_str("names = [\"localhost\", \"files.example\"]\n");
    let node = Home::new().start(&plan).await;
    for (host, plain, secure) in [
        ("localhost", 200, 200),
        ("LOCALHOST:8443", 200, 200),
        ("localhost.", 200, 200),
        ("files.example", 200, 421),
        ("evil.example", 421, 421),
        ("127.0.0.1", 421, 421),
        ("localhost.evil.example", 421, 421),
        ("localhost@evil.example", 400, 400),
        ("localhost:8443:1", 400, 400),
        ("", 400, 400),
    ] {
        let answer = node.client().await.get("/f", &[("host", host)]).await.unwrap();
        assert_eq!(answer.status, plain, "{host}");
        let answer = node.tls_client().await.get("/f", &[("host", host)]).await.unwrap();
        assert_eq!(answer.status, secure, "{host} over TLS");
    }
}

#[tokio::test]
async fn absolute_form_is_understood_where_it_names_this_host() {
    let (_origin, node) = scene().await;
    for (target, host, status) in [
        ("http://localhost/f", "localhost", 200),
        ("http://LOCALHOST:80/f", "localhost", 200),
        ("https://localhost/f", "localhost:443", 200),
        ("http://localhost/f", "localhost:8080", 400),
        ("http://evil.example/f", "localhost", 400),
        ("http://localhost", "localhost", 404),
        ("http://user@localhost/f", "localhost", 400),
    ] {
        let answer = node.client().await.get(target, &[("host", host)]).await.unwrap();
        assert_eq!(answer.status, status, "{target} with {host}");
    }
}

/// The heads that reach an origin for a plain agent and for one that says a lot.
async fn heads_of(lines: &str, noise: &[(&str, &str)]) -> Vec<String> {
    let (origin, node) = scene_with(lines).await;
    node.get("/f", noise).await;
    let port = origin.authority();
    origin.heads().iter().map(|head| without_token(&head.replace(&port, "ORIGIN"))).collect()
}

/// Every fill has a random token for finding loops.
fn without_token(head: &str) -> String {
    let lines = head.lines().map(|line| match line.split_once("fill=") {
        Some((before, token)) => {
            assert!(token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit()), "{line}");
            format!("{before}fill=TOKEN")
        }
        None => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\r\n")
}

const NOISE: &[(&str, &str)] = &[
    ("user-agent", "Evil/1.0"),
    ("cookie", "session=1"),
    ("authorization", "Basic c2VjcmV0"),
    ("proxy-authorization", "Basic c2VjcmV0"),
    ("accept", "text/html"),
    ("accept-encoding", "gzip, br"),
    ("accept-language", "de"),
    ("referer", "https://evil.example/"),
    ("origin", "https://evil.example"),
    ("x-forwarded-for", "1.2.3.4"),
    ("x-forwarded-host", "evil.example"),
    ("x-forwarded-proto", "http"),
    ("x-original-url", "/admin"),
    ("x-rewrite-url", "/admin"),
    ("x-http-method-override", "DELETE"),
    ("x-host", "evil.example"),
    ("forwarded", "for=1.2.3.4;host=evil.example"),
    ("via", "1.1 evil"),
    ("range", "bytes=0-9"),
    ("if-none-match", "\"guess\""),
    ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ("if-range", "\"guess\""),
    ("te", "trailers"),
    ("connection", "x-hop, user-agent, via"),
    ("x-hop", "1"),
    ("upgrade", "h2c"),
    ("http2-settings", "AAMAAABkAAQAAP__"),
    ("cache-control", "no-transform, max-age=7"),
    ("pragma", "no-cache"),
    ("cdn-loop", "evil; fill=xyz, waypost; fill=short"),
    ("content-type", "text/plain"),
    ("x-request-id", "mine"),
    ("max-forwards", "0"),
];

#[tokio::test]
async fn nothing_of_an_agents_head_goes_upstream() {
    let plain = heads_of("", &[]).await;
    let noisy = heads_of("", NOISE).await;
    assert_eq!(plain, noisy);
    assert_eq!(plain.len(), 1);
    for lines in ["query = \"drop\"\n", "query = \"key\"\n", "forward_headers = [\"x-channel\"]\n"] {
        assert_eq!(heads_of(lines, NOISE).await, plain, "{lines}");
    }
}

#[tokio::test]
async fn an_agents_conditions_are_ours_to_answer() {
    let (origin, node) = scene().await;
    for (headers, status) in [
        (vec![("if-none-match", "\"v1\"")], 304),
        (vec![("if-none-match", "*")], 304),
        (vec![("if-none-match", "\"a\", W/\"v1\"")], 304),
        (vec![("if-none-match", "\"v2\"")], 200),
        (vec![("if-match", "*")], 200),
        (vec![("if-match", "W/\"v1\"")], 412),
        (vec![("if-match", "\"v2\"")], 412),
    ] {
        for state in ["cold or warm", "warm"] {
            let mut client = node.client().await;
            let answer = client.get("/f", &headers).await.unwrap();
            assert_eq!(answer.status, status, "{headers:?}, {state}");
            if status == 304 {
                assert_eq!((answer.header("etag"), answer.header("content-length")), (Some("\"v1\""), None));
                assert_eq!(answer.header("cache-control"), Some("max-age=1000"));
            }
            if status == 412 {
                assert_eq!((answer.header("content-length"), answer.header("etag")), (Some("0"), None));
            }
            assert_eq!(client.get("/f", &[]).await.unwrap().body.len(), 1_000, "in step after {status}");
        }
    }
    assert_eq!(origin.counts("/f").requests, 1);
}

#[tokio::test]
async fn head_never_has_a_body_whatever_the_answer() {
    let (_origin, node) = scene().await;
    let mut http2 = Http2::connect(node.tls, NAME, node.home().authority()).await.unwrap();
    let mut http1 = node.client().await;
    for (path, headers, status) in [
        ("/f", vec![], 200),
        ("/f", vec![("if-none-match", "\"v1\"")], 304),
        ("/f", vec![("if-match", "\"v2\"")], 412),
        ("/missing", vec![], 404),
        ("/missing", vec![("range", "bytes=0-1")], 404),
        ("/f?x=1", vec![], 400),
        ("/other", vec![("cache-control", "only-if-cached")], 504),
    ] {
        for _ in 0..2 {
            let answer = http2.request("HEAD", path, &headers).await.unwrap();
            assert_eq!(
                (answer.status, answer.body.len(), answer.end),
                (status, 0, End::Complete),
                "{path} over h2"
            );
            let answer = http1.request("HEAD", path, &headers).await.unwrap();
            assert_eq!(answer.status, status, "{path}");
            // A body would be taken for the head of this answer.
            assert_eq!(http1.get("/f", &[]).await.unwrap().body.len(), 1_000, "in step after {path}");
        }
    }
}

#[tokio::test]
async fn there_is_no_way_to_another_host() {
    let (origin, node) = scene().await;
    let victim = Origin::start().await;
    victim.set("/", Script::file(9, 10));
    victim.set("/f", Script::file(9, 10));
    let authority = victim.authority();
    for (target, host) in [
        (format!("http://{authority}/f"), authority.clone()),
        (format!("/http://{authority}/f"), "localhost".to_owned()),
        (format!("//{authority}/f"), "localhost".to_owned()),
        (format!("/@{authority}/f"), "localhost".to_owned()),
        ("/f".to_owned(), authority.clone()),
        (format!("/f#@{authority}/"), "localhost".to_owned()),
    ] {
        if let Ok(answer) = node.client().await.get(&target, &[("host", &host)]).await {
            assert!(answer.status != 200 || answer.body == content::whole(1, 1_000), "{target} as {host}");
        }
    }
    let mut client = node.client().await;
    let connect = client.request("CONNECT", &authority, &[("host", &authority)]).await.unwrap();
    assert!((400..500).contains(&connect.status));
    assert!(client.closes().await);
    // It closed in order, with this side still open, and not because its time for that was over.
    assert!(node.admin("/v1/status").await.contains("\"connections\": 1"));
    assert_eq!((victim.connections(), victim.heads().len()), (0, 0));
    assert!(origin.heads().iter().all(|head| head.contains(&origin.authority())));
}

#[tokio::test]
async fn a_path_belongs_to_the_repository_with_the_longest_prefix() {
    let (outer, inner) = (Origin::start().await, Origin::start().await);
    for (origin, seed) in [(&outer, 1), (&inner, 2)] {
        for path in ["/f", "/x/f", "/base/f"] {
            origin.set(path, Script::file(seed, 100));
        }
    }
    let plan = |first: &str| {
        Plan::new(format!(
            "[[repository]]\nname = \"outer\"\npath = \"{first}\"\nupstreams = [\"{}\"]\n\
             [[repository]]\nname = \"inner\"\npath = \"/in/\"\nupstreams = [\"{}base/\"]\n",
            outer.url(),
            inner.url()
        ))
    };
    let node = Home::new().start(&plan("/")).await;
    for (path, seed) in [("/f", 1), ("/in/f", 2), ("/x/f", 1)] {
        assert_eq!(node.get(path, &[]).await.body, content::whole(seed, 100), "{path}");
    }
    assert_eq!(node.get("/inside", &[]).await.status, 404, "no file of the outer one");
    assert_eq!((inner.counts("/base/f").requests, outer.counts("/in/f").requests), (1, 0));
    let node = Home::new().start(&plan("/out/")).await;
    for path in ["/", "/f", "/other/f", "/outer/f", "/out", "/IN/f"] {
        let answer = node.get(path, &[]).await;
        assert_eq!((answer.status, answer.body.as_ref()), (404, b"not found\n".as_slice()), "{path}");
        check_plain(&answer, path);
    }
    assert_eq!(node.get("/out/f", &[]).await.body, content::whole(1, 100));
}

#[tokio::test]
async fn equal_targets_are_one_file_however_they_are_spelt() {
    let (origin, node) = scene().await;
    origin.set("/a%20b~c", Script::file(3, 100));
    for path in ["/a%20b~c", "/%61%20b%7Ec", "/a%20b%7ec"] {
        assert_eq!(node.get(path, &[]).await.body, content::whole(3, 100), "{path}");
    }
    assert_eq!(origin.counts("/a%20b~c").requests, 1);
}

#[tokio::test]
async fn a_query_is_refused_or_part_of_the_name_or_not_there() {
    let (origin, node) = scene().await;
    let refused = node.get("/f?v=1", &[]).await;
    assert_eq!(refused.status, 400);
    check_plain(&refused, "query");
    assert_eq!(origin.heads().len(), 0);

    let (origin, node) = scene_with("query = \"key\"").await;
    for target in ["/f?v=1", "/f?v=2", "/f", "/f?v=1", "/f?"] {
        assert_eq!(node.get(target, &[]).await.status, 200, "{target}");
    }
    let asked: Vec<_> = origin.heads().iter().map(|it| it.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(asked[..3], ["/f?v=1", "/f?v=2", "/f"]);
    assert!(asked.len() <= 4, "{asked:?}");
    for target in ["/f?a%zz", "/f?%00", "/f?a\\b", "/f?%0d%0a"] {
        let answer = node.get(target, &[]).await;
        let seen = origin.heads().pop().unwrap();
        assert!(
            answer.status == 400 || seen.starts_with(&format!("GET {target} HTTP/1.1\r\n")),
            "{target}: {seen}"
        );
    }

    let (origin, node) = scene_with("query = \"drop\"").await;
    for target in ["/f?v=1", "/f?v=2", "/f"] {
        assert_eq!(node.get(target, &[]).await.status, 200, "{target}");
    }
    assert_eq!(origin.heads().len(), 1);
    assert!(origin.heads().iter().all(|head| head.starts_with("GET /f HTTP/1.1\r\n")));
}

/// A raw upstream that answers every request with the value of its `x-channel`, varying over it.
async fn channels() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut io = BufReader::new(tcp);
                let (mut channel, mut absent) = ("none".to_owned(), false);
                loop {
                    let mut line = String::new();
                    if io.read_line(&mut line).await.unwrap_or(0) == 0 {
                        return;
                    }
                    let lower = line.trim_end().to_ascii_lowercase();
                    if let Some(value) = lower.strip_prefix("x-channel: ") {
                        absent = value == "absent";
                        channel = value.to_owned();
                    }
                    if !lower.is_empty() {
                        continue;
                    }
                    counted.fetch_add(1, Ordering::Relaxed);
                    let body = format!("channel {channel}");
                    let status = if absent { "404 Not Found" } else { "200 OK" };
                    let answer = format!(
                        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nvary: X-Channel\r\nvary: accept-encoding\r\n\
                         cache-control: max-age=1000\r\netag: \"{channel}\"\r\n\r\n{body}",
                        body.len()
                    );
                    if io.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                    (channel, absent) = ("none".to_owned(), false);
                }
            });
        }
    });
    (address, count)
}

#[tokio::test]
async fn there_is_one_variant_for_each_value_and_they_are_never_mixed() {
    let (address, count) = channels().await;
    let plan = Plan::upstreams(&[&format!("http://{address}/")]).with("forward_headers = [\"X-Channel\"]");
    let node = Home::new().start(&plan).await;
    // All at once on a cold name: whoever leads, nobody gets another's.
    let mut agents = tokio::task::JoinSet::new();
    for number in 0..60 {
        let mut client = node.client().await;
        agents.spawn(async move {
            let channel = ["beta", "stable", "nightly"][number % 3];
            (channel, client.get("/f", &[("x-channel", channel)]).await.unwrap())
        });
    }
    while let Some(done) = agents.join_next().await {
        let (channel, answer) = done.unwrap();
        assert_eq!(answer.body, format!("channel {channel}"));
        assert_eq!(answer.header("etag"), Some(format!("\"{channel}\"").as_str()));
        assert!(answer.header("vary").is_some());
    }
    assert_eq!(count.load(Ordering::Relaxed), 3);
    node.settled().await;
    for _ in 0..2 {
        for channel in ["stable", "nightly", "beta"] {
            let answer = node.get("/f", &[("x-channel", channel)]).await;
            assert_eq!(answer.body, format!("channel {channel}"));
            assert!(answer.header("cache-status").unwrap().contains("; hit"));
        }
        assert_eq!(node.get("/f", &[]).await.body, "channel none");
        assert_eq!(
            node.get("/f", &[("x-channel", "beta"), ("x-channel", "x")]).await.body,
            "channel beta, x"
        );
        assert_eq!(node.get("/f", &[("x-channel", "beta\nx")]).await.status, 400, "no head can be broken");
    }
    // The three, none, and the two values in one.
    assert_eq!(count.load(Ordering::Relaxed), 5);
    // Another header of the agent's selects nothing.
    let german = node.get("/f", &[("x-channel", "beta"), ("accept-encoding", "gzip")]).await;
    assert_eq!((german.body.as_ref(), german.status), (b"channel beta".as_slice(), 200));
    assert_eq!(count.load(Ordering::Relaxed), 5);
    let tag = node.get("/f", &[("x-channel", "beta"), ("if-none-match", "\"stable\"")]).await;
    assert_eq!(tag.status, 200, "another variant's tag");
}

#[tokio::test]
async fn one_variant_that_is_not_there_hides_no_other() {
    let (address, count) = channels().await;
    let plan = Plan::upstreams(&[&format!("http://{address}/")]).with("forward_headers = [\"x-channel\"]");
    let node = Home::new().start(&plan).await;
    for _ in 0..2 {
        assert_eq!(node.get("/f", &[("x-channel", "absent")]).await.status, 404);
        node.settled().await;
        assert_eq!(node.get("/f", &[("x-channel", "beta")]).await.body, "channel beta");
        node.settled().await;
        assert_eq!(node.get("/f", &[]).await.body, "channel none");
        node.settled().await;
    }
    assert_eq!(count.load(Ordering::Relaxed), 3, "each of them is remembered");
}

#[tokio::test]
async fn both_versions_of_tls_and_of_http_are_served() {
    let (_origin, node) = scene().await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let tcp = tokio::net::TcpStream::connect(node.tls).await.unwrap();
        let connector = node.home().authority().connector_for(&["http/1.1"], &[version]);
        let tls = connector.connect(NAME.try_into().unwrap(), tcp).await.unwrap();
        assert_eq!(tls.get_ref().1.protocol_version(), Some(version.version));
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
        let answer = Client::over(tls).get("/f", &[]).await.unwrap();
        assert_eq!(answer.body, content::whole(1, 1_000));
    }
    let mut agent = Http2::connect(node.tls, NAME, node.home().authority()).await.unwrap();
    let answer = agent.request("GET", "/f", &[]).await.unwrap();
    assert_eq!(answer.body, content::whole(1, 1_000));
    assert!(answer.header("via").is_some() && answer.header("cache-status").unwrap().contains("; hit"));
    let mut old = node.client().await;
    old.send(b"GET /f HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n").await.unwrap();
    let answer = old.read_answer("GET").await.unwrap();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(old.closes().await);
}

#[tokio::test]
async fn errors_of_upstream_are_told_in_our_own_words() {
    let (origin, node) = scene().await;
    let secret =
        "x-secret: 1\r\nwww-authenticate: Basic realm=inside\r\nserver: Inside/1.0\r\nset-cookie: a=b\r\n";
    for status in
        ["403 F", "404 N", "429 T", "500 I", "502 B", "301 M\r\nlocation: http://inside.example/", "999 X"]
    {
        let raw = format!("HTTP/1.1 {status}\r\n{secret}content-length: 14\r\n\r\ninside secrets");
        let path = format!("/{}", &status[..3]);
        origin.set(&path, Script::raw(raw));
        let answer = node.get(&path, &[]).await;
        check_plain(&answer, status);
        assert!(matches!(answer.status, 404 | 502..=504), "{status}: {}", answer.status);
        let text = format!("{:?} {:?}", answer.headers, answer.body);
        assert!(!text.contains("nside") && !text.contains("secret"), "{status}: {text}");
        assert!(answer.header("via").is_some() && answer.header("x-request-id").is_some());
        assert!(answer.header("cache-status").is_some(), "{status}");
    }
}

/// A connection whose small buffer nobody empties.
async fn lazy(node: &TestNode, path: &str) -> tokio::net::TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.connect(&node.plain.into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let tcp = tokio::net::TcpStream::from_std(socket.into()).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    tcp.writable().await.unwrap();
    assert_eq!(tcp.try_write(request.as_bytes()).unwrap(), request.len());
    tcp.readable().await.unwrap();
    tcp
}

#[tokio::test]
async fn a_reader_that_takes_nothing_holds_up_nobody_and_gets_its_bytes_in_the_end() {
    let (origin, node) = scene().await;
    let len = 24 << 20;
    origin.set("/big", Script::file(7, len as u64));
    // It is the first one, so it is its request that starts the fill.
    let lazy = lazy(&node, "/big").await;
    let mut agents = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let mut client = node.client().await;
        agents.spawn(async move { client.get("/big", &[]).await.unwrap() });
    }
    while let Some(answer) = agents.join_next().await {
        let answer = answer.unwrap();
        assert!(answer.end == End::Complete && answer.body == content::whole(7, len));
    }
    node.settled().await;
    let answer = Client::over(lazy).read_answer("GET").await.unwrap();
    assert!(answer.end == End::Complete && answer.body == content::whole(7, len));
    assert_eq!((origin.counts("/big").requests, origin.counts("/big").body_bytes), (1, len as u64));
}

#[tokio::test]
async fn a_reader_that_takes_nothing_for_too_long_is_cut_visibly() {
    let origin = Origin::start().await;
    origin.set("/big", Script::file(7, 24 << 20));
    let plan = Plan::upstreams(&[&origin.url()]).with_limits("send_timeout = \"1s\"");
    let node = Home::new().start(&plan).await;
    let lazy = lazy(&node, "/big").await;
    eventually("it is cut", async || node.admin("/v1/status").await.contains("\"connections\": 0")).await;
    let answer = Client::over(lazy).read_answer("GET").await.unwrap();
    assert!(matches!(answer.end, End::Short | End::Reset), "{:?}", answer.end);
    assert!(answer.body == content::whole(7, answer.body.len()));
}

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_is_cut() {
    let origin = Origin::start().await;
    let plan = Plan::upstreams(&[&origin.url()]).with_limits("head_timeout = \"1s\"");
    let node = Home::new().start(&plan).await;
    for secure in [false, true] {
        let mut client = if secure { node.tls_client().await } else { node.client().await };
        client.send(b"GET /f HTTP/1.1\r\nHost: localhost\r\nX: ").await.unwrap();
        let answer = client.read_answer("GET").await.unwrap();
        assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
        assert!(client.closes().await);
        // Who has not begun a request gets no answer to none.
        let mut silent = if secure { node.tls_client().await } else { node.client().await };
        assert!(silent.closes().await);
    }
    assert_eq!(origin.heads().len(), 0);
}

/// It was 431 from 16 KiB on: the client looked for the fault in its header fields.
#[tokio::test]
async fn a_target_that_is_too_long_is_told_so_however_long_it_is() {
    let (origin, node) = scene().await;
    for length in [5_000, 9_000, 20_000, 60_000] {
        for secure in [false, true] {
            let mut client = if secure { node.tls_client().await } else { node.client().await };
            // The second request of a connection is measured as the first one is.
            assert_eq!(client.get("/f", &[]).await.unwrap().status, 200);
            let head = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "a".repeat(length));
            // We stop reading at some point: what then cannot be sent is no fault.
            let _ = client.send(head.as_bytes()).await;
            let answer = client.read_answer("GET").await;
            assert!(answer.as_ref().is_ok_and(|answer| answer.status == 414), "{length}: {answer:?}");
        }
    }
    assert_eq!(origin.heads().len(), 1, "the good ones, once");
}
