//! What there is, on disk: records, how often each block is named, and the order of eviction. In redb.
//!
//! One thread writes ([`super::writer`]), any thread reads. A read sees the last commit and never waits for
//! the next. An error while reading is absence; redb refuses everything after a failed write, so the writer
//! opens the file again then.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use redb::{
    Builder, Database, ReadTransaction, ReadableDatabase, TableDefinition, TableError, WriteTransaction,
};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::backend::IndexFile;
use super::faults::Faults;
use super::tally::Tally;
use crate::base::digest::Digest;
use crate::cache::Record;

/// The layout of the tables below.
pub(super) const SCHEMA: u64 = 1;
/// Pages of the index kept in memory: upper levels of the trees; hot records are in moka.
const PAGE_CACHE: usize = 16 << 20;
const FILE: &str = "index.redb";

/// key → record of a complete entry
pub(super) const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");
/// key → record of an unfinished body
pub(super) const PARTIALS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("partials");
/// (kind, key) → (segment, stamp, bytes): where it stands in `order`
pub(super) const PLACES: TableDefinition<'_, (u8, &str), (u8, u64, u64)> = TableDefinition::new("places");
/// (segment, stamp, kind, key) → bytes
pub(super) const ORDER: TableDefinition<'_, (u8, u64, u8, &str), u64> = TableDefinition::new("order");
/// digest → (records that name it, bytes)
pub(super) const BLOCKS: TableDefinition<'_, &[u8; 32], (u32, u32)> = TableDefinition::new("blocks");
/// counters and the schema's version
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The row of a record: its bytes, then a checksum of them and of their key. redb compares checksums when it
/// recovers a file, not when it reads: without one of our own a flipped bit would be served.
pub(super) fn render_row(key: &str, record: &Record) -> Vec<u8> {
    let mut row = record.encode();
    row.extend_from_slice(&sum_of(key, &row));
    row
}

/// The record of a row, if the row is what was written.
pub(super) fn parse_row(key: &str, row: &[u8]) -> Option<Record> {
    let (record, sum) = row.split_last_chunk()?;
    (*sum == sum_of(key, record)).then(|| Record::decode(record).ok())?
}

fn sum_of(key: &str, record: &[u8]) -> [u8; 8] {
    xxh3_64_with_seed(record, xxh3_64(key.as_bytes())).to_le_bytes()
}

/// The index could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum IndexError {
    #[error("the index is not open")]
    NotOpen,
    #[error("the index was written by a later release (schema {0})")]
    Newer(u64),
    #[error("the index is damaged: {0}")]
    Damaged(String),
    #[error("the record of {0} is damaged or another release's: as if it were not there")]
    Row(String),
    #[error("the totals of the index are damaged: counting anew")]
    Totals,
    #[error("the index file: {0}")]
    Io(#[from] io::Error),
}

impl<E: Into<redb::Error>> From<Wrapped<E>> for IndexError {
    fn from(Wrapped(error): Wrapped<E>) -> Self {
        match error.into() {
            // What redb says of a file that is not, or no longer, one of its own.
            redb::Error::Io(error)
                if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) =>
            {
                Self::Damaged(error.to_string())
            }
            redb::Error::Io(error) => Self::Io(error),
            redb::Error::PreviousIo | redb::Error::DatabaseClosed => Self::NotOpen,
            other => Self::Damaged(other.to_string()),
        }
    }
}

/// Lets `?` take every error of redb without an implementation for each of its kinds.
pub(super) struct Wrapped<E>(pub(super) E);

/// `redb`'s many errors as ours.
pub(super) trait OrIndex<T> {
    fn or_index(self) -> Result<T, IndexError>;
}

impl<T, E: Into<redb::Error>> OrIndex<T> for Result<T, E> {
    fn or_index(self) -> Result<T, IndexError> {
        self.map_err(|error| Wrapped(error).into())
    }
}

enum Db {
    Write(Database),
    /// The disk takes no writes: never written to, though redb recovers it in memory.
    Read(Database),
}

pub(super) struct Index {
    dir: PathBuf,
    faults: Faults,
    db: RwLock<Option<Arc<Db>>>,
}

impl Index {
    pub(super) fn new(dir: &Path, faults: Faults) -> Self {
        Self { dir: dir.to_path_buf(), faults, db: RwLock::new(None) }
    }

