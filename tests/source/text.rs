//! Source files as text: comments, literals and test code blanked, names found.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// A file as the rules see it.
pub(super) struct Source {
    pub(super) path: PathBuf,
    /// Whether it begins with a comment about itself.
    pub(super) begins_well: bool,
    /// Without comments and literals.
    pub(super) with_tests: String,
    /// Without test code, either.
    pub(super) code: String,
    /// Modules that exist in tests only.
    pub(super) test_modules: Vec<String>,
}

impl Source {
    pub(super) fn of(path: &Path, text: &str) -> Self {
        let with_tests = blank(text);
        let (code, test_modules) = without_tests(&with_tests);
        Self { path: path.to_owned(), begins_well: text.starts_with("//!"), with_tests, code, test_modules }
    }

    pub(super) fn name(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    pub(super) fn module(&self) -> String {
        let first = self.path.components().next().expect("a path");
        first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
    }

    /// How many modules it is below the root.
    pub(super) fn depth(&self) -> usize {
        let own = !matches!(self.name().as_str(), "lib.rs" | "main.rs") && !self.path.ends_with("mod.rs");
        self.path.components().count() - 1 + usize::from(own)
    }

    /// Where the modules are that exist in tests only, without their ending.
    fn files_of_tests(&self) -> Vec<PathBuf> {
        let own = self.depth() == self.path.components().count();
        let below = if own { self.path.with_extension("") } else { self.path.with_file_name("") };
        self.test_modules.iter().map(|module| below.join(module)).collect()
    }

    pub(super) fn says(&self, at: usize, what: &str) -> String {
        format!("{}:{}: {what}", self.name(), line_of(&self.code, at))
    }
}

pub(super) fn line_of(text: &str, at: usize) -> usize {
    1 + text[..at].matches('\n').count()
}

pub(super) fn is_part_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `word` stands in `code`, not as the end of a longer word or path.
pub(super) fn find_word(code: &str, word: &str) -> Option<usize> {
    let inside = |at: usize| code[..at].ends_with(|c| is_part_of_word(c) || c == ':');
    let free = word.starts_with(is_part_of_word);
    code.match_indices(word)
        .map(|(at, _)| at)
        .find(|at| !free || !inside(*at) || word.starts_with(char::is_uppercase))
}

/// Where a crate is named.
pub(super) fn names_crate(code: &str, krate: &str) -> Option<usize> {
    [format!("{krate}::"), format!("use {krate};"), format!("use {krate} as"), format!("{krate}!(")]
        .iter()
        .find_map(|word| find_word(code, word))
}

/// The modules of the crate that `code` names by path, and where.
pub(super) fn roots_named(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for root in ["crate", "waypost"] {
        for (at, _) in code.match_indices(root) {
            let after = code[at + root.len()..].trim_start();
            let Some(path) = after.strip_prefix("::").filter(|_| !code[..at].ends_with(is_part_of_word))
            else {
                continue;
            };
            let path = path.trim_start();
            let names = path.strip_prefix('{').map_or_else(|| vec![first_word(path)], first_words);
            found.extend(names.into_iter().map(|name| (at, name)));
        }
    }
    found
}

pub(super) fn first_word(path: &str) -> String {
    path.trim_start().chars().take_while(|c| is_part_of_word(*c)).collect()
}

/// The first word of each path in `{a::b, c::{d, e}}`, behind its opening brace.
pub(super) fn first_words(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut from) = (0_usize, Vec::new(), 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(first_word(&group[from..at]));
                from = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names
}

/// `text` with comments and literals blanked, each line in its place.
pub(super) fn blank(text: &str) -> String {
    let (mut code, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(first) = rest.chars().next() {
        let in_word = code.ends_with(is_part_of_word);
        let length = comment(rest).or_else(|| literal(rest, in_word));
        let (taken, behind) = rest.split_at(length.unwrap_or(first.len_utf8()));
        match length {
            Some(_) => code.extend(taken.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
            None => code.push(first),
        }
        rest = behind;
    }
    code
}

/// The length of the comment that `text` begins with.
pub(super) fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    text.starts_with("/*").then(|| text.find("*/").map_or(text.len(), |at| at + 2))
}

/// The length of the text or character literal that `text` begins with.
pub(super) fn literal(text: &str, in_word: bool) -> Option<usize> {
    if let Some(raw) = text.strip_prefix('r').or_else(|| text.strip_prefix("br")).filter(|_| !in_word) {
        let hashes = raw.chars().take_while(|c| *c == '#').count();
        if raw[hashes..].starts_with('"') {
            let closing = format!("\"{}", "#".repeat(hashes));
            let begin = text.len() - raw.len() + hashes + 1;
            return Some(text[begin..].find(&closing).map_or(text.len(), |at| begin + at + closing.len()));
        }
    }
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        // A lifetime is a quote and a word that no quote follows.
        if quote == '\'' && at > 1 && !text[1..].starts_with('\\') && c != '\'' {
            return None;
        }
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Blanks what is under `#[cfg(test)]`; says which modules in other files that is.
pub(super) fn without_tests(code: &str) -> (String, Vec<String>) {
    const MARK: &str = "#[cfg(test)]";
    let (mut left, mut modules, mut rest) = (String::with_capacity(code.len()), Vec::new(), code);
    while let Some(at) = rest.find(MARK) {
        let (before, behind) = rest.split_at(at);
        let (item, after) = behind.split_at(MARK.len() + item_length(&behind[MARK.len()..]));
        if let Some((_, name)) = item.split_once("mod ").filter(|(_, name)| name.ends_with(';')) {
            modules.push(first_word(name));
        }
        left.push_str(before);
        left.extend(item.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = after;
    }
    left.push_str(rest);
    (left, modules)
}

/// The length of the item that `code` begins with: to its semicolon or closing brace.
pub(super) fn item_length(code: &str) -> usize {
    let (mut braces, mut brackets) = (0_usize, 0_usize);
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets = brackets.saturating_sub(1),
            '{' => braces += 1,
            '}' if braces <= 1 => return at + 1,
            '}' => braces -= 1,
            ';' if braces == 0 && brackets == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files below a directory, with their names relative to it.
pub(super) fn files(below: &str) -> Vec<(PathBuf, String)> {
    let (base, mut found, mut open) = (root().join(below), Vec::new(), vec![root().join(below)]);
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(path).expect("readable").map(|entry| entry.expect("listed").path()));
        } else if let Ok(text) = fs::read_to_string(&path) {
            found.push((path.strip_prefix(&base).expect("below").to_owned(), text));
        }
    }
    found.sort();
    found
}

/// The crate's files, without those that exist in tests only.
pub(super) static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let mut all = parse("src");
    let of_tests: Vec<PathBuf> = all.iter().flat_map(Source::files_of_tests).collect();
    all.retain(|file| {
        !of_tests.iter().any(|of| file.path.starts_with(of) || file.path == of.with_extension("rs"))
    });
    all
});

/// All Rust files, tests and benches too.
pub(super) static RUST_FILES: LazyLock<Vec<Source>> =
    LazyLock::new(|| ["src", "tests", "benches"].into_iter().flat_map(parse).collect());

fn parse(below: &str) -> Vec<Source> {
    let rust = files(below).into_iter().filter(|(path, _)| path.extension().is_some_and(|it| it == "rs"));
    rust.map(|(path, text)| Source::of(&path, &text)).collect()
}

/// Everything that is written by hand.
pub(super) fn texts() -> Vec<(String, String)> {
    let own =
        ["src", "tests", "benches", "deploy", ".ci"].into_iter().filter(|dir| root().join(dir).is_dir());
    let mut all: Vec<(String, String)> = own
        .flat_map(|dir| {
            files(dir).into_iter().map(move |(path, text)| (format!("{dir}/{}", path.display()), text))
        })
        .collect();
    for name in ["README.md", "Cargo.toml", "clippy.toml", "rustfmt.toml", ".gitignore"] {
        all.extend(fs::read_to_string(root().join(name)).map(|text| (name.to_owned(), text)));
    }
    all
}
