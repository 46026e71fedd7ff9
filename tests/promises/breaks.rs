//! The list of breaks: each of them still applies, names a test that exists, and stands in the list beside it. That
//! the tests go red is tried by `tests/breaks/run`.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A patch, as far as it says what it is.
struct Break {
    name: String,
    text: String,
}

impl Break {
    fn field(&self, name: &str) -> &str {
        let value = self.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.expect("the patch says so")
    }

    /// Files, and what each hunk wants to find in them.
    fn wanted(&self) -> Vec<(PathBuf, String)> {
        let (mut wanted, mut file) = (Vec::new(), PathBuf::new());
        for line in self.text.lines() {
            if let Some(path) = line.strip_prefix("--- a/") {
                file = root().join(path);
            } else if line.starts_with("@@ ") {
                wanted.push((file.clone(), String::new()));
            } else if let (Some((_, lines)), Some(rest)) =
                (wanted.last_mut(), line.strip_prefix([' ', '-']).filter(|_| !line.starts_with("--")))
            {
                lines.push_str(rest);
                lines.push('\n');
            }
        }
        wanted
    }
}

fn breaks() -> Vec<Break> {
    let dir = root().join("tests/breaks");
    let files = fs::read_dir(dir).expect("a directory").flatten().map(|entry| entry.path());
    let patches = files.filter(|path| path.extension().is_some_and(|it| it == "patch"));
    let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut breaks: Vec<Break> = patches.map(|path| Break { name: name(&path), text: read(&path) }).collect();
    breaks.sort_by(|one, other| one.name.cmp(&other.name));
    breaks
}

#[test]
fn every_break_still_applies() {
    let breaks = breaks();
    assert!(breaks.len() >= 10, "{}", breaks.len());
    for one in breaks {
        let wanted = one.wanted();
        assert!(!wanted.is_empty(), "{} breaks nothing", one.name);
        for (file, lines) in wanted {
            let found = read(&file).matches(&lines).count();
            assert_eq!(found, 1, "{}: {} has changed there:\n{lines}", one.name, file.display());
        }
    }
}

#[test]
fn every_break_names_a_test_that_exists_and_stands_in_the_list() {
    let list = read(&root().join("tests/breaks/README.md"));
    for one in breaks() {
        let (target, test) = one.field("Test").split_once(' ').expect("a target and a test");
        let (module, function) = test.rsplit_once("::").unwrap_or(("", test));
        let file = match module {
            "" => root().join(format!("tests/{target}.rs")),
            module => root().join(format!("tests/{target}/{}.rs", module.replace("::", "/"))),
        };
        assert!(
            read(&file).contains(&format!("fn {function}(")),
            "{}: no {function} in {}",
            one.name,
            file.display()
        );
        let number: u32 = one.field("Promise").parse().expect("a number");
        let row = format!("| `{}` | {number} |", one.name);
        let line = list.lines().find(|line| line.starts_with(&row));
        let line = line.unwrap_or_else(|| unreachable!("{row} is not in tests/breaks/README.md"));
        assert!(line.contains(&format!("`{target}::{test}`")), "{line}");
    }
}
