//! `[[repository.rule]]`: each one by itself, then the ones that an earlier one hides.

use globset::{GlobBuilder, GlobMatcher};

use super::checked::RuleConfig;
use super::diagnostic::{Code, Diagnostic};
use super::ranges::{NEGATIVE_TIME, RULE_TIME};
use super::reader::{At, Context, Keys, Section};

pub(super) const RULE: Keys = Keys {
    known: &["match", "fresh_for", "stale_while_revalidate", "stale_if_error", "immutable", "negative_for"],
    later: &[],
};

/// The rules in the order of the file.
pub(super) fn rules(cx: &Context<'_>, sections: &[Section<'_>]) -> Vec<RuleConfig> {
    let mut earlier: Vec<At<(String, GlobMatcher)>> = Vec::new();
    let mut rules = Vec::new();
    for section in sections {
        let rule = rule(section);
        let Some(pattern) = pattern(section) else { continue };
        warn_hidden(cx, &earlier, &pattern);
        rules.push(RuleConfig { pattern: pattern.value.0.clone(), ..rule });
        earlier.push(pattern);
    }
    rules
}

fn rule(section: &Section<'_>) -> RuleConfig {
    let time = |key| section.duration(key, &RULE_TIME).map(|at| at.value);
    let rule = RuleConfig {
        pattern: String::new(),
        fresh_for: time("fresh_for"),
        stale_while_revalidate: time("stale_while_revalidate"),
        stale_if_error: time("stale_if_error"),
        immutable: section.flag("immutable").map(|at| at.value),
        negative_for: section.duration("negative_for", &NEGATIVE_TIME).map(|at| at.value),
    };
    if !RULE.known.iter().any(|key| *key != "match" && section.has(key)) {
        let found = Diagnostic::warning(Code::NoEffect, section.span.clone(), "this rule sets nothing");
        section.cx.report(found.help("it still hides later rules from what it matches"));
    }
    rule
}

fn pattern(section: &Section<'_>) -> Option<At<(String, GlobMatcher)>> {
    if !section.has("match") {
        section.missing("match", "write match = \"**/*.zip\", a glob below the repository's path");
    }
    let text = section.text("match")?;
    let wrong = |message: String, help: String| {
        section.cx.report(Diagnostic::error(Code::BadValue, text.span.clone(), message).help(help));
    };
    if text.value.is_empty() || text.value.starts_with('/') {
        let meant = text.value.trim_start_matches('/');
        let meant = if meant.is_empty() { "**" } else { meant };
        wrong(
            "`match` is relative to the repository's path".to_owned(),
            format!("did you mean \"{}\"?", meant.escape_debug()),
        );
        return None;
    }
    match GlobBuilder::new(text.value).literal_separator(true).build() {
        Ok(glob) => {
            let matcher = glob.compile_matcher();
            Some(At { value: (text.value.to_owned(), matcher), span: text.span })
        }
        Err(error) => {
            let help = "`*` is anything but `/`, `**` is any directories, `{a,b}` is one of them".to_owned();
            wrong(format!("`match` is not a glob: {}", error.kind()), help);
            None
        }
    }
}

/// Reports a text that is no glob below the repository's path.
pub(super) fn check_glob(cx: &Context<'_>, key: &str, text: &At<&str>) {
    if text.value.is_empty() || text.value.starts_with('/') {
        let message = format!("`{key}` is relative to the repository's path");
        cx.report(Diagnostic::error(Code::BadValue, text.span.clone(), message));
    } else if let Err(error) = GlobBuilder::new(text.value).literal_separator(true).build() {
        let message = format!("`{key}` is not a glob: {}", error.kind());
        cx.report(Diagnostic::error(Code::BadValue, text.span.clone(), message));
    }
}

/// The first rule that matches wins, so one behind a wider one never does. Certain for equal patterns, for
/// patterns without wildcards and behind a match-all; overlaps of two globs are not judged.
fn warn_hidden(cx: &Context<'_>, earlier: &[At<(String, GlobMatcher)>], later: &At<(String, GlobMatcher)>) {
    let literal = !later.value.0.contains(['*', '?', '[', '{', '\\']);
    let hiding = earlier.iter().find(|first| {
        let (pattern, matcher) = &first.value;
        matches!(pattern.as_str(), "**" | "**/*")
            || *pattern == later.value.0
            || (literal && matcher.is_match(&later.value.0))
    });
    if let Some(first) = hiding {
        let found = Diagnostic::warning(Code::NoEffect, later.span.clone(), "this rule never matches");
        let found = found.related(first.span.clone(), "matches all of it first");
        cx.report(found.help("the first rule that matches wins: put the narrower one first"));
    }
}
