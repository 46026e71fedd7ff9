//! Walks a parsed TOML file and notes everything that is wrong instead of stopping at the first: unknown keys,
//! wrong types, values that cannot be understood. The only file that knows the TOML crate's types.
//!
//! serde would stop at the first mistake, and an administrator who repairs a file wants them all.

use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Code, Diagnostic, Severity};
use super::nearest::nearest;

/// A value and the bytes of the file where it stands.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
}

impl<T> At<T> {
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> At<U> {
        At { value: change(self.value), span: self.span }
    }
}

/// What a walk collects.
pub(crate) struct Context<'a> {
    base: &'a Path,
    found: RefCell<Vec<Diagnostic>>,
    secrets: RefCell<Vec<Range<usize>>>,
}

impl<'a> Context<'a> {
    /// For a file whose relative paths start at `base`.
    pub(crate) const fn new(base: &'a Path) -> Self {
        Self { base, found: RefCell::new(Vec::new()), secrets: RefCell::new(Vec::new()) }
    }

    pub(crate) fn report(&self, found: Diagnostic) {
        self.found.borrow_mut().push(found);
    }

    /// Whether no error has been noted yet.
    pub(crate) fn is_right(&self) -> bool {
        self.found.borrow().iter().all(|found| found.severity != Severity::Error)
    }

    /// These bytes of the file are not to be shown.
    pub(crate) fn hide(&self, span: Range<usize>) {
        self.secrets.borrow_mut().push(span);
    }

    pub(crate) fn resolve(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }

    /// All findings and what must not be shown.
    pub(crate) fn into_found(self) -> (Vec<Diagnostic>, Vec<Range<usize>>) {
        (self.found.into_inner(), self.secrets.into_inner())
    }
}

/// The keys of a section: those that exist, and those that a later release will have.
pub(crate) struct Keys {
    pub(crate) known: &'static [&'static str],
    pub(crate) later: &'static [&'static str],
}

/// After this many syntax errors the file is something else, a log or a script, and more of them say nothing.
const SYNTAX_ERRORS: usize = 20;

/// Parses `text`; syntax errors are noted, the first ones, and give nothing.
pub(crate) fn parse<'t>(text: &'t str, cx: &Context<'_>) -> Option<DeTable<'t>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Some(table.into_inner());
    }
    for error in errors.into_iter().take(SYNTAX_ERRORS) {
        let span = error.span().unwrap_or(0..0);
        cx.report(Diagnostic::error(
            Code::Syntax,
            span,
            format!("not valid TOML: {}", error.message().trim()),
        ));
    }
    None
}

/// One table of the file, or the place where it would be.
pub(crate) struct Section<'a> {
    pub(crate) cx: &'a Context<'a>,
    /// As people write it: `[server]`, `[[repository]]`.
    pub(crate) title: String,
    /// Its header, or the whole of an inline table.
    pub(crate) span: Range<usize>,
    table: Option<&'a DeTable<'a>>,
}

impl<'a> Section<'a> {
    /// The file itself.
    pub(crate) fn root(table: &'a DeTable<'a>, keys: &Keys, cx: &'a Context<'a>) -> Self {
        Self::open(table, "the file".to_owned(), 0..0, keys, cx)
    }

    fn open(
        table: &'a DeTable<'a>,
        title: String,
        span: Range<usize>,
        keys: &Keys,
        cx: &'a Context<'a>,
    ) -> Self {
        for key in table.keys() {
            let name: &str = key.get_ref();
            if keys.known.contains(&name) {
                continue;
            }
            cx.report(if keys.later.contains(&name) {
                let message = format!("`{name}` is not available yet in this release");
                Diagnostic::error(Code::NotAvailable, key.span(), message)
            } else {
                let found = Diagnostic::error(
                    Code::UnknownKey,
                    key.span(),
                    format!("unknown key `{name}` in {title}"),
                );
                match nearest(name, keys.known) {
                    Some(meant) => found.help(format!("did you mean `{meant}`?")),
                    None => found.help(format!("known keys: {}", keys.known.join(", "))),
                }
            });
        }
        Self { cx, title, span, table: Some(table) }
    }

