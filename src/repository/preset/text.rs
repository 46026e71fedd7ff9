//! Catalogue files as text: lines with their numbers, checked before anybody reads a meaning into them.

use crate::base::limits::{BODY_BYTES, CATALOGUE_BYTES, CATALOGUE_LINE_BYTES};
use crate::repository::expectation::{Algorithm, Expectation};
use crate::repository::listing::{CatalogueError, shown};

/// A line without its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    /// From 1.
    pub(super) number: u64,
    /// UTF-8 without controls except tabs.
    pub(super) text: &'a str,
}

impl Line<'_> {
    /// An error on this line.
    pub(super) fn refuse(&self, reason: impl Into<String>) -> CatalogueError {
        CatalogueError::at(self.number, reason)
    }
}

/// The lines of a body, ended by LF or CRLF; a byte order mark is no part of them.
pub(super) fn lines(body: &[u8]) -> impl Iterator<Item = Result<Line<'_>, CatalogueError>> {
    let too_long = u64::try_from(body.len()).map_or(true, |bytes| bytes > CATALOGUE_BYTES);
    let refused =
        too_long.then(|| Err(CatalogueError::whole(format!("has more than {CATALOGUE_BYTES} bytes"))));
    let body = if too_long { &[][..] } else { without_mark(body) };
    let body = body.strip_suffix(b"\n").unwrap_or(body);
    let lines = (1..).zip(body.split(|&byte| byte == b'\n')).map(|(number, line)| check_line(number, line));
    refused.into_iter().chain(lines)
}

/// A body without the byte order mark that Windows programs begin text with.
pub(super) fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

fn check_line(number: u64, line: &[u8]) -> Result<Line<'_>, CatalogueError> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > CATALOGUE_LINE_BYTES {
        return Err(CatalogueError::at(number, format!("is longer than {CATALOGUE_LINE_BYTES} bytes")));
    }
    let text = std::str::from_utf8(line).map_err(|_| CatalogueError::at(number, "is not UTF-8"))?;
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err(CatalogueError::at(number, "has a control character"));
    }
    Ok(Line { number, text })
}

/// A number in decimal digits.
pub(super) fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// A length that can be believed, or why not.
pub(super) fn length(text: &str) -> Result<u64, String> {
    match number(text) {
        Some(bytes) if bytes <= BODY_BYTES => Ok(bytes),
        Some(_) => Err(format!("no file has {text} bytes")),
        None => Err(format!("`{}` is not a size", shown(text))),
    }
}

/// A digest, or why it is none.
pub(super) fn digest(algorithm: Algorithm, hex: &str) -> Result<Expectation, String> {
    Expectation::digest(algorithm, hex)
        .ok_or_else(|| format!("`{}` is not a {algorithm:?} digest", shown(hex)))
}

/// `key=value` with blanks around either.
pub(super) fn key_and_value(line: &str) -> Option<(&str, &str)> {
    line.split_once('=').map(|(key, value)| (key.trim(), value.trim()))
}

/// The name of an INI section, where the line begins one.
pub(super) fn section(line: &str) -> Option<&str> {
    line.trim().strip_prefix('[')?.strip_suffix(']').map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(body: &[u8]) -> Result<Vec<(u64, &str)>, CatalogueError> {
        lines(body).map(|line| line.map(|line| (line.number, line.text))).collect()
    }

    #[test]
    fn a_line_ends_in_either_way() {
        let expected = vec![(1, "a"), (2, ""), (3, "\tb ")];
        for body in ["a\n\n\tb ", "a\r\n\r\n\tb \r\n", "\u{feff}a\n\n\tb \n"] {
            assert_eq!(all(body.as_bytes()).unwrap(), expected, "{body:?}");
        }
    }

    #[test]
    fn what_is_no_text_is_refused_with_its_line() {
        for body in
            [&b"a\nb\0"[..], b"a\n\xff", b"a\nb\rc", b"a\n\x1b[2J", &[b"a\n", &[b'x'; 300_000][..]].concat()]
        {
            assert_eq!(all(body).unwrap_err().line, 2);
        }
    }

    #[test]
    fn numbers_are_believable_or_refused() {
        assert_eq!(length("0"), Ok(0));
        for text in ["", "-1", "+1", " 1", "1e9", "1099511627777", "99999999999999999999999", "٣"] {
            assert!(length(text).is_err(), "{text}");
        }
    }
}
