//! What is fuzzed: everything that reads what a stranger wrote. Each takes any bytes, must come back without a panic,
//! and checks what must hold of whatever it believed. `tests/parsers.rs` replays the corpora through the same
//! functions, so that a finding stays found on a stable compiler.

#![expect(clippy::expect_used, reason = "a panic is what is looked for")]

use std::path::Path;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde::Serialize;
use serde::de::DeserializeOwned;
use waypost::base::clock::Timestamp;
use waypost::config;
use waypost::control::{Bundle, Command, Index, Outcome};
use waypost::fleet::sitelist::{parse, render};
use waypost::fleet::{AgentId, Documents, Facts, compile, import};
use waypost::presence::{Report, Reported};
use waypost::protocol::agent_api::{CheckIn, CheckedIn, Message, OldSequence, Poll, Polled, Probed};
use waypost::protocol::cache_control::CacheControl;
use waypost::protocol::freshness::{assess, merge_304};
use waypost::protocol::range::{RangeAnswer, decide_range, parse_range};
use waypost::protocol::target::{decode_path, parse_target};
use waypost::protocol::validators::{
    EntityTag, Validators, decide_conditional, decide_if_range, same_representation,
};
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

/// A configuration is refused with places in it that can be shown, or is one; what is shown of it again never has a
/// password.
pub(crate) fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match config::check_text("waypost.toml", text, Path::new("/nowhere")) {
        Ok((_, warnings)) => drop(warnings.to_string()),
        Err(wrong) => assert!(!wrong.to_string().is_empty()),
    }
}

/// Documents of a fleet, one after the other behind lines with their names: refused with places, or a fleet that tells
/// an agent something that can be read again.
pub(crate) fn documents(data: &[u8]) {
    let mut documents = Documents::default();
    for part in data.split(|byte| *byte == b'\x0c') {
        let end = part.iter().position(|byte| *byte == b'\n').unwrap_or(part.len());
        let (name, body) = part.split_at(end);
        let body = body.get(1..).unwrap_or_default();
        // What is no document's name is the file most people write.
        let name =
            std::str::from_utf8(name).ok().filter(|name| Documents::wants(name)).unwrap_or("fleet.toml");
        let _ = documents.insert(name, Bytes::copy_from_slice(body));
    }
    let compiled = compile(&documents);
    assert!(compiled.fleet.is_some() || compiled.errors() > 0);
    let _ = compiled.render(false);
    let Some(fleet) = compiled.fleet else { return };
    let mut facts = Facts::of(AgentId::parse("pc-1").expect("an id"));
    facts.addresses.push([10, 0, 0, 1].into());
    facts.tags.push("laptop".to_owned());
    let (list, explained) = (fleet.sitelist(&facts, 7), fleet.explain(&facts));
    let text = render(&list);
    assert!(parse(text.as_bytes()).is_ok() || text.len() > 256 << 10, "{text}");
    assert!(!explained.to_string().is_empty());
    let _ = fleet.policies(&facts).digest();
}

/// What was understood says the same when it is said again.
fn again<T: DeserializeOwned + Serialize>(data: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(data).ok()?;
    let said = serde_json::to_vec(&value).expect("it can be said");
    let understood: T = serde_json::from_slice(&said).expect("it can be understood again");
    assert_eq!(serde_json::to_vec(&understood).expect("it can be said"), said);
    Some(value)
}

/// A check-in is refused, or within its bounds.
pub(crate) fn check_in(data: &[u8]) {
    if let Some(said) = again::<CheckIn>(data)
        && said.check().is_ok()
    {
        let shown = serde_json::to_vec(&said).expect("it can be said");
        assert!(shown.len() < 2 << 20, "{} bytes are kept of it", shown.len());
        assert!(said.boot.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert!(!said.properties.host.contains(char::is_control));
    }
}

/// Reports of nodes below, and commands of nodes above.
pub(crate) fn report(data: &[u8]) {
    let _ = (again::<Report>(data), again::<Reported>(data));
    let _ = (again::<Command>(data), again::<Outcome>(data));
}

/// What agents and handlers say to each other beside check-ins: frames of the channel, polls, answers.
pub(crate) fn frame(data: &[u8]) {
    let _ = (again::<Message>(data), again::<Poll>(data), again::<Polled>(data), again::<CheckedIn>(data));
    let _ = (again::<Probed>(data), again::<OldSequence>(data));
}

/// The index of a bundle is refused, or names only documents; bytes that are not what it says make none of it.
pub(crate) fn bundle(data: &[u8]) {
    let Some(index) = again::<Index>(data) else { return };
    let _ = index.tag();
    if index.check().is_ok() {
        assert!(index.documents.iter().all(|item| Documents::wants(&item.name)));
        let none = index.documents.is_empty();
        assert_eq!(Bundle::assemble(index.clone(), |_| None).is_ok(), none);
        let wrong = Bundle::assemble(index, |_| Some(Bytes::from_static(b"something else")));
        assert_eq!(wrong.is_ok(), none);
    }
}

/// The head of a reply: what it says of its age, its identity and what may be kept is a number, not a panic.
pub(crate) fn reply_head(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(100) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    let now = Timestamp(1_800_000_000_000);
    for status in [200, 203, 206, 304, 404, 410, 503] {
        let facts = assess(&HeaderMap::new(), status, &headers, now, now);
        assert!(facts.age(now) <= facts.age(Timestamp(now.0 + 1)));
        let _ = facts.fresh_until();
    }
    let _ = CacheControl::of(&headers);
    let validators = Validators::of(&headers);
    let _ = (decide_conditional(&headers, &validators), decide_if_range(&headers, &validators));
    let _ = same_representation(&validators, &validators);
    if let Some(tag) = EntityTag::parse(data) {
        let value = tag.to_value().expect("it was in a header, or could have been");
        assert_eq!(EntityTag::parse(value.as_bytes()), Some(tag));
    }
    let stored: Vec<(String, Vec<u8>)> =
        headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect();
    assert!(merge_304(&stored, &headers).len() <= 2 * stored.len());
}
