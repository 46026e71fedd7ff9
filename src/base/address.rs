//! Host names, URLs of upstreams and URL paths of repositories: what is right, and how it is written.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

/// Why a text is no address of its kind; the words are for the administrator.
pub(crate) type Wrong = Cow<'static, str>;

/// A host name (RFC 1123) or IP address without port, in lower case. IPv6 with or without brackets, given back
/// in brackets as `Host` has it.
pub(crate) fn parse_host(text: &str) -> Result<String, Wrong> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<Ipv6Addr>() {
        return Ok(format!("[{address}]"));
    }
    if let Ok(IpAddr::V4(address)) = text.parse() {
        return Ok(address.to_string());
    }
    if text.contains("://") {
        return Err("a host name has no scheme: leave out everything but the name".into());
    }
    if let Some((name, port)) = text.rsplit_once(':')
        && !name.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Err("a host name has no port here".into());
    }
    if !text.is_ascii() {
        return Err("write international names in their ASCII form, xn--…".into());
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() > 253 || !text.split('.').all(label) {
        return Err("that is not a host name".into());
    }
    Ok(text.to_ascii_lowercase())
}

/// As [`parse_host`], with or without a port behind it.
pub(crate) fn parse_host_and_port(text: &str) -> Result<String, Wrong> {
    let split =
        text.rsplit_once(':').filter(|(host, _)| text.parse::<Ipv6Addr>().is_err() && !host.is_empty());
    match split.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?))) {
        Some((_, 0)) => Err("there is no port 0".into()),
        Some((host, port)) => Ok(format!("{}:{port}", parse_host(host)?)),
        None => parse_host(text),
    }
}

/// A repository's path: starts and ends with `/`, and is the same after any canonicalisation.
pub(crate) fn check_repository_path(path: &str) -> Result<(), Wrong> {
    if !path.starts_with('/') || !path.ends_with('/') {
        return Err("it has to start and end with `/`".into());
    }
    if path.contains('%') {
        return Err("it cannot have percent escapes".into());
    }
    check_segments(path)
}

