//! `[admin]`: the operator's ways in. A TCP address without somebody to ask for credentials is an error.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::checked::{AdminConfig, AdminRole, CertificateConfig, ServerConfig, TokenConfig};
use super::diagnostic::{Code, Diagnostic};
use super::files::{self, IDENTITY};
use super::node;
use super::ranges::{
    CERTIFICATE_NAME_BYTES, CERTIFICATES, SOCKET_PATH_BYTES, TOKEN_BYTES, TOKEN_NAME_BYTES, TOKENS,
};
use super::reader::{At, Keys, Section};

pub(super) const ADMIN: Keys = Keys {
    known: &["socket", "operators", "viewers", "listen", "tls", "client_ca", "certificates", "tokens"],
    later: &[],
};
pub(super) const CERTIFICATE: Keys = Keys { known: &["name", "role"], later: &[] };
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
    let (certificates, tokens) = (certificates(section), tokens(section));
    if listen.is_some() {
        if !section.has("tokens") && !section.has("client_ca") {
            section.missing("tokens", "write tokens = [{ name = \"ops\", role = \"operator\", secret = { file = \"ops.token\" } }], or client_ca");
        }
        if !section.has("tls") && server.tls.is_none() {
            section.missing("tls", "write tls = { cert = \"admin.pem\", key = { file = \"admin.key\" } }");
        }
    } else if !section.has("listen") {
        for key in ["tls", "client_ca", "certificates", "tokens"] {
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
        certificates,
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

fn certificates(section: &Section<'_>) -> Vec<CertificateConfig> {
    let sections = section.sections("certificates", "{ name, role } of certificates", &CERTIFICATE);
    if sections.len() > CERTIFICATES {
        node::too_many(section, "certificates", CERTIFICATES);
    }
    if let Some(span) = section.key_span("certificates")
        && !section.has("client_ca")
        && section.has("listen")
    {
        let found =
            Diagnostic::warning(Code::NoEffect, span, "`certificates` has no effect without `client_ca`");
        section.cx.report(found.help("write client_ca = \"staff.pem\", the authority that signs them"));
    }
    let mut names = Names::default();
    sections.iter().filter_map(|it| holder(it, &mut names)).collect()
}

fn holder<'a>(holder: &Section<'a>, names: &mut Names<'a>) -> Option<CertificateConfig> {
    for (key, help) in [
        ("name", "write name = \"ann\": the common name, or a mailbox, host or URI of the certificate"),
        ROLE,
    ] {
        if !holder.has(key) {
            holder.missing(key, help);
        }
    }
    let role = role(holder);
    let name = names.take(holder, "two certificates have this name", CERTIFICATE_NAME_BYTES)?;
    Some(CertificateConfig { name, role: role? })
}

const ROLE: (&str, &str) = ("role", "write role = \"viewer\" or role = \"operator\"");

fn role(section: &Section<'_>) -> Option<AdminRole> {
    let roles = [("viewer", AdminRole::Viewer), ("operator", AdminRole::Operator)];
    section.word("role", &roles).map(|at| at.value)
}

/// Names of a list, each once.
#[derive(Default)]
struct Names<'a>(Vec<At<&'a str>>);

impl<'a> Names<'a> {
    /// The `name` of one more of them, or a note what is wrong with it.
    fn take(&mut self, section: &Section<'a>, twice: &str, longest: usize) -> Option<String> {
        let name = section.text("name")?;
        let value = name.value;
        if let Some(first) = self.0.iter().find(|first| first.value == value) {
            let found = Diagnostic::error(Code::Conflict, name.span.clone(), twice);
            section.cx.report(found.related(first.span.clone(), "first here"));
        }
        if value.is_empty() || value.len() > longest {
            let message = format!("`name` is empty or longer than {longest}");
            let found = Diagnostic::error(Code::BadValue, name.span, message);
            section.cx.report(found.help("write a short name, such as \"ops\""));
            return None;
        }
        self.0.push(name);
        Some(value.to_owned())
    }
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
    let mut names = Names::default();
    sections.iter().filter_map(|token| one(token, &mut names)).collect()
}

fn one<'a>(token: &Section<'a>, names: &mut Names<'a>) -> Option<TokenConfig> {
    for (key, help) in [
        ("name", "write name = \"ops\"; the log names who did something by it"),
        ROLE,
        ("secret", "write secret = { file = \"ops.token\" } or { env = \"OPS_TOKEN\" }"),
    ] {
        if !token.has(key) {
            token.missing(key, help);
        }
    }
    let role = role(token);
    let secret = token.secret("secret");
    if let Some(secret) = &secret {
        files::check_token(token.cx, secret, TOKEN_BYTES);
    }
    let name = names.take(token, "two tokens have this name", TOKEN_NAME_BYTES)?;
    Some(TokenConfig { name, role: role?, secret: secret?.value })
}
