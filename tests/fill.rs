//! The fill from outside: one fetch for many, and nobody harmed by anybody's leaving.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task::JoinSet;
use waypost::cache::{BodyMap, Head, Key, Record};
use waypost::fill::{Cause, Options, Outcome, Settled};
use waypost::testkit::client::{Answer, Client, End};
use waypost::testkit::content;
use waypost::testkit::fills::{self, FillBench};
use waypost::testkit::node::{Home, Plan, TestNode, eventually};
use waypost::testkit::origin::Origin;
use waypost::testkit::script::{Framing, Gate, Hold, How, Ranges, Script};
use waypost::upstream;

const MIB: u64 = 1 << 20;
const PATH: &str = "/package.zip";

/// A plan for a node in front of `origin`, with patience for gates that open late on a busy machine.
fn plan(origin: &Origin) -> Plan {
    Plan::upstreams(&[&origin.url()]).with("first_byte_timeout = \"5m\"\nstall_timeout = \"5m\"")
}

/// An origin with one file, and a node in front of it.
async fn scene(script: Script) -> (Origin, TestNode) {
    let origin = Origin::start().await;
    origin.set(PATH, script);
    let node = Home::new().start(&plan(&origin)).await;
    (origin, node)
}

/// `script`, held at `at` until the gate opens.
fn held(script: Script, at: Option<u64>) -> (Script, Gate) {
    let gate = Gate::default();
    (Script { hold: Some(Hold { at, gate: gate.clone() }), ..script }, gate)
}

/// Agents that each fetch the whole file and compare every byte.
fn agents(node: &TestNode, count: usize, seed: u64, length: u64) -> JoinSet<()> {
    let mut agents = JoinSet::new();
    let whole = content::whole(seed, usize::try_from(length).unwrap());
    for _ in 0..count {
        let (address, mut left) = (node.plain, whole.clone());
        agents.spawn(async move {
            let mut client = Client::connect(address).await.unwrap();
            let head = client.begin(PATH, &[]).await.unwrap();
            assert_eq!(head.status, 200);
            assert_eq!(head.header("content-length"), Some(left.len().to_string().as_str()));
            while !left.is_empty() {
                let bytes = client.some(left.len()).await.unwrap();
                assert!(bytes == left.split_to(bytes.len()), "wrong bytes, {} before the end", left.len());
            }
        });
    }
    agents
}

async fn all(mut tasks: JoinSet<()>) {
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
}

async fn readers(node: &TestNode, count: u64) {
    eventually(&format!("{count} readers"), async || node.readers().await == count).await;
}

