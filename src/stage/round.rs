//! One look at the upstreams of a catalogue, and what comes of it: nothing new, a new generation, or a reason.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Catalogues;
use super::draft::Found;
use super::generation::{Draft, Generation};
use super::prepare::Ahead;
use super::scope::{Scope, Shown};
use super::still::LIES_STILL;
use super::trouble::Trouble;
use crate::base::clock::Timestamp;
use crate::base::crash::{Step, reach};
use crate::base::limits::{GENERATIONS, GENERATIONS_IN_USE, LISTED_FILES};
use crate::fill::Cause;
use crate::repository::listing::{Kind, Listing};
use crate::upstream::State;

/// How long a new version of the old files, or new files of the old version, are not believed: their publisher has
/// probably just begun.
const SETTLES_WITHIN: Duration = Duration::from_secs(30);

/// Gives the turn back whatever happens, a panic included.
struct Turn<'a> {
    catalogues: &'a Catalogues,
    scope: &'a Scope,
    result: Option<Result<(), Trouble>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let lost = || Err(Trouble::Unreachable { path: self.scope.root.to_string(), cause: Cause::Internal });
        let result = self.result.take().unwrap_or_else(lost);
        self.catalogues.tell(self.scope, &result);
        let (every, now) = (self.catalogues.options.check_every, self.catalogues.clock.now());
        self.scope.end_turn(result, every, now);
        self.catalogues.watch_age(self.scope);
        if self.scope.newest().is_some() && self.scope.take_remembering() {
            self.catalogues.remember(self.scope);
        }
    }
}

impl Catalogues {
    /// Checks the scope once. Whoever calls has its turn ([`Scope::take_turn`]).
    pub(super) async fn round(self: Arc<Self>, scope: Arc<Scope>) {
        let mut turn = Turn { catalogues: &self, scope: &scope, result: None };
        turn.result = Some(self.try_upstreams(&scope).await);
    }

    /// One upstream after the other by priority, until one has what is shown or something newer that can be shown.
    async fn try_upstreams(self: &Arc<Self>, scope: &Arc<Scope>) -> Result<(), Trouble> {
        let mut worst: Option<Trouble> = None;
        for upstream in self.origin.supply.sources.all() {
            if !matches!(upstream.health().state(self.clock.now()), State::Up | State::HalfOpen) {
                continue;
            }
            let mut found = self.look(scope, upstream.name()).await;
            if matches!(found, Err(Trouble::Malformed { .. })) {
                // A wrong byte may be the wire's fault; the same one twice is the publisher's.
                found = self.look(scope, upstream.name()).await;
            }
            let trouble = match found {
                Ok(Found::Same) => {
                    if let Some(shown) = scope.newest() {
                        shown.confirm(self.clock.now());
                    }
                    return Ok(());
                }
                Ok(Found::New(draft)) => match self.bring(scope, *draft).await {
                    Ok(()) => return Ok(()),
                    Err(trouble) => trouble,
                },
                Err(trouble) => trouble,
            };
            // What somebody has says more than that somebody else has nothing.
            if worst.as_ref().is_none_or(|worst| matches!(worst, Trouble::Absent)) {
                worst = Some(trouble);
            }
        }
        let Some(trouble) = worst else {
            let until = self.origin.supply.sources.down_until(self.clock.now()).unwrap_or_default();
            let cause = Cause::UpstreamDown { until };
            return Err(Trouble::Unreachable { path: scope.root.to_string(), cause });
        };
        if matches!(trouble, Trouble::Absent) && scope.newest().is_none() {
            scope.shown.store(Arc::new(Shown { generations: Vec::new(), absent: true }));
            return Ok(());
        }
        Err(trouble)
    }

    /// Gets ready what agents will want of a new generation, and shows it.
    async fn bring(self: &Arc<Self>, scope: &Arc<Scope>, draft: Draft) -> Result<(), Trouble> {
        let read_at = Instant::now();
        let current = scope.newest();
        if let Some(current) = &current {
            self.check_settled(scope, current, &draft)?;
        }
        let now = self.clock.now();
        let is_one = draft.is_one();
        let draft = self.keep_parts(draft);
        let generation = Arc::new(draft.finish(self.preset, now, now));
        let Ahead { before, after } = self.ahead(&scope.root, &generation, current.as_deref());
        self.prepare(&generation, &before).await?;
        if !is_one {
            tokio::time::sleep_until(read_at + LIES_STILL).await;
            if !self.lies_still(scope, &generation).await? {
                return Err(Trouble::Moving);
            }
        }
        for wanted in before.iter().chain(&after) {
            generation.note_use(&wanted.name);
        }
        self.show(scope, generation);
        self.fetch_behind(after);
        Ok(())
    }

