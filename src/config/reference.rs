//! The configuration reference of the README, made from the same keys, defaults and ranges as the check.
//!
//! `WAYPOST_BLESS=1 cargo test --lib config::reference` writes it again; what a key means is said here.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::files::IDENTITY;
use super::ranges::*;
use super::reader::Keys;
use super::reference_fleet::{agent_token, agents, control as control_rows, node_token};
use super::values::{render_bytes, render_duration};
use super::{admin, bounds, control, node, repository, rules, upstreams};
use crate::repository::rules::{NEGATIVE_FOR, STALE_IF_ERROR, STALE_WHILE_REVALIDATE};

/// Key, default, what is allowed, what it means.
pub(super) type Row = (&'static str, String, String, &'static str);

pub(super) fn row(key: &'static str, default: &str, allowed: &str, meaning: &'static str) -> Row {
    (key, default.to_owned(), allowed.to_owned(), meaning)
}

fn of<T: Copy>(
    key: &'static str,
    allowed: &Allowed<T>,
    render: impl Fn(T) -> String,
    meaning: &'static str,
) -> Row {
    let range = format!("{} to {}", render(*allowed.range.start()), render(*allowed.range.end()));
    (key, code(&render(allowed.default)), range, meaning)
}

pub(super) fn time(key: &'static str, allowed: &Allowed<Duration>, meaning: &'static str) -> Row {
    of(key, allowed, |time| quoted(&render_duration(time)), meaning)
}

fn size(key: &'static str, allowed: &Allowed<u64>, meaning: &'static str) -> Row {
    of(key, allowed, |bytes| quoted(&render_bytes(bytes)), meaning)
}

pub(super) fn count(key: &'static str, allowed: &Allowed<u64>, meaning: &'static str) -> Row {
    of(key, allowed, |number| number.to_string(), meaning)
}

fn span(key: &'static str, default: &str, range: &RangeInclusive<Duration>, meaning: &'static str) -> Row {
    let [from, to] = [range.start(), range.end()].map(|time| quoted(&render_duration(*time)));
    row(key, default, &format!("{from} to {to}"), meaning)
}

pub(super) fn code(text: &str) -> String {
    format!("`{text}`")
}

pub(super) fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

/// A table of the file, its keys, and what there is to say about them.
pub(super) type Section = (&'static str, Keys, Vec<Row>);

/// Keys that only a restart changes; all others change with a reload.
const RESTART: &[(&str, &[&str])] = &[
    ("[server]", &["listen", "plain_listen", "names", "node", "drain", "workers"]),
    ("[admin]", &["socket", "listen"]),
    ("[cache]", &["dir", "size", "memory", "min_free", "max_object"]),
    (
        "[limits]",
        &[
            "connections",
            "connections_per_address",
            "handshakes",
            "fills",
            "queue",
            "queue_wait",
            "head_timeout",
            "send_timeout",
            "idle_timeout",
            "requests_per_connection",
        ],
    ),
    (
        "[control]",
        &[
            "directory",
            "upstream",
            "ca",
            "client_cert",
            "token",
            "state_dir",
            "check_every",
            "hold",
            "keep_commands",
        ],
    ),
    ("[agents]", &["state_dir", "max"]),
    ("[log]", &["format", "access", "access_format"]),
    ("[log]", &["format", "access", "access_format", "otlp"]),
    ("{ endpoint, one_in, ca } of otlp", &["endpoint", "one_in", "ca"]),
];

/// Whether a changed key is in force after a `reload`, or only after a `restart`.
pub(super) fn takes_effect(section: &str, key: &str) -> &'static str {
    let waits = RESTART.iter().any(|(name, keys)| *name == section && keys.contains(&key));
    if waits { "restart" } else { "reload" }
}

/// Every table with its keys.
pub(super) fn sections() -> Vec<Section> {
    vec![
        ("[server]", node::SERVER, server()),
        ("[admin]", admin::ADMIN, admin()),
        ("{ name, role } of certificates", admin::CERTIFICATE, certificate()),
        ("{ name, role, secret } of tokens", admin::TOKEN, token()),
        ("[cache]", bounds::CACHE, cache()),
        ("[limits]", bounds::LIMITS, limits()),
        ("[[repository]]", repository::REPOSITORY, repositories()),
        ("[[repository.rule]]", rules::RULE, rule()),
        ("[control]", control::CONTROL, control_rows()),
        ("{ name, secret } of [control] tokens", control::NODE_TOKEN, node_token()),
        ("[agents]", control::AGENTS, agents()),
        ("{ name, tree, secret } of [agents] tokens", control::AGENT_TOKEN, agent_token()),
        ("[log]", node::LOG, log()),
        ("{ endpoint, one_in, ca } of otlp", node::OTLP, otlp()),
        ("{ url, priority } of upstreams", upstreams::UPSTREAM, upstream()),
        ("{ cert, key } of tls and client_cert", IDENTITY, identity()),
    ]
}