fn assert_whole(answer: &Answer, seed: u64, length: u64) {
    assert_eq!((answer.status, answer.end, answer.body.len() as u64), (200, End::Complete, length));
    assert!(answer.body == content::whole(seed, answer.body.len()), "wrong bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_agents_on_one_cold_file_are_one_request_upstream() {
    let length = MIB + 12_345;
    let (script, gate) = held(Script::file(3, length), None);
    let (origin, node) = scene(script).await;
    let herd = agents(&node, 300, 3, length);
    readers(&node, 300).await;
    gate.open();
    all(herd).await;
    let counts = origin.counts(PATH);
    assert_eq!((counts.requests, counts.body_bytes), (1, length));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_agents_who_come_as_they_like_are_one_request_upstream() {
    let length = MIB + 1;
    let headers = vec![("cache-control".to_owned(), "max-age=3600".to_owned())];
    let (origin, node) = scene(Script { rate: Some(8 * MIB), headers, ..Script::file(4, length) }).await;
    all(agents(&node, 200, 4, length)).await;
    // And those who come after the fill find it stored.
    all(agents(&node, 20, 4, length)).await;
    let counts = origin.counts(PATH);
    assert_eq!((counts.requests, counts.body_bytes), (1, length));
}

#[tokio::test]
async fn a_late_joiner_gets_at_once_what_is_there_and_then_the_rest() {
    let length = 5 * MIB;
    for percent in [10, 50, 90] {
        let at = length * percent / 100;
        let (script, gate) = held(Script::file(percent, length), Some(at));
        let (origin, node) = scene(script).await;
        let mut first = node.client().await;
        first.begin(PATH, &[]).await.unwrap();
        first.check(percent, 0, at).await.unwrap();
        // The fill stands still: everything the late one gets now was there before it came.
        let mut late = node.client().await;
        let head = late.begin(PATH, &[]).await.unwrap();
        assert!(head.header("cache-status").unwrap().contains("collapsed"), "{head:?}");
        late.check(percent, 0, at).await.unwrap();
        gate.open();
        late.check(percent, at, length - at).await.unwrap();
        first.check(percent, at, length - at).await.unwrap();
        assert_eq!(origin.counts(PATH).body_bytes, length, "at {percent} %");
    }
}

#[tokio::test]
async fn the_first_agent_leaves_and_nobody_notices() {
    let length = 4 * MIB;
    let (script, gate) = held(Script::file(8, length), Some(length / 2));
    let (origin, node) = scene(script).await;
    let mut first = node.client().await;
    first.begin(PATH, &[]).await.unwrap();
    first.check(8, 0, MIB).await.unwrap();
    let others = agents(&node, 10, 8, length);
    readers(&node, 11).await;
    drop(first);
    readers(&node, 10).await;
    gate.open();
    all(others).await;
    assert_eq!((origin.counts(PATH).requests, origin.counts(PATH).body_bytes), (1, length));
}

#[tokio::test]
async fn all_but_one_leave_and_the_last_one_gets_it_all() {
    let length = 4 * MIB + 7;
    let (script, gate) = held(Script::file(9, length), Some(length / 2));
    let (origin, node) = scene(script).await;
    let mut crowd = Vec::new();
    for _ in 0..30 {
        let mut client = node.client().await;
        client.begin(PATH, &[]).await.unwrap();
        crowd.push(client);
    }
    let faithful = agents(&node, 1, 9, length);
    readers(&node, 31).await;
    drop(crowd);
    readers(&node, 1).await;
    gate.open();
    all(faithful).await;
    assert_eq!((origin.counts(PATH).requests, origin.counts(PATH).body_bytes), (1, length));
}

#[tokio::test]
async fn the_last_agent_leaves_and_what_little_remains_is_finished() {
    let length = 4 * MIB;
    let (script, gate) = held(Script::file(10, length), Some(MIB));
    let (origin, node) = scene(script).await;
    let mut only = node.client().await;
    only.begin(PATH, &[]).await.unwrap();
    only.check(10, 0, 1_000).await.unwrap();
    drop(only);
    readers(&node, 0).await;
    gate.open();
    eventually("the fill is over", async || node.fills().await == 0).await;
    let answer = node.get(PATH, &[]).await;
    assert_whole(&answer, 10, length);
    assert!(answer.header("cache-status").unwrap().contains("hit"), "{:?}", answer.headers);
    assert_eq!(origin.counts(PATH).requests, 1);
}

#[tokio::test]
async fn an_abandoned_fill_is_paused_and_the_next_one_goes_on_from_its_blocks() {
    let length = 20 * MIB;
    let origin = Origin::start().await;
    origin.set(PATH, Script { rate: Some(16 * MIB), ..Script::file(11, length) });
    let options = Options { linger: Duration::from_millis(100), finish_below: MIB, ..Options::default() };
    let bench = FillBench::new(options, vec![upstream::Options::new(origin.url())]);
    let seat = bench.join(PATH);
    assert!(matches!(seat.outcome().await, Outcome::Streaming(_)));
    let mut follow = seat.read(0, Some(length));
    fills::next(&mut follow).await.unwrap();
    drop(follow);
    eventually("it is paused", async || bench.notes("ended abandoned").len() == 1).await;
    let before = origin.counts(PATH).body_bytes;
    assert!(before < length, "it was paused, not finished");
    assert_eq!(bench.read(PATH, 11).await, Ok(length));
    let counts = origin.counts(PATH);
    assert_eq!((counts.requests, counts.ranges.len()), (2, 1), "{:?}", counts.ranges);
    let start: u64 = counts.ranges[0].trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    assert!(start >= MIB, "{start}");
    // The origin may have handed another piece of the first answer to its socket after it was left.
    let after = counts.body_bytes - before;
    assert!((length - start..length - start + MIB).contains(&after), "only what was missing: {after}");
}

#[tokio::test]
async fn a_body_without_end_is_not_fetched_for_nobody() {
    let origin = Origin::start().await;
    let endless = Script { framing: Framing::Chunked, rate: Some(32 * MIB), ..Script::file(12, 1 << 40) };
    origin.set(PATH, endless);
    let options = Options { linger: Duration::from_millis(50), finish_below: MIB, ..Options::default() };
    let bench = FillBench::new(options, vec![upstream::Options::new(origin.url())]);
    let seat = bench.join(PATH);
    assert!(matches!(seat.outcome().await, Outcome::Streaming(_)));
    drop(seat);
    eventually("it is given up", async || bench.notes("ended abandoned").len() == 1).await;
}

#[tokio::test]
async fn a_wanted_fill_goes_on_without_readers() {
    let length = 12 * MIB;
    let origin = Origin::start().await;
    origin.set(PATH, Script { rate: Some(48 * MIB), ..Script::file(13, length) });
    let options = Options { linger: Duration::ZERO, finish_below: 0, ..Options::default() };
    let bench = FillBench::new(options, vec![upstream::Options::new(origin.url())]);
    let mut job = bench.job(PATH);
    job.wanted = true;
    drop(bench.fills.join(job));
    eventually("it is complete", async || bench.notes("ended complete").len() == 1).await;
    assert_eq!(origin.counts(PATH).body_bytes, length);
}

#[tokio::test]
async fn a_body_of_unknown_length_streams_in_chunks_and_is_stored_with_its_length() {
    let length = 2 * MIB + 100;
    let (origin, node) = scene(Script { framing: Framing::Chunked, ..Script::file(14, length) }).await;
    let answer = node.get(PATH, &[]).await;
    assert_whole(&answer, 14, length);
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    let again = node.get(PATH, &[]).await;
    assert_whole(&again, 14, length);
    assert_eq!(again.header("content-length"), Some(length.to_string().as_str()));
    assert_eq!(origin.counts(PATH).requests, 1);
}

#[tokio::test]
async fn broken_chunks_without_proof_of_identity_break_visibly_for_every_reader() {
    let (at, length) = (MIB + 500, 3 * MIB);
    let script = Script { framing: Framing::Chunked, etag: None, ..Script::file(15, length) };
    let (script, gate) = held(script.breaking(at, How::Finish, 1), Some(MIB));
    let (origin, node) = scene(script).await;
    let mut agents = JoinSet::new();
    for _ in 0..10 {
        let address = node.plain;
        agents.spawn(async move { Client::connect(address).await.unwrap().get(PATH, &[]).await.unwrap() });
    }
    readers(&node, 10).await;
    gate.open();
    while let Some(answer) = agents.join_next().await {
        let answer = answer.unwrap();
        assert_eq!(answer.status, 200);
        assert!(matches!(answer.end, End::Short | End::Reset), "{:?}", answer.end);
        assert!(answer.body == content::whole(15, answer.body.len()), "wrong bytes");
    }
    assert_eq!(node.metric("waypost_cache_objects").await, 0);
    // The next one starts anew, and this time all goes well.
    assert_whole(&node.get(PATH, &[]).await, 15, length);
    assert_eq!(origin.counts(PATH).requests, 2);
}

#[tokio::test]
async fn broken_chunks_with_an_etag_are_resumed() {
    let length = 3 * MIB;
    let script = Script { framing: Framing::Chunked, ..Script::file(16, length) };
    let (origin, node) = scene(script.breaking(MIB + 500, How::Reset, 1)).await;
    assert_whole(&node.get(PATH, &[]).await, 16, length);
    assert_eq!(origin.counts(PATH).requests, 2);
}

#[tokio::test]
async fn a_part_of_the_rest_never_ends_a_body_of_unknown_length() {
    let length = 3 * MIB;
    let script =
        Script { framing: Framing::Chunked, ranges: Ranges::AtMost(300_000), ..Script::file(17, length) };
    let (origin, node) = scene(script.breaking(MIB + 500, How::Reset, 1)).await;
    let answer = node.get(PATH, &[]).await;
    assert_whole(&answer, 17, length);
    assert!(origin.counts(PATH).ranges.len() > 5, "{:?}", origin.counts(PATH).ranges);
    assert_whole(&node.get(PATH, &[]).await, 17, length);
}

#[tokio::test]
async fn head_conditional_and_range_of_a_cold_file_share_one_flight() {
    let length = 2 * MIB;
    let (script, gate) = held(Script::file(18, length), None);
    let (origin, node) = scene(script).await;
    let mut asked = JoinSet::new();
    let wishes: [(&str, &[(&str, &str)]); 5] = [
        ("HEAD", &[]),
        ("GET", &[("if-none-match", "\"v1\"")]),
        ("GET", &[("range", "bytes=1000000-1000099")]),
        ("GET", &[("range", "bytes=-10")]),
        ("GET", &[]),
    ];
    for (index, (method, headers)) in wishes.into_iter().enumerate() {
        let address = node.plain;
        asked.spawn(async move {
            let mut client = Client::connect(address).await.unwrap();
            (index, client.request(method, PATH, headers).await.unwrap())
        });
    }
    readers(&node, 5).await;
    gate.open();
    while let Some(answer) = asked.join_next().await {
        let (index, answer) = answer.unwrap();
        assert_eq!(answer.end, End::Complete);
        match index {
            0 => assert_eq!((answer.status, answer.header("content-length")), (200, Some("2097152"))),
            1 => assert_eq!((answer.status, answer.header("etag")), (304, Some("\"v1\""))),
            2 => {
                assert_eq!(answer.header("content-range"), Some("bytes 1000000-1000099/2097152"));
                assert_eq!((answer.status, answer.body), (206, content::piece(18, 1_000_000, 100)));
            }
            3 => assert_eq!((answer.status, answer.body), (206, content::piece(18, length - 10, 10))),
            _ => assert_whole(&answer, 18, length),
        }
    }
    assert_eq!(origin.counts(PATH).requests, 1);
}

#[tokio::test]
async fn what_may_not_be_shared_is_fetched_by_each_in_parallel_and_remembered() {
    for (name, value) in [("cache-control", "no-store"), ("cache-control", "private"), ("set-cookie", "a=b")]
    {
        let headers = vec![(name.to_owned(), value.to_owned())];
        let (script, gate) = held(Script { headers, ..Script::file(19, 100_000) }, Some(50_000));
        let (origin, node) = scene(script).await;
        let first = agents(&node, 4, 19, 100_000);
        // All four transfers stand at the gate together: nobody waits for anybody.
        eventually("four at once", async || origin.counts(PATH).concurrent == 4).await;
        // It is remembered: those who come now do not wait for an answer that is not theirs either.
        let second = agents(&node, 4, 19, 100_000);
        eventually("eight at once", async || origin.counts(PATH).concurrent == 8).await;
        gate.open();
        all(first).await;
        all(second).await;
        let counts = origin.counts(PATH);
        assert_eq!((counts.requests, counts.body_bytes), (8, 800_000), "{value}");
        assert_eq!(node.metric("waypost_cache_objects").await, 0, "{value}");
        let answer = node.get(PATH, &[]).await;
        assert_eq!(answer.header("set-cookie"), None, "cookies are nobody else's business");
    }
}

#[tokio::test]
async fn what_may_not_be_shared_is_not_shared_with_those_who_waited_for_the_head() {
    let headers = vec![("cache-control".to_owned(), "private".to_owned())];
    let (script, gate) = held(Script { headers, ..Script::file(20, 50_000) }, None);
    let (origin, node) = scene(script).await;
    let waiting = agents(&node, 12, 20, 50_000);
    readers(&node, 12).await;
    // Those who wait sit there before their question has reached upstream.
    eventually("it is asked", async || origin.counts(PATH).requests == 1).await;
    gate.open();
    all(waiting).await;
    assert_eq!((origin.counts(PATH).requests, origin.counts(PATH).body_bytes), (12, 600_000));
}

#[tokio::test]
async fn past_the_bound_of_fills_misses_queue_and_then_get_503_while_hits_go_on() {
    let origin = Origin::start().await;
    let (script, gate) = held(Script::file(21, 100_000), Some(50_000));
    origin.set("/slow", script);
    origin.set("/hit", Script::file(22, 50_000));
    origin.set("/queued", Script::file(23, 50_000));
    let plan = plan(&origin).with_limits("fills = 1\nqueue_wait = \"300ms\"");
    let node = Home::new().start(&plan).await;
    assert_eq!(node.get("/hit", &[]).await.status, 200);
    eventually("its fill is over", async || node.fills().await == 0).await;
    let mut slow = node.client().await;
    assert_eq!(slow.begin("/slow", &[]).await.unwrap().status, 200);

    let refused = node.get("/queued", &[]).await;
    assert_eq!((refused.status, refused.end), (503, End::Complete));
    let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&after), "{after}");
    assert_eq!(origin.counts("/queued").requests, 0);
    assert_eq!(node.get("/hit", &[]).await.status, 200);
    let mut late = node.client().await;
    assert_eq!(late.begin("/slow", &[]).await.unwrap().status, 200, "a reader is not a fill");

    gate.open();
    slow.check(21, 0, 100_000).await.unwrap();
    late.check(21, 0, 100_000).await.unwrap();
    let answer = node.get("/queued", &[]).await;
    assert_eq!((answer.status, answer.body), (200, content::whole(23, 50_000)));
}

