//! What a path means at this moment, for this agent. Looks things up and never waits: the way of every request.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Catalogues;
use super::generation::Generation;
use super::known::KnownFile;
use super::scope::{Scope, Shown};
use super::sessions::Visitor;
use crate::base::limits::SCOPES;
use crate::cache::{Entry, Key};
use crate::repository::listing::{Kind, Listed};
use crate::repository::rules::REVALIDATE_AT_MOST;

/// What a path is.
#[derive(Debug)]
pub enum Place {
    /// Nothing that a catalogue speaks about: cached by the rules.
    Plain,
    /// A catalogue file: its bytes are at hand.
    Part(PartOf),
    /// A file whose content is known beforehand.
    Listed(ListedFile),
    /// Its catalogue has to be looked at first: wait for [`Catalogues::staged`], then ask again.
    Unstaged(Arc<Scope>),
    /// Its catalogue is too old to be offered.
    Withdrawn(PartOf),
}

/// A catalogue file of a generation.
#[derive(Debug)]
pub struct PartOf {
    /// Its bytes.
    pub entry: Arc<Entry>,
    /// The generation it belongs to.
    pub generation: Arc<Generation>,
    /// The catalogue.
    pub scope: Arc<Scope>,
    /// Whether this is the root, with which agents begin.
    pub is_root: bool,
    /// Whether it is time to ask upstream before it goes out.
    pub is_due: bool,
    /// Whether another generation has another content with the same date.
    pub is_date_shared: bool,
}

/// A file that a catalogue, or its own name, proves.
#[derive(Debug)]
pub struct ListedFile {
    /// What is known about it.
    pub file: Arc<KnownFile>,
    /// The generation that lists it; `None` where its name proves it.
    pub generation: Option<Arc<Generation>>,
    /// The catalogue that lists it.
    pub scope: Option<Arc<Scope>>,
}

impl Catalogues {
    /// What `path` (canonical, below the repository) means for `visitor`.
    pub fn locate(&self, path: &str, visitor: &Visitor<'_>) -> Place {
        let own = self.options.overrides.effective(path);
        if own.fresh_for.is_some() || own.immutable.is_some() {
            return Place::Plain;
        }
        let name = self.preset.fold(path);
        let scopes = self.scopes.load();
        for scope in scopes.iter() {
            if let Some(place) = self.within(scope, &name, visitor) {
                return place;
            }
        }
        // An agent that has the lists of an earlier generation asks for what they name.
        for scope in scopes.iter() {
            let shown = scope.shown.load();
            for generation in shown.generations.iter().skip(1) {
                if let Some(listed) = generation.find(&name).filter(|it| !is_part_kind(it.kind)) {
                    return self.listed(scope, generation, (&name, None), (listed, visitor));
                }
            }
        }
        if let Some(expect) = self.preset.named_by_digest(path)
            && let Some(word) = expect.word()
        {
            let key = self.content_key(path, &word);
            let (ask, expect) = (path.into(), Arc::new(expect));
            let file = Arc::new(KnownFile { key, path: path.into(), ask, expect, plain: None });
            return Place::Listed(ListedFile { file, generation: None, scope: None });
        }
        self.unlisted(path, &scopes, visitor)
    }

    fn within(&self, scope: &Arc<Scope>, name: &str, visitor: &Visitor<'_>) -> Option<Place> {
        let shown = scope.shown.load();
        let generation = if *name == *scope.name {
            // Whoever asks for the root begins anew, unless it names the generation itself.
            named(&shown, visitor).or_else(|| shown.generations.first())?
        } else {
            self.chosen(scope, &shown, visitor)?
        };
        if *name == *scope.name && !visitor.observer {
            let (now, grace) = (self.clock.now(), self.options.grace);
            self.sessions.pin(&scope.name, visitor, &generation.id, now, grace);
            scope.note_interest();
        }
        if let Some(part) = generation.parts.get(name) {
            return Some(self.part(scope, generation, name, &part.entry));
        }
        if let Some(file) = generation.known.find(name) {
            // An index becomes a part of its generation when it is read.
            return match file.plain.as_deref().and_then(|plain| Some((plain, generation.parts.get(plain)?))) {
                Some((plain, part)) => Some(self.part(scope, generation, plain, &part.entry)),
                None => Some(found(scope, generation, file)),
            };
        }
        let listed = generation.find(name)?;
        let plain = listed.expectation.word().and_then(|word| {
            self.preset
                .named_by_digest(&listed.path)
                .is_some()
                .then(|| generation.plain_name(&word))
                .flatten()
        });
        match plain {
            // Asked for by its digest: the same content, under the name it has in the catalogue.
            Some(plain) => match generation.parts.get(plain) {
                Some(part) => Some(self.part(scope, generation, plain, &part.entry)),
                None => generation
                    .find(plain)
                    .map(|listed| self.listed(scope, generation, (name, Some(plain)), (listed, visitor))),
            },
            None => Some(self.listed(scope, generation, (name, None), (listed, visitor))),
        }
    }

