//! The made-up repository: a catalogue, a signature file, an incremental one, and a package.

use std::fs;
use std::io;
use std::path::Path;

use crate::base::digest::Digest;
use crate::demo::noise;

/// Path of the repository's files on every node.
pub(super) const BASE: &str = "/Software/";
/// The catalogue, relative to [`BASE`].
pub(super) const CATALOGUE: &str = "Current/catalog.xml";

const DAT: &str = "Current/VSCANDAT1000/DAT/0000/avvdat-11230.zip";
const DELTA: &str = "Current/VSCANDAT1000/DAT/0000/11229-11230.upd";
const PACKAGE: &str = "Current/ENDPOINT5000/Install/0409/setup.zip";

/// A file of the repository.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Relative to [`BASE`].
    pub(super) path: &'static str,
    pub(super) size: u64,
    pub(super) digest: Digest,
}

/// What the master has.
#[derive(Clone, Debug)]
pub(super) struct Content {
    pub(super) catalogue: Item,
    pub(super) dat: Item,
    pub(super) delta: Item,
    pub(super) package: Item,
}

/// Writes the files beneath `root`.
pub(super) fn write(root: &Path, size: u64) -> io::Result<Content> {
    let dat = write_item(root, DAT, size, 11_230)?;
    let delta = write_item(root, DELTA, (size / 64).min(256 << 10), 11_229)?;
    let package = write_item(root, PACKAGE, size / 2, 5_000)?;
    let text = catalogue(&[&dat, &delta, &package]);
    fs::write(root.join(CATALOGUE), &text)?;
    let catalogue = Item { path: CATALOGUE, size: text.len() as u64, digest: Digest::of(text.as_bytes()) };
    Ok(Content { catalogue, dat, delta, package })
}

fn catalogue(items: &[&Item]) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Catalog version=\"11230\">\n");
    for Item { path, size, digest } in items {
        text.push_str(&format!("  <File path=\"{path}\" size=\"{size}\" sha256=\"{digest}\"/>\n"));
    }
    text.push_str("</Catalog>\n");
    text
}

/// The digest that the catalogue gives for `path`: what an agent trusts, instead of what we know.
pub(super) fn digest_in(catalogue: &str, path: &str) -> Option<Digest> {
    let line = catalogue.lines().find(|line| line.contains(&format!("path=\"{path}\"")))?;
    let (_, rest) = line.split_once("sha256=\"")?;
    rest.split_once('"')?.0.parse().ok()
}

fn write_item(root: &Path, path: &'static str, size: u64, seed: u64) -> io::Result<Item> {
    let to = root.join(path);
    fs::create_dir_all(to.parent().unwrap_or(root))?;
    let digest = noise::write(&to, size, seed)?;
    Ok(Item { path, size, digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_names_what_is_in_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let content = write(dir.path(), 1_000_003).unwrap();
        let catalogue = fs::read_to_string(dir.path().join(CATALOGUE)).unwrap();
        for item in [&content.dat, &content.delta, &content.package] {
            let bytes = fs::read(dir.path().join(item.path)).unwrap();
            assert_eq!(bytes.len() as u64, item.size);
            assert_eq!(digest_in(&catalogue, item.path), Some(Digest::of(&bytes)));
        }
        assert_eq!(digest_in(&catalogue, "absent"), None);
    }
}
