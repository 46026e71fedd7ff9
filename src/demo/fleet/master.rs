//! The master repository, in the shape that ePO gives it: one folder of DAT files, with the catalogues above it. A
//! publication puts finished files in place, the root last.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::base::digest::Digest;
use crate::demo::noise;

/// The folder that agents keep up to date.
pub(super) const DATS: &str = "Current/VSCANDAT1000/DAT/0000/";

/// A file that was published under this name at some time.
pub(super) type Known = BTreeMap<String, Vec<Digest>>;

/// The directory that headquarters serves.
pub(super) struct Master {
    root: PathBuf,
    known: Known,
    /// The full file, the increments, the pointers: name, length, digest.
    listed: Vec<(String, u64, Digest)>,
    dat: Option<u64>,
}

impl Master {
    pub(super) fn at(root: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(root.join(DATS))?;
        Ok(Self { root, known: Known::new(), listed: Vec::new(), dat: None })
    }

    /// Everything that was ever published in the folder of DAT files.
    pub(super) const fn known(&self) -> &Known {
        &self.known
    }

    /// Publishes DAT `dat`: a full file of `full` bytes, and the `increment` from the one before where there is to be
    /// one. Blocks on the disk.
    pub(super) fn publish(&mut self, dat: u64, full: u64, increment: Option<u64>) -> io::Result<()> {
        let old = std::mem::take(&mut self.listed);
        let name = format!("avvdat-{dat}.zip");
        self.add(&name, full, dat)?;
        if let (Some(size), Some(from)) = (increment, self.dat) {
            self.add(&format!("{from}{dat}.upd"), size, from)?;
        }
        let pointer = format!(
            "[AVV-ZIP]\r\nDATVersion={dat}\r\nMinorVersion=0\r\nFileName={name}\r\nFileSize={full}\r\n"
        );
        self.put("avvdat.ini", &pointer)?;
        let increments = self.listed.iter().map(|(name, ..)| name).filter(|name| name.ends_with(".upd"));
        let lines: String =
            increments.zip(1..).map(|(name, number)| format!("File{number}={name}\r\n")).collect();
        self.put("gdeltaavv.ini", &format!("[AVV-DELTA]\r\n{lines}"))?;
        let files: Vec<_> = self.listed.clone();
        self.write(&format!("{DATS}Replica.log"), &replica_log(&files, None))?;
        let folders: Vec<&str> = DATS.trim_end_matches('/').split('/').collect();
        for depth in (0..folders.len()).rev() {
            let above: String = folders.iter().take(depth).map(|folder| format!("{folder}/")).collect();
            self.write(&format!("{above}Replica.log"), &replica_log(&[], folders.get(depth).copied()))?;
        }
        self.write("SiteStat.xml", &format!("<SiteStatus Status=\"Enabled\" CatalogVersion=\"{dat}\"/>\n"))?;
        for (name, ..) in old.iter().filter(|(name, ..)| !self.listed.iter().any(|(now, ..)| now == name)) {
            fs::remove_file(self.root.join(DATS).join(name))?;
        }
        self.dat = Some(dat);
        Ok(())
    }

    /// A body that nobody has seen before.
    fn add(&mut self, name: &str, size: u64, seed: u64) -> io::Result<()> {
        let (to, new) = places(&self.root, &format!("{DATS}{name}"));
        let digest = noise::write(&new, size, seed)?;
        fs::rename(new, to)?;
        self.list(name, size, digest);
        Ok(())
    }

    /// A pointer file.
    fn put(&mut self, name: &str, text: &str) -> io::Result<()> {
        self.write(&format!("{DATS}{name}"), text)?;
        self.list(name, text.len() as u64, Digest::of(text.as_bytes()));
        Ok(())
    }

    fn list(&mut self, name: &str, size: u64, digest: Digest) {
        self.known.entry(name.to_owned()).or_default().push(digest);
        self.listed.push((name.to_owned(), size, digest));
    }

    fn write(&self, path: &str, text: &str) -> io::Result<()> {
        let (to, new) = places(&self.root, path);
        fs::write(&new, text)?;
        fs::rename(new, to)
    }
}

/// Where a file is to be, and where it is while it is written.
fn places(root: &Path, path: &str) -> (PathBuf, PathBuf) {
    let to = root.join(path);
    let new = to.with_extension("publishing");
    (to, new)
}

fn replica_log(files: &[(String, u64, Digest)], folder: Option<&str>) -> String {
    let folders = folder.map(|name| (name.to_owned(), "Directory", 0, String::new()));
    let files = files
        .iter()
        .map(|(name, size, digest)| (name.clone(), "File", *size, digest.to_string().to_uppercase()));
    let items: Vec<_> = folders.into_iter().chain(files).collect();
    let mut text = format!("[General]\r\nNumItems={}\r\n", items.len());
    for (number, (name, kind, size, digest)) in (1..).zip(items) {
        text += &format!(
            "[ITEM_{number}]\r\nName={name}\r\nType={kind}\r\nSize={size}\r\nHash=\r\nHash256={digest}\r\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::listing::Listing;
    use crate::repository::preset::preset_named;

    #[test]
    fn what_is_published_is_what_its_catalogues_list() {
        let dir = tempfile::tempdir().unwrap();
        let mut master = Master::at(dir.path().to_owned()).unwrap();
        master.publish(11_230, 3_000, None).unwrap();
        master.publish(11_231, 5_000, Some(700)).unwrap();
        let preset = preset_named("epo").unwrap();
        let mut listing = Listing::default();
        for name in ["SiteStat.xml", "Replica.log"] {
            let body = fs::read(dir.path().join(name)).unwrap();
            preset.read("SiteStat.xml", name, &body, &mut listing).unwrap();
        }
        for name in ["Replica.log", "avvdat.ini", "gdeltaavv.ini"] {
            let path = format!("{DATS}{name}");
            let body = fs::read(dir.path().join(&path)).unwrap();
            preset.read("SiteStat.xml", &path, &body, &mut listing).unwrap();
        }
        for name in ["avvdat-11231.zip", "1123011231.upd", "avvdat.ini"] {
            let body = fs::read(dir.path().join(DATS).join(name)).unwrap();
            assert!(master.known().get(name).unwrap().contains(&Digest::of(&body)), "{name}");
            assert!(listing.find(&preset.fold(&format!("{DATS}{name}"))).is_some(), "{name}");
        }
        assert!(!dir.path().join(DATS).join("avvdat-11230.zip").exists());
    }
}
