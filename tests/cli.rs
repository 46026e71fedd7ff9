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
fn the_documents_of_an_authority_are_checked_with_its_configuration() {
    let control = "[control]\ndirectory = \"fleet\"\nstate_dir = \"state\"\n";
    let dir = place(&format!("{GOOD}\n{control}"));
    let fleet = dir.path().join("fleet");
    fs::create_dir(&fleet).expect("a directory");
    let document = |text: &str| fs::write(fleet.join("fleet.toml"), text).expect("a document");
    let check = |more: &[&str]| {
        let words = [&["config", "check", "waypost.toml"], more].concat();
        said(&waypost(&words, dir.path()))
    };
    document("[[handler]]\nname = \"a\"\ninternal = \"a.example:443\"\n");
    let valid = (Some(0), "waypost.toml: configuration is valid\n".to_owned(), String::new());
    assert_eq!(check(&["--deny-warnings"]), valid);
    document("[[group]]\nname = \"g\"\nmembers = [\"nobody\"]\n");
    let (code, out, talk) = check(&[]);
    assert_eq!((code, out), (valid.0, valid.1), "the node starts with what it had");
    assert!(talk.contains("fleet.toml:3:12") && talk.contains("cannot come into force"), "{talk}");
    assert_eq!(check(&["--deny-warnings"]).0, Some(3));
    let (_, out, _) = check(&["--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((json["valid"].as_bool(), json["documents"]["valid"].as_bool()), (Some(true), Some(false)));
    assert_eq!(json["documents"]["diagnostics"][0]["line"], 3);
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

#[test]
fn what_is_in_force_is_shown_with_where_it_comes_from() {
    let dir = place(GOOD);
    let (code, out, talk) = said(&waypost(&["config", "show", "-c", "waypost.toml", "--origin"], dir.path()));
    assert_eq!((code, talk.as_str()), (Some(0), ""));
    assert!(out.contains("plain_listen = [") && out.contains("# waypost.toml:2"), "{out}");
    assert!(!out.contains("# default"), "{out}");
    let words = ["config", "show", "-c", "waypost.toml", "--effective", "--origin"];
    let (_, all, _) = said(&waypost(&words, dir.path()));
    assert!(all.contains("drain = \"30s\"  # default"), "{all}");
    // What is printed is a configuration that means the same.
    let (_, plain, _) = said(&waypost(&["config", "show", "-c", "waypost.toml", "--effective"], dir.path()));
    fs::write(dir.path().join("again.toml"), &plain).expect("a file");
    let (code, again, talk) =
        said(&waypost(&["config", "show", "-c", "again.toml", "--effective"], dir.path()));
    assert_eq!((code, again), (Some(0), plain), "{talk}");
    let broken = place("x = 1\n");
    let (code, out, talk) = said(&waypost(&["config", "show", "-c", "waypost.toml"], broken.path()));
    assert_eq!((code, out.as_str(), talk.contains("unknown key")), (Some(3), "", true));
}

#[test]
fn schema_completions_and_manual_pages_come_from_the_program() {
    let dir = tempfile::tempdir().expect("a directory");
    let (code, out, _) = said(&waypost(&["config", "schema"], dir.path()));
    let schema: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, schema["properties"]["server"]["type"].as_str()), (Some(0), Some("object")));
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, talk) = said(&waypost(&["completion", shell], dir.path()));
        assert_eq!((code, out.contains("purge"), talk.as_str()), (Some(0), true, ""), "{shell}");
    }
    let (code, _, talk) = said(&waypost(&["completion", "cmd.exe"], dir.path()));
    assert_eq!((code, talk.contains("bash")), (Some(2), true), "{talk}");
    let (code, _, talk) = said(&waypost(&["man", "--dir", "pages"], dir.path()));
    assert_eq!(code, Some(0), "{talk}");
    for page in ["waypost.1", "waypost-purge.1", "waypost-cache-ls.1"] {
        let text = fs::read_to_string(dir.path().join("pages").join(page)).expect("a page");
        assert!(text.contains(".TH") && text.contains("Examples"), "{page}");
    }
    fs::write(dir.path().join("taken"), "").expect("a file");
    let (code, _, talk) = said(&waypost(&["man", "--dir", "taken"], dir.path()));
    assert_eq!((code, talk.contains("taken")), (Some(1), true), "{talk}");
}

#[test]
fn a_node_that_is_not_there_is_code_4_and_says_what_to_do() {
    let dir = place(GOOD);
    for words in [
        &["status"][..],
        &["health"],
        &["explain", "/x"],
        &["purge", "/x"],
        &["warm", "/x"],
        &["cache", "ls"],
        &["fills", "ls"],
        &["tail"],
        &["reload"],
        &["log", "debug"],
    ] {
        let words: Vec<&str> = words.iter().copied().chain(["-s", "no.sock"]).collect();
        let (code, out, talk) = said(&waypost(&words, dir.path()));
        assert_eq!((code, out.as_str(), talk.contains("-s")), (Some(4), "", true), "{words:?}: {talk}");
    }
    let (code, _, talk) = said(&waypost(&["status", "-s", "no.sock", "--json"], dir.path()));
    let told: serde_json::Value = serde_json::from_str(&talk).expect("JSON for programs");
    assert_eq!((code, told["error"]["exit"].as_u64()), (Some(4), Some(4)));
    for (flag, value, word) in [
        ("--timeout", "5", "unit"),
        ("--output", "yaml", "jsonl"),
        ("--server", "http://node:1", "https://"),
        ("--server", "https://node", "no port"),
        ("--color", "maybe", "always"),
    ] {
        let (code, _, talk) = said(&waypost(&["status", flag, value], dir.path()));
        assert_eq!((code, talk.contains(word)), (Some(2), true), "{flag} {value}: {talk}");
    }
}

