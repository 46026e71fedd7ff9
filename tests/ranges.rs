//! Ranges as agents see them: of stored files, of files that are arriving, and after a restart.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on ends here")]

use std::ops::Range;

use waypost::testkit::client::{Answer, Client, End};
use waypost::testkit::content;
use waypost::testkit::http2::Http2;
use waypost::testkit::node::{Home, NAME, Plan, TestNode, eventually};
use waypost::testkit::origin::Origin;
use waypost::testkit::script::{Framing, Gate, Hold, Ranges, Script};

const SEED: u64 = 11;
const MIB: u64 = 1 << 20;

/// An origin with `/f` of `length` bytes, and a node in front of it.
async fn node_of(script: Script) -> (Origin, TestNode) {
    let origin = Origin::start().await;
    origin.set("/f", script);
    let node = Home::new().start(&Plan::upstreams(&[&origin.url()])).await;
    (origin, node)
}

/// An origin whose `/f` stops at byte `at` until the gate opens.
async fn held(length: u64, at: u64) -> (Origin, TestNode, Gate) {
    let gate = Gate::default();
    let hold = Some(Hold { at: Some(at), gate: gate.clone() });
    let (origin, node) = node_of(Script { hold, ..Script::file(SEED, length) }).await;
    (origin, node, gate)
}

/// Asks for the whole file and leaves it running; polls until `at` bytes have come to the node.
async fn begin(node: &TestNode, at: u64) -> tokio::task::JoinHandle<Answer> {
    let mut client = node.client().await;
    let whole = tokio::spawn(async move { client.get("/f", &[]).await.unwrap() });
    eventually("the fill is on its way", async || arrived(node).await >= Some(at)).await;
    whole
}

/// Bytes that the running fill has, by the operator's word.
async fn arrived(node: &TestNode) -> Option<u64> {
    let status = node.admin("/v1/status").await;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
    status["fills"][0]["bytes"].as_u64()
}

fn check_part(answer: &Answer, range: Range<u64>, total: u64) {
    assert_eq!((answer.status, answer.end), (206, End::Complete), "{range:?}");
    let place = format!("bytes {}-{}/{total}", range.start, range.end - 1);
    assert_eq!(answer.header("content-range"), Some(place.as_str()));
    let len = (range.end - range.start) as usize;
    assert_eq!(answer.header("content-length"), Some(len.to_string().as_str()));
    assert!(answer.body == content::piece(SEED, range.start, len), "wrong bytes for {range:?}");
}

fn check_whole(answer: &Answer, total: u64) {
    assert_eq!((answer.status, answer.end), (200, End::Complete));
    assert_eq!(answer.header("content-range"), None);
    assert!(answer.body == content::whole(SEED, total as usize), "wrong bytes for the whole");
}

/// Takes a multipart/byteranges body to pieces: the `Content-Range` and the bytes of each part.
fn parts_of(answer: &Answer) -> Vec<(String, Vec<u8>)> {
    let media = answer.header("content-type").unwrap();
    let boundary = media.strip_prefix("multipart/byteranges; boundary=").unwrap().trim_matches('"');
    let body = answer.body.as_ref();
    let find = |from: usize, what: &str| {
        body[from..].windows(what.len()).position(|at| at == what.as_bytes()).map(|at| at + from)
    };
    let delimiter = format!("--{boundary}");
    let mut parts = Vec::new();
    let mut at = find(0, &delimiter).unwrap() + delimiter.len();
    while !body[at..].starts_with(b"--") {
        let head_end = find(at, "\r\n\r\n").unwrap();
        let head = std::str::from_utf8(&body[at..head_end]).unwrap().to_ascii_lowercase();
        let place = head.lines().find_map(|line| line.strip_prefix("content-range: ")).unwrap().to_owned();
        let next = find(head_end, &format!("\r\n{delimiter}")).unwrap();
        parts.push((place, body[head_end + 4..next].to_vec()));
        at = next + 2 + delimiter.len();
    }
    parts
}

