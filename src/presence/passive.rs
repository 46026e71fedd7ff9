//! Who a client is that does not speak our protocol, from its address and what it calls itself. Pure.
//!
//! freshclam says an id of its machine that stays. All others are their kind and their address, so that several behind
//! one address (NAT, a proxy) are one, and one whose address changes (IPv6 with privacy) is a new one each time.

use std::net::IpAddr;

use serde::Deserialize;

use super::AgentId;
use crate::protocol::agent_api::Properties;

/// Bytes of the kind in an id.
const KIND_BYTES: usize = 32;
/// Characters of version and system that are kept.
const TEXT: usize = 64;
/// How our own nodes and agents begin: nodes are no clients, and agents check in.
const OURS: &str = "waypost";

/// A client as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Passive {
    pub(super) id: AgentId,
    pub(super) properties: Properties,
}

/// Who has come from `address` and calls itself so. Nothing for our own nodes and agents.
pub(super) fn identify(user_agent: &str, address: IpAddr) -> Option<Passive> {
    let said = Said::of(user_agent);
    if said.kind.starts_with(OURS) {
        return None;
    }
    let id = match said.uuid {
        Some(uuid) => format!("{}:{uuid}", said.kind),
        None => format!("{}:{address}", said.kind),
    };
    let properties = Properties {
        agent_version: cut(&said.version),
        os: cut(&said.os),
        addresses: vec![address],
        ..Properties::default()
    };
    AgentId::parse(&id).ok().map(|id| Passive { id, properties })
}

/// What is in a `User-Agent`.
struct Said {
    kind: String,
    version: String,
    os: String,
    uuid: Option<String>,
}

impl Said {
    fn of(text: &str) -> Self {
        let product = text.split_whitespace().next().unwrap_or_default();
        let name = product.split('/').next().unwrap_or_default();
        let plain = |letter: &char| letter.is_ascii_alphanumeric() || "._-".contains(*letter);
        let kind: String = name.chars().filter(plain).take(KIND_BYTES).collect();
        let (kind, version) = (kind.to_ascii_lowercase(), product.to_owned());
        match kind.as_str() {
            "clamav" => Self {
                os: ["OS", "ARCH"].iter().filter_map(|name| clamav(text, name)).collect::<Vec<_>>().join(" "),
                uuid: clamav(text, "UUID").filter(|uuid| is_uuid(uuid)).map(str::to_ascii_lowercase),
                kind,
                version,
            },
            "pip" => Self { os: pip(text).unwrap_or_default(), uuid: None, kind, version },
            "" => Self { kind: "unknown".to_owned(), version: String::new(), os: String::new(), uuid: None },
            // `Debian APT-HTTP/1.3 (2.6.1)`: the number in front is that of a protocol.
            _ => match text.split_once(" APT-HTTP/") {
                Some((os, rest)) => Self {
                    kind: "apt".to_owned(),
                    version: format!("apt/{}", between(rest, "(", ")").unwrap_or_default()),
                    os: os.to_owned(),
                    uuid: None,
                },
                None => Self { kind, version, os: String::new(), uuid: None },
            },
        }
    }
}

/// A field of `ClamAV/1.0.3 (OS: Linux, ARCH: x86_64, CPU: x86_64, UUID: …)`.
fn clamav<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let fields = between(text, "(", ")")?.split(',').filter_map(|field| field.split_once(':'));
    fields
        .map(|(name, value)| (name.trim(), value.trim()))
        .find(|(it, _)| *it == name)
        .map(|(_, value)| value)
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// The system in `pip/24.0 {"distro":{"name":"Debian GNU/Linux","version":"12"},…}`.
fn pip(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Told {
        distro: Option<Named>,
        system: Option<Named>,
    }
    #[derive(Deserialize)]
    struct Named {
        name: Option<String>,
        version: Option<String>,
        release: Option<String>,
    }
    let (_, json) = text.split_once(' ')?;
    let told: Told = serde_json::from_str(json).ok()?;
    let named = told.distro.or(told.system)?;
    let words = [named.name, named.version.or(named.release)];
    Some(words.into_iter().flatten().collect::<Vec<_>>().join(" "))
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    Some(text.split_once(from)?.1.split_once(to)?.0)
}

/// What of a foreign text is kept.
fn cut(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(user_agent: &str) -> (String, String, String) {
        let found = identify(user_agent, "2001:db8::7".parse().unwrap()).unwrap();
        let Properties { agent_version, os, .. } = found.properties;
        (found.id.to_string(), agent_version, os)
    }

    fn is(user_agent: &str, id: &str, version: &str, os: &str) {
        assert_eq!(who(user_agent), (id.to_owned(), version.to_owned(), os.to_owned()), "{user_agent}");
    }

    #[test]
    fn clients_are_known_by_what_they_say_and_where_they_are() {
        is(
            "ClamAV/1.0.3 (OS: Linux, ARCH: x86_64, CPU: x86_64, UUID: 2B8C6F6C-0f6a-4d0a-9d1e-2f3a4b5c6d7e)",
            "clamav:2b8c6f6c-0f6a-4d0a-9d1e-2f3a4b5c6d7e",
            "ClamAV/1.0.3",
            "Linux x86_64",
        );
        is("ClamAV/0.103", "clamav:2001:db8::7", "ClamAV/0.103", "");
        is("Debian APT-HTTP/1.3 (2.6.1)", "apt:2001:db8::7", "apt/2.6.1", "Debian");
        is("Debian APT-HTTP/1.3 (2.6.1) non-interactive", "apt:2001:db8::7", "apt/2.6.1", "Debian");
        is(
            r#"pip/24.0 {"ci":null,"distro":{"id":"bookworm","name":"Debian GNU/Linux","version":"12"},"python":"3.11"}"#,
            "pip:2001:db8::7",
            "pip/24.0",
            "Debian GNU/Linux 12",
        );
        is(
            r#"pip/24.0 {"system":{"name":"Windows","release":"11"}}"#,
            "pip:2001:db8::7",
            "pip/24.0",
            "Windows 11",
        );
        is("pip/24.0 {", "pip:2001:db8::7", "pip/24.0", "");
        is("curl/8.5.0", "curl:2001:db8::7", "curl/8.5.0", "");
        is("", "unknown:2001:db8::7", "", "");
    }

    #[test]
    fn what_is_no_name_does_no_harm() {
        for strange in
            ["(((", "ClamAV/1 (UUID: ../../etc)", "\u{202e}x/1", "é/1", "a b:c\n", " APT-HTTP/1.3 ("]
        {
            let (id, version, os) = who(strange);
            assert!(id.ends_with(":2001:db8::7"), "{id}");
            assert!(!(version + &os).chars().any(char::is_control));
        }
        let long = "x".repeat(1_000);
        assert!(who(&long).0.len() < 64 && who(&long).1.len() <= TEXT);
    }

    #[test]
    fn our_own_nodes_and_agents_are_no_clients() {
        let address = "10.0.0.1".parse().unwrap();
        assert_eq!(identify("waypost/0.1.0", address), None);
        assert_eq!(identify("waypost-agent/0.1.0", address), None);
    }
}