    const fn absent(title: String, span: Range<usize>, cx: &'a Context<'a>) -> Self {
        Self { cx, title, span, table: None }
    }

    fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table?.get(key)
    }

    /// Whether `key` is there, right or wrong.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Whether `key` is a list without elements.
    pub(crate) fn is_empty_list(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| value.get_ref().as_array().is_some_and(|list| list.is_empty()))
    }

    /// Whether `key` is a list.
    pub(crate) fn is_list(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| value.get_ref().as_array().is_some())
    }

    /// Where the name of `key` stands.
    pub(crate) fn key_span(&self, key: &str) -> Option<Range<usize>> {
        self.table?.get_key_value(key).map(|(name, _)| name.span())
    }

    /// Notes that `key` has to be there.
    pub(crate) fn missing(&self, key: &str, help: impl Into<String>) {
        let message = format!("`{key}` is missing in {}", self.title);
        self.cx.report(Diagnostic::error(Code::Missing, self.span.clone(), message).help(help));
    }

    /// A string.
    pub(crate) fn text(&self, key: &str) -> Option<At<&'a str>> {
        self.text_of(self.get(key)?, "a string", None)
    }

    /// A string or a list of strings. What is not a string in a list is noted and left out.
    pub(crate) fn texts(&self, key: &str) -> Vec<At<&'a str>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        if let DeValue::Array(list) = value.get_ref() {
            return list.iter().filter_map(|item| self.text_of(item, "a string", None)).collect();
        }
        self.text_of(value, "a string or a list of strings", None).into_iter().collect()
    }

    /// A string that `parse` understands; `example` is one that it does.
    pub(crate) fn quantity<T, E: std::fmt::Display>(
        &self,
        key: &str,
        example: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<At<T>> {
        let value = self.get(key)?;
        let help = match value.get_ref() {
            DeValue::Integer(_) | DeValue::Float(_) => Some(format!("write it with its unit: {example}")),
            _ => None,
        };
        let text = self.text_of(value, &format!("a string like {example}"), help)?;
        match parse(text.value) {
            Ok(value) => Some(At { value, span: text.span }),
            Err(error) => {
                self.cx.report(Diagnostic::error(Code::BadValue, text.span, format!("`{key}`: {error}")));
                None
            }
        }
    }

    /// A whole number, not negative.
    pub(crate) fn number(&self, key: &str) -> Option<At<u64>> {
        let value = self.get(key)?;
        let DeValue::Integer(number) = value.get_ref() else {
            self.wrong_type(value, "a whole number", None);
            return None;
        };
        let Ok(number) = u64::from_str_radix(number.as_str(), number.radix()) else {
            let message = format!("`{key}` is not a whole number from 0");
            self.cx.report(Diagnostic::error(Code::BadValue, value.span(), message));
            return None;
        };
        Some(At { value: number, span: value.span() })
    }

    /// `true` or `false`.
    pub(crate) fn flag(&self, key: &str) -> Option<At<bool>> {
        let value = self.get(key)?;
        let DeValue::Boolean(flag) = value.get_ref() else {
            self.wrong_type(value, "true or false", None);
            return None;
        };
        Some(At { value: *flag, span: value.span() })
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(&self, key: &str, words: &[(&'static str, T)]) -> Option<At<T>> {
        let text = self.text(key)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
            return Some(At { value: *value, span: text.span });
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let found = Diagnostic::error(
            Code::BadValue,
            text.span,
            format!("`{key}` cannot be `{}`", text.value.escape_debug()),
        );
        self.cx.report(match nearest(text.value, &known) {
            Some(meant) => found.help(format!("did you mean \"{meant}\"?")),
            None => found.help(format!("allowed: \"{}\"", known.join("\", \""))),
        });
        None
    }

    /// A path, absolute or relative to the file.
    pub(crate) fn path(&self, key: &str) -> Option<At<PathBuf>> {
        let text = self.text(key)?;
        if text.value.is_empty() || text.value.contains('\0') {
            let message = format!("`{key}` is not a path");
            self.cx.report(Diagnostic::error(Code::BadValue, text.span, message));
            return None;
        }
        Some(text.map(|path| self.cx.resolve(path)))
    }

    /// A table, `[title]` or inline. When it is absent or no table, a section without keys.
    pub(crate) fn section(&self, key: &str, title: &str, keys: &Keys) -> Section<'a> {
        let title = title.to_owned();
        let Some(value) = self.get(key) else {
            return Section::absent(title, self.span.clone(), self.cx);
        };
        if let DeValue::Table(table) = value.get_ref() {
            return Section::open(table, title, value.span(), keys, self.cx);
        }
        self.wrong_type(value, &format!("a table, {title}"), None);
        Section::absent(title, value.span(), self.cx)
    }

    /// A list of tables, `[[title]]` or inline.
    pub(crate) fn sections(&self, key: &str, title: &str, keys: &Keys) -> Vec<Section<'a>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let DeValue::Array(list) = value.get_ref() else {
            let help = format!("each begins with {title}, in double brackets");
            self.wrong_type(value, "a list of tables", Some(help));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in list.iter() {
            match item.get_ref() {
                DeValue::Table(table) => {
                    sections.push(Section::open(table, title.to_owned(), item.span(), keys, self.cx));
                }
                _ => self.wrong_type(item, &format!("a table, {title}"), None),
            }
        }
        sections
    }

    /// A string, a table, or a list of both: each as one or the other.
    pub(crate) fn texts_or_tables(&self, key: &str, title: &str, keys: &Keys) -> Vec<TextOrTable<'a>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let items: Vec<_> = match value.get_ref() {
            DeValue::Array(list) => list.iter().collect(),
            _ => vec![value],
        };
        items.into_iter().filter_map(|item| self.either(item, title, keys)).collect()
    }

    /// A string or a table.
    pub(crate) fn text_or_table(&self, key: &str, title: &str, keys: &Keys) -> Option<TextOrTable<'a>> {
        self.either(self.get(key)?, title, keys)
    }

    fn either(&self, value: &'a Spanned<DeValue<'a>>, title: &str, keys: &Keys) -> Option<TextOrTable<'a>> {
        let DeValue::Table(table) = value.get_ref() else {
            return self.text_of(value, "a string or a table", None).map(TextOrTable::Text);
        };
        Some(TextOrTable::Table(Section::open(table, title.to_owned(), value.span(), keys, self.cx)))
    }

    fn text_of(
        &self,
        value: &'a Spanned<DeValue<'a>>,
        wanted: &str,
        help: Option<String>,
    ) -> Option<At<&'a str>> {
        if let DeValue::String(text) = value.get_ref() {
            return Some(At { value: text, span: value.span() });
        }
        self.wrong_type(value, wanted, help);
        None
    }

    fn wrong_type(&self, value: &Spanned<DeValue<'_>>, wanted: &str, help: Option<String>) {
        let is = match value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let mut found =
            Diagnostic::error(Code::WrongType, value.span(), format!("expected {wanted}, found {is}"));
        found.help = help;
        self.cx.report(found);
    }
}