#[tokio::test]
async fn a_miss_in_the_queue_gets_its_turn() {
    let origin = Origin::start().await;
    let (script, gate) = held(Script::file(24, 100_000), Some(50_000));
    origin.set("/slow", script);
    origin.set("/next", Script::file(25, 50_000));
    let plan = plan(&origin).with_limits("fills = 1");
    let node = Home::new().start(&plan).await;
    let mut slow = node.client().await;
    slow.begin("/slow", &[]).await.unwrap();
    let address = node.plain;
    let next =
        tokio::spawn(async move { Client::connect(address).await.unwrap().get("/next", &[]).await.unwrap() });
    eventually("it waits", async || node.fills().await == 2).await;
    assert_eq!(origin.counts("/next").requests, 0);
    gate.open();
    let answer = next.await.unwrap();
    assert_eq!((answer.status, answer.body), (200, content::whole(25, 50_000)));
}

#[tokio::test]
async fn a_full_queue_answers_503_at_once() {
    let origin = Origin::start().await;
    let (script, gate) = held(Script::file(26, 1_000), None);
    origin.set("/slow", script);
    let plan = plan(&origin).with_limits("fills = 1\nqueue = 1");
    let node = Home::new().start(&plan).await;
    let address = node.plain;
    let slow =
        tokio::spawn(async move { Client::connect(address).await.unwrap().get("/slow", &[]).await.unwrap() });
    readers(&node, 1).await;
    let answer = node.get("/other", &[]).await;
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    gate.open();
    assert_eq!(slow.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_range_far_ahead_of_a_slow_fill_comes_by_a_second_lane() {
    let length = 40 * MIB;
    let (script, gate) = held(Script::file(27, length), Some(MIB / 2));
    let (origin, node) = scene(script).await;
    let mut whole = node.client().await;
    assert_eq!(whole.begin(PATH, &[]).await.unwrap().status, 200);
    whole.check(27, 0, MIB / 2).await.unwrap();
    // The fill stands at half a MiB and goes no further: what comes now came by another way.
    let range = format!("bytes={}-{}", 30 * MIB + 5, 32 * MIB - 1);
    let answer = node.get(PATH, &[("range", &range)]).await;
    assert_eq!((answer.status, answer.end), (206, End::Complete));
    assert!(answer.body == content::piece(27, 30 * MIB + 5, 2 * MIB as usize - 5), "wrong bytes");
    gate.open();
    whole.check(27, MIB / 2, length - MIB / 2).await.unwrap();
    let counts = origin.counts(PATH);
    // The lane's connection is cut where the first one's block begins; what was on its way by then is lost.
    assert!(counts.body_bytes < length + 12 * MIB, "{} of {length}", counts.body_bytes);
    assert!(counts.requests <= 3, "{:?}", counts.ranges);
    assert_whole(&node.get(PATH, &[]).await, 27, length);
}

/// A second lane used to claim its block and then wait for a place at upstream: the first lane came by, found the block
/// taken, cut its connection, and everybody waited.
#[tokio::test]
async fn a_range_far_ahead_comes_with_the_fill_where_upstream_has_no_place_for_a_second_lane() {
    let length = 16 * MIB;
    let origin = Origin::start().await;
    let (script, gate) = held(Script::file(36, length), Some(MIB / 2));
    origin.set(PATH, script);
    let node = Home::new().start(&plan(&origin).with_limits("fills_per_upstream = 1")).await;
    let mut whole = node.client().await;
    assert_eq!(whole.begin(PATH, &[]).await.unwrap().status, 200);
    whole.check(36, 0, MIB / 2).await.unwrap();
    let mut far = node.client().await;
    let range = format!("bytes={}-", 12 * MIB);
    assert_eq!(far.begin(PATH, &[("range", &range)]).await.unwrap().status, 206);
    readers(&node, 2).await;
    gate.open();
    far.check(36, 12 * MIB, 4 * MIB).await.unwrap();
    whole.check(36, MIB / 2, length - MIB / 2).await.unwrap();
    let counts = origin.counts(PATH);
    assert_eq!((counts.requests, counts.body_bytes), (1, length), "{:?}", counts.ranges);
}

#[tokio::test]
async fn a_second_lane_begins_as_soon_as_upstream_has_a_place() {
    let origin = Origin::start().await;
    let (script, gate) = held(Script::file(37, 16 * MIB), Some(MIB / 2));
    origin.set(PATH, script);
    let (other, done) = held(Script::file(38, 100_000), Some(50_000));
    origin.set("/other", other);
    let node = Home::new().start(&plan(&origin).with_limits("fills_per_upstream = 2")).await;
    let mut busy = node.client().await;
    assert_eq!(busy.begin("/other", &[]).await.unwrap().status, 200);
    let mut whole = node.client().await;
    assert_eq!(whole.begin(PATH, &[]).await.unwrap().status, 200);
    let mut far = node.client().await;
    let range = format!("bytes={}-{}", 12 * MIB, 13 * MIB - 1);
    assert_eq!(far.begin(PATH, &[("range", &range)]).await.unwrap().status, 206);
    readers(&node, 3).await;
    assert_eq!(origin.counts(PATH).requests, 1, "there is no place");
    done.open();
    // The first lane still stands at half a MiB.
    far.check(37, 12 * MIB, MIB).await.unwrap();
    gate.open();
    whole.check(37, 0, 16 * MIB).await.unwrap();
}

/// The rest of a body with holes was asked for up to its end, and cut where the next block was here already.
#[tokio::test]
async fn what_is_missing_between_blocks_that_are_here_is_asked_for_and_no_more() {
    let length = 8 * MIB;
    let origin = Origin::start().await;
    origin.set(PATH, Script::file(39, length));
    let bench = FillBench::new(Options::default(), vec![upstream::Options::new(origin.url())]);
    let mut blocks = vec![None; 8];
    for index in [0, 3, 5] {
        let bytes = content::piece(39, index * MIB, MIB as usize);
        let block = bench.store.write_block(bytes).await.unwrap();
        *blocks.get_mut(usize::try_from(index).unwrap()).unwrap() = Some(block.digest);
    }
    let headers = vec![("etag".to_owned(), b"\"v1\"".to_vec())];
    let record = Record {
        head: Head { status: 200, headers, ..Head::default() },
        length: Some(length),
        digest: None,
        body: BodyMap::Blocks(blocks),
        stale: false,
        pinned: false,
    };
    bench.store.put_partial(&bench.job(PATH).key, record);
    assert_eq!(bench.read(PATH, 39).await, Ok(length));
    let overlap = 16 << 10;
    let asked = [(MIB, 3 * MIB), (4 * MIB - overlap, 5 * MIB), (6 * MIB - overlap, length)];
    let asked = asked.map(|(start, end)| match end {
        end if end == length => format!("bytes={start}-"),
        end => format!("bytes={start}-{}", end - 1),
    });
    let counts = origin.counts(PATH);
    assert_eq!((counts.ranges, counts.body_bytes), (asked.to_vec(), 5 * MIB + 2 * overlap));
}

#[tokio::test]
async fn a_body_too_large_for_the_disk_is_coalesced_and_slow_readers_are_healed_by_range() {
    let length = 24 * MIB;
    let origin = Origin::start().await;
    let (script, gate) = held(Script { rate: Some(24 * MIB), ..Script::file(28, length) }, Some(4 * MIB));
    origin.set(PATH, script);
    let plan = plan(&origin)
        .with_cache("size = \"64MiB\"\nmemory = \"8MiB\"\nmin_free = \"0B\"\nmax_object = \"1MiB\"\n");
    let node = Home::new().start(&plan).await;
    let mut slow = node.client().await;
    assert_eq!(slow.begin(PATH, &[]).await.unwrap().status, 200);
    let others = agents(&node, 5, 28, length);
    readers(&node, 6).await;
    gate.open();
    all(others).await;
    eventually("the fill is over", async || node.fills().await == 0).await;
    let counts = origin.counts(PATH);
    assert_eq!(counts.requests - counts.ranges.len(), 1, "six agents, one fetch");
    // What the slow one has not read has left memory, and was never on disk.
    slow.check(28, 0, length).await.unwrap();
    let counts = origin.counts(PATH);
    assert!(!counts.ranges.is_empty(), "its blocks came again by range");
    assert_eq!(node.metric("waypost_cache_objects").await, 0);
    drop(slow);
    assert_whole(&node.get(PATH, &[]).await, 28, length);
}

/// Bytes fetched past the cache, to heal a block, or to compare what is resumed were missing in the count.
#[tokio::test]
async fn every_byte_of_a_body_over_the_wan_is_counted() {
    let origin = Origin::start().await;
    let series = format!("waypost_upstream_received_bytes_total{{upstream=\"{}\"}}", origin.url());
    let node = Home::new().start(&plan(&origin)).await;
    let private = vec![("cache-control".to_owned(), "private".to_owned())];
    origin.set(PATH, Script { headers: private, ..Script::file(40, 300_000) });
    for asked in 1..=2 {
        assert_whole(&node.get(PATH, &[]).await, 40, 300_000);
        assert_eq!(node.metric(&series).await, asked * 300_000, "past the cache");
    }
    let before = node.metric(&series).await;
    origin.set("/broken", Script::file(41, 2 * MIB).breaking(MIB, How::Reset, 1));
    let answer = node.get("/broken", &[]).await;
    assert!(answer.body == content::whole(41, 2 << 20), "wrong bytes");
    let (sent, counted) = (origin.counts("/broken").body_bytes, node.metric(&series).await - before);
    // A reset may swallow what was sent just before it.
    assert!(counted >= 2 * MIB && counted <= sent, "{counted} of {sent} with the overlap");
    node.settled().await;
    let home = node.stop().await;
    damage_blocks(&home.path("cache/content-v2"));
    let node = home.start(&plan(&origin)).await;
    let answer = node.get("/broken", &[]).await;
    assert!(answer.body == content::whole(41, 2 << 20), "wrong bytes");
    let healed = node.metric("waypost_blocks_healed_total{how=\"healed\"}").await;
    assert_eq!((healed, node.metric(&series).await), (2, 2 * MIB), "to heal");
}

/// Flips a bit of every block.
fn damage_blocks(dir: &std::path::Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            damage_blocks(&path);
        } else {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes.iter_mut().take(1).for_each(|byte| *byte ^= 1);
            std::fs::write(&path, bytes).unwrap();
        }
    }
}

