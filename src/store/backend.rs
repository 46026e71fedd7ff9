//! The index file under redb: plain positional reads and writes, and the seam for faults.
//!
//! redb would lock the file itself; the directory is locked already, and a lock per file would stand in the
//! way of opening the index again after an error. Where the disk takes no writes, what redb writes (it must
//! recover a file before it reads it) stays in memory, so that hits go on.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use parking_lot::Mutex;
use redb::StorageBackend;

use super::faults::Faults;
use crate::base::crash::{Step, reach};

const PAGE: usize = 4096;
/// Pages kept in memory for a disk that takes no writes: 64 MiB. A recovery writes a few hundred.
const MOST_PAGES: usize = 16_384;

#[derive(Debug)]
pub(super) struct IndexFile {
    file: File,
    faults: Faults,
    overlay: Option<Mutex<Overlay>>,
}

#[derive(Debug)]
struct Overlay {
    len: u64,
    pages: HashMap<u64, Box<[u8; PAGE]>>,
}

impl IndexFile {
    pub(super) const fn new(file: File, faults: Faults) -> Self {
        Self { file, faults, overlay: None }
    }

    /// Leaves the file as it is, whatever redb writes.
    pub(super) fn unwritable(file: File, faults: Faults) -> io::Result<Self> {
        let overlay = Overlay { len: file.metadata()?.len(), pages: HashMap::new() };
        Ok(Self { file, faults, overlay: Some(Mutex::new(overlay)) })
    }
}

impl StorageBackend for IndexFile {
    fn len(&self) -> io::Result<u64> {
        match &self.overlay {
            Some(overlay) => Ok(overlay.lock().len),
            None => Ok(self.file.metadata()?.len()),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match &self.overlay {
            Some(overlay) => overlay.lock().read(&self.file, offset, out),
            None => self.file.read_exact_at(out, offset),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if let Some(overlay) = &self.overlay {
            overlay.lock().len = len;
            return Ok(());
        }
        self.faults.on_index()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.overlay.is_some() {
            return Ok(());
        }
        self.faults.on_index()?;
        reach(Step::IndexSync);
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if let Some(overlay) = &self.overlay {
            return overlay.lock().write(&self.file, offset, data);
        }
        self.faults.on_index()?;
        reach(Step::IndexPage);
        self.file.write_all_at(data, offset)
    }
}

impl Overlay {
    fn read(&self, file: &File, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset.saturating_add(out.len() as u64) > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        fill(file, offset, out)?;
        for (page, within, part) in pages(offset, out.len()) {
            let Some(page) = self.pages.get(&page) else { continue };
            let from = page.get(within..within + part.len());
            if let (Some(to), Some(from)) = (out.get_mut(part), from) {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    fn write(&mut self, file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
        for (number, within, part) in pages(offset, data.len()) {
            if !self.pages.contains_key(&number) {
                if self.pages.len() >= MOST_PAGES {
                    return Err(io::ErrorKind::OutOfMemory.into());
                }
                let mut page = Box::new([0; PAGE]);
                fill(file, number * PAGE as u64, &mut *page)?;
                self.pages.insert(number, page);
            }
            let page = self.pages.get_mut(&number).and_then(|page| page.get_mut(within..within + part.len()));
            if let (Some(to), Some(from)) = (page, data.get(part)) {
                to.copy_from_slice(from);
            }
        }
        self.len = self.len.max(offset.saturating_add(data.len() as u64));
        Ok(())
    }
}

/// Reads what the file has, and zeros behind it.
fn fill(file: &File, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
    while !out.is_empty() {
        let read = file.read_at(out, offset)?;
        if read == 0 {
            out.fill(0);
            return Ok(());
        }
        offset += read as u64;
        out = out.get_mut(read..).unwrap_or_default();
    }
    Ok(())
}

/// The pages of a span: number, where in the page it begins, and which part of the span that is.
fn pages(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let at = offset + done as u64;
        let within = usize::try_from(at % PAGE as u64).unwrap_or(0);
        let part = done..len.min(done + PAGE - within);
        done = part.end;
        Some((at / PAGE as u64, within, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_over_an_unwritable_file_are_seen_and_do_not_reach_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        std::fs::write(&path, vec![1; 10_000]).unwrap();
        let file = IndexFile::unwritable(File::open(&path).unwrap(), Faults::default()).unwrap();
        file.write(4_000, &[2; 5_000]).unwrap();
        file.set_len(20_000).unwrap();
        let mut out = vec![9; 20_000];
        file.read(0, &mut out).unwrap();
        let mut expected = vec![1; 10_000];
        expected[4_000..9_000].fill(2);
        expected.resize(20_000, 0);
        assert_eq!(out, expected);
        assert!(file.read(1, &mut out).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), vec![1; 10_000]);
    }
}
