//! What presence asks of the rest of the node.

use std::net::IpAddr;

use super::AgentId;
use super::wakeups::Relayed;
use crate::protocol::agent_api::{CheckIn, PolicyNews, SitelistNews};

/// What an agent should have, by the control documents; nothing of what is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Its sitelist.
    pub sitelist: Option<SitelistNews>,
    /// Its policies.
    pub policies: Option<Vec<PolicyNews>>,
}

/// The rest of the node. The application implements it. Called with no lock held, and expected to answer at once.
pub trait Outside: Send + Sync + 'static {
    /// What this agent should have, given what it says of itself and the address it comes from.
    fn wanted(&self, agent: &AgentId, told: &CheckIn, from: Option<IpAddr>) -> Wanted;

    /// The handlers of a group, or the one of this name; none where nothing is called so.
    fn handlers_of(&self, group: &str) -> Vec<String>;

    /// How busy the node is, 0 to 1.
    fn load(&self) -> f64;

    /// Whether agents should go elsewhere.
    fn is_draining(&self) -> bool;

    /// Has a node below wake these agents, by its channel.
    fn relay_wake(&self, handler: &str, wake: Relayed);

    /// Has a node below forget these agents.
    fn relay_forget(&self, handler: &str, agents: Vec<AgentId>);

    /// The versions of a catalogue (`repository/catalogue`, as agents say it) that are shown here, the newest first; none
    /// where that is not known.
    fn versions(&self, catalogue: &str) -> Vec<String>;
}

/// A node without control documents.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Outside for Alone {
    fn wanted(&self, _: &AgentId, _: &CheckIn, _: Option<IpAddr>) -> Wanted {
        Wanted::default()
    }

    fn handlers_of(&self, _: &str) -> Vec<String> {
        Vec::new()
    }

    fn load(&self) -> f64 {
        0.0
    }

    fn is_draining(&self) -> bool {
        false
    }

    fn relay_wake(&self, _: &str, _: Relayed) {}

    fn relay_forget(&self, _: &str, _: Vec<AgentId>) {}

    fn versions(&self, _: &str) -> Vec<String> {
        Vec::new()
    }
}
