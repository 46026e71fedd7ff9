//! Listed files: what a catalogue says about a file holds before a byte of it counts, and a wrong one leaves nothing.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use waypost::base::digest::Digest;
use waypost::base::proof::{BodyHasher, Kind};
use waypost::cache::Entry;
use waypost::fill::{self, Cause, Follow, Job, Options, Outcome, Pace, Settled, Stored};
use waypost::repository::expectation::Expectation;
use waypost::testkit::content;
use waypost::testkit::fills::{self, FillBench};
use waypost::testkit::node::eventually;
use waypost::testkit::origin::Origin;
use waypost::testkit::script::{Framing, Gate, Hold, How, Ranges, Script};
use waypost::upstream;

const MIB: u64 = 1 << 20;
const PATH: &str = "/package.zip";
/// The right body, and a wrong one.
const RIGHT: u64 = 5;
const WRONG: u64 = 6;

/// Two upstreams, asked in this order, and fills over them.
struct Scene {
    one: Origin,
    two: Origin,
    bench: FillBench,
}

async fn scene(one: Script, two: Script) -> Scene {
    with_options(Options::default(), one, two).await
}

async fn with_options(options: Options, first: Script, second: Script) -> Scene {
    let (one, two) = (Origin::start().await, Origin::start().await);
    one.set(PATH, first);
    two.set(PATH, second);
    let of =
        |origin: &Origin, priority| upstream::Options { priority, ..upstream::Options::new(origin.url()) };
    let bench = FillBench::new(options, vec![of(&one, 1), of(&two, 2)]);
    Scene { one, two, bench }
}

impl Scene {
    /// A question for the right body of `length` bytes.
    fn job(&self, length: u64) -> Job {
        self.job_of(listing(Kind::Sha256, length))
    }

    fn job_of(&self, expect: Expectation) -> Job {
        Job { expect: Some(Arc::new(expect)), ..self.bench.job(PATH) }
    }

    async fn fetch(&self, job: Job) -> (Vec<u8>, Result<(), Cause>) {
        let seat = self.bench.fills.join(job);
        match seat.outcome().await {
            Outcome::Streaming(opened) => drain(seat.read(0, opened.length)).await,
            Outcome::Settled(Settled::Entry { entry, .. }) => {
                let length = entry.length;
                self.read(&entry, 0, length).await
            }
            Outcome::Settled(Settled::Failed(cause)) => (Vec::new(), Err(cause)),
            Outcome::Settled(Settled::NotShareable(_)) => (Vec::new(), Err(Cause::Internal)),
        }
    }

    async fn read(&self, entry: &Arc<Entry>, start: u64, end: u64) -> (Vec<u8>, Result<(), Cause>) {
        let from = Arc::new(fill::Origin {
            store: self.bench.store.clone(),
            fills: self.bench.fills.clone(),
            supply: Arc::clone(&self.bench.supply),
        });
        let mut body = Vec::new();
        let mut stored = Stored::new(Arc::clone(entry), from, start, end);
        while let Some(next) = poll_fn(|cx| stored.poll_next(cx, 128 << 10)).await {
            match next {
                Ok(bytes) => body.extend_from_slice(&bytes),
                Err(broken) => return (body, Err(broken.0)),
            }
        }
        (body, Ok(()))
    }

    /// Fetches the right body of `length` bytes.
    async fn assert_right(&self, job: Job, length: u64) {
        let (body, end) = self.fetch(job).await;
        assert_eq!(end, Ok(()));
        assert!(body == right(length), "wrong bytes");
    }

    /// Not even blocks that nobody names.
    async fn assert_nothing_is_stored(&self) {
        assert!(self.bench.store.find(&self.key()).await.is_none(), "an entry");
        assert!(self.bench.store.find_partial(&self.key()).await.is_none(), "an unfinished body");
        eventually("its blocks leave the disk", async || self.bench.store.totals().bytes == 0).await;
    }

    fn key(&self) -> String {
        self.bench.job(PATH).key.as_str().to_owned()
    }

    /// Requests so far, at the first and the second upstream.
    fn requests(&self) -> (usize, usize) {
        (self.one.counts(PATH).requests, self.two.counts(PATH).requests)
    }

    fn lies(&self) -> Vec<String> {
        self.bench.notes("lied")
    }
}

