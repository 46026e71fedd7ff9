//! What kinds of repository there are: each a table of names and a parser behind one small trait.
//!
//! A preset knows which file is the *root* of a catalogue, what a catalogue file says about others, and which names
//! never change. All paths are canonical, below the repository's, without a leading slash, percent-encoded as in the
//! URL. Adding a preset is adding a file here.

use std::borrow::Cow;
use std::fmt;

use super::expectation::Expectation;
use super::listing::{CatalogueError, Listing, Version};
use super::rules::Rule;

/// A kind of repository.
pub trait Preset: fmt::Debug + Send + Sync {
    /// Its name in the configuration.
    fn name(&self) -> &'static str;

    /// Its table as rules: looked at after the administrator's own, in order, the first match as a whole.
    fn rules(&self) -> Vec<Rule>;

    /// The name that all spellings of `path` share. The same path where the origin tells upper from lower case.
    fn fold<'a>(&self, path: &'a str) -> Cow<'a, str> {
        Cow::Borrowed(path)
    }

    /// The root of the catalogue that speaks for `path` (a catalogue file, a payload or the root itself), where the
    /// name alone says so. In the usual spelling.
    fn root_of(&self, path: &str) -> Option<String>;

    /// Whether `path` is a catalogue file by its name: mutable, and only served out of a generation where there is one.
    fn is_catalogue(&self, path: &str) -> bool;

    /// How many bytes of the root [`Preset::read`] needs, from its start. Default: all.
    fn root_bytes(&self) -> Option<u64> {
        None
    }

    /// Reads the catalogue file `path` (the root itself, or one that was listed as a catalogue or an index) of the
    /// catalogue of `root`, and adds what it names.
    ///
    /// # Errors
    /// [`CatalogueError`]: the file is not believed, nor is anything else of this generation.
    fn read(&self, root: &str, path: &str, body: &[u8], listing: &mut Listing) -> Result<(), CatalogueError>;

    /// What the name itself says about the content (apt's `by-hash`).
    fn named_by_digest(&self, _path: &str) -> Option<Expectation> {
        None
    }

    /// Whether `path` is an incremental update by its name.
    fn is_delta(&self, _path: &str) -> bool {
        false
    }

    /// The delta that whoever asked for `path` asks for next.
    fn next_delta(&self, _path: &str) -> Option<String> {
        None
    }

    /// The deltas that lead from one version of `root`'s catalogue to another, oldest first, where the names follow
    /// from the versions alone.
    fn deltas_between(&self, _root: &str, _from: &Version, _to: &Version) -> Vec<String> {
        Vec::new()
    }

    /// The payload that is fetched whole instead of the delta `path`, where the names say so.
    fn full_of(&self, _delta: &str) -> Option<String> {
        None
    }
}
