//! The front page says what the code says: words, metrics, dependencies, configurations to paste.

#![expect(clippy::expect_used, reason = "a test may stop at the first broken assumption")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use waypost::config;
use waypost::fleet::{Documents, compile};
use waypost::telemetry::Exposition;

mod busy;

/// Where the words are defined that operators meet, each as `=> "word"`.
const WORDS: &[&str] = &[
    "src/cache/reason.rs",
    "src/fill/cause.rs",
    "src/protocol/reply.rs",
    "src/protocol/request.rs",
    "src/protocol/target.rs",
    "src/server/totals.rs",
    "src/store/space.rs",
    "src/telemetry/metrics.rs",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect("readable")
}

/// What stands between backticks outside of code blocks.
fn coded(readme: &str) -> BTreeSet<&str> {
    let prose = readme.split("```").step_by(2);
    prose.flat_map(|text| text.lines()).flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

/// The code blocks of one language.
fn blocks<'a>(readme: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("{language}\n");
    readme.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix(fence.as_str())).collect()
}

#[test]
fn every_word_an_operator_meets_is_explained() {
    let readme = read("README.md");
    let told = coded(&readme);
    for path in WORDS {
        let text = read(path);
        let code = text.split("#[cfg(test)]").next().expect("some code");
        let words = code.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next());
        // Single letters and empty strings are no words of ours.
        let words: Vec<&str> = words.filter(|word| word.len() > 1).collect();
        assert!(!words.is_empty(), "{path} defines no words");
        for word in words {
            assert!(told.contains(word), "`{word}` of {path} is not in README.md");
        }
    }
}

#[test]
fn every_trouble_of_a_catalogue_is_explained() {
    let readme = read("README.md");
    let told = coded(&readme);
    for word in waypost::stage::Trouble::WORDS {
        assert!(told.contains(word), "`{word}` is not in README.md");
    }
}

#[test]
fn every_metric_is_listed_and_no_other() {
    let readme = read("README.md");
    let told: BTreeSet<&str> =
        coded(&readme).into_iter().filter(|word| word.starts_with("waypost_")).collect();
    let text = busy::busy().render(Exposition::Classic);
    let there: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert_eq!(told, there);
}

#[test]
fn every_dependency_says_what_it_saves_us() {
    let (readme, manifest) = (read("README.md"), read("Cargo.toml"));
    let section = readme.split("## Dependencies").nth(1).and_then(|rest| rest.split("\n## ").next());
    let told: BTreeSet<&str> = coded(section.expect("a section")).into_iter().collect();
    let dependencies = manifest.split("[dependencies]\n").nth(1).and_then(|rest| rest.split("\n[").next());
    for line in dependencies.expect("a section").lines().filter(|line| !line.is_empty()) {
        let name = line.split([' ', '=']).next().unwrap_or_default();
        assert!(told.contains(name), "{name} is not in the table of dependencies");
    }
}

#[test]
fn every_link_within_the_page_leads_somewhere() {
    let readme = read("README.md");
    let anchor = |title: &str| title.to_lowercase().replace(' ', "-");
    let sections: BTreeSet<String> =
        readme.lines().filter_map(|line| line.strip_prefix("## ")).map(anchor).collect();
    for link in readme.split("](#").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(sections.contains(link), "#{link} leads nowhere");
    }
}

#[test]
fn the_configurations_to_paste_are_valid() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("Software")).expect("a directory");
    for name in ["handler.pem", "handler.key"] {
        let kind = if name.ends_with("pem") { "CERTIFICATE" } else { "PRIVATE KEY" };
        let pem = format!("-----BEGIN {kind}-----\nAA==\n-----END {kind}-----\n");
        fs::write(dir.path().join(name), pem).expect("a file");
    }
    let readme = read("README.md");
    let all = blocks(&readme, "toml");
    assert_eq!(all.len(), 4);
    for text in all {
        if let Err(found) = config::check_text("README.md", text, dir.path()) {
            panic!("{found}");
        }
    }
}

#[test]
fn the_fleet_documents_to_paste_compile_without_a_warning() {
    let readme = read("README.md");
    let mut documents = Documents::default();
    for name in ["fleet.toml", "rules.toml"] {
        let all = blocks(&readme, &format!("toml {name}"));
        assert_eq!(all.len(), 1, "{name}");
        documents.insert(name, all.concat().into()).expect("a document");
    }
    for policy in ["updates/daily", "updates/night", "exclusions/common", "exclusions/journal"] {
        documents.insert(&format!("policies/{policy}"), "x".into()).expect("a document");
    }
    let compiled = compile(&documents);
    assert!(compiled.problems.is_empty(), "{}", compiled.render(false));
}

/// All source files below a folder, as their path's parts without `.rs`.
fn sources(folder: &str, found: &mut Vec<(Vec<String>, PathBuf)>) {
    for entry in fs::read_dir(root().join(folder)).expect("a folder").flatten() {
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            sources(&path, found);
        } else if let Some(stem) = path.strip_suffix(".rs") {
            found.push((stem.split('/').skip(1).map(str::to_owned).collect(), entry.path()));
        }
    }
}

/// Whether a file has a test of this name.
fn has_test(file: &Path, name: &str) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    let is_it = |line: &str| line.contains(&format!("fn {name}("));
    lines.iter().enumerate().any(|(at, line)| {
        let mut above = lines.iter().take(at).rev().take_while(|line| line.starts_with("#["));
        is_it(line) && above.any(|line| line.contains("test]") || line.contains("::test("))
    })
}

#[test]
fn every_promise_names_tests_that_exist() {
    let readme = read("README.md");
    let chapter = readme.split("## Promises\n").nth(1).and_then(|rest| rest.split("\n## ").next());
    let rows: Vec<&str> =
        chapter.expect("a chapter").lines().filter(|line| line.starts_with("| ")).skip(2).collect();
    let mut files = Vec::new();
    sources("tests", &mut files);
    sources("src", &mut files);
    for (number, row) in (1..).zip(&rows) {
        assert!(row.starts_with(&format!("| {number} | ")), "{row}");
        let words = row.split('`').skip(1).step_by(2).filter(|word| word.contains("::"));
        let tests: Vec<&str> = words.collect();
        assert!(!tests.is_empty(), "promise {number} has no test");
        for test in tests {
            let mut modules: Vec<&str> = test.split("::").collect();
            let name = modules.pop().unwrap_or_default();
            let there = |(parts, file): &(Vec<String>, PathBuf)| {
                modules.iter().zip(parts).all(|(module, part)| module == part)
                    && modules.len() <= parts.len()
                    && has_test(file, name)
            };
            assert!(files.iter().any(there), "promise {number}: there is no test {test}");
        }
    }
    assert_eq!(rows.len(), 21);
}
