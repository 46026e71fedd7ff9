//! The authority: the documents are a directory here. It is looked at now and then, and when somebody asks for it; what
//! changed and holds still is compiled and put in force as a new version.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::OFlags;

use super::board::{Board, NotInForce, compiled};
use super::bundle::Bundle;
use crate::fleet::{Documents, FLEET, POLICIES, RULES, STATES, State, compile};

/// A change has to hold still for so long before it is taken: an editor or a checkout writes several files.
const SETTLED: Duration = Duration::from_millis(300);

/// Entries of one folder that are looked at; what is beyond is told as an error.
const ENTRIES: usize = 20_000;

/// A directory of documents, and the board they go to.
#[derive(Debug)]
pub(super) struct Authority {
    directory: PathBuf,
    board: Arc<Board>,
    /// What the directory looked like when it was last read.
    seen: Mutex<Option<Vec<Stamp>>>,
}

/// What a look can tell of a file without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    name: String,
    path: PathBuf,
    size: u64,
    changed: (i64, i64),
    inode: u64,
}

/// What a look at the directory led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing is different.
    Same,
    /// There is something else, which is or would be this version.
    New(u64),
}

impl Authority {
    /// An authority over this directory.
    pub(super) fn new(directory: PathBuf, board: Arc<Board>) -> Self {
        Self { directory, board, seen: Mutex::default() }
    }

    /// Where the documents are.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Looks again and again; ends never.
    pub(super) async fn watch(self: Arc<Self>, every: Duration) {
        loop {
            if let Some(before) = self.changed().await {
                // Taken once two looks agree.
                tokio::time::sleep(SETTLED.min(every)).await;
                if self.changed().await.is_some_and(|now| now == before) {
                    self.look_aside().await;
                }
            }
            tokio::time::sleep(every).await;
        }
    }

    /// What the directory looks like, where that is not as it was when it was last read.
    async fn changed(self: &Arc<Self>) -> Option<Result<Vec<Stamp>, String>> {
        let this = Arc::clone(self);
        let listed = tokio::task::spawn_blocking(move || {
            let listed = list(&this.directory).map_err(|error| error.to_string());
            match (&listed, &*this.seen.lock()) {
                (Ok(now), Some(before)) if now == before => None,
                _ => Some(listed),
            }
        });
        listed.await.ok().flatten()
    }

    async fn look_aside(self: &Arc<Self>) {
        let this = Arc::clone(self);
        // What is wrong is noted on the board.
        let _ = tokio::task::spawn_blocking(move || this.look()).await;
    }

    /// Reads the directory and puts it in force where it says anything else. Blocks.
    ///
    /// # Errors
    /// What is wrong with the documents; nothing is changed then. It is noted on the board, too.
    pub(super) fn look(&self) -> Result<Look, NotInForce> {
        let result = self.try_look();
        match &result {
            Ok(_) => self.board.confirm(self.board.clock().now()),
            Err(error) => self.board.note_trouble(error.word(), error.to_string()),
        }
        result
    }

    fn try_look(&self) -> Result<Look, NotInForce> {
        self.publish(self.read()?)
    }

    fn publish(&self, documents: Documents) -> Result<Look, NotInForce> {
        let Some(bundle) = self.next(documents) else { return Ok(Look::Same) };
        let version = bundle.index().version;
        self.board.publish(bundle)?;
        Ok(Look::New(version))
    }

    /// What a look would lead to.
    ///
    /// # Errors
    /// As [`Authority::look`].
    pub(super) fn check(&self) -> Result<Look, NotInForce> {
        let documents = self.read_now().map_err(|error| NotInForce::Invalid(error.to_string()))?;
        compiled(compile(&documents)).map_err(NotInForce::Invalid)?;
        Ok(self.next(documents).map_or(Look::Same, |bundle| Look::New(bundle.index().version)))
    }

    /// Changes the state of handlers and puts that in force, over the documents that are in force: what is written in the
    /// directory meanwhile, right or wrong, is taken by the next look and never in the way of a drain.
    ///
    /// # Errors
    /// What keeps it from being in force; the states are what they were then.
    pub(super) fn set_states(&self, handlers: &[String], state: State) -> Result<Look, NotInForce> {
        let disk = |error: io::Error| NotInForce::Disk(error.to_string());
        let nothing = || NotInForce::Invalid("no documents are in force".to_owned());
        let snapshot = self.board.snapshot().ok_or_else(nothing)?;
        let before = self.board.disk().text(STATES);
        let published = || snapshot.bundle.documents().get(STATES).map(|text| text.to_vec());
        let mut text = before.clone().or_else(published).unwrap_or_default();
        for handler in handlers {
            let unknown = || NotInForce::Invalid(format!("there is no handler `{handler}`"));
            text = snapshot.fleet.with_state(&text, handler, state).ok_or_else(unknown)?.into_bytes();
        }
        let mut documents = snapshot.bundle.documents().clone();
        let changed = documents.insert(STATES, text.clone().into());
        changed.map_err(|error| NotInForce::Invalid(error.to_string()))?;
        self.board.disk().keep_text(STATES, &text).map_err(disk)?;
        let published = self.publish(documents);
        if published.is_err() {
            match &before {
                Some(before) => self.board.disk().keep_text(STATES, before),
                None => self.board.disk().forget(STATES),
            }
            .map_err(disk)?;
        }
        published
    }

