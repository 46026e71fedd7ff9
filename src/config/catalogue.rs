//! What a repository says about its catalogues: how they are watched, and what is fetched before agents ask.

use std::time::Duration;

use super::checked::{CatalogueConfig, PrepareConfig, Preset};
use super::diagnostic::{Code, Diagnostic};
use super::ranges::{ALARM_AFTER, CHECK_EVERY, GRACE, NAMES, PREFETCH_RATE, PREPARE_WITHIN, STOP_AFTER};
use super::reader::{At, Section};
use super::rules::check_glob;

/// Keys that say something about catalogues.
pub(super) const CATALOGUE: [&str; 9] = [
    "check_every",
    "prepare",
    "prepare_within",
    "prefetch",
    "prefetch_rate",
    "grace",
    "alarm_after",
    "stop_after",
    "checksums",
];

/// How the catalogues of this repository are watched; `None` where its kind has none.
pub(super) fn catalogue(section: &Section<'_>, preset: Preset) -> Option<CatalogueConfig> {
    let checksums = section.flag("checksums");
    if let Some(at) = &checksums
        && preset != Preset::Generic
    {
        let message =
            "`checksums` has an effect on preset \"generic\" only: the others have catalogues of their own";
        section.cx.report(Diagnostic::warning(Code::NoEffect, at.span.clone(), message));
    }
    let config = CatalogueConfig {
        check_every: section.duration_or("check_every", &CHECK_EVERY),
        prepare: prepare(section),
        prepare_within: section.duration_or("prepare_within", &PREPARE_WITHIN),
        prefetch: section.flag("prefetch").is_none_or(|at| at.value),
        prefetch_rate: section.rate_or("prefetch_rate", &PREFETCH_RATE),
        grace: section.duration_or("grace", &GRACE),
        alarm_after: section.duration_or("alarm_after", &ALARM_AFTER),
        stop_after: stop_after(section),
    };
    if preset == Preset::Generic && !checksums.is_some_and(|at| at.value) {
        warn_without(section);
        return None;
    }
    Some(config)
}

/// Notes keys that have no effect where there is no catalogue.
fn warn_without(section: &Section<'_>) {
    for key in CATALOGUE.into_iter().filter(|key| *key != "checksums") {
        if let Some(span) = section.key_span(key) {
            let message = format!("`{key}` has no effect: preset \"generic\" has no catalogue");
            let found = Diagnostic::warning(Code::NoEffect, span, message);
            section.cx.report(found.help("choose the preset that fits, or write checksums = true"));
        }
    }
}

fn stop_after(section: &Section<'_>) -> Option<Duration> {
    section.duration("stop_after", &STOP_AFTER).map(|at| at.value)
}

/// A word, or a list of globs.
fn prepare(section: &Section<'_>) -> PrepareConfig {
    let given: Vec<At<&str>> = section.texts("prepare");
    if given.len() > NAMES {
        super::node::too_many(section, "prepare", NAMES);
    }
    if let [one] = given.as_slice()
        && let Some(meant) = word(one.value)
    {
        return meant;
    }
    if given.is_empty() {
        return PrepareConfig::Used;
    }
    for one in &given {
        if word(one.value).is_some() {
            let message =
                format!("`prepare` is one word or a list of globs, not `{}` among others", one.value);
            section.cx.report(Diagnostic::error(Code::BadValue, one.span.clone(), message));
        } else if !one.value.contains(['*', '?', '[', '{', '/', '.']) {
            let message = format!("`prepare` cannot be `{}`", one.value.escape_debug());
            let found = Diagnostic::error(Code::BadValue, one.span.clone(), message);
            section
                .cx
                .report(found.help("allowed: \"none\", \"deltas\", \"used\", \"all\", or a list of globs"));
        } else {
            check_glob(section.cx, "prepare", one);
        }
    }
    PrepareConfig::Matching(given.iter().map(|one| one.value.to_owned()).collect())
}

fn word(text: &str) -> Option<PrepareConfig> {
    Some(match text {
        "none" => PrepareConfig::Nothing,
        "deltas" => PrepareConfig::Deltas,
        "used" => PrepareConfig::Used,
        "all" => PrepareConfig::All,
        _ => return None,
    })
}
