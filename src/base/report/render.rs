//! Findings for people, drawn by the renderer of the Rust compiler.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::diagnostic::{Diagnostic, Severity};

/// Draws all findings, an empty line between them, a line feed at the end of each.
pub(super) fn report(file: &str, text: &str, list: &[Diagnostic], styled: bool) -> String {
    let renderer = if styled { Renderer::styled() } else { Renderer::plain() };
    let mut out = String::new();
    for found in list {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&renderer.render(&[group(file, text, found)]));
        out.push('\n');
    }
    out
}

fn group<'a>(file: &'a str, text: &'a str, found: &'a Diagnostic) -> Group<'a> {
    let level = match found.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(found.message.as_str()));
    if let Some(span) = &found.span {
        let mut snippet =
            Snippet::source(text).path(file).annotation(AnnotationKind::Primary.span(within(text, span)));
        if let Some(related) = &found.related {
            let there = AnnotationKind::Context.span(within(text, &related.span));
            snippet = snippet.annotation(there.label(related.label.as_str()));
        }
        group = group.element(snippet);
    }
    if let Some(help) = &found.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    group
}

/// The renderer wants spans on character boundaries inside of the text.
fn within(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(span.start.min(text.len()));
    let end = text.ceil_char_boundary(span.end.clamp(start, text.len()));
    start..end
}
