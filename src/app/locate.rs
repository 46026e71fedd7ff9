//! From what an operator writes to the file that is meant: repository, canonical path, key.

use std::sync::Arc;

use http::Uri;

use super::fault;
use crate::admin::ApiError;
use crate::cache::Key;
use crate::protocol::target::{parse_target, path_of_name};
use crate::proxy::{QueryMode, Repository, Routes};
use crate::repository::pattern::path_of;

/// A file that a repository of this node would answer for.
pub(super) struct Place {
    pub(super) repository: Arc<Repository>,
    /// The canonical path, whole.
    pub(super) path: String,
    /// The path below the repository's.
    pub(super) below: String,
    /// The query, where it is part of the name.
    pub(super) query: Option<String>,
    pub(super) key: Key,
}

/// The canonical path and query of a URL, or of a path as people write it, with spaces and umlauts.
pub(super) fn canonical(url: &str) -> Result<(String, Option<String>), ApiError> {
    let text = path_of(url);
    let parsed = text.parse::<Uri>().ok();
    let target = parsed.as_ref().and_then(|uri| parse_target(uri).ok());
    if let Some(target) = target {
        return Ok((target.path().to_owned(), target.query().map(str::to_owned)));
    }
    let name = text.strip_prefix('/').and_then(|name| path_of_name(name).ok());
    match name {
        Some(name) => Ok((format!("/{}", name.trim_start_matches('/')), None)),
        None => {
            let shown: String = text.chars().take(120).collect();
            let message = format!("`{}` is no path of a URL", shown.escape_debug());
            Err(ApiError::bad(message, "write it like /Software/Current/avvdat.zip, or as a whole URL"))
        }
    }
}

/// The file of a URL.
pub(super) fn locate(routes: &Routes, url: &str) -> Result<Place, ApiError> {
    let (path, query) = canonical(url)?;
    let Some(repository) = routes.find(&path).cloned() else {
        let known: Vec<&str> = routes.all().iter().map(|it| it.prefix.as_str()).collect();
        let help = format!("this node serves {}", known.join(", "));
        return Err(ApiError::not_found(format!("no repository has {path}"), help));
    };
    let query = match (repository.query, query) {
        (QueryMode::Refuse, Some(_)) => {
            let help = "leave it out, or set query = \"key\" or \"drop\" in the repository";
            return Err(fault::bad(format!("repository {} refuses a query", repository.name), help));
        }
        (QueryMode::Key, query) => query,
        (QueryMode::Drop | QueryMode::Refuse, _) => None,
    };
    let below = repository.path_of(&path).unwrap_or_default().to_owned();
    let key = Key::new(&repository.name, &path, query.as_deref());
    Ok(Place { repository, path, below, query, key })
}
