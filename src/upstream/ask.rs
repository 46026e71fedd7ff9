//! What is asked of an upstream, and the request that says it.

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, PROXY_AUTHORIZATION, RANGE, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE, USER_AGENT, VIA,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::Empty;

use super::FetchError;
use super::place::Place;
use crate::protocol::reply::Asked;

/// Ours, or the connection's: never taken from [`Ask::headers`].
const OURS: [HeaderName; 15] = [
    HOST,
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    CONTENT_LENGTH,
    EXPECT,
    RANGE,
    IF_RANGE,
    ACCEPT_ENCODING,
    VIA,
    HeaderName::from_static("cdn-loop"),
];

const AGENT: HeaderValue = HeaderValue::from_static(concat!("waypost/", env!("CARGO_PKG_VERSION")));

/// One GET. Nothing of an agent's request goes upstream but what stands in here.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// Path relative to the upstream's base, canonical and percent-encoded; a slash in front is ignored.
    pub path: String,
    /// Query without the question mark.
    pub query: Option<String>,
    /// Forwarded and conditional headers. Those that belong to the connection, the range and the coding are ours
    /// and dropped here.
    pub headers: HeaderMap,
    /// The bytes wanted.
    pub range: Option<Span>,
    /// Tokens for `CDN-Loop` (RFC 8586): those that came in, then our own.
    pub loop_tokens: Vec<String>,
}

/// A range of bytes, half-open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// First byte wanted.
    pub start: u64,
    /// First byte not wanted; `None` to the end. At least `start + 1`.
    pub end: Option<u64>,
    /// Strong validator: the whole comes instead if it no longer fits (RFC 9110 §13.1.5).
    pub if_range: Option<HeaderValue>,
}

impl Ask {
    /// What the reply is judged against.
    pub(super) fn asked(&self) -> Asked {
        let range = self.range.as_ref();
        Asked {
            method: Method::GET,
            range: range.map(|span| (span.start, span.end)),
            if_range_sent: range.is_some_and(|span| span.if_range.is_some()),
            conditional: [IF_NONE_MATCH, IF_MODIFIED_SINCE]
                .iter()
                .any(|name| self.headers.contains_key(name)),
        }
    }

    /// The request target below `base` (which begins and ends with a slash).
    pub(super) fn target(&self, base: &str) -> Result<PathAndQuery, FetchError> {
        let path = self.path.strip_prefix('/').unwrap_or(&self.path);
        let sound =
            |text: &str, not: &[u8]| text.bytes().all(|byte| byte.is_ascii_graphic() && !not.contains(&byte));
        if !sound(path, b"#?\\") || !self.query.as_deref().is_none_or(|query| sound(query, b"#")) {
            return Err(FetchError::Target);
        }
        let query = self.query.as_ref().map_or_else(String::new, |query| format!("?{query}"));
        format!("{base}{path}{query}").parse().map_err(|_| FetchError::Target)
    }

    /// The request for `target` at `place`. `own`: the place is the upstream itself, not where a redirect led, so it
    /// may see credentials.
    pub(super) fn request(
        &self,
        place: &Place,
        target: &PathAndQuery,
        own: bool,
        via: &HeaderValue,
    ) -> Result<Request<Empty<Bytes>>, FetchError> {
        let mut headers = self.headers.clone();
        for name in named_in_connection(&headers).iter().chain(&OURS) {
            headers.remove(name);
        }
        if !own {
            headers.remove(AUTHORIZATION);
            headers.remove(COOKIE);
        }
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| FetchError::Target);
        headers.insert(HOST, value(&place.authority())?);
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(VIA, via.clone());
        headers.entry(USER_AGENT).or_insert(AGENT);
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        if !self.loop_tokens.is_empty() {
            headers.insert("cdn-loop", value(&render_loop(&self.loop_tokens))?);
        }
        if let Some(span) = &self.range {
            headers.insert(RANGE, value(&render_range(span))?);
            if let Some(validator) = &span.if_range {
                headers.insert(IF_RANGE, validator.clone());
            }
        }
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = Uri::from(target.clone());
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// One `cdn-info` for each node the request went through (RFC 8586 §2).
fn render_loop(tokens: &[String]) -> String {
    let infos: Vec<_> = tokens.iter().map(|token| format!("waypost; fill={token}")).collect();
    infos.join(", ")
}

fn render_range(span: &Span) -> String {
    match span.end {
        Some(end) => format!("bytes={}-{}", span.start, end.saturating_sub(1).max(span.start)),
        None => format!("bytes={}-", span.start),
    }
}

fn named_in_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place::of(&"https://up.example:8443/".parse().unwrap()).unwrap()
    }

    fn request_of(ask: &Ask, own: bool) -> Request<Empty<Bytes>> {
        let target = ask.target("/base/").unwrap();
        ask.request(&place(), &target, own, &HeaderValue::from_static("1.1 node")).unwrap()
    }

    #[test]
    fn a_request_says_what_was_asked_and_who_we_are() {
        let ask = Ask {
            path: "/a/b%20c".to_owned(),
            query: Some("v=1".to_owned()),
            range: Some(Span { start: 5, end: Some(10), if_range: Some(HeaderValue::from_static("\"e\"")) }),
            loop_tokens: vec!["aa".to_owned(), "bb".to_owned()],
            ..Ask::default()
        };
        let request = request_of(&ask, true);
        assert_eq!(request.uri(), "/base/a/b%20c?v=1");
        let headers = request.headers();
        for (name, value) in [
            ("host", "up.example:8443"),
            ("accept-encoding", "identity"),
            ("via", "1.1 node"),
            ("range", "bytes=5-9"),
            ("if-range", "\"e\""),
            ("cdn-loop", "waypost; fill=aa, waypost; fill=bb"),
        ] {
            assert_eq!(headers.get(name).unwrap(), value, "{name}");
        }
        assert_eq!(ask.asked().range, Some((5, Some(10))));
        assert!(ask.asked().if_range_sent && !ask.asked().conditional);
    }

    #[test]
    fn headers_of_the_connection_and_of_ours_never_pass() {
        let mut ask = Ask::default();
        for (name, value) in [
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("host", "evil"),
            ("range", "bytes=0-0"),
            ("accept-encoding", "gzip"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("authorization", "secret"),
            ("if-none-match", "\"e\""),
        ] {
            ask.headers.insert(name, HeaderValue::from_static(value));
        }
        let request = request_of(&ask, false);
        let names: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
        for name in ["connection", "x-hop", "range", "transfer-encoding", "content-length", "authorization"] {
            assert!(!names.contains(&name), "{name}");
        }
        assert_eq!(request.headers().get("host").unwrap(), "up.example:8443");
        assert_eq!(request.headers().get("accept-encoding").unwrap(), "identity");
        assert!(request_of(&ask, true).headers().contains_key("authorization"));
        assert!(ask.asked().conditional);
    }

    #[test]
    fn a_path_that_would_change_the_request_is_no_target() {
        for path in ["a#b", "a?b", "a b", "a\r\nX: y", "ä", "a\\b"] {
            let ask = Ask { path: path.to_owned(), ..Ask::default() };
            assert_eq!(ask.target("/"), Err(FetchError::Target), "{path}");
        }
    }
}