fn check_parts(answer: &Answer, ranges: &[Range<u64>], total: u64) {
    assert_eq!((answer.status, answer.end), (206, End::Complete));
    assert_eq!(answer.header("content-range"), None, "that is the parts' to say");
    let parts = parts_of(answer);
    assert_eq!(parts.len(), ranges.len());
    for ((place, bytes), range) in parts.iter().zip(ranges) {
        assert_eq!(*place, format!("bytes {}-{}/{total}", range.start, range.end - 1));
        assert!(*bytes == content::piece(SEED, range.start, (range.end - range.start) as usize), "{range:?}");
    }
}

#[tokio::test]
async fn a_stored_file_is_served_in_any_part() {
    for length in [1_000, 16 << 10, 2 * MIB + 5] {
        let (origin, node) = node_of(Script::file(SEED, length)).await;
        check_whole(&node.get("/f", &[]).await, length);
        let mut client = node.client().await;
        let middle = length / 2;
        for (asked, range) in [
            ("bytes=0-0".to_owned(), 0..1),
            ("bytes=0-".to_owned(), 0..length),
            (format!("bytes={middle}-{}", middle + 9), middle..middle + 10),
            (format!("bytes={}-", length - 1), length - 1..length),
            ("bytes=-7".to_owned(), length - 7..length),
            ("bytes=-99999999999999999999999".to_owned(), 0..length),
            (format!("bytes=5-{}", u64::MAX), 5..length),
            ("BYTES= 007-8 ,".to_owned(), 7..9),
            (format!("bytes={}-{}, 1-2", length, length + 5), 1..3),
        ] {
            check_part(&client.get("/f", &[("range", &asked)]).await.unwrap(), range, length);
        }
        assert_eq!(origin.counts("/f").requests, 1);
    }
}

#[tokio::test]
async fn what_is_no_range_gets_the_whole() {
    let (_origin, node) = node_of(Script::file(SEED, 1_000)).await;
    check_whole(&node.get("/f", &[]).await, 1_000);
    let mut client = node.client().await;
    for asked in [
        "bytes",
        "bytes=",
        "bytes=a-b",
        "bytes=9-3",
        "items=0-1",
        "bytes=0-1;2-3",
        "bytes=-",
        "=0-1",
        "bytes 0-1",
    ] {
        check_whole(&client.get("/f", &[("range", asked)]).await.unwrap(), 1_000);
    }
    check_whole(&client.get("/f", &[("range", "bytes=0-1"), ("range", "bytes=4-5")]).await.unwrap(), 1_000);
}

#[tokio::test]
async fn a_range_behind_the_end_is_416_and_says_how_long_the_file_is() {
    let (_origin, node) = node_of(Script::file(SEED, 1_000)).await;
    let mut client = node.client().await;
    for asked in ["bytes=1000-", "bytes=1000-2000", "bytes=-0", "bytes=99999999999999999999-"] {
        let answer = client.get("/f", &[("range", asked)]).await.unwrap();
        assert_eq!((answer.status, answer.end), (416, End::Complete), "{asked}");
        assert_eq!(answer.header("content-range"), Some("bytes */1000"));
        assert!(answer.body.is_empty());
        assert_eq!((answer.header("etag"), answer.header("repr-digest")), (None, None));
    }
    check_part(&client.get("/f", &[("range", "bytes=-1")]).await.unwrap(), 999..1_000, 1_000);
}

#[tokio::test]
async fn several_ranges_come_in_one_frame_merged_and_in_order() {
    let length = 2 * MIB + 5;
    let (_origin, node) = node_of(Script {
        headers: vec![("content-type".to_owned(), "application/zip".to_owned())],
        ..Script::file(SEED, length)
    })
    .await;
    check_whole(&node.get("/f", &[]).await, length);
    let mut client = node.client().await;
    for (asked, ranges) in [
        ("bytes=0-0,-1".to_owned(), vec![0..1, length - 1..length]),
        ("bytes=500-599,0-9,550-699,10-19".to_owned(), vec![0..20, 500..700]),
        (format!("bytes=0-9,{}-{}", MIB - 5, MIB + 4), vec![0..10, MIB - 5..MIB + 5]),
    ] {
        let answer = client.get("/f", &[("range", &asked)]).await.unwrap();
        check_parts(&answer, &ranges, length);
        assert!(
            String::from_utf8_lossy(&answer.body).to_lowercase().contains("content-type: application/zip")
        );
    }
    check_part(&client.get("/f", &[("range", "bytes=0-4,5-9,3-6")]).await.unwrap(), 0..10, length);
}

