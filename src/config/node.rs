//! `[server]` and `[log]`: what belongs to the node itself.

use std::net::{IpAddr, SocketAddr};

use super::address::{Wrong, parse_host, parse_host_and_port};
use super::checked::{AccessFormat, LogConfig, LogFormat, LogLevel, OtlpConfig, ServerConfig, TlsFiles};
use super::diagnostic::{Code, Diagnostic};
use super::files::{self, IDENTITY};
use super::ranges::{DRAIN, NAMES, NODE_CHARS, OTLP_ONE_IN, WORKERS};
use super::reader::{At, Context, Keys, Section};

pub(super) const SERVER: Keys =
    Keys { known: &["listen", "plain_listen", "tls", "names", "node", "drain", "workers"], later: &[] };
pub(super) const LOG: Keys =
    Keys { known: &["level", "format", "access", "access_format", "otlp"], later: &[] };

pub(super) const OTLP: Keys = Keys { known: &["endpoint", "one_in", "ca"], later: &[] };

const DEFAULT_NODE: &str = "waypost";

/// `[server]`
pub(super) fn server(section: &Section<'_>) -> ServerConfig {
    let listen = addresses(section, "listen");
    let plain = addresses(section, "plain_listen");
    check_loopback(section.cx, &plain);
    check_twice(section.cx, &listen, &plain);
    if !section.has("listen") && !section.has("plain_listen") {
        section.missing(
            "listen",
            "write listen = \"0.0.0.0:8443\" with tls, or plain_listen = \"127.0.0.1:8080\"",
        );
    }
    let names = section.texts("names");
    if names.len() > NAMES {
        too_many(section, "names", NAMES);
    }
    ServerConfig {
        tls: tls(section),
        listen: listen.into_iter().map(|at| at.value).collect(),
        plain_listen: plain.into_iter().map(|at| at.value).collect(),
        names: names.iter().filter_map(|name| host(section.cx, name)).collect(),
        node: node(section),
        drain: section.duration_or("drain", &DRAIN),
        workers: workers(section),
    }
}

/// A host name of a list, or a note what is wrong with it.
pub(super) fn host(cx: &Context<'_>, text: &At<&str>) -> Option<String> {
    host_by(parse_host, cx, text)
}

/// A host name with or without a port, or a note what is wrong with it.
pub(super) fn host_and_port(cx: &Context<'_>, text: &At<&str>) -> Option<String> {
    host_by(parse_host_and_port, cx, text)
}

fn host_by(parse: fn(&str) -> Result<String, Wrong>, cx: &Context<'_>, text: &At<&str>) -> Option<String> {
    parse(text.value)
        .map_err(|wrong| {
            let message = format!("`{}`: {wrong}", text.value.escape_debug());
            cx.report(Diagnostic::error(Code::BadValue, text.span.clone(), message));
        })
        .ok()
}

/// Notes that a list is longer than anybody means.
pub(super) fn too_many(section: &Section<'_>, key: &str, allowed: usize) {
    let span = section.key_span(key).unwrap_or_else(|| section.span.clone());
    let found = Diagnostic::error(Code::OutOfRange, span, format!("`{key}` has too many"));
    section.cx.report(found.help(format!("allowed: up to {allowed}")));
}

fn tls(section: &Section<'_>) -> Option<TlsFiles> {
    if !section.has("tls") {
        if section.has("listen") {
            section
                .missing("tls", "write tls = { cert = \"handler.pem\", key = { file = \"handler.key\" } }");
        }
        return None;
    }
    if !section.has("listen")
        && let Some(span) = section.key_span("tls")
    {
        let found = Diagnostic::warning(Code::NoEffect, span, "`tls` has no effect without `listen`");
        section.cx.report(found.help("plain_listen speaks plain HTTP"));
    }
    files::identity(&section.section("tls", "`tls`", &IDENTITY))
}

fn addresses(section: &Section<'_>, key: &str) -> Vec<At<SocketAddr>> {
    let mut parsed = Vec::new();
    for text in section.texts(key) {
        match text.value.parse() {
            Ok(value) => parsed.push(At { value, span: text.span }),
            Err(_) => {
                let message = format!("`{}` is not an address with a port", text.value.escape_debug());
                let found = Diagnostic::error(Code::BadValue, text.span.clone(), message);
                section.cx.report(found.help(address_help(text.value)));
            }
        }
    }
    parsed
}

/// The address that was probably meant.
fn address_help(text: &str) -> String {
    let port = text.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
    match (text.parse::<std::net::IpAddr>(), port) {
        (Ok(std::net::IpAddr::V4(address)), _) => format!("did you mean \"{address}:8443\"?"),
        (Ok(std::net::IpAddr::V6(address)), _) => format!("did you mean \"[{address}]:8443\"?"),
        (Err(_), Some(port)) if text.starts_with("localhost") => {
            format!("did you mean \"127.0.0.1:{port}\"?")
        }
        (Err(_), Some(port)) => format!("did you mean \"0.0.0.0:{port}\" or \"[::]:{port}\"?"),
        (Err(_), None) => "write it like \"0.0.0.0:8443\" or \"[::]:8443\"".to_owned(),
    }
}

fn check_loopback(cx: &Context<'_>, plain: &[At<SocketAddr>]) {
    for at in plain.iter().filter(|at| !at.value.ip().to_canonical().is_loopback()) {
        let message = format!("plain HTTP is for loopback only, and {} is not", at.value.ip());
        let found = Diagnostic::error(Code::BadValue, at.span.clone(), message);
        cx.report(
            found.help(format!(
                "use \"127.0.0.1:{0}\" or \"[::1]:{0}\", or `listen` with tls",
                at.value.port()
            )),
        );
    }
}

