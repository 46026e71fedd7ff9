//! `SiteStat.xml`: whether the repository is offered, and with which catalogue.
//!
//! One element with two attributes. No public document has its syntax, so spelling is taken as it comes: case and
//! prefixes do not matter, and an element of that name with text says the same as an attribute. What XML has beyond
//! that (document types, entities, CDATA) is refused, not interpreted.

use super::super::text;
use crate::base::limits::SITE_STAT_BYTES;
use crate::repository::listing::{CatalogueError, Listing, Version, shown};

/// Reads status and version into the listing.
pub(super) fn read(body: &[u8], listing: &mut Listing) -> Result<(), CatalogueError> {
    if body.len() > SITE_STAT_BYTES {
        return Err(CatalogueError::whole(format!("has more than {SITE_STAT_BYTES} bytes")));
    }
    let body = text::without_mark(body);
    text::lines(body).try_for_each(|line| line.map(|_| ()))?;
    let text = std::str::from_utf8(body).map_err(|_| CatalogueError::whole("is not UTF-8"))?;
    let mut found = Found::default();
    let mut scanner = Scanner { rest: text, line: 1 };
    scanner.run(&mut found).map_err(|reason| CatalogueError::at(scanner.line, reason))?;
    let status = found.status.ok_or_else(|| CatalogueError::whole("has no status"))?;
    listing.available = status.eq_ignore_ascii_case("enabled");
    listing.version = found.version;
    Ok(())
}

#[derive(Default)]
struct Found<'a> {
    /// The outermost element was seen, and is what this file is about.
    began: bool,
    status: Option<&'a str>,
    version: Option<Version>,
}

impl<'a> Found<'a> {
    /// Takes what an attribute, or an element with text, says.
    fn take(&mut self, name: &str, value: &'a str) -> Result<(), String> {
        let value = value.trim();
        if value.contains('&') {
            return Err("entities are not read".to_owned());
        }
        if name.eq_ignore_ascii_case("Status") {
            if self.status.is_some_and(|before| !before.eq_ignore_ascii_case(value)) {
                return Err("the status is given twice".to_owned());
            }
            self.status = Some(value);
        } else if name.eq_ignore_ascii_case("CatalogVersion") {
            let order = text::number(value);
            let order =
                order.ok_or_else(|| format!("the catalogue version `{}` is not a number", shown(value)))?;
            if self.version.as_ref().is_some_and(|before| before.order != order) {
                return Err("the catalogue version is given twice".to_owned());
            }
            self.version = Some(Version { text: value.to_owned(), order });
        }
        Ok(())
    }
}

/// What is left to read, and on which line.
struct Scanner<'a> {
    rest: &'a str,
    line: u64,
}

impl<'a> Scanner<'a> {
    fn run(&mut self, found: &mut Found<'a>) -> Result<(), String> {
        let mut element = "";
        loop {
            let Some(text) = self.until("<") else {
                let rest = self.rest.trim();
                return if rest.is_empty() {
                    Ok(())
                } else {
                    Err("has text outside of its elements".to_owned())
                };
            };
            if !text.trim().is_empty() {
                found.take(element, text)?;
            }
            element = "";
            if self.skip("!--") {
                self.until("-->").ok_or("a comment does not end")?;
            } else if self.skip("?") {
                self.until("?>").ok_or("an instruction does not end")?;
            } else if self.rest.starts_with('!') {
                return Err("document types, entities and CDATA are not read".to_owned());
            } else if self.skip("/") {
                self.until(">").ok_or("a tag does not end")?;
            } else {
                element = self.element(found)?;
            }
        }
    }