    /// Opens the file for writing, or for reading where writing is refused. A damaged file is set aside and a
    /// new one made; then true is returned.
    pub(super) fn open(&self) -> Result<bool, IndexError> {
        match self.open_write() {
            Ok(db) => {
                *self.db.write() = Some(Arc::new(Db::Write(db)));
                Ok(false)
            }
            Err(IndexError::Damaged(why)) => {
                tracing::error!(%why, "the cache index is damaged: set aside, starting with an empty one");
                self.set_aside()?;
                let db = self.open_write()?;
                *self.db.write() = Some(Arc::new(Db::Write(db)));
                Ok(true)
            }
            Err(IndexError::Newer(found)) => Err(IndexError::Newer(found)),
            Err(error) => {
                if let Ok(db) = self.open_read() {
                    *self.db.write() = Some(Arc::new(Db::Read(db)));
                }
                Err(error)
            }
        }
    }

    fn open_write(&self) -> Result<Database, IndexError> {
        self.faults.on_index()?;
        let path = self.dir.join(FILE);
        // Not truncated: a file that is there is the index.
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let backend = IndexFile::new(file, self.faults.clone());
        let db =
            guarded(|| Builder::new().set_cache_size(PAGE_CACHE).create_with_backend(backend).or_index())?;
        guarded(|| prepare(&db))?;
        Ok(db)
    }

    fn open_read(&self) -> Result<Database, IndexError> {
        let file = File::open(self.dir.join(FILE))?;
        let backend = IndexFile::unwritable(file, self.faults.clone())?;
        guarded(|| Builder::new().set_cache_size(PAGE_CACHE).create_with_backend(backend).or_index())
    }

    /// Sets a file aside that turned out to be damaged while it was open, and makes a new one.
    pub(super) fn replace(&self) -> Result<(), IndexError> {
        self.close();
        self.set_aside()?;
        self.open().map(drop)
    }

    fn set_aside(&self) -> io::Result<()> {
        let free =
            (1..1_000).map(|n| self.dir.join(format!("index.damaged-{n}"))).find(|path| !path.exists());
        std::fs::rename(self.dir.join(FILE), free.unwrap_or_else(|| self.dir.join("index.damaged-0")))
    }

