//! The sitelist: which handlers and repositories an agent may use, in which order. The shape is that of ePO's
//! `SiteList.xml`, with what is ours in the namespace `urn:waypost:sitelist:1`; credentials are never in it.

mod parse;
mod render;

use serde::{Deserialize, Serialize};

pub use parse::{SitelistError, check, parse};
pub use render::render;

use super::model::State;
use super::xml::Element;
use crate::base::digest::Digest;

/// The namespace of the root.
pub const NAMESPACE: &str = "naSiteList";
/// The namespace of our attributes.
pub const EXTENSION: &str = "urn:waypost:sitelist:1";

/// An ordered list of sites.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sitelist {
    /// The server's version of the list; grows with every change.
    pub global_version: String,
    /// The agent's own version.
    pub local_version: String,
    /// `Client` on an agent's copy.
    pub kind: String,
    /// The name of the list; every known one says `SomeGUID`.
    pub name: String,
    /// How the agent is to choose; ours.
    pub selection: Option<Selection>,
    /// The sites as they stand in the file. [`Sitelist::ordered`] has them in the order to use them in.
    pub sites: Vec<Site>,
    /// What else was in it: kept on a rewrite.
    pub extra: Extra,
    /// What else was on the list within.
    pub list_extra: Extra,
}

/// How an agent chooses among the sites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selection {
    /// In the order of the list, at random among equals.
    #[default]
    Ordered,
    /// The fewest hops first, within internal, external and installed addresses.
    Nearest,
}

impl Selection {
    /// Its word in files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ordered => "ordered",
            Self::Nearest => "nearest",
        }
    }
}

/// What speaks at a site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// `SpipeSite`: a server or agent handler, for check-ins.
    #[default]
    Spipe,
    /// `HttpSite`: a repository.
    Http,
    /// `FTPSite` or `FtpSite`.
    Ftp,
    /// `UNCSite`: a Windows share.
    Unc,
    /// `LocalSite`: a folder.
    Local,
}

/// What a site is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// `master`: a server or handler.
    #[default]
    Master,
    /// `repository`: a copy of the files.
    Repository,
    /// `fallback`: the last resort.
    Fallback,
    /// Any other word.
    Other(String),
}

impl Protocol {
    /// Its word for people and programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Spipe => "handler",
            Self::Http => "http",
            Self::Ftp => "ftp",
            Self::Unc => "unc",
            Self::Local => "local",
        }
    }
}

impl Role {
    /// Its word in files.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Master => "master",
            Self::Repository => "repository",
            Self::Fallback => "fallback",
            Self::Other(word) => word,
        }
    }
}

/// One site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// What speaks there.
    pub protocol: Protocol,
    /// What it is for.
    pub role: Role,
    /// Its label.
    pub name: String,
    /// Lower is tried first; equal ones at random; none is last.
    pub order: Option<u32>,
    /// Whether it is to be used.
    pub enabled: bool,
    /// Whether it was added on the client.
    pub local: bool,
    /// `HOST[:PORT]`; a handler's internal address.
    pub server: String,
    /// `ServerName`, a short name.
    pub server_name: Option<String>,
    /// `ServerIP`, `ADDRESS[:PORT]`.
    pub server_ip: Option<String>,
    /// `Version` of the server.
    pub version: Option<String>,
    /// `SecurePort`: the port for TLS.
    pub secure_port: Option<u16>,
    /// Where the files are below the server.
    pub relative_path: String,
    /// The handler's address from outside, `HOST:PORT`; ours.
    pub external: Option<String>,
    /// The group that brought it in; ours.
    pub group: Option<String>,
    /// How the handler is; ours.
    pub state: Option<State>,
    /// What else was on it and in it: kept on a rewrite. Credentials are not.
    pub extra: Extra,
}

/// Attributes and elements that are not known here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extra {
    /// Name and value.
    pub attributes: Vec<(String, String)>,
    /// Elements with what is in them.
    pub elements: Vec<Element>,
}

impl Sitelist {
    /// The enabled sites in the order to use them in: by `Order`, none last, fallbacks behind all others, else as in
    /// the file. Those of equal `Order` are equals: an agent shuffles them.
    pub fn ordered(&self) -> Vec<&Site> {
        let mut sites: Vec<&Site> = self.sites.iter().filter(|site| site.enabled).collect();
        sites.sort_by_key(|site| (site.role == Role::Fallback, site.order.unwrap_or(u32::MAX)));
        sites
    }

    /// The digest of everything but the two versions: equal where an agent would do the same with both.
    pub fn digest(&self) -> Digest {
        let bare = Self { global_version: String::new(), local_version: String::new(), ..self.clone() };
        Digest::of(render(&bare).as_bytes())
    }
}
