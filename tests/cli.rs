//! The real program on the command line: what it says, where it says it, and how it ends.

#![expect(clippy::expect_used, reason = "a helper that fails is a test that fails")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn waypost(words: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_waypost"))
        .args(words)
        .current_dir(dir)
        .env_remove("WAYPOST_CONFIG")
        .env_remove("WAYPOST_COLOR")
        .output()
        .expect("the program runs")
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn place(text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("files")).expect("a directory");
    fs::write(dir.path().join("waypost.toml"), text).expect("a file");
    dir
}

const GOOD: &str = "[server]\nplain_listen = \"127.0.0.1:0\"\n\n[[repository]]\nname = \"a\"\npath = \"/\"\ndirectory = \"files\"\n";

#[test]
fn a_good_file_is_valid_on_stdout_and_nothing_else_is_said() {
    let dir = place(GOOD);
    let answer = said(&waypost(&["config", "check", "waypost.toml"], dir.path()));
    assert_eq!(answer, (Some(0), "waypost.toml: configuration is valid\n".to_owned(), String::new()));
    let answer = said(&waypost(&["-c", "waypost.toml", "serve", "--check", "-q"], dir.path()));
    assert_eq!(answer, (Some(0), String::new(), String::new()));
}

#[test]
fn a_bad_file_is_told_on_stderr_with_code_3() {
    let dir = place(&GOOD.replace("plain_listen", "plain_lisen"));
    for words in [vec!["config", "check", "waypost.toml"], vec!["serve", "-c", "waypost.toml"]] {
        let (code, out, talk) = said(&waypost(&words, dir.path()));
        assert_eq!((code, out.as_str()), (Some(3), ""));
        assert!(talk.contains("did you mean `plain_listen`?"), "{talk}");
        assert!(talk.contains("waypost.toml:2:1"), "{talk}");
        assert!(talk.ends_with("waypost.toml: 2 errors\n"), "{talk}");
        assert!(!talk.contains('\u{1b}'), "colours in a pipe");
    }
}

#[test]
fn colours_come_when_they_are_asked_for() {
    let dir = place("x = 1\n");
    let (_, _, talk) = said(&waypost(&["config", "check", "waypost.toml", "--color", "always"], dir.path()));
    assert!(talk.contains('\u{1b}'));
}

#[test]
fn json_goes_to_stdout_and_has_a_schema() {
    let dir = place(&GOOD.replace("plain_listen", "plain_lisen"));
    let (code, out, talk) = said(&waypost(&["config", "check", "--json", "waypost.toml"], dir.path()));
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, talk.as_str()), (Some(3), ""));
    assert_eq!((json["schema"].as_u64(), json["valid"].as_bool()), (Some(1), Some(false)));
    assert_eq!(json["diagnostics"][1]["code"], "unknown-key");
    assert_eq!(json["diagnostics"][1]["line"], 2);
}

#[test]
fn warnings_fail_only_when_denied() {
    let dir = place(&GOOD.replace("directory", "stall_timeout = \"9s\"\ndirectory"));
    let (code, out, talk) = said(&waypost(&["config", "check", "waypost.toml"], dir.path()));
    assert_eq!((code, out.as_str()), (Some(0), "waypost.toml: configuration is valid\n"));
    assert!(talk.contains("1 warning"), "{talk}");
    let (code, out, _) = said(&waypost(&["config", "check", "waypost.toml", "--deny-warnings"], dir.path()));
    assert_eq!((code, out.as_str()), (Some(3), ""));
}

#[test]
fn init_prints_the_sample_of_the_role() {
    for role in ["branch", "region", "hq"] {
        let (code, out, talk) = said(&waypost(&["config", "init", "--role", role], Path::new(".")));
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples").join(role);
        let sample = fs::read_to_string(sample.with_extension("toml")).expect("a sample");
        assert_eq!((code, out, talk), (Some(0), sample, String::new()));
    }
}

#[test]
fn wrong_usage_is_code_2_and_help_is_no_error() {
    let here = Path::new(".");
    let (code, out, talk) = said(&waypost(&["config", "chek"], here));
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(talk.contains("'check'"), "{talk}");
    let (code, out, _) = said(&waypost(&["serve", "--help"], here));
    assert_eq!(code, Some(0));
    assert!(out.contains("Examples:"), "{out}");
}
