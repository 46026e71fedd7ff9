//! Patterns over the paths of URLs, as operators write them: which files a purge, a pin or a listing is about.
//!
//! `/Software/Current/avvdat.zip` is that file, `/Software/Current/` everything below, `/Software/**/*.zip` a glob
//! as in rules, `avvdat.zip` and `*.zip` a file name in any folder. A URL's scheme and host are not looked at.

use std::collections::HashSet;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::base::limits::{PATTERN_BYTES, PATTERNS};
use crate::protocol::target::decode_path;

/// A pattern that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}`: {reason}")]
pub struct PatternError {
    /// As it was written.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
    /// What to write instead.
    pub help: String,
}

/// Some patterns; a path matches if one of them does. A match costs little however many exact ones there are.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    texts: Vec<String>,
    exact: HashSet<String>,
    below: Vec<String>,
    globs: GlobSet,
}

impl Patterns {
    /// Compiles them.
    ///
    /// # Errors
    /// The first one that cannot be used, or that there are too many.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, PatternError> {
        let mut patterns = Self::default();
        let mut globs = GlobSetBuilder::new();
        for text in texts.iter().map(AsRef::as_ref) {
            let refuse = |reason: String, help: &str| PatternError {
                pattern: shorten(text),
                reason,
                help: help.to_owned(),
            };
            if patterns.texts.len() >= PATTERNS {
                return Err(refuse(
                    format!("more than {PATTERNS} patterns"),
                    "send them in several requests",
                ));
            }
            let path = path_of(text);
            if path.is_empty() {
                return Err(refuse("is empty".to_owned(), "`/**` (or --all) matches everything"));
            }
            if path.len() > PATTERN_BYTES {
                return Err(refuse(format!("is longer than {PATTERN_BYTES} characters"), "write a glob"));
            }
            if path.contains('/') && !path.starts_with('/') {
                let help =
                    format!("patterns are paths of URLs: write `/{path}`, or `**/{path}` for any folder");
                if !path.starts_with("**/") {
                    return Err(refuse("does not begin with `/`".to_owned(), &help));
                }
            }
            match below(&path) {
                Some(folder) => patterns.below.push(folder),
                None if path.starts_with('/') && !is_glob(&path) => {
                    patterns.exact.insert(decode_path(&path));
                }
                None => {
                    let anchored = path.strip_prefix('/').map_or_else(
                        || if path.starts_with("**/") { path.clone() } else { format!("**/{path}") },
                        str::to_owned,
                    );
                    let glob =
                        GlobBuilder::new(&anchored).literal_separator(true).backslash_escape(true).build();
                    let help = "`*` stays in a folder, `**` does not, `[` and `{` have to be closed";
                    globs.add(glob.map_err(|error| refuse(error.kind().to_string(), help))?);
                }
            }
            patterns.texts.push(text.to_owned());
        }
        patterns.globs = globs.build().map_err(|error| PatternError {
            pattern: texts.first().map_or("", AsRef::as_ref).to_owned(),
            reason: error.kind().to_string(),
            help: "write fewer or shorter globs".to_owned(),
        })?;
        Ok(patterns)
    }

    /// As they were written.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Those that name one file each, decoded; `None` where one of them may match more.
    pub fn exact(&self) -> Option<&HashSet<String>> {
        (self.below.is_empty() && self.globs.is_empty()).then_some(&self.exact)
    }

    /// Whether one of them matches a canonical path, with its leading slash.
    pub fn matches(&self, path: &str) -> bool {
        let decoded;
        let path = if path.contains('%') {
            decoded = decode_path(path);
            &decoded
        } else {
            path
        };
        self.exact.contains(path)
            || self.below.iter().any(|folder| path.starts_with(folder.as_str()))
            || (!self.globs.is_empty() && self.globs.is_match(path.strip_prefix('/').unwrap_or(path)))
    }
}

/// The path of a URL, or the text itself.
pub fn path_of(text: &str) -> String {
    let text = text.trim();
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match rest {
        None => text.to_owned(),
        Some(rest) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/").to_owned(),
    }
}

/// Whether a text has a character that means more than itself.
pub fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '[', '{', '\\'])
}

/// The folder that a pattern is all of.
fn below(path: &str) -> Option<String> {
    let folder = path.strip_suffix("**").unwrap_or(path);
    let folder = if folder.is_empty() { "/" } else { folder };
    (folder.starts_with('/') && folder.ends_with('/') && !is_glob(folder)).then(|| decode_path(folder))
}

fn shorten(text: &str) -> String {
    text.chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(pattern: &str, path: &str) -> bool {
        Patterns::parse(&[pattern]).unwrap().matches(path)
    }

    #[test]
    fn patterns_match_what_people_mean() {
        for (pattern, path, expected) in [
            ("/a/b.zip", "/a/b.zip", true),
            ("/a/b.zip", "/a/b.zip2", false),
            ("https://any.host:8443/a/b.zip", "/a/b.zip", true),
            ("/a/", "/a/b/c", true),
            ("/a/", "/ab/c", false),
            ("/a/**", "/a/b/c", true),
            ("**", "/x", true),
            ("/**", "/x/y", true),
            ("/a/*", "/a/b", true),
            ("/a/*", "/a/b/c", false),
            ("/a/**/*.zip", "/a/b/c.zip", true),
            ("*.zip", "/a/b/c.zip", true),
            ("**/b/*.zip", "/a/b/c.zip", true),
            ("c.zip", "/a/b/c.zip", true),
            ("c.zip", "/a/b/cc.zip", false),
            ("/a/with space", "/a/with%20space", true),
            ("/a/with%20space", "/a/with%20space", true),
            ("/A", "/a", false),
        ] {
            assert_eq!(is(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn what_cannot_be_a_pattern_is_told_with_what_could() {
        for (pattern, help) in
            [("", "/**"), ("a/b.zip", "`/a/b.zip`"), ("/a/[b", "closed"), ("/a/{b", "closed")]
        {
            let error = Patterns::parse(&[pattern]).unwrap_err();
            assert!(error.help.contains(help), "{pattern}: {error:?}");
        }
        let long = "/".repeat(PATTERN_BYTES + 1);
        assert!(Patterns::parse(&[long]).is_err());
        assert!(Patterns::parse(&vec!["/x"; PATTERNS + 1]).is_err());
        assert!(!Patterns::parse::<&str>(&[]).unwrap().matches("/x"));
    }
}
