//! The parsers of what strangers write, against the corpora of the fuzz targets and seeded mutations of them.
//!
//! `WAYPOST_MUTATIONS=100000 cargo test --test parsers` looks longer; `WAYPOST_SEED=7` elsewhere.

#![expect(clippy::expect_used, clippy::panic, reason = "a test may stop at the first broken assumption")]

#[path = "fuzz/targets.rs"]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::{env, fs};

/// A fuzz target.
type Target = fn(&[u8]);

/// All of them, by the name of their corpus.
const TARGETS: [(&str, Target); 18] = [
    ("replica_log", targets::replica_log),
    ("site_stat", targets::site_stat),
    ("pointers", targets::pointers),
    ("in_release", targets::in_release),
    ("packages", targets::packages),
    ("cvd_header", targets::cvd_header),
    ("checksums", targets::checksums),
    ("target", targets::target),
    ("range", targets::range),
    ("sitelist", targets::sitelist),
    ("expression", targets::expression),
    ("config", targets::config),
    ("documents", targets::documents),
    ("check_in", targets::check_in),
    ("report", targets::report),
    ("frame", targets::frame),
    ("bundle", targets::bundle),
    ("reply_head", targets::reply_head),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

/// The files of a corpus, in the order of their names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder().join("corpus").join(target)).expect("a corpus");
    let mut files: Vec<(String, Vec<u8>)> = entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            (path.display().to_string(), fs::read(&path).expect("readable"))
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{target} has no corpus");
    files
}

#[test]
fn the_corpora_are_read_without_a_panic() {
    for (name, target) in TARGETS {
        for (file, body) in corpus(name) {
            run(target, &body, &file);
        }
    }
}

#[test]
fn mutations_are_read_without_a_panic() {
    let number = |name: &str, default: u64| -> u64 {
        env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let (seed, rounds) = (number("WAYPOST_SEED", 1), number("WAYPOST_MUTATIONS", 2_000));
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        for round in 0..rounds {
            let mut random = Random(seed.wrapping_mul(1_000_003).wrapping_add(round));
            let mut body = random.pick(&corpus).1.clone();
            for _ in 0..=random.below(3) {
                mutate(&mut body, &corpus, &mut random);
            }
            run(target, &body, &format!("{name}: WAYPOST_SEED={seed}, round {round}"));
        }
    }
}

#[test]
fn every_corpus_has_its_target_and_its_program() {
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    let manifest = fs::read_to_string(folder().join("Cargo.toml")).expect("readable");
    for name in &names {
        let program = format!("path = \"fuzz_targets/{name}.rs\"");
        assert!(manifest.contains(&program), "{name} has no program");
        let source = fs::read_to_string(folder().join(format!("fuzz_targets/{name}.rs"))).expect("readable");
        assert!(source.contains(&format!("targets::{name}(")), "{name}.rs runs something else");
    }
    for entry in fs::read_dir(folder().join("corpus")).expect("the corpora") {
        let name = entry.expect("an entry").file_name();
        assert!(names.iter().any(|known| **known == *name), "nobody reads {}", name.display());
    }
}

/// Runs a target and says what it ran on where it panics.
fn run(target: Target, body: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| target(body))).is_err() {
        panic!("{what}: {}", String::from_utf8_lossy(body.get(..2_000).unwrap_or(body)).escape_debug());
    }
}

/// xorshift64*: small, and the same everywhere.
struct Random(u64);

impl Random {
    const fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).expect("a length");
        usize::try_from(self.next() % bound).expect("less than a length")
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        from.get(self.below(from.len())).expect("not empty")
    }
}

/// Pieces that mean something to one parser or another.
const PIECES: [&[u8]; 16] = [
    b"\0",
    b"\r\n\r\n",
    b"../",
    b"\xff",
    b"18446744073709551616",
    b"-1",
    b"[ITEM_1]\nName=x\n",
    b"\\",
    b"%2e%2e%2f",
    b"<!ENTITY",
    b"- -",
    b":",
    b"=",
    b" ",
    b"\n ",
    b"\xef\xbb\xbf",
];

/// One change: a bit, a piece put in, a stretch cut out, doubled or taken from another file.
fn mutate(body: &mut Vec<u8>, corpus: &[(String, Vec<u8>)], random: &mut Random) {
    let (one, two) = (random.below(body.len() + 1), random.below(body.len() + 1));
    let (from, to) = (one.min(two), one.max(two));
    match random.below(6) {
        0 => {
            if let Some(byte) = body.get_mut(from) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => drop(body.splice(from..from, random.pick(&PIECES).iter().copied())),
        2 => drop(body.drain(from..to.min(from + 40))),
        3 => {
            let stretch: Vec<u8> = body.get(from..to).expect("within").to_vec();
            drop(body.splice(to..to, stretch));
        }
        4 => body.truncate(to),
        _ => {
            let other = &random.pick(corpus).1;
            let at = random.below(other.len());
            let stretch = other.get(at..).expect("within").to_vec();
            drop(body.splice(from..to, stretch));
        }
    }
}
