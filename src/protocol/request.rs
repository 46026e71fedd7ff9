//! The front door: what a request must be before anything looks at what it asks for.
//!
//! hyper parses well but lets through what this product has no use for and others were hurt by: bodies on
//! GET, codings stacked on chunked, foreign authorities, hosts that are not ours. Nothing here is repaired.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};

use super::target::{CanonicalTarget, TargetError, parse_target};

/// What the connection and the configuration know.
#[derive(Clone, Copy, Debug)]
pub struct Door<'a> {
    /// The name the client asked for in its TLS hello, if any.
    pub sni: Option<&'a str>,
    /// The host names we answer to, without port; empty: any.
    pub names: &'a [String],
    /// Whether the transport still has body bytes to deliver (`!Body::is_end_stream()`): HTTP/2 needs no
    /// header to announce one.
    pub body: bool,
}

/// Why a request is refused at the door. All are the client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalReason {
    /// Not GET or HEAD.
    Method,
    /// Not HTTP/1.0, HTTP/1.1 or HTTP/2.
    Version,
    /// `Transfer-Encoding` on a request that has no body.
    TransferEncoding,
    /// A `Content-Length` that is not a single `0`.
    ContentLength,
    /// Body bytes on GET or HEAD.
    Body,
    /// Any expectation (RFC 9110 §10.1.1).
    Expect,
    /// No `Host`.
    NoHost,
    /// More than one `Host`.
    TwoHosts,
    /// A `Host` that is not a host.
    BadHost,
    /// The absolute form names another authority or scheme (RFC 9112 §3.2.2).
    ForeignAuthority,
    /// `Host` differs from the name of the TLS connection.
    NotThisConnection,
    /// `Host` is none of our names.
    NotOurName,
    /// The target.
    Target(TargetError),
}

impl RefusalReason {
    /// The word of this refusal in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Version => "version",
            Self::TransferEncoding => "transfer-encoding",
            Self::ContentLength => "content-length",
            Self::Body => "body",
            Self::Expect => "expect",
            Self::NoHost => "no-host",
            Self::TwoHosts => "two-hosts",
            Self::BadHost => "bad-host",
            Self::ForeignAuthority => "foreign-authority",
            Self::NotThisConnection => "host-not-sni",
            Self::NotOurName => "host-not-ours",
            Self::Target(error) => error.as_str(),
        }
    }
}

/// A refused request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The answer's status.
    pub status: StatusCode,
    /// Why.
    pub reason: RefusalReason,
    /// Whether the connection must end with this answer, because its next bytes cannot be trusted to be a
    /// request.
    pub close: bool,
    /// Whether the answer carries `Allow: GET, HEAD` (RFC 9110 §15.5.6).
    pub allow: bool,
}

impl Refusal {
    const fn closing(status: StatusCode, reason: RefusalReason) -> Self {
        Self { status, reason, close: true, allow: false }
    }

    const fn bad(reason: RefusalReason) -> Self {
        Self::closing(StatusCode::BAD_REQUEST, reason)
    }

    const fn misdirected(reason: RefusalReason) -> Self {
        Self { status: StatusCode::MISDIRECTED_REQUEST, reason, close: false, allow: false }
    }
}

/// A request that came through the door.
#[derive(Clone, Debug)]
pub struct Admitted<'p> {
    /// What it asks for.
    pub target: CanonicalTarget<'p>,
    /// What its fields ask besides.
    pub wants: Wants,
}

/// Which fields a request has that can change its answer. Nearly every request has none, and then nobody needs to
/// look them up one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// A precondition (RFC 9110 §13.1.1 to §13.1.4).
    pub condition: bool,
    /// `Range`; `If-Range` means nothing without it.
    pub range: bool,
    /// `Cache-Control` or `Pragma`.
    pub freshness: bool,
    /// `CDN-Loop`.
    pub looped: bool,
}

impl Wants {
    /// Whether it asks for nothing but the file, whole.
    pub const fn is_plain(self) -> bool {
        !self.condition && !self.range
    }
}

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// What the door looks at, gathered in one pass over the fields: a look-up for each that could be there costs
/// several times as much.
#[derive(Default)]
struct Seen<'p> {
    host: Option<&'p HeaderValue>,
    hosts: usize,
    length: Option<&'p HeaderValue>,
    lengths: usize,
    coded: bool,
    expects: bool,
    wants: Wants,
}

