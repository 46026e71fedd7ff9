//! apt's archives: `InRelease` of a suite lists its indexes with their digests, and these list the packages.
//!
//! Two shapes: `dists/SUITE/…` beside `pool/…`, and flat ones with everything in one folder. An archive may lie below
//! the repository's base: what stands before `dists/` is the folder its packages are counted from. Signatures are
//! apt's business: it has the keys, and gets the file as it was signed.

mod packages;
mod release;
mod unpack;

use std::borrow::Cow;

use super::{Preset, immutable, mutable, names};
use crate::repository::expectation::{Algorithm, Expectation};
use crate::repository::listing::{CatalogueError, Kind, Listing};
use crate::repository::rules::Rule;

/// An archive as apt reads it.
#[derive(Debug)]
pub struct Apt;

const ROOT: &str = "InRelease";

/// The older form of the root and its signature, which few clients ask for.
const COMPANIONS: [&str; 2] = ["Release", "Release.gpg"];

/// What an index may be packed with.
const PACKINGS: [&str; 7] = ["", "gz", "xz", "bz2", "lzma", "zst", "lz4"];

/// Beginnings of names of the other files of a suite, which describe its packages and change with them.
const DESCRIPTIONS: [&str; 5] = ["Contents-", "Translation-", "Components-", "Commands-", "icons-"];

/// Folders of a `by-hash` name, and what their names are made with.
const BY_HASH: [(&str, Algorithm); 4] = [
    ("SHA256", Algorithm::Sha256),
    ("SHA512", Algorithm::Sha512),
    ("SHA1", Algorithm::Sha1),
    ("MD5Sum", Algorithm::Md5),
];

/// Whether a file of this name lists packages.
fn is_index(file: &str) -> bool {
    let (stem, packing) = file.split_once('.').unwrap_or((file, ""));
    matches!(stem, "Packages" | "Sources") && PACKINGS.contains(&packing)
}

/// What a file is by its name.
fn kind_of(path: &str) -> Kind {
    if is_index(names::split(path).1) { Kind::Index } else { Kind::File }
}

/// What a path is made of: the archive's folder, and the rest, which begins with `dists/` unless the archive is flat.
fn split_archive(path: &str) -> (&str, &str) {
    if path.starts_with("dists/") {
        return ("", path);
    }
    path.find("/dists/").and_then(|at| path.split_at_checked(at + 1)).unwrap_or_else(|| names::split(path))
}

/// What the names in an index are counted from.
struct Base<'a> {
    /// The archive's folder, empty or with its slash.
    archive: &'a str,
    /// The index lies beside what it lists.
    flat: bool,
}

impl Base<'_> {
    /// The folder that `name` is counted from. A flat index made from the folder above has its own folder's name in
    /// front of each: `binary/x.deb` in `binary/Packages`.
    fn of(&self, name: &str) -> &str {
        let above = || {
            let (first, _) = name.split_once('/')?;
            let above = self.archive.strip_suffix('/')?.strip_suffix(first)?;
            (above.is_empty() || above.ends_with('/')).then_some(above)
        };
        above().filter(|_| self.flat).unwrap_or(self.archive)
    }
}

/// The folder, digest and algorithm of a `FOLDER/by-hash/SHA256/HEX`.
fn by_hash(path: &str) -> Option<(&str, Algorithm, &str)> {
    let (folder, hex) = path.rsplit_once('/')?;
    let (folder, algorithm) = folder.rsplit_once('/')?;
    let (_, algorithm) = BY_HASH.into_iter().find(|(name, _)| *name == algorithm)?;
    let folder = folder.strip_suffix("by-hash")?;
    (folder.is_empty() || folder.ends_with('/')).then_some((folder, algorithm, hex))
}

impl Preset for Apt {
    fn name(&self) -> &'static str {
        "apt"
    }

    fn rules(&self) -> Vec<Rule> {
        let never = ["**/by-hash/**", "**/pool/**"].map(immutable);
        let often = [
            "InRelease",
            "Release",
            "Release.gpg",
            "Packages",
            "Packages.*",
            "Sources",
            "Sources.*",
            "**/dists/**",
        ];
        never.into_iter().chain(often.map(mutable)).collect()
    }

    /// apt asks for `%2b` where the catalogue says `+`.
    fn fold<'a>(&self, path: &'a str) -> Cow<'a, str> {
        names::plainest(path)
    }

    /// A suite may have slashes in its name, and so may a component: `dists/a/b/binary-amd64/Packages.xz` is of suite
    /// `a` and component `b`, or of suite `a/b` without any. Only the names of the root and its companions tell; for
    /// the rest below `dists/` this is the suite that has one word, which nearly all have. Of `pool/` no name tells.
    fn root_of(&self, path: &str) -> Option<String> {
        let (folder, file) = names::split(path);
        let (archive, rest) = split_archive(path);
        let of_suite = file == ROOT || (COMPANIONS.contains(&file) && !is_of_component(folder));
        if of_suite {
            return Some(format!("{folder}{ROOT}"));
        }
        if let Some(below) = rest.strip_prefix("dists/") {
            let (suite, _) = below.split_once('/')?;
            return Some(format!("{archive}dists/{suite}/{ROOT}"));
        }
        if let Some((folder, ..)) = by_hash(path) {
            return Some(format!("{folder}{ROOT}"));
        }
        is_index(file).then(|| format!("{folder}{ROOT}"))
    }

    fn is_catalogue(&self, path: &str) -> bool {
        let (folder, file) = names::split(path);
        if by_hash(path).is_some() {
            return false;
        }
        let described = || DESCRIPTIONS.iter().any(|begin| file.starts_with(begin));
        let of_suite = split_archive(path).1.starts_with("dists/");
        file == ROOT
            || COMPANIONS.contains(&file)
            || is_index(file)
            || (of_suite && (described() || (file == "Index" && folder.ends_with(".diff/"))))
    }

    fn read(&self, root: &str, path: &str, body: &[u8], listing: &mut Listing) -> Result<(), CatalogueError> {
        let (folder, _) = names::split(root);
        if path == root {
            return release::read(folder, body, listing);
        }
        let (archive, rest) = split_archive(root);
        packages::read(&Base { archive, flat: !rest.starts_with("dists/") }, body, listing)
    }

    fn named_by_digest(&self, path: &str) -> Option<Expectation> {
        let (_, algorithm, hex) = by_hash(path)?;
        Expectation::digest(algorithm, hex)
    }
}

