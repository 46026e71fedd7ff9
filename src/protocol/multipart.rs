//! Several ranges in one answer: `multipart/byteranges` (RFC 9110 §14.6), with its length known beforehand.

use std::ops::Range;

use bytes::Bytes;
use http::HeaderValue;

use super::range::content_range;

/// One part: send `head`, then the bytes of `range`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Delimiter and header fields, up to and including the empty line.
    pub head: Bytes,
    /// The bytes of the body, half-open.
    pub range: Range<u64>,
}

/// The frame around several ranges. Send the parts in order, then `closing`: that is `total_len` bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multipart {
    /// The delimiter, without its dashes.
    pub boundary: String,
    /// The parts in the order of the body.
    pub parts: Vec<Part>,
    /// The closing delimiter.
    pub closing: Bytes,
    /// `Content-Length` of the answer in bytes.
    pub total_len: u64,
}

impl Multipart {
    /// The frame for `ranges` of a body of `total` bytes. `content_type` is the body's and goes with each
    /// part; `seed` is random, so that no body can be made to contain the boundary.
    pub fn of(ranges: Vec<Range<u64>>, total: u64, content_type: Option<&HeaderValue>, seed: u128) -> Self {
        let boundary = format!("waypost-{seed:032x}");
        let mut total_len = 0_u64;
        let mut first = true;
        let parts = ranges
            .into_iter()
            .map(|range| {
                let mut head = Vec::with_capacity(160);
                // The line break before a delimiter belongs to it (RFC 2046 §5.1.1), so only later parts have one.
                if !std::mem::take(&mut first) {
                    head.extend_from_slice(b"\r\n");
                }
                head.extend_from_slice(b"--");
                head.extend_from_slice(boundary.as_bytes());
                if let Some(content_type) = content_type {
                    head.extend_from_slice(b"\r\ncontent-type: ");
                    head.extend_from_slice(content_type.as_bytes());
                }
                head.extend_from_slice(b"\r\ncontent-range: ");
                head.extend_from_slice(content_range(&range, Some(total)).as_bytes());
                head.extend_from_slice(b"\r\n\r\n");
                let bytes = range.end.saturating_sub(range.start);
                total_len = total_len.saturating_add(bytes).saturating_add(head.len() as u64);
                Part { head: head.into(), range }
            })
            .collect();
        let closing = Bytes::from(format!("\r\n--{boundary}--\r\n"));
        let total_len = total_len.saturating_add(closing.len() as u64);
        Self { boundary, parts, closing, total_len }
    }

    /// `Content-Type` of the answer.
    pub fn content_type(&self) -> HeaderValue {
        HeaderValue::try_from(format!("multipart/byteranges; boundary={}", self.boundary))
            .unwrap_or_else(|_| HeaderValue::from_static("multipart/byteranges"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_what_is_sent() {
        let body = b"0123456789";
        let plain = HeaderValue::from_static("text/plain");
        let multipart = Multipart::of(vec![0..1, 4..6], 10, Some(&plain), 7);
        let mut sent = Vec::new();
        for part in &multipart.parts {
            sent.extend_from_slice(&part.head);
            sent.extend_from_slice(&body[part.range.start as usize..part.range.end as usize]);
        }
        sent.extend_from_slice(&multipart.closing);
        let expected = "--waypost-00000000000000000000000000000007\r\n\
            content-type: text/plain\r\ncontent-range: bytes 0-0/10\r\n\r\n0\r\n\
            --waypost-00000000000000000000000000000007\r\n\
            content-type: text/plain\r\ncontent-range: bytes 4-5/10\r\n\r\n45\r\n\
            --waypost-00000000000000000000000000000007--\r\n";
        assert_eq!(String::from_utf8(sent).unwrap(), expected);
        assert_eq!(multipart.total_len, expected.len() as u64);
        assert_eq!(
            multipart.content_type(),
            "multipart/byteranges; boundary=waypost-00000000000000000000000000000007"
        );
    }

    #[test]
    fn a_body_without_type_has_parts_without_type() {
        let multipart = Multipart::of(vec![0..1, 2..3], 3, None, 0);
        assert!(multipart.parts.iter().all(|part| !part.head.windows(12).any(|w| w == b"content-type")));
    }
}
