//! `InRelease`: the fields of a suite and the digests of its indexes, clearsigned (RFC 9580 §7).

use std::collections::HashMap;

use super::super::names;
use super::super::text::{self, Line};
use super::{BY_HASH, COMPANIONS, kind_of};
use crate::base::limits::LISTED_FILES;
use crate::repository::expectation::{Algorithm, Expectation};
use crate::repository::listing::{CatalogueError, Kind, Listed, Listing, Version};

const BEGIN: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";
const END: &str = "-----END PGP SIGNATURE-----";

/// Adds the indexes that the `InRelease` in `folder` lists.
pub(super) fn read(folder: &str, body: &[u8], listing: &mut Listing) -> Result<(), CatalogueError> {
    let mut release = Release::default();
    each_signed_line(body, |line| release.take(line))?;
    if release.indexes.is_empty() {
        return Err(CatalogueError::whole("lists no file"));
    }
    listing.version = release.date.take();
    for companion in COMPANIONS {
        let path = format!("{folder}{companion}");
        add(listing, path, Expectation::default(), Kind::Companion).map_err(CatalogueError::whole)?;
    }
    for (name, (line, expectation)) in release.indexes {
        let refuse = |reason: String| CatalogueError::at(line, reason);
        let path = names::below(folder, name).map_err(refuse)?;
        let kind = kind_of(&path);
        if release.by_hash {
            let (folder, _) = names::split(&path);
            for (word, algorithm) in BY_HASH {
                if let Some(hex) = expectation.hex(algorithm) {
                    let path = format!("{folder}by-hash/{word}/{hex}");
                    add(listing, path, expectation.clone(), kind).map_err(refuse)?;
                }
            }
        }
        add(listing, path, expectation, kind).map_err(refuse)?;
    }
    Ok(())
}

/// Suites list indexes that they do not offer in every packing: each may be missing.
fn add(listing: &mut Listing, path: String, expectation: Expectation, kind: Kind) -> Result<(), String> {
    let name = path.clone();
    listing.add(&name, Listed { path: path.into(), expectation, kind, optional: true })
}

/// What the fields said so far.
#[derive(Default)]
struct Release<'a> {
    date: Option<Version>,
    by_hash: bool,
    /// The digests that the lines to come are, where they belong to a list of them.
    list: Option<Algorithm>,
    /// A field came before: a line may continue it.
    began: bool,
    /// By name, each with the line that first had it.
    indexes: HashMap<&'a str, (u64, Expectation)>,
}

impl<'a> Release<'a> {
    fn take(&mut self, line: Line<'a>) -> Result<(), String> {
        if line.text.starts_with([' ', '\t']) {
            return match self.list {
                Some(algorithm) => self.index(algorithm, line),
                None if self.began => Ok(()),
                None => Err("continues no field".to_owned()),
            };
        }
        let (field, value) = line.text.split_once(':').ok_or("is neither a field nor the rest of one")?;
        let value = value.trim();
        let is = |name: &str| field.eq_ignore_ascii_case(name);
        self.began = true;
        self.list = match () {
            () if is("SHA256") => Some(Algorithm::Sha256),
            () if is("SHA512") => Some(Algorithm::Sha512),
            () if is("SHA1") => Some(Algorithm::Sha1),
            () if is("MD5Sum") => Some(Algorithm::Md5),
            () => None,
        };
        if is("Date") {
            let order = seconds(value).ok_or_else(|| "the date cannot be read".to_owned())?;
            if self.date.replace(Version { text: value.to_owned(), order }).is_some() {
                return Err("the date is given twice".to_owned());
            }
        } else if is("Acquire-By-Hash") {
            self.by_hash = value.eq_ignore_ascii_case("yes");
        }
        Ok(())
    }

    /// `HEX SIZE NAME`
    fn index(&mut self, algorithm: Algorithm, line: Line<'a>) -> Result<(), String> {
        let mut words = line.text.split_ascii_whitespace();
        let (Some(hex), Some(size), Some(name), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err("is not a digest, a size and a name".to_owned());
        };
        let expectation = text::digest(algorithm, hex)?.of_length(text::length(size)?);
        if self.indexes.len() >= LISTED_FILES {
            return Err(format!("it names more than {LISTED_FILES} files"));
        }
        let (_, known) = self.indexes.entry(name).or_insert_with(|| (line.number, Expectation::default()));
        if known.contradicts(&expectation) {
            return Err("the file is listed twice with different digests or sizes".to_owned());
        }
        *known = std::mem::take(known).and(expectation);
        Ok(())
    }
}

