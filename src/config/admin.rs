//! `[admin]`: the operator's ways in. A TCP address without somebody to ask for credentials is an error.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::checked::{AdminConfig, AdminRole, ServerConfig, TokenConfig};
use super::diagnostic::{Code, Diagnostic};
use super::files::{self, IDENTITY};
use super::node;
use super::ranges::{SOCKET_PATH_BYTES, TOKEN_BYTES, TOKENS};
use super::reader::{At, Keys, Section};

pub(super) const ADMIN: Keys =
    Keys { known: &["socket", "operators", "viewers", "listen", "tls", "client_ca", "tokens"], later: &[] };
pub(super) const TOKEN: Keys = Keys { known: &["name", "role", "secret"], later: &[] };

/// `[admin]`; `server` has the certificate that is shown where no other is named.
pub(super) fn admin(section: &Section<'_>, server: &ServerConfig) -> AdminConfig {
    let listen = listen(section);
    let tls =
        section.has("tls").then(|| files::identity(&section.section("tls", "`tls`", &IDENTITY))).flatten();
    let client_ca = section.path("client_ca");
    if let Some(path) = &client_ca {
        files::check_certificates(section.cx, path);
    }
    let tokens = tokens(section);
    if listen.is_some() {
        if !section.has("tokens") && !section.has("client_ca") {
            section.missing("tokens", "write tokens = [{ name = \"ops\", role = \"operator\", secret = { file = \"ops.token\" } }], or client_ca");
        }
        if !section.has("tls") && server.tls.is_none() {
            section.missing("tls", "write tls = { cert = \"admin.pem\", key = { file = \"admin.key\" } }");
        }
    } else if !section.has("listen") {
        for key in ["tls", "client_ca", "tokens"] {
            if let Some(span) = section.key_span(key) {
                let message = format!("`{key}` has no effect without `listen`");
                section.cx.report(Diagnostic::warning(Code::NoEffect, span, message));
            }
        }
    }
    AdminConfig {
        socket: socket(section),
        operators: group(section, "operators"),
        viewers: group(section, "viewers"),
        tls: tls.or_else(|| server.tls.clone()).filter(|_| listen.is_some()),
        listen,
        client_ca: client_ca.map(|at| at.value),
        tokens,
    }
}

fn socket(section: &Section<'_>) -> Option<PathBuf> {
    let socket = section.path("socket")?;
    if socket.value.as_os_str().len() > SOCKET_PATH_BYTES {
        let message = format!("{} is too long for a Unix socket", socket.value.display());
        let found = Diagnostic::error(Code::OutOfRange, socket.span, message);
        section.cx.report(found.help(format!("allowed: up to {SOCKET_PATH_BYTES} bytes")));
        return None;
    }
    if socket.value.is_dir() {
        let message = format!("{} is a directory", socket.value.display());
        section.cx.report(Diagnostic::error(Code::File, socket.span, message));
        return None;
    }
    Some(socket.value)
}

fn listen(section: &Section<'_>) -> Option<SocketAddr> {
    let text = section.text("listen")?;
    text.value.parse().map_or_else(
        |_| {
            let message = format!("`{}` is not an address with a port", text.value.escape_debug());
            let found = Diagnostic::error(Code::BadValue, text.span.clone(), message);
            section.cx.report(found.help("write it like \"127.0.0.1:8444\" or \"0.0.0.0:8444\""));
            None
        },
        Some,
    )
}

/// A group of this machine, by name or number.
fn group(section: &Section<'_>, key: &str) -> Option<String> {
    let text = section.text(key)?;
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let known = text.value.parse::<u32>().is_ok()
        || groups.lines().any(|line| line.split(':').next() == Some(text.value) && !text.value.is_empty());
    if !known {
        let message = format!("this machine has no group `{}`", text.value.escape_debug());
        let found = Diagnostic::error(Code::BadValue, text.span, message);
        section.cx.report(found.help("name a group of /etc/group, or write its number"));
        return None;
    }
    Some(text.value.to_owned())
}

fn tokens(section: &Section<'_>) -> Vec<TokenConfig> {
    let sections = section.sections("tokens", "{ name, role, secret } of tokens", &TOKEN);
    if sections.len() > TOKENS {
        node::too_many(section, "tokens", TOKENS);
    }
    if section.is_empty_list("tokens")
        && let Some(span) = section.key_span("tokens")
        && !section.has("client_ca")
    {
        let found = Diagnostic::error(Code::Missing, span, "`tokens` has none, so nobody could come in");
        section.cx.report(found.help("write one, or client_ca"));
    }
    let mut names: Vec<At<&str>> = Vec::new();
    let mut tokens = Vec::new();
    for token in &sections {
        if let Some(name) = token.text("name") {
            if let Some(first) = names.iter().find(|first| first.value == name.value) {
                let found = Diagnostic::error(Code::Conflict, name.span.clone(), "two tokens have this name");
                section.cx.report(found.related(first.span.clone(), "first here"));
            }
            names.push(name);
        }
        tokens.extend(one(token));
    }
    tokens
}

fn one(token: &Section<'_>) -> Option<TokenConfig> {
    for (key, help) in [
        ("name", "write name = \"ops\"; the log names who did something by it"),
        ("role", "write role = \"viewer\" or role = \"operator\""),
        ("secret", "write secret = { file = \"ops.token\" } or { env = \"OPS_TOKEN\" }"),
    ] {
        if !token.has(key) {
            token.missing(key, help);
        }
    }
    let role = token.word("role", &[("viewer", AdminRole::Viewer), ("operator", AdminRole::Operator)]);
    let secret = token.secret("secret");
    if let Some(secret) = &secret {
        files::check_token(token.cx, secret, TOKEN_BYTES);
    }
    let name = token.text("name")?;
    if name.value.is_empty() || name.value.len() > 64 {
        let found = Diagnostic::error(Code::BadValue, name.span, "`name` is empty or longer than 64");
        token.cx.report(found.help("write a short name, such as \"ops\""));
        return None;
    }
    Some(TokenConfig { name: name.value.to_owned(), role: role?.value, secret: secret?.value })
}
