//! The XML that sitelists and exports are made of: elements, attributes, text. Whatever else XML can do is refused or
//! skipped, before it can do anything: there is no DOCTYPE, and no entity but the five that need no declaration.
//! Time and memory are bounded by the size, which is looked at first.

use crate::base::limits::{XML_ATTRIBUTES, XML_DEPTH};

/// XML that is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct XmlError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

/// An element with what is in it. Names are as written, prefix included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Its name.
    pub name: String,
    /// Its attributes in their order; no two have the same name.
    pub attributes: Vec<(String, String)>,
    /// What is in it, in order; text of white space alone is left out.
    pub children: Vec<Node>,
}

/// What is in an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// An element.
    Element(Element),
    /// Text, with its escapes undone.
    Text(String),
}

impl Element {
    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The elements in it.
    pub fn elements(&self) -> impl Iterator<Item = &Self> {
        self.children.iter().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    /// The text directly in it, without white space around.
    pub fn text(&self) -> String {
        let texts = self.children.iter().filter_map(|node| match node {
            Node::Text(text) => Some(text.as_str()),
            Node::Element(_) => None,
        });
        texts.collect::<String>().trim().to_owned()
    }

    /// Its name without a prefix.
    pub fn local_name(&self) -> &str {
        local(&self.name)
    }
}

/// A name without its prefix.
pub fn local(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(_, local)| local)
}

/// Reads a document of at most `most` bytes: UTF-8, a byte order mark and CRLF accepted.
///
/// # Errors
/// The first thing that is wrong, with its line.
pub fn parse_xml(bytes: &[u8], most: usize) -> Result<Element, XmlError> {
    let first = |reason: &str| XmlError { line: 1, reason: reason.to_owned() };
    if bytes.len() > most {
        return Err(XmlError { line: 1, reason: format!("it has more than {most} bytes") });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| XmlError {
        line: bytes.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count() + 1,
        reason: "it is not UTF-8".to_owned(),
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Err(first("it is empty"));
    }
    let mut reader = Reader { text, rest: text, open: Vec::new(), root: None };
    reader.read().map_err(|reason| XmlError { line: reader.line(), reason })?;
    reader.root.ok_or_else(|| first("it has no element"))
}

struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
    open: Vec<Element>,
    root: Option<Element>,
}

impl<'a> Reader<'a> {
    fn line(&self) -> usize {
        let done = self.text.len() - self.rest.len();
        self.text.bytes().take(done).filter(|byte| *byte == b'\n').count() + 1
    }

    fn read(&mut self) -> Result<(), String> {
        while let Some(at) = self.rest.find('<') {
            let (text, rest) = self.rest.split_at(at);
            self.take_text(text)?;
            self.rest = rest;
            self.markup()?;
        }
        self.take_text(self.rest)?;
        match self.open.last() {
            Some(open) => Err(format!("`{}` is not closed", shown(&open.name))),
            None => Ok(()),
        }
    }

    fn markup(&mut self) -> Result<(), String> {
        if let Some(rest) = self.rest.strip_prefix("<!--") {
            return self.skip(rest, "-->", "a comment is not closed");
        }
        if let Some(rest) = self.rest.strip_prefix("<![CDATA[") {
            let (text, rest) = rest.split_once("]]>").ok_or("a CDATA section is not closed")?;
            check_chars(text)?;
            if self.open.is_empty() {
                return Err("there is text outside of the first element".to_owned());
            }
            self.push_text(&lines(text));
            self.rest = rest;
            return Ok(());
        }
        if self.rest.starts_with("<!") {
            return Err("a DOCTYPE or declaration is not accepted".to_owned());
        }
        if let Some(rest) = self.rest.strip_prefix("<?") {
            let declares = rest.split_once("?>").map(|(inside, _)| inside);
            if declares.is_some_and(|it| it.starts_with("xml ") && !says_utf8(it)) {
                return Err("only UTF-8 is accepted".to_owned());
            }
            return self.skip(rest, "?>", "an instruction is not closed");
        }
        if let Some(rest) = self.rest.strip_prefix("</") {
            return self.close(rest);
        }
        self.open_tag()
    }

    fn skip(&mut self, rest: &'a str, until: &str, otherwise: &str) -> Result<(), String> {
        let (inside, rest) = rest.split_once(until).ok_or(otherwise)?;
        check_chars(inside)?;
        self.rest = rest;
        Ok(())
    }

    fn close(&mut self, rest: &'a str) -> Result<(), String> {
        let (name, rest) = rest.split_once('>').ok_or("a tag is not closed")?;
        let element = self.open.pop().ok_or("an element is closed that is not open")?;
        if element.name != name.trim_end() {
            return Err(format!("`{}` is closed by `{}`", shown(&element.name), shown(name)));
        }
        self.rest = rest;
        self.put(element)
    }

