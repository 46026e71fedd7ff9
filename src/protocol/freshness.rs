//! How old a reply is and how long it may be used: RFC 9111 §4.2 as a shared cache, computed once per head.
//!
//! http-cache-semantics is the calculator of lifetimes, and this is the only file that knows it. It is given
//! a tidied copy of the head, because on its own it reads directives case-sensitively, knows one of the three
//! date forms, takes `proxy-revalidate` for "always stale" and the first of contradicting values; age, stale
//! windows (RFC 5861) and the reasons not to store are ours.

use std::time::Duration;

use http::header::{
    AGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, DATE, EXPIRES, LAST_MODIFIED,
    SET_COOKIE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_cache_semantics::{CacheOptions, CachePolicy};

use super::cache_control::{CacheControl, parse_seconds};
use super::headers::{header_map, storable_headers};
use super::validators::{parse_date, render_date};
use crate::base::clock::Timestamp;
use crate::base::limits::HEURISTIC_LIFETIME;

/// A `Date` further behind our clock than this is a machine without a clock, not an old reply: a cache that
/// holds replies for a year sends `Age`.
const OLDEST_DATE: Duration = Duration::from_secs(365 * 86_400);

/// Why a reply is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoStoreReason {
    /// `Cache-Control: no-store`.
    NoStore,
    /// `Cache-Control: private`.
    Private,
    /// `Set-Cookie` without `public`, `immutable` or `s-maxage`: likely somebody's session.
    SetCookie,
    /// `Vary: *`.
    VaryStar,
    /// A status other than 200, 404 and 410.
    Status,
    /// A content coding, which we never asked for.
    ContentCoding,
    /// `Content-Range` on a reply that is not 206.
    ContentRange,
    /// The request was authorised, and the reply does not say that it is for everybody (RFC 9111 §3.5).
    Authorization,
}

impl NoStoreReason {
    /// The word of this reason in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::SetCookie => "set-cookie",
            Self::VaryStar => "vary-star",
            Self::Status => "status",
            Self::ContentCoding => "content-coding",
            Self::ContentRange => "content-range",
            Self::Authorization => "authorization",
        }
    }
}

/// Whether a reply may be kept and shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storable {
    /// It may.
    Yes,
    /// It may not.
    No(NoStoreReason),
}

/// What a head says about time. Per hit there is only arithmetic left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// How long it is fresh, counted from when the origin made it; heuristic where the origin says nothing.
    pub lifetime: Duration,
    /// How old it was when it was received.
    pub initial_age: Duration,
    /// When it was received or last revalidated.
    pub received_at: Timestamp,
    /// `stale-while-revalidate`, if the origin says so.
    pub swr: Option<Duration>,
    /// `stale-if-error`, if the origin says so.
    pub sie: Option<Duration>,
    /// Never to be used stale: `must-revalidate` or `proxy-revalidate`. `s-maxage` alone is not taken for it,
    /// against the letter of RFC 9111 §5.2.2.10: origins use it for lifetimes, and a branch whose WAN is down
    /// needs its files.
    pub must_revalidate: bool,
    /// `no-cache`: never to be used without asking. `lifetime` is zero then.
    pub no_cache: bool,
    /// `immutable`: while fresh, not even a client's reload asks again (RFC 8246).
    pub immutable: bool,
    /// Whether it may be kept at all.
    pub store: Storable,
}

impl Facts {
    /// Its age at `now` (RFC 9111 §4.2.3), what `Age` says.
    pub fn age(&self, now: Timestamp) -> Duration {
        self.initial_age.saturating_add(now.since(self.received_at))
    }

    /// When it stops being fresh by what its origin says; in the past where it came stale.
    pub fn fresh_until(&self) -> Timestamp {
        let by = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Timestamp(self.received_at.after(self.lifetime).0.saturating_sub(by(self.initial_age)))
    }
}

