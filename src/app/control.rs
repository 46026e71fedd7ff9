//! The control side of a node, from its configuration.

use anyhow::Context as _;

use crate::config::CheckedConfig;
use crate::control::{Control, Keys, Token};

/// The control side, where the configuration says anything about agents or nodes.
pub(super) fn build(config: &CheckedConfig) -> anyhow::Result<Option<Control>> {
    if config.presence.is_none() {
        return Ok(None);
    }
    Ok(Some(Control::new(read_keys(config)?)))
}

/// What agents and nodes prove their identity with.
pub(super) fn read_keys(config: &CheckedConfig) -> anyhow::Result<Keys> {
    let mut keys = Keys { certificates: config.agents.client_ca.is_some(), ..Keys::default() };
    for token in &config.agents.tokens {
        let secret = token.secret.read().with_context(|| format!("the token {} of [agents]", token.name))?;
        keys.agents.push(Token::new(token.name.clone(), token.tree.clone(), &secret));
    }
    for token in config.control.iter().flat_map(|control| &control.tokens) {
        let secret = token.secret.read().with_context(|| format!("the token {} of [control]", token.name))?;
        keys.nodes.push(Token::new(token.name.clone(), None, &secret));
    }
    Ok(keys)
}
