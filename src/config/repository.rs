//! `[[repository]]`: each one by itself, then all together.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::address::check_repository_path;
use super::checked::{Preset, QueryMode, RepositoryConfig, Source};
use super::diagnostic::{Code, Diagnostic};
use super::ranges::{REPOSITORIES, RULES};
use super::reader::{At, Context, Keys, Section};
use super::{files, rules, upstreams};

pub(super) const REPOSITORY: Keys = Keys {
    known: &[
        "name",
        "path",
        "preset",
        "directory",
        "upstreams",
        "query",
        "rule",
        "forward_headers",
        "ca",
        "client_cert",
        "connect_timeout",
        "first_byte_timeout",
        "stall_timeout",
        "min_rate",
        "redirect_hosts",
        "check_every",
        "prepare",
        "prepare_within",
        "prefetch",
        "prefetch_rate",
        "grace",
        "alarm_after",
        "stop_after",
        "checksums",
    ],
    later: &[],
};

/// What one repository says, with the places that the comparison needs.
struct Read {
    name: Option<At<String>>,
    path: Option<At<String>>,
    directory: Option<At<PathBuf>>,
    rest: Option<(Source, Preset)>,
    query: QueryMode,
    rules: Vec<super::RuleConfig>,
}

/// All repositories; those with an error of their own are missing from the list.
pub(super) fn repositories(root: &Section<'_>, cache_dir: &Path) -> Vec<RepositoryConfig> {
    let sections = root.sections("repository", "[[repository]]", &REPOSITORY);
    if !root.has("repository") || root.is_empty_list("repository") {
        let message = "there is no [[repository]], so this node would serve nothing";
        let help = "add [[repository]] with name, path, and upstreams or directory";
        root.cx.report(Diagnostic::error(Code::Missing, root.span.clone(), message).help(help));
    }
    if sections.len() > REPOSITORIES {
        super::node::too_many(root, "repository", REPOSITORIES);
    }
    let all: Vec<Read> = sections.iter().map(read).collect();
    check_twice(root.cx, all.iter().filter_map(|one| one.name.as_ref()), "two repositories are named");
    check_twice(root.cx, all.iter().filter_map(|one| one.path.as_ref()), "two repositories have the path");
    for directory in all.iter().filter_map(|one| one.directory.as_ref()) {
        check_apart(root.cx, directory, cache_dir);
    }
    all.into_iter().filter_map(finish).collect()
}

fn read(section: &Section<'_>) -> Read {
    let preset = preset(section);
    let directory = section.path("directory");
    let source = source(section, directory.as_ref(), preset.unwrap_or(Preset::Generic));
    let query = [("refuse", QueryMode::Refuse), ("key", QueryMode::Key), ("drop", QueryMode::Drop)];
    let rules = section.sections("rule", "[[repository.rule]]", &rules::RULE);
    if rules.len() > RULES {
        super::node::too_many(section, "rule", RULES);
    }
    Read {
        name: name(section),
        path: path(section),
        directory,
        rest: source.zip(preset),
        query: section.word("query", &query).map_or_else(QueryMode::default, |at| at.value),
        rules: rules::rules(section.cx, &rules),
    }
}

fn finish(read: Read) -> Option<RepositoryConfig> {
    let (source, preset) = read.rest?;
    Some(RepositoryConfig {
        name: read.name?.value,
        path: read.path?.value,
        preset,
        source,
        query: read.query,
        rules: read.rules,
    })
}

fn name(section: &Section<'_>) -> Option<At<String>> {
    const HELP: &str = "allowed: lower-case letters, digits and `-`, up to 40";
    if !section.has("name") {
        section.missing("name", "write name = \"software\"; it stands in metrics, logs and commands");
    }
    let text = section.text("name")?;
    let right = (1..=40).contains(&text.value.len())
        && text.value.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if !right {
        let message = format!("`{}` is not a name for a repository", text.value.escape_debug());
        section.cx.report(Diagnostic::error(Code::BadValue, text.span, message).help(HELP));
        return None;
    }
    Some(text.map(str::to_owned))
}

fn path(section: &Section<'_>) -> Option<At<String>> {
    if !section.has("path") {
        section.missing("path", "write path = \"/Software/\", the URL prefix that agents ask for");
    }
    let text = section.text("path")?;
    if let Err(wrong) = check_repository_path(text.value) {
        let message = format!("`path` cannot be `{}`: {wrong}", text.value.escape_debug());
        let found = Diagnostic::error(Code::BadValue, text.span, message);
        let meant = format!("/{}/", text.value.trim_matches('/'));
        section.cx.report(match check_repository_path(&meant) {
            Ok(()) => found.help(format!("did you mean \"{meant}\"?")),
            Err(_) => found.help("write it like \"/Software/\""),
        });
        return None;
    }
    Some(text.map(str::to_owned))
}

fn preset(section: &Section<'_>) -> Option<Preset> {
    if !section.has("preset") {
        return Some(Preset::Generic);
    }
    section.word("preset", &Preset::ALL.map(|preset| (preset.as_str(), preset))).map(|at| at.value)
}

fn source(section: &Section<'_>, directory: Option<&At<PathBuf>>, preset: Preset) -> Option<Source> {
    const HELP: &str = "a repository comes from a directory (this node is its master) or from upstreams";
    match (section.key_span("directory"), section.key_span("upstreams")) {
        (Some(first), Some(second)) => {
            let message = "`directory` and `upstreams` are in the same repository";
            let found = Diagnostic::error(Code::Conflict, second, message);
            section.cx.report(found.related(first, "the other one").help(HELP));
            None
        }
        (None, None) => {
            let message = "a repository needs `upstreams` or a `directory`";
            let found = Diagnostic::error(Code::Missing, section.span.clone(), message);
            section.cx.report(found.help("write upstreams = [\"https://master.example/Software/\"]"));
            None
        }
        (Some(_), None) => {
            upstreams::warn_without(section);
            let directory = directory?;
            files::check_directory(section.cx, directory);
            Some(Source::Directory(directory.value.clone()))
        }
        (None, Some(_)) => upstreams::upstreams(section, preset).map(|it| Source::Upstreams(Box::new(it))),
    }
}

fn check_twice<'a>(cx: &Context<'_>, all: impl Iterator<Item = &'a At<String>>, what: &str) {
    let mut seen: Vec<(&str, &Range<usize>)> = Vec::new();
    for at in all {
        if let Some((_, first)) = seen.iter().find(|(value, _)| *value == at.value) {
            let message = format!("{what} \"{}\"", at.value);
            let found = Diagnostic::error(Code::Conflict, at.span.clone(), message);
            cx.report(found.related((*first).clone(), "first here"));
        } else {
            seen.push((&at.value, &at.span));
        }
    }
}

/// A master that serves the cache's own files, or a cache that evicts the master's, is never meant.
fn check_apart(cx: &Context<'_>, directory: &At<PathBuf>, cache: &Path) {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let (files, cache) = (real(&directory.value), real(cache));
    if files.starts_with(&cache) || cache.starts_with(&files) {
        let message =
            format!("the directory of the repository and of the cache, {}, overlap", cache.display());
        cx.report(
            Diagnostic::error(Code::Conflict, directory.span.clone(), message)
                .help("set [cache] dir elsewhere"),
        );
    }
}
