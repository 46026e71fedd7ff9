//! The pointer files of DAT updates: `avvdat.ini` names the whole one with size and MD5, `gdeltaavv.ini` the
//! increments.

use super::super::{names, text};
use super::{Epo, kind_of};
use crate::repository::expectation::{Algorithm, Expectation};
use crate::repository::listing::{CatalogueError, Kind, Listing};

/// Adds the zip that `[AVV-ZIP]` of an `avvdat.ini` in `folder` names. The zip lies beside it; other sections are for
/// products that fetch something else.
pub(super) fn read_full(
    epo: &Epo,
    folder: &str,
    body: &[u8],
    listing: &mut Listing,
) -> Result<(), CatalogueError> {
    let mut ours = false;
    let mut name = None;
    let mut expectation = Expectation::default();
    each_pair(body, |line, section, key, value| {
        if let Some(section) = section {
            ours = section.eq_ignore_ascii_case("AVV-ZIP");
        } else if !ours || value.is_empty() {
        } else if key.eq_ignore_ascii_case("FileName") {
            if name.replace((line.number, value)).is_some_and(|(_, before)| before != value) {
                return Err("FileName is given twice".to_owned());
            }
        } else if key.eq_ignore_ascii_case("FileSize") {
            return say(&mut expectation, Expectation::default().of_length(text::length(value)?));
        } else if key.eq_ignore_ascii_case("MD5") {
            return say(&mut expectation, text::digest(Algorithm::Md5, value)?);
        }
        Ok(())
    })?;
    let Some((line, name)) = name else { return Ok(()) };
    let added = names::below(folder, name).and_then(|path| epo.add(listing, path, expectation, true));
    added.map_err(|reason| CatalogueError::at(line, reason))
}

/// `DATVersion` of `[AVV-ZIP]`; `None`: it has none, or says two.
pub(super) fn dat_version(body: &[u8]) -> Option<u64> {
    let mut ours = false;
    let mut version = None;
    let read = each_pair(body, |_, section, key, value| {
        if let Some(section) = section {
            ours = section.eq_ignore_ascii_case("AVV-ZIP");
        } else if ours && key.eq_ignore_ascii_case("DATVersion") {
            let number = text::number(value);
            if version.replace(number).is_some_and(|before| before != number) {
                return Err("the DAT version is given twice".to_owned());
            }
        }
        Ok(())
    });
    read.ok().and(version).flatten()
}

fn say(expectation: &mut Expectation, more: Expectation) -> Result<(), String> {
    if expectation.contradicts(&more) {
        return Err("size or MD5 is given twice".to_owned());
    }
    *expectation = std::mem::take(expectation).and(more);
    Ok(())
}

/// Adds the increments that a `gdeltaavv.ini` in `folder` names: whatever its keys are called, a value that ends like
/// an increment is one. They may be gone: a publisher keeps the file longer than what it names.
pub(super) fn read_deltas(
    epo: &Epo,
    folder: &str,
    body: &[u8],
    listing: &mut Listing,
) -> Result<(), CatalogueError> {
    each_pair(body, |_, _, _, value| {
        if kind_of(value) != Kind::Delta {
            return Ok(());
        }
        let path = names::below(folder, value)?;
        epo.add(listing, path, Expectation::default(), true)
    })
}

