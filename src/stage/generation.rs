//! A generation: the files of one catalogue and everything they name, as it was at one moment. Immutable but for
//! its clocks and for what agents used of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::known::Known;
use crate::base::clock::Timestamp;
use crate::base::digest::{Digest, Hasher};
use crate::base::limits::USED_FILES;
use crate::cache::Entry;
use crate::repository::listing::{Kind, Listed, Listing, Version};
use crate::repository::preset::Preset;

/// A catalogue file of a generation, with its bytes.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Its path in the origin's spelling.
    pub(super) path: Box<str>,
    pub(super) kind: Kind,
    /// Whether nothing in the catalogue says what it must be: only asking tells whether it changed.
    pub(super) unproven: bool,
    pub(super) entry: Arc<Entry>,
}

/// What one index names. Shared by all generations that have the same index.
#[derive(Debug)]
pub(super) struct Layer {
    /// Folded name of the index.
    pub(super) name: Box<str>,
    /// The index's content.
    pub(super) digest: Digest,
    pub(super) listing: Listing,
}

/// A generation.
#[derive(Debug)]
pub struct Generation {
    /// The first sixteen hexadecimal digits of a digest over its catalogue files: the same on every node that has it.
    pub id: Box<str>,
    /// What the catalogue calls itself.
    pub version: Option<Version>,
    /// The upstream it was read from.
    pub source: String,
    /// When it was shown first.
    pub staged_at: Timestamp,
    pub(super) root_digest: Digest,
    pub(super) core: Arc<Listing>,
    pub(super) layers: Vec<Arc<Layer>>,
    pub(super) parts: HashMap<Box<str>, Part>,
    aliases: Arc<Aliases>,
    pub(super) clocks: Arc<Clocks>,
    used: Arc<Mutex<HashSet<Box<str>>>>,
    /// What was asked for is also in `used`, which therefore need not be told again.
    pub(super) known: Arc<Known>,
}

/// When a generation was last known to be upstream's, and when another took its place. Milliseconds; 0 is never.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    confirmed_at: AtomicU64,
    retired_at: AtomicU64,
}

/// Names that carry a digest, and the names they stand for.
#[derive(Debug, Default)]
struct Aliases {
    /// From the word of a content to the name that the catalogue gives it.
    plain: HashMap<String, Box<str>>,
    /// From the word of a content to a path that names it by its digest: there even while the plain one moves on.
    by_digest: HashMap<String, Box<str>>,
}

impl Aliases {
    fn of(listing: &Listing, preset: &dyn Preset) -> Self {
        let mut aliases = Self::default();
        for (_, listed) in listing.files() {
            if preset.named_by_digest(&listed.path).is_some()
                && let Some(word) = listed.expectation.word()
            {
                aliases.by_digest.insert(word, listed.path.clone());
            }
        }
        if aliases.by_digest.is_empty() {
            return aliases;
        }
        for (name, listed) in listing.files() {
            if let Some(word) = listed.expectation.word()
                && aliases.by_digest.contains_key(&word)
                && preset.named_by_digest(&listed.path).is_none()
            {
                aliases.plain.insert(word, name.into());
            }
        }
        aliases
    }
}

/// What a generation is made of.
pub(super) struct Draft {
    pub(super) source: String,
    /// What the upstream, a node itself, calls the generation it has.
    pub(super) named: Option<Box<str>>,
    pub(super) root_digest: Digest,
    pub(super) core: Listing,
    pub(super) layers: Vec<Arc<Layer>>,
    pub(super) parts: HashMap<Box<str>, Part>,
}

impl Draft {
    /// What its generation will be called.
    pub(super) fn id(&self) -> Box<str> {
        let read = self.parts.iter().filter(|(_, part)| part.kind == Kind::Catalogue);
        let mut names: Vec<_> = read.map(|(name, part)| (name, part.entry.digest)).collect();
        names.sort();
        let mut hasher = Hasher::default();
        for (name, digest) in names {
            hasher.update(name.as_bytes());
            hasher.update(b"\n");
            hasher.update(&digest.0);
        }
        let mut id = hasher.finish().to_string();
        id.truncate(16);
        id.into()
    }

    /// Whether all its files are known to belong together: they are proven by the root, or come from a node that showed
    /// exactly them as one.
    pub(super) fn is_one(&self) -> bool {
        let from_root = |part: &Part| part.entry.digest == self.root_digest || !part.unproven;
        self.parts.values().filter(|part| part.kind == Kind::Catalogue).all(from_root)
            || self.named.as_deref() == Some(&*self.id())
    }

