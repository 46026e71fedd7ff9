//! The gate for upstream replies: what a reply head may say to what was asked, and what it lies about.
//!
//! hyper parses, but lets several contradictions through (`Content-Length` beside `Transfer-Encoding`, equal
//! duplicate lengths, a 206 nobody asked for, a 101). A reply passes here before a byte of its body counts.

use std::time::Duration;

use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, LOCATION, RETRY_AFTER,
    TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, Method, StatusCode, Version};

use crate::base::limits;

/// What was asked of the upstream, as far as it decides which replies make sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// GET or HEAD.
    pub method: Method,
    /// The bytes asked for, half-open: first byte wanted, and the first one not wanted.
    pub range: Option<(u64, Option<u64>)>,
    /// `If-Range` went along, so a 200 is a truthful answer to `range`.
    pub if_range_sent: bool,
    /// A condition (`If-None-Match`, `If-Modified-Since`) went along, so a 304 is a truthful answer.
    pub conditional: bool,
}

/// What a truthful reply is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyKind {
    /// 200: the whole representation, also where a range was asked for.
    Whole {
        /// Its length, if announced.
        length: Option<u64>,
        /// The end of the body can be told from a cut (length, chunked, HTTP/2). Without it the body
        /// is never complete, however it ends.
        framed: bool,
    },
    /// 206: one part, beginning exactly where asked and never reaching beyond what was asked; it may be shorter
    /// (RFC 9110 §15.3.7). Half-open.
    Part {
        /// First byte.
        start: u64,
        /// First byte behind the part.
        end: u64,
        /// Length of the whole representation.
        total: u64,
    },
    /// 304 to a condition.
    NotModified,
    /// 404 or 410.
    Absent(StatusCode),
    /// 301, 302, 303, 307 or 308, with its raw `Location`.
    Redirect(String),
    /// The upstream will not serve this now: 401, 403, 407, 408, 421, 425, 429 or 5xx.
    Busy {
        /// The status.
        status: StatusCode,
        /// How long it asked us to wait, from `Retry-After` (a date counts from the reply's own `Date`).
        retry_after: Option<Duration>,
    },
    /// Any other final status, 416 to a range included: nothing to store, nothing to relay.
    Other(StatusCode),
}

/// What a reply contradicts itself, the request or the protocol in. Each ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Lie {
    /// `Content-Length` beside `Transfer-Encoding` (RFC 9112 §6.3).
    #[error("a length and a transfer encoding at once")]
    LengthAndEncoding,
    /// More than one `Content-Length`, in one field or several, even if equal.
    #[error("more than one length")]
    SeveralLengths,
    /// A `Content-Length` that is not plain digits.
    #[error("a length that is no number")]
    BadLength,
    /// A length over `limits::BODY_BYTES`.
    #[error("a length that nothing has")]
    AbsurdLength,
    /// A transfer encoding other than the one word `chunked`, or with HTTP/1.0.
    #[error("a transfer encoding other than chunked")]
    TransferEncoding,
    /// A content coding, though identity was asked for.
    #[error("a content coding nobody asked for")]
    ContentCoding,
    /// A 206 without a range asked, or with one but to another method than GET.
    #[error("a part nobody asked for")]
    PartUnasked,
    /// A 206 of several parts.
    #[error("several parts where one was asked for")]
    Multipart,
    /// A 206 whose `Content-Range` is missing, doubled, malformed, or of unknown total.
    #[error("a part without a clear place")]
    PartUnclear,
    /// A 206 that begins elsewhere or reaches further than asked.
    #[error("another part than the one asked for")]
    PartElsewhere,
    /// A 206 whose `Content-Length` is not the length of its range.
    #[error("a part whose length contradicts its range")]
    PartLength,
    /// A 200 with `Content-Range`.
    #[error("a whole that says it is a part")]
    WholeWithRange,
    /// A 304 without a condition.
    #[error("not modified, without a condition")]
    NotModifiedUnasked,
    /// A 416 without a range.
    #[error("range refused, without a range")]
    RangeRefusedUnasked,
    /// 1xx as final answer (101 included), or a status over 599.
    #[error("a status that cannot answer this")]
    Status,
    /// The head is larger than `limits::UPSTREAM_HEAD_BYTES` or has too many fields.
    #[error("the head is too large")]
    HeadTooLarge,
    /// Not HTTP, or not in a form that has one meaning.
    #[error("the reply is not HTTP")]
    Garbled,
    /// Body bytes beyond what the head announced.
    #[error("more body than announced")]
    TooLong,
    /// The body has more bytes than anything has (`limits::BODY_BYTES`), without announcing a length.
    #[error("a body without end")]
    Endless,
}