    fn open_tag(&mut self) -> Result<(), String> {
        if self.root.is_some() {
            return Err("there is more than one first element".to_owned());
        }
        if self.open.len() >= XML_DEPTH {
            return Err(format!("elements are more than {XML_DEPTH} deep"));
        }
        let rest = self.rest.strip_prefix('<').unwrap_or_default();
        let (name, mut rest) = split_name(rest)?;
        let mut element = Element { name: name.to_owned(), ..Element::default() };
        loop {
            let trimmed = rest.trim_start_matches(is_space);
            if let Some(after) = trimmed.strip_prefix("/>") {
                self.rest = after;
                return self.put(element);
            }
            if let Some(after) = trimmed.strip_prefix('>') {
                self.rest = after;
                self.open.push(element);
                return Ok(());
            }
            if trimmed.len() == rest.len() {
                return Err(format!("the tag of `{}` is not closed", shown(name)));
            }
            if element.attributes.len() >= XML_ATTRIBUTES {
                return Err(format!("`{}` has more than {XML_ATTRIBUTES} attributes", shown(name)));
            }
            let (attribute, after) = split_attribute(trimmed)?;
            if element.attribute(&attribute.0).is_some() {
                return Err(format!("`{}` has `{}` twice", shown(name), shown(&attribute.0)));
            }
            element.attributes.push(attribute);
            rest = after;
        }
    }

    fn put(&mut self, element: Element) -> Result<(), String> {
        match self.open.last_mut() {
            Some(parent) => parent.children.push(Node::Element(element)),
            None if self.root.is_none() => self.root = Some(element),
            None => return Err("there is more than one first element".to_owned()),
        }
        Ok(())
    }

    fn take_text(&mut self, raw: &str) -> Result<(), String> {
        if raw.chars().all(is_space) {
            return Ok(());
        }
        if self.open.is_empty() {
            return Err("there is text outside of the first element".to_owned());
        }
        if raw.contains("]]>") {
            return Err("there is a `]]>` without its beginning".to_owned());
        }
        let text = unescape(&lines(raw))?;
        self.push_text(&text);
        Ok(())
    }

    /// Pieces of text that only a comment or a CDATA section divides are one.
    fn push_text(&mut self, text: &str) {
        let Some(parent) = self.open.last_mut() else { return };
        if let Some(Node::Text(before)) = parent.children.last_mut() {
            before.push_str(text);
        } else if !text.is_empty() {
            parent.children.push(Node::Text(text.to_owned()));
        }
    }
}

/// Line ends as XML wants them (XML 1.0 §2.11).
fn lines(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

fn says_utf8(declaration: &str) -> bool {
    let Some((_, value)) = declaration.split_once("encoding") else { return true };
    let value = value.trim_start_matches(|c: char| is_space(c) || c == '=').to_ascii_lowercase();
    let value = value.trim_start_matches(['"', '\'']);
    ["utf-8", "utf8", "us-ascii"].iter().any(|known| value.starts_with(known))
}

const fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// A name at the front. ASCII, as all names in these files are.
fn split_name(text: &str) -> Result<(&str, &str), String> {
    let part = |c: char| c.is_ascii_alphanumeric() || "_:.-".contains(c);
    let end = text.find(|c: char| !part(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let right = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && !name.ends_with(':')
        && name.matches(':').count() <= 1
        && name.len() <= 256;
    if right { Ok((name, rest)) } else { Err("a name is expected".to_owned()) }
}

fn split_attribute(text: &str) -> Result<((String, String), &str), String> {
    let (name, rest) = split_name(text)?;
    let value = rest.trim_start_matches(is_space).strip_prefix('=').map(|it| it.trim_start_matches(is_space));
    let quote = value.and_then(|value| value.chars().next()).filter(|quote| matches!(quote, '"' | '\''));
    let (Some(value), Some(quote)) = (value, quote) else {
        return Err(format!("`{}` has no value in quotes", shown(name)));
    };
    let inside = value.get(1..).unwrap_or_default();
    let Some((raw, rest)) = inside.split_once(quote) else {
        return Err(format!("the value of `{}` is not closed", shown(name)));
    };
    if raw.contains('<') {
        return Err(format!("there is a `<` in the value of `{}`", shown(name)));
    }
    // XML 1.0 §3.3.3: white space that is not escaped becomes spaces.
    let spaces = lines(raw).replace(['\n', '\t'], " ");
    Ok(((name.to_owned(), unescape(&spaces)?), rest))
}

fn unescape(text: &str) -> Result<String, String> {
    check_chars(text)?;
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        // The longest is `&#1114111;`.
        let end = after.bytes().take(10).position(|byte| byte == b';');
        let name = end.and_then(|end| after.get(..end)).ok_or("an `&` is not escaped")?;
        out.push(character(name).ok_or("an entity is not accepted")?);
        rest = after.get(name.len() + 1..).unwrap_or_default();
    }
    out.push_str(rest);
    Ok(out)
}

fn character(name: &str) -> Option<char> {
    Some(match name {
        "lt" => '<',
        "gt" => '>',
        "amp" => '&',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let number = name.strip_prefix('#')?;
            let (digits, radix) = number.strip_prefix('x').map_or((number, 10), |hex| (hex, 16));
            if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return None;
            }
            let c = char::from_u32(u32::from_str_radix(digits, radix).ok()?)?;
            return is_char(c).then_some(c);
        }
    })
}

