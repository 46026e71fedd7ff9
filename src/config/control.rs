//! `[control]` and `[agents]`: where the fleet's documents come from, and who may ask for them.

use std::path::PathBuf;
use std::time::Duration;

use super::address::{has_user_info, parse_upstream_url};
use super::diagnostic::{Code, Diagnostic};
use super::files::{self, IDENTITY};
use super::node::too_many;
use super::ranges::{
    AGENT_TOKENS, COMMAND_TTL, CONTROL_CHECK_EVERY, CONTROL_HOLD, CONTROL_STATE_DIR, NODE_TOKENS, TOKEN_BYTES,
};
use super::reader::{At, Keys, Section};
use super::{Secret, TlsFiles};

pub(super) const CONTROL: Keys = Keys {
    known: &[
        "directory",
        "upstream",
        "ca",
        "client_cert",
        "token",
        "state_dir",
        "tokens",
        "check_every",
        "hold",
        "keep_commands",
    ],
    later: &[],
};
pub(super) const AGENTS: Keys = Keys {
    known: &[
        "client_ca",
        "tokens",
        "state_dir",
        "checkin_interval",
        "ping_after",
        "ping_timeout",
        "session_timeout",
        "keep_offline",
        "passive",
        "keep_passive",
        "late_after",
        "offline_after",
        "stalled_after",
        "max",
    ],
    later: &[],
};
pub(super) const NODE_TOKEN: Keys = Keys { known: &["name", "secret"], later: &[] };
pub(super) const AGENT_TOKEN: Keys = Keys { known: &["name", "tree", "secret"], later: &[] };

/// `[control]`: where the fleet's documents come from, and who mirrors them from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlConfig {
    /// The source.
    pub source: ControlSource,
    /// Where the bundle, and what waits for other nodes, is kept.
    pub state_dir: PathBuf,
    /// Tokens of the nodes that may mirror from here.
    pub tokens: Vec<NodeTokenConfig>,
    /// How often the directory is looked at.
    pub check_every: Duration,
    /// How long a node's question is held until there is news.
    pub hold: Duration,
    /// How long a command waits for a node that is away.
    pub keep_commands: Duration,
}

/// Where the documents come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlSource {
    /// This node is the authority: from this directory.
    Directory(PathBuf),
    /// Mirrored from another node.
    Upstream(Box<ControlUpstream>),
}

/// The node that the documents are mirrored from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlUpstream {
    /// `https://` or `http://`; ends with `/`.
    pub url: String,
    /// A PEM file with the only authorities to trust; `None` trusts the system's.
    pub ca: Option<PathBuf>,
    /// What this node shows.
    pub client_cert: Option<TlsFiles>,
    /// The token that this node sends.
    pub token: Option<Secret>,
}

/// A token of a node below this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTokenConfig {
    /// The name of the node that comes with it.
    pub name: String,
    /// Where its value is.
    pub secret: Secret,
}

/// `[agents]`: who they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentsConfig {
    /// A PEM file with the authority of agents' and nodes' certificates.
    pub client_ca: Option<PathBuf>,
    /// Enrolment tokens.
    pub tokens: Vec<AgentTokenConfig>,
}

/// An enrolment token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentTokenConfig {
    /// How the log names the group of agents that has it.
    pub name: String,
    /// The part of the system tree that it is good for.
    pub tree: Option<String>,
    /// Where its value is.
    pub secret: Secret,
}

/// `[control]`, if there is one.
pub(super) fn control(root: &Section<'_>) -> Option<ControlConfig> {
    if !root.has("control") {
        return None;
    }
    let section = root.section("control", "[control]", &CONTROL);
    let state_dir = section.path("state_dir");
    if let Some(dir) = &state_dir {
        files::check_directory_to_be(section.cx, dir);
    }
    let tokens = section.sections("tokens", "{ name, secret } of [control] tokens", &NODE_TOKEN);
    check_many(&section, tokens.len(), NODE_TOKENS);
    let mut names = Vec::new();
    Some(ControlConfig {
        source: source(&section)?,
        state_dir: state_dir.map_or_else(|| PathBuf::from(CONTROL_STATE_DIR), |at| at.value),
        tokens: tokens.iter().filter_map(|token| node_token(token, &mut names)).collect(),
        check_every: section.duration_or("check_every", &CONTROL_CHECK_EVERY),
        hold: section.duration_or("hold", &CONTROL_HOLD),
        keep_commands: section.duration_or("keep_commands", &COMMAND_TTL),
    })
}

fn source(section: &Section<'_>) -> Option<ControlSource> {
    let directory = section.path("directory");
    match (section.has("directory"), section.key_span("upstream")) {
        (false, None) => {
            section.missing(
                "upstream",
                "write upstream = \"https://hq.example:8443/\", or directory = \"fleet\" where this is the authority",
            );
            None
        }
        (true, Some(span)) => {
            let message = "`directory` and `upstream` contradict each other";
            let found = Diagnostic::error(Code::Conflict, span, message);
            section.cx.report(found.help("the authority has the directory, all others an upstream"));
            None
        }
        (true, None) => {
            for key in ["ca", "client_cert", "token"] {
                warn_without(section, key, "upstream");
            }
            let directory = directory?;
            files::check_directory(section.cx, &directory);
            Some(ControlSource::Directory(directory.value))
        }
        (false, Some(_)) => {
            warn_without(section, "check_every", "directory");
            upstream(section).map(|upstream| ControlSource::Upstream(Box::new(upstream)))
        }
    }
}

