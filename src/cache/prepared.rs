//! What every answer from one entry has in common, made once, so that a hit copies a map and adds arithmetic.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
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

/// Slots of a template beyond its fields: with a table that is full, hyper's own look-up would make it grow.
const TEMPLATE_SPARE: usize = 4;

/// The numbers and words in which the plain answers of one entry differ from second to second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// `Age` in seconds.
    pub age: u64,
    /// Seconds of freshness left, as in `Cache-Status`.
    pub ttl: Option<i64>,
    /// The word of the verdict.
    pub word: &'static str,
}

/// What was said at a moment.
#[derive(Debug)]
struct Said {
    moment: Moment,
    headers: HeaderMap,
}

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
    said: ArcSwapOption<Said>,
    /// The age of the plain answer before this one.
    said_at: AtomicU64,
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
        let mut template = HeaderMap::with_capacity(headers.len() + TEMPLATE_FIELDS.len() + TEMPLATE_SPARE);
        template.extend(headers.clone());
        for field in TEMPLATE_FIELDS {
            template.insert(field, HeaderValue::from_static("0"));
        }
        let (said, said_at) = (ArcSwapOption::empty(), AtomicU64::new(u64::MAX));
        Self { headers, template, status: head.status, length, freshness, validators, origin, said, said_at }
    }

    /// The fields of a plain answer at this moment, where they were made before.
    pub fn said(&self, moment: &Moment) -> Option<HeaderMap> {
        let said = self.said.load();
        said.as_ref().filter(|said| said.moment == *moment).map(|said| said.headers.clone())
    }

    /// Keeps the fields of a plain answer for the others of the same moment. The first of a moment is not kept:
    /// most entries have only one, and would pay for it in memory.
    pub fn keep_said(&self, moment: Moment, headers: &HeaderMap) {
        if self.said_at.swap(moment.age, Ordering::Relaxed) == moment.age {
            self.said.store(Some(Arc::new(Said { moment, headers: headers.clone() })));
        }
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
    fn what_is_said_again_within_a_moment_is_kept_and_no_longer() {
        let prepared = Prepared::of(&head(200, &[]), 3, None);
        let moment = Moment { age: 7, ttl: Some(3), word: "hit" };
        prepared.keep_said(moment, &prepared.headers);
        assert_eq!(prepared.said(&moment), None, "once is not often");
        prepared.keep_said(moment, &prepared.headers);
        assert_eq!(prepared.said(&moment).as_ref(), Some(&prepared.headers));
        for other in
            [Moment { age: 8, ..moment }, Moment { ttl: None, ..moment }, Moment { word: "x", ..moment }]
        {
            assert_eq!(prepared.said(&other), None);
        }
    }

    #[test]
    fn a_template_has_room_so_that_nothing_grows_on_the_way() {
        let template = Prepared::of(&head(200, &[]), 3, Some(&Digest::of(b"abc"))).template.clone();
        assert!(template.capacity() > template.len());
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
