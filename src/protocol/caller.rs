//! Who asks at the agents' and the nodes' API, once that is proven.

use std::net::IpAddr;

pub use crate::base::agent_id::is_agent_id;

/// The header in which an agent says its id where no certificate does.
pub const AGENT_HEADER: &str = "waypost-agent";

/// The header in which a node says its name where no certificate or token does.
pub const NODE_HEADER: &str = "waypost-node";

/// How the URI of a node's certificate begins.
const NODE_URI: &str = "waypost:node:";

/// Bytes of a node's name, which is also in `Via`.
const NODE_BYTES: usize = 64;

/// Somebody whose identity is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The agent's id, or the node's name.
    pub name: String,
    /// How it was proven.
    pub how: How,
    /// The other end of its connection.
    pub address: IpAddr,
}

/// What proves an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// A certificate of the authority that the configuration names.
    Certificate,
    /// A token: for agents that of an enrolment group, with the part of the system tree it is good for.
    Token {
        /// How the configuration calls it.
        name: String,
        /// The part of the tree, if it is bound to one.
        tree: Option<String>,
    },
    /// It is on this machine, and nothing else is asked for.
    Loopback,
}

/// Whether this can be the name of a node: a letter, then letters, digits, `-`, `.` and `_`, up to 64.
pub fn is_node_name(text: &str) -> bool {
    text.len() <= NODE_BYTES
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

/// The agent that a URI in a certificate names: what follows `waypost:agent:`, or the last part of any other URI, such
/// as `spiffe://corp.example/pc/PC-0815` or `urn:uuid:…`. URIs of nodes name no agent.
pub fn agent_of_uri(uri: &str) -> Option<&str> {
    if uri.starts_with(NODE_URI) {
        return None;
    }
    let id = uri.strip_prefix("waypost:agent:").or_else(|| uri.rsplit(['/', ':']).next());
    id.filter(|id| is_agent_id(id))
}

/// The node that a URI in a certificate names: `waypost:node:NAME`.
pub fn node_of_uri(uri: &str) -> Option<&str> {
    uri.strip_prefix(NODE_URI).filter(|name| is_node_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_an_agent_or_a_node_and_never_both() {
        for (uri, agent, node) in [
            ("waypost:agent:PC-0815", Some("PC-0815"), None),
            ("waypost:agent:{a:b}", Some("{a:b}"), None),
            ("spiffe://corp.example/pc/PC-0815", Some("PC-0815"), None),
            ("urn:uuid:7f1c", Some("7f1c"), None),
            ("waypost:node:branch-7", None, Some("branch-7")),
            ("waypost:node:7", None, None),
            ("waypost:agent:", None, None),
            ("https://corp.example/", None, None),
            ("waypost:agent:a b", None, None),
        ] {
            assert_eq!((agent_of_uri(uri), node_of_uri(uri)), (agent, node), "{uri}");
        }
        assert!(!is_agent_id("") && !is_agent_id(&"x".repeat(129)) && !is_agent_id("ä"));
        assert!(!is_node_name("") && !is_node_name("-a") && !is_node_name("a/b"));
    }
}
