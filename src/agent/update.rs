//! One directory brought up to date from the first source that can do it: root, catalogues, plan, files, install.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use super::fetch::{FetchError, fetch};
use super::link::{Ask, Link, TalkError};
use super::plan::{Manifest, Offer, Plan, PlanError, Wanted, plan_update};
use super::shelf::{Part, Shelf, ShelfError};
use crate::base::digest::Digest;
use crate::base::limits::{AGENT_CATALOGUE_BYTES, AGENT_CATALOGUES, AGENT_CATALOGUES_BYTES};
use crate::base::proof::BodyHasher;
use crate::repository::expectation::{Expectation, Proof};
use crate::repository::listing::{CatalogueError, Kind, Listing};
use crate::repository::preset::{Preset, epo};

/// What is kept up to date.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name, in check-ins, log and status.
    pub name: String,
    /// The repository's path at a handler, with a slash at both ends.
    pub path: String,
    /// The folder in the repository, canonical, empty or with a slash at its end.
    pub folder: String,
    /// How the repository's catalogue is read.
    pub preset: &'static dyn Preset,
    /// Where to.
    pub directory: PathBuf,
}

impl Options {
    /// What handlers call the catalogue: the repository's path and below it that of the catalogue's root, without the
    /// first slash.
    pub fn catalogue(&self) -> String {
        let root = self.preset.root_of(&format!("{}x", self.folder)).unwrap_or_default();
        format!("{}{root}", self.path.trim_start_matches('/'))
    }
}

/// Where updates come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// `host:port`.
    pub authority: String,
    /// The repository's path there, with a slash at both ends.
    pub base: String,
}

/// How an update ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Updated {
    /// A new generation is shown.
    Installed {
        /// What was there.
        from: String,
        /// What is there.
        to: String,
        /// Files that were fetched.
        files: usize,
        /// Bytes that came over the wire.
        bytes: u64,
        /// Whether increments were taken in place of the full file.
        by_increments: bool,
    },
    /// What is offered is what is there.
    Current {
        /// Its version.
        version: String,
    },
}

/// Why one source did not do.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// It cannot be asked for a catalogue file.
    #[error("{path}: {error}")]
    Catalogue {
        /// Which.
        path: String,
        /// Why.
        error: TalkError,
    },
    /// A catalogue file is not believed.
    #[error("{path}: {error}")]
    Unbelievable {
        /// Which.
        path: String,
        /// Why.
        error: CatalogueError,
    },
    /// The publisher offers nothing at the moment.
    #[error("the repository offers nothing at the moment")]
    NotOffered,
    /// The catalogue leads to no update.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// What increments would build upon is not what it was: somebody changed it, or the disk did.
    #[error("an installed file is damaged")]
    Damaged,
    /// A file did not come.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: String,
        /// Why.
        error: FetchError,
    },
    /// It could not be installed.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
}

/// Catalogues and files of different publications were met: begin again, so often.
const ATTEMPTS: usize = 3;

/// Downloads that stay although this source does not offer what they are parts of: the next one may.
const SPARE_DOWNLOADS: usize = 8;

/// Brings `shelf` up to date from `source`.
///
/// # Errors
/// [`UpdateError`]: what is installed is as it was; another source may do.
pub async fn update(
    link: &mut Link,
    source: &Source,
    options: &Options,
    shelf: &mut Shelf,
) -> Result<Updated, UpdateError> {
    let mut attempt = 1;
    loop {
        let done = Session { link: &mut *link, source, options }.run(shelf).await;
        // A publication that is under way is a matter of moments; what was fetched is not fetched again.
        match done {
            Err(error) if error.is_of_two_publications() && attempt < ATTEMPTS => attempt += 1,
            done => return done,
        }
    }
}

impl UpdateError {
    /// Whether the full file may do where increments do not: they are gone sooner than the pointers to them.
    const fn is_of_increments(&self) -> bool {
        match self {
            Self::Damaged => true,
            Self::File { error, .. } => error.is_absent(),
            _ => false,
        }
    }

    fn is_of_two_publications(&self) -> bool {
        match self {
            Self::Unbelievable { .. } | Self::File { error: FetchError::WrongBytes, .. } => true,
            Self::File { error, .. } => error.is_absent(),
            _ => false,
        }
    }
}

struct Session<'a> {
    link: &'a mut Link,
    source: &'a Source,
    options: &'a Options,
}

/// A catalogue as far as the folder needs it.
struct Read {
    listing: Listing,
    version: String,
    dat: Option<u64>,
}

