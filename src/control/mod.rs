//! The control plane: who may ask, and what the fleet's documents say to whom.

mod identity;
mod reply;

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{HeaderMap, StatusCode};

use crate::protocol::caller::Caller;
use crate::server::Peer;

pub use identity::{Keys, Refused, Token};
pub use reply::Reply;

/// The control plane of a node.
#[derive(Debug)]
pub struct Control {
    keys: ArcSwap<Keys>,
}

impl Control {
    /// A control plane that knows callers by these keys.
    pub fn new(keys: Keys) -> Self {
        Self { keys: ArcSwap::from_pointee(keys) }
    }

    /// Knows callers by other keys from the next request on.
    pub fn admit(&self, keys: Keys) {
        self.keys.store(Arc::new(keys));
    }

    /// The agent that asks, or what it is told instead.
    ///
    /// # Errors
    /// The answer: 401 where nothing proves who it is, 403 where that is somebody else.
    pub fn agent(&self, headers: &HeaderMap, peer: &Peer) -> Result<Caller, Reply> {
        self.keys.load().agent(headers, peer).map_err(reply::refused)
    }

    /// The node that asks, or what it is told instead.
    ///
    /// # Errors
    /// As [`Control::agent`].
    pub fn node(&self, headers: &HeaderMap, peer: &Peer) -> Result<Caller, Reply> {
        self.keys.load().node(headers, peer).map_err(reply::refused)
    }
}

/// What is answered where there is nothing.
pub fn nothing() -> Reply {
    reply::status(StatusCode::NOT_FOUND)
}
