//! What is fuzzed: everything that reads what a stranger wrote. Each takes any bytes, must come back without a panic,
//! and checks what must hold of whatever it believed. `tests/parsers.rs` replays the corpora through the same
//! functions, so that a finding stays found on a stable compiler.

#![expect(clippy::expect_used, reason = "a panic is what is looked for")]

use http::{HeaderMap, HeaderValue, Uri};
use waypost::fleet::import;
use waypost::fleet::sitelist::{parse, render};
use waypost::protocol::range::{RangeAnswer, decide_range, parse_range};
use waypost::protocol::target::{decode_path, parse_target};
use waypost::repository::listing::{Kind, Listing};
use waypost::repository::preset::preset_named;

pub(crate) fn replica_log(data: &[u8]) {
    catalogue("epo", "SiteStat.xml", "Current/Replica.log", data);
}

pub(crate) fn site_stat(data: &[u8]) {
    catalogue("epo", "SiteStat.xml", "SiteStat.xml", data);
}

pub(crate) fn pointers(data: &[u8]) {
    catalogue("epo", "SiteStat.xml", "Current/avvdat.ini", data);
    catalogue("epo", "SiteStat.xml", "Current/gdeltaavv.ini", data);
}

pub(crate) fn in_release(data: &[u8]) {
    catalogue("apt", "debian/dists/stable/InRelease", "debian/dists/stable/InRelease", data);
}

pub(crate) fn packages(data: &[u8]) {
    catalogue("apt", "dists/stable/InRelease", "dists/stable/main/binary-amd64/Packages", data);
}

pub(crate) fn cvd_header(data: &[u8]) {
    catalogue("clamav", "test.cvd", "test.cvd", data);
}

pub(crate) fn checksums(data: &[u8]) {
    catalogue("generic", "d/SHA256SUMS", "d/SHA256SUMS", data);
    catalogue("generic", "SHA512SUMS", "SHA512SUMS", data);
}

/// Reads a catalogue, and checks every name that is believed: it is the canonical path of a file below the
/// repository, as a request for it would be spelled, and its folded name is found again.
fn catalogue(preset: &str, root: &str, path: &str, data: &[u8]) {
    let preset = preset_named(preset).expect("a preset");
    let mut listing = Listing::default();
    if let Err(error) = preset.read(root, path, data, &mut listing) {
        let shown = error.to_string();
        assert!(
            !error.reason.is_empty() && shown.len() < 1_000 && !shown.contains(char::is_control),
            "{shown:?}"
        );
        return;
    }
    for (name, listed) in listing.files() {
        let decoded = decode_path(&listed.path);
        assert!(!decoded.contains(['\\', '\0']) && !decoded.starts_with('/'), "{decoded:?}");
        assert!(decoded.split('/').all(|part| !matches!(part, "" | "." | "..")), "{decoded:?}");
        assert_eq!(decoded.matches('/').count(), listed.path.matches('/').count());
        assert_eq!(preset.fold(&listed.path), name);
        assert_eq!(preset.fold(name), name);
        assert!(listed.expectation.length.is_none_or(|length| length <= 1 << 40));
        assert!(listed.kind != Kind::Delta || preset.is_delta(&listed.path));
        let _ = (preset.root_of(&listed.path), preset.is_catalogue(&listed.path));
    }
}

/// A target is refused, or stays within its folder and is canonical when read again.
pub(crate) fn target(data: &[u8]) {
    let Ok(uri) = Uri::try_from(data) else { return };
    let Ok(target) = parse_target(&uri) else { return };
    let decoded = decode_path(target.path());
    assert!(decoded.split('/').skip(1).all(|part| !matches!(part, "." | "..")), "{decoded:?}");
    assert!(!decoded.contains(['\\', '\0']), "{decoded:?}");
    let again: Uri = target.path().parse().expect("a canonical path is a target");
    assert_eq!(parse_target(&again).expect("still right").path(), target.path());
}

/// Ranges that are granted lie within the body, are not empty and do not touch each other.
pub(crate) fn range(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let mut headers = HeaderMap::new();
    headers.insert(http::header::RANGE, value);
    let wish = parse_range(&headers);
    for length in [0, 1, 10_000, u64::MAX] {
        check_answer(&decide_range(&wish, length), length);
    }
}

fn check_answer(answer: &RangeAnswer, length: u64) {
    let parts = match answer {
        RangeAnswer::One(part) => std::slice::from_ref(part),
        RangeAnswer::Many(parts) => parts,
        RangeAnswer::Whole | RangeAnswer::Unsatisfiable => return,
    };
    assert!(parts.len() <= 16, "{parts:?}");
    assert!(parts.iter().all(|part| part.start < part.end && part.end <= length), "{parts:?}");
    assert!(parts.windows(2).all(|pair| matches!(pair, [one, two] if one.end < two.start)), "{parts:?}");
}

/// A sitelist is refused, or written without a credential and read again as it was.
pub(crate) fn sitelist(data: &[u8]) {
    let Ok(list) = parse(data) else { return };
    assert!(list.sites.len() <= 1_000);
    let text = render(&list);
    // Escapes can make a list longer than it was.
    if text.len() <= 256 << 10 {
        assert_eq!(parse(text.as_bytes()).as_ref(), Ok(&list), "{text}");
    }
    assert_eq!(text.matches("<Password").count(), list.sites.len());
}

/// An expression is understood or refused, and rules of an export are TOML.
pub(crate) fn expression(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(alternatives) = import::expression::parse(text)
    {
        assert!((1..=64).contains(&alternatives.len()));
    }
    if let Ok(imported) = import::import(data) {
        let lines = imported.toml.lines().filter(|line| line.starts_with("[[rule]]"));
        assert!(lines.count() >= imported.rules);
    }
}
