//! Validators and conditions (RFC 9110 §8.8 and §13): is it still the same, and may that be relied on.

use http::header::{
    DATE, ETAG, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
    LAST_MODIFIED,
};
use http::{HeaderMap, HeaderValue};

use crate::base::clock::Timestamp;

/// An entity tag (RFC 9110 §8.8.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntityTag {
    weak: bool,
    /// The opaque part with its quotes.
    quoted: Box<str>,
}

impl EntityTag {
    /// Reads one entity tag; `None` unless `text` is exactly that. Visible ASCII only: what is not could
    /// not be told apart from damage.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (tag, rest) = Self::take(text.trim_ascii())?;
        rest.is_empty().then_some(tag)
    }

    /// The tag at the front of a list, and what stands behind it.
    fn take(text: &[u8]) -> Option<(Self, &[u8])> {
        // "W" is case-sensitive (§8.8.3).
        let (weak, quoted) = match text.strip_prefix(b"W/") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let inner = quoted.strip_prefix(b"\"")?;
        let end = inner.iter().position(|&byte| byte == b'"')?;
        let (quoted, rest) = quoted.split_at_checked(end + 2)?;
        let quoted = std::str::from_utf8(quoted).ok()?;
        // etagc: %x21 / %x23-7E.
        quoted
            .bytes()
            .all(|byte| byte.is_ascii_graphic())
            .then(|| (Self { weak, quoted: quoted.into() }, rest))
    }

    /// Whether it only promises "as good as", not "the same bytes".
    pub const fn is_weak(&self) -> bool {
        self.weak
    }

    /// Strong comparison: the same bytes (§8.8.3.2).
    pub fn strong_eq(&self, other: &Self) -> bool {
        !self.weak && !other.weak && self.quoted == other.quoted
    }

    /// Weak comparison: as good as the same (§8.8.3.2).
    pub fn weak_eq(&self, other: &Self) -> bool {
        self.quoted == other.quoted
    }

    /// As a field value.
    pub fn to_value(&self) -> Option<HeaderValue> {
        let text = if self.weak { format!("W/{}", self.quoted) } else { self.quoted.to_string() };
        HeaderValue::try_from(text).ok()
    }
}

/// What tells one representation of a resource from the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    /// The entity tag.
    pub etag: Option<EntityTag>,
    /// `Last-Modified`, whole seconds.
    pub last_modified: Option<Timestamp>,
    /// `Date` of the reply that carried them: says how far `last_modified` can be trusted.
    pub date: Option<Timestamp>,
}

impl Validators {
    /// The validators of a reply. A field that is malformed or there twice is no validator.
    pub fn of(headers: &HeaderMap) -> Self {
        Self {
            etag: single(headers, &ETAG).and_then(|value| EntityTag::parse(value.as_bytes())),
            last_modified: date(headers, &LAST_MODIFIED),
            date: date(headers, &DATE),
        }
    }

    /// `Last-Modified` where it is strong: a full minute before `Date`, so that the resource cannot have
    /// changed twice within its second unnoticed (§8.8.2.2 asks for one second on synchronised clocks, and
    /// sixty otherwise).
    fn strong_date(&self) -> Option<Timestamp> {
        let (modified, date) = (self.last_modified?, self.date?);
        (date.0 >= modified.0.saturating_add(60_000)).then_some(modified)
    }
}

/// What the conditions of a request come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conditional {
    /// Answer as if there were none.
    Proceed,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// Evaluates the conditions of a GET or HEAD against a representation that exists, in the order of