    fn check_settled(&self, scope: &Scope, current: &Generation, draft: &Draft) -> Result<(), Trouble> {
        let Some(version) = &current.version else { return Ok(()) };
        let moved = draft.core.version.as_ref() != Some(version);
        // Nothing that agents want proves anything here: the version is all there is.
        if !proves_payloads(&draft.core) || moved != names_the_same(&current.core, &draft.core) {
            return Ok(());
        }
        match scope.trouble() {
            Some((Trouble::Unsettled, since)) if self.clock.now().since(since) >= SETTLES_WITHIN => Ok(()),
            _ => Err(Trouble::Unsettled),
        }
    }

    /// Stores the catalogue files under names of their own, so that they stay when upstream's change.
    fn keep_parts(&self, mut draft: Draft) -> Draft {
        for part in draft.parts.values_mut() {
            let key = self.content_key(&part.path, &format!("sha256-{}", part.entry.digest));
            if part.entry.key != key {
                part.entry = self.origin.store.put(part.entry.renamed(key, true));
            }
        }
        draft
    }

    /// The flip: from here on, whoever asks for the catalogue gets this one.
    fn show(&self, scope: &Scope, generation: Arc<Generation>) {
        let now = self.clock.now();
        let before = scope.shown.load_full();
        if let Some(last) = before.generations.first() {
            last.retire(now);
        }
        let mut generations = vec![Arc::clone(&generation)];
        generations.extend(before.generations.iter().filter(|it| it.id != generation.id).cloned());
        let dropped = generations.split_off(kept(&generations, now, self.options.grace));
        tracing::info!(
            repository = self.origin.supply.name,
            root = &*scope.root,
            generation = &*generation.id,
            version = generation.version.as_ref().map(|version| version.text.as_str()),
            upstream = generation.source,
            files = generation.len(),
            "a new generation is shown"
        );
        self.events.shown();
        reach(Step::StageReady);
        scope.shown.store(Arc::new(Shown { generations, absent: false }));
        reach(Step::StageShown);
        self.let_go(scope, &dropped);
        self.remember(scope);
    }

    /// Files that only these generations named are no longer worth keeping before others.
    fn let_go(&self, scope: &Scope, dropped: &[Arc<Generation>]) {
        let shown = scope.shown.load();
        let listed = |name: &str, word: &str| {
            let same = |it: &Arc<Generation>| {
                it.find(name).is_some_and(|it| it.expectation.word().as_deref() == Some(word))
            };
            shown.generations.iter().any(same)
        };
        for generation in dropped {
            for part in generation.parts.values() {
                let kept = shown
                    .generations
                    .iter()
                    .flat_map(|it| it.parts.values())
                    .any(|it| it.entry.key == part.entry.key);
                if !kept {
                    self.origin.store.remove(part.entry.key.as_str());
                }
            }
            for name in generation.used() {
                let Some(file) = generation.find(&name) else { continue };
                if let Some(word) = file.expectation.word()
                    && !listed(&name, &word)
                {
                    // Nobody can ask for it any more: its key has its digest.
                    self.origin.store.remove(self.content_key(&file.path, &word).as_str());
                }
            }
        }
    }

    fn tell(&self, scope: &Scope, result: &Result<(), Trouble>) {
        let Err(trouble) = result else { return };
        self.events.refused(trouble.word());
        let known = scope.trouble().is_some_and(|(before, _)| before.word() == trouble.word());
        let (repository, root) = (&*self.origin.supply.name, &*scope.root);
        match trouble {
            _ if known => tracing::debug!(repository, root, %trouble, "still no newer generation"),
            Trouble::Malformed { .. } => {
                tracing::error!(repository, root, %trouble, "a catalogue is not believed; what is shown stays");
            }
            _ => tracing::warn!(repository, root, %trouble, "no newer generation; what is shown stays"),
        }
    }

