//! Rules about the code itself: who may know whom, where a third-party type stops, what pure code may not do, how
//! long a file may be, what may not be left behind.
//!
//! Looks at the text of the source, with comments and literals blanked. Test code is left out except where a rule
//! says otherwise: a test may look anywhere.

#![expect(clippy::expect_used, reason = "a test may stop at the first broken assumption")]

#[path = "source/text.rs"]
mod text;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use text::{
    RUST_FILES, SOURCES, Source, find_word, is_part_of_word, line_of, names_crate, root, roots_named, texts,
};

/// Each module and the modules it may name. A row may name only rows above it, so that arrows point down.
const MAY_USE: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("protocol", &["base"]),
    ("repository", &["base", "protocol"]),
    ("cache", &["base", "protocol", "repository"]),
    ("fleet", &["base"]),
    ("store", &["base", "cache"]),
    ("upstream", &["base", "protocol"]),
    ("server", &["base"]),
    ("telemetry", &["base"]),
    ("fill", &["base", "protocol", "cache", "repository", "store", "upstream", "telemetry"]),
    ("stage", &["base", "protocol", "cache", "repository", "store", "fill", "upstream"]),
    ("proxy", &["base", "protocol", "cache", "repository", "store", "fill", "stage", "server", "telemetry"]),
    ("presence", &["base", "protocol", "fleet", "server", "telemetry"]),
    ("control", &["base", "protocol", "fleet", "upstream", "server"]),
    ("admin", &["base", "telemetry"]),
    ("agent", &["base", "protocol", "repository", "fleet"]),
    ("config", &["base", "protocol", "repository", "fleet", "agent"]),
    ("demo", &["base", "protocol", "repository", "agent"]),
    ("cli", &["base", "fleet", "admin", "agent", "config"]),
    (
        "app",
        &[
            "base",
            "protocol",
            "cache",
            "repository",
            "fleet",
            "store",
            "upstream",
            "server",
            "telemetry",
            "fill",
            "stage",
            "proxy",
            "presence",
            "control",
            "admin",
            "agent",
            "config",
            "demo",
            "cli",
        ],
    ),
    // Doubles for tests look anywhere, and no row above names them.
    (
        "testkit",
        &[
            "base",
            "protocol",
            "repository",
            "cache",
            "store",
            "upstream",
            "server",
            "telemetry",
            "fill",
            "proxy",
            "config",
            "app",
        ],
    ),
    ("main", &["cli", "app"]),
];

/// Modules that take facts and `now` and return decisions.
const PURE: &[&str] = &["base", "protocol", "repository", "cache", "fleet"];

/// Pure files in modules that are not: the endpoint decides in some and does I/O in others.
const PURE_FILES: &[&str] = &[
    "agent/fallback.rs",
    "agent/names.rs",
    "agent/pace.rs",
    "agent/places.rs",
    "agent/plan.rs",
    "agent/select.rs",
];

/// What pure code does not do: wait, do I/O, lock, read a clock, log.
const IMPURE: &[&str] = &[
    "async ",
    ".await",
    "tokio::",
    "std::fs",
    "std::io",
    "std::net::Tcp",
    "std::net::Udp",
    "std::os",
    "std::thread",
    "std::process",
    "std::env",
    "parking_lot::",
    "Mutex",
    "RwLock",
    "Condvar",
    "Instant::now",
    "SystemTime::now",
    "tracing::",
    "println!",
    "eprintln!",
];

/// The one place that reads the clock; everybody else is given the time. And the one that unpacks: decoders of bytes in
/// memory speak the traits of I/O.
const IMPURE_ANYWAY: &[(&str, &str)] = &[
    ("base/clock.rs", "SystemTime::now"),
    ("base/clock.rs", "Instant::now"),
    ("repository/preset/apt/unpack.rs", "std::io"),
    // Nothing at all in a release binary.
    ("base/crash.rs", "std::env"),
    ("base/crash.rs", "std::process"),
];

