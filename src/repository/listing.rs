//! What a catalogue and everything it names come to: a map from names to expectations, within bounds.

use std::collections::HashMap;
use std::fmt;

use super::expectation::Expectation;
use crate::base::limits::{CATALOGUES, LISTED_FILES, TARGET_BYTES};
use crate::protocol::target::is_canonical_below;

/// What a listed file is to its generation. In the order of what weighs more where a file is listed twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// How many of them are [`Kind::Catalogue`].
    catalogues: usize,
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
        Self { version: None, available: true, root_md5: None, files: HashMap::new(), catalogues: 0 }
    }
}

impl Listing {
    /// Adds a file under `name` (its path as the preset folds it). Listed twice it is one file with everything that
    /// was said about it; who requires it knows its spelling better than who says that it may be there.
    ///
    /// # Errors
    /// One name or catalogue too many, a path that is not canonical or leaves the repository, or two listings that
    /// contradict each other; the caller adds the line.
    pub fn add(&mut self, name: &str, listed: Listed) -> Result<(), String> {
        if listed.path.len() > TARGET_BYTES || !is_canonical_below(&listed.path) {
            return Err(format!("`{}` is not a name within the repository", shown(&listed.path)));
        }
        let full = self.files.len() >= LISTED_FILES;
        let known = self.files.get_mut(name);
        if listed.kind == Kind::Catalogue && known.as_ref().is_none_or(|it| it.kind != Kind::Catalogue) {
            if self.catalogues >= CATALOGUES {
                return Err(format!("it names more than {CATALOGUES} catalogue files"));
            }
            self.catalogues += 1;
        }
        match known {
            Some(known) if known.expectation.contradicts(&listed.expectation) => {
                Err(format!("`{}` is listed twice with different digests or sizes", shown(&listed.path)))
            }
            Some(known) => {
                if known.optional && !listed.optional {
                    known.path = listed.path;
                    known.optional = false;
                }
                known.kind = known.kind.min(listed.kind);
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

/// A name for a message: short, and nothing in it that a terminal obeys.
pub(super) fn shown(name: &str) -> String {
    let mut text: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    if name.chars().nth(80).is_some() {
        text.push('…');
    }
    text
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
    fn who_requires_a_file_outweighs_who_expects_it() {
        let mut listing = Listing::default();
        let guess =
            Listed { kind: Kind::Companion, optional: true, ..file("catalog.z", Expectation::default()) };
        listing.add("catalog.z", guess.clone()).unwrap();
        let known = Expectation::exactly(3, Digest([1; 32]));
        listing.add("catalog.z", file("Catalog.z", known.clone())).unwrap();
        listing.add("catalog.z", guess).unwrap();
        let merged = Listed { kind: Kind::Companion, ..file("Catalog.z", known) };
        assert_eq!(listing.find("catalog.z"), Some(&merged));
    }

    #[test]
    fn catalogues_are_counted() {
        let mut listing = Listing::default();
        let catalogue = |at: usize| {
            let path = format!("d{at}/Replica.log");
            (path.clone(), Listed { kind: Kind::Catalogue, ..file(&path, Expectation::default()) })
        };
        for at in (0..CATALOGUES).chain(0..CATALOGUES) {
            let (name, listed) = catalogue(at);
            listing.add(&name, listed).unwrap();
        }
        let (name, listed) = catalogue(CATALOGUES);
        assert!(listing.add(&name, listed).unwrap_err().contains("10000"));
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
