//! Who asks: a certificate, a token, or, where neither is configured, a process on this machine.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::base::digest::Digest;
use crate::protocol::caller::{
    AGENT_HEADER, Caller, How, NODE_HEADER, agent_of_uri, is_agent_id, is_node_name, node_of_uri,
};
use crate::server::{Peer, PeerName};

/// A token that somebody may come with. Only its digest is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    name: String,
    tree: Option<String>,
    digest: Digest,
}

impl Token {
    /// A token by its name, the part of the tree it is good for, and its value.
    pub fn new(name: impl Into<String>, tree: Option<String>, secret: &[u8]) -> Self {
        Self { name: name.into(), tree, digest: Digest::of(secret.trim_ascii()) }
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Who knows enrolment tokens: the name of one, and the part of the tree that it is good for.
pub type Enrol<'e> = &'e dyn Fn(&str) -> Option<(String, String)>;

/// What identities are proven with.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// Enrolment tokens of agents.
    pub agents: Vec<Token>,
    /// Tokens of nodes, each named as its node.
    pub nodes: Vec<Token>,
    /// Whether clients are asked for certificates.
    pub certificates: bool,
}

/// Why somebody is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nothing proves who it is.
    #[error("no identity: a client certificate or an enrolment token is needed")]
    Unknown,
    /// Something proves who it is, and it says that it is somebody else.
    #[error("this is somebody else's identity")]
    Other,
}

impl Keys {
    /// The agent that asks. `enrol` knows the tokens of the fleet's documents, where they have some: name and part of the
    /// tree.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn agent(
        &self,
        headers: &HeaderMap,
        peer: &Peer,
        enrol: Option<Enrol<'_>>,
    ) -> Result<Caller, Refused> {
        let said = single(headers, AGENT_HEADER)?.filter(|id| is_agent_id(id));
        let shown = uris(peer).find_map(agent_of_uri);
        let token_of = |token: &str| match found(&self.agents, token) {
            Some(token) => Some((token.name.clone(), token.tree.clone())),
            None => enrol?(token).map(|(name, tree)| (name, Some(tree))),
        };
        self.known(self.agents.is_empty() && enrol.is_none(), token_of, (said, shown), headers, peer)
    }

    /// The node that asks.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn node(&self, headers: &HeaderMap, peer: &Peer) -> Result<Caller, Refused> {
        let said = single(headers, NODE_HEADER)?.filter(|name| is_node_name(name));
        let shown = uris(peer).find_map(node_of_uri);
        let token = |token: &str| found(&self.nodes, token).map(|token| (token.name.clone(), None));
        let caller = self.known(self.nodes.is_empty(), token, (said, shown), headers, peer)?;
        match &caller.how {
            // Each node has a token of its own.
            How::Token { name, .. } if *name != caller.name => Err(Refused::Other),
            _ => Ok(caller),
        }
    }

    fn known(
        &self,
        no_tokens: bool,
        token_of: impl Fn(&str) -> Option<(String, Option<String>)>,
        (said, shown): (Option<&str>, Option<&str>),
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<Caller, Refused> {
        let address = peer.address.ip().to_canonical();
        let is = |name: &str, how| Caller { name: name.to_owned(), how, address };
        if let Some(shown) = shown {
            return match said {
                Some(said) if said != shown => Err(Refused::Other),
                _ => Ok(is(shown, How::Certificate)),
            };
        }
        let said = said.ok_or(Refused::Unknown)?;
        if let Some(token) = bearer(headers)? {
            let (name, tree) = token_of(token).ok_or(Refused::Unknown)?;
            return Ok(is(said, How::Token { name, tree }));
        }
        // A proxy on this machine makes everybody local: whoever has set up identities means them.
        if no_tokens && !self.certificates && address.is_loopback() {
            return Ok(is(said, How::Loopback));
        }
        Err(Refused::Unknown)
    }
}

fn uris(peer: &Peer) -> impl Iterator<Item = &str> {
    peer.names.iter().filter_map(|name| match name {
        PeerName::Uri(uri) => Some(uri.as_str()),
        PeerName::Dns(_) => None,
    })
}

/// The one value of a header; two of them are nobody's.
fn single<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Refused> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(|text| Some(text.trim())).map_err(|_| Refused::Unknown),
        _ => Err(Refused::Unknown),
    }
}

fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refused> {
    let Some(value) = single(headers, AUTHORIZATION.as_str())? else { return Ok(None) };
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => Err(Refused::Unknown),
    }
}