/// Crates and where they may be named: a module (`store/`) or a file.
const ADAPTERS: &[(&str, &[&str])] = &[
    ("annotate_snippets", &["base/report/render.rs"]),
    ("anstream", &["cli/talk.rs", "demo/"]),
    ("anyhow", &["app", "cli/", "demo/"]),
    ("axum", &["admin/"]),
    ("cacache", &["store/"]),
    ("clap", &["cli/"]),
    ("clap_complete", &["cli/"]),
    ("clap_mangen", &["cli/"]),
    ("flate2", &["repository/preset/apt/unpack.rs"]),
    ("futures_util", &["agent/channel.rs", "presence/channel.rs", "testkit/"]),
    ("globset", &["config/rules.rs", "repository/pattern.rs", "repository/rules.rs"]),
    ("http_cache_semantics", &["protocol/freshness.rs"]),
    ("httpdate", &["protocol/"]),
    (
        "hyper",
        &[
            "agent/link.rs",
            "server/",
            "upstream/",
            "proxy/",
            "app/door.rs",
            "admin/",
            "cli/client/",
            "demo/",
            "testkit/",
            "telemetry/otlp/",
        ],
    ),
    (
        "hyper_util",
        &[
            "agent/link.rs",
            "server/",
            "upstream/",
            "admin/",
            "cli/client/",
            "demo/",
            "testkit/",
            "telemetry/otlp/",
        ],
    ),
    ("indicatif", &["cli/bars.rs", "demo/cache/progress.rs"]),
    ("libc", &["server/ttl.rs"]),
    ("listenfd", &["app/systemd.rs"]),
    ("lzma_rust2", &["repository/preset/apt/unpack.rs"]),
    ("md5", &["base/proof.rs"]),
    ("tikv_jemallocator", &["main"]),
    ("moka", &["store/"]),
    ("postcard", &["cache/record.rs"]),
    ("prometheus_client", &["telemetry/"]),
    ("rcgen", &["demo/pki.rs", "testkit/pki.rs"]),
    ("redb", &["presence/ledger.rs", "presence/ledger/", "store/"]),
    (
        "rustls",
        &[
            "agent/link.rs",
            "admin/tls.rs",
            "cli/client/",
            "server/tls.rs",
            "upstream/",
            "demo/",
            "testkit/",
            "telemetry/otlp/",
        ],
    ),
    ("rustls_native_certs", &["agent/link.rs", "cli/client/", "upstream/tls.rs", "telemetry/otlp/"]),
    ("sha1", &["base/proof.rs"]),
    ("sha2", &["base/digest.rs", "base/proof.rs"]),
    ("socket2", &["server/", "upstream/", "testkit/"]),
    (
        "tokio_rustls",
        &[
            "agent/link.rs",
            "admin/tls.rs",
            "cli/client/",
            "server/tls.rs",
            "upstream/",
            "demo/",
            "testkit/",
            "telemetry/otlp/",
        ],
    ),
    ("toml", &["base/report/reader.rs"]),
    ("tokio_tungstenite", &["agent/channel.rs", "agent/link.rs", "presence/channel.rs", "testkit/"]),
    ("tracing_subscriber", &["telemetry/"]),
    ("xxhash_rust", &["store/"]),
];

/// Calls of the system that have no safe wrapper; each file says which one, and why.
const UNSAFE_ANYWAY: &[&str] = &["server/ttl.rs"];

/// Lines of code in a file of the product, comments, blank lines and tests not counted.
const FILE_LINES: usize = 400;

/// Left-overs that have no place in the source. In two parts, so that this file does not find itself.
const LEFT_OVERS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
];

/// Directories of somebody's machine; in two parts as well.
const MACHINE: &[&str] = &[
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/Us", "ers/"),
    concat!("/t", "mp/"),
    concat!("/wo", "rk/"),
];

#[test]
fn arrows_point_down() {
    for (row, (module, named)) in MAY_USE.iter().enumerate() {
        let above: Vec<&str> = MAY_USE.iter().take(row).map(|(module, _)| *module).collect();
        for name in *named {
            assert!(above.contains(name), "`{module}` names `{name}`, which is not above it");
        }
    }
}

