//! Reading a catalogue as one upstream has it now: the root, every file it takes to understand it, and again the
//! root, to see that nothing moved meanwhile.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::Catalogues;
use super::fetch::{Fetched, Want};
use super::generation::{Draft, Generation, Layer, Part};
use super::scope::Scope;
use super::trouble::Trouble;
use crate::base::limits::{CATALOGUE_BYTES, LISTED_FILES};
use crate::base::proof::{self, BodyHasher};
use crate::cache::Entry;
use crate::fill::Cause;
use crate::repository::listing::{CatalogueError, Kind, Listed, Listing};

/// Catalogue files fetched at the same time.
const AT_ONCE: usize = 4;

/// Catalogue files of one generation, at most: a tree of folders has one each.
const PARTS: usize = 10_000;

/// What looking at an upstream came to.
pub(super) enum Found {
    /// What is shown is what it has.
    Same,
    /// Something newer, complete as far as catalogue files go.
    New(Box<Draft>),
}

impl Catalogues {
    /// Looks at what `upstream` has under the scope's root.
    pub(super) async fn look(self: &Arc<Self>, scope: &Scope, upstream: &str) -> Result<Found, Trouble> {
        let current = scope.newest();
        let root = self.fetch_root(scope, upstream, None).await?;
        if let Some(current) = &current
            && current.root_digest == root.digest
            && self.is_unmoved(&scope.root, current.parts.values(), upstream).await?
        {
            return Ok(Found::Same);
        }
        let draft = self.draft(scope, upstream, &root, current.as_deref()).await?;
        if !draft.core.available {
            return Err(Trouble::NotOffered);
        }
        if let Some(current) = &current {
            self.check_order(current, &draft)?;
        }
        let again = self.fetch_root(scope, upstream, None).await?;
        if again.digest != root.digest
            || !self.is_unmoved(&scope.root, draft.parts.values(), upstream).await?
        {
            return Err(Trouble::Moving);
        }
        Ok(Found::New(Box::new(draft)))
    }

    async fn fetch_root(
        &self,
        scope: &Scope,
        upstream: &str,
        generation: Option<&str>,
    ) -> Result<Arc<Entry>, Trouble> {
        match self.revalidate(&scope.root, upstream, generation).await {
            Ok(Fetched::Entry(entry)) => Ok(entry),
            Ok(Fetched::Absent) => Err(Trouble::Absent),
            Err(cause) => Err(unreachable(&scope.root, cause)),
        }
    }

    /// Whether the files next to the root that nothing proves are still what they were. Deeper ones are not asked for
    /// each time: their publisher changes something at the top as well.
    async fn is_unmoved(
        &self,
        root: &str,
        parts: impl Iterator<Item = &Part>,
        upstream: &str,
    ) -> Result<bool, Trouble> {
        let asked = |part: &&Part| part.unproven && part.kind == Kind::Catalogue && *part.path != *root;
        for part in parts.filter(asked).filter(|part| folder(&part.path) == folder(root)) {
            match self.revalidate(&part.path, upstream, None).await {
                Ok(Fetched::Entry(entry)) if entry.digest == part.entry.digest => {}
                Ok(_) => return Ok(false),
                Err(cause) => return Err(unreachable(&part.path, cause)),
            }
        }
        Ok(true)
    }

    /// A mirror that lags behind must not take agents back; the publisher itself may.
    fn check_order(&self, current: &Generation, draft: &Draft) -> Result<(), Trouble> {
        if let (Some(ours), Some(theirs)) = (&current.version, &draft.core.version)
            && draft.source != current.source
            && theirs.order <= ours.order
        {
            return Err(Trouble::Older { source_name: draft.source.clone(), version: theirs.text.clone() });
        }
        Ok(())
    }

    async fn draft(
        self: &Arc<Self>,
        scope: &Scope,
        upstream: &str,
        root: &Arc<Entry>,
        current: Option<&Generation>,
    ) -> Result<Draft, Trouble> {
        let mut reading = Reading {
            catalogues: self,
            upstream,
            root: &scope.root,
            core: Listing::default(),
            parts: HashMap::new(),
        };
        reading.take(&scope.name, &scope.root, (Kind::Catalogue, true), Arc::clone(root)).await?;
        if !reading.core.available {
            let Reading { core, parts, .. } = reading;
            return Ok(Draft {
                source: upstream.to_owned(),
                root_digest: root.digest,
                core,
                layers: Vec::new(),
                parts,
            });
        }
        self.check_root_md5(&scope.root, root, &reading.core).await?;
        reading.follow().await?;
        let Reading { core, mut parts, .. } = reading;
        let layers = self.indexes(scope, upstream, (&core, current), &mut parts).await?;
        let draft = Draft { source: upstream.to_owned(), root_digest: root.digest, core, layers, parts };
        if draft.files() > LISTED_FILES {
            let error = CatalogueError::whole(format!("it names more than {LISTED_FILES} files"));
            return Err(Trouble::Malformed { path: scope.root.to_string(), error });
        }
        Ok(draft)
    }