    fn part(
        &self,
        scope: &Arc<Scope>,
        generation: &Arc<Generation>,
        name: &str,
        entry: &Arc<Entry>,
    ) -> Place {
        let age = self.clock.now().since(generation.confirmed_at());
        let is_root = *name == *scope.name;
        let is_shown = generation.retired_at().is_none();
        let part = PartOf {
            entry: Arc::clone(entry),
            generation: Arc::clone(generation),
            scope: Arc::clone(scope),
            is_root,
            is_date_shared: is_date_shared(&scope.shown.load(), name, entry),
            is_due: is_root
                && is_shown
                && age >= self.options.check_every.saturating_mul(2).max(REVALIDATE_AT_MOST),
        };
        match self.options.stop_after {
            Some(limit) if age >= limit && is_shown => Place::Withdrawn(part),
            _ => Place::Part(part),
        }
    }

    fn listed(
        &self,
        scope: &Arc<Scope>,
        generation: &Arc<Generation>,
        (asked, plain): (&str, Option<&str>),
        (listed, visitor): (&Listed, &Visitor<'_>),
    ) -> Place {
        let name = plain.unwrap_or(asked);
        let Some(word) = listed.expectation.word() else {
            // Without a digest nothing can be promised about its content.
            return Place::Plain;
        };
        if listed.kind == Kind::Index && !visitor.observer && !generation.parts.contains_key(name) {
            self.want_index(scope, generation, name);
        }
        let file = Arc::new(KnownFile {
            key: self.content_key(&listed.path, &word),
            path: listed.path.clone(),
            ask: generation.path_by_digest(&word).unwrap_or(&listed.path).into(),
            expect: Arc::new(listed.expectation.clone()),
            plain: plain.map(Box::from),
        });
        if !visitor.observer {
            generation.note_use(name);
            if listed.kind != Kind::Index {
                generation.known.keep(asked, &file);
            }
        }
        found(scope, generation, file)
    }

    /// The generation this visitor began with, as long as that is kept for it; else the newest.
    fn chosen<'a>(
        &self,
        scope: &Scope,
        shown: &'a Shown,
        visitor: &Visitor<'_>,
    ) -> Option<&'a Arc<Generation>> {
        let newest = shown.generations.first()?;
        if let Some(named) = named(shown, visitor) {
            return Some(named);
        }
        let (now, grace) = (self.clock.now(), self.options.grace);
        let is_over = |it: &Arc<Generation>| it.retired_at().is_some_and(|at| now.since(at) >= grace);
        // Nearly always: whoever began with an earlier one has had its time.
        if shown.generations.iter().skip(1).all(is_over) {
            return Some(newest);
        }
        let pinned = self.sessions.pinned(&scope.name, visitor, now, grace);
        let kept = pinned.and_then(|id| shown.generations.iter().find(|it| it.id == id));
        Some(kept.filter(|it| it.retired_at().is_none_or(|at| now.since(at) < grace)).unwrap_or(newest))
    }

    fn unlisted(&self, path: &str, scopes: &[Arc<Scope>], visitor: &Visitor<'_>) -> Place {
        if !*self.restored.borrow() {
            return Place::Unstaged(Arc::clone(&self.nowhere));
        }
        let Some(root) = self.preset.root_of(path) else {
            // What an index that is being read names is not known yet.
            return match scopes.iter().find(|scope| scope.is_reading()) {
                Some(scope) => Place::Unstaged(Arc::clone(scope)),
                None => Place::Plain,
            };
        };
        let name = self.preset.fold(&root);
        match scopes.iter().find(|scope| *scope.name == *name) {
            None if scopes.len() >= SCOPES || visitor.observer => Place::Plain,
            None => Place::Unstaged(self.add_scope(Arc::new(Scope::new(&root, &name)))),
            Some(scope) => {
                let shown = scope.shown.load();
                let known = shown.absent || !shown.generations.is_empty();
                if known && !scope.is_reading() { Place::Plain } else { Place::Unstaged(Arc::clone(scope)) }
            }
        }
    }

    /// Has an index read, once.
    fn want_index(&self, scope: &Arc<Scope>, generation: &Arc<Generation>, name: &str) {
        let mark: (Box<str>, Box<str>) = (generation.id.clone(), name.into());
        if !self.reading.lock().insert(mark.clone()) {
            return;
        }
        scope.reading.fetch_add(1, Ordering::AcqRel);
        let reading = ReadingIndex { catalogues: self.this.clone(), scope: Arc::clone(scope), mark };
        let (generation, this) = (Arc::clone(generation), self.this.clone());
        self.work(async move {
            if let Some(this) = this.upgrade() {
                this.read_asked_index(&reading.scope, generation, &reading.mark.1).await;
            }
        });
    }

    /// Has upstream looked at soon: what it sends does not fit what the catalogue says.
    pub fn doubt(&self, scope: &Scope) {
        scope.doubt();
        self.poked.notify_one();
    }

    /// The paths (with the repository's prefix) of all files that the shown generations list, catalogue files left out.
    pub fn listed_paths(&self) -> Vec<String> {
        let prefix = &self.origin.supply.prefix;
        let shown = self.scopes.load();
        let newest = shown.iter().filter_map(|scope| scope.newest());
        let paths = |generation: Arc<Generation>| {
            let payload = |listed: &&Listed| matches!(listed.kind, Kind::File | Kind::Delta);
            let files = generation.files().map(|(_, listed)| listed).filter(payload);
            let named = files.filter(|listed| self.preset.named_by_digest(&listed.path).is_none());
            named.map(|listed| format!("{prefix}{}", listed.path)).collect::<Vec<_>>()
        };
        newest.flat_map(paths).collect()
    }

    /// The versions that are kept of the catalogue which speaks for `path`, the one that is shown first; none where none
    /// is shown. Asks nobody and reads nothing.
    pub fn versions_of(&self, path: &str) -> Vec<String> {
        let Some(root) = self.preset.root_of(path) else { return Vec::new() };
        let name = self.preset.fold(&root);
        let scopes = self.scopes.load();
        let Some(scope) = scopes.iter().find(|scope| *scope.name == *name) else { return Vec::new() };
        scope.shown.load().generations.iter().map(|it| it.version_text()).collect()
    }

    /// Forgets what is shown of catalogues that have a file which `is_gone`: they are read anew when the next agent comes.
    pub fn forget(&self, is_gone: impl Fn(&Key) -> bool) {
        for scope in self.scopes.load().iter() {
            let shown = scope.shown.load();
            let parts = shown.generations.iter().flat_map(|it| it.parts.values());
            if parts.map(|part| &part.entry.key).any(&is_gone) {
                scope.shown.store(Arc::default());
                scope.hurry();
            }
        }
        self.poked.notify_one();
    }

    /// Waits until the catalogue has been looked at (or an index read) once more, at most `patience`.
    pub async fn staged(&self, scope: &Arc<Scope>, patience: Duration) {
        let mut restored = self.restored.subscribe();
        let mut rounds = scope.rounds.subscribe();
        rounds.mark_unchanged();
        scope.note_interest();
        if !scope.is_reading() {
            scope.hurry();
            self.poked.notify_one();
        }
        let wait = async {
            if restored.wait_for(|restored| *restored).await.is_ok() && !Arc::ptr_eq(scope, &self.nowhere) {
                // The sender lives as long as the scope.
                let _ = rounds.changed().await;
            }
        };
        let _ = tokio::time::timeout(patience, wait).await;
    }
}

