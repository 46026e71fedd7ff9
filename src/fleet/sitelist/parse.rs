//! Reads a sitelist, whoever wrote it: attributes by name, what is unknown kept, credentials never.

use super::{EXTENSION, Extra, NAMESPACE, Protocol, Role, Selection, Site, Sitelist};
use crate::base::limits::{SITELIST_BYTES, SITES, XML_ATTRIBUTES};
use crate::fleet::model::State;
use crate::fleet::xml::{Element, Node, XmlError, local, parse_xml};

/// Attributes that the writer may add to what it keeps.
const OURS: usize = 16;

/// A file that is no sitelist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SitelistError {
    /// It is not the XML that sitelists are made of.
    #[error(transparent)]
    Xml(#[from] XmlError),
    /// Its first element is another one.
    #[error("it is no sitelist: its first element is not `SiteLists`")]
    Root,
    /// There is no `SiteList` in it.
    #[error("it has no `SiteList`")]
    NoList,
    /// It has more sites than anybody needs.
    #[error("it has more than {SITES} sites")]
    Sites,
    /// It uses a prefix of ours, `ns` or `wp`, for something else.
    #[error("it uses the prefix `{0}` for another namespace")]
    Prefix(&'static str),
}

/// Reads a sitelist of at most 256 KiB, in time that grows with its size alone. Passwords and user names in it are
/// not looked at and not kept.
///
/// # Errors
/// What is wrong with it. An agent keeps the list that it has.
pub fn parse(bytes: &[u8]) -> Result<Sitelist, SitelistError> {
    check(bytes).map(|(list, _)| list)
}

/// As [`parse`], with what a person should know of it.
///
/// # Errors
/// What is wrong with it.
pub fn check(bytes: &[u8]) -> Result<(Sitelist, Vec<String>), SitelistError> {
    let mut root = parse_xml(bytes, SITELIST_BYTES)?;
    if root.local_name() != "SiteLists" {
        return Err(SitelistError::Root);
    }
    let mut reader = Reader { ours: vec!["wp".to_owned()], credentials: 0 };
    let mut list = Sitelist::default();
    reader.declare(&root)?;
    for (name, value) in std::mem::take(&mut root.attributes) {
        match name.as_str() {
            "GlobalVersion" => list.global_version = value,
            "LocalVersion" => list.local_version = value,
            "Type" => list.kind = value,
            _ => reader.keep(name, value, &mut list.extra),
        }
    }
    let mut inside = None;
    for element in elements(root) {
        if inside.is_none() && element.local_name() == "SiteList" {
            inside = Some(element);
        } else {
            reader.keep_element(element, &mut list.extra);
        }
    }
    reader.list(inside.ok_or(SitelistError::NoList)?, &mut list)?;
    let notes = notes(&list, reader.credentials);
    Ok((list, notes))
}

struct Reader {
    /// Prefixes of our namespace; `wp` is never anybody else's.
    ours: Vec<String>,
    credentials: usize,
}

impl Reader {
    fn declare(&mut self, element: &Element) -> Result<(), SitelistError> {
        for (name, value) in &element.attributes {
            match (name.strip_prefix("xmlns:"), value.as_str()) {
                (Some("ns"), NAMESPACE) | (None, _) => {}
                (Some("ns"), _) => return Err(SitelistError::Prefix("ns")),
                (Some(prefix), EXTENSION) => self.ours.push(prefix.to_owned()),
                (Some("wp"), _) => return Err(SitelistError::Prefix("wp")),
                (Some(_), _) => {}
            }
        }
        Ok(())
    }

    /// The name of an attribute of ours, without its prefix.
    fn ours<'n>(&self, name: &'n str) -> Option<&'n str> {
        let (prefix, name) = name.split_once(':')?;
        self.ours.iter().any(|ours| ours == prefix).then_some(name)
    }

    fn list(&mut self, mut element: Element, list: &mut Sitelist) -> Result<(), SitelistError> {
        self.declare(&element)?;
        for (name, value) in std::mem::take(&mut element.attributes) {
            match (name.as_str(), self.ours(&name), value.as_str()) {
                ("Default", ..) => {}
                ("Name", ..) => list.name = value,
                (_, Some("selection"), "ordered") => list.selection = Some(Selection::Ordered),
                (_, Some("selection"), "nearest") => list.selection = Some(Selection::Nearest),
                _ => self.keep(name, value, &mut list.list_extra),
            }
        }
        for element in elements(element) {
            match protocol(element.local_name()) {
                None => self.keep_element(element, &mut list.list_extra),
                Some(_) if list.sites.len() >= SITES => return Err(SitelistError::Sites),
                Some(protocol) => list.sites.push(self.site(protocol, element)?),
            }
        }
        Ok(())
    }

    fn site(&mut self, protocol: Protocol, mut element: Element) -> Result<Site, SitelistError> {
        self.declare(&element)?;
        let mut site = Site { protocol, enabled: true, ..Site::default() };
        for (name, value) in std::mem::take(&mut element.attributes) {
            match (name.as_str(), self.ours(&name)) {
                ("Type", _) => site.role = role(value),
                ("Name", _) => site.name = value,
                ("Order", _) => site.order = value.trim().parse().ok(),
                ("Enabled", _) => site.enabled = !is_no(&value),
                ("Local", _) => site.local = is_yes(&value),
                ("Server", _) => site.server = value,
                ("ServerName", _) => site.server_name = Some(value),
                ("ServerIP", _) => site.server_ip = Some(value),
                ("Version", _) => site.version = Some(value),
                ("SecurePort", _) => site.secure_port = value.trim().parse().ok().filter(|port| *port != 0),
                (_, Some("external")) => site.external = Some(value),
                (_, Some("group")) => site.group = Some(value),
                (_, Some("state")) if State::parse(&value).is_some() => site.state = State::parse(&value),
                _ => self.keep(name, value, &mut site.extra),
            }
        }
        for element in elements(element) {
            match element.local_name() {
                "RelativePath" => site.relative_path = element.text(),
                "UseAuth" => {}
                "UserName" | "Password" => self.credentials += usize::from(!element.text().is_empty()),
                _ => self.keep_element(element, &mut site.extra),
            }
        }
        Ok(site)
    }

    fn keep(&mut self, name: String, value: String, extra: &mut Extra) {
        // Ours are written anew.
        if matches!(name.as_str(), "xmlns:ns" | "xmlns:wp") {
            return;
        }
        if is_credential(&name) {
            self.credentials += 1;
            return;
        }
        // With all of ours it can still be read again.
        if extra.attributes.len() < XML_ATTRIBUTES - OURS {
            extra.attributes.push((name, value));
        }
    }

    fn keep_element(&mut self, mut element: Element, extra: &mut Extra) {
        if is_credential(&element.name) {
            self.credentials += 1;
            return;
        }
        self.scrub(&mut element);
        extra.elements.push(element);
    }

    fn scrub(&mut self, element: &mut Element) {
        let before = element.attributes.len();
        element.attributes.retain(|(name, _)| !is_credential(name));
        let children = element.children.len();
        element.children.retain(|child| !matches!(child, Node::Element(it) if is_credential(&it.name)));
        self.credentials += before - element.attributes.len() + children - element.children.len();
        for child in &mut element.children {
            if let Node::Element(child) = child {
                self.scrub(child);
            }
        }
        // What stood around an element that is gone becomes one text, as it would when read again.
        element.children.dedup_by(|later, earlier| match (earlier, later) {
            (Node::Text(earlier), Node::Text(later)) => {
                earlier.push_str(later);
                true
            }
            _ => false,
        });
    }
}

