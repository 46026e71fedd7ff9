//! Range requests (RFC 9110 §14): parsed without the length, decided with it.
//!
//! A parser of our own, because http-range-header refuses what §14.1.2 allows (leading zeros, spaces before
//! commas, overlaps, which §14.2 lets a server merge) and bounds nothing while it parses. Whatever is
//! malformed, too much or in another unit is answered with the whole body; no arithmetic here can overflow
//! (CVE-2017-7529).

use std::ops::Range;

use http::header::RANGE;
use http::{HeaderMap, HeaderValue};

use crate::base::limits::RANGES;

/// Ranges that are parsed before merging; a list that is longer is not worth understanding (CVE-2011-3192).
const LISTED: usize = 4 * RANGES;

/// One range as it was asked for, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeSpec {
    /// From `first` on, up to and including `last` or to the end.
    From {
        /// Offset of the first byte.
        first: u64,
        /// Offset of the last byte, at least `first`.
        last: Option<u64>,
    },
    /// The last so many bytes.
    Suffix(u64),
}

/// What a request asks for, before the length is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeWish {
    /// The whole body.
    Whole,
    /// At least one range, in the order asked for.
    Ranges(Vec<RangeSpec>),
}

/// What it gets. Ranges are half-open, within the body, not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeAnswer {
    /// 200 with everything.
    Whole,
    /// 206 with one part.
    One(Range<u64>),
    /// 206 as multipart/byteranges: at least two parts, ascending, not touching, at most `limits::RANGES`.
    Many(Vec<Range<u64>>),
    /// 416.
    Unsatisfiable,
}

/// Reads the `Range` field. Only for GET: it means nothing with any other method (RFC 9110 §14.2).
pub fn parse_range(headers: &HeaderMap) -> RangeWish {
    let mut fields = headers.get_all(RANGE).iter();
    match (fields.next(), fields.next()) {
        (Some(field), None) => {
            field.to_str().ok().and_then(parse_list).map_or(RangeWish::Whole, RangeWish::Ranges)
        }
        _ => RangeWish::Whole,
    }
}

/// What to send of a body of `length` bytes. Overlapping and touching ranges become one, in ascending order
/// (RFC 9110 §15.3.7.2); more than `limits::RANGES` after that are answered with the whole.
pub fn decide_range(wish: &RangeWish, length: u64) -> RangeAnswer {
    let RangeWish::Ranges(specs) = wish else { return RangeAnswer::Whole };
    let mut ranges: Vec<Range<u64>> = specs.iter().filter_map(|spec| within(spec, length)).collect();
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len().min(RANGES));
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    match merged.len() {
        0 => RangeAnswer::Unsatisfiable,
        1 => merged.pop().map_or(RangeAnswer::Whole, RangeAnswer::One),
        2..=RANGES => RangeAnswer::Many(merged),
        _ => RangeAnswer::Whole,
    }
}

/// `Content-Range` of a part; `total` unknown while a fill without length runs.
pub fn content_range(range: &Range<u64>, total: Option<u64>) -> HeaderValue {
    let (first, last) = (range.start, range.end.saturating_sub(1));
    value(match total {
        Some(total) => format!("bytes {first}-{last}/{total}"),
        None => format!("bytes {first}-{last}/*"),
    })
}

/// `Content-Range` of a 416 (RFC 9110 §15.5.17).
pub fn content_range_unsatisfied(total: u64) -> HeaderValue {
    value(format!("bytes */{total}"))
}

fn value(text: String) -> HeaderValue {
    // Digits and a few signs are always a valid field value.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("bytes */*"))
}

fn within(spec: &RangeSpec, length: u64) -> Option<Range<u64>> {
    let range = match *spec {
        RangeSpec::From { first, last } => {
            first..last.map_or(length, |last| last.saturating_add(1)).min(length)
        }
        RangeSpec::Suffix(count) => length.saturating_sub(count)..length,
    };
    (range.start < range.end).then_some(range)
}

fn parse_list(text: &str) -> Option<Vec<RangeSpec>> {
    let (unit, list) = text.split_once('=')?;
    // Range units are case-insensitive (RFC 9110 §14.1).
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut specs = Vec::new();
    for item in list.split(',') {
        let item = item.trim_matches([' ', '\t']);
        // A list may have empty elements (RFC 9110 §5.6.1.2).
        if item.is_empty() {
            continue;
        }
        if specs.len() == LISTED {
            return None;
        }
        specs.push(parse_spec(item)?);
    }
    (!specs.is_empty()).then_some(specs)
}

fn parse_spec(item: &str) -> Option<RangeSpec> {
    let (first, last) = item.split_once('-')?;
    if first.is_empty() {
        return parse_offset(last).map(RangeSpec::Suffix);
    }
    let first = parse_offset(first)?;
    if last.is_empty() {
        return Some(RangeSpec::From { first, last: None });
    }
    let last = parse_offset(last)?;
    (first <= last).then_some(RangeSpec::From { first, last: Some(last) })
}