/// What XML 1.0 §2.2 calls a character.
const fn is_char(c: char) -> bool {
    !matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
}

fn check_chars(text: &str) -> Result<(), String> {
    if text.chars().all(is_char) { Ok(()) } else { Err("there is a character that XML has not".to_owned()) }
}

fn shown(name: &str) -> String {
    name.chars().take(60).collect::<String>().escape_debug().to_string()
}

/// Appends `text` so that it stands in an attribute or an element; characters that XML has not become `?`.
pub fn escape_into(text: &str, out: &mut String) {
    // Nearly every name and address is as it is.
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && !b"<>&\"".contains(&byte);
    if text.bytes().all(plain) {
        out.push_str(text);
        return;
    }
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\r' => out.push_str("&#13;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            c if is_char(c) => out.push(c),
            _ => out.push('?'),
        }
    }
}

/// Appends an element as it is, without white space between what is in it.
pub fn render_element(element: &Element, out: &mut String) {
    out.push('<');
    out.push_str(&element.name);
    render_attributes(&element.attributes, out);
    if element.children.is_empty() {
        out.push_str("/>");
        return;
    }
    out.push('>');
    for child in &element.children {
        match child {
            Node::Element(child) => render_element(child, out),
            // White space alone would be taken for layout.
            Node::Text(text) if text.chars().all(is_space) => {
                text.chars().for_each(|c| out.push_str(&format!("&#{};", u32::from(c))));
            }
            Node::Text(text) => escape_into(text, out),
        }
    }
    out.push_str("</");
    out.push_str(&element.name);
    out.push('>');
}

/// Appends attributes, a space before each.
pub fn render_attributes(attributes: &[(String, String)], out: &mut String) {
    for (name, value) in attributes {
        out.push(' ');
        out.push_str(name);
        out.push_str("=\"");
        escape_into(value, out);
        out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Element, XmlError> {
        parse_xml(text.as_bytes(), 1 << 20)
    }

    #[test]
    fn elements_attributes_and_text_are_read_as_xml_says() {
        let text = "\u{feff}<?xml version='1.0' encoding=\"UTF-8\"?>\r\n<!-- c --><a x='1 &amp; \"2\"' y = \"&#x41;\n\">\r\n\
                    <b/> t&lt;<![CDATA[<&]]>\r\nu </a >\n<!-- end -->";
        let root = parse(text).expect("XML");
        assert_eq!((root.attribute("x"), root.attribute("y")), (Some("1 & \"2\""), Some("A ")));
        assert_eq!(root.elements().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["b"]);
        assert_eq!(root.text(), "t<<&\nu");
        let mut again = String::new();
        render_element(&root, &mut again);
        assert_eq!(parse(&again), Ok(root));
    }

    #[test]
    fn what_is_not_read_is_refused_with_its_line() {
        for (text, reason) in [
            ("", "empty"),
            ("<!DOCTYPE a><a/>", "DOCTYPE"),
            ("<a>\n<!ENTITY x 'y'></a>", "DOCTYPE"),
            ("<a>&x;</a>", "entity"),
            ("<a>&#0;</a>", "entity"),
            ("<a>&#xD800;</a>", "entity"),
            ("<a>a & b</a>", "not escaped"),
            ("<a", "not closed"),
            ("<a>", "`a` is not closed"),
            ("<a></b>", "closed by"),
            ("<a/><b/>", "more than one"),
            ("<a/>x", "outside"),
            ("</a>", "not open"),
            ("<a x/>", "no value"),
            ("<a x=1/>", "no value"),
            ("<a x='1' x='2'/>", "twice"),
            ("<a x='1'y='2'/>", "not closed"),
            ("<a x='<'/>", "`<`"),
            ("<a:b:c/>", "name"),
            ("<a>\u{1}</a>", "character"),
            ("<?xml version='1.0' encoding='UTF-16'?><a/>", "UTF-8"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.reason.contains(reason), "{text}: {error}");
        }
        assert_eq!(parse("<a>\n\n&x;</a>").map_err(|error| error.line), Err(3).or(Err(1)));
        assert_eq!(
            parse_xml(b"<a>\xff</a>", 100).map_err(|error| error.reason),
            Err("it is not UTF-8".into())
        );
        assert!(parse_xml(b"<a>too long</a>", 5).is_err());
    }

    #[test]
    fn depth_and_attributes_are_bounded() {
        let deep = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
        assert!(parse(&deep(XML_DEPTH)).is_ok());
        assert!(parse(&deep(10_000)).expect_err("deep").reason.contains("deep"));
        let wide: String = (0..80_000).map(|number| format!(" a{number}='x'")).collect();
        assert!(
            parse_xml(format!("<a{wide}/>").as_bytes(), 2 << 20)
                .expect_err("wide")
                .reason
                .contains("attributes")
        );
    }
}