async fn drain(mut follow: Follow) -> (Vec<u8>, Result<(), Cause>) {
    let mut body = Vec::new();
    loop {
        match fills::next(&mut follow).await {
            Ok(Some(bytes)) => body.extend_from_slice(&bytes),
            Ok(None) => return (body, Ok(())),
            Err(cause) => return (body, Err(cause)),
        }
    }
}

fn right(length: u64) -> Bytes {
    content::whole(RIGHT, usize::try_from(length).unwrap())
}

/// The listing of the right body, with a digest of this kind.
fn listing(kind: Kind, length: u64) -> Expectation {
    let mut hasher = BodyHasher::proving(kind);
    hasher.update(&right(length));
    let digests = hasher.finish();
    let proof = digests.proof();
    let mut expect = only_length(length);
    match kind {
        Kind::Sha256 => expect.sha256 = Some(Digest(proof.try_into().unwrap())),
        Kind::Sha512 => expect.sha512 = Some(Box::new(proof.try_into().unwrap())),
        Kind::Sha1 => expect.sha1 = Some(proof.try_into().unwrap()),
        Kind::Md5 => expect.md5 = Some(proof.try_into().unwrap()),
    }
    expect
}

fn only_length(length: u64) -> Expectation {
    Expectation { length: Some(length), ..Expectation::default() }
}

fn file(length: u64) -> Script {
    Script::file(RIGHT, length)
}

fn chunked(script: Script) -> Script {
    Script { framing: Framing::Chunked, ..script }
}

/// Without anything that would tell one version of the file from the next.
fn untagged(script: Script) -> Script {
    Script { etag: None, ..script }
}

fn wrong_digest() -> Cause {
    Cause::Lied("wrong-digest")
}

#[tokio::test]
async fn a_reply_of_another_length_is_refused_at_its_head_and_the_next_upstream_is_asked() {
    for length in [1_000, 6 * MIB] {
        let scene = scene(file(length + 1), file(length)).await;
        scene.assert_right(scene.job(length), length).await;
        assert_eq!(scene.lies(), ["lied wrong-length"]);
        assert_eq!(scene.requests(), (1, 1));
    }
}