    /// The root's own word about its bytes, where it has one.
    async fn check_root_md5(&self, path: &str, root: &Arc<Entry>, core: &Listing) -> Result<(), Trouble> {
        let Some((from, expected)) = core.root_md5 else { return Ok(()) };
        let mut hasher = BodyHasher::proving(proof::Kind::Md5);
        self.each_piece(root, from, |bytes| hasher.update(bytes))
            .await
            .map_err(|cause| unreachable(path, cause))?;
        if hasher.finish().proof() != expected {
            // It must not be taken for an unchanged one the next time.
            self.origin.store.remove(root.key.as_str());
            let error = CatalogueError::whole("its content is not what its header says");
            return Err(Trouble::Malformed { path: path.to_owned(), error });
        }
        Ok(())
    }

    /// The indexes that agents used of the current generation, as the new one has them.
    async fn indexes(
        self: &Arc<Self>,
        scope: &Scope,
        upstream: &str,
        (core, current): (&Listing, Option<&Generation>),
        parts: &mut HashMap<Box<str>, Part>,
    ) -> Result<Vec<Arc<Layer>>, Trouble> {
        let mut layers = Vec::new();
        for before in current.map(|it| it.layers.as_slice()).unwrap_or_default() {
            let Some(listed) = core.find(&before.name) else { continue };
            let by_digest = listed.expectation.word().and_then(|word| by_digest(self, core, &word));
            let path = Self::path_to_ask(by_digest.as_deref(), listed);
            let entry = match self.fetch_listed(listed, path, Some(upstream)).await {
                Ok(Fetched::Entry(entry)) => entry,
                Ok(Fetched::Absent) => return Err(Trouble::Missing { path: listed.path.to_string() }),
                Err(cause) => return Err(Trouble::NotReady { path: listed.path.to_string(), cause }),
            };
            let layer = if before.digest == entry.digest {
                Arc::clone(before)
            } else {
                Arc::new(self.read_index(scope, &before.name, &listed.path, &entry).await?)
            };
            let part = Part { path: listed.path.clone(), kind: Kind::Index, unproven: false, entry };
            parts.insert(before.name.clone(), part);
            layers.push(layer);
        }
        Ok(layers)
    }

    /// Fetches a listed file, held to what the catalogue says.
    pub(super) async fn fetch_listed(
        &self,
        listed: &Listed,
        ask: &str,
        only: Option<&str>,
    ) -> Result<Fetched, Cause> {
        let Some(word) = listed.expectation.word() else {
            return Err(Cause::Internal);
        };
        let key = self.content_key(&listed.path, &word);
        let expect = Some(Arc::new(listed.expectation.clone()));
        self.fetch(Want { key, path: ask, only, expect, generation: None, paced: false }).await
    }

    /// Reads what an index names.
    pub(super) async fn read_index(
        &self,
        scope: &Scope,
        name: &str,
        path: &str,
        entry: &Arc<Entry>,
    ) -> Result<Layer, Trouble> {
        let listing = self.read(&scope.root, path, entry, Listing::default()).await?;
        Ok(Layer { name: name.into(), digest: entry.digest, listing })
    }

    /// Reads one catalogue file into `listing`, on a thread for work that takes long.
    pub(super) async fn read(
        &self,
        root: &str,
        path: &str,
        entry: &Arc<Entry>,
        mut listing: Listing,
    ) -> Result<Listing, Trouble> {
        let malformed = |error| Trouble::Malformed { path: path.to_owned(), error };
        let max = if root == path { self.preset.root_bytes() } else { None };
        if max.is_none() && entry.length > CATALOGUE_BYTES {
            let mib = CATALOGUE_BYTES >> 20;
            return Err(malformed(CatalogueError::whole(format!("it is larger than {mib} MiB"))));
        }
        let body = self
            .bytes(entry, max.unwrap_or(CATALOGUE_BYTES))
            .await
            .map_err(|cause| unreachable(path, cause))?;
        let (preset, root, name) = (self.preset, root.to_owned(), path.to_owned());
        let read = tokio::task::spawn_blocking(move || {
            preset.read(&root, &name, &body, &mut listing).map(|()| listing)
        });
        match read.await {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(error)) => {
                // Damaged on its way, perhaps: it must not be taken for an unchanged one the next time.
                self.origin.store.remove(entry.key.as_str());
                Err(malformed(error))
            }
            Err(_) => Err(malformed(CatalogueError::whole("the parser failed"))),
        }
    }
}

