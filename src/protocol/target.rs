//! The canonical target: one spelling for each path, or a refusal.
//!
//! A key is only as safe as the spelling it is made from. What RFC 3986 §6.2.2 calls equivalent (`%41` and
//! `A`, `%c3` and `%C3`) becomes one; whatever two servers could read differently (dot segments, encoded
//! slashes, double encoding, backslashes) is refused, never "fixed". [`CanonicalTarget`] is the proof:
//! only [`parse_target`] makes one.

use std::borrow::Cow;

use http::Uri;

use crate::base::limits::TARGET_BYTES;

/// A path in its one spelling, with the query as it came. Borrows from the request where that already was
/// canonical, which is the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalTarget<'a> {
    path: Cow<'a, str>,
    query: Option<&'a str>,
}

impl<'a> CanonicalTarget<'a> {
    /// The path: starts with `/`, ASCII only, no empty and no dot segments, escapes in upper case.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query without its `?`, unchanged; `Some("")` for a bare `?`. Well-formed escapes, no controls.
    pub const fn query(&self) -> Option<&'a str> {
        self.query
    }
}

/// Why a target is refused. All are the client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TargetError {
    /// Path and query are longer than `limits::TARGET_BYTES`.
    #[error("the target is too long")]
    TooLong,
    /// It does not start with `/`: the asterisk and authority forms of RFC 9112 §3.2.
    #[error("the target is not a path")]
    NotAPath,
    /// `//`, which some servers collapse and some do not.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// `.` or `..`, spelled out or encoded.
    #[error("the path has a dot segment")]
    DotSegment,
    /// `%2F`.
    #[error("the path has an encoded slash")]
    EncodedSlash,
    /// `\` or `%5C`, a separator to some file systems.
    #[error("the target has a backslash")]
    Backslash,
    /// A control character, raw or encoded, NUL among them.
    #[error("the target has a control character")]
    Control,
    /// A byte that may only stand in a target encoded.
    #[error("the target has characters that must be percent-encoded")]
    Raw,
    /// `%` without two hexadecimal digits.
    #[error("the target has a broken percent-escape")]
    BadEscape,
    /// Decodes to something that reads as an escape again.
    #[error("the path is percent-encoded twice")]
    DoubleEncoding,
    /// The decoded path is not UTF-8; overlong forms are this.
    #[error("the path is not UTF-8")]
    NotUtf8,
}

impl TargetError {
    /// The word of this refusal in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "target-too-long",
            Self::NotAPath => "target-not-a-path",
            Self::EmptySegment => "target-empty-segment",
            Self::DotSegment => "target-dot-segment",
            Self::EncodedSlash => "target-encoded-slash",
            Self::Backslash => "target-backslash",
            Self::Control => "target-control",
            Self::Raw => "target-raw-character",
            Self::BadEscape => "target-bad-escape",
            Self::DoubleEncoding => "target-double-encoding",
            Self::NotUtf8 => "target-not-utf8",
        }
    }
}

/// Checks and canonicalises the target of a request. No allocation where the path is canonical and has no
/// escapes.
///
/// # Errors
/// [`TargetError`]: refuse the request (414 for [`TargetError::TooLong`], else 400) and close.
pub fn parse_target(uri: &Uri) -> Result<CanonicalTarget<'_>, TargetError> {
    let (path, query) = (uri.path(), uri.query());
    if path.len() + query.map_or(0, |query| query.len() + 1) > TARGET_BYTES {
        return Err(TargetError::TooLong);
    }
    if !path.starts_with('/') {
        return Err(TargetError::NotAPath);
    }
    if let Some(query) = query {
        check_query(query.as_bytes())?;
    }
    let path = if scan(path)? {
        Cow::Borrowed(path)
    } else {
        let canonical = respell(path.as_bytes())?;
        // Dots may have been escaped.
        scan(&canonical)?;
        if canonical == path { Cow::Borrowed(path) } else { Cow::Owned(canonical) }
    };
    Ok(CanonicalTarget { path, query })
}

