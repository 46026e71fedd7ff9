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
        let related = found.related.as_ref().map(|related| (within(text, &related.span), related));
        let span = within(text, span);
        let (start, window) = window(text, &span, related.as_ref().map(|(there, _)| there));
        let line = text.get(..start).unwrap_or_default().matches('\n').count() + 1;
        let here = AnnotationKind::Primary.span(moved(&span, start));
        let mut snippet = Snippet::source(window).line_start(line).path(file).annotation(here);
        if let Some((there, related)) = &related {
            let there = AnnotationKind::Context.span(moved(there, start));
            snippet = snippet.annotation(there.label(related.label.as_str()));
        }
        group = group.element(snippet);
    }
    if let Some(help) = &found.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    group
}

/// The lines that a finding is about, and where they start: the renderer looks at all that it is given, and a list of
/// 100,000 agents has many lines.
fn window<'t>(text: &'t str, span: &Range<usize>, related: Option<&Range<usize>>) -> (usize, &'t str) {
    let start = related.map_or(span.start, |there| span.start.min(there.start));
    let end = related.map_or(span.end, |there| span.end.max(there.end));
    let before = text.get(..start).unwrap_or_default();
    let start = before.rfind('\n').map_or(0, |feed| feed + 1);
    let behind = text.get(end..).unwrap_or_default();
    let end = behind.find('\n').map_or(text.len(), |feed| end + feed);
    (start, text.get(start..end).unwrap_or_default())
}

const fn moved(span: &Range<usize>, start: usize) -> Range<usize> {
    span.start.saturating_sub(start)..span.end.saturating_sub(start)
}

/// The renderer wants spans on character boundaries inside of the text.
fn within(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(span.start.min(text.len()));
    let end = text.ceil_char_boundary(span.end.clamp(start, text.len()));
    start..end
}