fn server() -> Vec<Row> {
    let names = format!("up to {NAMES}");
    let node = format!("a letter, then letters, digits, `-._`, up to {NODE_CHARS}");
    let workers = format!("{} to {}", WORKERS.start(), WORKERS.end());
    vec![
        row(
            "listen",
            "none",
            "one or several `\"address:port\"`",
            "HTTPS with HTTP/2 and HTTP/1.1; wants `tls`",
        ),
        row(
            "plain_listen",
            "none",
            "one or several, loopback only",
            "plain HTTP/1.1 for this machine; this or `listen` has to be there",
        ),
        row("tls", "none", "`{ cert, key }`", "what `listen` shows to agents"),
        row("names", "answer to all", &names, "host names we answer to; another `Host` gets 421"),
        row("node", "`\"waypost\"`", &node, "our name in `Via` and `Cache-Status`"),
        time("drain", &DRAIN, "how long running transfers may go on after TERM"),
        row("workers", "one a core", &workers, "threads that serve"),
    ]
}

fn admin() -> Vec<Row> {
    let path = format!("a path, up to {SOCKET_PATH_BYTES} bytes");
    let (tokens, holders) = (format!("up to {TOKENS}"), format!("up to {CERTIFICATES}"));
    let group = "a group of this machine";
    vec![
        row(
            "socket",
            "none",
            &path,
            "Unix socket; root, the node's user and members of the groups are let in",
        ),
        row("operators", "none", group, "its members may look and change"),
        row("viewers", "none", group, "its members may look"),
        row("listen", "none", "`\"address:port\"`", "TLS; wants `tokens` or `client_ca`"),
        row("tls", "that of `[server]`", "`{ cert, key }`", "what `listen` shows"),
        row("client_ca", "none", "a PEM file", "who shows a certificate of this authority may look"),
        row("certificates", "none", &holders, "who of them may do more; see below"),
        row("tokens", "none", &tokens, "who sends one of them is let in; see below"),
    ]
}

fn certificate() -> Vec<Row> {
    let name = format!("up to {CERTIFICATE_NAME_BYTES} characters, letter by letter");
    vec![
        row(
            "name",
            "has to be there",
            &name,
            "the common name, or a mailbox, host name or URI of the alternative names",
        ),
        row("role", "has to be there", "`\"viewer\"`, `\"operator\"`", "looks, or looks and changes"),
    ]
}

fn token() -> Vec<Row> {
    let secret = format!("`{{ file }}` or `{{ env }}`, {TOKEN_BYTES} characters or more");
    vec![
        row("name", "has to be there", "up to 64 characters", "who did something, in the log"),
        row("role", "has to be there", "`\"viewer\"`, `\"operator\"`", "looks, or looks and changes"),
        row("secret", "has to be there", &secret, "where its value is: `openssl rand -hex 32`"),
    ]
}

fn cache() -> Vec<Row> {
    vec![
        row(
            "dir",
            &code(&quoted(CACHE_DIR)),
            "a path",
            "where it is; one process at a time, made if missing",
        ),
        size("size", &CACHE_SIZE, "bytes on disk that bodies and records may take"),
        size("memory", &CACHE_MEMORY, "of it, hot in memory: a quarter records, the rest blocks"),
        size("min_free", &CACHE_MIN_FREE, "of the file system, left free whatever `size` says"),
        size("max_object", &CACHE_MAX_OBJECT, "larger files stream through unstored; at most `size`"),
        of(
            "scrub_rate",
            &CACHE_SCRUB_RATE,
            |rate| quoted(&format!("{}/s", render_bytes(rate))),
            "how fast blocks that nobody asks for are read and checked, once a day; `\"0B/s\"` turns it off",
        ),
    ]
}