impl Lie {
    /// The word for logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LengthAndEncoding => "length-and-encoding",
            Self::SeveralLengths => "several-lengths",
            Self::BadLength => "bad-length",
            Self::AbsurdLength => "absurd-length",
            Self::TransferEncoding => "transfer-encoding",
            Self::ContentCoding => "content-coding",
            Self::PartUnasked => "part-unasked",
            Self::Multipart => "multipart",
            Self::PartUnclear => "part-unclear",
            Self::PartElsewhere => "part-elsewhere",
            Self::PartLength => "part-length",
            Self::WholeWithRange => "whole-with-range",
            Self::NotModifiedUnasked => "not-modified-unasked",
            Self::RangeRefusedUnasked => "range-refused-unasked",
            Self::Status => "status",
            Self::HeadTooLarge => "head-too-large",
            Self::Garbled => "garbled",
            Self::TooLong => "too-long",
            Self::Endless => "endless",
        }
    }
}

/// Judges a reply head against what was asked.
///
/// # Errors
/// The first lie found. The connection it came on must not be used again.
pub fn check_reply(
    asked: &Asked,
    version: Version,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<ReplyKind, Lie> {
    if headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>()
        > limits::UPSTREAM_HEAD_BYTES
    {
        return Err(Lie::HeadTooLarge);
    }
    let framing = check_framing(version, headers)?;
    match status.as_u16() {
        200 => check_whole(framing, headers),
        206 => check_part(asked, framing, headers),
        304 if asked.conditional => Ok(ReplyKind::NotModified),
        304 => Err(Lie::NotModifiedUnasked),
        416 if asked.range.is_none() => Err(Lie::RangeRefusedUnasked),
        404 | 410 => Ok(ReplyKind::Absent(status)),
        301 | 302 | 303 | 307 | 308 => {
            Ok(location(headers).map_or(ReplyKind::Other(status), ReplyKind::Redirect))
        }
        401 | 403 | 407 | 408 | 421 | 425 | 429 | 500..=599 => {
            Ok(ReplyKind::Busy { status, retry_after: retry_after(headers) })
        }
        201..=499 => Ok(ReplyKind::Other(status)),
        _ => Err(Lie::Status),
    }
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Marked,
    Close,
}

fn check_framing(version: Version, headers: &HeaderMap) -> Result<Framing, Lie> {
    let encoded = headers.contains_key(TRANSFER_ENCODING);
    let length = one_length(headers);
    if encoded && length != Ok(None) {
        return Err(Lie::LengthAndEncoding);
    }
    if encoded {
        let chunked =
            only(headers, TRANSFER_ENCODING).is_some_and(|word| word.eq_ignore_ascii_case(b"chunked"));
        return if chunked && version == Version::HTTP_11 {
            Ok(Framing::Marked)
        } else {
            Err(Lie::TransferEncoding)
        };
    }
    Ok(match length? {
        Some(length) => Framing::Length(length),
        None if version >= Version::HTTP_2 => Framing::Marked,
        None => Framing::Close,
    })
}

fn one_length(headers: &HeaderMap) -> Result<Option<u64>, Lie> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let bytes = value.as_bytes();
    if values.next().is_some() || bytes.contains(&b',') {
        return Err(Lie::SeveralLengths);
    }
    let length = digits(bytes).ok_or(Lie::BadLength)?.ok_or(Lie::AbsurdLength)?;
    if length > limits::BODY_BYTES { Err(Lie::AbsurdLength) } else { Ok(Some(length)) }
}

fn check_whole(framing: Framing, headers: &HeaderMap) -> Result<ReplyKind, Lie> {
    if headers.contains_key(CONTENT_RANGE) {
        return Err(Lie::WholeWithRange);
    }
    check_coding(headers)?;
    Ok(match framing {
        Framing::Length(length) => ReplyKind::Whole { length: Some(length), framed: true },
        Framing::Marked => ReplyKind::Whole { length: None, framed: true },
        Framing::Close => ReplyKind::Whole { length: None, framed: false },
    })
}

fn check_part(asked: &Asked, framing: Framing, headers: &HeaderMap) -> Result<ReplyKind, Lie> {
    // RFC 9110 §14.2: a range has a meaning with GET only.
    let Some((wanted, until)) = asked.range.filter(|_| asked.method == Method::GET) else {
        return Err(Lie::PartUnasked);
    };
    let several = headers.get_all(CONTENT_TYPE).iter().any(|value| {
        value.as_bytes().get(..20).is_some_and(|head| head.eq_ignore_ascii_case(b"multipart/byteranges"))
    });
    if several {
        return Err(Lie::Multipart);
    }
    check_coding(headers)?;
    let place = only(headers, CONTENT_RANGE).ok_or(Lie::PartUnclear)?;
    let (start, last, total) = parse_content_range(place).ok_or(Lie::PartUnclear)?;
    if last < start || last >= total || total > limits::BODY_BYTES {
        return Err(Lie::PartUnclear);
    }
    let end = last + 1;
    if start != wanted || until.is_some_and(|until| end > until) {
        return Err(Lie::PartElsewhere);
    }
    if let Framing::Length(length) = framing
        && length != end - start
    {
        return Err(Lie::PartLength);
    }
    Ok(ReplyKind::Part { start, end, total })
}

