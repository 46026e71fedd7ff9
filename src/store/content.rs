//! The only file that knows cacache: blocks as files named by their SHA-256.
//!
//! Of cacache we use the one-shot, hash-only calls, for these reasons: keyed entries grow without end, its
//! streamed writer can hang, `remove_fully` ignores other owners, and it reads nothing but whole contents.
//! It never syncs, so a block may be missing or short after a power cut: every block is checked before use.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cacache::{Algorithm, Integrity};
use rustix::fs::OFlags;

use super::error::Damage;
use super::faults::{CrashPoint, Faults};
use crate::base::crash::{Step, reach};
use crate::base::digest::Digest;

/// Where cacache 13 keeps contents: layout version 2, by algorithm, two levels of two digits, the rest.
const CONTENT: &str = "content-v2/sha256";
/// Where it writes before it renames.
const TMP: &str = "tmp";
/// Our name for a `tmp` that a dead process left behind.
const OLD_TMP: &str = "tmp.old";

/// The blocks of one cache directory.
#[derive(Clone, Debug)]
pub(super) struct Content {
    root: PathBuf,
    faults: Faults,
}

impl Content {
    pub(super) fn new(root: &Path, faults: Faults) -> Self {
        Self { root: root.to_path_buf(), faults }
    }

    /// The file of a block.
    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.to_string();
        let (first, rest) = hex.split_at(2);
        let (second, rest) = rest.split_at(2);
        self.root.join(CONTENT).join(first).join(second).join(rest)
    }

    /// Writes a block under its name, whatever is there. The caller has looked before: writing equal bytes
    /// again would replace a file that is safely on disk by one that is not.
    pub(super) fn write(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        self.faults.on_write()?;
        let mut written = self.write_once(bytes);
        // The directory may have gone, empty, between being made and being used: see `remove`.
        for _ in 0..3 {
            if !matches!(&written, Err(error) if error.kind() == io::ErrorKind::NotFound) {
                break;
            }
            written = self.write_once(bytes);
        }
        let written = written?;
        if !names(&written, digest) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the block changed while it was written"));
        }
        self.faults.reach(CrashPoint::BlockWritten);
        reach(Step::BlockWritten);
        Ok(())
    }

    fn write_once(&self, bytes: &[u8]) -> io::Result<Integrity> {
        cacache::write_hash_sync(&self.root, bytes).map_err(|error| match error {
            cacache::Error::IoError(error, _) => error,
            other => io::Error::other(other),
        })
    }

    /// Reads a whole block and proves it by its SHA-256.
    pub(super) fn read(&self, digest: &Digest, len: Option<usize>) -> Result<Vec<u8>, Damage> {
        // cacache opens whatever is there, and would wait for a pipe for ever.
        self.open(digest, len)?;
        let name = Integrity::from_hex(digest.to_string(), Algorithm::Sha256).map_err(|_| Damage::Content)?;
        cacache::read_hash_sync(&self.root, &name).map_err(|error| match error {
            cacache::Error::IoError(error, _) => damage_of(&error),
            _ => Damage::Content,
        })
    }

    /// Opens a block for reading pieces of it: a regular file of this length (if one is known), never
    /// through a link.
    pub(super) fn open(&self, digest: &Digest, len: Option<usize>) -> Result<File, Damage> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(self.path(digest))
            .map_err(|error| damage_of(&error))?;
        let found = file.metadata().map_err(|error| damage_of(&error))?;
        let fits = len.is_none_or(|len| found.len() == len as u64);
        if found.is_file() && fits { Ok(file) } else { Err(Damage::Length) }
    }

    /// Removes a block; one that is not there is removed. Directories that are empty then go too: each is an
    /// inode, and a disk that has run out of those would not get any back.
    pub(super) fn remove(&self, digest: &Digest) -> io::Result<()> {
        self.faults.on_change()?;
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Nobody else's business is in here: whatever stands in a block's place goes.
            Err(_) if path.is_dir() => fs::remove_dir_all(&path)?,
            done => done?,
        }
        // Fails, as it should, where another block is in it.
        for dir in path.ancestors().skip(1).take(2) {
            if fs::remove_dir(dir).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Sets the temporary files of a dead process aside, in one rename. Needs the directory's lock.
    pub(super) fn set_tmp_aside(&self) {
        let (tmp, old) = (self.root.join(TMP), self.root.join(OLD_TMP));
        // A crash during the last sweep left `tmp.old` there: its files go first, they are few by then.
        let _ = fs::remove_dir_all(&old);
        let _ = fs::rename(tmp, old);
    }

    /// Removes what [`Self::set_tmp_aside`] set aside.
    pub(super) fn sweep_tmp(&self) {
        let _ = fs::remove_dir_all(self.root.join(OLD_TMP));
    }

    /// The blocks in one of the 256 directories that were there before `start`.
    pub(super) fn list(&self, first: u8, start: SystemTime) -> Vec<Digest> {
        let mut found = Vec::new();
        let prefix = format!("{first:02x}");
        let Ok(seconds) = fs::read_dir(self.root.join(CONTENT).join(&prefix)) else { return found };
        for second in seconds.flatten() {
            let Ok(files) = fs::read_dir(second.path()) else { continue };
            for file in files.flatten() {
                let name = [prefix.as_str(), &second.file_name().to_string_lossy()].concat();
                let name = name + &file.file_name().to_string_lossy();
                let old = file.metadata().and_then(|m| m.modified()).is_ok_and(|at| at < start);
                if let (true, Ok(digest)) = (old, name.parse()) {
                    found.push(digest);
                }
            }
        }
        found
    }
}