/// No empty or dot segments, no characters that a URL path cannot have (RFC 3986 §3.3), escapes well-formed.
fn check_segments(path: &str) -> Result<(), Wrong> {
    if path.len() > 1_024 {
        return Err("it is longer than 1024 bytes".into());
    }
    if path.contains("//") {
        return Err("it has an empty segment, `//`".into());
    }
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err("it has a dot segment, `.` or `..`".into());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/%".contains(c);
    if let Some(wrong) = path.chars().find(|c| !allowed(*c)) {
        return Err(format!("a URL path cannot have `{}`", wrong.escape_debug()).into());
    }
    for escape in path.split('%').skip(1) {
        let hex = escape.get(..2).filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            None => return Err("it has a `%` without two hexadecimal digits".into()),
            Some(b'/' | b'\\' | b'.' | b'%' | 0..=0x1f | 0x7f) => {
                return Err("it hides a `/`, `\\`, `.`, `%` or control character in an escape".into());
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// An upstream's URL, in its one form: lower-case scheme and host, no default port, `/` at the end.
pub(crate) struct UpstreamUrl {
    pub(crate) url: String,
    pub(crate) secure: bool,
}

/// Whether `text` may hold a password, so that it should not be shown.
pub(crate) fn has_user_info(text: &str) -> bool {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
}

/// Parses an upstream's URL: `http` or `https`, a host, a path without surprises, nothing else.
pub(crate) fn parse_upstream_url(text: &str) -> Result<UpstreamUrl, Wrong> {
    if text.contains('#') {
        return Err("it cannot have a fragment, `#…`".into());
    }
    if text.contains('?') {
        return Err("it cannot have a query, `?…`".into());
    }
    if has_user_info(text) {
        return Err("it cannot have a user name or password".into());
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err("it has to begin with https:// or http://".into());
    };
    let (secure, default_port) = match scheme.to_ascii_lowercase().as_str() {
        "https" => (true, 443),
        "http" => (false, 80),
        _ => return Err(format!("the scheme `{}` is not https or http", scheme.escape_debug()).into()),
    };
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let (host, port) = split_port(authority)?;
    if host.is_empty() {
        return Err("it has no host".into());
    }
    let host = parse_host(host)?;
    check_segments(path)?;
    let mut url = format!("{}://{host}", if secure { "https" } else { "http" });
    if let Some(port) = port.filter(|port| *port != default_port) {
        url.push_str(&format!(":{port}"));
    }
    url.push_str(path);
    if !path.ends_with('/') {
        url.push('/');
    }
    Ok(UpstreamUrl { url, secure })
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), Wrong> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => return Ok((authority, None)),
    };
    match port.parse() {
        Ok(number) if number != 0 && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Ok((host, Some(number)))
        }
        _ => Err(format!("`{}` is not a port from 1 to 65535", port.escape_debug()).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_behind_a_host_stays_there() {
        let parsed = |text| parse_host_and_port(text).ok();
        for (text, as_it_is_kept) in [
            ("CDN.example", "cdn.example"),
            ("cdn.Example:8443", "cdn.example:8443"),
            ("10.0.0.1:81", "10.0.0.1:81"),
            ("::1", "[::1]"),
            ("[::1]:8443", "[::1]:8443"),
        ] {
            assert_eq!(parsed(text).as_deref(), Some(as_it_is_kept));
        }
        for wrong in ["", ":80", "a:", "a:0", "a:70000", "a:b", "https://a:80", "a:1:2", "-a:80"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn hosts_are_names_or_addresses_in_lower_case() {
        assert_eq!(parse_host("Updates.Example"), Ok("updates.example".to_owned()));
        assert_eq!(parse_host("10.1.2.3"), Ok("10.1.2.3".to_owned()));
        assert_eq!(parse_host("::1"), Ok("[::1]".to_owned()));
        assert_eq!(parse_host("[2001:DB8::1]"), Ok("[2001:db8::1]".to_owned()));
        for wrong in ["", "a..b", "-a", "a b", "a:443", "https://a", "*.example", "ä.example", "a/"] {
            assert!(parse_host(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn repository_paths_are_canonical_prefixes() {
        for right in ["/", "/Software/", "/a/b-c_d.e/"] {
            assert_eq!(check_repository_path(right), Ok(()), "{right}");
        }
        for wrong in
            ["", "Software/", "/Software", "//", "/a//b/", "/../", "/./", "/a b/", "/a%20/", "/ä/", "/a?/"]
        {
            assert!(check_repository_path(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn upstream_urls_have_one_form() {
        let url = |text| parse_upstream_url(text).map(|parsed| parsed.url);
        assert_eq!(url("HTTPS://HQ.Example:443/Soft"), Ok("https://hq.example/Soft/".to_owned()));
        assert_eq!(url("http://[::1]:8080"), Ok("http://[::1]:8080/".to_owned()));
        assert_eq!(url("https://hq.example/a%20b/"), Ok("https://hq.example/a%20b/".to_owned()));
        for wrong in [
            "hq.example/",
            "ftp://hq.example/",
            "https://",
            "https:///x/",
            "https://user:pw@hq.example/",
            "https://hq.example/?a=b",
            "https://hq.example/#a",
            "https://hq.example:0/",
            "https://hq.example:70000/",
            "https://hq.example:/",
            "https://hq.example:+80/",
            "https://hq.example/../",
            "https://hq.example/a//b/",
            "https://hq.example/%2e%2e/",
            "https://hq.example/%2F/",
            "https://hq.example/%zz/",
            "https://hq.example/a b/",
        ] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_noticed_whatever_else_is_wrong() {
        assert!(has_user_info("https://user:pw@hq.example/"));
        assert!(has_user_info("user:pw@hq.example"));
        assert!(!has_user_info("https://hq.example/@scope/"));
    }
}
