//! What agents ask of the fleet's documents: their sitelist, their policies, and nobody else's.

use http::{HeaderMap, Method, StatusCode};
use serde::Serialize;

use super::board::Snapshot;
use super::reply::{self, Reply};
use super::{Part, Sheet};
use crate::base::digest::Digest;
use crate::fleet::{AgentId, Facts, Manifest, ManifestEntry, Policy, TreePath, sitelist};
use crate::protocol::caller::{Caller, How};

/// What an agent is told about its policies.
#[derive(Debug, Serialize)]
struct PolicyList<'m> {
    schema: u32,
    policies: &'m [ManifestEntry],
}

impl Part {
    /// Answers what an agent asks below `/agent/v1/`.
    pub(super) fn answer_agent(
        &self,
        rest: &str,
        (method, headers): (&Method, &HeaderMap),
        caller: &Caller,
    ) -> Reply {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return reply::status(StatusCode::METHOD_NOT_ALLOWED);
        }
        // Nothing in force: the agent keeps what it has, and comes again.
        let Some(snapshot) = self.board.snapshot() else { return reply::later(30) };
        let Some(facts) = self.facts(&snapshot, caller) else { return reply::status(StatusCode::FORBIDDEN) };
        match rest {
            "sitelist.xml" => {
                let sheet = Sheet::of(&snapshot, &facts);
                reply::tagged(headers, &sheet.tag, || reply::body("text/xml; charset=utf-8", sheet.text))
            }
            "policies" => {
                let manifest = snapshot.fleet.policies(&facts);
                let list = PolicyList { schema: 1, policies: &manifest.entries };
                reply::tagged(headers, &manifest.digest().to_string(), || reply::json(&list))
            }
            _ => match rest.strip_prefix("policies/").and_then(|name| own_policy(&snapshot, &facts, name)) {
                Some(policy) => reply::tagged(headers, &policy.sha256.to_string(), || {
                    reply::body(policy.media_type(), policy.body.clone())
                }),
                None => reply::status(StatusCode::NOT_FOUND),
            },
        }
    }

    /// What is known of the agent that asks; none where its token is another part of the tree's.
    fn facts(&self, snapshot: &Snapshot, caller: &Caller) -> Option<Facts> {
        let id = AgentId::parse(&caller.name).ok()?;
        let mut facts = self.known(&id).unwrap_or_else(|| Facts::of(id));
        if facts.addresses.is_empty() {
            facts.addresses.push(caller.address);
        }
        if let How::Token { tree: Some(tree), .. } = &caller.how {
            let tree = TreePath::parse(tree).ok()?;
            if snapshot.fleet.known(&facts.id).is_some_and(|known| !known.tree.is_within(&tree)) {
                return None;
            }
            facts.tree = facts.tree.filter(|claimed| claimed.is_within(&tree)).or(Some(tree));
        }
        Some(facts)
    }
}

impl Sheet {
    /// The sitelist of an agent.
    pub(super) fn of(snapshot: &Snapshot, facts: &Facts) -> Self {
        let list = snapshot.fleet.sitelist(facts, snapshot.bundle.index().sitelists);
        let text = sitelist::render(&list);
        let tag = Digest::of(text.as_bytes()).to_string();
        Self { tag, text }
    }
}

/// A policy of this agent by its digest, or by category and name; none for those of others.
fn own_policy<'s>(snapshot: &'s Snapshot, facts: &Facts, name: &str) -> Option<&'s Policy> {
    let manifest: Manifest = snapshot.fleet.policies(facts);
    let is_meant = |entry: &&ManifestEntry| match name.split_once('/') {
        Some((category, name)) => entry.category == category && entry.name == name,
        None => entry.sha256.to_string() == name,
    };
    let entry = manifest.entries.iter().find(is_meant)?;
    snapshot.fleet.policy_named(&entry.category, &entry.name).or_else(|| snapshot.fleet.policy(&entry.sha256))
}