/// The text a canonical path stands for, escapes decoded: names of files and folders between slashes.
/// A canonical path has no encoded slash, so splitting before or after decoding is the same.
pub fn decode_path(path: &str) -> String {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'%', [high, low, after @ ..]) => {
                out.push(unescape(*high, *low).unwrap_or(byte));
                rest = after;
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// The canonical path of a file that a catalogue names: plain text, relative, with `/` between folders. The inverse
/// of [`decode_path`].
///
/// # Errors
/// [`TargetError`]: the name is empty, is no file below where it is counted from, or could be read in two ways.
pub fn path_of_name(name: &str) -> Result<String, TargetError> {
    let mut path = String::with_capacity(name.len() + 8);
    path.push('/');
    for &byte in name.as_bytes() {
        match byte {
            b'\\' => return Err(TargetError::Backslash),
            0..=31 | 127 => return Err(TargetError::Control),
            b'/' => path.push('/'),
            _ if stands_raw(byte) => path.push(char::from(byte)),
            _ => {
                path.push('%');
                escape_into(&mut path, byte);
            }
        }
    }
    if path.len() > TARGET_BYTES {
        return Err(TargetError::TooLong);
    }
    if path.ends_with('/') {
        return Err(TargetError::EmptySegment);
    }
    scan(&path)?;
    path.remove(0);
    Ok(path)
}

/// Whether `path`, without a leading slash, is the canonical path of a file.
pub fn is_canonical_below(path: &str) -> bool {
    path_of_name(&decode_path(path)).is_ok_and(|canonical| canonical == path)
}

/// `unreserved` of RFC 3986 §2.3: the same with and without escape.
const fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// `pchar` of RFC 3986 §3.3 without escapes. Reserved ones stay as the client wrote them: `;` and `%3B` are
/// not the same to every server.
const fn stands_raw(byte: u8) -> bool {
    unreserved(byte)
        || matches!(
            byte,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@'
        )
}

fn unescape(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

fn escape_into(out: &mut String, byte: u8) {
    for nibble in [byte >> 4, byte & 15] {
        let digit = char::from_digit(u32::from(nibble), 16).unwrap_or('0');
        out.push(digit.to_ascii_uppercase());
    }
}

/// Checks the segments of a path and says whether it is canonical as it stands: no escapes and nothing that
/// needs one. One pass, because every request takes it.
fn scan(path: &str) -> Result<bool, TargetError> {
    let (mut bytes, mut dots, mut plain) = (0_usize, 0_usize, true);
    let is_dots = |bytes: usize, dots: usize| bytes == dots && matches!(bytes, 1 | 2);
    for &byte in path.as_bytes().iter().skip(1) {
        if byte == b'/' {
            if bytes == 0 {
                return Err(TargetError::EmptySegment);
            }
            if is_dots(bytes, dots) {
                return Err(TargetError::DotSegment);
            }
            (bytes, dots) = (0, 0);
        } else {
            bytes += 1;
            dots += usize::from(byte == b'.');
            plain &= RAW.get(usize::from(byte)).is_some_and(|&raw| raw);
        }
    }
    if is_dots(bytes, dots) { Err(TargetError::DotSegment) } else { Ok(plain) }
}

/// [`stands_raw`] as a table.
#[expect(clippy::indexing_slicing, reason = "runs while compiling, where a wrong index is an error")]
static RAW: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = stands_raw(byte);
        byte += 1;
    }
    table
};

