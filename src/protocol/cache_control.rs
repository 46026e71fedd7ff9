//! `Cache-Control` (RFC 9111 §5.2) of a request or a reply, read once into plain values.
//!
//! Reading is strict where it matters and forgiving where the wire is: names in any case, arguments quoted or
//! not, commas in quotes. Of contradicting values the smallest counts, and a broken one counts as zero:
//! revalidating once too often is never wrong.

use std::time::Duration;

use http::HeaderMap;
use http::header::{CACHE_CONTROL, PRAGMA};

/// The directives this product acts on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheControl {
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache`, with or without field names; `Pragma: no-cache` where there is no `Cache-Control`.
    pub no_cache: bool,
    /// `private`, with or without field names.
    pub private: bool,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `proxy-revalidate`.
    pub proxy_revalidate: bool,
    /// `must-understand`.
    pub must_understand: bool,
    /// `immutable` (RFC 8246).
    pub immutable: bool,
    /// `only-if-cached`.
    pub only_if_cached: bool,
    /// `max-age`.
    pub max_age: Option<Duration>,
    /// `s-maxage`.
    pub s_maxage: Option<Duration>,
    /// `min-fresh`.
    pub min_fresh: Option<Duration>,
    /// `stale-while-revalidate` (RFC 5861).
    pub stale_while_revalidate: Option<Duration>,
    /// `stale-if-error` (RFC 5861).
    pub stale_if_error: Option<Duration>,
}

impl CacheControl {
    /// The directives of a message.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for value in headers.get_all(CACHE_CONTROL) {
            let mut rest = value.as_bytes();
            while !rest.is_empty() {
                let (item, behind) = split_item(rest);
                found.note(item);
                rest = behind;
            }
        }
        if !headers.contains_key(CACHE_CONTROL) {
            let says = |value: &http::HeaderValue| {
                value
                    .as_bytes()
                    .split(|&b| b == b',')
                    .any(|item| item.trim_ascii().eq_ignore_ascii_case(b"no-cache"))
            };
            found.no_cache = headers.get_all(PRAGMA).iter().any(says);
        }
        found
    }

    fn note(&mut self, item: &[u8]) {
        let mut halves = item.splitn(2, |&byte| byte == b'=');
        let name = halves.next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
        let argument = halves.next().map(<[u8]>::trim_ascii);
        match name.as_slice() {
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache = true,
            b"private" => self.private = true,
            b"public" => self.public = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand = true,
            b"immutable" => self.immutable = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"max-age" => smaller(&mut self.max_age, argument),
            b"s-maxage" => smaller(&mut self.s_maxage, argument),
            b"min-fresh" => smaller(&mut self.min_fresh, argument),
            b"stale-while-revalidate" => smaller(&mut self.stale_while_revalidate, argument),
            b"stale-if-error" => smaller(&mut self.stale_if_error, argument),
            _ => {}
        }
    }
}

/// `delta-seconds` (RFC 9111 §1.2.2): digits only, and never more than 2^31, as the RFC asks.
pub(crate) fn parse_seconds(text: &[u8]) -> Option<Duration> {
    const MOST: u64 = 1 << 31;
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = std::str::from_utf8(text).ok()?.parse().unwrap_or(MOST);
    Some(Duration::from_secs(seconds.min(MOST)))
}

fn smaller(slot: &mut Option<Duration>, argument: Option<&[u8]>) {
    let argument = argument.unwrap_or_default();
    let bare = argument.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(argument);
    let value = parse_seconds(bare).unwrap_or(Duration::ZERO);
    *slot = Some(slot.map_or(value, |have| have.min(value)));
}

/// The first element of a list and what follows its comma; commas in quotes do not count.
fn split_item(list: &[u8]) -> (&[u8], &[u8]) {
    let (mut quoted, mut escaped) = (false, false);
    for (at, &byte) in list.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                let (item, behind) = list.split_at_checked(at).unwrap_or((list, &[]));
                return (item, behind.get(1..).unwrap_or_default());
            }
            _ => {}
        }
    }
    (list, &[])
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn read(values: &[&str]) -> CacheControl {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CACHE_CONTROL, HeaderValue::from_str(value).unwrap());
        }
        CacheControl::of(&headers)
    }

    const fn seconds(count: u64) -> Option<Duration> {
        Some(Duration::from_secs(count))
    }

    #[test]
    fn names_come_in_any_case_and_arguments_in_quotes() {
        let found = read(&["Max-Age=60, PUBLIC", "s-maxage=\"30\" , Immutable"]);
        assert!(found.public && found.immutable);
        assert_eq!((found.max_age, found.s_maxage), (seconds(60), seconds(30)));
    }

    #[test]
    fn quotes_hide_what_is_in_them() {
        let found = read(&["x=\"no-store, \\\", private\", max-age=1"]);
        assert!(!found.no_store && !found.private);
        assert_eq!(found.max_age, seconds(1));
        assert!(read(&["no-cache=\"set-cookie, x\""]).no_cache);
    }

    #[test]
    fn what_is_broken_or_contradicting_is_never_fresher() {
        assert_eq!(read(&["max-age=60, max-age=5"]).max_age, seconds(5));
        for text in ["max-age=abc", "max-age=-1", "max-age", "max-age=1.5", "max-age=\"", "max-age=+1"] {
            assert_eq!(read(&[text]).max_age, seconds(0), "{text}");
        }
        assert_eq!(read(&["max-age=99999999999999999999"]).max_age, seconds(1 << 31));
    }

    #[test]
    fn pragma_counts_where_there_is_nothing_better() {
        let mut headers = HeaderMap::new();
        headers.insert(PRAGMA, HeaderValue::from_static("x, No-Cache"));
        assert!(CacheControl::of(&headers).no_cache);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=1"));
        assert!(!CacheControl::of(&headers).no_cache);
    }

    proptest! {
        #[test]
        fn no_field_value_is_a_problem(text in "[ -~]{0,60}") {
            let _ = read(&[&text]);
        }
    }
}
