//! Which repository a path belongs to.

use std::sync::Arc;

use super::directory::Directory;
use crate::fill::Origin;
use crate::repository::preset::Preset;
use crate::repository::rules::{Effective, Rules};
use crate::stage::Catalogues;
use crate::telemetry::{RepositoryMetrics, RouteMetrics};

/// A repository as the data plane serves it.
pub struct Repository {
    /// Its name.
    pub name: String,
    /// Its path prefix, with slashes at both ends.
    pub prefix: String,
    /// What a query string means.
    pub query: QueryMode,
    /// Where its files are.
    pub kind: Kind,
    /// Its counts.
    pub metrics: RepositoryMetrics,
    /// Its counts by listener.
    pub routes: Vec<(&'static str, RouteMetrics)>,
}

/// Where a repository's files are.
pub enum Kind {
    /// Here: this node is their master.
    Directory {
        /// The files.
        directory: Directory,
        /// What to tell caches about them.
        rules: Rules,
        /// How its catalogues are read.
        preset: Option<&'static dyn Preset>,
    },
    /// Upstream.
    Upstreams {
        /// Where it is, and what is here of it.
        origin: Arc<Origin>,
        /// What it publishes, where its kind has catalogues.
        catalogues: Option<Arc<Catalogues>>,
    },
}

/// What a query string on a request means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryMode {
    /// The request is refused.
    Refuse,
    /// It is part of the key and goes upstream.
    Key,
    /// It is as if it were not there.
    Drop,
}

impl Repository {
    /// The path within the repository; `None` when it is another's.
    pub fn path_of<'a>(&self, path: &'a str) -> Option<&'a str> {
        path.strip_prefix(self.prefix.as_str())
    }

    /// What its rules say about a path within it.
    pub fn effective(&self, path: &str) -> &Effective {
        match &self.kind {
            Kind::Directory { rules, .. } => rules.effective(path),
            Kind::Upstreams { origin, .. } => origin.supply.rules.effective(path),
        }
    }

    /// The counts for requests that came through `listener`.
    pub(super) fn route(&self, listener: &str) -> Option<&RouteMetrics> {
        self.routes.iter().find(|(name, _)| *name == listener).map(|(_, metrics)| metrics)
    }
}

/// All repositories, the longest prefix first.
#[derive(Default)]
pub struct Routes(Vec<Arc<Repository>>);

impl Routes {
    /// A table of these repositories.
    pub fn new(mut repositories: Vec<Arc<Repository>>) -> Self {
        repositories.sort_by_key(|repository| std::cmp::Reverse(repository.prefix.len()));
        Self(repositories)
    }

    /// The repository of a canonical path.
    pub fn find(&self, path: &str) -> Option<&Arc<Repository>> {
        self.0.iter().find(|repository| path.starts_with(repository.prefix.as_str()))
    }

    /// All of them.
    pub fn all(&self) -> &[Arc<Repository>] {
        &self.0
    }
}