/// Digits only; what does not fit is as far away as anything can be.
fn parse_offset(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wish(text: &str) -> RangeWish {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_str(text).unwrap());
        parse_range(&headers)
    }

    fn answer(text: &str, length: u64) -> RangeAnswer {
        decide_range(&wish(text), length)
    }

    #[test]
    fn one_range_is_one_part() {
        for (text, expected) in [
            ("bytes=0-0", 0..1),
            ("bytes=0-", 0..10),
            ("bytes=4-7", 4..8),
            ("bytes=9-", 9..10),
            ("bytes=5-99", 5..10),
            ("bytes=-3", 7..10),
            ("bytes=-99", 0..10),
            ("BYTES=007-8", 7..9),
            ("bytes=5-18446744073709551615", 5..10),
            ("bytes=5-99999999999999999999999", 5..10),
            ("bytes= 1-2 ,", 1..3),
            ("bytes=20-30, 2-3", 2..4),
        ] {
            assert_eq!(answer(text, 10), RangeAnswer::One(expected), "{text}");
        }
    }

    #[test]
    fn what_touches_is_merged_and_the_rest_is_in_order() {
        assert_eq!(answer("bytes=0-1,2-3,3-5", 10), RangeAnswer::One(0..6));
        assert_eq!(answer("bytes=8-9,0-1", 10), RangeAnswer::Many(vec![0..2, 8..10]));
        assert_eq!(answer("bytes=0-0,-1", 10), RangeAnswer::Many(vec![0..1, 9..10]));
        assert_eq!(answer("bytes=0-0,-1", 1), RangeAnswer::One(0..1));
    }

    #[test]
    fn what_lies_behind_the_end_cannot_be_had() {
        for text in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999999999999-"] {
            assert_eq!(answer(text, 10), RangeAnswer::Unsatisfiable, "{text}");
        }
        assert_eq!(answer("bytes=0-", 0), RangeAnswer::Unsatisfiable);
        assert_eq!(answer("bytes=-5", 0), RangeAnswer::Unsatisfiable);
    }

    #[test]
    fn nonsense_gets_the_whole() {
        for text in [
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=1",
            "bytes=5-4",
            "bytes=+1-2",
            "bytes=1-2-3",
            "bytes=1 - 2",
            "bytes=--1",
            "lines=1-2",
            "bytes =1-2",
            "bytes=1-2;3-4",
            "0-1",
            "bytes=0x1-2",
        ] {
            assert_eq!(answer(text, 10), RangeAnswer::Whole, "{text}");
        }
        let mut twice = HeaderMap::new();
        twice.append(RANGE, HeaderValue::from_static("bytes=0-1"));
        twice.append(RANGE, HeaderValue::from_static("bytes=0-1"));
        assert_eq!(parse_range(&twice), RangeWish::Whole);
    }

    #[test]
    fn a_flood_of_ranges_gets_the_whole() {
        let list = |count: usize, step: usize| {
            let items: Vec<String> = (0..count).map(|i| format!("{0}-{0}", i * step)).collect();
            format!("bytes={}", items.join(","))
        };
        assert!(
            matches!(answer(&list(RANGES, 2), 10_000), RangeAnswer::Many(parts) if parts.len() == RANGES)
        );
        assert_eq!(answer(&list(RANGES + 1, 2), 10_000), RangeAnswer::Whole);
        assert_eq!(answer(&list(RANGES + 1, 1), 10_000), RangeAnswer::One(0..RANGES as u64 + 1));
        assert_eq!(answer(&list(1_000, 1), 10_000), RangeAnswer::Whole);
    }

    #[test]
    fn content_range_counts_inclusively() {
        assert_eq!(content_range(&(0..1), Some(10)), "bytes 0-0/10");
        assert_eq!(content_range(&(5..10), None), "bytes 5-9/*");
        assert_eq!(content_range_unsatisfied(10), "bytes */10");
    }

    proptest! {
        #[test]
        fn parts_lie_within_the_body_and_never_touch(text in "bytes=[0-9, -]{0,40}", length in 0_u64..200) {
            let parts = match answer(&text, length) {
                RangeAnswer::One(part) => vec![part],
                RangeAnswer::Many(parts) => { prop_assert!(parts.len() > 1); parts }
                RangeAnswer::Whole | RangeAnswer::Unsatisfiable => vec![],
            };
            prop_assert!(parts.len() <= RANGES);
            prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= length));
            prop_assert!(parts.windows(2).all(|pair| pair[0].end < pair[1].start));
        }

        #[test]
        fn a_byte_is_sent_when_it_was_asked_for(
            specs in prop::collection::vec((0_u64..50, 0_u64..20), 1..8), at in 0_u64..40,
        ) {
            let list: Vec<String> = specs.iter().map(|(first, more)| format!("{first}-{}", first + more)).collect();
            let asked = specs.iter().any(|(first, more)| (*first..=first + more).contains(&at));
            let sent = match answer(&format!("bytes={}", list.join(",")), 40) {
                RangeAnswer::One(part) => part.contains(&at),
                RangeAnswer::Many(parts) => parts.iter().any(|part| part.contains(&at)),
                RangeAnswer::Whole => true,
                RangeAnswer::Unsatisfiable => false,
            };
            prop_assert_eq!(sent, asked);
        }
    }
}
