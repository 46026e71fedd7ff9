//! What a repository says about fetching: sources in order, trust, time.

use std::path::PathBuf;

use super::TlsFiles;
use super::address::{has_user_info, parse_upstream_url};
use super::catalogue;
use super::checked::{Preset, UpstreamConfig, UpstreamsConfig};
use super::diagnostic::{Code, Diagnostic};
use super::files::{self, IDENTITY};
use super::node::{host_and_port, too_many};
use super::ranges::{
    CONNECT_TIMEOUT, FIRST_BYTE_TIMEOUT, FORWARD_HEADERS, MIN_RATE, NAMES, PRIORITY, STALL_TIMEOUT, UPSTREAMS,
};
use super::reader::{At, Keys, Section, TextOrTable};

pub(super) const UPSTREAM: Keys = Keys { known: &["url", "priority"], later: &["weight"] };

/// Keys that say something about fetching and nothing about files of a directory.
const FETCHING: [&str; 8] = [
    "forward_headers",
    "ca",
    "client_cert",
    "connect_timeout",
    "first_byte_timeout",
    "stall_timeout",
    "min_rate",
    "redirect_hosts",
];

/// Headers that a repository cannot forward, and who owns them instead.
const OWNED: [&str; 30] = [
    "accept-encoding",
    "authorization",
    "cache-control",
    "cdn-loop",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "pragma",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];

/// Notes keys that have no effect on a directory.
pub(super) fn warn_without(section: &Section<'_>) {
    for key in FETCHING.into_iter().chain(catalogue::CATALOGUE) {
        if let Some(span) = section.key_span(key) {
            let message = format!("`{key}` has no effect on a directory");
            section.cx.report(Diagnostic::warning(Code::NoEffect, span, message));
        }
    }
}

/// The sources and how they are used.
pub(super) fn upstreams(section: &Section<'_>, preset: Preset) -> Option<UpstreamsConfig> {
    let sources = sources(section);
    let (ca, client_cert) = trust(section, &sources);
    let redirect_hosts = section.texts("redirect_hosts");
    if redirect_hosts.len() > NAMES {
        too_many(section, "redirect_hosts", NAMES);
    }
    let config = UpstreamsConfig {
        forward_headers: forward_headers(section),
        redirect_hosts: redirect_hosts.iter().filter_map(|name| host_and_port(section.cx, name)).collect(),
        ca,
        client_cert,
        connect_timeout: section.duration_or("connect_timeout", &CONNECT_TIMEOUT),
        first_byte_timeout: section.duration_or("first_byte_timeout", &FIRST_BYTE_TIMEOUT),
        stall_timeout: section.duration_or("stall_timeout", &STALL_TIMEOUT),
        min_rate: section.rate_or("min_rate", &MIN_RATE),
        catalogue: catalogue::catalogue(section, preset),
        sources: sources.into_iter().map(|(source, _)| source.value).collect(),
    };
    (!config.sources.is_empty()).then_some(config)
}

/// All sources, sorted by priority, each with whether it is https.
fn sources(section: &Section<'_>) -> Vec<(At<UpstreamConfig>, bool)> {
    let given = section.texts_or_tables("upstreams", "the upstream", &UPSTREAM);
    if given.is_empty()
        && section.is_empty_list("upstreams")
        && let Some(span) = section.key_span("upstreams")
    {
        let found = Diagnostic::error(Code::Missing, span, "`upstreams` is empty");
        section.cx.report(found.help("name at least one, like \"https://master.example/Software/\""));
    }
    if given.len() > UPSTREAMS {
        too_many(section, "upstreams", UPSTREAMS);
    }
    let mut sources: Vec<(At<UpstreamConfig>, bool)> = Vec::new();
    for (place, item) in (1_u32..).zip(given) {
        let Some((source, secure)) = source(section, item, place) else { continue };
        if let Some((first, _)) = sources.iter().find(|(first, _)| first.value.url == source.value.url) {
            let message = format!("{} is there twice", source.value.url);
            let found = Diagnostic::error(Code::Conflict, source.span.clone(), message);
            section.cx.report(found.related(first.span.clone(), "first here"));
        }
        sources.push((source, secure));
    }
    sources.sort_by_key(|(source, _)| source.value.priority);
    sources
}

fn source(section: &Section<'_>, item: TextOrTable<'_>, place: u32) -> Option<(At<UpstreamConfig>, bool)> {
    let (text, priority) = match item {
        TextOrTable::Text(text) => (text, place),
        TextOrTable::Table(table) => {
            if !table.has("url") {
                table.missing("url", "write { url = \"https://master.example/Software/\", priority = 1 }");
            }
            let priority = table.count("priority", &PRIORITY);
            let priority = priority.and_then(|at| u32::try_from(at.value).ok()).unwrap_or(place);
            (table.text("url")?, priority)
        }
    };
    match parse_upstream_url(text.value) {
        Ok(parsed) => {
            let config = UpstreamConfig { url: parsed.url, priority };
            Some((At { value: config, span: text.span }, parsed.secure))
        }
        Err(wrong) => {
            if has_user_info(text.value) {
                section.cx.hide(text.span.clone());
            }
            let found =
                Diagnostic::error(Code::BadValue, text.span, format!("not the URL of an upstream: {wrong}"));
            section.cx.report(found.help("write it like \"https://master.example/Software/\""));
            None
        }
    }
}

fn trust(
    section: &Section<'_>,
    sources: &[(At<UpstreamConfig>, bool)],
) -> (Option<PathBuf>, Option<TlsFiles>) {
    let ca = section.path("ca");
    if let Some(ca) = &ca {
        files::check_certificates(section.cx, ca);
    }
    let identity = if section.has("client_cert") {
        files::identity(&section.section("client_cert", "`client_cert`", &IDENTITY))
    } else {
        None
    };
    if !sources.is_empty() && !sources.iter().any(|(_, secure)| *secure) {
        for key in ["ca", "client_cert"] {
            if let Some(span) = section.key_span(key) {
                let message = format!("`{key}` has no effect without an https upstream");
                section.cx.report(Diagnostic::warning(Code::NoEffect, span, message));
            }
        }
    }
    (ca.map(|at| at.value), identity)
}

fn forward_headers(section: &Section<'_>) -> Vec<String> {
    let given = section.texts("forward_headers");
    if given.len() > FORWARD_HEADERS {
        too_many(section, "forward_headers", FORWARD_HEADERS);
    }
    let mut names: Vec<String> = Vec::new();
    for text in given {
        let name = text.value.to_ascii_lowercase();
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            let message = format!("`{}` is not a header name", text.value.escape_debug());
            section.cx.report(Diagnostic::error(Code::BadValue, text.span, message));
        } else if OWNED.contains(&name.as_str()) {
            let message = format!("`{name}` cannot be forwarded");
            let found = Diagnostic::error(Code::BadValue, text.span, message);
            section.cx.report(found.help("a cached answer is for everybody: connection, range, condition and identity headers stay here"));
        } else if names.contains(&name) {
            let message = format!("`{name}` is there twice");
            section.cx.report(Diagnostic::warning(Code::NoEffect, text.span, message));
        } else {
            names.push(name);
        }
    }
    names
}
