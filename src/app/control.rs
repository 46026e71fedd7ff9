//! The control side of a node, from its configuration.

use anyhow::Context as _;
use serde_json::{Value, json};

use super::build;
use crate::base::clock::{Clock, Timestamp};
use crate::config::{CheckedConfig, ControlConfig, ControlSource, ControlUpstream, Secret};
use crate::control::{Control, FleetSide, Keys, Options, Source, Token, Uplink};
use crate::telemetry::Metrics;
use crate::upstream::{self, Trust};

/// The control side, where the configuration says anything about agents or nodes.
pub(super) fn build(config: &CheckedConfig, clock: &Clock) -> anyhow::Result<Option<Control>> {
    if config.presence.is_none() {
        return Ok(None);
    }
    let options = config.control.as_ref().map(|control| options(config, control)).transpose()?;
    let state = config.control.as_ref().map(|control| control.state_dir.display().to_string());
    let opened = Control::open(read_keys(config)?, options, clock.clone());
    let opened = opened
        .with_context(|| format!("[control] state_dir {} cannot be used", state.unwrap_or_default()))?;
    Ok(Some(opened))
}

fn options(config: &CheckedConfig, control: &ControlConfig) -> anyhow::Result<Options> {
    let source = match &control.source {
        ControlSource::Directory(directory) => Source::Directory(directory.clone(), control.check_every),
        ControlSource::Upstream(upstream) => Source::Upstream(Box::new(uplink(config, control, upstream)?)),
    };
    Ok(Options {
        name: config.server.node.clone(),
        source,
        state_dir: control.state_dir.clone(),
        hold: control.hold,
        keep_commands: control.keep_commands,
    })
}

pub(super) fn uplink(
    config: &CheckedConfig,
    control: &ControlConfig,
    upstream: &ControlUpstream,
) -> anyhow::Result<Uplink> {
    let ca = upstream.ca.as_deref().map(build::read).transpose()?;
    let options = upstream::Options {
        trust: ca.map_or(Trust::System, Trust::Exactly),
        identity: upstream.client_cert.as_ref().map(build::read_identity).transpose()?,
        ..upstream::Options::new(upstream.url.clone())
    };
    let token = upstream.token.as_ref().map(Secret::read).transpose().context("the token of [control]")?;
    Uplink::new(&options, &config.server.node, token.as_deref(), control.hold).context("[control] upstream")
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

/// What operators are told about the documents.
pub(super) fn status(fleet: &FleetSide) -> Value {
    let (board, index) = (fleet.board(), fleet.board().index());
    let source = match fleet.directory() {
        Some(directory) => directory.display().to_string(),
        None => fleet.upstream().unwrap_or_default().to_owned(),
    };
    let node = |(name, seen, waiting): (String, Option<Timestamp>, usize)| json!({ "node": name, "seen": seen.map(|at| at.0 / 1_000), "waiting": waiting });
    json!({
        "role": if fleet.directory().is_some() { "authority" } else { "mirror" },
        "source": source,
        "version": index.as_ref().map(|index| index.version),
        "digest": index.as_ref().map(|index| index.digest.as_str()),
        "issued": index.as_ref().map(|index| index.issued / 1_000),
        "age_seconds": index.as_ref().map(|_| fleet.age().as_secs()),
        "warnings": board.warnings(),
        "trouble": board.trouble().map(|trouble| json!({
            "reason": trouble.word,
            "detail": trouble.text,
            "since": trouble.since.0 / 1_000,
        })),
        "nodes": fleet.nodes().into_iter().map(node).collect::<Vec<_>>(),
    })
}

/// Copies what the documents' state is into the metrics just before they are read.
pub(super) fn measure(fleet: FleetSide, metrics: &Metrics) {
    metrics.before_reading(move |metrics| {
        let version = fleet.board().index().map(|index| index.version);
        metrics.bundle.version.set(version.unwrap_or(0));
        metrics.bundle.age.set(version.map_or(0, |_| fleet.age().as_secs()));
        metrics.bundle.well.set(u64::from(version.is_some() && fleet.board().trouble().is_none()));
    });
}
