//! The configuration as administrators meet it: whole files in, and either a node's settings or all mistakes with
//! their places out.
//!
//! `WAYPOST_BLESS=1 cargo test --test config` writes the golden answers again; look at the difference then.

#![expect(clippy::expect_used, reason = "a helper that fails is a test that fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;
use waypost::config::{Code, Diagnostics, Preset, QueryMode, Source, check_text, load};

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
const EXAMPLES: [&str; 4] = ["minimal", "branch", "region", "hq"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A directory with every file that the samples name.
fn place() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for name in ["handler", "hq", "region", "branch", "company-ca"] {
        fs::write(dir.path().join(name).with_extension("pem"), CERTIFICATE).expect("a certificate");
        let key = dir.path().join(name).with_extension("key");
        fs::write(&key, KEY).expect("a key");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("permissions");
    }
    fs::write(dir.path().join("not-a-certificate.pem"), "hello\n").expect("a file");
    fs::create_dir(dir.path().join("files")).expect("a directory");
    let token = dir.path().join("node.token");
    fs::write(&token, "a token that is long enough".replace(' ', "-")).expect("a token");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("permissions");
    dir
}

/// A sample, with the absolute paths that a test machine does not have moved to `dir`.
fn sample(name: &str, dir: &Path) -> String {
    let text = fs::read_to_string(root().join("deploy/examples").join(name).with_extension("toml"));
    let dir = dir.display();
    text.expect("a sample")
        .replace("/srv/waypost/Software", &format!("{dir}/files"))
        .replace("/srv/waypost/fleet", &format!("{dir}/files"))
        .replace("/var/log/waypost/", &format!("{dir}/"))
        .replace("/var/cache/waypost", &format!("{dir}/cache"))
        .replace("/run/waypost/", &format!("{dir}/"))
}

fn minimal_with(repository: &str) -> String {
    format!(
        "[server]\nplain_listen = \"127.0.0.1:0\"\n\n[[repository]]\nname = \"a\"\npath = \"/\"\n{repository}"
    )
}

fn compare(name: &str, found: &str, dir: &Path) {
    let found = found.replace(&dir.display().to_string(), "DIR");
    let golden = root().join("tests/golden/config").join(name).with_extension("txt");
    if std::env::var_os("WAYPOST_BLESS").is_some() {
        fs::write(&golden, &found).expect("the golden file");
    }
    let expected = fs::read_to_string(&golden).expect("the golden file");
    assert_eq!(found, expected, "{} differs", golden.display());
}

fn mistakes(name: &str) -> (Diagnostics, TempDir) {
    let dir = place();
    let file = root().join("tests/golden/config").join(name).with_extension("toml");
    let text = fs::read_to_string(file).expect("the file");
    (check_text(&format!("{name}.toml"), &text, dir.path()).expect_err("mistakes"), dir)
}

#[test]
fn all_mistakes_of_a_file_are_told_in_one_run() {
    let (found, dir) = mistakes("many-mistakes");
    compare("many-mistakes", &found.to_string(), dir.path());
    for code in [
        Code::UnknownKey,
        Code::WrongType,
        Code::BadValue,
        Code::OutOfRange,
        Code::Missing,
        Code::Conflict,
        Code::File,
        Code::NotAvailable,
        Code::NoEffect,
    ] {
        assert!(found.iter().any(|one| one.code == code), "{code:?}");
    }
}

#[test]
fn a_secret_in_the_wrong_place_is_not_shown() {
    let (found, _dir) = mistakes("many-mistakes");
    let shown = format!("{found} {found:?} {:?}", found.to_json());
    assert!(!shown.contains("hunter2") && !shown.contains("user:secret"));
}

#[test]
fn mistakes_in_the_syntax_are_told_with_their_place() {
    let (found, dir) = mistakes("syntax");
    compare("syntax", &found.to_string(), dir.path());
}