#[tokio::test]
async fn more_ranges_than_anybody_needs_get_the_whole() {
    let (_origin, node) = node_of(Script::file(SEED, 10_000)).await;
    check_whole(&node.get("/f", &[]).await, 10_000);
    let many = |count: u64| {
        let ranges: Vec<_> = (0..count).map(|number| format!("{}-{}", number * 4, number * 4)).collect();
        format!("bytes={}", ranges.join(","))
    };
    let mut client = node.client().await;
    let answer = client.get("/f", &[("range", &many(16))]).await.unwrap();
    check_parts(&answer, &(0..16).map(|number| number * 4..number * 4 + 1).collect::<Vec<_>>(), 10_000);
    for count in [17, 100, 1_000] {
        check_whole(&client.get("/f", &[("range", &many(count))]).await.unwrap(), 10_000);
    }
}

#[tokio::test]
async fn a_range_of_a_cold_file_brings_the_file_once() {
    let (origin, node) = node_of(Script::file(SEED, 3 * MIB)).await;
    let mut asks = tokio::task::JoinSet::new();
    for start in [0_u64, 100, MIB, 3 * MIB - 10] {
        let mut client = node.client().await;
        asks.spawn(async move {
            let asked = format!("bytes={start}-{}", start + 9);
            (start, client.get("/f", &[("range", &asked)]).await.unwrap())
        });
    }
    while let Some(done) = asks.join_next().await {
        let (start, answer) = done.unwrap();
        check_part(&answer, start..start + 10, 3 * MIB);
    }
    check_whole(&node.get("/f", &[]).await, 3 * MIB);
    assert_eq!((origin.counts("/f").requests, origin.counts("/f").body_bytes), (1, 3 * MIB));
}

#[tokio::test]
async fn a_range_that_has_arrived_does_not_wait_for_the_rest() {
    let (origin, node, gate) = held(8 * MIB, 2 * MIB).await;
    let whole = begin(&node, 2 * MIB).await;
    for range in [0..10, MIB - 3..MIB + 3, 2 * MIB - 9..2 * MIB] {
        let asked = format!("bytes={}-{}", range.start, range.end - 1);
        check_part(&node.get("/f", &[("range", &asked)]).await, range, 8 * MIB);
    }
    check_parts(&node.get("/f", &[("range", "bytes=0-9,100-199")]).await, &[0..10, 100..200], 8 * MIB);
    gate.open();
    check_whole(&whole.await.unwrap(), 8 * MIB);
    assert_eq!(origin.counts("/f").requests, 1);
}

#[tokio::test]
async fn a_range_just_ahead_waits_for_the_fill() {
    let (origin, node, gate) = held(8 * MIB, 2 * MIB).await;
    let whole = begin(&node, 2 * MIB).await;
    let mut client = node.client().await;
    let ahead =
        tokio::spawn(async move { client.get("/f", &[("range", "bytes=2097100-3145727")]).await.unwrap() });
    eventually("both read", async || node.admin("/v1/status").await.contains("\"readers\": 2")).await;
    gate.open();
    check_part(&ahead.await.unwrap(), 2_097_100..3 * MIB, 8 * MIB);
    check_whole(&whole.await.unwrap(), 8 * MIB);
    assert_eq!((origin.counts("/f").requests, origin.counts("/f").body_bytes), (1, 8 * MIB));
}

