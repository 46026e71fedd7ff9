//! The index file under redb: plain positional reads and writes, and the seam for faults.
//!
//! redb would lock the file itself; the directory is locked already, and a lock per file would stand in the
//! way of opening the index again after an error.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use redb::StorageBackend;

use super::faults::Faults;

#[derive(Debug)]
pub(super) struct IndexFile {
    file: File,
    faults: Faults,
}

impl IndexFile {
    pub(super) const fn new(file: File, faults: Faults) -> Self {
        Self { file, faults }
    }
}

impl StorageBackend for IndexFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faults.on_index()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.faults.on_index()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.faults.on_index()?;
        self.file.write_all_at(data, offset)
    }
}
