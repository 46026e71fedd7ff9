//! What kinds of repository there are: each a table of names and a parser behind one small trait.
//!
//! A preset knows which file is the *root* of a catalogue, what a catalogue file says about others, and which names
//! never change. All paths are canonical, below the repository's, without a leading slash, percent-encoded as in the
//! URL. Adding a preset is adding a file here.

pub mod apt;
pub mod clamav;
pub mod epo;
pub mod generic;
mod names;
mod text;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use super::expectation::Expectation;
use super::listing::{CatalogueError, Listing, Version};
use super::rules::Rule;

/// All of them, as the configuration names them.
static PRESETS: [&dyn Preset; 4] = [&generic::Generic, &epo::Epo, &clamav::ClamAv, &apt::Apt];

/// The preset of this name in the configuration.
pub fn preset_named(name: &str) -> Option<&'static dyn Preset> {
    PRESETS.into_iter().find(|preset| preset.name() == name)
}

/// The names of all presets.
pub fn preset_names() -> impl Iterator<Item = &'static str> {
    PRESETS.into_iter().map(Preset::name)
}

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

    /// The version that the delta `path` leads to, in the order of [`Version::order`], where the name says so.
    fn version_of_delta(&self, _path: &str) -> Option<u64> {
        None
    }

    /// The deltas that lead from one version of `root`'s catalogue to another, oldest first, where the names follow
    /// from the versions alone.
    fn deltas_between(&self, _root: &str, _from: &Version, _to: &Version) -> Vec<String> {
        Vec::new()
    }

    /// What an agent that asks for the root is told while there is nothing to offer (media type and body), where its kind
    /// has a word for that.
    fn not_offered(&self) -> Option<(&'static str, &'static str)> {
        None
    }

    /// The payload that is fetched whole instead of the delta `path`, where the names say so.
    fn full_of(&self, _delta: &str) -> Option<String> {
        None
    }
}

/// A rule for names that are replaced under their name: five minutes old is good enough (ePO's own handlers flush
/// after up to 300), and older goes out for a while more as it is asked for again.
fn mutable(pattern: impl Into<String>) -> Rule {
    Rule {
        pattern: pattern.into(),
        fresh_for: Some(MUTABLE_FRESH_FOR),
        stale_while_revalidate: Some(MUTABLE_FRESH_FOR),
        ..Rule::default()
    }
}

/// A rule for names that mean the same bytes for ever.
fn immutable(pattern: impl Into<String>) -> Rule {
    Rule { pattern: pattern.into(), immutable: Some(true), ..Rule::default() }
}

const MUTABLE_FRESH_FOR: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::repository::rules::Rules;

    #[test]
    fn every_preset_has_its_name_and_rules_that_compile() {
        let names: Vec<&str> = preset_names().collect();
        assert_eq!(names, ["generic", "epo", "clamav", "apt"]);
        for name in names {
            let preset = preset_named(name).unwrap();
            assert_eq!(preset.name(), name);
            Rules::compile(preset.rules()).unwrap();
        }
        assert!(preset_named("Epo").is_none());
    }

    proptest! {
        #[test]
        fn folding_is_done_once(text in "[a-zA-ZßÄäİ %+~;/.0-9]{1,24}") {
            let Ok(path) = crate::protocol::target::path_of_name(&text) else { return Ok(()) };
            for name in preset_names() {
                let preset = preset_named(name).unwrap();
                let once = preset.fold(&path).into_owned();
                prop_assert_eq!(preset.fold(&once).into_owned(), once.clone());
            }
        }

        #[test]
        fn no_name_is_too_strange(path in "\\PC{0,40}") {
            for name in preset_names() {
                let preset = preset_named(name).unwrap();
                let _ = (preset.fold(&path), preset.root_of(&path), preset.named_by_digest(&path));
                let _ = (preset.is_catalogue(&path), preset.is_delta(&path), preset.next_delta(&path));
                prop_assert!(preset.full_of(&path).is_none_or(|full| !preset.is_delta(&full)));
            }
        }
    }
}