#[tokio::test]
async fn a_range_far_ahead_has_a_lane_of_its_own() {
    let (origin, node, gate) = held(16 * MIB, MIB).await;
    let whole = begin(&node, MIB).await;
    check_part(&node.get("/f", &[("range", "bytes=-1000")]).await, 16 * MIB - 1_000..16 * MIB, 16 * MIB);
    check_part(
        &node.get("/f", &[("range", "bytes=10485770-10485779")]).await,
        10_485_770..10_485_780,
        16 * MIB,
    );
    gate.open();
    check_whole(&whole.await.unwrap(), 16 * MIB);
    // The first lane, two ahead, and the first one again behind what the second one fetched.
    let asked = origin.counts("/f").ranges;
    assert_eq!(asked[..2], ["bytes=15728640-", "bytes=10485760-11534335"]);
    assert!(asked.len() <= 3, "{asked:?}");
    check_part(&node.get("/f", &[("range", "bytes=-1000")]).await, 16 * MIB - 1_000..16 * MIB, 16 * MIB);
}

#[tokio::test]
async fn a_far_range_waits_where_upstream_has_no_ranges() {
    let gate = Gate::default();
    let hold = Some(Hold { at: Some(MIB), gate: gate.clone() });
    let script = Script { hold, ranges: Ranges::Ignore, ..Script::file(SEED, 8 * MIB) };
    let (_origin, node) = node_of(script).await;
    let whole = begin(&node, MIB).await;
    let mut client = node.client().await;
    let last = tokio::spawn(async move { client.get("/f", &[("range", "bytes=-10")]).await.unwrap() });
    eventually("both read", async || node.admin("/v1/status").await.contains("\"readers\": 2")).await;
    gate.open();
    check_part(&last.await.unwrap(), 8 * MIB - 10..8 * MIB, 8 * MIB);
    check_whole(&whole.await.unwrap(), 8 * MIB);
}

#[tokio::test]
async fn without_a_length_the_whole_is_the_only_right_answer_until_it_is_known() {
    let gate = Gate::default();
    let hold = Some(Hold { at: Some(16 << 10), gate: gate.clone() });
    let script = Script { hold, framing: Framing::Chunked, ..Script::file(SEED, 100_000) };
    let (_origin, node) = node_of(script).await;
    let whole = begin(&node, 16 << 10).await;
    let mut client = node.client().await;
    let part = tokio::spawn(async move { client.get("/f", &[("range", "bytes=0-9")]).await.unwrap() });
    eventually("both read", async || node.admin("/v1/status").await.contains("\"readers\": 2")).await;
    gate.open();
    check_whole(&part.await.unwrap(), 100_000);
    check_whole(&whole.await.unwrap(), 100_000);
    check_part(&node.get("/f", &[("range", "bytes=0-9")]).await, 0..10, 100_000);
    check_part(&node.get("/f", &[("range", "bytes=-10")]).await, 99_990..100_000, 100_000);
}

#[tokio::test]
async fn if_range_is_compared_strongly() {
    let modified = "Sun, 06 Nov 1994 08:49:37 GMT";
    let dated = |date: &str| Script {
        etag: None,
        last_modified: Some(modified.to_owned()),
        headers: vec![("date".to_owned(), date.to_owned())],
        ..Script::file(SEED, 1_000)
    };
    let weak = Script { etag: Some("W/\"v1\"".to_owned()), ..Script::file(SEED, 1_000) };
    for (script, condition, honoured) in [
        (Script::file(SEED, 1_000), "\"v1\"", true),
        (Script::file(SEED, 1_000), "\"v2\"", false),
        (Script::file(SEED, 1_000), "W/\"v1\"", false),
        (Script::file(SEED, 1_000), "v1", false),
        (Script::file(SEED, 1_000), modified, false),
        (weak.clone(), "W/\"v1\"", false),
        (weak, "\"v1\"", false),
        (dated("Sun, 06 Nov 1994 08:50:37 GMT"), modified, true),
        (dated("Sun, 06 Nov 1994 08:50:37 GMT"), "Sunday, 06-Nov-94 08:49:37 GMT", true),
        (dated("Sun, 06 Nov 1994 08:50:37 GMT"), "Sun, 06 Nov 1994 08:49:38 GMT", false),
        (dated("Sun, 06 Nov 1994 08:49:40 GMT"), modified, false),
    ] {
        let (_origin, node) = node_of(script).await;
        for state in ["cold", "warm"] {
            let answer = node.get("/f", &[("range", "bytes=100-199"), ("if-range", condition)]).await;
            if honoured {
                check_part(&answer, 100..200, 1_000);
            } else {
                assert_eq!(answer.status, 200, "{condition}, {state}");
                check_whole(&answer, 1_000);
            }
        }
    }
}