    /// A start tag with its attributes; gives the name, without prefix.
    fn element(&mut self, found: &mut Found<'a>) -> Result<&'a str, String> {
        let name = self.name()?;
        if !found.began && !name.get(..8).is_some_and(|begin| begin.eq_ignore_ascii_case("SiteStat")) {
            return Err(format!("`{}` is not SiteStatus", shown(name)));
        }
        let outermost = !found.began;
        found.began = true;
        loop {
            self.blanks();
            if self.skip("/>") {
                return Ok("");
            }
            if self.skip(">") {
                return Ok(name);
            }
            let attribute = self.name()?;
            self.blanks();
            if !self.skip("=") {
                return Err(format!("attribute `{}` has no value", shown(attribute)));
            }
            self.blanks();
            let quote =
                ["\"", "'"].into_iter().find(|quote| self.skip(quote)).ok_or("a value has no quotes")?;
            let value = self.until(quote).ok_or("a value does not end")?;
            if outermost {
                found.take(attribute, value)?;
            }
        }
    }

    fn name(&mut self) -> Result<&'a str, String> {
        let of_a_name = |c: char| c.is_alphanumeric() || matches!(c, ':' | '_' | '-' | '.');
        let end = self.rest.find(|c| !of_a_name(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        if name.is_empty() {
            return Err("a tag is malformed".to_owned());
        }
        self.rest = rest;
        Ok(name.rsplit_once(':').map_or(name, |(_, local)| local))
    }

    fn blanks(&mut self) {
        let rest = self.rest.trim_start();
        let blank = self.rest.strip_suffix(rest).unwrap_or("");
        self.count(blank);
        self.rest = rest;
    }

    fn skip(&mut self, what: &str) -> bool {
        let rest = self.rest.strip_prefix(what);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// What stands before `end`, which is passed over as well.
    fn until(&mut self, end: &str) -> Option<&'a str> {
        let (before, rest) = self.rest.split_once(end)?;
        self.count(before);
        self.rest = rest;
        Some(before)
    }

    fn count(&mut self, passed: &str) {
        let ends = passed.bytes().filter(|byte| *byte == b'\n').count();
        self.line = self.line.saturating_add(u64::try_from(ends).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(body: &str) -> Result<(bool, Option<u64>), CatalogueError> {
        let mut listing = Listing::default();
        read(body.as_bytes(), &mut listing)?;
        Ok((listing.available, listing.version.map(|version| version.order)))
    }

    #[test]
    fn the_spelling_does_not_matter() {
        for body in [
            r#"<SiteStatus Status="Enabled" CatalogVersion="20261121070000"/>"#,
            "\u{feff}<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<!-- ePO -->\r\n<ns:SiteStatus\r\n xmlns:ns='naSiteStat' \
             status = 'ENABLED' ns:CATALOGVERSION='20261121070000' More=\"1\"></ns:SiteStatus>\r\n",
            "<SiteStat><Other Status='Idle'/><Status>Enabled</Status><CatalogVersion> 20261121070000\n</CatalogVersion></SiteStat>",
        ] {
            assert_eq!(parse(body), Ok((true, Some(20_261_121_070_000))), "{body}");
        }
    }

    #[test]
    fn anything_but_enabled_is_not_offered() {
        for status in ["Disabled", "", "Replicating", "Enabled?"] {
            assert_eq!(parse(&format!("<SiteStatus Status=\"{status}\"/>")), Ok((false, None)));
        }
    }

    #[test]
    fn what_is_no_site_status_is_refused_with_its_line() {
        for (body, line) in [
            ("", 0),
            ("<SiteStatus CatalogVersion='1'/>", 0),
            ("Please log in", 1),
            ("<!DOCTYPE html>\n<html>", 1),
            ("\n<html status='Enabled'>", 2),
            ("<!-- -->\n<!DOCTYPE x [<!ENTITY e 'x'>]><SiteStatus Status='&e;'/>", 2),
            ("<SiteStatus Status='&#69;nabled'/>", 1),
            ("<SiteStatus\n Status='Enabled'\n Status='Disabled'/>", 3),
            ("<SiteStatus\nStatus='Enabled' CatalogVersion='1.2'/>", 2),
            ("<SiteStatus Status='Enabled' CatalogVersion='99999999999999999999'/>", 1),
            ("<SiteStatus Status=Enabled/>", 1),
            ("<SiteStatus Status/>", 1),
            ("<SiteStatus Status='Enabled", 1),
            ("<SiteStatus Status='Enabled'", 1),
            ("<SiteStatus Status='Enabled'/>\n<", 2),
            ("<SiteStatus Status='Enabled'><![CDATA[x]]></SiteStatus>", 1),
            ("<SiteStatus Status='Enabled'>\0</SiteStatus>", 1),
            ("<SiteStatus Status='Enabled'/> and more", 1),
        ] {
            assert_eq!(parse(body).map_err(|error| error.line), Err(line), "{body:?}");
        }
        let large = format!("<SiteStatus Status='Enabled'/>{}", " ".repeat(SITE_STAT_BYTES));
        assert!(parse(&large).is_err());
    }

    proptest! {
        #[test]
        fn a_status_is_what_was_written(enabled: bool, version: Option<u64>, crlf: bool) {
            let status = if enabled { "Enabled" } else { "Disabled" };
            let written = version.map_or(String::new(), |version| format!("\n  CatalogVersion=\"{version}\""));
            let body = format!("<SiteStatus\n  Status=\"{status}\"{written}\n/>\n");
            let body = if crlf { body.replace('\n', "\r\n") } else { body };
            prop_assert_eq!(parse(&body), Ok((enabled, version)));
        }
    }
}
