//! One file from a repository into `partial`, named by its digest: begun once, it goes on where it stopped, whatever
//! process, connection or source comes next, and it is done only when its digest says so.

use std::fs::{self, File as FsFile, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use http::header::{CONTENT_RANGE, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::link::{Answer, Ask, Link, TalkError};
use super::plan::{File, Wanted};
use super::shelf::Part;
use crate::base::digest::Digest;
use crate::base::limits::{BODY_BYTES, PIECE_BYTES};
use crate::base::proof::BodyHasher;
use crate::protocol::validators::{Validators, resume_validator};
use crate::repository::expectation::{Expectation, Proof};

/// Why a file did not come.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The source does not answer, or with something else than the file.
    #[error(transparent)]
    Talk(#[from] TalkError),
    /// The bytes are not those that the catalogue promised. The source's.
    #[error("the bytes are not those that the catalogue lists")]
    WrongBytes,
    /// The disk. Ours.
    #[error("{}: {error}", path.display())]
    Disk {
        /// Where.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl FetchError {
    /// Whether the source says that there is no such file.
    pub const fn is_absent(&self) -> bool {
        matches!(self, Self::Talk(TalkError::Status(404 | 410)))
    }
}

/// Fetches `wanted` from below `base` (with its slashes) of `authority`. Gives what it is, proven and durable, and how
/// many bytes came over the wire.
///
/// # Errors
/// [`FetchError`]; what came stays for the next attempt, unless it is wrong.
pub(super) async fn fetch(
    link: &mut Link,
    authority: &str,
    base: &str,
    wanted: &Wanted,
    partial: &Path,
) -> Result<(Part, u64), FetchError> {
    // A file without a digest is never planned.
    let word = wanted.expectation.word().unwrap_or_else(|| "unproven".to_owned());
    let path = partial.join(&word);
    let source = format!("{authority}{base}{}", wanted.path);
    let mut received = 0;
    let mut begun = Begun::open(&path, &wanted.expectation).map_err(|error| disk(&path, error))?;
    loop {
        let resumed = begun.at > 0;
        if !begun.is_as_long_as(&wanted.expectation) {
            let target = format!("{base}{}", wanted.path);
            received += begun.run(link, authority, &target, &source, &wanted.expectation).await?;
        }
        begun.file.sync_all().map_err(|error| disk(&path, error))?;
        let length = begun.at;
        match begun.finish(&wanted.expectation) {
            Some(sha256) => {
                let file = File { name: wanted.name.clone(), length, sha256 };
                return Ok((Part { file, fetched: Some(path) }, received));
            }
            // The part of before may be of another time: once more from the start tells.
            None if resumed => {
                begun = Begun::afresh(&path, &wanted.expectation).map_err(|error| disk(&path, error))?;
            }
            None => {
                drop(fs::remove_file(&path));
                return Err(FetchError::WrongBytes);
            }
        }
    }
}

/// A download that has begun.
struct Begun {
    path: PathBuf,
    file: FsFile,
    hasher: BodyHasher,
    at: u64,
}

impl Begun {
    /// What is there of it; nothing where that is more than there should be.
    fn open(path: &Path, expected: &Expectation) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            // Nothing but us writes there; a link would be somebody else's doing.
            .custom_flags(NO_FOLLOW)
            .open(path)?;
        if expected.length.is_some_and(|length| file.metadata().is_ok_and(|meta| meta.len() > length)) {
            return Self::afresh(path, expected);
        }
        let mut hasher = hasher(expected);
        let mut piece = vec![0; PIECE_BYTES];
        let mut at = 0;
        loop {
            let read = file.read(&mut piece)?;
            let Some(bytes) = piece.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
            hasher.update(bytes);
            at += read as u64;
        }
        Ok(Self { path: path.to_owned(), file, hasher, at })
    }

    fn afresh(path: &Path, expected: &Expectation) -> io::Result<Self> {
        drop(fs::remove_file(path));
        drop(fs::remove_file(note_of(path)));
        Self::open(path, expected)
    }

    fn restart(&mut self, expected: &Expectation) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        (self.hasher, self.at) = (hasher(expected), 0);
        Ok(())
    }

    fn is_as_long_as(&self, expected: &Expectation) -> bool {
        expected.length == Some(self.at)
    }

    /// The digest of what is there, if it is what was promised.
    fn finish(&self, expected: &Expectation) -> Option<Digest> {
        let digests = self.hasher.clone().finish();
        let long = expected.length.is_none_or(|length| length == self.at);
        let proven = expected.proof().is_some_and(|proof| proof.bytes() == digests.proof());
        if long && proven {
            drop(fs::remove_file(note_of(&self.path)));
            return Some(digests.sha256);
        }
        None
    }

    /// Fetches what is missing. Gives the bytes that came.
    async fn run(
        &mut self,
        link: &mut Link,
        authority: &str,
        target: &str,
        source: &str,
        expected: &Expectation,
    ) -> Result<u64, FetchError> {
        let path = self.path.clone();
        let failed = |error| disk(&path, error);
        let mut ask = Ask::get(target);
        ask.headers = self.range_from(source);
        let mut answer = link.ask(authority, ask).await?;
        if answer.status == StatusCode::RANGE_NOT_SATISFIABLE && self.at > 0 {
            self.restart(expected).map_err(failed)?;
            answer = link.ask(authority, Ask::get(target)).await?;
        }
        match answer.status {
            StatusCode::OK => self.restart(expected).map_err(failed)?,
            StatusCode::PARTIAL_CONTENT if self.continues(&answer.headers, expected) => {}
            StatusCode::PARTIAL_CONTENT => {
                return Err(TalkError::NotUnderstood("another part than was asked for".to_owned()).into());
            }
            status => return Err(TalkError::Status(status.as_u16()).into()),
        }
        self.note(source, &answer.headers).map_err(failed)?;
        let most = expected.length.unwrap_or(BODY_BYTES);
        self.take(&mut answer, most).await
    }

    async fn take(&mut self, answer: &mut Answer, most: u64) -> Result<u64, FetchError> {
        let mut received = 0;
        while let Some(bytes) = answer.next().await? {
            let length = bytes.len() as u64;
            if self.at + length > most {
                drop(fs::remove_file(&self.path));
                return Err(FetchError::WrongBytes);
            }
            // Short writes on the only thread: an agent has nothing to do meanwhile that could not wait for a disk.
            self.file.write_all(&bytes).map_err(|error| disk(&self.path, error))?;
            self.hasher.update(&bytes);
            self.at += length;
            received += length;
        }
        Ok(received)
    }

    /// The fields that ask for what is missing. From the source of before with its validator; from another one it is
    /// the digest alone that finds out whether the parts belong together.
    fn range_from(&self, source: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.at == 0 {
            return headers;
        }
        if let Ok(range) = HeaderValue::try_from(format!("bytes={}-", self.at)) {
            headers.insert(RANGE, range);
        }
        let note = fs::read_to_string(note_of(&self.path)).unwrap_or_default();
        if let Some((of, validator)) = note.split_once('\n')
            && of == source
            && let Ok(validator) = HeaderValue::from_str(validator)
        {
            headers.insert(IF_RANGE, validator);
        }
        headers
    }

    /// Remembers what tells this file from its next version at this source.
    fn note(&self, source: &str, headers: &HeaderMap) -> io::Result<()> {
        let note = note_of(&self.path);
        let validator = resume_validator(&Validators::of(headers));
        match validator.as_ref().and_then(|validator| validator.to_str().ok()) {
            Some(validator) => fs::write(note, format!("{source}\n{validator}")),
            None => {
                drop(fs::remove_file(note));
                Ok(())
            }
        }
    }

    /// Whether a 206 begins where we stopped, of a file as long as it should be.
    fn continues(&self, headers: &HeaderMap, expected: &Expectation) -> bool {
        let range = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let Some((part, total)) = range.and_then(|it| it.strip_prefix("bytes ")?.split_once('/')) else {
            return false;
        };
        let start = part.split_once('-').and_then(|(start, _)| start.parse().ok());
        let total: Option<u64> = total.parse().ok();
        let fits = expected.length.is_none_or(|length| total.is_none_or(|total| total == length));
        start == Some(self.at) && fits
    }
}

/// `O_NOFOLLOW`.
const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

fn hasher(expected: &Expectation) -> BodyHasher {
    expected.proof().as_ref().map(Proof::kind).map_or_else(BodyHasher::default, BodyHasher::proving)
}

fn note_of(path: &Path) -> PathBuf {
    path.with_extension("from")
}

fn disk(path: &Path, error: io::Error) -> FetchError {
    FetchError::Disk { path: path.to_owned(), error }
}