#[test]
fn every_module_has_its_row() {
    let rows: BTreeSet<&str> = MAY_USE.iter().map(|(module, _)| *module).collect();
    let inhabited =
        SOURCES.iter().map(Source::module).filter(|module| module != "lib").collect::<BTreeSet<_>>();
    assert_eq!(inhabited.iter().map(String::as_str).collect::<BTreeSet<_>>(), rows);
}

#[test]
fn modules_know_only_who_they_may() {
    none(SOURCES.iter().flat_map(check_arrows));
}

#[test]
fn pure_modules_stay_pure() {
    none(SOURCES.iter().flat_map(check_purity));
}

#[test]
fn third_party_types_stop_at_their_adapter() {
    none(SOURCES.iter().flat_map(check_adapters));
}

#[test]
fn files_stay_readable() {
    none(SOURCES.iter().flat_map(check_length));
}

#[test]
fn files_begin_with_what_they_are_about() {
    none(RUST_FILES.iter().flat_map(check_head));
}

#[test]
fn there_is_no_unsafe_code() {
    none(RUST_FILES.iter().flat_map(check_unsafe));
}

#[test]
fn nothing_is_left_behind() {
    none(texts().iter().flat_map(|(path, text)| check_left_overs(path, text)));
}

#[test]
fn every_dependency_is_used() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("readable");
    let dependencies = manifest.split("[dependencies]").nth(1).and_then(|rest| rest.split("\n[").next());
    for line in dependencies.expect("a section").lines().filter(|line| !line.is_empty()) {
        let name = line.split([' ', '=']).next().unwrap_or_default().replace('-', "_");
        assert!(SOURCES.iter().any(|file| names_crate(&file.code, &name).is_some()), "{name} is not used");
    }
}

#[test]
fn a_bad_source_is_found_out() {
    let found = |path: &str, text: &str| -> Vec<String> {
        let file = Source::of(Path::new(path), text);
        let checks = [check_arrows, check_purity, check_adapters, check_head, check_unsafe, check_length];
        checks.iter().flat_map(|check| check(&file)).collect()
    };
    let good = "//! Good.\nuse crate::base::size;\n// tokio:: redb:: unsafe\nconst S: &str = \"crate::store\";\n\
                #[cfg(test)]\nmod tests {\n    use crate::app;\n    const B: &str = \"}\";\n}\n";
    assert_eq!(found("protocol/good.rs", good), [] as [&str; 0]);
    for (path, text, word) in [
        ("base/a.rs", "//! A.\nuse crate::store::Store;", "base/a.rs:2: `base` may not name `store`"),
        ("store/a.rs", "//! A.\nuse crate::{base::size, fill::{Job, Seat}};", "`store` may not name `fill`"),
        ("store/a.rs", "//! A.\nfn f(x: crate :: proxy::Plane) {}", "`store` may not name `proxy`"),
        ("store/a.rs", "//! A.\nuse super::super::fill;", "reaches the root"),
        ("store/mod.rs", "//! A.\nuse super::fill;", "reaches the root"),
        ("proxy/a.rs", "//! A.\n#[cfg(test)]\nfn t() {}\nuse crate::app::Node;", "proxy/a.rs:4"),
        ("server/a.rs", "//! A.\nuse waypost::proxy;", "`server` may not name `proxy`"),
        ("app.rs", "//! A.\nuse crate::testkit;", "`app` may not name `testkit`"),
        ("cache/a.rs", "//! A.\nasync fn f() {}", "`async `"),
        ("cache/a.rs", "//! A.\nfn f() { let now = std::time::SystemTime::now(); }", "`SystemTime::now`"),
        ("fill/a.rs", "//! A.\nuse redb::Database;", "`redb`"),
        ("fill/a.rs", "//! A.\nuse redb;", "`redb`"),
        ("server/connection.rs", "//! A.\nfn f(_: &rustls::Error) {}", "`rustls`"),
        ("fill/a.rs", "fn f() {}", "begins without"),
        ("fill/a.rs", "//! A.\n#[cfg(test)]\nmod tests { fn f() { unsafe {} } }", "fill/a.rs:3: unsafe"),
        ("fill/a.rs", &format!("//! A.\n{}", "fn f() {}\n".repeat(FILE_LINES + 1)), "401 lines of code"),
    ] {
        let found = found(path, text);
        assert!(found.iter().any(|it| it.contains(word)), "{text:?} in {path}: {found:?}");
    }
    let left = format!("ok\nlater: {}\nuse \"{}x\"\n/var/tmp/x is fine", LEFT_OVERS[0], MACHINE[0]);
    assert_eq!(check_left_overs("a", &left).len(), 2, "{left}");
}

