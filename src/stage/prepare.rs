//! Fetching ahead: what has to be here before a generation is shown, and what is fetched behind it before agents ask.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Catalogues;
use super::fetch::{Fetched, Want};
use super::generation::Generation;
use super::options::Prepare;
use super::trouble::Trouble;
use crate::base::limits::{AHEAD_FILES, BLOCK_BYTES};
use crate::fill::Cause;
use crate::repository::expectation::Expectation;
use crate::repository::listing::{Kind, Listed};

/// Files fetched ahead at the same time: agents want upstream, too.
const AT_ONCE: usize = 3;

/// A file to fetch ahead.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// Its folded name.
    pub(super) name: Box<str>,
    path: Box<str>,
    ask: Box<str>,
    expect: Option<Arc<Expectation>>,
    /// Whether upstream may not have it.
    optional: bool,
    length: u64,
}

/// What to fetch before a generation is shown, and after.
pub(super) struct Ahead {
    pub(super) before: Vec<Wanted>,
    pub(super) after: Vec<Wanted>,
}

impl Catalogues {
    /// What of `next` is worth having before agents ask. Nothing is known to be used of the first generation, so only
    /// what the administrator names is fetched then.
    pub(super) fn ahead(&self, root: &str, next: &Generation, current: Option<&Generation>) -> Ahead {
        let used: HashSet<Box<str>> = current.map(Generation::used).unwrap_or_default().into_iter().collect();
        let shapes: HashSet<String> = used.iter().map(|name| shape(name)).collect();
        // A name that was there and that nobody wanted is not wanted now.
        let is_new = |name: &str| current.is_some_and(|it| it.find(name).is_none());
        let is_used = |name: &str| used.contains(name) || (is_new(name) && shapes.contains(&shape(name)));
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for (name, listed) in next.files() {
            let payload = matches!(listed.kind, Kind::File | Kind::Delta);
            let Some(word) = listed.expectation.word().filter(|_| payload) else { continue };
            if self.preset.named_by_digest(&listed.path).is_some() {
                continue;
            }
            let delta = listed.kind == Kind::Delta && current.is_some();
            let needed = match &self.options.prepare {
                Prepare::Nothing => false,
                Prepare::Deltas => delta,
                Prepare::Used => delta || is_used(name),
                Prepare::All => true,
                Prepare::Matching(patterns) => patterns.matches(&listed.path),
            };
            if needed {
                before.push(wanted(name, listed, next.path_by_digest(&word)));
            } else if self.options.prefetch && (is_used(name) || delta) {
                after.push(wanted(name, listed, next.path_by_digest(&word)));
            }
        }
        let deltas = self.deltas_to(root, next, current);
        match &self.options.prepare {
            Prepare::Nothing if self.options.prefetch => after.extend(deltas),
            Prepare::Nothing => {}
            _ => before.extend(deltas),
        }
        // Pointers and deltas before full files: small ones are what most agents wait for.
        for list in [&mut before, &mut after] {
            list.sort_by_key(|wanted| wanted.length);
            list.truncate(AHEAD_FILES);
        }
        Ahead { before, after }
    }

    /// The incremental updates from the version shown to the next one, where their names follow from that.
    fn deltas_to(&self, root: &str, next: &Generation, current: Option<&Generation>) -> Vec<Wanted> {
        let versions = current.and_then(|it| it.version.as_ref()).zip(next.version.as_ref());
        let Some((from, to)) = versions else { return Vec::new() };
        let paths = self.preset.deltas_between(root, from, to);
        let each = |path: String| Wanted {
            name: self.preset.fold(&path).into(),
            ask: path.as_str().into(),
            path: path.into(),
            expect: None,
            optional: true,
            length: 0,
        };
        paths.into_iter().map(each).collect()
    }