#[tokio::test]
async fn a_captive_portal_is_never_taken_for_a_listed_file() {
    let page = "<html><body>Please accept the terms of use</body></html>";
    let length = page.len() as u64;
    let plain =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {length}\r\n\r\n{page}");
    let parts = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{page}\r\n0\r\n\r\n"
    );
    for (listed, portal, lie) in [
        (5_000, &plain, "lied wrong-length"),
        (length, &plain, "lied wrong-digest"),
        (5_000, &parts, "lied wrong-length"),
        (20, &parts, "lied wrong-length"),
    ] {
        let scene = scene(Script::raw(portal.clone()), file(listed)).await;
        scene.assert_right(scene.job(listed), listed).await;
        assert_eq!(scene.lies(), [lie], "listed {listed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_wrong_body_is_replaced_by_the_next_upstreams_and_no_agent_notices() {
    // With and without an end in the middle of a block, and the longest that is held back whole.
    for length in [1, 20_000, 2 * MIB, 4 * MIB] {
        let gate = Gate::default();
        let hold = Some(Hold { at: None, gate: gate.clone() });
        let scene = Arc::new(scene(Script { hold, ..Script::file(WRONG, length) }, file(length)).await);
        let mut agents = JoinSet::new();
        for _ in 0..20 {
            let scene = Arc::clone(&scene);
            agents.spawn(async move { scene.assert_right(scene.job(length), length).await });
        }
        eventually("all of them wait", async || scene.bench.fills.count() == (1, 20)).await;
        gate.open();
        while let Some(result) = agents.join_next().await {
            result.unwrap();
        }
        assert_eq!(scene.requests(), (1, 1), "{length}");
        assert_eq!(scene.lies(), ["lied wrong-digest"]);
        assert_eq!(scene.bench.notes("ended"), ["ended complete"]);
        // It is remembered who was wrong: the next fill does not even ask there.
        scene.bench.store.remove(&scene.key());
        scene.assert_right(scene.job(length), length).await;
        assert_eq!(scene.requests(), (1, 2));
    }
}

#[tokio::test]
async fn an_empty_file_is_listed_like_any_other() {
    let scene = scene(file(1), chunked(file(0))).await;
    scene.assert_right(scene.job(0), 0).await;
    assert_eq!(scene.lies(), ["lied wrong-length"]);
}

#[tokio::test]
async fn a_long_wrong_body_breaks_before_its_last_block_and_the_next_agent_gets_the_right_one() {
    for rest in [0, 777] {
        let length = 6 * MIB + rest;
        let last = if rest == 0 { MIB } else { rest };
        let scene = scene(Script::file(WRONG, length), file(length)).await;
        let (seen, end) = scene.fetch(scene.job(length)).await;
        assert_eq!(end, Err(wrong_digest()));
        assert!(seen.len() as u64 <= length - last, "{} bytes went out", seen.len());
        assert_eq!(scene.lies(), ["lied wrong-digest"]);
        scene.assert_nothing_is_stored().await;
        scene.assert_right(scene.job(length), length).await;
        assert_eq!(scene.requests(), (1, 1));
    }
}

#[tokio::test]
async fn when_everybody_is_wrong_nothing_is_stored_until_somebody_is_repaired() {
    for length in [30_000, 5 * MIB] {
        let scene = scene(Script::file(WRONG, length), Script::file(WRONG + 1, length)).await;
        for _ in 0..2 {
            let (seen, end) = scene.fetch(scene.job(length)).await;
            assert_eq!(end, Err(wrong_digest()));
            assert!(seen.len() as u64 <= length.saturating_sub(MIB), "{} bytes went out", seen.len());
            scene.assert_nothing_is_stored().await;
        }
        scene.one.set(PATH, file(length));
        scene.assert_right(scene.job(length), length).await;
    }
}

#[tokio::test]
async fn each_kind_of_digest_proves_a_body_and_finds_a_wrong_one() {
    for kind in [Kind::Sha256, Kind::Sha512, Kind::Sha1, Kind::Md5] {
        for length in [10_000, 5 * MIB + 1] {
            let job = |scene: &Scene| scene.job_of(listing(kind, length));
            let good = scene(file(length), Script::status(500, &[])).await;
            good.assert_right(job(&good), length).await;
            // Whoever did not see it when he looked finds it now, and it is what it should be.
            good.assert_right(job(&good), length).await;
            assert_eq!(good.requests(), (1, 0), "{kind:?}");

            let bad = scene(Script::file(WRONG, length), Script::status(500, &[])).await;
            assert!(bad.fetch(job(&bad)).await.1.is_err(), "{kind:?}");
            // What nobody has seen is asked for once more: it may have been the wire.
            let tries = if length < 4 * MIB { 2 } else { 1 };
            assert_eq!(bad.lies(), vec!["lied wrong-digest"; tries], "{kind:?}");
            bad.assert_nothing_is_stored().await;
            // Stored before it was listed, it is not believed either.
            drop(bad.fetch(bad.bench.job(PATH)).await);
            eventually("it is stored", async || bad.bench.store.find(&bad.key()).await.is_some()).await;
            assert!(bad.fetch(job(&bad)).await.1.is_err(), "{kind:?}");
        }
    }
}

#[tokio::test]
async fn a_body_in_chunks_is_held_to_the_listed_length() {
    for length in [1_000, 2 * MIB, 5 * MIB + 5] {
        let scene = scene(chunked(file(length)), Script::status(500, &[])).await;
        scene.assert_right(scene.job(length), length).await;
        assert_eq!(scene.requests(), (1, 0));
    }
}

#[tokio::test]
async fn a_short_body_in_chunks_that_is_longer_or_shorter_than_listed_gives_way_to_the_next_upstream() {
    let length = 2 * MIB;
    for sent in [length - 1, length + 1, MIB, 9 * MIB] {
        for expect in [listing(Kind::Sha256, length), only_length(length)] {
            let scene = scene(chunked(file(sent)), file(length)).await;
            scene.assert_right(scene.job_of(expect), length).await;
            assert_eq!(scene.lies(), ["lied wrong-length"], "sent {sent}");
            assert_eq!(scene.requests(), (1, 1));
        }
    }
}

#[tokio::test]
async fn a_long_body_in_chunks_that_ends_early_is_gone_on_with_elsewhere() {
    let length = 6 * MIB + 3;
    let scene = scene(chunked(file(5 * MIB + 1)), untagged(file(length))).await;
    scene.assert_right(scene.job(length), length).await;
    assert_eq!(scene.lies(), ["lied wrong-length"]);
    let counts = scene.two.counts(PATH);
    assert!(counts.body_bytes < 2 * MIB, "only the rest was fetched: {counts:?}");
}

#[tokio::test]
async fn a_long_body_in_chunks_that_does_not_end_breaks_and_no_byte_too_many_is_taken() {
    let length = 6 * MIB;
    for expect in [listing(Kind::Md5, length), only_length(length)] {
        let scene = scene(chunked(file(1 << 40)), file(length)).await;
        let (seen, end) = scene.fetch(scene.job_of(expect.clone())).await;
        assert_eq!(end, Err(Cause::Lied("wrong-length")));
        assert!(seen.len() as u64 <= length - MIB, "{} bytes went out", seen.len());
        scene.assert_nothing_is_stored().await;
        scene.assert_right(scene.job_of(expect), length).await;
        assert_eq!(scene.requests(), (1, 1), "it is asked elsewhere then");
    }
}

#[tokio::test]
async fn a_digest_without_a_length_proves_as_well() {
    for length in [MIB + 1, 4 * MIB, 7 * MIB] {
        for framing in [Framing::Chunked, Framing::Length] {
            let expect = || Expectation { length: None, ..listing(Kind::Sha1, length) };
            let good = Script { framing, ..file(length) };
            let scene = scene(Script { seed: WRONG, ..good.clone() }, good).await;
            let (seen, end) = scene.fetch(scene.job_of(expect())).await;
            if end.is_err() {
                assert!(length >= 4 * MIB && seen.len() as u64 <= length - MIB, "{length}: {}", seen.len());
                scene.assert_nothing_is_stored().await;
                scene.assert_right(scene.job_of(expect()), length).await;
            } else {
                assert!(length <= 4 * MIB && seen == right(length));
            }
            assert_eq!(scene.lies(), ["lied wrong-digest"]);
            assert_eq!(scene.requests(), (1, 1));
        }
    }
}

#[tokio::test]
async fn a_listed_file_that_one_upstream_lacks_comes_from_the_next() {
    for status in [404, 410] {
        let scene = scene(Script::status(status, &[]), file(1_000)).await;
        scene.assert_right(scene.job(1_000), 1_000).await;
    }
}

#[tokio::test]
async fn that_a_listed_file_is_nowhere_is_not_believed_for_a_moment() {
    let scene = scene(Script::status(404, &[]), Script::status(410, &[])).await;
    // Somebody asked before it was listed.
    drop(scene.fetch(scene.bench.job(PATH)).await);
    assert!(scene.bench.fills.negative(&scene.bench.job(PATH).key).is_some());
    assert_eq!(scene.fetch(scene.job(1_000)).await.1, Err(Cause::NotThere));
    scene.one.set(PATH, file(1_000));
    scene.assert_right(scene.job(1_000), 1_000).await;
    assert!(scene.bench.fills.negative(&scene.bench.job(PATH).key).is_none());
}

#[tokio::test]
async fn a_listed_body_without_validators_is_gone_on_with_elsewhere_and_another_is_not() {
    for length in [3 * MIB, 6 * MIB] {
        let at = length - 200_000;
        let breaking = || untagged(file(length)).breaking(at, How::Finish, usize::MAX);
        let listed = scene(breaking(), untagged(file(length))).await;
        listed.assert_right(listed.job(length), length).await;
        assert_eq!(listed.two.counts(PATH).ranges.len(), 1);
        assert!(listed.two.counts(PATH).body_bytes < 300_000);
        assert!(!listed.bench.notes("resumed").is_empty());

        let unlisted = scene(breaking(), untagged(file(length))).await;
        let (_, end) = unlisted.fetch(unlisted.bench.job(PATH)).await;
        assert_eq!(end, Err(Cause::Changed));
        assert!(unlisted.bench.store.find(&unlisted.key()).await.is_none());
    }
}

#[tokio::test]
async fn the_same_file_under_another_tag_goes_on_because_its_digest_proves_it() {
    let length = 6 * MIB;
    let breaking = file(length).breaking(5 * MIB + 9, How::Reset, usize::MAX);
    let scene = scene(breaking, Script { etag: Some("\"other\"".to_owned()), ..file(length) }).await;
    scene.assert_right(scene.job(length), length).await;
    assert_eq!(scene.two.counts(PATH).ranges.len(), 1);
}

#[tokio::test]
async fn a_rest_that_does_not_fit_is_found_by_the_overlap_or_by_the_digest() {
    let length = 3 * MIB;
    let wrong = || untagged(Script::file(WRONG, length)).breaking(2 * MIB, How::Finish, usize::MAX);
    // The overlap tells that they are not the same; then the other one alone is right.
    let scene = scene(wrong(), untagged(file(length))).await;
    scene.assert_right(scene.job(length), length).await;
    // A part of another total length is no part of it.
    let broken = untagged(file(length)).breaking(2 * MIB, How::Finish, 1);
    let total = Script { ranges: Ranges::Total(length + 1), ..broken };
    let scene = with_options(
        Options { resume_for: Duration::from_secs(5), ..Options::default() },
        total,
        untagged(file(length)),
    )
    .await;
    scene.assert_right(scene.job(length), length).await;
    assert_eq!(scene.lies(), ["lied wrong-length"]);
}

#[tokio::test]
async fn an_unfinished_listed_body_without_validators_is_gone_on_with_by_the_next_fill() {
    let length = 24 * MIB;
    let options = Options { linger: Duration::from_millis(100), finish_below: MIB, ..Options::default() };
    let slow = Script { rate: Some(16 * MIB), ..untagged(file(length)) };
    let scene = with_options(options, slow, Script::status(500, &[])).await;
    let seat = scene.bench.fills.join(scene.job(length));
    let Outcome::Streaming(opened) = seat.outcome().await else { panic!("it is too long to be held back") };
    let mut follow = seat.read(0, opened.length);
    fills::next(&mut follow).await.unwrap();
    drop(follow);
    eventually("it is paused", async || scene.bench.notes("ended abandoned").len() == 1).await;
    let before = scene.one.counts(PATH).body_bytes;
    scene.assert_right(scene.job(length), length).await;
    let counts = scene.one.counts(PATH);
    assert_eq!(counts.ranges.len(), 1);
    assert!(counts.body_bytes < before + length, "what was here is not fetched again");
}

#[tokio::test]
async fn what_is_held_back_whole_answers_ranges_and_heads_when_it_is_proven() {
    let length = 3 * MIB;
    let gate = Gate::default();
    let hold = Some(Hold { at: Some(length - 1), gate: gate.clone() });
    let scene = scene(Script { hold, ..file(length) }, Script::status(500, &[])).await;
    let seats = [(); 2].map(|()| scene.bench.fills.join(scene.job(length)));
    let [head, range] = seats;
    let mut early = Box::pin(head.outcome());
    eventually("nearly all of it is here", async || {
        scene.one.counts(PATH).body_bytes == length - 1
            && scene.bench.fills.list().iter().any(|row| row.1 == length - 1)
    })
    .await;
    let waits = tokio::time::timeout(Duration::ZERO, &mut early).await;
    assert!(waits.is_err(), "not even a head goes out");
    gate.open();
    for outcome in [early.await, range.outcome().await] {
        let Outcome::Settled(Settled::Entry { entry, .. }) = outcome else { panic!("it is an entry by now") };
        assert_eq!(entry.length, length);
        let (body, end) = scene.read(&entry, MIB - 5, MIB + 7).await;
        assert_eq!(end, Ok(()));
        assert!(body == content::piece(RIGHT, MIB - 5, 12));
    }
}

#[tokio::test]
async fn of_a_long_body_only_the_last_block_waits_for_the_proof() {
    let length = 6 * MIB + 100;
    let gate = Gate::default();
    let hold = Some(Hold { at: Some(length - 1), gate: gate.clone() });
    let scene = scene(Script { hold, ..file(length) }, Script::status(500, &[])).await;
    let seat = scene.bench.fills.join(scene.job(length));
    assert!(matches!(seat.outcome().await, Outcome::Streaming(_)));
    let mut tail = seat.another().read(6 * MIB, Some(6 * MIB + 10));
    let (body, end) = drain(seat.another().read(MIB, Some(6 * MIB))).await;
    assert!(end.is_ok() && body == content::piece(RIGHT, MIB, 5 << 20));
    eventually("the rest is here as well", async || {
        scene.bench.fills.list().iter().any(|row| row.1 == length - 1)
    })
    .await;
    let waits = tokio::time::timeout(Duration::from_millis(20), poll_fn(|cx| tail.poll_next(cx, 10))).await;
    assert!(waits.is_err(), "bytes of the last block went out unproven");
    gate.open();
    let (body, end) = drain(tail).await;
    assert!(end.is_ok() && body == content::piece(RIGHT, 6 * MIB, 10));
}

#[tokio::test]
async fn what_nobody_reads_gives_way_and_a_reader_makes_it_run() {
    let length = 3 * MIB;
    let scene = scene(file(length), Script::status(500, &[])).await;
    // A byte a second: without a reader it would take a month.
    let job = Job { wanted: true, pace: Some(Arc::new(Pace::new(1, 1))), ..scene.bench.job(PATH) };
    drop(scene.bench.fills.join(job));
    eventually("it has begun", async || scene.one.counts(PATH).requests == 1).await;
    eventually("bytes came", async || scene.bench.fills.list().iter().any(|row| row.2 == Some(length))).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(scene.bench.notes("ended").is_empty(), "it gives way");
    scene.assert_right(scene.bench.job(PATH), length).await;
    assert_eq!(scene.requests(), (1, 0));
}

#[tokio::test]
async fn a_listed_file_is_public_whatever_its_origin_says() {
    for (name, value) in
        [("cache-control", "no-store"), ("cache-control", "private, max-age=5"), ("set-cookie", "lb=7")]
    {
        let headers = vec![(name.to_owned(), value.to_owned())];
        let scene = scene(Script { headers, ..file(2_000) }, Script::status(500, &[])).await;
        scene.assert_right(scene.job(2_000), 2_000).await;
        assert!(scene.bench.store.find(&scene.key()).await.is_some(), "{name}: {value}");
    }
    // It may depend on who asks: proven for whoever asked, and not kept.
    let headers = vec![("vary".to_owned(), "*".to_owned())];
    let scene = scene(Script { headers, seed: WRONG, ..file(2_000) }, file(2_000)).await;
    scene.assert_right(scene.job(2_000), 2_000).await;
    assert_eq!(scene.lies(), ["lied wrong-digest"]);
    scene.bench.store.remove(&scene.key());
    let headers = vec![("vary".to_owned(), "*".to_owned())];
    scene.two.set(PATH, Script { headers, ..file(2_000) });
    scene.assert_right(scene.job(2_000), 2_000).await;
    scene.assert_nothing_is_stored().await;
}

#[tokio::test]
async fn a_coded_body_is_no_listed_file() {
    let headers = vec![("content-encoding".to_owned(), "gzip".to_owned())];
    let scene = scene(Script { headers, ..file(2_000) }, file(2_000)).await;
    scene.assert_right(scene.job(2_000), 2_000).await;
    assert_eq!(scene.lies(), ["lied content-coding"]);
}

#[tokio::test]
async fn a_job_may_name_its_upstream_send_a_header_and_pin_its_entry() {
    let scene = scene(file(1_000), file(1_000)).await;
    let mut job = Job { only: Some(scene.two.url()), pinned: true, ..scene.job(1_000) };
    job.ask_headers.insert("x-generation", "g7".parse().unwrap());
    scene.assert_right(job, 1_000).await;
    assert_eq!(scene.requests(), (0, 1));
    assert!(scene.two.heads()[0].contains("x-generation: g7"), "{:?}", scene.two.heads());
    assert!(scene.bench.store.find(&scene.key()).await.unwrap().pinned);
    // Nobody else is asked, not even for the rest.
    scene.bench.store.remove(&scene.key());
    scene.two.set(PATH, Script::status(404, &[]));
    let job = Job { only: Some(scene.two.url()), ..scene.job(1_000) };
    assert_eq!(scene.fetch(job).await.1, Err(Cause::NotThere));
    assert_eq!(scene.one.counts(PATH).requests, 0);
}