#[tokio::test]
async fn an_unknown_length_that_grows_past_the_largest_object_is_not_kept() {
    let length = 3 * MIB;
    let origin = Origin::start().await;
    origin.set(PATH, Script { framing: Framing::Chunked, ..Script::file(29, length) });
    let plan = plan(&origin)
        .with_cache("size = \"64MiB\"\nmemory = \"8MiB\"\nmin_free = \"0B\"\nmax_object = \"1MiB\"\n");
    let node = Home::new().start(&plan).await;
    assert_whole(&node.get(PATH, &[]).await, 29, length);
    eventually("the fill is over", async || node.fills().await == 0).await;
    assert_eq!(node.metric("waypost_cache_objects").await, 0);
    assert_whole(&node.get(PATH, &[]).await, 29, length);
    assert_eq!(origin.counts(PATH).requests, 2);
}

#[tokio::test]
async fn an_empty_file_is_a_file() {
    for framing in [Framing::Length, Framing::Chunked] {
        let (origin, node) = scene(Script { framing, ..Script::file(30, 0) }).await;
        for _ in 0..2 {
            assert_whole(&node.get(PATH, &[]).await, 30, 0);
        }
        assert_eq!(origin.counts(PATH).requests, 1);
    }
}

#[tokio::test]
async fn bodies_around_the_bounds_of_pieces_and_blocks_are_right() {
    let (origin, node) = scene(Script::default()).await;
    let lengths = [1, 16 << 10, (16 << 10) + 1, 128 << 10, MIB - 1, MIB, MIB + 1, 2 * MIB, 2 * MIB + 1];
    for (framing, name) in [(Framing::Length, "l"), (Framing::Chunked, "c")] {
        for length in lengths {
            let path = format!("/{name}{length}");
            origin.set(&path, Script { framing, ..Script::file(length, length) });
            for _ in 0..2 {
                assert_whole(&node.get(&path, &[]).await, length, length);
            }
            assert_eq!(origin.counts(&path).requests, 1, "{path}");
        }
    }
}