/// `identity` is no coding, and some servers say it.
fn check_coding(headers: &HeaderMap) -> Result<(), Lie> {
    let coded = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|value| !value.is_empty() && !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    if coded { Err(Lie::ContentCoding) } else { Ok(()) }
}

/// `bytes first-last/total`, all known (RFC 9110 §14.4).
fn parse_content_range(value: &[u8]) -> Option<(u64, u64, u64)> {
    let text = std::str::from_utf8(value).ok()?;
    let (unit, rest) = text.split_once(' ')?;
    let (range, total) = rest.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let number = |text: &str| digits(text.as_bytes()).flatten();
    Some((number(first)?, number(last)?, number(total)?))
}

/// The value of a field that is there exactly once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&[u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.as_bytes())
}

/// Plain digits: outer `None` if they are not, inner `None` if they do not fit.
fn digits(bytes: &[u8]) -> Option<Option<u64>> {
    if bytes.is_empty() || !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()))
}

fn location(headers: &HeaderMap) -> Option<String> {
    let value = only(headers, LOCATION)?;
    Some(std::str::from_utf8(value).ok()?.to_owned())
}

/// Seconds, or a date against the reply's own `Date`: two clocks of one machine, none of ours.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = only(headers, RETRY_AFTER)?;
    if let Some(seconds) = digits(value) {
        return Some(Duration::from_secs(seconds.unwrap_or(u64::MAX)));
    }
    let until = httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()?;
    let date = httpdate::parse_http_date(std::str::from_utf8(only(headers, DATE)?).ok()?).ok()?;
    Some(until.duration_since(date).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(range: Option<(u64, Option<u64>)>) -> Asked {
        Asked { method: Method::GET, range, if_range_sent: false, conditional: false }
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn check(asked: &Asked, status: u16, lines: &[(&'static str, &str)]) -> Result<ReplyKind, Lie> {
        check_reply(asked, Version::HTTP_11, StatusCode::from_u16(status).unwrap(), &headers(lines))
    }

    #[test]
    fn a_whole_says_whether_its_end_can_be_told() {
        let any = asked(None);
        let whole = |length, framed| Ok(ReplyKind::Whole { length, framed });
        assert_eq!(check(&any, 200, &[("content-length", "5")]), whole(Some(5), true));
        assert_eq!(check(&any, 200, &[("content-length", "0")]), whole(Some(0), true));
        assert_eq!(check(&any, 200, &[("transfer-encoding", "Chunked")]), whole(None, true));
        assert_eq!(check(&any, 200, &[]), whole(None, false));
        let h2 = check_reply(&any, Version::HTTP_2, StatusCode::OK, &HeaderMap::new());
        assert_eq!(h2, whole(None, true));
    }

    #[test]
    fn a_part_is_taken_where_it_was_asked_for_even_if_shorter() {
        let range = asked(Some((10, Some(20))));
        for (place, end) in [("bytes 10-19/100", 20), ("bytes 10-14/100", 15), ("Bytes 10-10/11", 11)] {
            let total = place.rsplit('/').next().unwrap().parse().unwrap();
            let part = ReplyKind::Part { start: 10, end, total };
            assert_eq!(check(&range, 206, &[("content-range", place)]), Ok(part), "{place}");
        }
        let open = asked(Some((10, None)));
        let part = ReplyKind::Part { start: 10, end: 100, total: 100 };
        assert_eq!(
            check(&open, 206, &[("content-range", "bytes 10-99/100"), ("content-length", "90")]),
            Ok(part)
        );
    }

    #[test]
    fn numbers_in_content_range_do_not_wrap() {
        let range = asked(Some((0, None)));
        for place in [
            "bytes 0-18446744073709551615/18446744073709551615",
            "bytes 0-18446744073709551616/18446744073709551617",
            "bytes 0-99999999999999/100000000000000",
            "bytes +0-1/2",
            "bytes 0 - 1/2",
            "bytes 0-1/2 ",
            "bytes  0-1/2",
            "bytes 0-/2",
            "bytes */2",
            "",
        ] {
            assert_eq!(check(&range, 206, &[("content-range", place)]), Err(Lie::PartUnclear), "{place}");
        }
    }

    #[test]
    fn a_part_to_head_was_not_asked_for() {
        let head = Asked { method: Method::HEAD, ..asked(Some((0, None))) };
        assert_eq!(check(&head, 206, &[("content-range", "bytes 0-1/2")]), Err(Lie::PartUnasked));
    }

    #[test]
    fn statuses_mean_what_they_may_mean_here() {
        let any = asked(None);
        let kind = |status| check(&any, status, &[("content-length", "0")]);
        for status in [404, 410] {
            assert_eq!(kind(status), Ok(ReplyKind::Absent(StatusCode::from_u16(status).unwrap())));
        }
        for status in [401, 403, 408, 429, 500, 502, 503, 504, 599] {
            assert!(matches!(kind(status), Ok(ReplyKind::Busy { .. })), "{status}");
        }
        for status in [201, 203, 204, 226, 300, 305, 400, 405, 406, 451] {
            assert!(matches!(kind(status), Ok(ReplyKind::Other(_))), "{status}");
        }
        for status in [100, 101, 103, 199, 600, 999] {
            assert_eq!(kind(status), Err(Lie::Status), "{status}");
        }
        assert_eq!(check(&any, 302, &[("location", "/x")]), Ok(ReplyKind::Redirect("/x".to_owned())));
        assert_eq!(check(&any, 302, &[]), Ok(ReplyKind::Other(StatusCode::FOUND)));
        let two = check(&any, 302, &[("location", "/x"), ("location", "/y")]);
        assert_eq!(two, Ok(ReplyKind::Other(StatusCode::FOUND)));
    }

    #[test]
    fn conditions_and_ranges_make_304_and_416_truthful() {
        let condition = Asked { conditional: true, ..asked(None) };
        assert_eq!(check(&condition, 304, &[]), Ok(ReplyKind::NotModified));
        assert_eq!(check(&asked(None), 304, &[]), Err(Lie::NotModifiedUnasked));
        let range = asked(Some((5, None)));
        assert_eq!(check(&range, 416, &[]), Ok(ReplyKind::Other(StatusCode::RANGE_NOT_SATISFIABLE)));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_by_the_senders_own_clock() {
        let wait = |lines: &[(&'static str, &str)]| match check(&asked(None), 503, lines) {
            Ok(ReplyKind::Busy { retry_after, .. }) => retry_after,
            other => panic!("{other:?}"),
        };
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(wait(&[("retry-after", "120")]), Some(Duration::from_secs(120)));
        let later = ("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT");
        assert_eq!(wait(&[later, date]), Some(Duration::from_secs(30)));
        assert_eq!(wait(&[later]), None);
        assert_eq!(wait(&[("retry-after", "soon")]), None);
        assert_eq!(wait(&[("retry-after", "99999999999999999999")]), Some(Duration::from_secs(u64::MAX)));
    }

    #[test]
    fn every_lie_has_its_own_word() {
        let words = [
            Lie::LengthAndEncoding,
            Lie::SeveralLengths,
            Lie::BadLength,
            Lie::AbsurdLength,
            Lie::TransferEncoding,
            Lie::ContentCoding,
            Lie::PartUnasked,
            Lie::Multipart,
            Lie::PartUnclear,
            Lie::PartElsewhere,
            Lie::PartLength,
            Lie::WholeWithRange,
            Lie::NotModifiedUnasked,
            Lie::RangeRefusedUnasked,
            Lie::Status,
            Lie::HeadTooLarge,
            Lie::Garbled,
            Lie::TooLong,
            Lie::Endless,
        ]
        .map(Lie::as_str);
        let unique: std::collections::HashSet<_> = words.iter().collect();
        assert_eq!(unique.len(), words.len());
    }

    proptest::proptest! {
        #[test]
        fn a_part_that_passes_lies_within_what_was_asked(
            start in 0_u64..50, end in proptest::option::of(1_u64..60), place in "(bytes |items )?[0-9]{0,2}-[0-9]{0,3}/([0-9]{0,3}|\\*)",
            length in proptest::option::of(0_u64..100),
        ) {
            let mut lines = vec![("content-range", place.as_str())];
            let length = length.map(|length| length.to_string());
            lines.extend(length.as_deref().map(|length| ("content-length", length)));
            if let Ok(kind) = check(&asked(Some((start, end))), 206, &lines) {
                let ReplyKind::Part { start: from, end: to, total } = kind else { panic!("{kind:?}") };
                proptest::prop_assert!(from == start && from < to && to <= total);
                proptest::prop_assert!(end.is_none_or(|end| to <= end));
                proptest::prop_assert!(length.is_none_or(|length| length == (to - from).to_string()));
            }
        }
    }
}