fn check_twice(cx: &Context<'_>, listen: &[At<SocketAddr>], plain: &[At<SocketAddr>]) {
    let mut seen: Vec<&At<SocketAddr>> = Vec::new();
    // Port 0 is another port each time.
    for at in listen.iter().chain(plain).filter(|at| at.value.port() != 0) {
        if let Some(first) = seen.iter().find(|first| first.value == at.value) {
            let message = format!("{} is listened to twice", at.value);
            let found = Diagnostic::error(Code::Conflict, at.span.clone(), message);
            cx.report(found.related(first.span.clone(), "first here"));
        } else {
            seen.push(at);
        }
    }
}

fn node(section: &Section<'_>) -> String {
    let Some(text) = section.text("node") else { return DEFAULT_NODE.to_owned() };
    let mut chars = text.value.chars();
    let right = chars.next().is_some_and(|first| first.is_ascii_alphabetic())
        && chars.all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
        && text.value.len() <= NODE_CHARS;
    if !right {
        let found = Diagnostic::error(Code::BadValue, text.span, "`node` cannot stand in a header");
        section.cx.report(
            found.help(format!(
                "allowed: a letter, then letters, digits, `-`, `.` and `_`, up to {NODE_CHARS}"
            )),
        );
        return DEFAULT_NODE.to_owned();
    }
    text.value.to_owned()
}

fn workers(section: &Section<'_>) -> usize {
    section.count("workers", &WORKERS).and_then(|at| usize::try_from(at.value).ok()).unwrap_or_else(|| {
        let most = usize::try_from(*WORKERS.end()).unwrap_or(usize::MAX);
        std::thread::available_parallelism().map_or(1, |cores| cores.get().min(most))
    })
}

/// `[log]`
pub(super) fn log(section: &Section<'_>) -> LogConfig {
    const LEVELS: [LogLevel; 5] =
        [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
    let levels = LEVELS.map(|level| (level.as_str(), level));
    let formats = [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
    let access_formats = [("json", AccessFormat::Json), ("combined", AccessFormat::Combined)];
    let access = section.path("access");
    if let Some(path) = &access {
        files::check_file_to_be(section.cx, path);
    }
    let access_format = section.word("access_format", &access_formats);
    if let (Some(format), false) = (&access_format, section.has("access")) {
        let message = "`access_format` has no effect without `access`";
        section.cx.report(Diagnostic::warning(Code::NoEffect, format.span.clone(), message));
    }
    LogConfig {
        level: section.word("level", &levels).map_or_else(LogLevel::default, |at| at.value),
        level_by_flag: false,
        format: section.word("format", &formats).map_or_else(LogFormat::default, |at| at.value),
        access: access.map(|at| at.value),
        access_format: access_format.map_or_else(AccessFormat::default, |at| at.value),
        otlp: section.has("otlp").then(|| otlp(section)).flatten(),
    }
}

/// Whether this program can tell a collector about traces.
const HAS_OTLP: bool = cfg!(feature = "otlp");

fn otlp(log: &Section<'_>) -> Option<OtlpConfig> {
    let section = log.section("otlp", "`otlp`", &OTLP);
    if !HAS_OTLP && let Some(span) = log.key_span("otlp") {
        let found = Diagnostic::error(Code::NotAvailable, span, "this waypost was built without traces");
        section.cx.report(found.help("use one that was built with `--features otlp`, or take `otlp` out"));
    }
    if !section.has("endpoint") {
        section.missing(
            "endpoint",
            "write endpoint = \"http://127.0.0.1:4318\", where your collector takes OTLP over HTTP",
        );
    }
    let one_in = section.count("one_in", &OTLP_ONE_IN.range).map_or(OTLP_ONE_IN.default, |at| at.value);
    let ca = section.path("ca");
    if let Some(path) = &ca {
        files::check_certificates(section.cx, path);
    }
    let endpoint = section.text("endpoint")?;
    let (secure, authority) = match endpoint.value.parse::<http::Uri>() {
        Ok(uri) if uri.query().is_none() && matches!(uri.scheme_str(), Some("http" | "https")) => {
            (uri.scheme_str() == Some("https"), uri.authority().cloned())
        }
        _ => (false, None),
    };
    let Some(authority) = authority.filter(|it| !it.as_str().contains('@') && !it.host().is_empty()) else {
        let message = format!("`{}` is no endpoint", endpoint.value.escape_debug());
        let found = Diagnostic::error(Code::BadValue, endpoint.span, message);
        section.cx.report(found.help("write http://HOST:4318 or https://HOST:PORT, without user and query"));
        return None;
    };
    let host = authority.host().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|it| it.is_loopback());
    if !secure && !is_here {
        let message = "traces go over the network in the clear: paths, and addresses of agents";
        let found = Diagnostic::warning(Code::Unsafe, endpoint.span.clone(), message);
        section.cx.report(found.help("use https://, or a collector on this machine"));
    }
    if !secure && let Some(span) = section.key_span("ca") {
        section.cx.report(Diagnostic::warning(Code::NoEffect, span, "`ca` has no effect without https"));
    }
    Some(OtlpConfig { endpoint: endpoint.value.to_owned(), one_in, ca: ca.map(|at| at.value) })
}