fn warn_without(section: &Section<'_>, key: &str, other: &str) {
    if let Some(span) = section.key_span(key) {
        let message = format!("`{key}` has no effect without `{other}`");
        section.cx.report(Diagnostic::warning(Code::NoEffect, span, message));
    }
}

fn upstream(section: &Section<'_>) -> Option<ControlUpstream> {
    let ca = section.path("ca");
    if let Some(ca) = &ca {
        files::check_certificates(section.cx, ca);
    }
    let client_cert = section
        .has("client_cert")
        .then(|| files::identity(&section.section("client_cert", "`client_cert`", &IDENTITY)))
        .flatten();
    let token = section.secret("token");
    if let Some(token) = &token {
        files::check_token(section.cx, token, TOKEN_BYTES);
    }
    let text = section.text("upstream")?;
    let parsed = match parse_upstream_url(text.value) {
        Ok(parsed) => parsed,
        Err(wrong) => {
            if has_user_info(text.value) {
                section.cx.hide(text.span.clone());
            }
            let message = format!("not the URL of a node: {wrong}");
            let found = Diagnostic::error(Code::BadValue, text.span, message);
            section.cx.report(found.help("write it like \"https://hq.example:8443/\""));
            return None;
        }
    };
    if !parsed.secure && (token.is_some() || client_cert.is_some()) {
        let message = "a token or certificate is of no use over plain HTTP";
        let found = Diagnostic::error(Code::Unsafe, text.span.clone(), message);
        section.cx.report(found.help("write https://, or leave them out for a node on this machine"));
    }
    Some(ControlUpstream {
        url: parsed.url,
        ca: ca.map(|at| at.value),
        client_cert,
        token: token.map(|at| at.value),
    })
}

/// `[agents]`
pub(super) fn agents(section: &Section<'_>) -> AgentsConfig {
    let client_ca = section.path("client_ca");
    if let Some(path) = &client_ca {
        files::check_certificates(section.cx, path);
    }
    let tokens = section.sections("tokens", "{ name, tree, secret } of [agents] tokens", &AGENT_TOKEN);
    check_many(section, tokens.len(), AGENT_TOKENS);
    let mut names = Vec::new();
    AgentsConfig {
        client_ca: client_ca.map(|at| at.value),
        tokens: tokens.iter().filter_map(|token| agent_token(token, &mut names)).collect(),
    }
}

fn check_many(section: &Section<'_>, there: usize, allowed: usize) {
    if there > allowed {
        too_many(section, "tokens", allowed);
    }
}

fn node_token(token: &Section<'_>, names: &mut Vec<At<String>>) -> Option<NodeTokenConfig> {
    let secret = secret(token);
    let name = name(token, "write name = \"branch-7\", the `[server] node` of the node that has it", names)?;
    let right = name.value.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if !right {
        let found = Diagnostic::error(Code::BadValue, name.span, "`name` is no name of a node");
        token.cx.report(found.help("allowed: a letter, then letters, digits, `-`, `.` and `_`"));
        return None;
    }
    Some(NodeTokenConfig { name: name.value, secret: secret? })
}

fn agent_token(token: &Section<'_>, names: &mut Vec<At<String>>) -> Option<AgentTokenConfig> {
    let secret = secret(token);
    let tree = token.text("tree");
    let name = name(token, "write name = \"berlin\"; the log names agents that come with it so", names)?;
    if let Some(tree) = tree.as_ref().filter(|tree| !tree.value.starts_with('/')) {
        let found =
            Diagnostic::error(Code::BadValue, tree.span.clone(), "`tree` is no place in the system tree");
        token.cx.report(found.help("it begins with `/`, such as \"/emea/berlin\""));
        return None;
    }
    Some(AgentTokenConfig { name: name.value, tree: tree.map(|at| at.value.to_owned()), secret: secret? })
}

fn name(token: &Section<'_>, help: &str, names: &mut Vec<At<String>>) -> Option<At<String>> {
    if !token.has("name") {
        token.missing("name", help);
    }
    let name = token.text("name")?.map(str::to_owned);
    if name.value.is_empty() || name.value.len() > 64 {
        let found = Diagnostic::error(Code::BadValue, name.span, "`name` is empty or longer than 64");
        token.cx.report(found.help(help));
        return None;
    }
    if let Some(first) = names.iter().find(|first| first.value == name.value) {
        let found = Diagnostic::error(Code::Conflict, name.span.clone(), "two tokens have this name");
        token.cx.report(found.related(first.span.clone(), "first here"));
    }
    names.push(name.clone());
    Some(name)
}

fn secret(token: &Section<'_>) -> Option<Secret> {
    if !token.has("secret") {
        token.missing("secret", "write secret = { file = \"agents.token\" } or { env = \"AGENTS_TOKEN\" }");
    }
    let secret = token.secret("secret")?;
    files::check_token(token.cx, &secret, TOKEN_BYTES);
    Some(secret.value)
}