impl<'p> Seen<'p> {
    fn of(headers: &'p HeaderMap) -> Self {
        let mut seen = Self::default();
        for (name, value) in headers {
            match *name {
                header::HOST => {
                    seen.host = seen.host.or(Some(value));
                    seen.hosts += 1;
                }
                header::CONTENT_LENGTH => {
                    seen.length = seen.length.or(Some(value));
                    seen.lengths += 1;
                }
                header::TRANSFER_ENCODING => seen.coded = true,
                header::EXPECT => seen.expects = true,
                header::IF_MATCH
                | header::IF_NONE_MATCH
                | header::IF_MODIFIED_SINCE
                | header::IF_UNMODIFIED_SINCE => seen.wants.condition = true,
                header::RANGE => seen.wants.range = true,
                header::CACHE_CONTROL | header::PRAGMA => seen.wants.freshness = true,
                _ => seen.wants.looped |= *name == CDN_LOOP,
            }
        }
        seen
    }
}

/// Checks a request's head; what it returns is the only way to its path. No allocation on the usual way.
///
/// # Errors
/// [`Refusal`]: answer it as it says.
pub fn check_request<'p>(parts: &'p Parts, door: &Door<'_>) -> Result<Admitted<'p>, Refusal> {
    let seen = Seen::of(&parts.headers);
    if !matches!(parts.version, Version::HTTP_10 | Version::HTTP_11 | Version::HTTP_2) {
        return Err(Refusal::closing(StatusCode::HTTP_VERSION_NOT_SUPPORTED, RefusalReason::Version));
    }
    check_method(parts, &seen, door)?;
    if let Some(reason) = body_reason(&seen, door) {
        return Err(Refusal::bad(reason));
    }
    if seen.expects {
        return Err(Refusal::closing(StatusCode::EXPECTATION_FAILED, RefusalReason::Expect));
    }
    check_host(parts, &seen, door)?;
    let target = parse_target(&parts.uri).map_err(|error| match error {
        TargetError::TooLong => Refusal::closing(StatusCode::URI_TOO_LONG, RefusalReason::Target(error)),
        _ => Refusal::bad(RefusalReason::Target(error)),
    })?;
    Ok(Admitted { target, wants: seen.wants })
}

/// Whether the answer must end the connection although the request is in order: HTTP/1.0, where
/// intermediaries are known to pass `keep-alive` on without understanding it (RFC 9112 §C.2.2).
pub fn must_close(parts: &Parts) -> bool {
    parts.version == Version::HTTP_10
}

fn check_method(parts: &Parts, seen: &Seen<'_>, door: &Door<'_>) -> Result<(), Refusal> {
    if parts.method == Method::GET || parts.method == Method::HEAD {
        return Ok(());
    }
    // With a body behind it the connection cannot be kept: we will not read it. A tunnel is never opened.
    let close = parts.method == Method::CONNECT || body_reason(seen, door).is_some();
    Err(Refusal { status: StatusCode::METHOD_NOT_ALLOWED, reason: RefusalReason::Method, close, allow: true })
}

/// A body nobody reads would be parsed as the next request (CVE-2025-4366), so none is accepted.
fn body_reason(seen: &Seen<'_>, door: &Door<'_>) -> Option<RefusalReason> {
    if seen.coded {
        return Some(RefusalReason::TransferEncoding);
    }
    if seen.length.is_some_and(|length| length.as_bytes() != b"0" || seen.lengths > 1) {
        return Some(RefusalReason::ContentLength);
    }
    door.body.then_some(RefusalReason::Body)
}

