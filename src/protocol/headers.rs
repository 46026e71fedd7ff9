//! Which fields go where: nothing of a reply is passed on that is not on a list here, and every answer's head
//! is built anew, so that no upstream can smuggle one in (RFC 9110 §7.6.1, RFC 9111 §3.1).

use http::header::CONNECTION;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Fields of one connection, never stored and never passed on, besides those that `Connection` names.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields of a reply that are kept and may be repeated to agents. `Set-Cookie` and `Content-Encoding` are not
/// among them on purpose, nor is a digest that we did not compute.
const STORED: [&str; 13] = [
    "age",
    "cache-control",
    "content-disposition",
    "content-language",
    "content-type",
    "date",
    "etag",
    "expires",
    "last-modified",
    "link",
    "pragma",
    "vary",
    "waypost-generation",
];

/// Those of them that are lists; of the others a second one is a mistake.
const LISTS: [&str; 5] = ["cache-control", "content-language", "link", "pragma", "vary"];

/// How many loop tokens are carried on: more handlers in a row than anybody builds.
const LOOP_TOKENS: usize = 8;

/// Whether a field belongs to the connection it came on. `name` in lower case.
pub fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.contains(&name)
}

/// Takes away everything that belongs to one connection.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    for name in named_by_connection(headers) {
        headers.remove(&name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// The fields of a reply worth keeping, in the order of arrival, names in lower case.
///
/// A field that may be there once and is there twice keeps its first value (RFC 9110 §5.3 leaves it open),
/// but a validator that is there twice proves nothing and is dropped.
pub fn storable_headers(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let named = named_by_connection(headers);
    let mut kept = Vec::with_capacity(headers.len().min(STORED.len()));
    for name in headers.keys() {
        if !STORED.contains(&name.as_str()) || named.contains(name) {
            continue;
        }
        let many = headers.get_all(name).iter().nth(1).is_some();
        if many && matches!(name.as_str(), "etag" | "last-modified") {
            continue;
        }
        let most = if LISTS.contains(&name.as_str()) { usize::MAX } else { 1 };
        let values = headers.get_all(name).iter().take(most).filter(|value| printable(value));
        kept.extend(values.map(|value| (name.as_str().to_owned(), value.as_bytes().to_vec())));
    }
    kept
}

/// Stored fields as a map again. What is not a field (a damaged record) is left out.
pub fn header_map(stored: &[(String, Vec<u8>)]) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(stored.len());
    for (name, value) in stored {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value))
        {
            map.append(name, value);
        }
    }
    map
}

/// `Via` (RFC 9110 §7.6.3) for messages that passed through this node; upstreams are spoken to in HTTP/1.1.
/// What is no token in `node` is replaced.
pub fn via_value(node: &str) -> HeaderValue {
    let name: String = node.chars().map(|c| if is_token(c) { c } else { '-' }).collect();
    HeaderValue::try_from(format!("1.1 {}", if name.is_empty() { "waypost" } else { &name }))
        .unwrap_or_else(|_| HeaderValue::from_static("1.1 waypost"))
}

/// The fills that caused this request, from `CDN-Loop` (RFC 8586): 32 lower-case hexadecimal digits each, of
/// members in our own form only, the latest eight. A fill that finds its own here is in a loop.
pub fn loop_tokens(headers: &HeaderMap) -> Vec<&str> {
    let members = headers.get_all("cdn-loop").iter().filter_map(|value| value.to_str().ok());
    let mut tokens: Vec<&str> = members.flat_map(|text| text.split(',')).filter_map(loop_token).collect();
    tokens.drain(..tokens.len().saturating_sub(LOOP_TOKENS));
    tokens
}

/// `CDN-Loop` with these tokens, or nothing to send where there are none. Anything else than tokens in our
/// own form is left out.
pub fn render_loop<'a>(tokens: impl IntoIterator<Item = &'a str>) -> Option<HeaderValue> {
    let members: Vec<String> = tokens
        .into_iter()
        .filter(|token| is_loop_token(token))
        .map(|token| format!("waypost; fill={token}"))
        .collect();
    if members.is_empty() {
        return None;
    }
    HeaderValue::try_from(members.join(", ")).ok()
}