/// Reads a head. `sent` are the request's fields that reached the upstream (selecting ones, authorisation);
/// `requested_at` and `received_at` are ours, and what the head claims about time is only believed within
/// what they allow.
pub fn assess(
    sent: &HeaderMap,
    status: u16,
    headers: &HeaderMap,
    requested_at: Timestamp,
    received_at: Timestamp,
) -> Facts {
    let cc = CacheControl::of(headers);
    Facts {
        lifetime: lifetime(status, headers, &cc, received_at),
        initial_age: initial_age(headers, requested_at, received_at),
        received_at,
        swr: cc.stale_while_revalidate,
        sie: cc.stale_if_error,
        must_revalidate: cc.must_revalidate || cc.proxy_revalidate,
        no_cache: cc.no_cache,
        immutable: cc.immutable,
        store: no_store_reason(sent, status, headers, &cc).map_or(Storable::Yes, Storable::No),
    }
}

/// The stored fields after a 304 (RFC 9111 §3.2, §4.3.4): what it brings replaces what was there, all values
/// of a field at once. Assess the result again, never the parts.
///
/// Nothing that describes the bytes we hold is taken from it: length, type, coding, range, and the entity tag.
/// `Last-Modified` only where an entity tag still says which bytes are meant. The stored `Age` and `Date` go
/// in any case, for they belong to the older message.
pub fn merge_304(stored: &[(String, Vec<u8>)], fresh: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let tagged = stored.iter().any(|(name, _)| name == "etag");
    let taken = |name: &str| match name {
        "content-type" | "content-length" | "content-encoding" | "content-range" | "etag" => false,
        "last-modified" => tagged,
        _ => true,
    };
    let mut new = storable_headers(fresh);
    new.retain(|(name, _)| taken(name));
    let replaced = |name: &str| matches!(name, "age" | "date") || new.iter().any(|(other, _)| other == name);
    let mut merged: Vec<_> = stored.iter().filter(|(name, _)| !replaced(name)).cloned().collect();
    merged.append(&mut new);
    merged
}

/// [`assess`] for a head as it is stored.
pub fn assess_stored(
    status: u16,
    headers: &[(String, Vec<u8>)],
    requested_at: Timestamp,
    received_at: Timestamp,
) -> Facts {
    // Whether it may be kept was decided when it came; no request field matters any more.
    assess(&HeaderMap::new(), status, &header_map(headers), requested_at, received_at)
}

fn no_store_reason(
    sent: &HeaderMap,
    status: u16,
    headers: &HeaderMap,
    cc: &CacheControl,
) -> Option<NoStoreReason> {
    let shared_on_purpose = cc.public || cc.s_maxage.is_some();
    let star =
        |value: &HeaderValue| value.as_bytes().split(|&b| b == b',').any(|name| name.trim_ascii() == b"*");
    let coded = |value: &HeaderValue| !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if !matches!(status, 200 | 404 | 410) {
        Some(NoStoreReason::Status)
    } else if headers.contains_key(CONTENT_RANGE) {
        Some(NoStoreReason::ContentRange)
    } else if headers.get_all(CONTENT_ENCODING).iter().any(coded) {
        Some(NoStoreReason::ContentCoding)
    } else if headers.get_all(VARY).iter().any(star) {
        Some(NoStoreReason::VaryStar)
    } else if cc.no_store && !cc.must_understand {
        // We do understand the three statuses above (RFC 9111 §5.2.2.3).
        Some(NoStoreReason::NoStore)
    } else if cc.private {
        Some(NoStoreReason::Private)
    } else if sent.contains_key(AUTHORIZATION) && !shared_on_purpose && !cc.must_revalidate {
        Some(NoStoreReason::Authorization)
    } else if headers.contains_key(SET_COOKIE) && !shared_on_purpose && !cc.immutable {
        Some(NoStoreReason::SetCookie)
    } else {
        None
    }
}

