//! Which agents a rule is for. What is listed under one key is any of it; several keys are all of them.

use std::borrow::Cow;

use super::address::{Address, Range};
use super::names::{AgentId, TreePath};

/// An agent as rules see it: what the documents say of it, else what it says itself.
#[derive(Clone, Debug)]
pub(super) struct Subject<'a> {
    pub(super) id: &'a AgentId,
    pub(super) tree: Cow<'a, TreePath>,
    /// Sorted, each once.
    pub(super) tags: Vec<&'a str>,
    pub(super) addresses: Vec<Address>,
}

/// What an agent has to be. An empty list asks nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Criteria {
    /// At one of these places or below.
    pub(super) tree: Vec<TreePath>,
    /// At one of these places itself; with `tree` they are one list of places.
    pub(super) folder: Vec<TreePath>,
    /// With an address in one of these. Sorted.
    pub(super) addresses: Vec<Range>,
    /// With one of these tags. Sorted.
    pub(super) tags: Vec<String>,
    /// With all of these.
    pub(super) all_tags: Vec<String>,
    /// With none of these.
    pub(super) without_tags: Vec<String>,
    /// One of these. Sorted.
    pub(super) agents: Vec<AgentId>,
}

/// The key that an agent does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Miss {
    Tree,
    Addresses,
    Tags,
    AllTags,
    WithoutTags,
    Agents,
}

impl Miss {
    /// What to tell of it.
    pub(super) const fn told(self) -> &'static str {
        match self {
            Self::Tree => "it is at another place in the tree",
            Self::Addresses => "none of its addresses is in the rule's",
            Self::Tags => "it has none of the rule's tags",
            Self::AllTags => "it has not all of the rule's tags",
            Self::WithoutTags => "it has a tag that the rule excludes",
            Self::Agents => "it is not one of the rule's agents",
        }
    }
}

impl Criteria {
    /// Whether every agent meets them.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The first key that is not met.
    pub(super) fn miss(&self, agent: &Subject<'_>) -> Option<Miss> {
        let place = |places: &[TreePath]| places.iter().any(|place| agent.tree.is_within(place));
        let has = |tag: &String| agent.tags.binary_search(&tag.as_str()).is_ok();
        if !self.agents.is_empty() && self.agents.binary_search(agent.id).is_err() {
            return Some(Miss::Agents);
        }
        if self.has_places() && !place(&self.tree) && !self.folder.contains(&agent.tree) {
            return Some(Miss::Tree);
        }
        if !self.tags.is_empty() && !self.tags.iter().any(has) {
            return Some(Miss::Tags);
        }
        if !self.all_tags.iter().all(has) {
            return Some(Miss::AllTags);
        }
        if self.without_tags.iter().any(has) {
            return Some(Miss::WithoutTags);
        }
        if !self.addresses.is_empty() && self.address(agent).is_none() {
            return Some(Miss::Addresses);
        }
        None
    }

    const fn has_places(&self) -> bool {
        !self.tree.is_empty() || !self.folder.is_empty()
    }

    fn address(&self, agent: &Subject<'_>) -> Option<(Address, &Range)> {
        agent.addresses.iter().find_map(|address| {
            let range = self.addresses.iter().find(|range| range.contains(*address))?;
            Some((*address, range))
        })
    }

    /// What of an agent that meets them does so, in words.
    pub(super) fn why(&self, agent: &Subject<'_>) -> String {
        let mut because = Vec::new();
        if !self.agents.is_empty() {
            because.push("the rule names it".to_owned());
        }
        if let Some(place) = self.tree.iter().find(|place| agent.tree.is_within(place)) {
            because.push(format!("it is within {place}"));
        } else if self.folder.contains(&agent.tree) {
            because.push(format!("it is at {}", agent.tree));
        }
        if let Some(tag) = self.tags.iter().find(|tag| agent.tags.contains(&tag.as_str())) {
            because.push(format!("it has the tag {tag}"));
        }
        if !self.all_tags.is_empty() {
            because.push(format!("it has the tags {}", self.all_tags.join(" and ")));
        }
        if !self.without_tags.is_empty() {
            because.push(format!("it has not the tag {}", self.without_tags.join(" or ")));
        }
        if let Some((address, range)) = self.address(agent) {
            because.push(match range.to_string() {
                same if same == address.to_string() => format!("its address is {address}"),
                range => format!("its address {address} is in {range}"),
            });
        }
        if because.is_empty() { "it is for every agent".to_owned() } else { because.join(", ") }
    }

    /// Whether every agent that meets `other` meets these, as far as can be seen key by key.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let places = !self.has_places()
            || (other.has_places()
                && other.tree.iter().all(|place| self.covers_tree(place))
                && other.folder.iter().all(|place| self.covers_folder(place)));
        let tags = self.tags.is_empty()
            || (!other.tags.is_empty() && other.tags.iter().all(|tag| self.tags.contains(tag)))
            || other.all_tags.iter().any(|tag| self.tags.contains(tag));
        let addresses = self.addresses.is_empty()
            || (!other.addresses.is_empty() && other.addresses.iter().all(|range| self.covers_range(range)));
        let agents = self.agents.is_empty()
            || (!other.agents.is_empty()
                && other.agents.iter().all(|agent| self.agents.binary_search(agent).is_ok()));
        let all_tags = self.all_tags.iter().all(|tag| {
            other.all_tags.contains(tag) || matches!(other.tags.as_slice(), [only] if only == tag)
        });
        let without = self.without_tags.iter().all(|tag| other.without_tags.contains(tag));
        places && tags && addresses && agents && all_tags && without
    }

    /// Whether a place and all below it are within the rule's.
    pub(super) fn covers_tree(&self, place: &TreePath) -> bool {
        self.tree.iter().any(|own| place.is_within(own))
    }

    fn covers_folder(&self, place: &TreePath) -> bool {
        self.covers_tree(place) || self.folder.contains(place)
    }

    /// Whether all addresses of a range are in one of the rule's.
    pub(super) fn covers_range(&self, range: &Range) -> bool {
        self.addresses.iter().any(|own| own.covers(range))
    }

    /// How many keys it has.
    pub(super) fn keys(&self) -> usize {
        [
            self.has_places(),
            !self.addresses.is_empty(),
            !self.tags.is_empty(),
            !self.all_tags.is_empty(),
            !self.without_tags.is_empty(),
            !self.agents.is_empty(),
        ]
        .iter()
        .filter(|key| **key)
        .count()
    }
}