#[tokio::test]
async fn a_handler_that_is_its_own_upstream_says_so_at_once() {
    let probe = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = probe.local_addr().unwrap().port();
    drop(probe);
    let plan = Plan::upstreams(&[&format!("http://127.0.0.1:{port}/")]);
    let node = Home::new().start_at(&plan, port).await;
    let begun = std::time::Instant::now();
    let answer = node.get(PATH, &[]).await;
    assert!(answer.status >= 500, "{}", answer.status);
    assert!(begun.elapsed() < Duration::from_secs(5), "no time-out was waited for");
    eventually("nothing is left of it", async || node.fills().await == 0).await;
}

#[tokio::test]
async fn a_loop_is_seen_for_answers_that_are_not_shared_too() {
    let probe = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = probe.local_addr().unwrap().port();
    drop(probe);
    let origin = Origin::start().await;
    let headers = vec![("cache-control".to_owned(), "no-store".to_owned())];
    origin.set(PATH, Script { headers, ..Script::file(31, 1_000) });
    let plan = Plan::upstreams(&[&format!("http://127.0.0.1:{port}/"), &origin.url()]);
    let node = Home::new().start_at(&plan, port).await;
    for asked in 1..=3 {
        assert_whole(&node.get(PATH, &[]).await, 31, 1_000);
        assert_eq!(origin.counts(PATH).requests, asked, "once around, not sixteen times");
    }
}

