//! The master: a repository that comes from a directory of this machine.
//!
//! Files are found beneath the root by the kernel (`openat2`), so no name, link or race leads out of it. What
//! a file *is* at one moment is its [`OpenFile`]: length, SHA-256 and pieces of exactly that content. The
//! digest is computed once per state of a file (`digests`); a file that changes while it is sent breaks that
//! transfer (`file`). Nothing here knows HTTP beyond the media type.

mod digests;
mod file;
mod media;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use tokio::sync::Semaphore;

use self::digests::{Digests, HashFailure, Stamp};
use crate::base::clock::{Clock, Timestamp};
use crate::store::Buffers;

pub use self::file::{OpenFile, ReadError};

/// How often an open is tried again that met a rename in a parent, or a file that was being written.
const ATTEMPTS: usize = 3;

/// Free buffers kept: 4 MiB. More are in use during a rush and go back to the allocator.
const FREE_BUFFERS: usize = 32;

/// What a directory repository may use.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Reads and opens that may wait for the disk at the same time (default 16: beyond it a disk only seeks).
    pub readers: usize,
    /// Files hashed at the same time (default 2: SHA-256 is CPU, and agents need it too).
    pub hashers: usize,
    /// Digests remembered (default 65,536, about 10 MiB); a forgotten one is computed again.
    pub digests: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { readers: 16, hashers: 2, digests: 65_536 }
    }
}

/// A directory whose files are served. Clones share everything.
#[derive(Clone, Debug)]
pub struct Directory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    clock: Clock,
    pool: Pool,
    digests: Digests,
}

/// What every open file of a directory reads with.
#[derive(Clone, Debug)]
struct Pool {
    readers: Arc<Semaphore>,
    buffers: Buffers,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Nothing with that name is served: absent, a directory, a dotfile, no regular file, or a link that leads
    /// out of the root. 404.
    #[error("no such file")]
    NotFound,
    /// It is there, and this process may not read it. The operator's mistake: 403 or 404 outside, a log line inside.
    #[error("permission denied")]
    Denied,
    /// It kept changing while its digest was computed. 503 and try again soon.
    #[error("the file is being written")]
    Changing,
    /// The root or the disk failed. 503, and the cause in the log.
    #[error("cannot read the directory: {0}")]
    Io(#[from] io::Error),
}

impl Directory {
    /// Serves the files beneath `root`. The path is resolved again at every open, so that a publisher may switch
    /// a link that is the root (or part of the way to it) to another tree.
    ///
    /// # Errors
    /// `root` is no readable directory, or the kernel is older than 5.6 (no `openat2`).
    pub fn open(root: &Path, options: Options, clock: Clock) -> io::Result<Self> {
        let root = std::path::absolute(root)?;
        let handle = open_root(&root, ResolveFlags::empty())?;
        openat2(&handle, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), BENEATH)?;
        let pool = Pool {
            readers: Arc::new(Semaphore::new(options.readers.max(1))),
            buffers: Buffers::keeping(FREE_BUFFERS),
        };
        let digests = Digests::new(options.hashers, options.digests);
        Ok(Self(Arc::new(Inner { root, clock, pool, digests })))
    }

    /// Opens the regular file at `path`: decoded, relative to the root, separated by `/`; a leading `/` is
    /// allowed. Waits for the disk when the name is not in the kernel's cache, and for the digest of a file that
    /// has not been read before in this state (about 0.5 s a GB); else it does not wait at all.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub async fn open_file(&self, path: &str) -> Result<OpenFile, DirectoryError> {
        let path = servable(path).ok_or(DirectoryError::NotFound)?;
        for _ in 0..ATTEMPTS {
            let file = Arc::new(self.find(path).await?);
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                return Err(DirectoryError::NotFound);
            }
            let stamp = Stamp::of(&metadata);
            let now = self.0.clock.now();
            match self.0.digests.digest(&file, stamp, now).await {
                Ok(digest) => {
                    let modified = whole_seconds(Timestamp::from_system(metadata.modified()?).min(now));
                    return Ok(OpenFile::new(file, stamp, digest, modified, media::of(path), &self.0.pool));
                }
                Err(HashFailure::Changed) => {}
                Err(HashFailure::Io(kind)) => return Err(io::Error::from(kind).into()),
            }
        }
        Err(DirectoryError::Changing)
    }

    /// At once where the kernel knows the name, else on the pool.
    async fn find(&self, path: &str) -> Result<File, DirectoryError> {
        match open_beneath(&self.0.root, path, ResolveFlags::CACHED) {
            // INVAL: a kernel before 5.12 has no RESOLVE_CACHED.
            Err(Errno::AGAIN | Errno::INVAL) => {}
            done => return done.map(File::from).map_err(refusal),
        }
        let permit = Arc::clone(&self.0.pool.readers).acquire_owned().await.map_err(io::Error::other)?;
        let inner = Arc::clone(&self.0);
        let path = path.to_owned();
        let open = move || {
            let _permit = permit;
            let mut outcome = Err(Errno::AGAIN);
            for _ in 0..ATTEMPTS {
                outcome = open_beneath(&inner.root, &path, ResolveFlags::empty());
                if !matches!(outcome, Err(Errno::AGAIN)) {
                    break;
                }
            }
            outcome
        };
        let opened = tokio::task::spawn_blocking(open).await.map_err(io::Error::other)?;
        opened.map(File::from).map_err(refusal)
    }
}

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