    /// How many files it names.
    pub(super) fn files(&self) -> usize {
        self.core.len() + self.layers.iter().map(|layer| layer.listing.len()).sum::<usize>()
    }

    /// The generation, confirmed by upstream at `now`.
    pub(super) fn finish(
        self,
        preset: &dyn Preset,
        staged_at: Timestamp,
        confirmed_at: Timestamp,
    ) -> Generation {
        let id = self.id();
        let aliases = Arc::new(Aliases::of(&self.core, preset));
        let clocks = Clocks { confirmed_at: confirmed_at.0.into(), retired_at: 0.into() };
        Generation {
            id,
            version: self.core.version.clone(),
            source: self.source,
            staged_at,
            root_digest: self.root_digest,
            core: Arc::new(self.core),
            layers: self.layers,
            parts: self.parts,
            aliases,
            clocks: Arc::new(clocks),
            used: Arc::default(),
            known: Arc::default(),
        }
    }
}

impl Generation {
    /// The same generation, with one more index read.
    pub(super) fn with_layer(&self, layer: Arc<Layer>, part: Part) -> Self {
        let mut parts = self.parts.clone();
        parts.insert(layer.name.clone(), part);
        let mut layers = self.layers.clone();
        layers.push(layer);
        Self {
            id: self.id.clone(),
            version: self.version.clone(),
            source: self.source.clone(),
            staged_at: self.staged_at,
            root_digest: self.root_digest,
            core: Arc::clone(&self.core),
            layers,
            parts,
            aliases: Arc::clone(&self.aliases),
            clocks: Arc::clone(&self.clocks),
            used: Arc::clone(&self.used),
            known: Arc::clone(&self.known),
        }
    }

    /// What is listed under a folded name.
    pub(super) fn find(&self, name: &str) -> Option<&Listed> {
        let in_layers = || self.layers.iter().find_map(|layer| layer.listing.find(name));
        self.core.find(name).or_else(in_layers)
    }

    /// All listed files with their folded names.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &Listed)> {
        self.core.files().chain(self.layers.iter().flat_map(|layer| layer.listing.files()))
    }

    /// How many files it names.
    pub fn len(&self) -> usize {
        self.core.len() + self.layers.iter().map(|layer| layer.listing.len()).sum::<usize>()
    }

    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many catalogue files it has.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// The name the catalogue gives to a content that is asked for by its digest.
    pub(super) fn plain_name(&self, word: &str) -> Option<&str> {
        self.aliases.plain.get(word).map(|name| &**name)
    }

    /// A path that names this content by its digest, if the origin has one.
    pub(super) fn path_by_digest(&self, word: &str) -> Option<&str> {
        self.aliases.by_digest.get(word).map(|path| &**path)
    }

    /// What the catalogue calls itself; where it has no word for that, the first sixteen hexadecimal digits of the
    /// SHA-256 of its root. What agents say that they have.
    pub fn version_text(&self) -> String {
        let digest = || self.root_digest.to_string().chars().take(16).collect();
        self.version.as_ref().map_or_else(digest, |version| version.text.clone())
    }

    /// When upstream last said that this is what it has.
    pub fn confirmed_at(&self) -> Timestamp {
        Timestamp(self.clocks.confirmed_at.load(Ordering::Relaxed))
    }

    pub(super) fn confirm(&self, now: Timestamp) {
        self.clocks.confirmed_at.store(now.0, Ordering::Relaxed);
    }

    /// When another one took its place; `None` while it is shown.
    pub(super) fn retired_at(&self) -> Option<Timestamp> {
        Some(self.clocks.retired_at.load(Ordering::Relaxed)).filter(|at| *at > 0).map(Timestamp)
    }

    pub(super) fn retire(&self, now: Timestamp) {
        self.clocks.retired_at.store(now.0.max(1), Ordering::Relaxed);
    }

    /// Notes that an agent fetched `name`.
    pub(super) fn note_use(&self, name: &str) {
        let mut used = self.used.lock();
        if used.len() < USED_FILES && !used.contains(name) {
            used.insert(name.into());
        }
    }

    /// What agents fetched of it.
    pub(super) fn used(&self) -> Vec<Box<str>> {
        self.used.lock().iter().cloned().collect()
    }
}