    /// Fetches what has to be here. Past the time limit the rest is fetched behind: a thin WAN must not keep a small
    /// urgent file behind a large one for ever.
    pub(super) async fn prepare(
        self: &Arc<Self>,
        generation: &Generation,
        wanted: &[Wanted],
    ) -> Result<(), Trouble> {
        let deadline = Instant::now() + self.options.prepare_within;
        let mut left = wanted.iter().cloned().rev().collect::<Vec<_>>();
        let mut running = JoinSet::new();
        loop {
            while running.len() < AT_ONCE
                && let Some(next) = left.pop()
            {
                let (catalogues, id) = (Arc::clone(self), generation.id.clone());
                running.spawn(async move {
                    let got = catalogues.fetch_ahead(&next, Some(&id)).await;
                    (next, got)
                });
            }
            let joined = tokio::select! {
                joined = running.join_next() => joined,
                () = tokio::time::sleep_until(deadline) => {
                    // Fills that were begun go on by themselves.
                    running.detach_all();
                    self.fetch_behind(left);
                    return Ok(());
                }
            };
            match joined {
                None => return Ok(()),
                Some(Ok((wanted, Err(cause)))) => {
                    return Err(Trouble::NotReady { path: wanted.path.into(), cause });
                }
                Some(Ok((_, Ok(())))) => {}
                Some(Err(_)) => {
                    return Err(Trouble::NotReady { path: String::new(), cause: Cause::Internal });
                }
            }
        }
    }

    async fn fetch_ahead(&self, wanted: &Wanted, generation: Option<&str>) -> Result<(), Cause> {
        let word = wanted.expect.as_deref().and_then(Expectation::word);
        let key = word.map_or_else(|| self.key(&wanted.path), |word| self.content_key(&wanted.path, &word));
        let expect = wanted.expect.clone();
        let want = Want { key, path: &wanted.ask, only: None, expect, generation, paced: true };
        match self.fetch(want).await {
            Ok(Fetched::Entry(_)) => Ok(()),
            Ok(Fetched::Absent) if wanted.optional => Ok(()),
            Ok(Fetched::Absent) => Err(Cause::Refused(404)),
            Err(_) if wanted.optional => Ok(()),
            Err(cause) => Err(cause),
        }
    }

    /// Fetches files nobody waits for yet, behind what agents want.
    pub(super) fn fetch_behind(self: &Arc<Self>, wanted: Vec<Wanted>) {
        if wanted.is_empty() {
            return;
        }
        let catalogues = Arc::clone(self);
        self.work(async move {
            for next in &wanted {
                if let Err(cause) = catalogues.fetch_ahead(next, None).await {
                    let repository = &*catalogues.origin.supply.name;
                    tracing::info!(repository, path = &*next.path, %cause, "could not be fetched ahead");
                }
            }
        });
    }
}

fn wanted(name: &str, listed: &Listed, by_digest: Option<&str>) -> Wanted {
    Wanted {
        name: name.into(),
        path: listed.path.clone(),
        ask: by_digest.map_or_else(|| listed.path.clone(), Into::into),
        expect: Some(Arc::new(listed.expectation.clone())),
        optional: listed.optional,
        length: listed.expectation.length.unwrap_or(BLOCK_BYTES),
    }
}

/// A name without its numbers: what the file of one version has in common with that of the next.
fn shape(name: &str) -> String {
    let mut shape = String::with_capacity(name.len());
    let mut digits = false;
    for letter in name.chars() {
        if letter.is_ascii_digit() {
            if !digits {
                shape.push('#');
            }
            digits = true;
        } else {
            digits = false;
            shape.push(letter);
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_a_file_have_the_same_shape() {
        assert_eq!(shape("current/avvdat-11234.zip"), shape("current/avvdat-11235.zip"));
        assert_eq!(shape("pool/w/waypost_1.9.0_amd64.deb"), "pool/w/waypost_#.#.#_amd#.deb");
        assert_ne!(shape("a-1.zip"), shape("b-1.zip"));
    }
}
