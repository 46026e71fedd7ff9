//! A publisher of content in the shape of an ePO repository: editions of it, put on a scripted origin in one go or
//! file by file, in whatever order a bad day has.

use bytes::Bytes;

use super::content;
use super::origin::Origin;
use super::script::Script;
use crate::base::digest::Digest;

/// One edition of a repository.
#[derive(Clone, Debug)]
pub struct Edition {
    /// Its number; grows.
    pub number: u64,
    /// Path (below the repository) and content of every file, payloads first and the root last: the order of a
    /// publisher who knows what it does.
    pub files: Vec<(String, Bytes)>,
}

/// The root of an edition.
pub const ROOT: &str = "SiteStat.xml";

/// Where its content files are.
pub const CURRENT: &str = "Current/VSCANDAT1000/DAT/0000/";

impl Edition {
    /// Edition `number` with `payloads` content files of `length` bytes. The files keep their names from edition to
    /// edition, and so does their length: only the digest tells one from another. One more has the edition's number in
    /// its name, as full content files do.
    pub fn new(number: u64, payloads: usize, length: usize) -> Self {
        let mut files: Vec<(String, Bytes)> = (0..payloads)
            .map(|index| (format!("part{index}.bin"), content::whole(number * 1_000 + index as u64, length)))
            .collect();
        files.push((format!("avvdat-{number}.zip"), content::whole(number * 1_000 + 999, length)));
        let pointer = format!("[AVV-ZIP]\r\nDATVersion={number}\r\nMinorVersion=0\r\n");
        files.push(("avvdat.ini".to_owned(), pointer.into()));
        let log = replica_log(&files, std::iter::empty());
        let mut all: Vec<(String, Bytes)> =
            files.into_iter().map(|(name, body)| (format!("{CURRENT}{name}"), body)).collect();
        all.push((format!("{CURRENT}Replica.log"), log));
        let folders: Vec<&str> = CURRENT.trim_end_matches('/').split('/').collect();
        for depth in (0..folders.len()).rev() {
            let above: String = folders.iter().take(depth).map(|folder| format!("{folder}/")).collect();
            let mut here = Vec::new();
            if depth == 0 {
                let catalog = Bytes::from(format!("catalog {number}"));
                here.push(("catalog.z".to_owned(), catalog.clone()));
                all.push(("catalog.z".to_owned(), catalog));
            }
            let next = folders.get(depth).into_iter().copied();
            all.push((format!("{above}Replica.log"), replica_log(&here, next)));
        }
        let status = format!("<SiteStatus Status=\"Enabled\" CatalogVersion=\"{number}\"/>\n");
        all.push((ROOT.to_owned(), status.into()));
        Self { number, files: all }
    }

    /// Puts it on `origin` below `base` (with its slashes), payloads first, the root last.
    pub fn publish(&self, origin: &Origin, base: &str) {
        for (path, body) in &self.files {
            origin.set(&format!("{base}{path}"), Script::text(body.clone()));
        }
    }

    /// The content of `path`.
    ///
    /// # Panics
    /// There is no such file.
    pub fn body(&self, path: &str) -> Bytes {
        let found = self.files.iter().find(|(name, _)| name == path);
        found.expect("a file of this edition").1.clone()
    }
}

/// A `Replica.log` of these files and folders.
fn replica_log<'a>(files: &[(String, Bytes)], folders: impl Iterator<Item = &'a str>) -> Bytes {
    let folders: Vec<_> = folders.map(|name| (name.to_owned(), None)).collect();
    let mut text = format!("[General]\r\nNumItems={}\r\n", files.len() + folders.len());
    let files = files.iter().map(|(name, body)| (name.clone(), Some(body)));
    for (index, (name, body)) in folders.into_iter().chain(files).enumerate() {
        let (kind, size) = body.map_or(("Directory", 0), |body| ("File", body.len()));
        let hash = body.map(|body| Digest::of(body).to_string().to_uppercase()).unwrap_or_default();
        text.push_str(&format!(
            "[ITEM_{}]\r\nName={name}\r\nType={kind}\r\nSize={size}\r\nHash=\r\nHash256={hash}\r\n",
            index + 1
        ));
    }
    text.into()
}
