//! One file in one state, and its pieces.
//!
//! The state was proven when the digest was computed. Every piece is followed by a look at the file: bytes that were
//! read before a change are still those of the digest, so the look comes after the read.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::Pool;
use super::digests::Stamp;
use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::base::limits::PIECE_BYTES;
use crate::store::Buffers;

/// A regular file as it was when it was opened: length, digest and content belong together. Clones share it.
#[derive(Clone, Debug)]
pub struct OpenFile {
    file: Arc<File>,
    stamp: Stamp,
    digest: Digest,
    modified: Timestamp,
    media: &'static str,
    pool: Pool,
}

/// Why a piece could not be read. Either way the transfer must break visibly.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file is no longer what the digest was computed of.
    #[error("the file changed while it was sent")]
    Changed,
    /// The disk failed.
    #[error("cannot read the file: {0}")]
    Io(#[from] io::Error),
}

impl OpenFile {
    pub(super) fn new(
        file: Arc<File>,
        stamp: Stamp,
        digest: Digest,
        modified: Timestamp,
        media: &'static str,
        pool: &Pool,
    ) -> Self {
        Self { file, stamp, digest, modified, media, pool: pool.clone() }
    }

    /// Bytes in the file.
    pub const fn length(&self) -> u64 {
        self.stamp.size()
    }

    /// SHA-256 of the whole content.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The strong entity tag that follows from the content: `"sha256-<hex>"`, with its quotes (RFC 9110 §8.8.3).
    pub fn entity_tag(&self) -> String {
        format!("\"sha256-{}\"", self.digest)
    }

    /// Time of the last change in whole seconds, never later than the moment it was opened (RFC 9110 §8.8.2.1).
    pub const fn modified(&self) -> Timestamp {
        self.modified
    }

    /// Media type by the file's name, for `Content-Type`.
    pub const fn media_type(&self) -> &'static str {
        self.media
    }

    /// Bytes from `offset` on, at least one and at most `max` or [`PIECE_BYTES`], if the page cache has them: never
    /// waits. `None` means that [`OpenFile::piece`] is to be asked. At or after the end: empty bytes.
    pub fn try_piece(&self, offset: u64, max: usize) -> Option<Result<Bytes, ReadError>> {
        let want = self.want(offset, max);
        if want == 0 {
            return Some(Ok(Bytes::new()));
        }
        let mut buffer = self.pool.buffers.take(want);
        let mut slices = [IoSliceMut::new(buffer.space())];
        match preadv2(&*self.file, &mut slices, offset, ReadWriteFlags::NOWAIT) {
            Ok(0) => Some(Err(ReadError::Changed)),
            Ok(read) => Some(self.unchanged().map(|()| buffer.freeze(read))),
            // Not in memory, or a file system without this flag; other errors are told by the waiting read.
            Err(_) => None,
        }
    }

    /// As [`OpenFile::try_piece`], waiting for the disk on the pool. Fills the piece up.
    ///
    /// # Errors
    /// See [`ReadError`]: both end the transfer.
    pub async fn piece(&self, offset: u64, max: usize) -> Result<Bytes, ReadError> {
        let want = self.want(offset, max);
        if want == 0 {
            return Ok(Bytes::new());
        }
        let permit = Arc::clone(&self.pool.readers).acquire_owned().await.map_err(io::Error::other)?;
        let this = self.clone();
        let read = move || {
            let _permit = permit;
            let bytes = read_full(&this.file, &this.pool.buffers, offset, want)?;
            this.unchanged().map(|()| bytes)
        };
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }

    fn want(&self, offset: u64, max: usize) -> usize {
        let left = usize::try_from(self.length().saturating_sub(offset)).unwrap_or(usize::MAX);
        left.min(max).min(PIECE_BYTES)
    }

    fn unchanged(&self) -> Result<(), ReadError> {
        let now = Stamp::of(&self.file.metadata()?);
        if self.stamp.same_content(&now) { Ok(()) } else { Err(ReadError::Changed) }
    }
}

fn read_full(file: &File, buffers: &Buffers, offset: u64, want: usize) -> Result<Bytes, ReadError> {
    let mut buffer = buffers.take(want);
    match file.read_exact_at(buffer.space(), offset) {
        Ok(()) => Ok(buffer.freeze(want)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(ReadError::Changed),
        // A network file system says that the file was replaced under the handle.
        Err(error) if error.raw_os_error() == Some(Errno::STALE.raw_os_error()) => Err(ReadError::Changed),
        Err(error) => Err(error.into()),
    }
}
