//! Listed files that agents ask for, with everything about them that a request needs: made once, found without a lock.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;

use crate::base::limits::USED_FILES;
use crate::cache::Key;
use crate::repository::expectation::Expectation;

/// Parts of the table. To add a file copies the part it belongs to, so that no reader waits: some 80 files of
/// [`USED_FILES`].
const PARTS: usize = 256;

/// A file that a catalogue, or its own name, proves.
#[derive(Debug)]
pub struct KnownFile {
    /// Its key: path and content.
    pub key: Key,
    /// Its path in the origin's spelling: what its plain entry would be called.
    pub path: Box<str>,
    /// What upstream is asked for.
    pub ask: Box<str>,
    /// What it must be.
    pub expect: Arc<Expectation>,
    /// Asked for by its digest: the folded name that the catalogue gives it.
    pub(super) plain: Option<Box<str>>,
}

/// Some of the files, by the folded name in which they were asked for.
type Part = HashMap<Box<str>, Arc<KnownFile>>;

/// The files that were asked for, by the folded name in which they were.
#[derive(Debug)]
pub(super) struct Known {
    parts: Box<[ArcSwap<Part>]>,
    hasher: RandomState,
    many: AtomicUsize,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            parts: std::iter::repeat_with(ArcSwap::default).take(PARTS).collect(),
            hasher: RandomState::new(),
            many: AtomicUsize::new(0),
        }
    }
}

impl Known {
    fn part(&self, asked: &str) -> Option<&ArcSwap<Part>> {
        // No more than 256 of them: the remainder is small.
        let number = usize::try_from(self.hasher.hash_one(asked) % PARTS as u64).unwrap_or(0);
        self.parts.get(number)
    }

    /// What was asked for by this name before.
    pub(super) fn find(&self, asked: &str) -> Option<Arc<KnownFile>> {
        self.part(asked)?.load().get(asked).cloned()
    }

    /// Remembers what was asked for by this name. Full is full: then it is made anew for each request.
    pub(super) fn keep(&self, asked: &str, file: &Arc<KnownFile>) {
        let Some(part) = self.part(asked) else { return };
        if self.many.load(Ordering::Relaxed) >= USED_FILES || part.load().contains_key(asked) {
            return;
        }
        let before = part.rcu(|map| {
            let mut map = HashMap::clone(map);
            map.entry(asked.into()).or_insert_with(|| Arc::clone(file));
            map
        });
        if !before.contains_key(asked) {
            self.many.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> Arc<KnownFile> {
        Arc::new(KnownFile {
            key: Key::from(name),
            path: name.into(),
            ask: name.into(),
            expect: Arc::default(),
            plain: None,
        })
    }

    #[test]
    fn a_file_is_made_once() {
        let known = Known::default();
        assert!(known.find("a").is_none());
        let (one, other) = (file("a"), file("a"));
        known.keep("a", &one);
        known.keep("a", &other);
        assert!(known.find("a").is_some_and(|it| Arc::ptr_eq(&it, &one)), "the first stays");
    }

    #[test]
    fn the_table_is_bounded() {
        let known = Known::default();
        let one = file("a");
        for number in 0..USED_FILES + 100 {
            known.keep(&number.to_string(), &one);
        }
        let kept = (0..USED_FILES + 100).filter(|number| known.find(&number.to_string()).is_some()).count();
        assert_eq!(kept, USED_FILES);
    }
}
