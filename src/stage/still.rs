//! Whether what was read of a catalogue is one thing, and still there.
//!
//! Where the root proves all other files, it says so itself. Elsewhere (an ePO tree has a `Replica.log` in each folder
//! that nothing proves) a publisher who writes file after file can be caught between any two of them, and all that a
//! reader can do is to see whether anything moves. An upstream that is a node says which generation it answers from.

use std::sync::Arc;
use std::time::Duration;

use super::Catalogues;
use super::draft::unreachable;
use super::fetch::{Fetched, GENERATION};
use super::generation::{Generation, Part};
use super::scope::Scope;
use super::trouble::Trouble;
use crate::cache::Entry;
use crate::repository::listing::Kind;

/// How long a catalogue has to lie still where nothing in it proves all of it. A publisher who writes file after file
/// is done when nothing comes any more; there is no other sign.
pub(super) const LIES_STILL: Duration = Duration::from_secs(1);

/// So long after it was shown, all of a generation is asked for each time: its publisher may have been slower than we
/// waited.
const YOUNG: Duration = Duration::from_secs(60);

impl Catalogues {
    /// Whether upstream still has all of a generation, a while after it was read.
    pub(super) async fn lies_still(
        self: &Arc<Self>,
        scope: &Scope,
        generation: &Generation,
    ) -> Result<bool, Trouble> {
        let upstream = &*generation.source;
        let root = self.fetch_root(scope, upstream).await?;
        let named = name_of(&root);
        Ok(root.digest == generation.root_digest
            && self.is_unmoved(&scope.root, generation.parts.values(), (upstream, named.as_deref())).await?)
    }

    /// The parts that are asked for to see whether a generation is still upstream's: those next to the root, and the
    /// deeper ones where there is reason to. Usually a publisher changes something at the top as well.
    pub(super) fn to_ask<'a>(
        &self,
        scope: &'a Scope,
        current: &'a Generation,
    ) -> impl Iterator<Item = &'a Part> {
        let is_young = self.clock.now().since(current.staged_at) < YOUNG;
        let deep = scope.take_doubt() || is_young;
        current.parts.values().filter(move |part| deep || beside(&part.path, &scope.root))
    }

    /// Whether those of the parts that nothing proves are still what they were.
    pub(super) async fn is_unmoved(
        &self,
        root: &str,
        parts: impl Iterator<Item = &Part>,
        (upstream, named): (&str, Option<&str>),
    ) -> Result<bool, Trouble> {
        let asked = |part: &&Part| part.unproven && part.kind == Kind::Catalogue && *part.path != *root;
        for part in parts.filter(asked) {
            match self.revalidate(&part.path, upstream, named).await {
                Ok(Fetched::Entry(entry)) if entry.digest == part.entry.digest => {}
                Ok(_) => return Ok(false),
                Err(cause) => return Err(unreachable(&part.path, cause)),
            }
        }
        Ok(true)
    }
}

/// What the upstream of this answer, a node, calls the generation it belongs to.
pub(super) fn name_of(entry: &Entry) -> Option<Box<str>> {
    let (_, value) = entry.head.headers.iter().find(|(name, _)| name == GENERATION.as_str())?;
    let id = std::str::from_utf8(value).ok()?.strip_prefix("id=\"")?.split('"').next()?;
    (id.len() == 16 && id.bytes().all(|digit| digit.is_ascii_hexdigit())).then(|| id.into())
}

/// Whether two files are in the same folder.
pub(super) fn beside(one: &str, other: &str) -> bool {
    folder(one) == folder(other)
}

/// The folder of a path, with its slash.
fn folder(path: &str) -> &str {
    path.rfind('/').and_then(|at| path.get(..=at)).unwrap_or_default()
}