fn limits() -> Vec<Row> {
    vec![
        count("connections", &CONNECTIONS, "client connections at once; more are closed at accept"),
        count("connections_per_address", &CONNECTIONS_PER_ADDRESS, "of one IPv4 address or IPv6 /64"),
        count("handshakes", &HANDSHAKES, "TLS handshakes computed at once; more wait their turn"),
        count("fills", &FILLS, "fetches from upstreams at once; more wait in line"),
        count("fills_per_upstream", &FILLS_PER_UPSTREAM, "of one upstream"),
        count("queue", &QUEUE, "requests, and fetches, that may wait; beyond it 503"),
        time("queue_wait", &QUEUE_WAIT, "how long a fetch waits in line before its readers get 503"),
        time("head_timeout", &HEAD_TIMEOUT, "for a request head, from its first byte"),
        time(
            "send_timeout",
            &SEND_TIMEOUT,
            "a reader that takes nothing (or under 1 KiB/s) for so long is cut",
        ),
        time("idle_timeout", &IDLE_TIMEOUT, "between two requests of a connection"),
        count("requests_per_connection", &REQUESTS_PER_CONNECTION, "then it is closed in good order"),
    ]
}

fn repositories() -> Vec<Row> {
    let upstreams = format!("1 to {UPSTREAMS} URLs or `{{ url, priority }}`");
    let headers = format!("up to {FORWARD_HEADERS} names");
    let hosts = format!("up to {NAMES}");
    let rules = format!("up to {RULES}");
    [
        row(
            "name",
            "has to be there",
            "`a-z`, `0-9`, `-`, up to 40",
            "in metrics, logs and keys of the cache",
        ),
        row(
            "path",
            "has to be there",
            "starts and ends with `/`",
            "URL prefix; the longest that matches wins",
        ),
        row(
            "preset",
            "`\"generic\"`",
            "`\"generic\"`, `\"epo\"`, `\"clamav\"`, `\"apt\"`",
            "what kind of repository it is",
        ),
        row("directory", "none", "a directory", "files come from here: this node is the master"),
        row("upstreams", "none", &upstreams, "files come from there; this or `directory`"),
        row(
            "query",
            "`\"refuse\"`",
            "`\"refuse\"`, `\"key\"`, `\"drop\"`",
            "a query string is an error, part of the name, or ignored",
        ),
        row("rule", "none", &rules, "what is known better than the origin says; see below"),
        row("forward_headers", "none", &headers, "request headers that go upstream and select variants"),
        row("ca", "the system's", "a PEM file", "trust exactly these authorities (or this certificate)"),
        row("client_cert", "none", "`{ cert, key }`", "what we show to upstreams"),
        time("connect_timeout", &CONNECT_TIMEOUT, "for each address of an upstream, TCP and TLS"),
        time("first_byte_timeout", &FIRST_BYTE_TIMEOUT, "from the request to the reply's head"),
        time("stall_timeout", &STALL_TIMEOUT, "without a byte of the body"),
        of(
            "min_rate",
            &MIN_RATE,
            |rate| quoted(&format!("{}/s", render_bytes(rate))),
            "slower over 30 s counts as broken; `\"0B/s\"` turns it off",
        ),
        row("redirect_hosts", "none", &hosts, "hosts that redirects may lead to, beside the upstream's own"),
    ]
    .into_iter()
    .chain(catalogues())
    .collect()
}

/// Keys of a repository whose preset knows its catalogue.
fn catalogues() -> Vec<Row> {
    vec![
        row(
            "checksums",
            "`false`",
            "`true`, `false`",
            "preset \"generic\": folders have a `SHA256SUMS`, which is their catalogue",
        ),
        time(
            "check_every",
            &CHECK_EVERY,
            "how often upstream is asked for a newer generation, while agents come",
        ),
        row(
            "prepare",
            "`\"used\"`",
            "`\"none\"`, `\"deltas\"`, `\"used\"`, `\"all\"`, globs",
            "what is fetched and proven before agents see a new generation; `used`: what they fetched of the last one",
        ),
        time("prepare_within", &PREPARE_WITHIN, "then it is shown with the rest still arriving"),
        row(
            "prefetch",
            "`true`",
            "`true`, `false`",
            "what agents used is fetched in its new version before they ask",
        ),
        of(
            "prefetch_rate",
            &PREFETCH_RATE,
            |rate| quoted(&format!("{}/s", render_bytes(rate))),
            "what fetching ahead takes while no agent reads; `\"0B/s\"` is no limit",
        ),
        time(
            "grace",
            &GRACE,
            "how long agents that began with a generation get its files after the next is shown",
        ),
        time(
            "alarm_after",
            &ALARM_AFTER,
            "unconfirmed by upstream for so long, a generation raises an alarm",
        ),
        span(
            "stop_after",
            "never",
            &STOP_AFTER,
            "… and is not offered any more, so that agents go elsewhere",
        ),
    ]
}

