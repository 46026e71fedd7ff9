//! From a sitelist to those the agent may talk to, and to where its updates come from. Pure.

use super::fallback::with_installed;
use super::select::{Candidate, Class, Line, Method, Seen};
use super::update::{Options, Source};
use crate::fleet::State;
use crate::fleet::sitelist::{Protocol, Role, Selection, Site, Sitelist};
use crate::repository::preset::epo;

/// The port of HTTPS, where a site says none.
const PORT: u16 = 443;

/// Handlers of the list, each with all of its addresses, and those the agent was installed with.
pub fn candidates(list: Option<&Sitelist>, installed: &[String]) -> Vec<Candidate> {
    let mut all = Vec::new();
    let handler = |site: &&Site| site.protocol == Protocol::Spipe && site.state != Some(State::Disabled);
    for site in list.into_iter().flat_map(|list| list.ordered()).filter(handler) {
        let internal = authority(&site.server, site.secure_port).map(|it| (it, Class::Internal));
        let external =
            site.external.as_deref().and_then(|it| authority(it, None)).map(|it| (it, Class::External));
        for (address, class) in internal.into_iter().chain(external) {
            if all.iter().any(|known: &Candidate| known.address == address) {
                continue;
            }
            all.push(Candidate {
                handler: site.name.clone(),
                address,
                order: site.order.unwrap_or(u32::MAX),
                class,
                draining: site.state == Some(State::Draining),
            });
        }
    }
    with_installed(all, installed)
}

/// How the list wants handlers to be chosen; without a word of it, as the agent is configured.
pub fn method(list: Option<&Sitelist>, otherwise: Method) -> Method {
    match list.and_then(|list| list.selection) {
        Some(Selection::Ordered) => Method::Ordered,
        Some(Selection::Nearest) => Method::Nearest,
        None => otherwise,
    }
}

/// Where an update is looked for, one after the other: the handler in use, the others as they were evaluated, and the
/// repositories of the list, the last resort at the end.
pub fn sources(
    current: Option<&Candidate>,
    lines: &[Line],
    list: Option<&Sitelist>,
    update: &Options,
) -> Vec<Source> {
    let alive = lines.iter().filter(|line| !matches!(line.seen, Seen::Silent(_)));
    let handlers = current.into_iter().chain(alive.map(|line| &line.candidate));
    let mut all: Vec<Source> = Vec::new();
    let mut add = |source: Source| {
        if !all.contains(&source) {
            all.push(source);
        }
    };
    for candidate in handlers {
        add(Source { authority: candidate.address.clone(), base: update.path.clone() });
    }
    for site in list.into_iter().flat_map(|list| list.ordered()) {
        let repository =
            site.protocol == Protocol::Http && matches!(site.role, Role::Repository | Role::Fallback);
        let path = site.relative_path.trim_matches('/');
        let base = if path.is_empty() { "/".to_owned() } else { format!("/{path}/") };
        // A copy of the whole tree of an ePO repository lies anywhere; any other repository only at its own path.
        let same = base == update.path || update.preset.name() == epo::NAME;
        if let Some(authority) = authority(&site.server, site.secure_port).filter(|_| repository && same) {
            add(Source { authority, base });
        }
    }
    all
}

/// `host:port` of where TLS is spoken.
fn authority(server: &str, secure_port: Option<u16>) -> Option<String> {
    let server = server.trim();
    let plain = server.strip_prefix('[').map_or_else(
        || server.split_once(':').filter(|(_, port)| !port.contains(':')),
        |_| server.rsplit_once("]:"),
    );
    let (host, port) = match plain {
        Some((host, port)) if server.starts_with('[') => {
            (format!("{host}]"), Some(port.parse::<u16>().ok()?))
        }
        Some((host, port)) => (host.to_owned(), Some(port.parse::<u16>().ok()?)),
        // An IPv6 address without brackets has no port.
        None if server.contains(':') && !server.starts_with('[') => (format!("[{server}]"), None),
        None => (server.to_owned(), None),
    };
    let named = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    let good = !host.trim_matches(['[', ']']).is_empty() && host.chars().all(named);
    let port = secure_port.filter(|port| *port != 0).or(port).unwrap_or(PORT);
    good.then(|| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::sitelist::parse;
    use crate::repository::preset::preset_named;

    const LIST: &str = r#"<?xml version="1.0"?>
<ns:SiteLists xmlns:ns="naSiteList" xmlns:wp="urn:waypost:sitelist:1" GlobalVersion="1" LocalVersion="1" Type="Client">
  <SiteList Default="1" Name="SomeGUID">
    <SpipeSite Type="master" Name="b" Order="2" Server="b.example:80" SecurePort="8443" Enabled="1" Local="0"/>
    <SpipeSite Type="master" Name="a" Order="1" Server="a.example" Enabled="1" Local="0" wp:External="a.out.example:444"/>
    <SpipeSite Type="master" Name="off" Order="1" Server="off.example" Enabled="0" Local="0"/>
    <HttpSite Type="fallback" Name="vendor" Order="26" Server="vendor.example" Enabled="1" Local="0">
      <RelativePath>Products/CommonUpdater</RelativePath></HttpSite>
  </SiteList>
</ns:SiteLists>"#;

    #[test]
    fn a_list_becomes_addresses_and_the_installed_default_stays() {
        let list = parse(LIST.as_bytes()).unwrap();
        let all = candidates(Some(&list), &["home.example:443".to_owned()]);
        let told: Vec<_> = all.iter().map(|it| (&*it.address, it.order, it.class)).collect();
        assert!(told.contains(&("a.example:443", 1, Class::Internal)), "{told:?}");
        assert!(told.contains(&("b.example:8443", 2, Class::Internal)), "{told:?}");
        assert_eq!(told.last(), Some(&("home.example:443", u32::MAX, Class::Installed)));
        assert!(told.iter().all(|it| !it.0.contains("off") && !it.0.contains("vendor")));
        assert_eq!(candidates(None, &["h:1".to_owned()]).len(), 1);
    }

    #[test]
    fn updates_come_from_handlers_first_and_from_the_last_resort_last() {
        let list = parse(LIST.as_bytes()).unwrap();
        let all = candidates(Some(&list), &[]);
        let update = |preset| Options {
            name: "dat".to_owned(),
            path: "/Software/".to_owned(),
            folder: String::new(),
            preset: preset_named(preset).unwrap(),
            directory: "dat".into(),
        };
        let told = |preset| -> Vec<String> {
            let found = sources(all.get(1), &[], Some(&list), &update(preset));
            found.into_iter().map(|it| format!("{}{}", it.authority, it.base)).collect()
        };
        let last = "vendor.example:443/Products/CommonUpdater/";
        assert_eq!(told("epo"), [format!("{}/Software/", all[1].address).as_str(), last]);
        assert_eq!(told("generic").len(), 1);
    }

    #[test]
    fn addresses_get_the_port_of_tls() {
        for (server, secure, expected) in [
            ("a.example", None, Some("a.example:443")),
            ("a.example:80", Some(8443), Some("a.example:8443")),
            ("a.example:8443", Some(0), Some("a.example:8443")),
            ("[2001:db8::1]:444", None, Some("[2001:db8::1]:444")),
            ("[2001:db8::1]", None, Some("[2001:db8::1]:443")),
            ("", None, None),
            ("a b:1", None, None),
            ("a.example:port", None, None),
            ("a/b", None, None),
        ] {
            assert_eq!(authority(server, secure).as_deref(), expected, "{server}");
        }
    }
}