/// Calls `take` with the lines that are signed. What stands outside of them is refused, as apt does: nobody signed it.
fn each_signed_line<'a>(
    body: &'a [u8],
    mut take: impl FnMut(Line<'a>) -> Result<(), String>,
) -> Result<(), CatalogueError> {
    #[derive(PartialEq)]
    enum Part {
        Before,
        Armour,
        Signed,
        Signature,
        After,
    }
    let mut part = Part::Before;
    for line in text::lines(body) {
        let line = line?;
        let end = line.text.trim_end();
        part = match part {
            Part::Before if end == BEGIN => Part::Armour,
            Part::Before => return Err(line.refuse("is not a clearsigned file")),
            Part::Armour if end.is_empty() => Part::Signed,
            Part::Armour => Part::Armour,
            Part::Signed if end == SIGNATURE => Part::Signature,
            Part::Signed => {
                let text = match (line.text.strip_prefix("- "), line.text.starts_with('-')) {
                    (Some(text), _) => text,
                    (None, true) => return Err(line.refuse("begins with a dash that is not escaped")),
                    (None, false) => line.text,
                };
                if !text.trim().is_empty() {
                    take(Line { text, ..line }).map_err(|reason| line.refuse(reason))?;
                }
                Part::Signed
            }
            Part::Signature if end == END => Part::After,
            Part::Signature => Part::Signature,
            Part::After if end.is_empty() => Part::After,
            Part::After => return Err(line.refuse("stands behind the signature")),
        };
    }
    if part == Part::After { Ok(()) } else { Err(CatalogueError::whole("ends before its signature does")) }
}

/// Seconds since 1970 of `Sat, 21 Nov 2026 14:16:17 UTC`, the form of RFC 822 with four digits of year.
fn seconds(date: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let date = date.split_once(',').map_or(date, |(_, rest)| rest);
    let mut words = date.split_ascii_whitespace();
    let mut next = || words.next();
    let (day, month, year, time, zone) = (next()?, next()?, next()?, next()?, next()?);
    let within = |text: &str, range: std::ops::RangeInclusive<u64>| {
        text::number(text).filter(|value| text.len() <= 4 && range.contains(value))
    };
    let day = within(day, 1..=31)?;
    let month = (1_u64..).zip(MONTHS).find(|(_, name)| month.eq_ignore_ascii_case(name)).map(|(at, _)| at)?;
    let year = within(year, 1971..=9999)?;
    let mut parts = time.split(':');
    let (hour, minute) = (within(parts.next()?, 0..=23)?, within(parts.next()?, 0..=59)?);
    let second = parts.next().map_or(Some(0), |text| within(text, 0..=60))?;
    let here = ((days(year, month, day)? * 24 + hour) * 60 + minute) * 60 + second;
    let (west, zone) = match zone {
        "UTC" | "GMT" | "Z" | "UT" => return Some(here),
        zone => zone
            .strip_prefix('-')
            .map(|zone| (true, zone))
            .or(zone.strip_prefix('+').map(|zone| (false, zone)))?,
    };
    let (hours, minutes) = zone.split_at_checked(2).filter(|_| zone.len() == 4)?;
    let offset = (within(hours, 0..=23)? * 60 + within(minutes, 0..=59)?) * 60;
    if west { here.checked_add(offset) } else { here.checked_sub(offset) }
}

