//! The directory of one update: whole generations side by side, and one of them shown.
//!
//! ```text
//! DIR/current            -> .waypost/7/files     what programs read; turned in one step
//! DIR/.waypost/7/files   the files of generation 7, never changed after it was shown
//! DIR/.waypost/7/manifest.json
//! DIR/.waypost/partial   what is being fetched, by digest: survives a crash and goes on
//! ```
//!
//! A generation is built beside the others under another name, made durable, and only then renamed and shown: whatever
//! happens in between, `current` is the old one or the new one. The one shown before stays for programs that still
//! have it open.

use std::fs::{self, DirBuilder, File as FsFile, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::plan::{File, Manifest};
use crate::base::digest::{Digest, Hasher};
use crate::base::limits::{MANIFEST_BYTES, PIECE_BYTES};

/// Where generations are, below the directory.
const HIDDEN: &str = ".waypost";
const CURRENT: &str = "current";
const MANIFEST: &str = "manifest.json";
const FILES: &str = "files";
const NEW: &str = "new";
const PARTIAL: &str = "partial";

/// How manifests are written at present.
const SCHEMA: u32 = 1;

/// The directory is not as it should be, or the disk fails. The administrator's.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct ShelfError {
    /// Where.
    pub path: PathBuf,
    /// What the system said.
    pub error: io::Error,
}

#[derive(Serialize, Deserialize)]
struct Record {
    schema: u32,
    #[serde(flatten)]
    manifest: Manifest,
}

/// The directory of one update. One process at a time uses it: the agent's lock sees to that.
#[derive(Debug)]
pub struct Shelf {
    dir: PathBuf,
    shown: Option<u64>,
    manifest: Manifest,
}

/// Where the content of a new generation's file comes from.
#[derive(Clone, Debug)]
pub struct Part {
    /// What it is, proven.
    pub file: File,
    /// A finished download; `None`: the generation that is shown has it.
    pub fetched: Option<PathBuf>,
}

