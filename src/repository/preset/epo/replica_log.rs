//! `Replica.log`: what is in a folder, with sizes and digests. It does not list itself.

use super::super::{names, text};
use super::{Epo, ROOT};
use crate::base::limits::LISTED_FILES;
use crate::repository::expectation::{Algorithm, Expectation};
use crate::repository::listing::{CatalogueError, Listing};

/// One `[ITEM_n]`.
#[derive(Default)]
struct Item<'a> {
    line: u64,
    name: Option<&'a str>,
    directory: bool,
    length: Option<u64>,
    digests: Expectation,
}

enum Section<'a> {
    General,
    Item(Item<'a>),
    /// None that we know: what it says is not for us.
    Other,
}

/// Adds what the `Replica.log` of `folder` lists.
pub(super) fn read(
    epo: &Epo,
    folder: &str,
    body: &[u8],
    listing: &mut Listing,
) -> Result<(), CatalogueError> {
    let mut section = None;
    let mut announced = None;
    let mut items = 0_u64;
    for line in text::lines(body) {
        let line = line?;
        if line.text.trim().is_empty() || line.text.trim_start().starts_with(';') {
            continue;
        }
        if let Some(name) = text::section(line.text) {
            if let Some(Section::Item(item)) = section.take() {
                add(epo, folder, item, listing)?;
            }
            section = Some(begin(name, line.number));
            items += u64::from(matches!(section, Some(Section::Item(_))));
            continue;
        }
        let (key, value) = text::key_and_value(line.text)
            .ok_or_else(|| line.refuse("is neither a section nor `key=value`"))?;
        match &mut section {
            Some(Section::General) if key.eq_ignore_ascii_case("NumItems") => {
                let count = text::number(value).filter(|&count| count <= LISTED_FILES as u64);
                let count =
                    count.ok_or_else(|| line.refuse("NumItems is not a number that can be believed"))?;
                if announced.replace((line.number, count)).is_some() {
                    return Err(line.refuse("NumItems is given twice"));
                }
            }
            Some(Section::Item(item)) => item.take(key, value).map_err(|reason| line.refuse(reason))?,
            Some(Section::General | Section::Other) => {}
            None => return Err(line.refuse("stands before the first section")),
        }
    }
    if let Some(Section::Item(item)) = section {
        add(epo, folder, item, listing)?;
    }
    match announced {
        Some((_, count)) if count == items => Ok(()),
        Some((line, count)) => {
            Err(CatalogueError::at(line, format!("NumItems says {count}, but there are {items} items")))
        }
        None => Err(CatalogueError::whole("has no NumItems, so nobody knows whether it is whole")),
    }
}

fn begin<'a>(name: &str, line: u64) -> Section<'a> {
    let is_item = name.get(..5).is_some_and(|begin| begin.eq_ignore_ascii_case("ITEM_"));
    if is_item {
        Section::Item(Item { line, ..Item::default() })
    } else if name.eq_ignore_ascii_case("General") {
        Section::General
    } else {
        Section::Other
    }
}

impl<'a> Item<'a> {
    fn take(&mut self, key: &str, value: &'a str) -> Result<(), String> {
        if key.eq_ignore_ascii_case("Name") {
            if self.name.replace(value).is_some() {
                return Err("the item has two names".to_owned());
            }
        } else if key.eq_ignore_ascii_case("Type") {
            self.directory = value.eq_ignore_ascii_case("Directory");
            if !self.directory && !value.eq_ignore_ascii_case("File") {
                return Err("the type is neither File nor Directory".to_owned());
            }
        } else if key.eq_ignore_ascii_case("Size") {
            let length = text::length(value)?;
            if self.length.replace(length).is_some_and(|before| before != length) {
                return Err("the item has two sizes".to_owned());
            }
        } else if key.eq_ignore_ascii_case("Hash") {
            self.digest(Algorithm::Sha1, value)?;
        } else if key.eq_ignore_ascii_case("Hash256") {
            self.digest(Algorithm::Sha256, value)?;
        }
        Ok(())
    }