fn check_arrows(file: &Source) -> Vec<String> {
    let home = file.module();
    if home == "lib" {
        return Vec::new();
    }
    let allowed = MAY_USE.iter().find(|(module, _)| *module == home).map_or(&[][..], |(_, named)| *named);
    let strangers = roots_named(&file.code).into_iter().filter(|(_, named)| {
        *named != home
            && !allowed.contains(&named.as_str())
            && MAY_USE.iter().any(|(module, _)| module == named)
    });
    let mut found: Vec<String> =
        strangers.map(|(at, named)| file.says(at, &format!("`{home}` may not name `{named}`"))).collect();
    let to_the_root = "super::".repeat(file.depth().max(1));
    if let Some(at) = find_word(&file.code, &to_the_root) {
        found.push(file.says(at, "`super` reaches the root: say `crate::…`"));
    }
    found
}

fn check_purity(file: &Source) -> Vec<String> {
    if !PURE.contains(&file.module().as_str()) && !PURE_FILES.contains(&file.name().as_str()) {
        return Vec::new();
    }
    let impure = IMPURE.iter().filter(|word| !IMPURE_ANYWAY.contains(&(file.name().as_str(), **word)));
    impure
        .filter_map(|word| {
            find_word(&file.code, word).map(|at| file.says(at, &format!("pure code has no `{word}`")))
        })
        .collect()
}

fn check_adapters(file: &Source) -> Vec<String> {
    let name = file.name();
    let strange = ADAPTERS.iter().filter(|(_, homes)| !homes.iter().any(|home| name.starts_with(home)));
    strange
        .filter_map(|(krate, homes)| {
            let at = names_crate(&file.code, krate)?;
            Some(file.says(at, &format!("`{krate}` is named only in {}", homes.join(", "))))
        })
        .collect()
}

fn check_length(file: &Source) -> Vec<String> {
    let lines = file.code.lines().filter(|line| !line.trim().is_empty()).count();
    if lines <= FILE_LINES { Vec::new() } else { vec![format!("{}: {lines} lines of code", file.name())] }
}

fn check_head(file: &Source) -> Vec<String> {
    if file.begins_well {
        Vec::new()
    } else {
        vec![format!("{} begins without `//! what it is`", file.name())]
    }
}

fn check_unsafe(file: &Source) -> Vec<String> {
    if UNSAFE_ANYWAY.contains(&file.name().as_str()) {
        return Vec::new();
    }
    let word = |at: &usize| !file.with_tests[at + 6..].starts_with(is_part_of_word);
    let found = find_word(&file.with_tests, "unsafe").filter(word);
    found.map(|at| format!("{}:{}: unsafe", file.name(), line_of(&file.with_tests, at))).into_iter().collect()
}

fn check_left_overs(path: &str, text: &str) -> Vec<String> {
    let of_a_path = |c: char| is_part_of_word(c) || "-.}~$:/".contains(c);
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let left = LEFT_OVERS.iter().filter(|word| line.contains(**word));
        let machine = MACHINE
            .iter()
            .filter(|place| line.match_indices(**place).any(|(at, _)| !line[..at].ends_with(of_a_path)));
        found.extend(left.chain(machine).map(|word| format!("{path}:{number}: {word}")));
    }
    found
}

/// Says all findings at once.
#[track_caller]
fn none(found: impl Iterator<Item = String>) {
    let found: Vec<String> = found.collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}
