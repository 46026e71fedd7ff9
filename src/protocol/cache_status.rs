//! `Cache-Status` (RFC 9211): what this cache did with a request, for people and for tests.

use std::fmt::Write as _;

use http::HeaderValue;

/// Why a request went upstream (RFC 9211 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fwd {
    /// The cache was told not to handle it.
    Bypass,
    /// The method's semantics asked for it.
    Method,
    /// Nothing stored for this URI.
    UriMiss,
    /// Stored, but no variant for this request.
    VaryMiss,
    /// Nothing stored, one of the two above.
    Miss,
    /// Stored and fresh, but the request asked for it (`no-cache`).
    Request,
    /// Stored but stale.
    Stale,
    /// Stored in part.
    Partial,
}

impl Fwd {
    /// Its token on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// One member of the list: what one cache did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus<'a> {
    /// This cache's name: the node's.
    pub node: &'a str,
    /// Served without going upstream. Exclusive with `fwd`.
    pub hit: bool,
    /// Why it went upstream.
    pub fwd: Option<Fwd>,
    /// The upstream's status, where it is not the answer's.
    pub fwd_status: Option<u16>,
    /// Seconds of freshness left, negative once stale.
    pub ttl: Option<i64>,
    /// Whether the reply was stored.
    pub stored: bool,
    /// Whether the request joined another's fetch.
    pub collapsed: bool,
    /// The verdict's reason word.
    pub detail: Option<&'a str>,
}

impl CacheStatus<'_> {
    /// As a field value. One allocation; a few dozen nanoseconds.
    pub fn render(&self) -> HeaderValue {
        let mut out = String::with_capacity(self.node.len() + self.detail.map_or(0, str::len) + 80);
        push_item(&mut out, self.node);
        if self.hit {
            out.push_str("; hit");
        } else if let Some(fwd) = self.fwd {
            out.push_str("; fwd=");
            out.push_str(fwd.as_str());
        }
        // Writing to a String cannot fail.
        if let Some(status) = self.fwd_status {
            let _ = write!(out, "; fwd-status={status}");
        }
        if let Some(ttl) = self.ttl {
            // Integers of structured fields have at most 15 digits (RFC 8941 §3.3.1).
            let _ = write!(out, "; ttl={}", ttl.clamp(-999_999_999_999_999, 999_999_999_999_999));
        }
        if self.stored {
            out.push_str("; stored");
        }
        if self.collapsed {
            out.push_str("; collapsed");
        }
        if let Some(detail) = self.detail {
            out.push_str("; detail=");
            push_item(&mut out, detail);
        }
        HeaderValue::try_from(out).unwrap_or_else(|_| HeaderValue::from_static("waypost"))
    }
}

/// A token where the text is one, else a string (RFC 8941 §3.3.3, §3.3.4); what fits neither is left out.
fn push_item(out: &mut String, text: &str) {
    let mut bytes = text.bytes();
    let is_token = bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'*')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&b));
    if is_token {
        out.push_str(text);
        return;
    }
    out.push('"');
    for character in text.chars().filter(|c| matches!(c, ' '..='~')) {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_says_how_long_it_is_fresh() {
        let status = CacheStatus {
            node: "branch-1",
            hit: true,
            ttl: Some(299),
            detail: Some("hit"),
            ..CacheStatus::default()
        };
        assert_eq!(status.render(), "branch-1; hit; ttl=299; detail=hit");
    }

    #[test]
    fn a_fetch_says_why_and_what_became_of_it() {
        let status = CacheStatus {
            node: "branch-1",
            fwd: Some(Fwd::Stale),
            fwd_status: Some(304),
            ttl: Some(-5),
            stored: true,
            collapsed: true,
            detail: Some("revalidate-expired"),
            ..CacheStatus::default()
        };
        let expected =
            "branch-1; fwd=stale; fwd-status=304; ttl=-5; stored; collapsed; detail=revalidate-expired";
        assert_eq!(status.render(), expected);
    }

    #[test]
    fn names_that_are_no_tokens_are_quoted() {
        let render = |node| CacheStatus { node, ..CacheStatus::default() }.render();
        assert_eq!(render("cache.example:8443"), "cache.example:8443");
        assert_eq!(render("7th \"floor\"\\ä\r\n"), "\"7th \\\"floor\\\"\\\\\"");
        assert_eq!(render(""), "\"\"");
    }

    #[test]
    fn an_endless_ttl_is_still_an_integer_of_the_format() {
        let status = CacheStatus { node: "n", hit: true, ttl: Some(i64::MAX), ..CacheStatus::default() };
        assert_eq!(status.render(), "n; hit; ttl=999999999999999");
    }
}