    /// Folders, and files of old versions, have empty ones.
    fn digest(&mut self, algorithm: Algorithm, hex: &str) -> Result<(), String> {
        if hex.is_empty() {
            return Ok(());
        }
        let digest = text::digest(algorithm, hex)?;
        if self.digests.contradicts(&digest) {
            return Err("the item has two different digests".to_owned());
        }
        self.digests = std::mem::take(&mut self.digests).and(digest);
        Ok(())
    }
}

fn add(epo: &Epo, folder: &str, item: Item<'_>, listing: &mut Listing) -> Result<(), CatalogueError> {
    let Item { line, name, directory, length, mut digests } = item;
    let refuse = |reason: String| CatalogueError::at(line, reason);
    let name = name.ok_or_else(|| refuse("the item has no name".to_owned()))?;
    if name.contains('/') {
        return Err(refuse("the name of the item is a path".to_owned()));
    }
    let path = names::below(folder, name).map_err(refuse)?;
    if directory {
        let path = names::below(&format!("{path}/"), "Replica.log").map_err(refuse)?;
        return epo.add(listing, path, Expectation::default(), false).map_err(refuse);
    }
    // A file cannot have its own digest in it, and the root's changes with its status.
    let is_root = folder.is_empty() && name.eq_ignore_ascii_case(ROOT);
    if is_root || name.eq_ignore_ascii_case("Replica.log") {
        return Ok(());
    }
    digests.length = length;
    epo.add(listing, path, digests, false).map_err(refuse)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::digest::Digest;
    use crate::repository::listing::Kind;

    fn parse(folder: &str, body: &str) -> Result<Listing, CatalogueError> {
        let mut listing = Listing::default();
        read(&Epo, folder, body.as_bytes(), &mut listing).map(|()| listing)
    }

    const SAMPLE: &str = "[General]\nNumItems=5\n\
        [ITEM_1]\nName=VSCANDAT1000\nType=Directory\nSize=0\nHash=\nHash256=\n\
        [Item_2]\nName=Avvdat.ini\nType=File\nSize=3\nHash=A9993E364706816ABA3E25717850C26C9CD0D89D\n\
        Hash256=BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD\n\
        [item_3]\nname = PkgCatalog.z\ntype = file\nsize = 7\n; a comment\n\
        [ITEM_4]\nName=1123.gem\nSize=9\nUnknown=x\nHash=\n\
        [ITEM_5]\nName=Replica.log\nSize=1\n[Other]\nName=../x\n";

    #[test]
    fn a_folder_is_listed_in_any_line_ends_and_case() {
        for body in [SAMPLE.to_owned(), format!("\u{feff}{}", SAMPLE.replace('\n', "\r\n"))] {
            let listing = parse("Current/", &body).unwrap();
            assert_eq!(listing.len(), 4);
            let below = listing.find("current/vscandat1000/replica.log").unwrap();
            assert_eq!((&*below.path, below.kind), ("Current/VSCANDAT1000/Replica.log", Kind::Catalogue));
            let pointer = listing.find("current/avvdat.ini").unwrap();
            assert_eq!((&*pointer.path, pointer.kind), ("Current/Avvdat.ini", Kind::Catalogue));
            assert_eq!(pointer.expectation.length, Some(3));
            assert_eq!(pointer.expectation.sha256, Some(Digest::of(b"abc")));
            assert_eq!(
                pointer.expectation.hex(Algorithm::Sha1).unwrap(),
                "a9993e364706816aba3e25717850c26c9cd0d89d"
            );
            assert_eq!(listing.find("current/pkgcatalog.z").unwrap().kind, Kind::File);
            assert_eq!(listing.find("current/1123.gem").unwrap().kind, Kind::Delta);
        }
    }

    #[test]
    fn the_root_and_the_log_itself_have_no_digest_here() {
        let body = "[General]\nNumItems=1\n[ITEM_1]\nName=sitestat.xml\nSize=1\n";
        assert!(parse("", body).unwrap().is_empty());
        assert_eq!(parse("x/", body).unwrap().len(), 1);
        assert!(parse("", "[General]\nNumItems=0\n").unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_line() {
        let item = |lines: &str| format!("[General]\nNumItems=1\n[ITEM_1]\n{lines}\n");
        for (body, line) in [
            (String::new(), 0),
            ("[General]\n".into(), 0),
            ("NumItems=0".into(), 1),
            ("<html>\n".into(), 1),
            ("[General]\nNumItems=1000000000\n".into(), 2),
            ("[General]\nNumItems=-1\n".into(), 2),
            ("[General]\nNumItems=0\nNumItems=0\n".into(), 3),
            (SAMPLE.replace("NumItems=5", "NumItems=6"), 2),
            (item(""), 3),
            (item("Name=../x"), 3),
            (item("Name=.."), 3),
            (item("Name=a/b"), 3),
            (item("Name=a\\b"), 3),
            (item("Name=a\0b"), 4),
            (item("Name=a\nName=b"), 5),
            (item("Name=a\nType=Link"), 5),
            (item("Name=a\nSize=1099511627777"), 5),
            (item("Name=a\nSize=1\nSize=2"), 6),
            (item("Name=a\nHash=12"), 5),
            (item(&format!("Name=a\nHash256={}\nHash256={}", "0".repeat(64), "1".repeat(64))), 6),
            ("[General]\nNumItems=2\n[ITEM_1]\nName=a\nSize=1\n[ITEM_2]\nName=A\nSize=2".into(), 6),
        ] {
            assert_eq!(parse("", &body).map_err(|error| error.line).err(), Some(line), "{body:?}");
        }
        assert!(parse(&"d/".repeat(15), &item("Name=d\nType=Directory")).is_err());
    }

    proptest! {
        #[test]
        fn a_log_is_what_was_written(
            files in prop::collection::btree_map("[a-zäö +]{0,5}[a-z]x", (0..1_u64 << 40, any::<Option<[u8; 32]>>()), 0..9),
            folders in prop::collection::btree_set("[a-z]{1,4}d", 0..5), crlf: bool,
        ) {
            let mut body = format!("[General]\nNumItems={}\n", files.len() + folders.len());
            for folder in &folders {
                body += &format!("[ITEM_1]\nName={folder}\nType=Directory\nSize=0\nHash=\nHash256=\n");
            }
            for (name, (size, sha256)) in &files {
                let hex = sha256.map(|it| Digest(it).to_string().to_uppercase()).unwrap_or_default();
                body += &format!("[Item_2]\nName={name}\nType=File\nSize={size}\nHash256={hex}\n");
            }
            let body = if crlf { body.replace('\n', "\r\n") } else { body };
            let names: std::collections::BTreeSet<_> = files.keys().map(|name| name.trim()).collect();
            prop_assume!(names.len() == files.len());
            let listing = parse("A/", &body).unwrap();
            prop_assert_eq!(listing.len(), files.len() + folders.len());
            for (name, (size, sha256)) in &files {
                let path = names::below("A/", name.trim()).unwrap();
                let listed = listing.find(&folded(&path)).unwrap();
                prop_assert_eq!(&*listed.path, path.as_str());
                let expected = Expectation { sha256: sha256.map(Digest), ..Expectation::default() };
                prop_assert_eq!(&listed.expectation, &expected.of_length(*size));
            }
            for folder in &folders {
                let name = format!("a/{folder}/replica.log");
                prop_assert_eq!(listing.find(&name).unwrap().kind, Kind::Catalogue);
            }
        }
    }

    fn folded(path: &str) -> String {
        crate::repository::preset::Preset::fold(&Epo, path).into_owned()
    }
}