/// All of them are compared, and whole: how long it takes says nothing about any of them.
fn found<'t>(tokens: &'t [Token], secret: &str) -> Option<&'t Token> {
    let digest = Digest::of(secret.as_bytes());
    let same =
        |one: &Digest| one.0.iter().zip(digest.0).fold(0, |differs, (one, two)| differs | (one ^ two)) == 0;
    tokens.iter().fold(None, |found, token| if same(&token.digest) { Some(token) } else { found })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str, uris: &[&str]) -> Peer {
        let names = uris.iter().map(|uri| PeerName::Uri((*uri).to_owned())).collect();
        let address = format!("{address}:4000").parse().unwrap();
        Peer { address, secure: true, sni: None, names, ttl: None, connection: 1, listener: "https" }
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn keys() -> Keys {
        Keys {
            agents: vec![Token::new("berlin", Some("/emea/berlin".to_owned()), b"agents-of-berlin\n")],
            nodes: vec![Token::new("branch-7", None, b"token-of-branch-7")],
            certificates: true,
        }
    }

    #[test]
    fn a_certificate_says_who_an_agent_is_and_a_header_cannot_say_otherwise() {
        let pc = peer("192.0.2.9", &["waypost:agent:pc-7"]);
        let caller = keys().agent(&headers(&[]), &pc, None).unwrap();
        assert_eq!((caller.name.as_str(), &caller.how), ("pc-7", &How::Certificate));
        assert!(keys().agent(&headers(&[("waypost-agent", "pc-7")]), &pc, None).is_ok());
        assert_eq!(keys().agent(&headers(&[("waypost-agent", "pc-8")]), &pc, None), Err(Refused::Other));
        assert_eq!(keys().node(&headers(&[("waypost-node", "branch-7")]), &pc), Err(Refused::Unknown));
        let node = peer("192.0.2.9", &["waypost:node:branch-7"]);
        assert_eq!(keys().node(&headers(&[]), &node).unwrap().name, "branch-7");
        assert_eq!(keys().agent(&headers(&[]), &node, None), Err(Refused::Unknown));
    }

    #[test]
    fn a_token_lets_its_group_in_and_nobody_else() {
        let stranger = peer("192.0.2.9", &[]);
        let with = |token: &str| headers(&[("waypost-agent", "pc-7"), ("authorization", token)]);
        let caller = keys().agent(&with("Bearer agents-of-berlin"), &stranger, None).unwrap();
        let tree = Some("/emea/berlin".to_owned());
        assert_eq!(caller.how, How::Token { name: "berlin".to_owned(), tree });
        for wrong in
            ["Bearer agents-of-paris", "Bearer ", "Basic agents-of-berlin", "Bearer token-of-branch-7"]
        {
            assert_eq!(keys().agent(&with(wrong), &stranger, None), Err(Refused::Unknown), "{wrong}");
        }
        let enrol =
            |token: &str| (token == "of-paris").then(|| ("paris".to_owned(), "/emea/paris".to_owned()));
        let caller = keys().agent(&with("Bearer of-paris"), &stranger, Some(&enrol)).unwrap();
        assert_eq!(caller.how, How::Token { name: "paris".to_owned(), tree: Some("/emea/paris".to_owned()) });
        let nobody = headers(&[("authorization", "Bearer agents-of-berlin")]);
        assert_eq!(keys().agent(&nobody, &stranger, None), Err(Refused::Unknown));
        let two = headers(&[
            ("waypost-agent", "pc-7"),
            ("waypost-agent", "pc-8"),
            ("authorization", "Bearer agents-of-berlin"),
        ]);
        assert_eq!(keys().agent(&two, &stranger, None), Err(Refused::Unknown));
    }

    #[test]
    fn a_nodes_token_is_good_for_that_node_alone() {
        let stranger = peer("192.0.2.9", &[]);
        let with =
            |name: &str| headers(&[("waypost-node", name), ("authorization", "Bearer token-of-branch-7")]);
        assert_eq!(keys().node(&with("branch-7"), &stranger).unwrap().name, "branch-7");
        assert_eq!(keys().node(&with("branch-8"), &stranger), Err(Refused::Other));
    }

    #[test]
    fn this_machine_is_believed_only_where_nothing_else_is_set_up() {
        let said = headers(&[("waypost-agent", "pc-7"), ("waypost-node", "branch-7")]);
        let local = peer("127.0.0.1", &[]);
        assert_eq!(Keys::default().agent(&said, &local, None).unwrap().how, How::Loopback);
        assert_eq!(Keys::default().node(&said, &local).unwrap().how, How::Loopback);
        assert_eq!(Keys::default().agent(&said, &peer("192.0.2.9", &[]), None), Err(Refused::Unknown));
        assert_eq!(keys().agent(&said, &local, None), Err(Refused::Unknown));
        let enrol = |_: &str| None;
        assert_eq!(Keys::default().agent(&said, &local, Some(&enrol)), Err(Refused::Unknown));
        assert_eq!(keys().node(&said, &local), Err(Refused::Unknown));
    }
}
