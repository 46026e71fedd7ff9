//! Where a request goes (scheme, host, port), and which places a redirect may lead to. Pure.

use http::Uri;
use http::uri::{Authority, PathAndQuery};

use super::RedirectProblem;
use crate::base::limits;

/// An origin server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) secure: bool,
    /// Lower case, IPv6 addresses without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Place {
    /// From an absolute URI without user info.
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        let secure = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        Self::at(secure, uri.authority()?)
    }

    fn at(secure: bool, authority: &Authority) -> Option<Self> {
        // `port_u16` is silent about a port that is none.
        let colon = authority.as_str().rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
        let port = match colon {
            Some((_, port)) => port.parse().ok().filter(|port| *port != 0)?,
            None if secure => 443,
            None => 80,
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if host.is_empty() || authority.as_str().contains('@') {
            return None;
        }
        Some(Self { secure, host, port })
    }

    /// As in `Host`: without the scheme's own port.
    pub(super) fn authority(&self) -> String {
        let usual = if self.secure { 443 } else { 80 };
        if self.port == usual { self.bracketed() } else { self.full() }
    }

    /// Host and port.
    pub(super) fn full(&self) -> String {
        format!("{}:{}", self.bracketed(), self.port)
    }

    pub(super) const fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }

    fn has_usual_port(&self) -> bool {
        self.port == if self.secure { 443 } else { 80 }
    }
}

/// The place and target that `location` names, seen from `place` and `target` (RFC 9110 §10.2.2, RFC 3986 §5.2).
/// Dot segments are not followed: a server that needs them to name its own file is refused.
pub(super) fn resolve_location(
    place: &Place,
    target: &PathAndQuery,
    location: &str,
) -> Option<(Place, PathAndQuery)> {
    let location = location.split_once('#').map_or(location, |(before, _)| before);
    let sound = !location.is_empty()
        && location.len() <= limits::TARGET_BYTES
        && location.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if !sound {
        return None;
    }
    let scheme = location.split(['/', '?']).next().is_some_and(|first| first.contains(':'));
    let (next, path) = if scheme {
        let uri: Uri = location.parse().ok()?;
        (Place::of(&uri)?, uri.path_and_query()?.as_str().to_owned())
    } else if let Some(rest) = location.strip_prefix("//") {
        let (authority, path) = rest.split_at_checked(rest.find(['/', '?']).unwrap_or(rest.len()))?;
        (Place::at(place.secure, &authority.parse().ok()?)?, path.to_owned())
    } else if location.starts_with('/') {
        (place.clone(), location.to_owned())
    } else if location.starts_with('?') {
        (place.clone(), format!("{}{location}", target.path()))
    } else {
        let folder = target.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        (place.clone(), format!("{folder}/{location}"))
    };
    let path = if path.starts_with('/') { path } else { format!("/{path}") };
    let target: PathAndQuery = path.parse().ok()?;
    let dots = target.path().split('/').any(|segment| matches!(segment, "." | ".."));
    (!dots).then_some((next, target))
}

/// Whether a redirect from `current` to `next` may be followed by the upstream at `own`.
pub(super) fn check_redirect(
    own: &Place,
    current: &Place,
    next: &Place,
    hosts: &[String],
) -> Result<(), RedirectProblem> {
    if current.secure && !next.secure {
        return Err(RedirectProblem::Plaintext);
    }
    // The own host, but not any of its ports: another port is another service.
    let own_host = next.host == own.host && (next == own || next.has_usual_port());
    let listed = || {
        let (short, full) = (next.authority(), next.full());
        hosts.iter().any(|host| host.eq_ignore_ascii_case(&short) || host.eq_ignore_ascii_case(&full))
    };
    if own_host || listed() { Ok(()) } else { Err(RedirectProblem::Host) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> Place {
        Place::of(&url.parse().unwrap()).unwrap()
    }

    fn next(location: &str) -> Option<String> {
        let (place, target) =
            resolve_location(&place("https://a.example:8443/"), &"/x/y?q".parse().unwrap(), location)?;
        Some(format!("{}://{}{target}", place.scheme(), place.authority()))
    }

    #[test]
    fn locations_resolve_as_rfc_3986_says() {
        let cases = [
            ("https://b.example/z", "https://b.example/z"),
            ("http://B.example:80/z?k=v#part", "http://b.example/z?k=v"),
            ("//b.example/z", "https://b.example/z"),
            ("//b.example", "https://b.example/"),
            ("/z", "https://a.example:8443/z"),
            ("z", "https://a.example:8443/x/z"),
            ("?r", "https://a.example:8443/x/y?r"),
            ("https://[::1]:444/z", "https://[::1]:444/z"),
        ];
        for (location, to) in cases {
            assert_eq!(next(location).as_deref(), Some(to), "{location}");
        }
    }

    #[test]
    fn locations_with_more_than_one_meaning_are_none() {
        for location in [
            "",
            "#x",
            "../z",
            "/a/./b",
            "ftp://b/",
            "javascript:alert(1)",
            "https://user@b/",
            "https://u:p@b/",
            "\\\\b\\z",
            "/a b",
            "https://b:0/",
            "https://b:99999/",
            "https:///z",
        ] {
            assert_eq!(next(location), None, "{location}");
        }
    }

    #[test]
    fn redirects_stay_within_the_configured_hosts_and_never_lose_tls() {
        let own = place("https://a.example:8443/");
        let hosts = ["cdn.example".to_owned(), "c.example:444".to_owned()];
        let check = |to: &str| check_redirect(&own, &own, &place(to), &hosts);
        assert_eq!(check("https://a.example:8443/"), Ok(()));
        assert_eq!(check("https://a.example/"), Ok(()));
        assert_eq!(check("https://CDN.example/"), Ok(()));
        assert_eq!(check("https://c.example:444/"), Ok(()));
        assert_eq!(check("https://a.example:22/"), Err(RedirectProblem::Host));
        assert_eq!(check("https://c.example/"), Err(RedirectProblem::Host));
        assert_eq!(check("https://cdn.example.evil/"), Err(RedirectProblem::Host));
        assert_eq!(check("http://a.example/"), Err(RedirectProblem::Plaintext));
        let plain = place("http://a.example/");
        assert_eq!(check_redirect(&plain, &plain, &place("https://a.example/"), &[]), Ok(()));
    }

    proptest::proptest! {
        #[test]
        fn a_location_that_resolves_means_the_same_as_a_whole_url(location in "(https?:)?[-a-z0-9./:@?#%\\[\\]\\\\ ]{0,40}") {
            let from = place("https://a.example:8443/");
            if let Some((next, target)) = resolve_location(&from, &"/x/y".parse().unwrap(), &location) {
                let whole = format!("{}://{}{target}", next.scheme(), next.full());
                proptest::prop_assert_eq!(place(&whole), next);
                proptest::prop_assert!(target.path().starts_with('/'));
            }
        }
    }
}