/// RFC 9110 §13.2.2. `If-Range` comes after this, with [`decide_if_range`].
pub fn decide_conditional(request: &HeaderMap, current: &Validators) -> Conditional {
    if request.contains_key(IF_MATCH) {
        if !listed(request, &IF_MATCH, current, EntityTag::strong_eq) {
            return Conditional::Failed;
        }
    } else if let (Some(since), Some(modified)) = (date(request, &IF_UNMODIFIED_SINCE), current.last_modified)
        && modified > since
    {
        return Conditional::Failed;
    }
    if request.contains_key(IF_NONE_MATCH) {
        if listed(request, &IF_NONE_MATCH, current, EntityTag::weak_eq) {
            return Conditional::NotModified;
        }
    } else if let (Some(since), Some(modified)) = (date(request, &IF_MODIFIED_SINCE), current.last_modified)
        && modified <= since
    {
        return Conditional::NotModified;
    }
    Conditional::Proceed
}

/// Whether the request's ranges count (RFC 9110 §13.1.5): there is no `If-Range`, or it names exactly this
/// representation by a strong validator. Anything else: the whole body.
pub fn decide_if_range(request: &HeaderMap, current: &Validators) -> bool {
    if !request.contains_key(IF_RANGE) {
        return true;
    }
    let Some(value) = single(request, &IF_RANGE) else { return false };
    match EntityTag::parse(value.as_bytes()) {
        Some(tag) => current.etag.as_ref().is_some_and(|etag| etag.strong_eq(&tag)),
        None => parse_date(value).is_some_and(|asked| current.strong_date() == Some(asked)),
    }
}

/// The `If-Range` to resume a transfer with, where the representation has a strong validator at all.
pub fn resume_validator(of: &Validators) -> Option<HeaderValue> {
    match &of.etag {
        Some(etag) if !etag.weak => etag.to_value(),
        // A weak tag says that the origin does not promise equal bytes; then its date does not either.
        Some(_) => None,
        None => of.strong_date().and_then(render_date),
    }
}

/// Whether two replies carry the same representation, byte for byte, as far as validators can prove it:
/// equal strong tags, or, where neither has a tag, equal strong dates.
pub fn same_representation(a: &Validators, b: &Validators) -> bool {
    match (&a.etag, &b.etag) {
        (Some(one), Some(other)) => one.strong_eq(other),
        (None, None) => a.strong_date().is_some() && a.strong_date() == b.strong_date(),
        _ => false,
    }
}

/// Whether a 304 is about the stored reply (RFC 9111 §4.3.4): what validators it carries are those. One that
/// names another tag or date is a lie or about something else; fetch anew and change nothing.
pub fn confirms(stored: &Validators, not_modified: &HeaderMap) -> bool {
    let reply = Validators::of(not_modified);
    match (&stored.etag, &reply.etag) {
        (Some(ours), Some(theirs)) => ours.weak_eq(theirs),
        // A broken or repeated tag is none, but it is not silence either.
        (_, None) if not_modified.contains_key(ETAG) => false,
        (None, Some(_)) => false,
        (Some(_), None) => true,
        (None, None) => reply.last_modified.is_none() || reply.last_modified == stored.last_modified,
    }
}

/// An HTTP date in any of its three forms (RFC 9110 §5.6.7).
pub fn parse_date(value: &HeaderValue) -> Option<Timestamp> {
    httpdate::parse_http_date(value.to_str().ok()?.trim()).ok().map(Timestamp::from_system)
}