fn loop_token(member: &str) -> Option<&str> {
    let (id, parameter) = member.split_once(';')?;
    let token = parameter.trim().strip_prefix("fill=")?;
    (id.trim() == "waypost" && is_loop_token(token)).then_some(token)
}

fn is_loop_token(token: &str) -> bool {
    token.len() == 32 && token.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect()
}

/// No control characters, DEL and tab included; UTF-8 or Latin-1 in a file name is none of our business.
fn printable(value: &HeaderValue) -> bool {
    value.as_bytes().iter().all(|byte| !byte.is_ascii_control())
}

const fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || matches!(
            c,
            '!' | '#' | '$' | '%' | '&' | '\'' | '*' | '+' | '-' | '.' | '^' | '_' | '`' | '|' | '~'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn only_what_is_listed_is_kept() {
        let reply = map(&[
            ("content-type", "application/zip"),
            ("set-cookie", "a=b"),
            ("server", "x"),
            ("content-length", "5"),
            ("vary", "accept"),
            ("vary", "accept-language"),
            ("transfer-encoding", "chunked"),
            ("repr-digest", "sha-256=:AAAA:"),
        ]);
        let kept = storable_headers(&reply);
        let names: Vec<&str> = kept.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["content-type", "vary", "vary"]);
        assert_eq!(header_map(&kept).get_all("vary").iter().count(), 2);
    }

    #[test]
    fn what_the_connection_claims_for_itself_is_dropped() {
        let mut reply =
            map(&[("connection", "close, ETag ,x-a"), ("etag", "\"1\""), ("x-a", "1"), ("date", "x")]);
        assert_eq!(storable_headers(&reply), [("date".to_owned(), b"x".to_vec())]);
        strip_hop_by_hop(&mut reply);
        assert_eq!(reply.len(), 1);
    }

    #[test]
    fn twice_is_once_and_two_validators_are_none() {
        let reply =
            map(&[("etag", "\"1\""), ("etag", "\"2\""), ("content-type", "a/b"), ("content-type", "c/d")]);
        assert_eq!(storable_headers(&reply), [("content-type".to_owned(), b"a/b".to_vec())]);
    }

    #[test]
    fn values_with_controls_are_not_copied() {
        let mut reply = HeaderMap::new();
        reply.insert("content-type", HeaderValue::from_bytes(b"a\tb").unwrap());
        reply.insert("content-disposition", HeaderValue::from_bytes("x=\"ä\"".as_bytes()).unwrap());
        let kept = storable_headers(&reply);
        assert_eq!(kept.len(), 1);
    }

    #[test]
    fn loop_tokens_are_only_ours() {
        let token = "0123456789abcdef0123456789abcdef";
        let sent = render_loop([token, "nonsense", token]).unwrap();
        let mut request = HeaderMap::new();
        request.insert("cdn-loop", sent);
        request.append(
            "cdn-loop",
            HeaderValue::from_static("other; fill=0123456789abcdef0123456789abcdef, waypost"),
        );
        request
            .append("cdn-loop", HeaderValue::from_static("waypost; fill=0123456789ABCDEF0123456789ABCDEF"));
        assert_eq!(loop_tokens(&request), [token, token]);
        assert_eq!(render_loop([]), None);
    }

    #[test]
    fn a_long_chain_keeps_its_latest_tokens() {
        let tokens: Vec<String> = (0..12).map(|i| format!("{i:032x}")).collect();
        let mut request = HeaderMap::new();
        request.insert("cdn-loop", render_loop(tokens.iter().map(String::as_str)).unwrap());
        let found = loop_tokens(&request);
        assert_eq!(found.len(), LOOP_TOKENS);
        assert_eq!(found.last().copied(), tokens.last().map(String::as_str));
    }

    #[test]
    fn via_is_a_pseudonym() {
        assert_eq!(via_value("branch-7"), "1.1 branch-7");
        assert_eq!(via_value("a b\r\nä"), "1.1 a-b---");
        assert_eq!(via_value(""), "1.1 waypost");
    }
}