fn found(scope: &Arc<Scope>, generation: &Arc<Generation>, file: Arc<KnownFile>) -> Place {
    Place::Listed(ListedFile {
        file,
        generation: Some(Arc::clone(generation)),
        scope: Some(Arc::clone(scope)),
    })
}

/// Whether a date alone would not tell this content from that of another generation.
fn is_date_shared(shown: &Shown, name: &str, entry: &Entry) -> bool {
    let date = entry.prepared().validators.last_modified;
    date.is_some()
        && shown.generations.iter().filter_map(|it| it.parts.get(name)).any(|other| {
            other.entry.digest != entry.digest && other.entry.prepared().validators.last_modified == date
        })
}

/// Dropped, it says that an index is no longer being read, however that ended.
struct ReadingIndex {
    catalogues: Weak<Catalogues>,
    scope: Arc<Scope>,
    mark: (Box<str>, Box<str>),
}

impl Drop for ReadingIndex {
    fn drop(&mut self) {
        if let Some(catalogues) = self.catalogues.upgrade() {
            catalogues.reading.lock().remove(&self.mark);
        }
        self.scope.reading.fetch_sub(1, Ordering::AcqRel);
        self.scope.rounds.send_modify(|rounds| *rounds += 1);
    }
}

/// The generation that a visitor names itself.
fn named<'a>(shown: &'a Shown, visitor: &Visitor<'_>) -> Option<&'a Arc<Generation>> {
    let id = visitor.generation?;
    shown.generations.iter().find(|it| *it.id == *id)
}

const fn is_part_kind(kind: Kind) -> bool {
    matches!(kind, Kind::Catalogue | Kind::Companion)
}
