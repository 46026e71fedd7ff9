//! The configuration reference of `[control]` and `[agents]`.

use super::ranges::*;
use super::reference::{Row, code, count, quoted, row, time};

pub(super) fn control() -> Vec<Row> {
    let tokens = format!("up to {NODE_TOKENS}");
    vec![
        row("directory", "none", "a directory", "the fleet's documents are here: this node is the authority"),
        row("upstream", "none", "a URL", "the node that they are mirrored from; this or `directory`"),
        row("ca", "the system's", "a PEM file", "trust exactly these authorities for `upstream`"),
        row("client_cert", "none", "`{ cert, key }`", "what we show to `upstream`; URI `waypost:node:NAME`"),
        row(
            "token",
            "none",
            "`{ file }` or `{ env }`",
            "what we send to `upstream` where we show no certificate",
        ),
        row(
            "state_dir",
            &code(&quoted(CONTROL_STATE_DIR)),
            "a path",
            "where the last good documents and what waits for other nodes are kept",
        ),
        row("tokens", "none", &tokens, "of the nodes that mirror from here; see below"),
        time("check_every", &CONTROL_CHECK_EVERY, "how often `directory` is looked at"),
        time("hold", &CONTROL_HOLD, "how long a node's question is held until there is news"),
        time("keep_commands", &COMMAND_TTL, "how long a command waits for a node that is away"),
    ]
}

pub(super) fn node_token() -> Vec<Row> {
    let secret = format!("`{{ file }}` or `{{ env }}`, {TOKEN_BYTES} characters or more");
    vec![
        row("name", "has to be there", "a node's name", "`[server] node` of the node that has it"),
        row("secret", "has to be there", &secret, "where its value is: `openssl rand -hex 32`"),
    ]
}

pub(super) fn agents() -> Vec<Row> {
    let tokens = format!("up to {AGENT_TOKENS}");
    vec![
        row(
            "client_ca",
            "none",
            "a PEM file",
            "agents and nodes are known by certificates of this authority; others are served files and no more",
        ),
        row("tokens", "none", &tokens, "who sends one of them is the agent it says; see below"),
        row("state_dir", "that of `[control]`", "a path", "where what is known of agents is kept"),
        time("checkin_interval", &CHECKIN_INTERVAL, "between two check-ins of an agent; spread by a tenth"),
        time("ping_after", &PING_AFTER, "a stream that was silent for this long is pinged"),
        time("ping_timeout", &PING_TIMEOUT, "a ping not answered for this long ends the stream"),
        time("session_timeout", &SESSION_TIMEOUT, "a tunnel that was silent for this long has ended"),
        time("keep_offline", &KEEP_OFFLINE, "how long an agent that was disconnected stays in live views"),
        row(
            "passive",
            "`false`",
            "`true`, `false`",
            "clients that do not check in (freshclam, apt, pip) are listed from what they fetch",
        ),
        time("keep_passive", &KEEP_PASSIVE, "how long they stay in live views after the last they fetched"),
        count("late_after", &LATE_AFTER, "intervals without check-in after which an agent is late"),
        count("offline_after", &OFFLINE_AFTER, "intervals without check-in after which it is offline"),
        count(
            "stalled_after",
            &STALLED_AFTER,
            "intervals without check-in after which a connected one is stalled",
        ),
        count("max", &AGENTS, "agents known at once; who is gone for longest makes room"),
    ]
}

pub(super) fn agent_token() -> Vec<Row> {
    let secret = format!("`{{ file }}` or `{{ env }}`, {TOKEN_BYTES} characters or more");
    vec![
        row("name", "has to be there", "up to 64 characters", "which group of agents it is, in the log"),
        row("tree", "the whole", "begins with `/`", "the part of the system tree whose agents may have it"),
        row("secret", "has to be there", &secret, "where its value is: `openssl rand -hex 32`"),
    ]
}