/// Days since 1970 of a date of the Gregorian calendar, counted in years that begin in March.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    (year * 365 + year / 4 - year / 100 + year / 400 + of_year).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::digest::Digest;

    fn parse(body: &str) -> Result<Listing, CatalogueError> {
        let mut listing = Listing::default();
        read("dists/stable/", body.as_bytes(), &mut listing).map(|()| listing)
    }

    fn signed(text: &str) -> String {
        format!("{BEGIN}\nHash: SHA512\n\n{text}{SIGNATURE}\n\niQIzBAEB\n=AbCd\n{END}\n")
    }

    fn sample() -> String {
        let (packages, other) = (Digest::of(b"1"), Digest::of(b"2"));
        signed(&format!(
            "Origin: Debian\nDate: Sat, 21 Nov 2026 14:16:17 UTC\nAcquire-By-Hash: yes\nDescription: of\n several lines\n\
             - Note: dash\nMD5Sum:\n {} 7 main/binary-amd64/Packages.xz\nSHA256:\n {packages}        7 \
             main/binary-amd64/Packages.xz\n {other} 0 main/i18n/Translation-de\n",
            "0f".repeat(16)
        ))
    }

    #[test]
    fn a_suite_lists_its_indexes_under_both_names() {
        for body in [sample(), sample().replace('\n', "\r\n")] {
            let listing = parse(&body).unwrap();
            let version = listing.version.clone().unwrap();
            assert_eq!(
                (version.text.as_str(), version.order),
                ("Sat, 21 Nov 2026 14:16:17 UTC", 1_795_270_577)
            );
            let index = listing.find("dists/stable/main/binary-amd64/Packages.xz").unwrap();
            assert_eq!((index.kind, index.optional), (Kind::Index, true));
            let mut expected = Expectation::exactly(7, Digest::of(b"1"));
            expected.md5 = Some([15; 16]);
            assert_eq!(index.expectation, expected);
            for alias in [format!("SHA256/{}", Digest::of(b"1")), format!("MD5Sum/{}", "0f".repeat(16))] {
                let alias = listing.find(&format!("dists/stable/main/binary-amd64/by-hash/{alias}")).unwrap();
                assert_eq!((alias.kind, &alias.expectation), (Kind::Index, &expected));
            }
            let other = listing.find("dists/stable/main/i18n/Translation-de").unwrap();
            assert_eq!(other.kind, Kind::File);
            assert_eq!(listing.find("dists/stable/Release.gpg").unwrap().kind, Kind::Companion);
            assert_eq!(listing.len(), 2 + 3 + 2);
        }
        assert_eq!(parse(&sample().replace("By-Hash: yes", "By-Hash: no")).unwrap().len(), 4);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_line() {
        let digest = Digest::of(b"1");
        let list = |lines: &str| signed(&format!("SHA256:\n {digest} 1 a\n{lines}"));
        for (body, line) in [
            (String::new(), 1),
            ("<html>\n".into(), 1),
            ("Origin: x\n".into(), 1),
            (signed(""), 0),
            (signed("Origin: x\n"), 0),
            (signed(" continued\n"), 4),
            (signed("no field\n"), 4),
            (signed("Date: yesterday\n"), 4),
            (signed("Date: Sat, 21 Nov 2026 14:16:17 UTC\nDate: Sat, 21 Nov 2026 14:16:18 UTC\n"), 5),
            (list(&format!(" {digest} 2 a\n")), 6),
            (list(&format!(" {} 1 a\n", Digest::of(b"2"))), 6),
            (list(&format!(" {digest} 1 ../../x\n")), 6),
            (list(&format!(" {digest} 1 /x\n")), 6),
            (list(&format!(" {digest} -1 x\n")), 6),
            (list(&format!(" {digest} 1099511627777 x\n")), 6),
            (list(&format!(" {digest} 1 x y\n")), 6),
            (list(&format!(" {digest}0 1 x\n")), 6),
            (list("-dash: x\n"), 6),
            (list("MD5Sum:\n 00 1 a\n"), 7),
            (list(&format!(" {digest} 1 x\0\n")), 6),
            (sample().replace(END, ""), 0),
            (format!("{}more", sample()), 20),
            (format!("x\n{}", sample()), 1),
        ] {
            assert_eq!(parse(&body).map_err(|error| error.line).err(), Some(line), "{body}");
        }
    }

    #[test]
    fn dates_become_seconds() {
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sun, 6 Nov 1994 08:49:37 +0000", Some(784_111_777)),
            ("6 nov 1994 09:49:37 +0100", Some(784_111_777)),
            ("Sun, 06 Nov 1994 04:19:37 -0430", Some(784_111_777)),
            ("Thu, 29 Feb 2024 00:00:00 UTC", Some(1_709_164_800)),
            ("Fri, 31 Dec 9999 23:59:59 UTC", Some(253_402_300_799)),
            ("Sun, 06 Nov 94 08:49:37 GMT", None),
            ("Sun, 32 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 24:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37 CEST", None),
            ("Sun, 06 Nov 1994 08:49:37 +01é", None),
            ("Sun, 06 Nov 1994 08:49:37", None),
            ("", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_suite_is_what_was_written(
            model in prop::collection::btree_map("[a-z]{1,4}/(Packages|Sources|Contents-x)(\\.gz|\\.xz)?",
                (0..1_u64 << 40, any::<[u8; 32]>(), any::<Option<[u8; 20]>>()), 1..20),
            by_hash: bool,
        ) {
            let mut body = format!("Acquire-By-Hash: {}\nSHA256:\n", if by_hash { "yes" } else { "no" });
            for (name, (size, sha256, _)) in &model {
                body += &format!(" {} {size:16} {name}\n", Digest(*sha256));
            }
            body += "SHA1:\n";
            for (name, (size, _, sha1)) in &model {
                let hex = Expectation { sha1: *sha1, ..Expectation::default() }.hex(Algorithm::Sha1);
                body += &hex.map_or(String::new(), |hex| format!("\t{hex} {size} {name}\n"));
            }
            let listing = parse(&signed(&body)).unwrap();
            for (name, (size, sha256, sha1)) in &model {
                let mut expected = Expectation::exactly(*size, Digest(*sha256));
                expected.sha1 = *sha1;
                let listed = listing.find(&format!("dists/stable/{name}")).unwrap();
                prop_assert_eq!(&listed.expectation, &expected);
                prop_assert_eq!(listed.kind == Kind::Index, !name.contains("Contents"));
                let folder = name.split_once('/').unwrap().0;
                let alias = format!("dists/stable/{folder}/by-hash/SHA256/{}", Digest(*sha256));
                prop_assert_eq!(listing.find(&alias).is_some(), by_hash);
            }
        }
    }
}