const FLEET: &str = "[[handler]]\nname = \"a\"\ninternal = \"a.example\"\n";

fn fleet(rules: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(dir.path().join("policies/av")).expect("a directory");
    fs::write(dir.path().join("fleet.toml"), FLEET).expect("a file");
    fs::write(dir.path().join("rules.toml"), rules).expect("a file");
    fs::write(dir.path().join("policies/av/base.json"), "{}").expect("a file");
    fs::write(dir.path().join("README.md"), "no document").expect("a file");
    dir
}

#[test]
fn a_directory_of_documents_is_checked_as_a_configuration_is() {
    let dir = fleet("[[tree]]\npath = \"/\"\npolicies = [\"av/base\"]\n");
    let (code, out, talk) = said(&waypost(&["policy", "check", "."], dir.path()));
    assert_eq!((code, talk.as_str()), (Some(0), ""));
    assert_eq!(out, ".: 1 handler, 0 groups, 0 listed agents and 1 policy compile\n");
    let dir = fleet("[[tree]]\npath = \"/\"\npolicies = [\"av/bass\"]\n");
    let (code, out, talk) = said(&waypost(&["policy", "check", "."], dir.path()));
    assert_eq!((code, out.as_str()), (Some(3), ""));
    assert!(talk.contains("rules.toml:3:13") && talk.contains("did you mean \"av/base\"?"), "{talk}");
    assert!(talk.ends_with("1 error\n"), "{talk}");
    let (code, out, _) = said(&waypost(&["policy", "check", "--json", "."], dir.path()));
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, json["valid"].as_bool()), (Some(3), Some(false)));
    assert_eq!(json["diagnostics"][0]["file"], "rules.toml");
    assert_eq!(json["diagnostics"][0]["line"], 3);
    let dir = fleet("multi_slot = [\"nothing\"]\n");
    assert_eq!(said(&waypost(&["policy", "check", "-q", "."], dir.path())).0, Some(0));
    assert_eq!(said(&waypost(&["policy", "check", "--deny-warnings", "."], dir.path())).0, Some(3));
    assert_eq!(said(&waypost(&["policy", "check", "nowhere"], dir.path())).0, Some(7));
}

#[test]
fn an_agents_policies_and_handlers_are_told_with_their_reasons() {
    let dir = fleet("[[rule]]\nname = \"tills\"\ntags = [\"till\"]\npolicies = [\"av/base\"]\n");
    let words =
        ["policy", "resolve", "--dir", ".", "--agent", "pc-1", "--tag", "till", "--address", "10.0.0.1"];
    let (code, out, talk) = said(&waypost(&words, dir.path()));
    assert_eq!((code, talk.as_str()), (Some(0), ""));
    assert!(out.contains("rule `tills`: it has the tag till") && !out.contains("a.example"), "{out}");
    let (_, out, _) = said(&waypost(&[&words[..], &["-o", "wide"]].concat(), dir.path()));
    assert!(out.contains("a.example:443") && out.contains("10.0.0.1"), "{out}");
    let (_, out, _) = said(&waypost(&[&words[..], &["--json"]].concat(), dir.path()));
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((json["schema"].as_u64(), json["handlers"][0]["name"].as_str()), (Some(1), Some("a")));
    let (code, _, talk) = said(&waypost(&["policy", "resolve", "--dir", ".", "--agent", "a b"], dir.path()));
    assert_eq!((code, talk.contains("letters")), (Some(2), true), "{talk}");
}

#[test]
fn sitelists_and_exports_of_others_are_read() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/fleet");
    let (code, out, talk) = said(&waypost(&["sitelist", "check", "vendor-sitelist.xml"], &golden));
    assert_eq!(code, Some(0));
    assert!(out.lines().nth(1).is_some_and(|line| line.contains("AH_BRANCH7")), "{out}");
    assert!(talk.contains("passwords") && !talk.contains("hunter2") && !out.contains("hunter2"), "{talk}");
    let words = ["sitelist", "check", "vendor-sitelist.xml", "--deny-warnings", "--json"];
    let (code, out, _) = said(&waypost(&words, &golden));
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, json["sites"][0]["name"].as_str()), (Some(8), Some("AH_BRANCH7")));
    assert_eq!(said(&waypost(&["sitelist", "check", "epo-rules.xml"], &golden)).0, Some(8));
    let (code, out, talk) = said(&waypost(&["policy", "import", "epo-rules.xml"], &golden));
    let expected = fs::read_to_string(golden.join("epo-rules.toml")).expect("the golden file");
    assert_eq!((code, out), (Some(6), expected));
    assert!(talk.ends_with("2 rules understood, 2 not\n"), "{talk}");
}