/// Calls `take` with each section, and with each key and value.
fn each_pair<'a>(
    body: &'a [u8],
    mut take: impl FnMut(&text::Line<'a>, Option<&'a str>, &'a str, &'a str) -> Result<(), String>,
) -> Result<(), CatalogueError> {
    let mut began = false;
    for line in text::lines(body) {
        let line = line?;
        let section = text::section(line.text);
        began |= section.is_some();
        let pair = text::key_and_value(line.text);
        if section.is_some() || pair.is_some() {
            let (key, value) = pair.filter(|_| section.is_none()).unwrap_or_default();
            take(&line, section, key, value).map_err(|reason| line.refuse(reason))?;
        } else if !began && !line.text.trim().is_empty() && !line.text.starts_with(';') {
            return Err(line.refuse("is not a pointer file: there is text before the first section"));
        }
    }
    if began { Ok(()) } else { Err(CatalogueError::whole("is not a pointer file: it has no section")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Reader = fn(&Epo, &str, &[u8], &mut Listing) -> Result<(), CatalogueError>;

    fn parse(reader: Reader, body: &str) -> Result<Listing, CatalogueError> {
        let mut listing = Listing::default();
        reader(&Epo, "D/", body.as_bytes(), &mut listing).map(|()| listing)
    }

    const AVVDAT: &str = "[AVV-TAR]\r\nFileName=avvdat-11230.tar\r\nFileSize=9\r\n[AVV-ZIP]\r\nEngineVersion=\r\n\
        DATVersion=11230\r\nFileName=avvdat-11230.zip\r\nFilePath=\\\r\nFileSize=1234\r\n\
        MD5=900150983CD24FB0D6963F7D28E17F72\r\n";

    #[test]
    fn the_whole_update_is_named_with_size_and_digest() {
        let listing = parse(read_full, AVVDAT).unwrap();
        assert_eq!(listing.len(), 1);
        let listed = listing.find("d/avvdat-11230.zip").unwrap();
        assert_eq!((&*listed.path, listed.kind, listed.optional), ("D/avvdat-11230.zip", Kind::File, true));
        let md5 = Expectation::digest(Algorithm::Md5, "900150983cd24fb0d6963f7d28e17f72").unwrap();
        assert_eq!(listed.expectation, md5.of_length(1234));
        assert!(parse(read_full, "[AVV-ZIP]\nDATVersion=1\n").unwrap().is_empty());
    }

    #[test]
    fn the_version_is_the_one_of_the_zip() {
        assert_eq!(dat_version(AVVDAT.as_bytes()), Some(11_230));
        assert_eq!(dat_version(b"[AVV-TAR]\nDATVersion=1\n"), None);
        assert_eq!(dat_version(b"[AVV-ZIP]\nDATVersion=1\nDATVersion=2\n"), None);
        assert_eq!(dat_version(b"[AVV-ZIP]\nDATVersion=x\n"), None);
    }

    #[test]
    fn increments_are_found_by_their_names() {
        let body = "[Contents]\r\nA=1\r\nB=2\r\nCurrentVersion=11230\r\n\r\n[Incremental1]\r\nFile=1122911230.GEM\r\n\
                    Size=5\r\n[Incremental2]\r\nFileName=a.upd\r\n";
        let listing = parse(read_deltas, body).unwrap();
        assert_eq!(listing.len(), 2);
        let listed = listing.find("d/1122911230.gem").unwrap();
        assert_eq!((listed.kind, listed.optional), (Kind::Delta, true));
    }

    #[test]
    fn a_pointer_to_nowhere_is_refused_with_its_line() {
        for (reader, body, line) in [
            (read_full as Reader, "<html>\n", 1),
            (read_full, "", 0),
            (read_full, "[AVV-ZIP]\nFileName=../x.zip\n", 2),
            (read_full, "[AVV-ZIP]\nFileName=a\nFileName=b\n", 3),
            (read_full, "[AVV-ZIP]\nFileSize=1\nFileSize=2\n", 3),
            (read_full, "[AVV-ZIP]\nMD5=xyz\n", 2),
            (read_full, "[AVV-ZIP]\nFileSize=99999999999999\n", 2),
            (read_deltas, "[A]\nB=1\nC=..\\x.gem\n", 3),
            (read_deltas, "[A]\n\nC=/x.gem\n", 3),
        ] {
            assert_eq!(parse(reader, body).map_err(|error| error.line).err(), Some(line), "{body:?}");
        }
    }
}