/// A path that names the content by its digest, in a listing that is not a generation yet.
fn by_digest(catalogues: &Catalogues, core: &Listing, word: &str) -> Option<String> {
    let same = |listed: &&Listed| {
        catalogues.preset.named_by_digest(&listed.path).is_some()
            && listed.expectation.word().as_deref() == Some(word)
    };
    core.files().map(|(_, listed)| listed).find(same).map(|listed| listed.path.to_string())
}

/// The folder of a path, with its slash.
fn folder(path: &str) -> &str {
    path.rfind('/').and_then(|at| path.get(..=at)).unwrap_or_default()
}

/// A catalogue while it is read.
struct Reading<'a> {
    catalogues: &'a Arc<Catalogues>,
    upstream: &'a str,
    root: &'a str,
    core: Listing,
    parts: HashMap<Box<str>, Part>,
}

impl Reading<'_> {
    /// Takes a fetched catalogue file in, and reads it where it names others.
    async fn take(
        &mut self,
        name: &str,
        path: &str,
        (kind, unproven): (Kind, bool),
        entry: Arc<Entry>,
    ) -> Result<(), Trouble> {
        if kind == Kind::Catalogue {
            let core = std::mem::take(&mut self.core);
            self.core = self.catalogues.read(self.root, path, &entry, core).await?;
        }
        self.parts.insert(name.into(), Part { path: path.into(), kind, unproven, entry });
        Ok(())
    }

    /// Fetches what the files read so far name as catalogue files, until there is no more.
    async fn follow(&mut self) -> Result<(), Trouble> {
        let mut absent = std::collections::HashSet::new();
        loop {
            let next: Vec<(Box<str>, Listed)> = self
                .core
                .files()
                .filter(|(_, listed)| matches!(listed.kind, Kind::Catalogue | Kind::Companion))
                .filter(|(name, _)| !self.parts.contains_key(*name) && !absent.contains(*name))
                .map(|(name, listed)| (name.into(), listed.clone()))
                .collect();
            if next.is_empty() {
                return Ok(());
            }
            if self.parts.len() + next.len() > PARTS {
                let error = CatalogueError::whole(format!("the catalogue has more than {PARTS} files"));
                return Err(Trouble::Malformed { path: self.root.to_owned(), error });
            }
            for (name, listed, fetched) in self.fetch_all(next).await? {
                match fetched {
                    Fetched::Entry(entry) => {
                        let unproven = listed.expectation.proof().is_none();
                        self.take(&name, &listed.path, (listed.kind, unproven), entry).await?;
                    }
                    Fetched::Absent if listed.optional => drop(absent.insert(name)),
                    Fetched::Absent => return Err(Trouble::Missing { path: listed.path.to_string() }),
                }
            }
        }
    }

    async fn fetch_all(
        &self,
        mut wanted: Vec<(Box<str>, Listed)>,
    ) -> Result<Vec<(Box<str>, Listed, Fetched)>, Trouble> {
        let mut running = JoinSet::new();
        let mut done = Vec::new();
        loop {
            while running.len() < AT_ONCE
                && let Some((name, listed)) = wanted.pop()
            {
                let (catalogues, upstream) = (Arc::clone(self.catalogues), self.upstream.to_owned());
                running.spawn(async move {
                    let fetched = if listed.expectation.proof().is_some() {
                        catalogues.fetch_listed(&listed, &listed.path, Some(&upstream)).await
                    } else {
                        catalogues.revalidate(&listed.path, &upstream, None).await
                    };
                    (name, listed, fetched)
                });
            }
            match running.join_next().await {
                None => return Ok(done),
                Some(Ok((name, listed, Ok(fetched)))) => done.push((name, listed, fetched)),
                Some(Ok((_, listed, Err(cause)))) if listed.expectation.proof().is_some() => {
                    return Err(Trouble::NotReady { path: listed.path.to_string(), cause });
                }
                Some(Ok((_, listed, Err(cause)))) => return Err(unreachable(&listed.path, cause)),
                Some(Err(_)) => return Err(unreachable(self.root, Cause::Internal)),
            }
        }
    }
}

pub(super) fn unreachable(path: &str, cause: Cause) -> Trouble {
    Trouble::Unreachable { path: path.to_owned(), cause }
}