impl Session<'_> {
    async fn run(&mut self, shelf: &mut Shelf) -> Result<Updated, UpdateError> {
        let read = self.read().await?;
        let offer = Offer {
            listing: &read.listing,
            folder: &self.options.folder,
            version: &read.version,
            dat: read.dat,
        };
        let plan = plan_update(offer, shelf.manifest(), true)?;
        let builds = !plan.kept.is_empty();
        match self.carry_out(plan, shelf).await {
            Err(error) if builds && error.is_of_increments() => {
                let plan = plan_update(offer, shelf.manifest(), false)?;
                self.carry_out(plan, shelf).await
            }
            done => done,
        }
    }

    async fn carry_out(&mut self, plan: Plan, shelf: &mut Shelf) -> Result<Updated, UpdateError> {
        let mut parts: Vec<Part> =
            plan.kept.iter().map(|file| Part { file: file.clone(), fetched: None }).collect();
        if parts.iter().any(|part| !shelf.holds(&part.file)) {
            return Err(UpdateError::Damaged);
        }
        let words: Vec<String> = plan.wanted.iter().filter_map(|it| it.expectation.word()).collect();
        shelf.clear_downloads(&words, SPARE_DOWNLOADS);
        let (mut files, mut bytes) = (0, 0);
        for wanted in &plan.wanted {
            if let Some(file) = installed(wanted, shelf) {
                parts.push(Part { file, fetched: None });
                continue;
            }
            let partial = shelf.partial();
            let fetched = fetch(self.link, &self.source.authority, &self.source.base, wanted, &partial).await;
            let (part, received) =
                fetched.map_err(|error| UpdateError::File { path: wanted.path.clone(), error })?;
            parts.push(part);
            files += 1;
            bytes += received;
        }
        parts.sort_by(|a, b| a.file.name.cmp(&b.file.name));
        let manifest = Manifest {
            version: plan.version,
            order: plan.order,
            dat: plan.dat,
            files: parts.iter().map(|part| part.file.clone()).collect(),
        };
        if !shelf.is_empty() && *shelf.manifest() == manifest {
            return Ok(Updated::Current { version: manifest.version });
        }
        let (from, to) = (shelf.manifest().version.clone(), manifest.version.clone());
        shelf.install(manifest, &parts)?;
        Ok(Updated::Installed { from, to, files, bytes, by_increments: plan.by_increments })
    }

    /// Reads the root and the catalogues of the folder and of those below it.
    async fn read(&mut self) -> Result<Read, UpdateError> {
        let Options { preset, folder, .. } = self.options;
        let root = preset.root_of(&format!("{folder}x")).unwrap_or_default();
        let body = self
            .get(&root, AGENT_CATALOGUE_BYTES)
            .await?
            .ok_or_else(|| UpdateError::Catalogue { path: root.clone(), error: TalkError::Status(404) })?;
        let mut listing = Listing::default();
        let unbelievable = |path: &str, error| UpdateError::Unbelievable { path: path.to_owned(), error };
        preset.read(&root, &root, &body, &mut listing).map_err(|error| unbelievable(&root, error))?;
        if !listing.available {
            return Err(UpdateError::NotOffered);
        }
        let version = Digest::of(&body).to_string().chars().take(16).collect();
        let mut bodies: HashMap<String, Vec<u8>> = HashMap::new();
        let mut left = AGENT_CATALOGUES_BYTES.saturating_sub(body.len());
        let mut asked = BTreeSet::from([root.clone()]);
        let mut dat = None;
        let first = if preset.name() == epo::NAME { epo::CATALOGUES } else { &[] };
        let mut next: Vec<String> = first.iter().map(|name| format!("{folder}{name}")).collect();
        while let Some(path) = next.pop() {
            if !asked.insert(path.clone()) {
                continue;
            }
            if asked.len() > AGENT_CATALOGUES {
                let error =
                    CatalogueError::whole(format!("it leads to more than {AGENT_CATALOGUES} catalogues"));
                return Err(unbelievable(&path, error));
            }
            let Some(body) = self.get(&path, left.min(AGENT_CATALOGUE_BYTES)).await? else { continue };
            left = left.saturating_sub(body.len());
            preset.read(&root, &path, &body, &mut listing).map_err(|error| unbelievable(&path, error))?;
            dat = dat.or_else(|| epo::dat_version(&path, folder, &body));
            let listed = listing.files().filter(|(_, it)| it.kind == Kind::Catalogue);
            let below = listed.map(|(_, it)| it.path.to_string()).filter(|path| path.starts_with(folder));
            next.extend(below.filter(|path| !asked.contains(path)));
            bodies.insert(path, body);
        }
        for (path, body) in &bodies {
            let listed = listing.find(&preset.fold(path));
            if listed.is_some_and(|listed| !is_proven(body, &listed.expectation)) {
                return Err(unbelievable(path, CatalogueError::whole("is not the one that is listed")));
            }
        }
        Ok(Read { listing, version, dat })
    }

    /// A catalogue file of at most so many bytes; `None`: there is none.
    async fn get(&mut self, path: &str, most: usize) -> Result<Option<Vec<u8>>, UpdateError> {
        let target = format!("{}{path}", self.source.base);
        let failed = |error| UpdateError::Catalogue { path: path.to_owned(), error };
        let answer = self.link.ask(&self.source.authority, Ask::get(&target)).await.map_err(failed)?;
        match answer.whole(most).await {
            Ok(body) => Ok(Some(body)),
            Err(TalkError::Status(404 | 410)) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }
}

/// The installed file that is what is wanted, read and proven.
fn installed(wanted: &Wanted, shelf: &Shelf) -> Option<super::plan::File> {
    let file = shelf.manifest().files.iter().find(|file| file.name == wanted.name)?;
    let is = Expectation::exactly(file.length, file.sha256);
    // Only a listing with SHA-256 can say that it is the same file.
    let same = wanted.expectation.sha256 == is.sha256 && !wanted.expectation.contradicts(&is);
    (same && shelf.holds(file)).then(|| file.clone())
}

fn is_proven(body: &[u8], expectation: &Expectation) -> bool {
    if expectation.length.is_some_and(|length| length != body.len() as u64) {
        return false;
    }
    let Some(proof) = expectation.proof() else { return true };
    let mut hasher = BodyHasher::proving(Proof::kind(&proof));
    hasher.update(body);
    hasher.finish().proof() == proof.bytes()
}
