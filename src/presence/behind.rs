//! Who is behind: what an agent has, beside what it should have by the documents and what this node's repositories show.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::agent::{Agent, Lacks};
use super::plane::Presence;
use super::state::State;
use crate::protocol::agent_api::{CheckIn, Message, PolicyNews};

/// The words for what an agent may be behind with, in JSON, selectors and metrics.
pub(super) const WORDS: [&str; 3] = ["sitelist", "policies", "content"];

/// What an agent should have and has not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// The sitelist.
    pub sitelist: bool,
    /// Its policies.
    pub policies: bool,
    /// The catalogues of which a newer version is shown here, and that version.
    pub content: BTreeMap<String, String>,
}

impl Behind {
    /// The words for it.
    pub fn words(&self) -> Vec<&'static str> {
        let is = [self.sitelist, self.policies, !self.content.is_empty()];
        WORDS.into_iter().zip(is).filter(|(_, is)| *is).map(|(word, _)| word).collect()
    }
}

/// What of `wanted` an agent that has said `told` has not.
pub(super) fn lacks(told: &CheckIn, wanted: &super::Wanted) -> Lacks {
    let other = |news: &Vec<PolicyNews>| !has_policies(told, news);
    Lacks {
        sitelist: wanted.sitelist.as_ref().is_some_and(|news| Some(&news.etag) != told.sitelist.as_ref()),
        policies: wanted.policies.as_ref().is_some_and(other),
    }
}

/// Whether an agent has exactly these policies.
pub(super) fn has_policies(told: &CheckIn, wanted: &[PolicyNews]) -> bool {
    let has = |news: &PolicyNews| {
        told.policies.get(&format!("{}/{}", news.category, news.name)) == Some(&news.sha256)
    };
    told.policies.len() == wanted.len() && wanted.iter().all(has)
}

/// Whether who has a version has an older one than the first of `shown`. Of two numbers the greater is the newer: an
/// agent that comes from a handler which was quicker is not behind.
fn is_older(has: &str, shown: &[String]) -> bool {
    let Some(newest) = shown.first() else { return false };
    match (has.parse::<u64>(), newest.parse::<u64>()) {
        _ if has == newest => false,
        _ if shown.iter().any(|version| version == has) => true,
        (Ok(has), Ok(newest)) => has < newest,
        _ => true,
    }
}

impl Presence {
    /// What an agent should have and has not.
    pub fn behind(&self, agent: &Agent) -> Behind {
        let known = agent.lacks.filter(|_| agent.handler.is_none());
        let lacks = known.unwrap_or_else(|| self.compare(agent));
        let newer = |(name, has): (&String, &String)| {
            let shown = self.outside.versions(name);
            let newest = shown.first().filter(|_| is_older(has, &shown))?;
            Some((name.clone(), newest.clone()))
        };
        let content = agent.told.content.iter().filter_map(newer).collect();
        Behind { sitelist: lacks.sitelist, policies: lacks.policies, content }
    }

    fn compare(&self, agent: &Agent) -> Lacks {
        if agent.standing.state == State::Passive {
            return Lacks { sitelist: false, policies: false };
        }
        lacks(&agent.told, &self.outside.wanted(&agent.id, &agent.told, None))
    }

    /// The control documents are others, or there for the first time: every agent that is here is compared with them, and
    /// those whose sitelist is another one are told so over their stream or tunnel.
    pub fn documents_changed(&self) {
        let here = self.agents(|agent| agent.handler.is_none() && agent.standing.state.is_live());
        for agent in here {
            let lacks = self.compare(&agent);
            self.inner.lock().registry.lacks(&agent.id, agent.told.sequence, lacks);
            if lacks.sitelist {
                self.say(&agent.id, Message::SitelistChanged);
            }
        }
    }

    /// Counts, for the metrics, the agents of this node that are behind.
    pub fn count_behind(&self) {
        let is_here = |agent: &&Agent| agent.handler.is_none() && agent.standing.state.is_live();
        let names: BTreeSet<String> = {
            let inner = self.inner.lock();
            let here = inner.registry.agents().filter(is_here);
            here.flat_map(|agent| agent.told.content.keys().cloned()).collect()
        };
        // Asked with no lock held, and once for all that have it.
        let shown: HashMap<&str, Vec<String>> =
            names.iter().map(|name| (name.as_str(), self.outside.versions(name))).collect();
        let mut counts = [0_u64; WORDS.len()];
        let inner = self.inner.lock();
        for agent in inner.registry.agents().filter(is_here) {
            let old = |(name, has): (&String, &String)| {
                shown.get(name.as_str()).is_some_and(|shown| is_older(has, shown))
            };
            let is = [
                agent.lacks.is_some_and(|it| it.sitelist),
                agent.lacks.is_some_and(|it| it.policies),
                agent.told.content.iter().any(old),
            ];
            counts.iter_mut().zip(is).for_each(|(count, is)| *count += u64::from(is));
        }
        for (word, count) in WORDS.into_iter().zip(counts) {
            self.metrics.behind(word).set(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_an_earlier_version_is_behind_and_who_is_ahead_is_not() {
        let shown = |versions: &[&str]| versions.iter().map(ToString::to_string).collect::<Vec<_>>();
        for (has, versions, older) in [
            ("7", shown(&["7", "6"]), false),
            ("6", shown(&["7", "6"]), true),
            ("5", shown(&["7", "6"]), true),
            ("8", shown(&["7", "6"]), false),
            ("10", shown(&["9"]), false),
            ("9", shown(&["10"]), true),
            ("c0ffee", shown(&["beef"]), true),
            ("beef", shown(&["beef"]), false),
            ("anything", shown(&[]), false),
            ("8", shown(&["7", "8"]), true),
        ] {
            assert_eq!(is_older(has, &versions), older, "{has} beside {versions:?}");
        }
    }
}