fn names(written: &Integrity, digest: &Digest) -> bool {
    let (algorithm, hex) = written.to_hex();
    algorithm == Algorithm::Sha256 && hex.parse() == Ok(*digest)
}

fn damage_of(error: &io::Error) -> Damage {
    const LOOP: i32 = rustix::io::Errno::LOOP.raw_os_error();
    match error.raw_os_error() {
        // A link, a socket or a directory where a block should be.
        Some(LOOP) => Damage::Length,
        _ if error.kind() == io::ErrorKind::NotFound => Damage::Missing,
        _ => Damage::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(dir: &tempfile::TempDir) -> Content {
        Content::new(dir.path(), Faults::default())
    }

    #[test]
    fn our_path_is_where_cacache_writes() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"waypost");
        content(&dir).write(&digest, b"waypost").unwrap();
        assert_eq!(fs::read(content(&dir).path(&digest)).unwrap(), b"waypost");
        assert_eq!(content(&dir).read(&digest, Some(7)), Ok(b"waypost".to_vec()));
    }

    #[test]
    fn damage_of_every_kind_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let content = content(&dir);
        let digest = Digest::of(b"waypost");
        assert_eq!(content.read(&digest, Some(7)), Err(Damage::Missing));
        content.write(&digest, b"waypost").unwrap();
        assert_eq!(content.read(&digest, Some(6)), Err(Damage::Length));
        fs::write(content.path(&digest), b"waypast").unwrap();
        assert_eq!(content.read(&digest, Some(7)), Err(Damage::Content));
    }

    #[test]
    fn a_link_or_a_pipe_in_the_place_of_a_block_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let content = content(&dir);
        let digest = Digest::of(b"waypost");
        let path = content.path(&digest);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let outside = dir.path().join("outside");
        fs::write(&outside, b"waypost").unwrap();
        std::os::unix::fs::symlink(&outside, &path).unwrap();
        assert_eq!(content.read(&digest, Some(7)), Err(Damage::Length));
        fs::remove_file(&path).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert_eq!(content.read(&digest, Some(7)), Err(Damage::Length));
    }

    #[test]
    fn a_removed_block_leaves_no_directory_behind() {
        let dir = tempfile::tempdir().unwrap();
        let content = content(&dir);
        let digest = Digest::of(b"a");
        content.write(&digest, b"a").unwrap();
        content.remove(&digest).unwrap();
        content.remove(&digest).unwrap();
        assert_eq!(fs::read_dir(dir.path().join(CONTENT)).unwrap().count(), 0);
    }

    #[test]
    fn temporary_files_of_the_dead_are_swept_and_ours_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let content = content(&dir);
        fs::create_dir(dir.path().join(TMP)).unwrap();
        fs::write(dir.path().join(TMP).join(".tmpX"), b"x").unwrap();
        content.set_tmp_aside();
        content.write(&Digest::of(b"a"), b"a").unwrap();
        fs::write(dir.path().join(TMP).join(".tmpY"), b"y").unwrap();
        content.sweep_tmp();
        assert!(dir.path().join(TMP).join(".tmpY").exists());
        assert!(!dir.path().join(OLD_TMP).exists());
    }
}
