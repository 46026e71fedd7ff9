//! ClamAV's databases: each `NAME.cvd` is a catalogue of its own, with a header that says its version and the MD5 of
//! the rest, and `NAME-N.cdiff` leads from version N-1 to N.

use super::{Preset, immutable, mutable, names, text};
use crate::base::limits::DELTAS;
use crate::repository::expectation::{Algorithm, Expectation};
use crate::repository::listing::{CatalogueError, Listing, Version};
use crate::repository::rules::Rule;

/// A mirror as freshclam asks it.
#[derive(Debug)]
pub struct ClamAv;

/// Bytes of the header that a database begins with.
const HEADER_BYTES: usize = 512;

/// The database and the number of an increment: `daily` and 27001 of `daily-27001.cdiff`.
fn delta(path: &str) -> Option<(&str, u64)> {
    versioned(path.strip_suffix(".cdiff")?)
}

/// `NAME-N`, as publishers write it: no leading zeros.
fn versioned(stem: &str) -> Option<(&str, u64)> {
    let (name, digits) = stem.rsplit_once('-')?;
    let of_a_file = !names::split(name).1.is_empty();
    let plain = of_a_file && (digits == "0" || !digits.starts_with('0'));
    text::number(digits).filter(|_| plain).map(|version| (name, version))
}

impl Preset for ClamAv {
    fn name(&self) -> &'static str {
        "clamav"
    }

    fn rules(&self) -> Vec<Rule> {
        let often = ["*.cvd", "*.cld", "*.cud"].map(mutable);
        let never = ["*.cdiff", "*.sign"].map(immutable);
        often.into_iter().chain(never).collect()
    }

    /// A `.cld` or `.cud` is what a client made of increments: a mirror may have one, but its header speaks of
    /// another file.
    fn root_of(&self, path: &str) -> Option<String> {
        let signed = path.strip_suffix(".sign");
        let path = signed.unwrap_or(path);
        if let Some((name, _)) = delta(path) {
            return Some(format!("{name}.cvd"));
        }
        let stem = path.strip_suffix(".cvd").filter(|stem| !names::split(stem).1.is_empty())?;
        // The signature of a database has the version in its name, the database itself has not.
        let name = signed.and_then(|_| versioned(stem)).map_or(stem, |(name, _)| name);
        Some(format!("{name}.cvd"))
    }

    fn is_catalogue(&self, path: &str) -> bool {
        path.ends_with(".cvd") && self.root_of(path).is_some()
    }

    fn root_bytes(&self) -> Option<u64> {
        u64::try_from(HEADER_BYTES).ok()
    }

    fn read(&self, root: &str, path: &str, body: &[u8], listing: &mut Listing) -> Result<(), CatalogueError> {
        if path != root {
            return Err(CatalogueError::whole("is not a database"));
        }
        let header = read_header(body).map_err(|reason| CatalogueError::at(1, reason))?;
        listing.version = Some(header.version);
        listing.root_md5 = self.root_bytes().map(|from| (from, header.md5));
        Ok(())
    }

    fn is_delta(&self, path: &str) -> bool {
        delta(path).is_some()
    }

    fn next_delta(&self, path: &str) -> Option<String> {
        let (name, number) = delta(path)?;
        Some(format!("{name}-{}.cdiff", number.checked_add(1)?))
    }

    fn version_of_delta(&self, path: &str) -> Option<u64> {
        delta(path).map(|(_, number)| number)
    }

    fn deltas_between(&self, root: &str, from: &Version, to: &Version) -> Vec<String> {
        let Some(name) = root.strip_suffix(".cvd") else { return Vec::new() };
        if to.order.saturating_sub(from.order) > DELTAS {
            return Vec::new();
        }
        let numbers = (from.order..to.order).map(|number| number.saturating_add(1));
        numbers.map(|number| format!("{name}-{number}.cdiff")).collect()
    }

    fn full_of(&self, path: &str) -> Option<String> {
        delta(path).map(|(name, _)| format!("{name}.cvd"))
    }
}

struct Header {
    version: Version,
    md5: [u8; 16],
}