    /// Raises the alarm where nobody has confirmed what is shown for too long, and takes it back.
    fn watch_age(&self, scope: &Scope) {
        let status = scope.status(self.clock.now());
        let Some(generation) = &status.generation else { return };
        let on = status.age >= self.options.alarm_after;
        if !scope.alarm(on) {
            return;
        }
        let (repository, root, generation) = (&*self.origin.supply.name, &*scope.root, &*generation.id);
        if on {
            let trouble = status.trouble.as_ref().map(|(trouble, _)| trouble.to_string());
            let hours = status.age.as_secs() / 3_600;
            tracing::error!(repository, root, generation, hours, trouble, "agents get an old generation");
        } else {
            tracing::info!(repository, root, generation, "upstream has confirmed the generation again");
        }
    }

    /// Reads an index that an agent has asked for, and adds what it names.
    pub(super) async fn read_asked_index(&self, scope: &Scope, generation: Arc<Generation>, name: &str) {
        let Some(listed) = generation.find(name).filter(|listed| listed.kind == Kind::Index).cloned() else {
            return;
        };
        let word = listed.expectation.word().unwrap_or_default();
        let ask = generation.path_by_digest(&word).unwrap_or(&listed.path).to_owned();
        let read = async {
            let entry = match self.fetch_listed(&listed, &ask, None).await {
                Ok(super::fetch::Fetched::Entry(entry)) => entry,
                Ok(super::fetch::Fetched::Absent) => {
                    return Err(Trouble::Missing { path: listed.path.to_string() });
                }
                Err(cause) => return Err(super::draft::unreachable(&listed.path, cause)),
            };
            let layer = self.read_index(scope, name, &listed.path, &entry).await?;
            Ok((layer, entry))
        };
        match read.await {
            Ok((layer, entry)) => {
                let part = super::generation::Part {
                    path: listed.path.clone(),
                    kind: Kind::Index,
                    unproven: false,
                    entry,
                };
                let layer = Arc::new(layer);
                scope.shown.rcu(|shown| {
                    let replace =
                        |it: &Arc<Generation>| match it.id == generation.id && !it.parts.contains_key(name) {
                            true => Arc::new(it.with_layer(Arc::clone(&layer), part.clone())),
                            false => Arc::clone(it),
                        };
                    Shown {
                        generations: shown.generations.iter().map(replace).collect(),
                        absent: shown.absent,
                    }
                });
                self.remember(scope);
            }
            Err(trouble) => {
                let repository = &*self.origin.supply.name;
                tracing::warn!(repository, index = name, %trouble, "an index cannot be read; its files go by the rules");
                self.events.refused(trouble.word());
            }
        }
    }
}

/// How many of these generations, newest first, stay: some in any case, more for agents that are still reading them,
/// as long as all of them together are no larger than one may be.
fn kept(generations: &[Arc<Generation>], now: Timestamp, grace: Duration) -> usize {
    let mut files = 0_usize;
    let stays = |(index, generation): &(usize, &Arc<Generation>)| {
        files = files.saturating_add(generation.len());
        let in_use = generation.retired_at().is_none_or(|at| now.since(at) < grace);
        *index < GENERATIONS || (in_use && *index < GENERATIONS_IN_USE && files <= LISTED_FILES)
    };
    generations.iter().enumerate().take_while(stays).count()
}

/// What agents want of a catalogue, as opposed to the files it is made of. These change only with its version.
const fn is_payload(kind: Kind) -> bool {
    matches!(kind, Kind::File | Kind::Delta | Kind::Index)
}

fn proves_payloads(listing: &Listing) -> bool {
    listing.files().any(|(_, listed)| is_payload(listed.kind) && listed.expectation.proof().is_some())
}

/// Whether two catalogues name exactly the same payloads, as far as they prove them.
fn names_the_same(one: &Listing, other: &Listing) -> bool {
    let payloads = |listing: &Listing| listing.files().filter(|(_, it)| is_payload(it.kind)).count();
    payloads(one) == payloads(other)
        && one.files().filter(|(_, listed)| is_payload(listed.kind)).all(|(name, listed)| {
            other.find(name).is_some_and(|it| it.expectation.word() == listed.expectation.word())
        })
}
