//! `Packages` and `Sources`: stanzas of fields, each a package with the names, sizes and digests of its files.
//!
//! Which of the two it is does not matter, and a name by hash would not tell: a stanza with `Filename` is a package, one
//! with `Directory` the source of some.

use super::super::{names, text};
use super::{Base, unpack};
use crate::base::limits::SOURCE_FILES;
use crate::repository::expectation::{Algorithm, Expectation};
use crate::repository::listing::{CatalogueError, Kind, Listed, Listing};

/// Adds the files that an index of an archive lists. Nothing, where it is packed with what is not read.
pub(super) fn read(base: &Base<'_>, body: &[u8], listing: &mut Listing) -> Result<(), CatalogueError> {
    let Some(mut lines) = unpack::lines(body) else { return Ok(()) };
    let mut stanza = Stanza::default();
    while let Some((number, line)) = lines.next()? {
        if line.trim_ascii().is_empty() {
            stanza.finish(base, listing)?;
            stanza = Stanza::default();
        } else {
            stanza.take(number, line).map_err(|reason| CatalogueError::at(number, reason))?;
        }
    }
    stanza.finish(base, listing)
}

/// What the lines to come belong to.
#[derive(Clone, Copy, Default)]
enum Field {
    /// Nothing yet.
    #[default]
    None,
    /// A field whose lines are not read.
    Other,
    /// A list of a source's files, with digests of this kind.
    Files(Algorithm),
}

/// One package, or one source.
#[derive(Default)]
struct Stanza {
    /// The line it begins on; 0: it has not begun.
    line: u64,
    field: Field,
    filename: Option<String>,
    directory: Option<String>,
    /// Of the package.
    expectation: Expectation,
    /// Of the source.
    files: Vec<(String, Expectation)>,
}

impl Stanza {
    fn take(&mut self, number: u64, line: &[u8]) -> Result<(), String> {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return match self.field {
                Field::Files(algorithm) => self.file(algorithm, utf8(line)?),
                Field::Other => Ok(()),
                Field::None => Err("continues no field".to_owned()),
            };
        }
        if self.line == 0 {
            self.line = number;
        }
        let colon =
            line.iter().position(|&byte| byte == b':').ok_or("is neither a field nor the rest of one")?;
        let (name, value) = line.split_at_checked(colon).ok_or("is no field")?;
        let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii();
        self.field = Field::Other;
        let is = |field: &str| name.eq_ignore_ascii_case(field.as_bytes());
        // Few fields matter, and their first letters tell most others apart.
        match name.first().map(u8::to_ascii_lowercase) {
            Some(b'f') if is("Filename") => once(&mut self.filename, value)?,
            Some(b'f') if is("Files") => self.field = Field::Files(Algorithm::Md5),
            Some(b'd') if is("Directory") => once(&mut self.directory, value)?,
            Some(b'c') if is("Checksums-Sha1") => self.field = Field::Files(Algorithm::Sha1),
            Some(b'c') if is("Checksums-Sha256") => self.field = Field::Files(Algorithm::Sha256),
            Some(b'c') if is("Checksums-Sha512") => self.field = Field::Files(Algorithm::Sha512),
            Some(b's') if is("Size") => {
                self.say(Expectation::default().of_length(text::length(utf8(value)?)?))?
            }
            Some(b's') if is("SHA256") => self.say(text::digest(Algorithm::Sha256, utf8(value)?)?)?,
            Some(b's') if is("SHA512") => self.say(text::digest(Algorithm::Sha512, utf8(value)?)?)?,
            Some(b's') if is("SHA1") => self.say(text::digest(Algorithm::Sha1, utf8(value)?)?)?,
            Some(b'm') if is("MD5sum") => self.say(text::digest(Algorithm::Md5, utf8(value)?)?)?,
            _ => {}
        }
        Ok(())
    }

    fn say(&mut self, more: Expectation) -> Result<(), String> {
        merge(&mut self.expectation, more)
    }

    /// `HEX SIZE NAME` of a source's list.
    fn file(&mut self, algorithm: Algorithm, line: &str) -> Result<(), String> {
        let mut words = line.split_ascii_whitespace();
        let (Some(hex), Some(size), Some(name), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err("is not a digest, a size and a name".to_owned());
        };
        let expectation = text::digest(algorithm, hex)?.of_length(text::length(size)?);
        if let Some((_, known)) = self.files.iter_mut().find(|(known, _)| known == name) {
            return merge(known, expectation);
        }
        if self.files.len() >= SOURCE_FILES {
            return Err(format!("one source has more than {SOURCE_FILES} files"));
        }
        self.files.push((name.to_owned(), expectation));
        Ok(())
    }

    /// Lists what the stanza names.
    fn finish(self, base: &Base<'_>, listing: &mut Listing) -> Result<(), CatalogueError> {
        let refuse = |reason: String| CatalogueError::at(self.line, reason);
        let mut add = |name: &str, expectation| {
            let name = name.strip_prefix("./").unwrap_or(name);
            let path = names::below(base.of(name), name)?;
            let name = path.clone();
            listing.add(&name, Listed { path: path.into(), expectation, kind: Kind::File, optional: false })
        };
        match (self.filename, self.directory) {
            (Some(name), None) => add(&name, self.expectation).map_err(refuse),
            (None, Some(folder)) => self.files.into_iter().try_for_each(|(name, expectation)| {
                let name = if matches!(&*folder, "" | ".") { name } else { format!("{folder}/{name}") };
                add(&name, expectation).map_err(refuse)
            }),
            (None, None) if self.line == 0 => Ok(()),
            (None, None) => Err(refuse("the stanza names no file".to_owned())),
            (Some(_), Some(_)) => Err(refuse("the stanza is a package and a source".to_owned())),
        }
    }
}

