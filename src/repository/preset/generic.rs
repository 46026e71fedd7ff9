//! Files under a URL, with a list of checksums beside them or not: `SHA256SUMS` as coreutils and BSD write it.

use super::{Preset, names, text};
use crate::repository::expectation::{Algorithm, Expectation};
use crate::repository::listing::{CatalogueError, Kind, Listed, Listing};
use crate::repository::rules::Rule;

/// Anything that has no preset of its own.
#[derive(Debug)]
pub struct Generic;

/// Lists of checksums and what they are made with. The first is the one that is looked for.
const LISTS: [(&str, Algorithm); 4] = [
    ("SHA256SUMS", Algorithm::Sha256),
    ("SHA512SUMS", Algorithm::Sha512),
    ("sha256sum.txt", Algorithm::Sha256),
    ("sha512sum.txt", Algorithm::Sha512),
];

/// What signatures of lists end in.
const SIGNATURES: [&str; 4] = [".gpg", ".asc", ".sig", ".sign"];

/// The list that a file name is, or signs, and whether it signs.
fn list_of(file: &str) -> Option<(&'static str, Algorithm, bool)> {
    LISTS.into_iter().find_map(|(list, algorithm)| {
        let rest = file.strip_prefix(list)?;
        (rest.is_empty() || SIGNATURES.contains(&rest)).then_some((list, algorithm, !rest.is_empty()))
    })
}

impl Preset for Generic {
    fn name(&self) -> &'static str {
        "generic"
    }

    fn rules(&self) -> Vec<Rule> {
        LISTS
            .iter()
            .flat_map(|(list, _)| [super::mutable(*list), super::mutable(format!("{list}.*"))])
            .collect()
    }

    fn root_of(&self, path: &str) -> Option<String> {
        let (folder, file) = names::split(path);
        let list = list_of(file).map_or("SHA256SUMS", |(list, ..)| list);
        (!file.is_empty()).then(|| format!("{folder}{list}"))
    }

    fn is_catalogue(&self, path: &str) -> bool {
        list_of(names::split(path).1).is_some()
    }

    fn read(&self, root: &str, path: &str, body: &[u8], listing: &mut Listing) -> Result<(), CatalogueError> {
        let (folder, file) = names::split(path);
        let Some((_, algorithm, false)) = list_of(file).filter(|_| path == root) else {
            return Err(CatalogueError::whole("is not a list of checksums"));
        };
        for signature in SIGNATURES {
            let path = format!("{path}{signature}");
            let expectation = Expectation::default();
            let listed =
                Listed { path: path.as_str().into(), expectation, kind: Kind::Companion, optional: true };
            listing.add(&path, listed).map_err(CatalogueError::whole)?;
        }
        for line in text::lines(body) {
            let line = line?;
            if line.text.trim().is_empty() || line.text.starts_with('#') {
                continue;
            }
            let (hex, name) = entry(line.text, algorithm).map_err(|reason| line.refuse(reason))?;
            let expectation = text::digest(algorithm, hex).map_err(|reason| line.refuse(reason))?;
            let name = name.strip_prefix("./").unwrap_or(&name);
            let path = names::below(folder, name).map_err(|reason| line.refuse(reason))?;
            if path == root {
                continue;
            }
            let listed =
                Listed { path: path.as_str().into(), expectation, kind: Kind::File, optional: false };
            listing.add(&path, listed).map_err(|reason| line.refuse(reason))?;
        }
        Ok(())
    }
}

/// Digest and name of a line: `HEX  NAME`, `HEX *NAME`, `\HEX  NA\\ME` or `SHA256 (NAME) = HEX`.
fn entry(line: &str, algorithm: Algorithm) -> Result<(&str, String), String> {
    let bsd = match algorithm {
        Algorithm::Sha512 => "SHA512 (",
        _ => "SHA256 (",
    };
    if let Some(rest) = line.strip_prefix(bsd) {
        let (name, hex) = rest.rsplit_once(") = ").ok_or("the line has no `) = `")?;
        return Ok((hex, name.to_owned()));
    }
    let (escaped, line) = line.strip_prefix('\\').map_or((false, line), |rest| (true, rest));
    let (hex, name) = line.split_once(' ').ok_or("the line is not a digest and a name")?;
    let name = name.strip_prefix([' ', '*']).ok_or("between digest and name stand two blanks, or ` *`")?;
    Ok((hex, if escaped { unescape(name)? } else { name.to_owned() }))
}

