//! What the pure rules cost: on the path of a hit (target, door, range, verdict, answer head), and when a catalogue
//! changes (an index of Debian's size).

#![expect(clippy::unwrap_used, reason = "a bench stops where its set-up is wrong")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Request, Uri};
use waypost::base::clock::Timestamp;
use waypost::base::digest::Digest;
use waypost::cache::verdict::{ClientWish, Known, Question, UpstreamState, decide};
use waypost::cache::{Head, Prepared};
use waypost::protocol::cache_status::CacheStatus;
use waypost::protocol::range::{decide_range, parse_range};
use waypost::protocol::request::{Door, check_request};
use waypost::protocol::target::parse_target;
use waypost::protocol::validators::decide_conditional;
use waypost::repository::expectation::{Algorithm, Expectation};
use waypost::repository::listing::Listing;
use waypost::repository::preset::preset_named;
use waypost::repository::rules::{Effective, Rule, Rules};

const PATH: &str = "/Software/Current/VSCANDAT1000/DAT/0000/avv11230.zip";

fn head() -> Head {
    let fields = [
        ("content-type", "application/zip"),
        ("etag", "\"5f3c-61a2b\""),
        ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("cache-control", "public, max-age=3600, stale-if-error=86400"),
        ("date", "Sun, 06 Nov 1994 09:49:37 GMT"),
    ];
    Head {
        status: 200,
        headers: fields.map(|(name, value)| (name.to_owned(), value.into())).to_vec(),
        requested_at: Timestamp(784_115_377_000),
        received_at: Timestamp(784_115_377_100),
        ..Head::default()
    }
}

fn requests(bench: &mut Criterion) {
    let plain: Uri = PATH.parse().unwrap();
    let escaped: Uri = "/Software/a%20b/%7euser/x.zip".parse().unwrap();
    bench.bench_function("target/canonical", |b| b.iter(|| parse_target(black_box(&plain)).is_ok()));
    bench.bench_function("target/escaped", |b| b.iter(|| parse_target(black_box(&escaped)).is_ok()));

    let parts = Request::get(PATH).header("host", "branch-7.example:8443").body(()).unwrap().into_parts().0;
    let names = ["branch-7.example".to_owned()];
    let door = Door { sni: Some("branch-7.example"), names: &names, body: false };
    bench.bench_function("door", |b| b.iter(|| check_request(black_box(&parts), &door).is_ok()));

    let mut ranged = HeaderMap::new();
    ranged.insert("range", HeaderValue::from_static("bytes=1048576-2097151"));
    bench.bench_function("range/one", |b| {
        b.iter(|| decide_range(&parse_range(black_box(&ranged)), 52_428_800));
    });
    let flood: Vec<String> = (0..1_000).map(|at| format!("{at}-{}", at + 5)).collect();
    ranged.insert("range", HeaderValue::try_from(format!("bytes={}", flood.join(","))).unwrap());
    bench.bench_function("range/flood of 1,000", |b| {
        b.iter(|| decide_range(&parse_range(black_box(&ranged)), 52_428_800));
    });
}

fn rules(bench: &mut Criterion) {
    let none = Rules::default();
    let patterns = ["*.ini", "/Software/Current/catalog.z", "**/DAT/**/*.zip", "*.exe"];
    let some = Rules::compile(
        patterns
            .map(|pattern| Rule { pattern: pattern.into(), immutable: Some(true), ..Rule::default() })
            .to_vec(),
    )
    .unwrap();
    bench.bench_function("rules/none", |b| b.iter(|| *none.effective(black_box(PATH))));
    bench.bench_function("rules/four, third matches", |b| b.iter(|| *some.effective(black_box(PATH))));
}

fn answers(bench: &mut Criterion) {
    let (head, digest) = (head(), Digest::of(b"x"));
    let prepared = Prepared::of(&head, 52_428_800, Some(&digest));
    let effective = Effective::default();
    let question = Question {
        entry: Some(Known { prepared: &prepared, stale: false }),
        effective: &effective,
        wish: ClientWish::default(),
        upstream: UpstreamState::Up,
        now: head.received_at.after(Duration::from_secs(60)),
    };
    bench.bench_function("verdict/hit", |b| b.iter(|| decide(black_box(&question))));

    let mut conditional = HeaderMap::new();
    conditional.insert("if-none-match", HeaderValue::from_static("\"5f3c-61a2b\""));
    bench.bench_function("conditional/etag", |b| {
        b.iter(|| decide_conditional(black_box(&conditional), &prepared.validators));
    });
    bench.bench_function("prepared/make", |b| b.iter(|| Prepared::of(black_box(&head), 1, Some(&digest))));
    bench.bench_function("prepared/clone headers", |b| {
        b.iter_batched(|| (), |()| black_box(&prepared.headers).clone(), BatchSize::SmallInput);
    });
    let status = CacheStatus {
        node: "branch-7",
        hit: true,
        ttl: Some(3_540),
        detail: Some("hit"),
        ..CacheStatus::default()
    };
    bench.bench_function("cache-status/hit", |b| b.iter(|| black_box(&status).render()));
}

/// Packages of the main archive of Debian, one architecture.
const PACKAGES: u32 = 60_000;

fn catalogues(bench: &mut Criterion) {
    let mut index = String::new();
    for at in 0..PACKAGES {
        let digest = Digest::of(&at.to_be_bytes());
        let text = "A line of a description, as long as they are.\n ".repeat(8);
        let _ = write!(
            index,
            "Package: package-{at}\nVersion: 1.{at}\nArchitecture: amd64\nDepends: libc6 (>= 2.34), libgcc-s1\n\
             Description: {text}end\nFilename: pool/main/p/package-{at}/package-{at}_1.{at}_amd64.deb\nSize: {at}\n\
             SHA256: {digest}\n\n"
        );
    }
    let apt = preset_named("apt").unwrap();
    let read = || {
        let mut listing = Listing::default();
        let (root, path) = ("dists/stable/InRelease", "dists/stable/main/binary-amd64/Packages");
        apt.read(root, path, black_box(index.as_bytes()), &mut listing).unwrap();
        listing
    };
    assert_eq!(read().len(), PACKAGES as usize, "everything is an entry");
    let megabytes = index.len() >> 20;
    let mut group = bench.benchmark_group("catalogue");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    group.bench_function(format!("Packages of 60,000 entries, {megabytes} MiB"), |b| b.iter(read));
    let hex = Digest::of(b"x").to_string();
    group.bench_function("expectation/digest", |b| {
        b.iter(|| Expectation::digest(Algorithm::Sha256, black_box(&hex)));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = requests, rules, answers, catalogues
}
criterion_main!(benches);