impl Shelf {
    /// Opens it, makes it if it is missing, and clears away what a crash left half done. Blocks on the file system.
    ///
    /// # Errors
    /// [`ShelfError`]: something else is in the way, or the disk fails.
    pub fn open(dir: &Path) -> Result<Self, ShelfError> {
        let hidden = dir.join(HIDDEN);
        make_dir(dir, 0o755)?;
        make_dir(&hidden, 0o755)?;
        make_dir(&hidden.join(PARTIAL), 0o700)?;
        let current = dir.join(CURRENT);
        let shown = match fs::read_link(&current) {
            Ok(target) => number_of(&target),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                let error = io::Error::other("is not the link that an agent makes; move it away");
                return Err(ShelfError { path: current, error });
            }
            Err(error) => return Err(ShelfError { path: current, error }),
        };
        let mut shelf = Self { dir: dir.to_owned(), shown, manifest: Manifest::default() };
        if let Some(number) = shown {
            // A manifest that cannot be read costs one full download, nothing else.
            shelf.manifest = read_manifest(&shelf.generation(number)).unwrap_or_default();
        }
        shelf.sweep()?;
        Ok(shelf)
    }

    /// What is installed; nothing of it where nothing is.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether anything is shown.
    pub const fn is_empty(&self) -> bool {
        self.shown.is_none()
    }

    /// Where downloads are kept until they are whole.
    pub fn partial(&self) -> PathBuf {
        self.dir.join(HIDDEN).join(PARTIAL)
    }

    /// The files that are shown; there may be none.
    pub fn current(&self) -> PathBuf {
        self.dir.join(CURRENT)
    }

    /// Whether the file of the shown generation is really what its manifest says: read whole, so that a disk's or a
    /// person's change does not go on into the next generation. Blocks on the file system.
    pub fn holds(&self, file: &File) -> bool {
        let Some(number) = self.shown else { return false };
        let path = self.generation(number).join(FILES).join(file.name.to_path());
        is_file_of(&path, file).unwrap_or(false)
    }

    /// Builds a generation of these parts and shows it. Downloads are moved, installed files linked. Blocks on the file
    /// system.
    ///
    /// # Errors
    /// [`ShelfError`]: what is shown is still the generation of before.
    pub fn install(&mut self, manifest: Manifest, parts: &[Part]) -> Result<(), ShelfError> {
        let hidden = self.dir.join(HIDDEN);
        let new = hidden.join(NEW);
        remove(&new)?;
        let files = new.join(FILES);
        make_dir(&new, 0o755)?;
        make_dir(&files, 0o755)?;
        let mut folders = vec![files.clone()];
        for part in parts {
            for folder in part.file.name.folders() {
                let folder = files.join(folder);
                if !folders.contains(&folder) {
                    make_dir(&folder, 0o755)?;
                    folders.push(folder);
                }
            }
            let to = files.join(part.file.name.to_path());
            match &part.fetched {
                // Linked, not moved: two names may have one content, and a crash here costs no download.
                Some(from) => link(from, &to)?,
                None => {
                    let shown = self.generation(self.shown.unwrap_or_default());
                    link(&shown.join(FILES).join(part.file.name.to_path()), &to)?;
                }
            }
        }
        let text = serde_json::to_vec_pretty(&Record { schema: SCHEMA, manifest: manifest.clone() });
        let text = text.map_err(|error| failed(&new, io::Error::other(error)))?;
        write_durably(&new.join(MANIFEST), &text, 0o644)?;
        folders.iter().rev().chain([&new]).try_for_each(|folder| sync_dir(folder))?;
        let number = self.shown.unwrap_or_default() + 1;
        // One of this number was built and never shown.
        remove(&self.generation(number))?;
        rename(&new, &self.generation(number))?;
        sync_dir(&hidden)?;
        self.show(number)?;
        self.manifest = manifest;
        self.clear_downloads(&[], 0);
        self.sweep()
    }

    /// Takes away downloads that are none of `wanted`, but for `spare` of them that were at work last: what a publisher
    /// replaced before it was whole would stay for ever.
    pub(super) fn clear_downloads(&self, wanted: &[String], spare: usize) {
        let begun = fs::read_dir(self.partial()).into_iter().flatten().flatten();
        let mut others: Vec<_> = begun
            .filter(|entry| {
                let path = entry.path();
                let stem = path.file_stem().and_then(|stem| stem.to_str());
                !wanted.iter().any(|word| Some(word.as_str()) == stem)
            })
            .map(|entry| (entry.metadata().and_then(|meta| meta.modified()).ok(), entry.path()))
            .collect();
        others.sort_unstable_by(|one, other| other.cmp(one));
        for (_, path) in others.into_iter().skip(spare) {
            drop(fs::remove_file(path));
        }
    }

    fn show(&mut self, number: u64) -> Result<(), ShelfError> {
        let next = self.dir.join(HIDDEN).join(CURRENT);
        remove(&next)?;
        let target = Path::new(HIDDEN).join(number.to_string()).join(FILES);
        symlink(target, &next).map_err(|error| failed(&next, error))?;
        rename(&next, &self.dir.join(CURRENT))?;
        sync_dir(&self.dir)?;
        self.shown = Some(number);
        Ok(())
    }

    /// Takes away what is neither shown, nor was shown before that, nor being fetched.
    fn sweep(&self) -> Result<(), ShelfError> {
        let hidden = self.dir.join(HIDDEN);
        let shown = self.shown.unwrap_or_default();
        for entry in fs::read_dir(&hidden).map_err(|error| failed(&hidden, error))? {
            let entry = entry.map_err(|error| failed(&hidden, error))?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.parse::<u64>().ok());
            let stays = match number {
                Some(number) => number == shown || number + 1 == shown,
                None => name == PARTIAL,
            };
            if !stays {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn generation(&self, number: u64) -> PathBuf {
        self.dir.join(HIDDEN).join(number.to_string())
    }
}

/// Writes a file that is there as a whole or not at all, whatever happens.
///
/// # Errors
/// The disk fails; a file of before is as it was.
pub(super) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), ShelfError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    remove(&new)?;
    write_durably(&new, content, mode)?;
    rename(&new, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Makes a directory; one that is there is as good.
pub(super) fn make_dir(path: &Path, mode: u32) -> Result<(), ShelfError> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(failed(path, error)),
    }
}