fn check_host(parts: &Parts, seen: &Seen<'_>, door: &Door<'_>) -> Result<(), Refusal> {
    let field = seen.host.map(|value| value.to_str().ok().and_then(Host::parse));
    if seen.hosts > 1 {
        return Err(Refusal::bad(RefusalReason::TwoHosts));
    }
    let target = parts.uri.authority().map(|authority| Host::parse(authority.as_str()));
    if parts.uri.scheme_str().is_some_and(|scheme| scheme != "http" && scheme != "https") {
        return Err(Refusal::bad(RefusalReason::ForeignAuthority));
    }
    let host = match (field, target) {
        (Some(None), _) | (None, Some(None)) => return Err(Refusal::bad(RefusalReason::BadHost)),
        (Some(Some(field)), Some(target)) => {
            if !target.is_some_and(|target| target.same(field, parts.uri.scheme_str())) {
                return Err(Refusal::bad(RefusalReason::ForeignAuthority));
            }
            field
        }
        (Some(Some(field)), None) => field,
        // HTTP/2 carries the host in `:authority` (RFC 9113 §8.3.1); HTTP/1 must have the field.
        (None, Some(Some(target))) if parts.version == Version::HTTP_2 => target,
        (None, _) => return Err(Refusal::bad(RefusalReason::NoHost)),
    };
    if door.sni.is_some_and(|sni| !sni.eq_ignore_ascii_case(host.name)) {
        return Err(Refusal::misdirected(RefusalReason::NotThisConnection));
    }
    if !door.names.is_empty() && !door.names.iter().any(|name| name.eq_ignore_ascii_case(host.name)) {
        return Err(Refusal::misdirected(RefusalReason::NotOurName));
    }
    Ok(())
}

/// `uri-host [ ":" port ]` (RFC 9110 §7.2), the host without the brackets of an IPv6 address.
#[derive(Clone, Copy)]
struct Host<'a> {
    name: &'a str,
    port: Option<u16>,
}