/// Whether `folder` is one of a component, where an older `Release` describes only that.
fn is_of_component(folder: &str) -> bool {
    let last = folder.trim_end_matches('/').rsplit('/').next().unwrap_or("");
    last.starts_with("binary-") || last == "source"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::rules::Rules;

    #[test]
    fn names_tell_their_root_as_far_as_they_can() {
        for (path, root) in [
            ("dists/stable/InRelease", Some("dists/stable/InRelease")),
            ("dists/bookworm/updates/Release.gpg", Some("dists/bookworm/updates/InRelease")),
            ("dists/stable/main/binary-amd64/Release", Some("dists/stable/InRelease")),
            ("dists/stable/main/binary-amd64/Packages.xz", Some("dists/stable/InRelease")),
            ("dists/stable/main/by-hash/SHA256/00", Some("dists/stable/InRelease")),
            ("linux/debian/dists/sid/main/i18n/Translation-en", Some("linux/debian/dists/sid/InRelease")),
            ("dists/file", None),
            ("pool/main/a/a_1_all.deb", None),
            ("ubuntu2204/x86_64/Packages.gz", Some("ubuntu2204/x86_64/InRelease")),
            ("InRelease", Some("InRelease")),
            ("Packages", Some("InRelease")),
            ("by-hash/SHA512/00", Some("InRelease")),
            ("x/key.gpg", None),
        ] {
            assert_eq!(Apt.root_of(path).as_deref(), root, "{path}");
        }
    }

    #[test]
    fn names_tell_what_changes() {
        for path in [
            "dists/a/InRelease",
            "dists/a/b/Release",
            "dists/a/main/binary-amd64/Packages.lz4",
            "dists/a/main/Contents-amd64.gz",
            "dists/a/main/binary-amd64/Packages.diff/Index",
            "flat/Sources",
        ] {
            assert!(Apt.is_catalogue(path), "{path}");
        }
        for path in [
            "dists/a/main/binary-amd64/by-hash/SHA256/00",
            "dists/a/main/binary-amd64/Packages.diff/2026-11-21-0000.00.gz",
            "dists/a/main/installer-amd64/current/images/netboot/mini.iso",
            "pool/Contents-x",
            "flat/Packages.txt",
        ] {
            assert!(!Apt.is_catalogue(path), "{path}");
        }
        let rules = Rules::compile(Apt.rules()).unwrap();
        let immutable = |path| rules.effective(path).immutable == Some(true);
        assert!(immutable("/debian/pool/main/a/a.deb") && immutable("/dists/a/by-hash/SHA256/00"));
        for path in ["/debian/dists/a/InRelease", "/x/InRelease", "/x/Packages.gz", "/x/Sources"] {
            assert!(rules.effective(path).fresh_for.is_some(), "{path}");
        }
    }

    #[test]
    fn a_name_by_hash_says_what_is_in_it() {
        let hex = "ab".repeat(32);
        let named = Apt.named_by_digest(&format!("dists/a/by-hash/SHA256/{hex}")).unwrap();
        assert_eq!(named.hex(Algorithm::Sha256).unwrap(), hex);
        assert!(Apt.named_by_digest(&format!("by-hash/MD5Sum/{}", &hex[..32])).unwrap().md5.is_some());
        for path in ["dists/a/by-hash/SHA256/ab", "dists/a/SHA256/x", "by-hash/SHA3/ab", "xby-hash/SHA256/"] {
            assert_eq!(Apt.named_by_digest(&format!("{path}{}", "")), None, "{path}");
        }
        assert_eq!(Apt.named_by_digest(&format!("xby-hash/SHA256/{hex}")), None);
    }

    #[test]
    fn a_flat_index_may_be_counted_from_the_folder_above() {
        let base = |archive: &str, flat, name: &str| Base { archive, flat }.of(name).to_owned();
        assert_eq!(base("a/binary/", true, "binary/x.deb"), "a/");
        assert_eq!(base("binary/", true, "binary/x.deb"), "");
        assert_eq!(base("binary/", true, "x.deb"), "binary/");
        assert_eq!(base("a-binary/", true, "binary/x.deb"), "a-binary/");
        assert_eq!(base("pool/", false, "pool/x.deb"), "pool/");
        assert_eq!(base("", true, "/x.deb"), "");
    }

    #[test]
    fn an_escaped_plus_is_a_plus() {
        assert_eq!(Apt.fold("pool/g/g%2B%2B_1%7E2.deb"), "pool/g/g++_1~2.deb");
    }
}