#[tokio::test]
async fn if_range_works_while_the_file_arrives() {
    let (_origin, node, gate) = held(8 * MIB, 2 * MIB).await;
    let whole = begin(&node, 2 * MIB).await;
    let answer = node.get("/f", &[("range", "bytes=10-19"), ("if-range", "\"v1\"")]).await;
    check_part(&answer, 10..20, 8 * MIB);
    let answer = node.get("/f", &[("range", "bytes=8388608-")]).await;
    assert_eq!((answer.status, answer.header("content-range")), (416, Some("bytes */8388608")));
    gate.open();
    check_whole(&whole.await.unwrap(), 8 * MIB);
}

#[tokio::test]
async fn conditions_come_before_ranges() {
    let (_origin, node) = node_of(Script::file(SEED, 1_000)).await;
    let mut client = node.client().await;
    let range = ("range", "bytes=0-9");
    let not_modified = client.get("/f", &[range, ("if-none-match", "\"v1\"")]).await.unwrap();
    assert_eq!((not_modified.status, not_modified.header("content-length")), (304, None));
    assert_eq!(not_modified.header("etag"), Some("\"v1\""));
    let failed = client.get("/f", &[range, ("if-match", "\"v2\"")]).await.unwrap();
    assert_eq!((failed.status, failed.body.len()), (412, 0));
    check_part(&client.get("/f", &[range, ("if-match", "\"v1\"")]).await.unwrap(), 0..10, 1_000);
}

#[tokio::test]
async fn head_has_no_ranges_and_no_body() {
    let (_origin, node) = node_of(Script::file(SEED, 1_000)).await;
    for state in ["cold", "warm"] {
        let mut client = node.client().await;
        for range in ["bytes=0-9", "bytes=5000-", "bytes=0-1,5-6"] {
            let answer = client.request("HEAD", "/f", &[("range", range)]).await.unwrap();
            assert_eq!((answer.status, answer.header("content-length")), (200, Some("1000")), "{state}");
            assert_eq!(answer.header("content-range"), None);
            assert_eq!(answer.header("accept-ranges"), Some("bytes"));
        }
        // Had there been a body, it would stand in front of this answer.
        check_whole(&client.get("/f", &[]).await.unwrap(), 1_000);
    }
}

#[tokio::test]
async fn an_agent_resumes_after_the_node_was_restarted() {
    // Without a lifetime it would be asked for again behind an answer that comes after five seconds.
    let headers = vec![("cache-control".to_owned(), "max-age=1000".to_owned())];
    let tagged = Script { headers, ..Script::file(SEED, 5 * MIB) };
    let tagless = Script { etag: None, ..tagged.clone() };
    for script in [tagged, tagless] {
        let (origin, node) = node_of(script).await;
        let plan = Plan::upstreams(&[&origin.url()]);
        check_whole(&node.get("/f", &[]).await, 5 * MIB);
        // The tag made of the digest is there once the entry is, a moment after the last byte.
        node.settled().await;
        let first = node.get("/f", &[("range", "bytes=0-2999999")]).await;
        let tag = first.header("etag").unwrap().to_owned();
        let node = node.stop().await.start(&plan).await;
        let rest = node.get("/f", &[("range", "bytes=3000000-"), ("if-range", &tag)]).await;
        check_part(&rest, 3_000_000..5 * MIB, 5 * MIB);
        assert_eq!(rest.header("etag"), Some(tag.as_str()));
        assert_eq!(rest.header("repr-digest"), first.header("repr-digest"));
        assert_eq!(origin.counts("/f").requests, 1);
    }
}