    /// Closes the file once nobody reads from it; reads meanwhile find nothing.
    pub(super) fn close(&self) {
        let Some(mut db) = self.db.write().take() else { return };
        // Readers take milliseconds. A leaked one must not stop the node from ending: ten seconds.
        for _ in 0..2_000 {
            match Arc::try_unwrap(db) {
                Ok(db) => {
                    // redb writes its clean-shutdown mark here.
                    let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
                    return;
                }
                Err(shared) => db = shared,
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Takes it for writing again after an error.
    pub(super) fn reopen(&self) -> Result<bool, IndexError> {
        self.close();
        self.open()
    }

    /// Whether it takes changes.
    pub(super) fn is_writable(&self) -> bool {
        matches!(self.db.read().as_deref(), Some(Db::Write(_)))
    }

    pub(super) fn read<T>(
        &self,
        f: impl FnOnce(&ReadTransaction) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        let db = self.db.read().clone().ok_or(IndexError::NotOpen)?;
        guarded(|| {
            let txn = match &*db {
                Db::Write(db) | Db::Read(db) => db.begin_read().or_index()?,
            };
            f(&txn)
        })
    }

    /// Runs `f` in a write transaction and commits it durably.
    pub(super) fn write<T>(
        &self,
        f: impl FnOnce(&WriteTransaction) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        let db = self.db.read().clone().ok_or(IndexError::NotOpen)?;
        let Db::Write(db) = &*db else {
            return Err(IndexError::Io(io::ErrorKind::ReadOnlyFilesystem.into()));
        };
        guarded(|| {
            let mut txn = db.begin_write().or_index()?;
            // A crash must not cost a walk through the whole index at the next start.
            txn.set_quick_repair(true);
            let done = f(&txn)?;
            txn.commit().or_index()?;
            Ok(done)
        })
    }

    pub(super) fn entry(&self, key: &str) -> Result<Option<Record>, IndexError> {
        self.record(ENTRIES, key)
    }

    pub(super) fn partial(&self, key: &str) -> Result<Option<Record>, IndexError> {
        self.record(PARTIALS, key)
    }

    fn record(
        &self,
        table: TableDefinition<'_, &str, &[u8]>,
        key: &str,
    ) -> Result<Option<Record>, IndexError> {
        self.read(|txn| {
            let Some(table) = existing(txn.open_table(table))? else { return Ok(None) };
            let Some(found) = table.get(key).or_index()? else { return Ok(None) };
            parse_row(key, found.value()).map(Some).ok_or_else(|| IndexError::Row(key.to_owned()))
        })
    }

    /// Whether a committed record names this block.
    pub(super) fn names(&self, digest: &Digest) -> Result<bool, IndexError> {
        self.read(|txn| {
            let Some(table) = existing(txn.open_table(BLOCKS))? else { return Ok(false) };
            Ok(table.get(&digest.0).or_index()?.is_some())
        })
    }

    /// Up to `most` blocks that come after `after`, with their records' length on disk.
    pub(super) fn blocks_after(
        &self,
        after: Option<Digest>,
        most: usize,
    ) -> Result<Vec<(Digest, u32)>, IndexError> {
        self.read(|txn| {
            let Some(table) = existing(txn.open_table(BLOCKS))? else { return Ok(Vec::new()) };
            let from = after.as_ref().map_or(Bound::Unbounded, |digest| Bound::Excluded(&digest.0));
            let mut found = Vec::new();
            for row in table.range::<&[u8; 32]>((from, Bound::Unbounded)).or_index()?.take(most) {
                let (digest, row) = row.or_index()?;
                found.push((Digest(*digest.value()), row.value().1));
            }
            Ok(found)
        })
    }

    /// The totals, as of the last commit.
    pub(super) fn tally(&self) -> Result<Tally, IndexError> {
        self.read(|txn| match existing(txn.open_table(META))? {
            Some(table) => Tally::read(&table),
            None => Ok(Tally::default()),
        })
    }
}

/// Makes the tables of a new file and checks the version of an old one.
fn prepare(db: &Database) -> Result<(), IndexError> {
    let read = db.begin_read().or_index()?;
    if let Some(meta) = existing(read.open_table(META))? {
        let schema = meta.get("schema").or_index()?.map_or(0, |value| value.value());
        return match schema {
            SCHEMA => Ok(()),
            newer if newer > SCHEMA => Err(IndexError::Newer(newer)),
            other => Err(IndexError::Damaged(format!("schema {other} is not known"))),
        };
    }
    drop(read);
    let mut txn = db.begin_write().or_index()?;
    txn.set_quick_repair(true);
    txn.open_table(ENTRIES).or_index()?;
    txn.open_table(PARTIALS).or_index()?;
    txn.open_table(PLACES).or_index()?;
    txn.open_table(ORDER).or_index()?;
    txn.open_table(BLOCKS).or_index()?;
    txn.open_table(META).or_index()?.insert("schema", SCHEMA).or_index()?;
    txn.commit().or_index()
}

pub(super) fn existing<T>(opened: Result<T, TableError>) -> Result<Option<T>, IndexError> {
    match opened {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(Wrapped(error).into()),
    }
}

/// redb panics on some kinds of damage; for us that is damage like any other.
fn guarded<T>(f: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
    catch_unwind(AssertUnwindSafe(f))
        .unwrap_or_else(|_| Err(IndexError::Damaged("an invariant of its file is broken".into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{BodyMap, Head};

    #[test]
    fn a_row_that_was_touched_is_no_record() {
        let record = Record {
            head: Head::default(),
            length: Some(3),
            digest: Some(Digest::of(b"abc")),
            body: BodyMap::Inline(b"abc".to_vec()),
            stale: false,
            pinned: false,
        };
        let row = render_row("o:/f", &record);
        assert_eq!(parse_row("o:/f", &row), Some(record));
        assert_eq!(parse_row("o:/g", &row), None, "another key's");
        for at in 0..row.len() {
            let mut touched = row.clone();
            touched[at] ^= 1;
            assert_eq!(parse_row("o:/f", &touched), None, "byte {at}");
        }
        assert_eq!(parse_row("o:/f", &row[..7]), None);
    }
}
