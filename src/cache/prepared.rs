//! What every answer from one entry has in common, made once, so that a hit copies a map and adds arithmetic.

use http::header::{ACCEPT_RANGES, AGE, CONTENT_LENGTH, DATE, ETAG, VIA};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::record::Head;
use crate::base::digest::Digest;
use crate::protocol::digest_field::{digest_tag, repr_digest};
use crate::protocol::freshness::{Facts, assess_stored};
use crate::protocol::headers::{header_map, storable_headers};
use crate::protocol::validators::{Validators, render_date};

/// The fields of every answer from an entry whose values differ from answer to answer. Whoever copies the template
/// sets or removes each of them.
pub const TEMPLATE_FIELDS: [HeaderName; 5] = [
    CONTENT_LENGTH,
    AGE,
    VIA,
    HeaderName::from_static("cache-status"),
    HeaderName::from_static("x-request-id"),
];

/// Answer headers and freshness facts of an entry.
#[derive(Debug)]
pub struct Prepared {
    /// The stored end-to-end fields as answer headers, with `ETag`, `Accept-Ranges` and `Repr-Digest`.
    /// `Date` is the origin's, or our time of receipt where it sent none (RFC 9110 §6.6.1): with another one, caches
    /// behind us would count its age twice. Without what differs from answer to answer: `Content-Length`, `Age`,
    /// `Via`, `Cache-Status`.
    pub headers: HeaderMap,
    /// `headers` with a place for each field that differs from answer to answer ([`TEMPLATE_FIELDS`]): a copy of it
    /// takes their values without growing, which would cost a hit more than the copy.
    pub template: HeaderMap,
    /// Status code: 200, or 404/410 for a negative entry.
    pub status: u16,
    /// Bytes of the body.
    pub length: u64,
    /// Age and lifetime, as far as the origin says.
    pub freshness: Facts,
    /// What an agent's conditions are compared with: the upstream's, or the tag made from the digest.
    pub validators: Validators,
    /// What the upstream can be asked with. Never the tag that we made.
    pub origin: Validators,
}

impl Prepared {
    /// Prepares a stored head for a body of `length` bytes with `digest`, where it is known already: while the body
    /// arrives it is not. A few microseconds.
    pub fn of(head: &Head, length: u64, digest: Option<&Digest>) -> Self {
        // Filtered again: a record may be older than today's list of fields.
        let mut headers = header_map(&storable_headers(&header_map(&head.headers)));
        let freshness = assess_stored(head.status, &head.headers, head.requested_at, head.received_at);
        let origin = Validators::of(&headers);
        headers.remove(AGE);
        if origin.date.is_none() {
            headers.remove(DATE);
            headers.extend(render_date(head.received_at).map(|date| (DATE, date)));
        }
        let mut validators = origin.clone();
        if !Self::is_negative_status(head.status) {
            headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
            if let Some(digest) = digest {
                headers.insert(HeaderName::from_static("repr-digest"), repr_digest(digest));
                if origin.etag.is_none() {
                    headers.insert(ETAG, digest_tag(digest));
                    validators.etag = Validators::of(&headers).etag;
                }
            }
        }
        let mut template = headers.clone();
        for field in TEMPLATE_FIELDS {
            template.insert(field, HeaderValue::from_static("0"));
        }
        Self { headers, template, status: head.status, length, freshness, validators, origin }
    }

    /// Whether this says that there is nothing: it has its own, short lifetime and is never served stale.
    pub const fn is_negative(&self) -> bool {
        Self::is_negative_status(self.status)
    }

    const fn is_negative_status(status: u16) -> bool {
        status != 200
    }

    /// Whether the upstream can be asked if this is still right, without sending it again.
    pub const fn can_revalidate(&self) -> bool {
        self.origin.etag.is_some() || self.origin.last_modified.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::protocol::validators::resume_validator;

    fn head(status: u16, fields: &[(&str, &str)]) -> Head {
        Head {
            status,
            headers: fields
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
                .collect(),
            requested_at: Timestamp(1_000),
            received_at: Timestamp(2_000),
            ..Head::default()
        }
    }

    #[test]
    fn the_upstreams_tag_stays() {
        let prepared = Prepared::of(
            &head(200, &[("etag", "\"v1\""), ("date", "Sun, 06 Nov 1994 08:49:37 GMT"), ("age", "7")]),
            3,
            Some(&Digest::of(b"abc")),
        );
        assert_eq!(prepared.headers.get("etag").unwrap(), "\"v1\"");
        assert_eq!(prepared.headers.get("accept-ranges").unwrap(), "bytes");
        assert_eq!(
            prepared.headers.get("repr-digest").unwrap(),
            "sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:"
        );
        assert_eq!(prepared.headers.get("date").unwrap(), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert!(!prepared.headers.contains_key("age"));
        assert_eq!(prepared.freshness.initial_age.as_secs(), 8);
    }

    #[test]
    fn a_tag_that_we_made_never_goes_upstream() {
        let prepared = Prepared::of(&head(200, &[]), 3, Some(&Digest::of(b"abc")));
        assert_eq!(prepared.headers.get("etag").unwrap(), &digest_tag(&Digest::of(b"abc")));
        assert_eq!(resume_validator(&prepared.validators).unwrap(), digest_tag(&Digest::of(b"abc")));
        assert_eq!(prepared.origin, Validators::default());
        assert!(!prepared.can_revalidate());
    }

    #[test]
    fn without_a_date_that_can_be_read_it_is_the_time_of_receipt() {
        for fields in [&[][..], &[("date", "yesterday")]] {
            let prepared = Prepared::of(&head(200, fields), 3, None);
            assert_eq!(prepared.headers.get("date").unwrap(), "Thu, 01 Jan 1970 00:00:02 GMT");
            assert_eq!(
                prepared.origin.date, None,
                "it says nothing about how far Last-Modified can be trusted"
            );
        }
    }

    #[test]
    fn a_negative_entry_has_no_identity() {
        let prepared = Prepared::of(&head(404, &[("content-type", "text/plain")]), 0, Some(&Digest::of(b"")));
        assert!(prepared.is_negative());
        assert_eq!(prepared.headers.len(), 2);
    }

    #[test]
    fn fields_that_are_no_longer_on_the_list_are_not_repeated() {
        let fields = [("set-cookie", "a=b"), ("content-length", "9"), ("bad name", "x"), ("link", "a\r\nb")];
        let prepared = Prepared::of(&head(200, &fields), 3, Some(&Digest::of(b"abc")));
        let mut names: Vec<_> = prepared.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept-ranges", "date", "etag", "repr-digest"]);
    }
}
