//! What a catalogue and everything it names come to: a map from names to expectations, within bounds.

use std::collections::HashMap;
use std::fmt;

use super::expectation::Expectation;
use crate::base::limits::{LISTED_FILES, TARGET_BYTES};
use crate::protocol::target::is_canonical_below;

/// What a listed file is to its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A catalogue file that names others: always staged, and read.
    Catalogue,
    /// A catalogue file of which only some matter: staged and read where agents use it, else left alone.
    Index,
    /// Belongs to the catalogue without naming anything (a signature): staged with it, not read.
    Companion,
    /// An incremental update: fetched before a "not found" is said.
    Delta,
    /// A payload.
    File,
}

/// A file of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its path below the repository's, canonical and in the origin's spelling: this is what upstream is asked for.
    pub path: Box<str>,
    /// What it must be.
    pub expectation: Expectation,
    /// What it is.
    pub kind: Kind,
    /// Whether the generation is complete without it: upstream may answer 404.
    pub optional: bool,
}

/// The version that a catalogue gives itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// As the catalogue writes it; shown to people.
    pub text: String,
    /// Grows with every publication: what versions are compared by.
    pub order: u64,
}

/// Everything that a generation names, while its catalogue files are read one after the other.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The version, once the root was read and has one.
    pub version: Option<Version>,
    /// Whether the publisher offers it at the moment. `false`: being replicated, keep what you have.
    pub available: bool,
    /// MD5 of the root's bytes from an offset on, where its own header has one (ClamAV).
    pub root_md5: Option<(u64, [u8; 16])>,
    files: HashMap<Box<str>, Listed>,
}

/// A catalogue that is not believed. It never becomes a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueError {
    /// The line of the file, from 1; 0 where lines mean nothing.
    pub line: u64,
    /// What is wrong, in a few words.
    pub reason: String,
}

impl CatalogueError {
    /// An error on a line.
    pub fn at(line: u64, reason: impl Into<String>) -> Self {
        Self { line, reason: reason.into() }
    }

    /// An error about the file as a whole.
    pub fn whole(reason: impl Into<String>) -> Self {
        Self::at(0, reason)
    }
}

impl fmt::Display for CatalogueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.reason),
            line => write!(f, "line {line}: {}", self.reason),
        }
    }
}

impl std::error::Error for CatalogueError {}

impl Default for Listing {
    fn default() -> Self {
        Self { version: None, available: true, root_md5: None, files: HashMap::new() }
    }
}

impl Listing {
    /// Adds a file under `name` (its path as the preset folds it). Listed twice it is one file with everything that
    /// was said about it.
    ///
    /// # Errors
    /// One name too many, a path that is not canonical or leaves the repository, or two listings that contradict each
    /// other; the caller adds the line.
    pub fn add(&mut self, name: &str, listed: Listed) -> Result<(), String> {
        if listed.path.len() > TARGET_BYTES || !is_canonical_below(&listed.path) {
            let shown: String = listed.path.chars().take(80).collect();
            return Err(format!("`{}` is not a name within the repository", shown.escape_debug()));
        }
        let full = self.files.len() >= LISTED_FILES;
        match self.files.get_mut(name) {
            Some(known) if known.expectation.contradicts(&listed.expectation) => {
                Err(format!("`{name}` is listed twice with different digests or sizes"))
            }
            Some(known) => {
                let before = std::mem::take(&mut known.expectation);
                known.expectation = before.and(listed.expectation);
                Ok(())
            }
            None if full => Err(format!("it names more than {LISTED_FILES} files")),
            None => {
                self.files.insert(name.into(), listed);
                Ok(())
            }
        }
    }

    /// What is listed under `name`, as the preset folds it.
    pub fn find(&self, name: &str) -> Option<&Listed> {
        self.files.get(name)
    }

    /// All files, in no order, with their folded names.
    pub fn files(&self) -> impl Iterator<Item = (&str, &Listed)> {
        self.files.iter().map(|(name, listed)| (&**name, listed))
    }

    /// How many files are listed.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::digest::Digest;

    fn file(path: &str, expectation: Expectation) -> Listed {
        Listed { path: path.into(), expectation, kind: Kind::File, optional: false }
    }

    #[test]
    fn a_file_listed_twice_is_one_file_with_all_that_was_said() {
        let mut listing = Listing::default();
        let sized = Expectation { length: Some(3), ..Expectation::default() };
        listing.add("a", file("A", sized)).unwrap();
        listing.add("a", file("A", Expectation::exactly(3, Digest([1; 32])))).unwrap();
        assert_eq!(listing.find("a").unwrap().expectation, Expectation::exactly(3, Digest([1; 32])));
        assert!(listing.add("a", file("A", Expectation::exactly(3, Digest([2; 32])))).is_err());
        assert_eq!(listing.len(), 1);
    }

    #[test]
    fn a_name_that_leaves_the_repository_is_refused() {
        for path in
            ["../x", "a/../../x", "/x", "a//b", "", "a\\b", "a\0b", "a?b", "%2e%2e/x", "a/./b", "a\nb"]
        {
            let refused = Listing::default().add("x", file(path, Expectation::default()));
            assert!(refused.is_err(), "{path:?}");
        }
        Listing::default().add("x", file("a%20b/c.zip", Expectation::default())).unwrap();
    }
}