/// The path with its escapes normalised, and refused where decoding it would be ambiguous.
fn respell(path: &[u8]) -> Result<String, TargetError> {
    let mut out = String::with_capacity(path.len() + 16);
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'/' || stands_raw(byte) {
            out.push(char::from(byte));
            decoded.push(byte);
            continue;
        }
        let (value, escaped) = match (byte, tail) {
            (b'%', [high, low, after @ ..]) => {
                rest = after;
                (unescape(*high, *low).ok_or(TargetError::BadEscape)?, true)
            }
            (b'%', _) => return Err(TargetError::BadEscape),
            _ => (byte, false),
        };
        check_decoded(value, escaped)?;
        if unreserved(value) {
            out.push(char::from(value));
        } else {
            // Raw braces and the like mean the same to everybody; they only get their proper spelling.
            out.push('%');
            escape_into(&mut out, value);
        }
        decoded.push(value);
    }
    let text = std::str::from_utf8(&decoded).map_err(|_| TargetError::NotUtf8)?;
    if text.chars().any(char::is_control) {
        return Err(TargetError::Control);
    }
    let twice = |w: &[u8; 3]| w[0] == b'%' && unescape(w[1], w[2]).is_some();
    if decoded.array_windows::<3>().any(twice) {
        return Err(TargetError::DoubleEncoding);
    }
    Ok(out)
}

const fn check_decoded(value: u8, escaped: bool) -> Result<(), TargetError> {
    match value {
        b'/' if escaped => Err(TargetError::EncodedSlash),
        b'\\' => Err(TargetError::Backslash),
        0..=0x1f | 0x7f => Err(TargetError::Control),
        b' ' | 0x80.. if !escaped => Err(TargetError::Raw),
        _ => Ok(()),
    }
}

