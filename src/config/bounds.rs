//! `[cache]` and `[limits]`.

use std::path::PathBuf;

use super::checked::{CacheConfig, Limits};
use super::diagnostic::{Code, Diagnostic};
use super::files;
use super::ranges::{
    CACHE_DIR, CACHE_MAX_OBJECT, CACHE_MEMORY, CACHE_MIN_FREE, CACHE_SCRUB_RATE, CACHE_SIZE, CONNECTIONS,
    CONNECTIONS_PER_ADDRESS, FILLS, FILLS_PER_UPSTREAM, HANDSHAKES, HEAD_TIMEOUT, IDLE_TIMEOUT, QUEUE,
    QUEUE_WAIT, REQUESTS_PER_CONNECTION, SEND_TIMEOUT,
};
use super::reader::{Keys, Section};
use super::values::render_bytes;

pub(super) const CACHE: Keys =
    Keys { known: &["dir", "size", "memory", "min_free", "max_object", "scrub_rate"], later: &[] };
pub(super) const LIMITS: Keys = Keys {
    known: &[
        "connections",
        "connections_per_address",
        "handshakes",
        "fills",
        "fills_per_upstream",
        "queue",
        "queue_wait",
        "head_timeout",
        "send_timeout",
        "idle_timeout",
        "requests_per_connection",
    ],
    later: &[],
};

/// `[cache]`
pub(super) fn cache(section: &Section<'_>) -> CacheConfig {
    let dir = section.path("dir");
    if let Some(dir) = &dir {
        files::check_directory_to_be(section.cx, dir);
    }
    let size = section.size_or("size", &CACHE_SIZE);
    let max_object = section.size("max_object", &CACHE_MAX_OBJECT.range);
    if let Some(at) = max_object.as_ref().filter(|at| at.value > size) {
        let message = format!("`max_object` is larger than the cache, {}", render_bytes(size));
        let found = Diagnostic::error(Code::Conflict, at.span.clone(), message);
        section.cx.report(match section.key_span("size") {
            Some(size) => found.related(size, "the cache's size"),
            None => found.help("the default of `size` is 10GiB"),
        });
    }
    CacheConfig {
        dir: dir.map_or_else(|| PathBuf::from(CACHE_DIR), |at| at.value),
        size,
        memory: section.size_or("memory", &CACHE_MEMORY),
        min_free: section.size_or("min_free", &CACHE_MIN_FREE),
        scrub_rate: section.rate_or("scrub_rate", &CACHE_SCRUB_RATE),
        max_object: max_object.map_or(CACHE_MAX_OBJECT.default, |at| at.value).min(size),
    }
}

/// `[limits]`
pub(super) fn limits(section: &Section<'_>) -> Limits {
    let limits = Limits {
        connections: section.count_or("connections", &CONNECTIONS),
        connections_per_address: section.count_or("connections_per_address", &CONNECTIONS_PER_ADDRESS),
        handshakes: section.count_or("handshakes", &HANDSHAKES),
        fills: section.count_or("fills", &FILLS),
        fills_per_upstream: section.count_or("fills_per_upstream", &FILLS_PER_UPSTREAM),
        queue: section.count_or("queue", &QUEUE),
        queue_wait: section.duration_or("queue_wait", &QUEUE_WAIT),
        head_timeout: section.duration_or("head_timeout", &HEAD_TIMEOUT),
        send_timeout: section.duration_or("send_timeout", &SEND_TIMEOUT),
        idle_timeout: section.duration_or("idle_timeout", &IDLE_TIMEOUT),
        requests_per_connection: u32::try_from(
            section.count_or("requests_per_connection", &REQUESTS_PER_CONNECTION),
        )
        .unwrap_or(u32::MAX),
    };
    warn_above(
        section,
        "connections_per_address",
        limits.connections_per_address,
        "connections",
        limits.connections,
    );
    warn_above(section, "handshakes", limits.handshakes, "connections", limits.connections);
    warn_above(section, "fills_per_upstream", limits.fills_per_upstream, "fills", limits.fills);
    limits
}

/// A part that is larger than its whole never bounds anything. Said only about what the file itself says.
fn warn_above(section: &Section<'_>, part: &str, of: usize, whole: &str, all: usize) {
    if of > all
        && let Some(span) = section.key_span(part)
    {
        let message = format!("`{part}` has no effect above `{whole}`, which is {all}");
        section.cx.report(Diagnostic::warning(Code::NoEffect, span, message));
    }
}
