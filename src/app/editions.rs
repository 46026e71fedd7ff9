//! Which version of each catalogue is here now, for whoever wants to know which agents are behind.
//!
//! Of catalogues that are watched upstream that is known. A directory is this node's own: the roots that agents speak of
//! are read now and then, behind everything else.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::base::limits::{AGENT_CATALOGUE_BYTES, EDITIONS};
use crate::proxy::directory::Directory;
use crate::proxy::{Kind, Plane, Repository, Routes};
use crate::repository::listing::Listing;
use crate::repository::preset::Preset;

/// Between two looks at the catalogues of directories.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The catalogues of a node by the names that agents give them.
pub(super) struct Editions {
    /// Weak: it is asked by what the node holds.
    plane: Weak<Plane>,
    /// Of directories, by name: nothing where there is no such catalogue, or it was not read yet.
    read: Mutex<BTreeMap<String, Option<String>>>,
    asked: Notify,
}

impl Editions {
    pub(super) fn new(plane: &Arc<Plane>) -> Self {
        Self { plane: Arc::downgrade(plane), read: Mutex::default(), asked: Notify::new() }
    }

    /// The versions of a catalogue, the one that is shown first; none where it is not known. Waits for nothing.
    pub(super) fn versions(&self, catalogue: &str) -> Vec<String> {
        let Some(plane) = self.plane.upgrade() else { return Vec::new() };
        let routes = plane.routes();
        let Some((repository, below)) = find(&routes, catalogue) else { return Vec::new() };
        match &repository.kind {
            Kind::Upstreams { catalogues, .. } => {
                catalogues.as_ref().map(|it| it.versions_of(below)).unwrap_or_default()
            }
            Kind::Directory { .. } => {
                let mut read = self.read.lock();
                if let Some(version) = read.get(catalogue) {
                    return version.iter().cloned().collect();
                }
                if read.len() < EDITIONS {
                    read.insert(catalogue.to_owned(), None);
                    self.asked.notify_one();
                }
                Vec::new()
            }
        }
    }

    /// Reads what was asked for, again and again, until it is dropped.
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            let names: Vec<String> = self.read.lock().keys().cloned().collect();
            for name in names {
                let version = self.read(&name).await;
                self.read.lock().insert(name, version);
            }
            // Whichever it was: there is something to read, or to read again.
            let _ = tokio::time::timeout(LOOK_EVERY, self.asked.notified()).await;
        }
    }

    async fn read(&self, name: &str) -> Option<String> {
        let routes = self.plane.upgrade()?.routes();
        let (repository, below) = find(&routes, name)?;
        match &repository.kind {
            Kind::Directory { directory, preset: Some(preset), .. } => {
                read_version(directory, *preset, below).await
            }
            _ => None,
        }
    }
}

/// The repository that a name means, and what follows in it: `software/SiteStat.xml` is below the path `/software/`, or
/// else in the repository that is called so.
fn find<'r, 'n>(routes: &'r Routes, name: &'n str) -> Option<(&'r Arc<Repository>, &'n str)> {
    let by_path = routes.find(&format!("/{name}")).and_then(|it| Some((it, below(&it.prefix, name)?)));
    if by_path.is_some_and(|(repository, _)| repository.prefix != "/") {
        return by_path;
    }
    let by_name = name.split_once('/').and_then(|(called, rest)| {
        routes.all().iter().find(|repository| repository.name == called).map(|it| (it, rest))
    });
    by_name.or(by_path)
}

/// What of `name` follows the repository's prefix, which has a slash in front.
fn below<'n>(prefix: &str, name: &'n str) -> Option<&'n str> {
    name.strip_prefix(prefix.strip_prefix('/')?)
}

/// The version of the catalogue that speaks for `path`, as its root says it.
async fn read_version(directory: &Directory, preset: &dyn Preset, path: &str) -> Option<String> {
    let root = preset.root_of(path)?;
    let file = directory.open_file(&crate::protocol::target::decode_path(&root)).await.ok()?;
    let length = usize::try_from(preset.root_bytes().unwrap_or(file.length()).min(file.length())).ok()?;
    if length > AGENT_CATALOGUE_BYTES {
        return None;
    }
    let mut body = Vec::with_capacity(length);
    while body.len() < length {
        let piece =
            file.piece(body.len() as u64, length - body.len()).await.ok().filter(|it| !it.is_empty())?;
        body.extend_from_slice(&piece);
    }
    let mut listing = Listing::default();
    preset.read(&root, &root, &body, &mut listing).ok()?;
    let digest = || file.digest().to_string().chars().take(16).collect();
    Some(listing.version.map_or_else(digest, |version| version.text))
}