fn check_query(query: &[u8]) -> Result<(), TargetError> {
    let mut rest = query;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let value = match (byte, tail) {
            (b'%', [high, low, after @ ..]) => {
                rest = after;
                unescape(*high, *low).ok_or(TargetError::BadEscape)?
            }
            (b'%', _) => return Err(TargetError::BadEscape),
            (b'\\', _) => return Err(TargetError::Backslash),
            (b' ' | 0x80.., _) => return Err(TargetError::Raw),
            _ => byte,
        };
        if value.is_ascii_control() {
            return Err(TargetError::Control);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<(String, Option<String>), TargetError> {
        let uri: Uri = text.parse().unwrap();
        let target = parse_target(&uri)?;
        Ok((target.path().to_owned(), target.query().map(str::to_owned)))
    }

    fn path(text: &str) -> Result<String, TargetError> {
        parse(text).map(|(path, _)| path)
    }

    #[test]
    fn a_canonical_path_is_borrowed() {
        for text in
            ["/", "/Software/Current/avvdat.ini", "/a/", "/libstdc++6_14-2_amd64.deb", "/a%20b", "/.x/..x"]
        {
            let uri: Uri = text.parse().unwrap();
            let target = parse_target(&uri).unwrap();
            assert!(matches!(target.path, Cow::Borrowed(path) if path == text), "{text}");
        }
    }

    #[test]
    fn equivalent_spellings_become_one() {
        assert_eq!(path("/%41%7e%2dz"), Ok("/A~-z".into()));
        assert_eq!(path("/%c3%a4%2b"), Ok("/%C3%A4%2B".into()));
        assert_eq!(path("/{a}|b"), Ok("/%7Ba%7D%7Cb".into()));
        assert_eq!(path("/100%25"), Ok("/100%25".into()));
        assert_eq!(path("http://master.example"), Ok("/".into()));
    }

    #[test]
    fn reserved_characters_stay_as_they_were_written() {
        assert_eq!(path("/a;b=c+d"), Ok("/a;b=c+d".into()));
        assert_eq!(path("/a%3bb%3dc%2bd"), Ok("/a%3Bb%3Dc%2Bd".into()));
    }

    #[test]
    fn what_two_servers_could_read_differently_is_refused() {
        for (text, error) in [
            ("/a/../../x", TargetError::DotSegment),
            ("/a/./b", TargetError::DotSegment),
            ("/..", TargetError::DotSegment),
            ("/%2e%2e/x", TargetError::DotSegment),
            ("/.%2E/x", TargetError::DotSegment),
            ("/a//b", TargetError::EmptySegment),
            ("//host/x", TargetError::EmptySegment),
            ("/a//", TargetError::EmptySegment),
            ("/%2e%2e%2f", TargetError::EncodedSlash),
            ("/a%2fb", TargetError::EncodedSlash),
            ("/a%5cb", TargetError::Backslash),
            ("/a%00", TargetError::Control),
            ("/a%0d%0ab", TargetError::Control),
            ("/a%7f", TargetError::Control),
            ("/a%c2%85", TargetError::Control),
            ("/%252e%252e/x", TargetError::DoubleEncoding),
            ("/%25%32e", TargetError::DoubleEncoding),
            ("/%c0%ae", TargetError::NotUtf8),
            ("/%ed%a0%80", TargetError::NotUtf8),
            ("/%ff", TargetError::NotUtf8),
            ("/%zz", TargetError::BadEscape),
            ("/a%4", TargetError::BadEscape),
            ("/a%", TargetError::BadEscape),
            ("/ä", TargetError::Raw),
            ("/x?a=%zz", TargetError::BadEscape),
            ("/x?a=%0a", TargetError::Control),
            ("/x?ä", TargetError::Raw),
            ("*", TargetError::NotAPath),
            ("evil:443", TargetError::NotAPath),
        ] {
            assert_eq!(path(text), Err(error), "{text}");
        }
        let uri = Uri::builder().path_and_query("/a\\b").build();
        assert!(uri.is_err() || parse_target(&uri.unwrap()) == Err(TargetError::Backslash));
    }

    #[test]
    fn a_target_has_a_longest_length() {
        let fits = format!("/{}", "a".repeat(TARGET_BYTES - 1));
        assert!(path(&fits).is_ok());
        assert_eq!(path(&format!("{fits}a")), Err(TargetError::TooLong));
        assert_eq!(path(&format!("{fits}?")), Err(TargetError::TooLong));
    }

    #[test]
    fn the_query_is_kept_as_it_came() {
        assert_eq!(parse("/a?b=%2f&c"), Ok(("/a".into(), Some("b=%2f&c".into()))));
        assert_eq!(parse("/a?"), Ok(("/a".into(), Some(String::new()))));
    }

    #[test]
    fn decoding_gives_the_name_of_the_file() {
        assert_eq!(decode_path("/a%20b/%C3%A4"), "/a b/ä");
        assert_eq!(decode_path("/100%25"), "/100%");
    }

    /// What an attacker plays with, in any order.
    fn tricky() -> impl Strategy<Value = String> {
        let pieces = prop::sample::select(vec![
            "/", "/", "a", "A", ".", "..", "%2e", "%2E", "%41", "%61", "%25", "%32", "%2b", "+", "%c3%a4",
            "%C3%A4", "%c0", "%20", "{", "%7B", "%7b", ";", "%3b", "%", "5", "c", "~", "%7e", "%00", "%2f",
            "%5c", "?", "=",
        ]);
        prop::collection::vec(pieces, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    proptest! {
        #[test]
        fn canonical_is_canonical_again(text in tricky()) {
            if let Ok(once) = path(&text) {
                prop_assert_eq!(path(&once), Ok(once.clone()));
            }
        }

        #[test]
        fn equal_keys_mean_equal_bytes(one in tricky(), two in tricky()) {
            let raw = |text: &str| decode_path(text.split('?').next().unwrap());
            if let (Ok(a), Ok(b)) = (path(&one), path(&two)) {
                prop_assert_eq!(decode_path(&a), raw(&one));
                if a == b {
                    prop_assert_eq!(raw(&one), raw(&two));
                }
            }
        }

        #[test]
        fn nothing_decodes_out_of_its_folder(text in tricky()) {
            if let Ok(path) = path(&text) {
                let decoded = decode_path(&path);
                prop_assert_eq!(decoded.matches('/').count(), path.matches('/').count());
                prop_assert!(decoded.split('/').all(|segment| segment != "." && segment != ".."));
                prop_assert!(!decoded.contains(['\\', '\0']));
            }
        }
    }
}