#[tokio::test]
async fn an_agent_that_resumes_another_version_gets_the_whole_new_one() {
    let script = Script {
        becomes: Some((1, "\"v2\"".to_owned(), SEED)),
        headers: vec![("cache-control".to_owned(), "no-cache".to_owned())],
        seed: 99,
        ..Script::file(SEED, 100_000)
    };
    let (_origin, node) = node_of(script).await;
    let first = node.get("/f", &[]).await;
    assert_eq!((first.status, first.header("etag")), (200, Some("\"v1\"")));
    node.settled().await;
    let rest = node.get("/f", &[("range", "bytes=50000-"), ("if-range", "\"v1\"")]).await;
    assert_eq!(rest.header("etag"), Some("\"v2\""));
    check_whole(&rest, 100_000);
}

#[tokio::test]
async fn ranges_are_the_same_over_http2() {
    let (origin, node) = node_of(Script::file(SEED, 3 * MIB)).await;
    let mut agent = Http2::connect(node.tls, NAME, node.home().authority()).await.unwrap();
    for _ in ["cold", "warm"] {
        let part = agent.request("GET", "/f", &[("range", "bytes=-1048580")]).await.unwrap();
        check_part(&part, 2 * MIB - 4..3 * MIB, 3 * MIB);
        let parts = agent.request("GET", "/f", &[("range", "bytes=0-9,2000000-2000009")]).await.unwrap();
        check_parts(&parts, &[0..10, 2_000_000..2_000_010], 3 * MIB);
        let beyond = agent.request("GET", "/f", &[("range", "bytes=3145728-")]).await.unwrap();
        assert_eq!((beyond.status, beyond.body.len()), (416, 0));
        let head = agent.request("HEAD", "/f", &[("range", "bytes=0-9")]).await.unwrap();
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("3145728"), 0));
    }
    assert_eq!(origin.counts("/f").requests, 1);
}

#[tokio::test]
async fn a_reader_that_left_in_the_middle_resumes_while_the_fill_goes_on() {
    let (origin, node, gate) = held(8 * MIB, 4 * MIB).await;
    let whole = begin(&node, 4 * MIB).await;
    let mut leaver = Client::connect(node.plain).await.unwrap();
    leaver.send(b"GET /f HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    drop(leaver);
    let mut client = node.client().await;
    let rest = tokio::spawn(async move {
        client.get("/f", &[("range", "bytes=1000000-"), ("if-range", "\"v1\"")]).await.unwrap()
    });
    gate.open();
    check_part(&rest.await.unwrap(), 1_000_000..8 * MIB, 8 * MIB);
    check_whole(&whole.await.unwrap(), 8 * MIB);
    assert_eq!(origin.counts("/f").requests, 1);
}

#[tokio::test]
async fn a_reader_at_the_front_of_a_slow_fill_does_not_open_another_lane() {
    // The front stands still at the start, at the end of a block, and within one.
    for at in [0, MIB, MIB + 100] {
        let (origin, node, gate) = held(3 * MIB, at).await;
        let whole = begin(&node, at).await;
        let mut readers = tokio::task::JoinSet::new();
        for _ in 0..5 {
            let mut client = node.client().await;
            readers.spawn(async move { client.get("/f", &[]).await.unwrap() });
        }
        eventually("all read", async || node.admin("/v1/status").await.contains("\"readers\": 6")).await;
        gate.open();
        while let Some(answer) = readers.join_next().await {
            check_whole(&answer.unwrap(), 3 * MIB);
        }
        check_whole(&whole.await.unwrap(), 3 * MIB);
        let counts = origin.counts("/f");
        assert_eq!((counts.requests, counts.body_bytes), (1, 3 * MIB), "stopped at {at}");
    }
}
