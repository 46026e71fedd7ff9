//! What is remembered of generations over a restart: the names of their catalogue files. What those name is read
//! again from the store, where they are kept.
//!
//! One small JSON file a catalogue, replaced as a whole. Lost or damaged it costs one look at upstream.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Catalogues;
use super::generation::{Draft, Generation, Layer, Part};
use super::scope::{Scope, Shown};
use super::trouble::Trouble;
use crate::base::clock::Timestamp;
use crate::base::crash::{Step, reach};
use crate::base::digest::Digest;
use crate::repository::listing::{Kind, Listing};

/// The form of these files; another one is as good as none.
const SCHEMA: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    schema: u32,
    root: String,
    generations: Vec<RememberedGeneration>,
}

#[derive(Debug, Serialize, Deserialize)]
struct RememberedGeneration {
    source: String,
    staged_at: u64,
    confirmed_at: u64,
    retired_at: Option<u64>,
    parts: Vec<RememberedPart>,
    used: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct RememberedPart {
    path: String,
    sha256: String,
    kind: String,
    unproven: bool,
}

const KINDS: [(&str, Kind); 3] =
    [("catalogue", Kind::Catalogue), ("index", Kind::Index), ("companion", Kind::Companion)];

fn word_of(kind: Kind) -> &'static str {
    KINDS.iter().find(|(_, it)| *it == kind).map_or("companion", |(word, _)| word)
}

fn kind_of(word: &str) -> Option<Kind> {
    KINDS.iter().find(|(it, _)| *it == word).map(|(_, kind)| *kind)
}

impl Catalogues {
    fn file_of(&self, scope: &Scope) -> PathBuf {
        let mut name = Digest::of(scope.root.as_bytes()).to_string();
        name.truncate(16);
        self.options.remember.join(format!("{}-{name}.json", self.origin.supply.name))
    }

    /// Writes down what the scope shows, behind.
    pub(super) fn remember(&self, scope: &Scope) {
        let shown = scope.shown.load();
        let generations = shown.generations.iter().map(|it| remembered(it)).collect();
        let record = Remembered { schema: SCHEMA, root: scope.root.to_string(), generations };
        let (path, repository) = (self.file_of(scope), self.origin.supply.name.clone());
        let order = std::sync::Arc::clone(&self.writing);
        self.work(async move {
            // One writer at a time, in order: the last state wins.
            let _order = order.lock().await;
            let written = tokio::task::spawn_blocking(move || write(&path, &record)).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(repository, %error, "generations cannot be remembered; a restart asks upstream anew");
            }
        });
    }

    /// Reads back what an earlier run showed.
    pub(super) async fn restore(&self) {
        let (dir, prefix) = (self.options.remember.clone(), format!("{}-", self.origin.supply.name));
        let records = tokio::task::spawn_blocking(move || read_all(&dir, &prefix)).await.unwrap_or_default();
        for record in records {
            let name = self.preset.fold(&record.root).into_owned();
            if self.preset.root_of(&record.root).is_none_or(|root| self.preset.fold(&root) != name) {
                continue;
            }
            let scope = Scope::new(&record.root, &name);
            let mut generations = Vec::new();
            for one in record.generations {
                let staged_at = Timestamp(one.staged_at);
                match self.restored(&scope, one).await {
                    Ok(generation) => generations.push(Arc::new(generation)),
                    Err(trouble) => {
                        let (repository, root) = (&*self.origin.supply.name, &*scope.root);
                        tracing::warn!(repository, root, staged_at = staged_at.0, %trouble, "a generation is lost");
                    }
                }
            }
            if generations.is_empty() {
                continue;
            }
            scope.shown.store(Arc::new(Shown { generations, absent: false }));
            self.add_scope(Arc::new(scope));
        }
    }

    async fn restored(&self, scope: &Scope, one: RememberedGeneration) -> Result<Generation, Trouble> {
        let mut parts = std::collections::HashMap::new();
        for part in &one.parts {
            let key = self.content_key(&part.path, &format!("sha256-{}", part.sha256));
            let missing = || Trouble::Missing { path: part.path.clone() };
            let entry = self.origin.store.find(key.as_str()).await.ok_or_else(missing)?;
            let kind = kind_of(&part.kind).ok_or_else(missing)?;
            let name = self.preset.fold(&part.path).into_owned();
            let part = Part { path: part.path.as_str().into(), kind, unproven: part.unproven, entry };
            parts.insert(name.into_boxed_str(), part);
        }
        let missing = || Trouble::Missing { path: scope.root.to_string() };
        let root = parts.get(&*scope.name).ok_or_else(missing)?.entry.clone();
        let mut core = self.read(&scope.root, &scope.root, &root, Listing::default()).await?;
        let mut layers = Vec::new();
        for (name, part) in parts.iter().filter(|(name, _)| **name != scope.name) {
            match part.kind {
                Kind::Catalogue => core = self.read(&scope.root, &part.path, &part.entry, core).await?,
                Kind::Index => {
                    let layer: Layer = self.read_index(scope, name, &part.path, &part.entry).await?;
                    layers.push(Arc::new(layer));
                }
                _ => {}
            }
        }
        let draft = Draft { source: one.source, named: None, root_digest: root.digest, core, layers, parts };
        let generation = draft.finish(self.preset, Timestamp(one.staged_at), Timestamp(one.confirmed_at));
        if let Some(at) = one.retired_at {
            generation.retire(Timestamp(at));
        }
        one.used.iter().for_each(|name| generation.note_use(name));
        Ok(generation)
    }
}

fn remembered(generation: &Generation) -> RememberedGeneration {
    let part = |part: &Part| RememberedPart {
        path: part.path.to_string(),
        sha256: part.entry.digest.to_string(),
        kind: word_of(part.kind).to_owned(),
        unproven: part.unproven,
    };
    RememberedGeneration {
        source: generation.source.clone(),
        staged_at: generation.staged_at.0,
        confirmed_at: generation.confirmed_at().0,
        retired_at: generation.retired_at().map(|at| at.0),
        parts: generation.parts.values().map(part).collect(),
        used: generation.used().into_iter().map(String::from).collect(),
    }
}

/// Written beside its place and moved there, so that a crash leaves the old one or the new one.
fn write(path: &Path, record: &Remembered) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    let aside = path.with_extension("new");
    let mut file = std::fs::File::create(&aside)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()?;
    reach(Step::StageWritten);
    std::fs::rename(&aside, path)?;
    reach(Step::StageKept);
    Ok(())
}

fn read_all(dir: &Path, prefix: &str) -> Vec<Remembered> {
    let Ok(found) = std::fs::read_dir(dir) else { return Vec::new() };
    let ours = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // A repository's name may be the beginning of another's.
        name.strip_prefix(prefix).is_some_and(|rest| rest.len() == 21 && rest.ends_with(".json"))
    };
    let mut paths: Vec<PathBuf> =
        found.filter_map(Result::ok).map(|entry| entry.path()).filter(ours).collect();
    paths.sort();
    for path in &paths {
        // Of a crash in the middle of writing it.
        let _ = std::fs::remove_file(path.with_extension("new"));
    }
    let read = |path: &PathBuf| {
        let record: Remembered = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        (record.schema == SCHEMA).then_some(record)
    };
    paths.iter().filter_map(read).collect()
}