/// RFC 9111 §4.2.3. A `Date` in the future says nothing; an `Age` is believed, and has 2^31 seconds at most.
fn initial_age(headers: &HeaderMap, requested_at: Timestamp, received_at: Timestamp) -> Duration {
    let delay = received_at.since(requested_at);
    let age = headers.get(AGE).and_then(|value| parse_seconds(value.as_bytes().trim_ascii()));
    let claimed = age.unwrap_or_default().saturating_add(delay);
    let apparent =
        headers.get(DATE).and_then(parse_date).map_or(Duration::ZERO, |date| received_at.since(date));
    if apparent > OLDEST_DATE { claimed } else { claimed.max(apparent) }
}

/// RFC 9111 §4.2.1 and §4.2.2, by http-cache-semantics.
fn lifetime(status: u16, headers: &HeaderMap, cc: &CacheControl, received_at: Timestamp) -> Duration {
    let mut response = Response::new(());
    match http::StatusCode::from_u16(status) {
        Ok(status) => *response.status_mut() = status,
        Err(_) => return Duration::ZERO,
    }
    *response.headers_mut() = tidied(headers, cc, received_at);
    let request = Request::new(());
    let at = received_at.to_system();
    let policy = CachePolicy::new_options(&request, &response, at, CacheOptions::default());
    // Its own idea of age is left out: without `Age`, and asked at the moment of receipt, what is left to
    // live is the lifetime.
    let lifetime = policy.time_to_live(at);
    let explicit =
        cc.max_age.is_some() || cc.s_maxage.is_some() || headers.contains_key(EXPIRES) || cc.immutable;
    if explicit { lifetime } else { lifetime.min(HEURISTIC_LIFETIME) }
}