#[tokio::test]
async fn a_fill_whose_task_ends_with_the_runtime_leaves_no_reader_waiting() {
    let (script, _gate) = held(Script::file(32, 5 * MIB), Some(MIB));
    let (_origin, node) = scene(script).await;
    let mut reader = node.client().await;
    reader.begin(PATH, &[]).await.unwrap();
    reader.check(32, 0, MIB).await.unwrap();
    node.order(waypost::server::Phase::Stop);
    assert!(matches!(reader.some(1).await, Err(End::Short | End::Reset)));
}

#[tokio::test]
async fn a_partial_that_upstream_will_not_continue_does_not_block_its_name() {
    for ranges in [Ranges::Shifted(1), Ranges::UnknownTotal, Ranges::IgnoreCondition] {
        let origin = Origin::start().await;
        origin.set(PATH, Script { rate: Some(16 * MIB), ..Script::file(33, 20 * MIB) });
        let options = Options { linger: Duration::from_millis(10), finish_below: MIB, ..Options::default() };
        let bench = FillBench::new(options, vec![upstream::Options::new(origin.url())]);
        let seat = bench.join(PATH);
        assert!(matches!(seat.outcome().await, Outcome::Streaming(_)));
        drop(seat);
        eventually("it is paused", async || bench.notes("ended abandoned").len() == 1).await;
        // Another and much shorter file now, from a server that gets ranges wrong: 416 or a lie.
        let length = if ranges == Ranges::IgnoreCondition { 1_000 } else { 19 * MIB };
        let etag = Some("\"v2\"".to_owned());
        origin.set(PATH, Script { etag, ranges, ..Script::file(34, length) });
        assert_eq!(bench.read(PATH, 34).await, Ok(length), "{ranges:?}");
    }
}