fn open_root(root: &Path, how: ResolveFlags) -> Result<OwnedFd, Errno> {
    openat2(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), how)
}

/// `NONBLOCK`: a FIFO must not hold the opener until somebody writes.
fn open_beneath(root: &Path, path: &str, how: ResolveFlags) -> Result<OwnedFd, Errno> {
    let root = open_root(root, how)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    openat2(&root, path, flags, Mode::empty(), BENEATH.union(how))
}

/// XDEV and LOOP: a link out of the root, or a magic one; NXIO: a socket.
fn refusal(errno: Errno) -> DirectoryError {
    match errno {
        Errno::NOENT
        | Errno::NOTDIR
        | Errno::ISDIR
        | Errno::NAMETOOLONG
        | Errno::XDEV
        | Errno::LOOP
        | Errno::NXIO => DirectoryError::NotFound,
        Errno::ACCESS | Errno::PERM => DirectoryError::Denied,
        other => DirectoryError::Io(other.into()),
    }
}

/// As an HTTP date can say it: a date that an agent got from us must compare as equal when it comes back.
const fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp(at.0 - at.0 % 1_000)
}

/// The path without its leading slash, if every segment is a name that may be served. Dotfiles are what editors,
/// rsync and version control leave behind.
fn servable(path: &str) -> Option<&str> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let good = |segment: &str| !segment.is_empty() && !segment.starts_with('.') && !segment.contains('\0');
    path.split('/').all(good).then_some(path)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::base::digest::Digest;

    fn tree() -> (tempfile::TempDir, Directory) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("Current/DAT")).unwrap();
        fs::write(root.join("Current/DAT/avv 1.zip"), content()).unwrap();
        fs::write(root.join("empty"), b"").unwrap();
        fs::write(root.join(".git"), b"hidden").unwrap();
        fs::write(dir.path().join("secret"), b"secret").unwrap();
        let directory = Directory::open(&root, Options::default(), Clock::system()).unwrap();
        (dir, directory)
    }

    fn content() -> Vec<u8> {
        (0..300_000_u32).flat_map(u32::to_le_bytes).collect()
    }

    async fn read_all(file: &OpenFile) -> Result<Vec<u8>, ReadError> {
        let mut all = Vec::new();
        while (all.len() as u64) < file.length() {
            let at = all.len() as u64;
            let piece = match file.try_piece(at, usize::MAX) {
                Some(piece) => piece?,
                None => file.piece(at, usize::MAX).await?,
            };
            assert!(!piece.is_empty() && piece.len() <= crate::base::limits::PIECE_BYTES);
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn a_file_has_its_length_digest_tag_and_bytes() {
        let (_dir, directory) = tree();
        for path in ["Current/DAT/avv 1.zip", "/Current/DAT/avv 1.zip"] {
            let file = directory.open_file(path).await.unwrap();
            assert_eq!(file.length(), 1_200_000);
            assert_eq!(file.digest(), Digest::of(&content()));
            assert_eq!(file.entity_tag(), format!("\"sha256-{}\"", Digest::of(&content())));
            assert_eq!(file.media_type(), "application/zip");
            assert!(file.modified() > Timestamp(0));
            assert_eq!(read_all(&file).await.unwrap(), content());
        }
    }

    #[tokio::test]
    async fn a_piece_is_at_its_offset_and_within_its_bounds() {
        let (_dir, directory) = tree();
        let file = directory.open_file("Current/DAT/avv 1.zip").await.unwrap();
        let content = content();
        for (offset, max, expected) in
            [(0, 10, 0..10), (999_999, 5, 999_999..1_000_004), (1_199_998, 100, 1_199_998..1_200_000)]
        {
            assert_eq!(file.piece(offset, max).await.unwrap(), content[expected.clone()]);
            if let Some(piece) = file.try_piece(offset, max) {
                assert_eq!(piece.unwrap(), content[expected]);
            }
        }
        assert!(file.piece(1_200_000, 1).await.unwrap().is_empty());
        assert!(file.try_piece(u64::MAX, 1).unwrap().unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_empty_file_is_a_file() {
        let (_dir, directory) = tree();
        let file = directory.open_file("empty").await.unwrap();
        assert_eq!((file.length(), file.digest()), (0, Digest::of(b"")));
        assert!(read_all(&file).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_not_served_is_not_found() {
        let (dir, directory) = tree();
        let root = dir.path().join("root");
        symlink("../secret", root.join("relative-out")).unwrap();
        symlink(dir.path().join("secret"), root.join("absolute-out")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        rustix::fs::mkfifoat(CWD, root.join("fifo"), Mode::RUSR).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        let long = "a".repeat(300);
        for path in [
            "absent",
            "",
            "/",
            "Current",
            "Current/",
            "Current//DAT",
            "empty/",
            "empty/x",
            ".git",
            "./empty",
            "../secret",
            "Current/../empty",
            "relative-out",
            "absolute-out",
            "magic/etc/passwd",
            "loop",
            "fifo",
            "socket",
            "em\0pty",
            "//empty",
            &long,
        ] {
            let outcome = directory.open_file(path).await;
            assert!(matches!(outcome, Err(DirectoryError::NotFound)), "{path:?}: {outcome:?}");
        }
    }

    #[tokio::test]
    async fn a_link_within_the_root_is_followed() {
        let (dir, directory) = tree();
        symlink("Current/DAT", dir.path().join("root/Latest")).unwrap();
        assert_eq!(directory.open_file("Latest/avv 1.zip").await.unwrap().length(), 1_200_000);
    }

    #[tokio::test]
    async fn a_root_that_is_a_link_may_be_switched() {
        let dir = tempfile::tempdir().unwrap();
        for release in ["1", "2"] {
            fs::create_dir(dir.path().join(release)).unwrap();
            fs::write(dir.path().join(release).join("file"), release).unwrap();
        }
        let root = dir.path().join("current");
        symlink("1", &root).unwrap();
        let directory = Directory::open(&root, Options::default(), Clock::system()).unwrap();
        assert_eq!(directory.open_file("file").await.unwrap().digest(), Digest::of(b"1"));
        fs::remove_file(&root).unwrap();
        symlink("2", &root).unwrap();
        assert_eq!(directory.open_file("file").await.unwrap().digest(), Digest::of(b"2"));
    }

    #[tokio::test]
    async fn a_file_written_in_place_breaks_the_transfer() {
        let (dir, directory) = tree();
        let file = directory.open_file("Current/DAT/avv 1.zip").await.unwrap();
        let mut changed = content();
        changed[1_199_999] ^= 1;
        fs::write(dir.path().join("root/Current/DAT/avv 1.zip"), changed).unwrap();
        assert!(matches!(read_all(&file).await, Err(ReadError::Changed)));
        assert!(matches!(file.piece(0, 10).await, Err(ReadError::Changed)));
    }

    #[tokio::test]
    async fn a_file_cut_short_breaks_the_transfer() {
        let (dir, directory) = tree();
        let file = directory.open_file("Current/DAT/avv 1.zip").await.unwrap();
        fs::File::options()
            .write(true)
            .open(dir.path().join("root/Current/DAT/avv 1.zip"))
            .unwrap()
            .set_len(1_000_000)
            .unwrap();
        assert!(matches!(file.piece(1_000_000, 10).await, Err(ReadError::Changed)));
        assert!(matches!(file.try_piece(1_000_000, 10), Some(Err(ReadError::Changed)) | None));
    }

    #[tokio::test]
    async fn readers_of_a_file_that_was_replaced_finish_the_old_one() {
        let (dir, directory) = tree();
        let path = dir.path().join("root/Current/DAT/avv 1.zip");
        let old = directory.open_file("Current/DAT/avv 1.zip").await.unwrap();
        fs::write(dir.path().join("new"), b"new").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        assert_eq!(read_all(&old).await.unwrap(), content());
        let new = directory.open_file("Current/DAT/avv 1.zip").await.unwrap();
        assert_eq!(read_all(&new).await.unwrap(), b"new");
    }

    #[test]
    fn a_root_that_is_no_directory_is_refused_at_once() {
        let (dir, _directory) = tree();
        for root in ["secret", "absent"] {
            let root = dir.path().join(root);
            assert!(Directory::open(&root, Options::default(), Clock::system()).is_err());
        }
    }
}