/// The fields that decide a lifetime, in the one spelling the calculator reads right.
fn tidied(headers: &HeaderMap, cc: &CacheControl, received_at: Timestamp) -> HeaderMap {
    let mut directives = Vec::new();
    for (given, name) in [(cc.no_cache, "no-cache"), (cc.immutable, "immutable")] {
        if given {
            directives.push(name.to_owned());
        }
    }
    for (seconds, name) in [(cc.max_age, "max-age"), (cc.s_maxage, "s-maxage")] {
        if let Some(seconds) = seconds {
            directives.push(format!("{name}={}", seconds.as_secs()));
        }
    }
    let read = |name: &HeaderName| headers.get(name).map(|value| parse_date(value).and_then(render_date));
    let expires = read(&EXPIRES);
    // Against `Expires` the origin's own clock is the right one; a heuristic may not profit from a clock
    // that is ahead of ours.
    let date = headers.get(DATE).and_then(parse_date).unwrap_or(received_at);
    let date = if expires.is_some() { date } else { date.min(received_at) };
    let mut tidy = HeaderMap::new();
    if !directives.is_empty()
        && let Ok(value) = HeaderValue::try_from(directives.join(", "))
    {
        tidy.insert(CACHE_CONTROL, value);
    }
    if let Some(date) = render_date(date) {
        tidy.insert(DATE, date);
    }
    if let Some(expires) = expires {
        // An invalid date is one in the past (RFC 9111 §5.3).
        tidy.insert(EXPIRES, expires.unwrap_or(HeaderValue::from_static("0")));
    }
    if let Some(Some(modified)) = read(&LAST_MODIFIED) {
        tidy.insert(LAST_MODIFIED, modified);
    }
    tidy
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const NOW: Timestamp = Timestamp(784_111_777_000);
    const DAY: u64 = 86_400;

    fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn facts(fields: &[(&'static str, &str)]) -> Facts {
        assess(&HeaderMap::new(), 200, &map(fields), NOW, NOW)
    }

    fn date(offset_seconds: i64) -> String {
        let at = Timestamp(NOW.0.saturating_add_signed(offset_seconds * 1_000));
        render_date(at).unwrap().to_str().unwrap().to_owned()
    }

    fn lifetime_of(fields: &[(&'static str, &str)]) -> u64 {
        facts(fields).lifetime.as_secs()
    }

    #[test]
    fn explicit_lifetimes_count_in_their_order() {
        let soon = date(100);
        assert_eq!(lifetime_of(&[("cache-control", "max-age=60")]), 60);
        assert_eq!(lifetime_of(&[("cache-control", "Max-Age=60, S-MaxAge=30")]), 30);
        assert_eq!(lifetime_of(&[("cache-control", "max-age=60"), ("expires", &soon)]), 60);
        assert_eq!(lifetime_of(&[("expires", &soon)]), 100);
        assert_eq!(lifetime_of(&[("expires", "0")]), 0);
        assert_eq!(lifetime_of(&[("expires", "Sunday, 06-Nov-94 08:51:17 GMT")]), 100);
        assert_eq!(lifetime_of(&[("cache-control", "max-age=60, proxy-revalidate")]), 60);
        assert_eq!(lifetime_of(&[("cache-control", "no-cache, max-age=60")]), 0);
        assert_eq!(lifetime_of(&[]), 0);
    }

    #[test]
    fn expires_is_measured_on_the_origins_clock() {
        let (origin_now, origin_soon) = (date(-40_000_000), date(-39_999_900));
        let facts = facts(&[("date", &origin_now), ("expires", &origin_soon)]);
        assert_eq!(facts.lifetime.as_secs(), 100);
        assert_eq!(facts.initial_age, Duration::ZERO, "a clock that is a year off is no age");
    }

    #[test]
    fn a_guess_is_never_long() {
        let young = date(-600);
        assert_eq!(lifetime_of(&[("last-modified", &young)]), 60);
        let old = date(-1_000 * DAY as i64);
        assert_eq!(lifetime_of(&[("last-modified", &old)]), HEURISTIC_LIFETIME.as_secs());
        let ahead = date(1_000 * DAY as i64);
        assert_eq!(lifetime_of(&[("last-modified", &young), ("date", &ahead)]), 60);
        assert_eq!(lifetime_of(&[("cache-control", "immutable")]), DAY);
    }

    #[test]
    fn age_adds_what_the_way_took() {
        let old = date(-30);
        let way = |fields: &[(&'static str, &str)]| {
            let later = NOW.after(Duration::from_secs(5));
            assess(&HeaderMap::new(), 200, &map(fields), NOW, later).initial_age.as_secs()
        };
        assert_eq!(way(&[]), 5);
        assert_eq!(way(&[("age", "10")]), 15);
        assert_eq!(way(&[("date", &old)]), 35);
        assert_eq!(way(&[("age", "100"), ("date", &old)]), 105);
    }

    #[test]
    fn absurd_clocks_are_bounded_by_ours() {
        let future = date(1_000_000);
        let age = |value| facts(&[("age", value)]).initial_age.as_secs();
        assert_eq!(facts(&[("date", &future)]).initial_age, Duration::ZERO);
        assert_eq!(facts(&[("date", "Thu, 01 Jan 1970 00:00:00 GMT")]).initial_age, Duration::ZERO);
        assert_eq!(age("-5"), 0);
        assert_eq!(age("soon"), 0);
        assert_eq!(age("99999999999999999999"), 1 << 31);
    }

    #[test]
    fn freshness_is_arithmetic() {
        let facts = facts(&[("cache-control", "max-age=60"), ("age", "20")]);
        assert_eq!(facts.fresh_until(), NOW.after(Duration::from_secs(40)));
        assert_eq!(facts.age(NOW.after(Duration::from_secs(7))).as_secs(), 27);
        assert_eq!(facts.age(Timestamp(0)).as_secs(), 20, "a clock that went back makes nothing younger");
    }

    #[test]
    fn each_reason_not_to_store_has_its_word() {
        let why = |status, fields: &[(&'static str, &str)]| match assess(
            &HeaderMap::new(),
            status,
            &map(fields),
            NOW,
            NOW,
        )
        .store
        {
            Storable::Yes => "",
            Storable::No(reason) => reason.as_str(),
        };
        assert_eq!(why(200, &[]), "");
        assert_eq!(why(404, &[]), "");
        assert_eq!(why(206, &[]), "status");
        assert_eq!(why(500, &[("cache-control", "public, max-age=60")]), "status");
        assert_eq!(why(200, &[("cache-control", "No-Store")]), "no-store");
        assert_eq!(why(200, &[("cache-control", "no-store, must-understand")]), "");
        assert_eq!(why(200, &[("cache-control", "private=\"x\"")]), "private");
        assert_eq!(why(200, &[("set-cookie", "a=b")]), "set-cookie");
        assert_eq!(why(200, &[("set-cookie", "a=b"), ("cache-control", "public")]), "");
        assert_eq!(why(200, &[("vary", "accept, *")]), "vary-star");
        assert_eq!(why(200, &[("vary", "accept")]), "");
        assert_eq!(why(200, &[("content-encoding", "gzip")]), "content-coding");
        assert_eq!(why(200, &[("content-encoding", "identity")]), "");
        assert_eq!(why(200, &[("content-range", "bytes 0-1/2")]), "content-range");
        let sent = map(&[("authorization", "x")]);
        let store = |fields| assess(&sent, 200, &map(fields), NOW, NOW).store;
        assert_eq!(store(&[]), Storable::No(NoStoreReason::Authorization));
        assert_eq!(store(&[("cache-control", "public")]), Storable::Yes);
    }

    #[test]
    fn a_304_renews_the_head_but_not_what_the_bytes_are() {
        let stored: Vec<(String, Vec<u8>)> = [
            ("etag", "\"1\""),
            ("content-type", "a/b"),
            ("cache-control", "max-age=1"),
            ("cache-control", "public"),
            ("date", "old"),
            ("age", "9"),
            ("link", "kept"),
        ]
        .map(|(name, value)| (name.to_owned(), value.into()))
        .to_vec();
        let fresh = map(&[
            ("cache-control", "max-age=60"),
            ("etag", "W/\"1\""),
            ("content-type", "c/d"),
            ("content-length", "0"),
            ("date", "new"),
            ("set-cookie", "x"),
            ("last-modified", "later"),
        ]);
        let merged = header_map(&merge_304(&stored, &fresh));
        let all =
            |name: &str| -> Vec<_> { merged.get_all(name).iter().map(|v| v.to_str().unwrap()).collect() };
        assert_eq!(all("etag"), ["\"1\""]);
        assert_eq!(all("content-type"), ["a/b"]);
        assert_eq!(all("cache-control"), ["max-age=60"]);
        assert_eq!(all("date"), ["new"]);
        assert_eq!(all("link"), ["kept"]);
        assert_eq!(all("last-modified"), ["later"]);
        assert_eq!(merged.len(), 6);
    }

    #[test]
    fn without_a_tag_a_304_moves_no_date() {
        let stored = vec![("last-modified".to_owned(), b"then".to_vec())];
        assert_eq!(merge_304(&stored, &map(&[("last-modified", "later"), ("etag", "\"2\"")])), stored);
    }

    proptest! {
        #[test]
        fn nothing_a_head_says_is_a_problem(
            cc in "[ -~]{0,40}", age in "[ -~]{0,24}", expires in "[ -~]{0,32}", at in any::<u64>(), took in any::<u64>(),
        ) {
            let headers = map(&[("cache-control", &cc), ("age", &age), ("expires", &expires), ("date", &date(0))]);
            let facts = assess(&HeaderMap::new(), 200, &headers, Timestamp(at.saturating_sub(took)), Timestamp(at));
            let _ = (facts.fresh_until(), facts.age(Timestamp(u64::MAX)));
            prop_assert!(facts.lifetime.as_secs() <= 253_402_300_800);
        }
    }
}