#[tokio::test]
async fn a_fill_in_a_full_queue_fails_with_overloaded() {
    let origin = Origin::start().await;
    let (script, gate) = held(Script::file(35, 1_000), None);
    origin.set(PATH, script);
    let options = Options { fills: 1, queue: 0, ..Options::default() };
    let bench = FillBench::new(options, vec![upstream::Options::new(origin.url())]);
    let first = bench.join(PATH);
    eventually("it is asked", async || origin.counts(PATH).requests == 1).await;
    assert_eq!(bench.read("/other", 1).await, Err(Cause::Overloaded));
    gate.open();
    assert!(matches!(first.outcome().await, Outcome::Streaming(_) | Outcome::Settled(_)));
}

/// Where the disk is known to be full or read-only nothing is tried; here it fails under a body that is arriving.
#[tokio::test]
async fn a_disk_that_fails_under_a_body_costs_no_reader_a_byte() {
    const EIO: i32 = 5;
    let origin = Origin::start().await;
    let length = 9 * MIB + 5;
    let (script, gate) = held(Script::file(37, length), Some(4 * MIB));
    origin.set(PATH, script);
    let bench = FillBench::new(Options::default(), vec![upstream::Options::new(origin.url())]);
    bench.faults.fail_writes(EIO, 2);
    let mut readers = JoinSet::new();
    for _ in 0..4 {
        let seat = bench.join(PATH);
        readers.spawn(async move { fills::read_to_end(seat.read(0, Some(length)), 37, 0).await });
    }
    gate.open();
    while let Some(read) = readers.join_next().await {
        assert_eq!(read.unwrap(), Ok(length));
    }
    // A reader that fell behind may have a block fetched again by range; the body comes once for all.
    let counts = origin.counts(PATH);
    assert_eq!(counts.requests - counts.ranges.len(), 1, "{counts:?}");
    // The disk is well again, and so is the file.
    bench.faults.fail_writes(0, 0);
    eventually("it is over", async || !bench.notes("ended").is_empty()).await;
    assert_eq!(bench.read(PATH, 37).await, Ok(length));
}

/// Whoever has read a body and does not believe it asks again, and must not be given the same one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_that_has_ended_is_never_joined() {
    let origin = Origin::start().await;
    origin.set(PATH, Script::file(36, 1_000));
    let bench = FillBench::new(Options::default(), vec![upstream::Options::new(origin.url())]);
    let rounds = tokio::task::spawn_blocking(move || {
        for round in 1..=300 {
            let seat = bench.join(PATH);
            assert!(seat.leads, "round {round}");
            // Looked at without a pause: the fill's own task has not come to its end when its outcome is here.
            let mut settled = std::pin::pin!(seat.settled());
            let mut cx = Context::from_waker(Waker::noop());
            let begun = std::time::Instant::now();
            let settled = loop {
                assert!(begun.elapsed() < Duration::from_secs(60), "round {round}");
                if let Poll::Ready(settled) = settled.as_mut().poll(&mut cx) {
                    break settled;
                }
            };
            assert!(matches!(settled, Settled::Entry { .. }), "round {round}");
            bench.store.remove(Key::new("files", PATH, None).as_str());
        }
    });
    rounds.await.unwrap();
    assert_eq!(origin.counts(PATH).requests, 300);
}