fn rule() -> Vec<Row> {
    let default = |time| format!("the origin's, else {}", code(&quoted(&render_duration(time))));
    let negative = code(&quoted(&render_duration(NEGATIVE_FOR)));
    vec![
        row("match", "has to be there", "a glob", "below the repository's path; without `/` in any folder"),
        span("fresh_for", "the origin's", &RULE_TIME, "fresh for so long after we got or confirmed it"),
        span(
            "stale_while_revalidate",
            &default(STALE_WHILE_REVALIDATE),
            &RULE_TIME,
            "then goes out for so long while it is revalidated behind",
        ),
        span(
            "stale_if_error",
            &default(STALE_IF_ERROR),
            &RULE_TIME,
            "goes out for so long while upstream fails",
        ),
        row(
            "immutable",
            "the origin's",
            "`true`, `false`",
            "never changes under its name, so is never revalidated",
        ),
        span("negative_for", &negative, &NEGATIVE_TIME, "how long a 404 or 410 is believed"),
    ]
}

fn log() -> Vec<Row> {
    vec![
        row("level", "`\"info\"`", "`error`, `warn`, `info`, `debug`, `trace`", "what is said on stderr"),
        row("format", "`\"auto\"`", "`auto`, `text`, `json`", "`auto`: text on a terminal, JSON otherwise"),
        row("access", "none", "a path", "one line for each request; USR1 opens it again"),
        row("access_format", "`\"json\"`", "`json`, `combined`", "how these lines look"),
        row(
            "otlp",
            "none",
            "`{ endpoint, one_in, ca }`",
            "traces of requests and fetches for a collector; only where built with `--features otlp`",
        ),
    ]
}

fn otlp() -> Vec<Row> {
    vec![
        row(
            "endpoint",
            "has to be there",
            "`http://` or `https://`",
            "where a collector takes OTLP over HTTP, without `v1/traces`",
        ),
        count(
            "one_in",
            &OTLP_ONE_IN,
            "one of so many requests begins a trace; those that are part of one go on with it",
        ),
        row("ca", "the machine's", "a PEM file", "the authorities of its certificate"),
    ]
}

fn upstream() -> Vec<Row> {
    let priority = format!("{} to {}", PRIORITY.start(), PRIORITY.end());
    vec![
        row(
            "url",
            "has to be there",
            "`https://` or `http://`",
            "no user, query or fragment; a `/` is added",
        ),
        row("priority", "its place in the list", &priority, "the lowest is asked first"),
    ]
}

fn identity() -> Vec<Row> {
    vec![
        row("cert", "has to be there", "a PEM file", "the chain, leaf first"),
        row(
            "key",
            "has to be there",
            "`{ file }` or `{ env }`",
            "the private key in PEM, in a file or a variable",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn reference() -> String {
        let mut text = String::new();
        for (name, _, rows) in sections() {
            let _ = write!(
                text,
                "\n`{name}`\n\n| key | default | allowed | change | meaning |\n| --- | --- | --- | --- | --- |\n"
            );
            for (key, default, allowed, meaning) in rows {
                let change = takes_effect(name, key);
                let _ = writeln!(text, "| `{key}` | {default} | {allowed} | {change} | {meaning} |");
            }
        }
        text
    }

    const BEGIN: &str = "<!-- reference: begin, made from src/config -->\n";
    const END: &str = "\n<!-- reference: end -->";

    #[test]
    fn every_key_has_its_line() {
        for (name, keys, rows) in sections() {
            let mut told: Vec<&str> = rows.iter().map(|row| row.0).collect();
            let mut known = keys.known.to_vec();
            told.sort_unstable();
            known.sort_unstable();
            assert_eq!(told, known, "{name}");
        }
    }

    #[test]
    fn the_readme_has_this_reference() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
        let readme = std::fs::read_to_string(path).unwrap();
        let (before, rest) = readme.split_once(BEGIN).unwrap();
        let (found, after) = rest.split_once(END).unwrap();
        if std::env::var_os("WAYPOST_BLESS").is_some() {
            std::fs::write(path, format!("{before}{BEGIN}{}{END}{after}", reference())).unwrap();
        } else {
            assert_eq!(
                found,
                reference(),
                "WAYPOST_BLESS=1 cargo test --lib config::reference writes it again"
            );
        }
    }
}