impl<'a> Host<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (name, port) = rest.split_once(']')?;
                let in_address = |byte: u8| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.';
                if !name.bytes().all(in_address) {
                    return None;
                }
                (name, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
            }
            None => {
                // One pass: every request takes it.
                let in_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
                match text.bytes().position(|byte| !in_name(byte)) {
                    None => (text, None),
                    Some(end) => {
                        let (name, rest) = text.split_at_checked(end)?;
                        (name, Some(rest.strip_prefix(':')?))
                    }
                }
            }
        };
        let port = match port {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            Some(_) => return None,
            None => None,
        };
        // A trailing dot is the same name, and SNI never has it (RFC 6066 §3).
        let name = name.strip_suffix('.').unwrap_or(name);
        (!name.is_empty()).then_some(Self { name, port })
    }

    fn same(self, other: Self, scheme: Option<&str>) -> bool {
        let usual = match scheme {
            Some("https") => Some(443),
            Some("http") => Some(80),
            _ => None,
        };
        self.name.eq_ignore_ascii_case(other.name) && self.port.or(usual) == other.port.or(usual)
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const OPEN: Door<'_> = Door { sni: None, names: &[], body: false };

    fn parts(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn outcome(method: &str, uri: &str, headers: &[(&str, &str)]) -> (u16, &'static str, bool) {
        refused(&parts(method, uri, headers), &OPEN)
    }

    fn refused(parts: &Parts, door: &Door<'_>) -> (u16, &'static str, bool) {
        match check_request(parts, door) {
            Ok(_) => (200, "", false),
            Err(refusal) => (refusal.status.as_u16(), refusal.reason.as_str(), refusal.close),
        }
    }

    const HOST: (&str, &str) = ("host", "handler.example:8443");
    const FINE: (u16, &str, bool) = (200, "", false);

    #[test]
    fn an_agents_request_goes_through() {
        let override_and_more = ("x-http-method-override", "PURGE");
        assert_eq!(outcome("GET", "/a", &[HOST]), FINE);
        assert_eq!(outcome("HEAD", "/a", &[HOST, ("content-length", "0")]), FINE);
        assert_eq!(outcome("GET", "/a", &[HOST, override_and_more, ("upgrade", "websocket")]), FINE);
    }

    #[test]
    fn only_get_and_head_are_methods_here() {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PURGE", "get", "FOO", "TRACE"] {
            assert_eq!(outcome(method, "/a", &[HOST]), (405, "method", false), "{method}");
        }
        assert_eq!(outcome("OPTIONS", "*", &[HOST]), (405, "method", false));
        assert_eq!(outcome("CONNECT", "127.0.0.1:22", &[HOST]), (405, "method", true));
        assert_eq!(outcome("POST", "/a", &[HOST, ("content-length", "6")]), (405, "method", true));
        let refusal = check_request(&parts("POST", "/a", &[HOST]), &OPEN).unwrap_err();
        assert!(refusal.allow);
    }

    #[test]
    fn a_body_on_get_ends_the_connection() {
        for value in ["6", "00", "-1", "+0", "0, 0", ""] {
            assert_eq!(
                outcome("GET", "/a", &[HOST, ("content-length", value)]),
                (400, "content-length", true),
                "{value}"
            );
        }
        let twice = [HOST, ("content-length", "0"), ("content-length", "0")];
        assert_eq!(outcome("GET", "/a", &twice), (400, "content-length", true));
        for coding in ["chunked", "gzip, chunked", "identity"] {
            let refused = (400, "transfer-encoding", true);
            assert_eq!(outcome("GET", "/a", &[HOST, ("transfer-encoding", coding)]), refused);
        }
        let unannounced = Door { body: true, ..OPEN };
        assert_eq!(refused(&parts("GET", "/a", &[HOST]), &unannounced), (400, "body", true));
    }

    #[test]
    fn nothing_is_expected_of_us() {
        assert_eq!(outcome("GET", "/a", &[HOST, ("expect", "100-continue")]), (417, "expect", true));
    }

    #[test]
    fn there_is_exactly_one_host_and_it_is_one() {
        assert_eq!(outcome("GET", "/a", &[]), (400, "no-host", true));
        assert_eq!(outcome("GET", "/a", &[HOST, HOST]), (400, "two-hosts", true));
        for host in [
            "a/b@c", "user@a", "", "a b", "a:", "a:99999", "a:8x", "a:+1", "[::1", "[zz]", "[::1]x", "a,b",
            ".",
        ] {
            assert_eq!(outcome("GET", "/a", &[("host", host)]), (400, "bad-host", true), "{host}");
        }
        for host in ["a", "a.", "127.0.0.1:80", "[::1]:8443", "under_score"] {
            assert_eq!(outcome("GET", "/a", &[("host", host)]), FINE, "{host}");
        }
    }

    #[test]
    fn the_absolute_form_must_be_about_us() {
        assert_eq!(outcome("GET", "https://handler.example:8443/a", &[HOST]), FINE);
        assert_eq!(outcome("GET", "http://HANDLER.example:80/a", &[("host", "handler.example")]), FINE);
        let foreign = (400, "foreign-authority", true);
        assert_eq!(outcome("GET", "http://evil/a", &[HOST]), foreign);
        assert_eq!(outcome("GET", "http://evil/", &[HOST]), foreign);
        assert_eq!(outcome("GET", "http://u@handler.example:8443/a", &[HOST]), foreign);
        assert_eq!(outcome("GET", "https://handler.example:9/a", &[HOST]), foreign);
        assert_eq!(outcome("GET", "ftp://handler.example:8443/a", &[HOST]), foreign);
        assert_eq!(outcome("GET", "evil:443", &[HOST]), foreign);
        assert_eq!(outcome("GET", "*", &[HOST]), (400, "target-not-a-path", true));
    }

    #[test]
    fn http_2_names_its_host_in_the_target() {
        let mut two = parts("GET", "https://handler.example/a", &[]);
        assert_eq!(refused(&two, &OPEN), (400, "no-host", true));
        two.version = Version::HTTP_2;
        assert_eq!(refused(&two, &OPEN), FINE);
    }

    #[test]
    fn a_request_for_another_name_is_misdirected() {
        let request = parts("GET", "/a", &[HOST]);
        let sni = |sni| Door { sni: Some(sni), ..OPEN };
        assert_eq!(refused(&request, &sni("Handler.Example")), FINE);
        assert_eq!(refused(&request, &sni("other.example")), (421, "host-not-sni", false));
        let names = ["branch.example".to_owned(), "handler.example".to_owned()];
        assert_eq!(refused(&request, &Door { names: &names, ..OPEN }), FINE);
        assert_eq!(refused(&request, &Door { names: &names[..1], ..OPEN }), (421, "host-not-ours", false));
    }

    #[test]
    fn bad_targets_close_and_long_ones_say_so() {
        assert_eq!(outcome("GET", "/a/../b", &[HOST]), (400, "target-dot-segment", true));
        let long = format!("/{}", "a".repeat(5_000));
        assert_eq!(outcome("GET", &long, &[HOST]), (414, "target-too-long", true));
    }

    #[test]
    fn old_versions_are_answered_once_or_not_at_all() {
        let mut old = parts("GET", "/a", &[HOST]);
        old.version = Version::HTTP_10;
        assert_eq!(refused(&old, &OPEN), FINE);
        assert!(must_close(&old));
        old.version = Version::HTTP_09;
        assert_eq!(refused(&old, &OPEN), (505, "version", true));
    }
}