fn elements(element: Element) -> impl Iterator<Item = Element> {
    element.children.into_iter().filter_map(|node| match node {
        Node::Element(element) => Some(element),
        Node::Text(_) => None,
    })
}

fn is_credential(name: &str) -> bool {
    let name = local(name).to_ascii_lowercase();
    name.contains("password") || name == "username"
}

fn protocol(name: &str) -> Option<Protocol> {
    Some(match name.to_ascii_lowercase().as_str() {
        "spipesite" => Protocol::Spipe,
        "httpsite" => Protocol::Http,
        "ftpsite" => Protocol::Ftp,
        "uncsite" => Protocol::Unc,
        "localsite" => Protocol::Local,
        _ => return None,
    })
}

fn role(word: String) -> Role {
    match word.as_str() {
        "master" => Role::Master,
        "repository" => Role::Repository,
        "fallback" => Role::Fallback,
        _ => Role::Other(word),
    }
}

fn is_yes(word: &str) -> bool {
    word == "1" || word.eq_ignore_ascii_case("true")
}

fn is_no(word: &str) -> bool {
    word == "0" || word.eq_ignore_ascii_case("false")
}

fn notes(list: &Sitelist, credentials: usize) -> Vec<String> {
    let mut notes = Vec::new();
    if credentials > 0 {
        notes.push(format!(
            "it carries {credentials} user names or passwords, which every local user could read"
        ));
    }
    let ordered = list.ordered();
    if ordered.is_empty() {
        notes.push("no site in it is enabled: an agent could talk to nobody".to_owned());
    }
    if let Some(site) = ordered.iter().find(|site| site.server.is_empty() && site.protocol != Protocol::Local)
    {
        notes.push(format!("site `{}` has no `Server`", site.name));
    }
    let mut names: Vec<_> = list.sites.iter().map(|site| (site.protocol as u8, site.name.as_str())).collect();
    names.sort_unstable();
    if let Some([(_, name), _]) = names.array_windows::<2>().find(|[one, two]| one == two) {
        notes.push(format!("two sites of one kind are called `{name}`"));
    }
    let last =
        list.sites.iter().filter(|site| site.role != Role::Fallback).filter_map(|site| site.order).max();
    let early = |site: &&Site| site.role == Role::Fallback && site.order < last && site.order.is_some();
    if let Some(site) = list.sites.iter().find(early) {
        notes.push(format!("fallback `{}` does not come last", site.name));
    }
    if let Some(site) = list.sites.iter().find(|site| site.order.is_none()) {
        notes.push(format!("site `{}` has no `Order` and comes last", site.name));
    }
    notes
}