/// Removes whatever is there, without following links.
pub(super) fn remove(path: &Path) -> Result<(), ShelfError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path, error)),
        _ => Ok(()),
    }
}

fn number_of(target: &Path) -> Option<u64> {
    target.strip_prefix(HIDDEN).ok()?.parent()?.to_str()?.parse().ok()
}

fn read_manifest(generation: &Path) -> Option<Manifest> {
    let mut text = Vec::new();
    let file = FsFile::open(generation.join(MANIFEST)).ok()?;
    file.take(MANIFEST_BYTES).read_to_end(&mut text).ok()?;
    let record: Record = serde_json::from_slice(&text).ok()?;
    (record.schema == SCHEMA).then_some(record.manifest)
}

fn is_file_of(path: &Path, file: &File) -> io::Result<bool> {
    let mut open = FsFile::open(path)?;
    if open.metadata()?.len() != file.length {
        return Ok(false);
    }
    Ok(digest_of(&mut open)? == file.sha256)
}

fn digest_of(file: &mut FsFile) -> io::Result<Digest> {
    let mut hasher = Hasher::default();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = file.read(&mut piece)?;
        let Some(bytes) = piece.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return Ok(hasher.finish());
        };
        hasher.update(bytes);
    }
}

fn write_durably(path: &Path, content: &[u8], mode: u32) -> Result<(), ShelfError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(|error| failed(path, error))
}

fn sync_dir(path: &Path) -> Result<(), ShelfError> {
    FsFile::open(path).and_then(|dir| dir.sync_all()).map_err(|error| failed(path, error))
}

fn rename(from: &Path, to: &Path) -> Result<(), ShelfError> {
    fs::rename(from, to).map_err(|error| failed(to, error))
}

fn link(from: &Path, to: &Path) -> Result<(), ShelfError> {
    fs::hard_link(from, to).map_err(|error| failed(to, error))
}