    fn next(&self, documents: Documents) -> Option<Bundle> {
        let now = self.board.clock().now();
        let current = self.board.snapshot();
        let before = current.as_ref().map(|it| &*it.bundle);
        if before.is_some_and(|before| *before.documents() == documents) {
            return None;
        }
        // The first version is the time: an authority that lost its state goes on above what it had said before.
        let version = before.map_or(now.0 / 1_000, |it| it.index().version + 1);
        Some(Bundle::issue(documents, version, now, before))
    }

    fn read(&self) -> Result<Documents, NotInForce> {
        let listed = list(&self.directory).map_err(|error| NotInForce::Invalid(error.to_string()))?;
        let documents = self.read_listed(&listed).map_err(|error| NotInForce::Invalid(error.to_string()))?;
        *self.seen.lock() = Some(listed);
        Ok(documents)
    }

    fn read_now(&self) -> io::Result<Documents> {
        self.read_listed(&list(&self.directory)?)
    }

    fn read_listed(&self, listed: &[Stamp]) -> io::Result<Documents> {
        let mut documents = Documents::default();
        for stamp in listed {
            let body = read_file(stamp)?;
            documents.insert(&stamp.name, body.into()).map_err(io::Error::other)?;
        }
        if let Some(states) = self.board.disk().text(STATES) {
            documents.insert(STATES, Bytes::from(states)).map_err(io::Error::other)?;
        }
        Ok(documents)
    }
}

/// The documents of a directory by name. What is no document is passed over; a link that leads out is an error.
fn list(directory: &Path) -> io::Result<Vec<Stamp>> {
    let root = fs::canonicalize(directory)?;
    let mut found = Vec::new();
    for name in [FLEET, RULES, STATES] {
        note(&root, &root.join(name), name.to_owned(), &mut found)?;
    }
    let policies = root.join(POLICIES.trim_end_matches('/'));
    for category in folder(&policies)? {
        if !within(&root, &category)?.is_dir() {
            continue;
        }
        for file in folder(&category)? {
            let parts = [&category, &file].map(|path| path.file_name().and_then(|name| name.to_str()));
            let [Some(category), Some(policy)] = parts else { continue };
            let name = format!("{POLICIES}{category}/{policy}");
            if Documents::wants(&name) {
                note(&root, &file, name, &mut found)?;
            }
        }
    }
    found.sort_by(|one, two| one.name.cmp(&two.name));
    Ok(found)
}

fn folder(path: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(named(path, &error)),
    };
    let mut found = Vec::new();
    for entry in entries.take(ENTRIES + 1) {
        found.push(entry?.path());
    }
    if found.len() > ENTRIES {
        return Err(io::Error::other(format!("{} has more than {ENTRIES} entries", path.display())));
    }
    Ok(found)
}

fn note(root: &Path, path: &Path, name: String, found: &mut Vec<Stamp>) -> io::Result<()> {
    if fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    let path = within(root, path)?;
    let meta = fs::metadata(&path).map_err(|error| named(&path, &error))?;
    if !meta.is_file() {
        return Ok(());
    }
    let changed = (meta.mtime(), meta.mtime_nsec());
    found.push(Stamp { name, path, size: meta.len(), changed, inode: meta.ino() });
    Ok(())
}

/// Where a path leads, which has to be below the root: a link to elsewhere would publish what is none of the fleet's.
fn within(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let real = fs::canonicalize(path).map_err(|error| named(path, &error))?;
    if real.starts_with(root) {
        return Ok(real);
    }
    Err(io::Error::other(format!("{} leads out of the directory", path.display())))
}

fn read_file(stamp: &Stamp) -> io::Result<Vec<u8>> {
    let most = Documents::allowed_bytes(&stamp.name);
    // Never waits for a pipe that was put there since, and never follows a link.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(&stamp.path)
        .map_err(|error| named(&stamp.path, &error))?;
    let mut body = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut body).map_err(|error| named(&stamp.path, &error))?;
    if body.len() > most {
        return Err(io::Error::other(format!("{} is larger than {most} bytes", stamp.name)));
    }
    Ok(body)
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