/// What [`Section::texts_or_tables`] finds.
pub(crate) enum TextOrTable<'a> {
    Text(At<&'a str>),
    Table(Section<'a>),
}

/// The line of every key of a file, by its place: `server.listen`, `repository.0.rule.1.match`.
pub(crate) fn lines(text: &str) -> std::collections::BTreeMap<String, usize> {
    let mut lines = std::collections::BTreeMap::new();
    let (table, _) = DeTable::parse_recoverable(text);
    note_lines(text, table.get_ref(), "", &mut lines);
    lines
}

fn note_lines(
    text: &str,
    table: &DeTable<'_>,
    prefix: &str,
    lines: &mut std::collections::BTreeMap<String, usize>,
) {
    for (name, value) in table {
        let place = format!("{prefix}{}", name.get_ref());
        let before = text.get(..name.span().start).unwrap_or_default();
        lines.insert(place.clone(), before.matches('\n').count() + 1);
        match value.get_ref() {
            DeValue::Table(inner) => note_lines(text, inner, &format!("{place}."), lines),
            DeValue::Array(items) => {
                for (number, item) in items.iter().enumerate() {
                    if let DeValue::Table(inner) = item.get_ref() {
                        note_lines(text, inner, &format!("{place}.{number}."), lines);
                    }
                }
            }
            _ => {}
        }
    }
}