fn failed(path: &Path, error: io::Error) -> ShelfError {
    ShelfError { path: path.to_owned(), error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::names::FileName;

    fn file(name: &str, content: &str) -> File {
        let name = FileName::try_from(name.to_owned()).unwrap();
        File { name, length: content.len() as u64, sha256: Digest::of(content.as_bytes()) }
    }

    fn fetched(shelf: &Shelf, name: &str, content: &str) -> Part {
        let path = shelf.partial().join(Digest::of(content.as_bytes()).to_string());
        fs::write(&path, content).unwrap();
        Part { file: file(name, content), fetched: Some(path) }
    }

    fn manifest(version: &str, parts: &[Part]) -> Manifest {
        let files = parts.iter().map(|part| part.file.clone()).collect();
        Manifest { version: version.to_owned(), order: None, dat: None, files }
    }

    fn install(shelf: &mut Shelf, version: &str, parts: &[Part]) {
        shelf.install(manifest(version, parts), parts).unwrap();
    }

    fn read(dir: &Path, name: &str) -> Option<String> {
        fs::read_to_string(dir.join(CURRENT).join(name)).ok()
    }

    #[test]
    fn a_generation_is_shown_whole_and_the_one_before_stays_for_who_has_it_open() {
        let dir = tempfile::tempdir().unwrap();
        let mut shelf = Shelf::open(dir.path()).unwrap();
        assert!(shelf.is_empty());
        let parts = [fetched(&shelf, "a", "one"), fetched(&shelf, "sub/b", "two")];
        install(&mut shelf, "1", &parts);
        assert_eq!(
            (read(dir.path(), "a"), read(dir.path(), "sub/b")),
            (Some("one".into()), Some("two".into()))
        );
        let held = fs::canonicalize(dir.path().join(CURRENT)).unwrap();
        let kept = Part { file: file("sub/b", "two"), fetched: None };
        assert!(shelf.holds(&kept.file));
        let parts = [fetched(&shelf, "a", "new"), kept];
        install(&mut shelf, "2", &parts);
        assert_eq!(
            (read(dir.path(), "a"), read(dir.path(), "sub/b")),
            (Some("new".into()), Some("two".into()))
        );
        assert_eq!(fs::read_to_string(held.join("a")).unwrap(), "one");
        let parts = [fetched(&shelf, "c", "only")];
        install(&mut shelf, "3", &parts);
        assert!(!held.exists() && read(dir.path(), "a").is_none());
        let again = Shelf::open(dir.path()).unwrap();
        assert_eq!(again.manifest(), &manifest("3", &parts));
        assert_eq!(fs::read_dir(again.partial()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_crash_left_half_built_is_cleared_away_and_downloads_stay() {
        let dir = tempfile::tempdir().unwrap();
        let mut shelf = Shelf::open(dir.path()).unwrap();
        let parts = [fetched(&shelf, "a", "one")];
        install(&mut shelf, "1", &parts);
        let hidden = dir.path().join(HIDDEN);
        for half in ["new/files/sub", "2/files", "99"] {
            fs::create_dir_all(hidden.join(half)).unwrap();
        }
        symlink("nowhere", hidden.join(CURRENT)).unwrap();
        fs::write(hidden.join(PARTIAL).join("x"), "begun").unwrap();
        let mut shelf = Shelf::open(dir.path()).unwrap();
        assert_eq!(shelf.manifest().version, "1");
        assert_eq!(fs::read_dir(&hidden).unwrap().count(), 2, "one generation and what is being fetched");
        assert!(hidden.join(PARTIAL).join("x").exists());
        let parts = [fetched(&shelf, "a", "two")];
        install(&mut shelf, "2", &parts);
        assert_eq!(read(dir.path(), "a").unwrap(), "two");
    }

    #[test]
    fn downloads_that_were_overtaken_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut shelf = Shelf::open(dir.path()).unwrap();
        let left = |shelf: &Shelf| fs::read_dir(shelf.partial()).unwrap().count();
        for number in 0..6 {
            fs::write(shelf.partial().join(format!("old{number}")), "begun").unwrap();
        }
        for name in ["wanted", "wanted.from"] {
            fs::write(shelf.partial().join(name), "begun").unwrap();
        }
        shelf.clear_downloads(&["wanted".to_owned()], 2);
        assert_eq!(left(&shelf), 4, "two of the others, and what is wanted with its note");
        assert!(shelf.partial().join("wanted").exists() && shelf.partial().join("wanted.from").exists());
        let parts = [fetched(&shelf, "a", "one")];
        install(&mut shelf, "1", &parts);
        assert_eq!(left(&shelf), 0, "everything that was wanted is installed");
    }

    #[test]
    fn a_file_that_was_changed_in_place_is_found_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut shelf = Shelf::open(dir.path()).unwrap();
        let parts = [fetched(&shelf, "a", "one")];
        install(&mut shelf, "1", &parts);
        fs::write(dir.path().join(CURRENT).join("a"), "ONE").unwrap();
        assert!(!shelf.holds(&parts[0].file));
        assert!(!shelf.holds(&file("b", "one")));
    }

    #[test]
    fn a_directory_of_somebody_else_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(CURRENT)).unwrap();
        let error = Shelf::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("move it away"), "{error}");
    }

    #[test]
    fn a_damaged_manifest_costs_a_download_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut shelf = Shelf::open(dir.path()).unwrap();
        let parts = [fetched(&shelf, "a", "one")];
        install(&mut shelf, "1", &parts);
        fs::write(dir.path().join(HIDDEN).join("1").join(MANIFEST), "{").unwrap();
        let mut shelf = Shelf::open(dir.path()).unwrap();
        assert_eq!(shelf.manifest(), &Manifest::default());
        assert_eq!(read(dir.path(), "a").unwrap(), "one");
        let parts = [fetched(&shelf, "a", "two")];
        install(&mut shelf, "2", &parts);
        assert_eq!(read(dir.path(), "a").unwrap(), "two");
    }
}
