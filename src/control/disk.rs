//! What the control plane keeps on disk: whole files, replaced in one step, so that a crash leaves the old or the new one.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::bundle::{Bundle, Index};
use crate::base::crash::{Step, reach};
use crate::base::limits::DOCUMENTS_BYTES;

/// The first line of a bundle's file: what it is, and in which format.
const MAGIC: &str = "waypost bundle 1";
const BUNDLE: &str = "bundle";
const PREVIOUS: &str = "bundle.previous";

/// Bytes that are not documents in a bundle's file: its index, some 200 for each document.
const INDEX_BYTES: usize = 4 << 20;

/// Bytes of any other file here.
const RECORD_BYTES: u64 = 64 << 20;

/// A directory that belongs to the control plane.
#[derive(Clone, Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// In this directory, which is made if it is missing.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let own = directory.join("control");
        Self::made(own)
    }

    /// A directory below it, made if it is missing.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn below(&self, name: &str) -> io::Result<Self> {
        Self::made(self.0.join(name))
    }

    fn made(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        let disk = Self(path);
        // Left over from a crash. Removing them is tidiness: the next one under that name would go over it.
        for name in disk.names().iter().filter(|name| name.starts_with('.') && name.ends_with(".new")) {
            let _ = fs::remove_file(disk.0.join(name));
        }
        Ok(disk)
    }

    /// Keeps a bundle, and the one before as the previous one. Blocks until it is on the disk.
    ///
    /// # Errors
    /// The disk's; the old one is still there then.
    pub fn keep_bundle(&self, bundle: &Bundle) -> io::Result<()> {
        let index = serde_json::to_vec(bundle.index()).map_err(io::Error::other)?;
        let bodies = bundle.documents().iter().map(|(_, body)| body.as_ref());
        let parts = [MAGIC.as_bytes(), b"\n", &index, b"\n"].into_iter().chain(bodies);
        let temporary = self.write_aside(BUNDLE, parts)?;
        match fs::rename(self.0.join(BUNDLE), self.0.join(PREVIOUS)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        reach(Step::BundleMoved);
        fs::rename(temporary, self.0.join(BUNDLE))?;
        self.sync()
    }

    /// The bundle that was kept last, or else the one before: the first that is whole.
    pub fn bundle(&self) -> Option<Bundle> {
        [BUNDLE, PREVIOUS].into_iter().find_map(|name| match self.read_bundle(name) {
            Ok(bundle) => bundle,
            Err(error) => {
                tracing::error!(file = %self.0.join(name).display(), %error, "a kept bundle cannot be used");
                None
            }
        })
    }

    fn read_bundle(&self, name: &str) -> io::Result<Option<Bundle>> {
        let Some(text) = self.read(name, (DOCUMENTS_BYTES + INDEX_BYTES) as u64)? else { return Ok(None) };
        let torn = || io::Error::new(io::ErrorKind::InvalidData, "it is torn or of another release");
        let text = Bytes::from(text);
        let line = |from: usize| {
            let rest = text.get(from..)?;
            rest.iter().position(|byte| *byte == b'\n').map(|length| from + length)
        };
        let first = line(0).ok_or_else(torn)?;
        if text.get(..first) != Some(MAGIC.as_bytes()) {
            return Err(torn());
        }
        let second = line(first + 1).ok_or_else(torn)?;
        let index: Index = serde_json::from_slice(text.get(first + 1..second).unwrap_or_default())?;
        let mut bodies = std::collections::BTreeMap::new();
        let mut at = second + 1;
        for item in &index.documents {
            let end = at.checked_add(item.length).filter(|end| *end <= text.len()).ok_or_else(torn)?;
            bodies.insert(item.digest().ok_or_else(torn)?, text.slice(at..end));
            at = end;
        }
        Bundle::assemble(index, |digest| bodies.get(digest).cloned()).map(Some).map_err(io::Error::other)
    }

    /// Keeps a value under a name. Blocks until it is on the disk.
    ///
    /// # Errors
    /// The disk's; the old value is still there then.
    pub fn keep(&self, name: &str, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_vec(value).map_err(io::Error::other)?;
        self.keep_text(name, &text)
    }

    /// Keeps bytes under a name. Blocks until they are on the disk.
    ///
    /// # Errors
    /// As [`Disk::keep`].
    pub fn keep_text(&self, name: &str, text: &[u8]) -> io::Result<()> {
        let temporary = self.write_aside(name, [text].into_iter())?;
        fs::rename(temporary, self.0.join(name))?;
        self.sync()
    }

    /// Keeps nothing under a name any more.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn forget(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))?;
        self.sync()
    }

    /// A value by its name; none where there is none, or nothing that can be read.
    pub fn value<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let text = self.text(name)?;
        serde_json::from_slice(&text)
            .inspect_err(|error| tracing::error!(file = name, %error, "a kept file cannot be used"))
            .ok()
    }

    /// Bytes by their name; none where there are none.
    pub fn text(&self, name: &str) -> Option<Vec<u8>> {
        self.read(name, RECORD_BYTES)
            .inspect_err(|error| tracing::error!(file = name, %error, "a kept file cannot be read"))
            .ok()
            .flatten()
    }

    /// The names of what is kept here.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    fn read(&self, name: &str, most: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.0.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut text = Vec::new();
        file.take(most + 1).read_to_end(&mut text)?;
        if text.len() as u64 > most {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large"));
        }
        Ok(Some(text))
    }

    fn write_aside<'p>(&self, name: &str, parts: impl Iterator<Item = &'p [u8]>) -> io::Result<PathBuf> {
        // One writer for each name: whatever is there under this one is left over from a crash.
        let temporary = self.0.join(format!(".{name}.new"));
        let mut file = File::create(&temporary)?;
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_all()?;
        reach(Step::ControlWritten);
        Ok(temporary)
    }

    /// Makes names durable that were changed.
    fn sync(&self) -> io::Result<()> {
        reach(Step::ControlRenamed);
        File::open(&self.0)?.sync_all()?;
        reach(Step::ControlKept);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::fleet::Documents;

    fn bundle(version: u64, text: &'static str) -> Bundle {
        let mut documents = Documents::default();
        documents.insert("fleet.toml", Bytes::from_static(text.as_bytes())).unwrap();
        documents.insert("policies/av/base.json", Bytes::from_static(b"{}\n")).unwrap();
        Bundle::issue(documents, version, Timestamp(1), None)
    }

    #[test]
    fn the_last_whole_bundle_comes_back_whatever_became_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path()).unwrap();
        assert!(disk.bundle().is_none());
        disk.keep_bundle(&bundle(1, "# one")).unwrap();
        disk.keep_bundle(&bundle(2, "# two")).unwrap();
        let version = || disk.bundle().map(|bundle| bundle.index().version);
        assert_eq!(version(), Some(2));
        let file = dir.path().join("control/bundle");
        let whole = fs::read(&file).unwrap();
        for length in 0..whole.len() {
            fs::write(&file, &whole[..length]).unwrap();
            assert_eq!(version(), Some(1), "cut at {length}");
        }
        for place in 0..whole.len() {
            let mut bent = whole.clone();
            bent[place] ^= 1;
            fs::write(&file, &bent).unwrap();
            assert_eq!(version(), Some(1), "bent at {place}");
        }
        fs::remove_file(&file).unwrap();
        assert_eq!(version(), Some(1), "between the two renames");
    }
}