#[test]
fn lines_and_columns_are_those_of_an_editor() {
    let dir = place();
    let text = minimal_with("upstreams = [\"https://ä\", \"ftp://b/\"]\n");
    let found = check_text("x.toml", &text, dir.path()).expect_err("two mistakes");
    let places: Vec<_> =
        found.iter().filter_map(|one| found.position(one)).map(|p| (p.line, p.column)).collect();
    assert_eq!(places, [(7, 14), (7, 27)]);
    let json = found.to_json();
    assert_eq!(json[1]["line"], 7);
    assert_eq!(json[1]["column"], 27);
    assert_eq!(json[1]["severity"], "error");
    assert_eq!(json[1]["code"], "bad-value");
}

#[test]
fn every_sample_passes_without_a_warning() {
    for name in EXAMPLES {
        let dir = place();
        let text = sample(name, dir.path());
        match check_text(name, &text, dir.path()) {
            Ok((_, warnings)) => assert!(warnings.is_empty(), "{warnings}"),
            Err(found) => panic!("{found}"),
        }
    }
}

/// What a sample shows as a default is one: taking the comments away changes nothing.
#[test]
fn the_defaults_in_the_samples_are_the_defaults() {
    let dir = place();
    let text = sample("branch", dir.path());
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with('[') => format!("{rest}\n"),
            Some(rest)
                if rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))
                    && !["names", "workers", "client_cert"].iter().any(|key| rest.starts_with(key)) =>
            {
                format!("{rest}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    assert_ne!(text, uncommented);
    let (shown, warnings) =
        check_text("branch", &uncommented, dir.path()).expect("the defaults, written out");
    assert!(warnings.is_empty(), "{warnings}");
    let (left_out, _) = check_text("branch", &text, dir.path()).expect("the sample");
    assert_eq!(format!("{shown:?}"), format!("{left_out:?}"));
}

#[test]
fn a_file_becomes_settings_with_units_and_paths_resolved() {
    let dir = place();
    fs::write(dir.path().join("waypost.toml"), sample("region", dir.path())).expect("a file");
    let (config, _) = load(&dir.path().join("waypost.toml")).expect("settings");
    assert_eq!(config.server.listen.len(), 2);
    assert_eq!(config.server.drain, Duration::from_mins(2));
    assert_eq!(config.server.tls.expect("tls").cert, dir.path().join("handler.pem"));
    assert_eq!((config.cache.size, config.cache.memory), (1 << 40, 4 << 30));
    assert_eq!(config.limits.fills, 256);
    let [software, clamav, linux, vendor] = config.repositories.as_slice() else {
        panic!("four repositories")
    };
    assert_eq!((software.preset, software.query), (Preset::Epo, QueryMode::Refuse));
    assert_eq!((clamav.preset, linux.preset, vendor.preset), (Preset::ClamAv, Preset::Apt, Preset::Generic));
    assert_eq!(vendor.rules[0].immutable, Some(true));
    let Source::Upstreams(upstreams) = &vendor.source else { panic!("upstreams") };
    assert_eq!(upstreams.sources[0].url, "https://download.vendor.example/pub/");
    assert_eq!(upstreams.redirect_hosts, ["cdn.vendor.example"]);
    assert_eq!(upstreams.stall_timeout, Duration::from_mins(1));
    assert_eq!(upstreams.connect_timeout, Duration::from_secs(3));
    assert_eq!(upstreams.min_rate, 1024);
}

#[test]
fn upstreams_are_sorted_by_priority_and_else_by_place() {
    let dir = place();
    let text = minimal_with(
        "upstreams = [{ url = \"https://c.example/\", priority = 9 }, \"https://a.example\", \"https://b.example/\"]\n",
    );
    let (config, _) = check_text("x.toml", &text, dir.path()).expect("settings");
    let Source::Upstreams(upstreams) = &config.repositories[0].source else { panic!("upstreams") };
    let order: Vec<_> = upstreams.sources.iter().map(|one| (one.url.as_str(), one.priority)).collect();
    assert_eq!(order, [("https://a.example/", 2), ("https://b.example/", 3), ("https://c.example/", 9)]);
}

#[test]
fn one_upstream_needs_no_list() {
    let dir = place();
    let text = minimal_with("upstreams = \"http://127.0.0.1:9/\"\n");
    check_text("x.toml", &text, dir.path()).expect("settings");
}

#[test]
fn a_repository_cannot_be_the_cache() {
    let dir = place();
    let text = minimal_with("directory = \"files\"\n[cache]\ndir = \"files/cache\"\n");
    let found = check_text("x.toml", &text, dir.path()).expect_err("an overlap");
    assert!(found.to_string().contains("overlap"), "{found}");
}

#[test]
fn a_key_that_everybody_can_read_is_a_warning() {
    let dir = place();
    let key = dir.path().join("handler.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("permissions");
    let (_, warnings) =
        check_text("x.toml", &sample("minimal", dir.path()), dir.path()).expect("a warning only");
    assert_eq!(warnings.iter().map(|one| one.code).collect::<Vec<_>>(), [Code::Unsafe]);
}

#[test]
fn a_configuration_that_is_not_there_is_told_plainly() {
    let found = load(Path::new("/no/such/waypost.toml")).expect_err("nothing");
    assert!(found.to_string().contains("cannot read /no/such/waypost.toml"), "{found}");
    assert_eq!(found.to_json()[0]["line"], serde_json::Value::Null);
}

#[test]
fn a_configuration_in_another_encoding_is_told_with_its_line() {
    let dir = place();
    let path = dir.path().join("latin1.toml");
    fs::write(&path, b"[server]\nnode = \"\xe4\"\n").expect("a file");
    let found = load(&path).expect_err("not UTF-8");
    assert!(found.to_string().contains("line 2 is not UTF-8"), "{found}");
}

#[test]
fn a_file_that_is_no_configuration_at_all_is_told_in_a_few_lines() {
    let text = "Nov 21 11:30:14 host kernel: [12.5] link = up, {speed}\n".repeat(20_000);
    let found = check_text("x.toml", &text, Path::new("/")).expect_err("a log");
    assert!((1..=20).contains(&found.errors()), "{}", found.errors());
}

#[test]
fn an_empty_file_is_told_what_a_node_needs() {
    let found = check_text("x.toml", "", Path::new("/")).expect_err("nothing");
    let said = found.to_string();
    assert!(said.contains("`listen` is missing") && said.contains("[[repository]]"), "{said}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Cuts, swaps and insertions anywhere in a sample: whatever comes, an answer and its drawing.
    #[test]
    fn no_file_makes_the_check_panic(
        which in 0_usize..5,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), "[\\PC\\r\\n\\t\"'\\[\\]{}=.,#0-9]{0,6}"), 1..6),
    ) {
        let dir = Path::new("/no/such/directory");
        let mut text = match EXAMPLES.get(which) {
            Some(name) => fs::read_to_string(root().join("deploy/examples").join(name).with_extension("toml")),
            None => fs::read_to_string(root().join("tests/golden/config/many-mistakes.toml")),
        }.expect("a file");
        for (from, to, put) in edits {
            let (from, to) = (from.index(text.len() + 1), to.index(text.len() + 1));
            let from = text.floor_char_boundary(from);
            let to = text.ceil_char_boundary(to.clamp(from, (from + 40).min(text.len()).max(from)));
            text.replace_range(from..to, &put);
        }
        let found = match check_text("x.toml", &text, dir) {
            Ok((_, warnings)) => warnings,
            Err(found) => { prop_assert!(found.errors() > 0); found }
        };
        let _ = (found.render(false), found.render(true), found.to_json());
        for one in found.iter() {
            prop_assert!(found.position(one).is_some());
        }
    }
}