/// An HTTP date in the form that is sent: IMF-fixdate.
pub fn render_date(at: Timestamp) -> Option<HeaderValue> {
    // Behind the year 9999 httpdate would panic, and no date is meant.
    const YEAR_10000: u64 = 253_402_300_800_000;
    if at.0 >= YEAR_10000 {
        return None;
    }
    HeaderValue::try_from(httpdate::fmt_http_date(at.to_system())).ok()
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// A date field; ignored when malformed or there twice (§13.1.3, §13.1.4).
fn date(headers: &HeaderMap, name: &HeaderName) -> Option<Timestamp> {
    single(headers, name).and_then(parse_date)
}

/// Whether the list of tags in `name` is `*` or has the current tag in it. A broken list counts up to where
/// it breaks.
fn listed(
    request: &HeaderMap,
    name: &HeaderName,
    current: &Validators,
    equal: fn(&EntityTag, &EntityTag) -> bool,
) -> bool {
    request.get_all(name).iter().any(|value| {
        let mut rest = value.as_bytes().trim_ascii();
        if rest == b"*" {
            return true;
        }
        let Some(etag) = &current.etag else { return false };
        while let Some((tag, behind)) = EntityTag::take(rest) {
            if equal(&tag, etag) {
                return true;
            }
            let behind = behind.trim_ascii_start();
            let Some(next) = behind.strip_prefix(b",") else { return false };
            rest = next.trim_ascii_start();
            while let Some(next) = rest.strip_prefix(b",") {
                rest = next.trim_ascii_start();
            }
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLY: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATE: &str = "Sun, 06 Nov 1994 08:59:37 GMT";

    fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn validators(fields: &[(&'static str, &str)]) -> Validators {
        Validators::of(&map(fields))
    }

    #[test]
    fn entity_tags_are_read_strictly() {
        for text in ["\"\"", "\"a\"", "W/\"a\"", " \"a,b\" ", "\"!#~\""] {
            assert!(EntityTag::parse(text.as_bytes()).is_some(), "{text}");
        }
        for text in
            ["", "a", "\"", "\"a", "a\"", "w/\"a\"", "W/", "\"a b\"", "\"a\"b", "\"a\", \"b\"", "*", "\"ä\""]
        {
            assert!(EntityTag::parse(text.as_bytes()).is_none(), "{text}");
        }
    }

    /// The table of RFC 9110 §8.8.3.2.
    #[test]
    fn tags_compare_as_the_table_says() {
        for (one, other, strong, weak) in [
            ("W/\"1\"", "W/\"1\"", false, true),
            ("W/\"1\"", "W/\"2\"", false, false),
            ("W/\"1\"", "\"1\"", false, true),
            ("\"1\"", "\"1\"", true, true),
        ] {
            let tag = |text: &str| EntityTag::parse(text.as_bytes()).unwrap();
            assert_eq!(tag(one).strong_eq(&tag(other)), strong, "{one} {other}");
            assert_eq!(tag(one).weak_eq(&tag(other)), weak, "{one} {other}");
        }
    }

    #[test]
    fn conditions_are_decided_in_their_order() {
        use Conditional::{Failed, NotModified, Proceed};
        let current = validators(&[("etag", "\"v2\""), ("last-modified", LATE)]);
        for (request, expected) in [
            (&[][..], Proceed),
            (&[("if-match", "\"v2\"")], Proceed),
            (&[("if-match", "W/\"v2\"")], Failed),
            (&[("if-match", "\"v1\", \"v2\"")], Proceed),
            (&[("if-match", "*")], Proceed),
            (&[("if-match", "\"v1\"")], Failed),
            (&[("if-match", "rubbish")], Failed),
            (&[("if-match", "\"v2\""), ("if-unmodified-since", EARLY)], Proceed),
            (&[("if-unmodified-since", EARLY)], Failed),
            (&[("if-unmodified-since", LATE)], Proceed),
            (&[("if-unmodified-since", "yesterday")], Proceed),
            (&[("if-none-match", "\"v2\"")], NotModified),
            (&[("if-none-match", "W/\"v2\"")], NotModified),
            (&[("if-none-match", "\"v1\",, \"v2\"")], NotModified),
            (&[("if-none-match", "\"v1\""), ("if-none-match", "\"v2\"")], NotModified),
            (&[("if-none-match", "*")], NotModified),
            (&[("if-none-match", "\"v1\"")], Proceed),
            (&[("if-none-match", "\"v1\""), ("if-modified-since", LATE)], Proceed),
            (&[("if-modified-since", LATE)], NotModified),
            (&[("if-modified-since", EARLY)], Proceed),
            (&[("if-modified-since", "Sunday, 06-Nov-94 08:59:37 GMT")], NotModified),
            (&[("if-match", "\"v1\""), ("if-none-match", "\"v2\"")], Failed),
        ] {
            assert_eq!(decide_conditional(&map(request), &current), expected, "{request:?}");
        }
    }

    #[test]
    fn what_has_no_validator_is_never_unmodified() {
        let bare = Validators::default();
        let request = [("if-none-match", "\"v2\""), ("if-modified-since", LATE)];
        assert_eq!(decide_conditional(&map(&request), &bare), Conditional::Proceed);
        assert_eq!(decide_conditional(&map(&[("if-match", "\"v2\"")]), &bare), Conditional::Failed);
    }

    #[test]
    fn if_range_wants_a_strong_validator() {
        let tagged = validators(&[("etag", "\"v2\""), ("last-modified", EARLY), ("date", LATE)]);
        let weak = validators(&[("etag", "W/\"v2\"")]);
        let young = validators(&[("last-modified", LATE), ("date", LATE)]);
        let asks = |value| map(&[("if-range", value)]);
        assert!(decide_if_range(&map(&[]), &tagged));
        assert!(decide_if_range(&asks("\"v2\""), &tagged));
        assert!(!decide_if_range(&asks("\"v1\""), &tagged));
        assert!(!decide_if_range(&asks("W/\"v2\""), &tagged));
        assert!(!decide_if_range(&asks("W/\"v2\""), &weak));
        assert!(decide_if_range(&asks(EARLY), &tagged));
        assert!(!decide_if_range(&asks(LATE), &tagged));
        assert!(!decide_if_range(&asks(LATE), &young));
        assert!(!decide_if_range(&asks("rubbish"), &tagged));
    }

    #[test]
    fn a_transfer_is_resumed_only_on_a_strong_validator() {
        let resume = |fields: &[(&'static str, &str)]| {
            resume_validator(&validators(fields)).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(resume(&[("etag", "\"v1\"")]).as_deref(), Some("\"v1\""));
        assert_eq!(resume(&[("last-modified", EARLY), ("date", LATE)]).as_deref(), Some(EARLY));
        assert_eq!(resume(&[("etag", "W/\"v1\""), ("last-modified", EARLY), ("date", LATE)]), None);
        assert_eq!(resume(&[("last-modified", LATE), ("date", LATE)]), None);
        assert_eq!(resume(&[("last-modified", EARLY)]), None);
        assert_eq!(resume(&[("etag", "\"a\""), ("etag", "\"b\"")]), None);
    }

    #[test]
    fn the_same_representation_is_only_believed_with_proof() {
        let tag = |text| validators(&[("etag", text)]);
        let dated = validators(&[("last-modified", EARLY), ("date", LATE)]);
        assert!(same_representation(&tag("\"a\""), &tag("\"a\"")));
        assert!(!same_representation(&tag("W/\"a\""), &tag("W/\"a\"")));
        assert!(!same_representation(&tag("\"a\""), &dated));
        assert!(same_representation(&dated, &dated));
        assert!(!same_representation(&Validators::default(), &Validators::default()));
    }

    #[test]
    fn a_304_must_be_about_what_is_stored() {
        let tagged = validators(&[("etag", "\"v1\""), ("last-modified", EARLY)]);
        let dated = validators(&[("last-modified", EARLY)]);
        for (stored, reply, expected) in [
            (&tagged, &[][..], true),
            (&tagged, &[("etag", "\"v1\"")], true),
            (&tagged, &[("etag", "W/\"v1\""), ("last-modified", LATE)], true),
            (&tagged, &[("etag", "\"v2\"")], false),
            (&tagged, &[("etag", "rubbish")], false),
            (&dated, &[("last-modified", EARLY)], true),
            (&dated, &[("last-modified", LATE)], false),
            (&dated, &[("etag", "\"v1\"")], false),
        ] {
            assert_eq!(confirms(stored, &map(reply)), expected, "{reply:?}");
        }
    }

    #[test]
    fn dates_of_any_year_are_rendered_or_not() {
        assert_eq!(render_date(Timestamp(784_111_777_000)).unwrap(), EARLY);
        assert_eq!(render_date(Timestamp(u64::MAX)), None);
    }
}