/// A name as coreutils escape it: backslash and line ends.
fn unescape(name: &str) -> Result<String, String> {
    let mut out = String::with_capacity(name.len());
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next() {
                Some('\\') => '\\',
                Some('n') => '\n',
                Some('r') => '\r',
                _ => return Err("the name has a broken escape".to_owned()),
            },
            c => c,
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::digest::Digest;

    fn read(root: &str, body: &str) -> Result<Listing, CatalogueError> {
        let mut listing = Listing::default();
        Generic.read(root, root, body.as_bytes(), &mut listing).map(|()| listing)
    }

    fn files(listing: &Listing) -> Vec<(&str, &Expectation)> {
        let files = listing.files().filter(|(_, listed)| listed.kind == Kind::File);
        let mut files: Vec<_> = files.map(|(name, listed)| (name, &listed.expectation)).collect();
        files.sort_by_key(|(name, _)| *name);
        files
    }

    #[test]
    fn lists_are_read_in_the_forms_of_coreutils_and_bsd() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let body = format!(
            "# made by hand\r\n{one}  plain name.iso\r\n\r\n{two} *binary.iso\n\\{one}  a b\nSHA256 (x (1) = y.iso) = {two}\n\
             {one}  ./sub/x\n{one}  SHA256SUMS\n"
        );
        let listing = read("d/SHA256SUMS", &body).unwrap();
        let is = |digest| Expectation { sha256: Some(digest), ..Expectation::default() };
        let expected = [
            ("d/a%20b", one),
            ("d/binary.iso", two),
            ("d/plain%20name.iso", one),
            ("d/sub/x", one),
            ("d/x%20(1)%20=%20y.iso", two),
        ];
        let expected = expected.map(|(name, digest)| (name, is(digest)));
        assert_eq!(files(&listing), expected.each_ref().map(|(name, expectation)| (*name, expectation)));
        let signature = listing.find("d/SHA256SUMS.asc").unwrap();
        assert_eq!((signature.kind, signature.optional), (Kind::Companion, true));
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let good = Digest::of(b"1");
        for line in [
            "<html>".to_owned(),
            format!("{good} x"),
            format!("{good}"),
            format!("{good}  ../x"),
            format!("{good}  /etc/passwd"),
            format!("\\{good}  a\\\\b"),
            format!("\\{good}  a\\x"),
            format!("SHA256 (x = {good}"),
            format!("{}  x", "0".repeat(63)),
            format!("{}  x", "0".repeat(128)),
            format!("{}  ok", Digest::of(b"2")),
        ] {
            let error = read("SHA256SUMS", &format!("{good}  ok\n{line}\n")).unwrap_err();
            assert_eq!(error.line, 2, "{line}: {error}");
        }
        assert!(Generic.read("SHA256SUMS", "other", b"", &mut Listing::default()).is_err());
    }

    #[test]
    fn the_list_of_a_file_stands_beside_it() {
        let root = |path| Generic.root_of(path);
        assert_eq!(root("a/b.iso").unwrap(), "a/SHA256SUMS");
        assert_eq!(root("b.iso").unwrap(), "SHA256SUMS");
        assert_eq!(root("a/SHA512SUMS.gpg").unwrap(), "a/SHA512SUMS");
        assert_eq!(root("a/sha256sum.txt").unwrap(), "a/sha256sum.txt");
        assert_eq!(root("a/"), None);
        assert!(Generic.is_catalogue("a/SHA256SUMS.sign") && !Generic.is_catalogue("a/SHA256SUMS.old"));
    }

    proptest! {
        #[test]
        fn a_list_is_what_was_written(
            model in prop::collection::btree_map("[a-z+ ]{0,3}[a-zä]", any::<[u8; 64]>(), 0..20), bsd: bool,
        ) {
            let mut body = String::new();
            for (name, digest) in &model {
                let hex = Expectation { sha512: Some(Box::new(*digest)), ..Expectation::default() };
                let hex = hex.hex(Algorithm::Sha512).unwrap();
                body += &if bsd { format!("SHA512 ({name}) = {hex}\r\n") } else { format!("{hex}  {name}\n") };
            }
            let listing = read("SHA512SUMS", &body).unwrap();
            prop_assert_eq!(files(&listing).len(), model.len());
            for (name, digest) in model {
                let path = crate::protocol::target::path_of_name(&name).unwrap();
                prop_assert_eq!(listing.find(&path).unwrap().expectation.sha512.as_deref(), Some(&digest));
            }
        }
    }
}