fn merge(known: &mut Expectation, more: Expectation) -> Result<(), String> {
    if known.contradicts(&more) {
        return Err("a size or digest is given twice".to_owned());
    }
    *known = std::mem::take(known).and(more);
    Ok(())
}

fn once(field: &mut Option<String>, value: &[u8]) -> Result<(), String> {
    let before = field.replace(utf8(value)?.to_owned());
    if before.is_some() { Err("the field is given twice".to_owned()) } else { Ok(()) }
}

fn utf8(text: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(text).map_err(|_| "is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::digest::Digest;

    fn parse(archive: &str, body: impl AsRef<[u8]>) -> Result<Listing, CatalogueError> {
        let mut listing = Listing::default();
        read(&Base { archive, flat: false }, body.as_ref(), &mut listing).map(|()| listing)
    }

    #[test]
    fn packages_are_listed_with_what_is_known() {
        let sha256 = Digest::of(b"1");
        let body = format!(
            "Package: g++\nVersion: 4:12\nDescription: a\n compiler: with text\n .\nFilename: pool/main/g/g++_12.deb\nSize: 7\n\
             SHA256: {sha256}\nMD5sum: {}\n\n\nPackage: b\nFILENAME: ./b 1.deb\nSize: 8\nMaintainer: M\u{fffd}\n",
            "0f".repeat(16)
        );
        let body = body.replace('\u{fffd}', "@").into_bytes();
        let body: Vec<u8> = body.into_iter().map(|byte| if byte == b'@' { 0xfc } else { byte }).collect();
        let listing = parse("debian/", body).unwrap();
        let mut expected = Expectation::exactly(7, sha256);
        expected.md5 = Some([15; 16]);
        let package = listing.find("debian/pool/main/g/g++_12.deb").unwrap();
        assert_eq!((package.kind, &package.expectation), (Kind::File, &expected));
        let sized = Expectation::default().of_length(8);
        assert_eq!(listing.find("debian/b%201.deb").unwrap().expectation, sized);
    }

    #[test]
    fn sources_are_listed_file_by_file() {
        let sha256 = Digest::of(b"1");
        let body = format!(
            "Package: hello\r\nFiles:\r\n {} 7 hello_1.dsc\r\nChecksums-Sha256:\r\n {sha256} 7 hello_1.dsc\r\n {sha256} 7 \
             hello_1.tar.xz\r\nDirectory: pool/main/h/hello\r\n\r\nPackage: flat\r\nDirectory: .\r\nFiles: \r\n {} 1 f.dsc",
            "0f".repeat(16),
            "0f".repeat(16)
        );
        let listing = parse("", body).unwrap();
        let mut expected = Expectation::exactly(7, sha256);
        assert_eq!(listing.find("pool/main/h/hello/hello_1.tar.xz").unwrap().expectation, expected);
        expected.md5 = Some([15; 16]);
        assert_eq!(listing.find("pool/main/h/hello/hello_1.dsc").unwrap().expectation, expected);
        assert_eq!(listing.find("f.dsc").unwrap().expectation.md5, Some([15; 16]));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_line() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let many: String = (0..=SOURCE_FILES).map(|at| format!("\n {} 1 f{at}", "0f".repeat(16))).collect();
        for (body, line) in [
            ("<html>".to_owned(), 1),
            (" x".to_owned(), 1),
            ("\n\nPackage: x\n".to_owned(), 3),
            ("A: x\nFilename: ../x".to_owned(), 1),
            ("\nFilename: pool/../../x\n\n".to_owned(), 2),
            ("Filename: /x".to_owned(), 1),
            ("Filename: x\nFilename: x".to_owned(), 2),
            ("Filename: x\nSize: 1\nSize: 2".to_owned(), 3),
            ("Filename: x\nSize: 9999999999999".to_owned(), 2),
            ("Filename: x\nSHA1: 12".to_owned(), 2),
            (format!("Filename: x\nSHA256: {one}\nSHA256: {two}"), 3),
            (format!("Filename: x\nSHA256: {one}\n\nFilename: x\nSHA256: {two}"), 4),
            ("Filename: x\0".to_owned(), 1),
            ("Filename: x\nDirectory: y".to_owned(), 1),
            ("Directory: y\nFiles:\n 00 1 x".to_owned(), 3),
            (format!("Directory: y\nFiles:\n {} 1 ../x", "0f".repeat(16)), 1),
            (format!("Directory: y\nFiles:{many}"), SOURCE_FILES as u64 + 3),
            (format!("Directory: y\nChecksums-Sha256:\n {one} 1 x\n {two} 1 x"), 4),
        ] {
            assert_eq!(parse("", &body).map_err(|error| error.line).err(), Some(line), "{body}");
        }
        assert_eq!(parse("", b"A: x\nFilename: \xff").unwrap_err().line, 2);
    }

    #[test]
    fn an_index_that_cannot_be_unpacked_here_promises_nothing() {
        assert!(parse("", b"BZh91AY&SY").unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn an_index_is_what_was_written(
            model in prop::collection::btree_map("pool/[a-z+~]{1,4}_[0-9:]{1,3}\\.deb",
                (0..1_u64 << 40, any::<[u8; 32]>(), any::<Option<[u8; 64]>>(), any::<bool>()), 0..20),
        ) {
            let mut body = String::new();
            for (name, (size, sha256, sha512, reversed)) in &model {
                let sha512 = Expectation { sha512: sha512.map(Box::new), ..Expectation::default() };
                let sha512 = sha512.hex(Algorithm::Sha512).map_or(String::new(), |hex| format!("SHA512: {hex}\n"));
                let mut lines = [format!("Filename: {name}\n"), format!("Size: {size}\n"),
                    format!("SHA256:{}\n{sha512}", Digest(*sha256)), "X-More: a: b\n continued\n".to_owned()];
                if *reversed {
                    lines.reverse();
                }
                body += &format!("{}\n", lines.concat());
            }
            let listing = parse("", body).unwrap();
            prop_assert_eq!(listing.len(), model.len());
            for (name, (size, sha256, sha512, _)) in model {
                let mut expected = Expectation::exactly(size, Digest(sha256));
                expected.sha512 = sha512.map(Box::new);
                prop_assert_eq!(&listing.find(&name).unwrap().expectation, &expected);
            }
        }
    }
}