/// Magic, build time, version, signatures, functionality level, MD5, signature, builder, and in newer ones the build
/// time as a number; separated by colons, filled up with blanks.
fn read_header(body: &[u8]) -> Result<Header, String> {
    let header = body.get(..HEADER_BYTES).ok_or("is shorter than a header of 512 bytes")?;
    if !header.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err("the header is not text".to_owned());
    }
    let header = std::str::from_utf8(header).map_err(|_| "the header is not text")?;
    let mut fields = header.trim_end().split(':');
    let mut next = |what: &str| fields.next().ok_or_else(|| format!("the header has no {what}"));
    if next("magic")? != "ClamAV-VDB" {
        return Err("does not begin with `ClamAV-VDB:`".to_owned());
    }
    next("build time")?;
    let version = next("version")?;
    for what in ["number of signatures", "functionality level"] {
        let field = next(what)?;
        text::number(field).ok_or_else(|| format!("the {what} is not a number"))?;
    }
    let md5 = next("MD5")?;
    for what in ["signature", "builder"] {
        next(what)?;
    }
    let order = text::number(version).ok_or("the version is not a number")?;
    let md5 =
        Expectation::digest(Algorithm::Md5, md5).and_then(|it| it.md5).ok_or("the MD5 has not 32 digits")?;
    Ok(Header { version: Version { text: version.to_owned(), order }, md5 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The header of a database that the ClamAV project signed and published for tests.
    const REAL: &[u8] = include_bytes!("../../../tests/fuzz/corpus/cvd_header/test-6");

    fn read(body: &[u8]) -> Result<Listing, CatalogueError> {
        let mut listing = Listing::default();
        ClamAv.read("test.cvd", "test.cvd", body, &mut listing).map(|()| listing)
    }

    const fn version(order: u64) -> Version {
        Version { text: String::new(), order }
    }

    #[test]
    fn a_real_header_is_read() {
        let listing = read(REAL).unwrap();
        assert_eq!(listing.version, Some(Version { text: "6".into(), order: 6 }));
        let md5 =
            Expectation::digest(Algorithm::Md5, "3e249e00076b0b15bb54ced37be880c7").unwrap().md5.unwrap();
        assert_eq!(listing.root_md5, Some((512, md5)));
        assert!(listing.is_empty());
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let real = String::from_utf8(REAL.to_vec()).unwrap();
        for body in [
            String::new(),
            real[..511].to_owned(),
            format!("<!DOCTYPE html>{}", " ".repeat(600)),
            real.replace("VDB:", "VDB;"),
            real.replace(":6:14:", ":-6:14:"),
            real.replace(":6:14:", ":99999999999999999999:14:"),
            real.replace(":6:14:", ":6:x:"),
            real.replace("3e249e", "3e24"),
            real.replace("micasnyd", "m\0\0\0snyd"),
            format!("{:512}", "ClamAV-VDB:x:1:1:1:d41d8cd98f00b204e9800998ecf8427e"),
        ] {
            assert_eq!(read(body.as_bytes()).unwrap_err().line, 1, "{body:?}");
        }
    }

    #[test]
    fn names_tell_databases_and_increments() {
        for (path, root) in [
            ("daily.cvd", Some("daily.cvd")),
            ("a/daily-27001.cdiff", Some("a/daily.cvd")),
            ("daily-27001.cdiff.sign", Some("daily.cvd")),
            ("daily-27001.cvd.sign", Some("daily.cvd")),
            ("test-1.cvd", Some("test-1.cvd")),
            ("daily.cld", None),
            ("daily.cdiff", None),
            ("-1.cdiff", None),
            ("a/-1.cdiff", None),
            (".cvd", None),
            ("a/.cvd", None),
            ("custom.hdb", None),
        ] {
            assert_eq!(ClamAv.root_of(path).as_deref(), root, "{path}");
        }
        assert!(ClamAv.is_catalogue("daily.cvd") && !ClamAv.is_catalogue("daily-1.cvd.sign"));
        assert!(ClamAv.is_delta("daily-1.cdiff") && !ClamAv.is_delta("daily-01.cdiff"));
        assert_eq!(ClamAv.full_of("a/b-c-7.cdiff").unwrap(), "a/b-c.cvd");
        assert_eq!(ClamAv.next_delta("a/b-c-9.cdiff").unwrap(), "a/b-c-10.cdiff");
        assert_eq!(ClamAv.next_delta(&format!("a-{}.cdiff", u64::MAX)), None);
    }

    #[test]
    fn a_chain_leads_from_one_version_to_the_other() {
        let chain = |from, to| ClamAv.deltas_between("a/test.cvd", &version(from), &version(to));
        assert_eq!(chain(4, 6), ["a/test-5.cdiff", "a/test-6.cdiff"]);
        assert_eq!(chain(6, 6), [""; 0]);
        assert_eq!(chain(6, 4), [""; 0]);
        assert_eq!(chain(0, DELTAS).len(), 64);
        assert_eq!(chain(0, u64::MAX), [""; 0]);
        assert_eq!(chain(u64::MAX - 1, u64::MAX).len(), 1);
    }

    proptest! {
        #[test]
        fn a_header_is_what_was_written(order: u64, md5: [u8; 16], time in "[ -9;-~]{0,30}", stime: Option<u32>) {
            let hex = Expectation { md5: Some(md5), ..Expectation::default() }.hex(Algorithm::Md5).unwrap();
            let stime = stime.map_or(String::new(), |stime| format!(":{stime}"));
            let header = format!("ClamAV-VDB:{time}:{order}:1:2:{hex}:sig:me{stime}");
            let listing = read(format!("{header:512}rest").as_bytes()).unwrap();
            prop_assert_eq!(listing.version, Some(Version { text: order.to_string(), order }));
            prop_assert_eq!(listing.root_md5, Some((512, md5)));
        }
    }
}
