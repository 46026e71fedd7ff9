//! All updates of one agent, one after the other, each from the first source that can do it. Runs beside the check-ins:
//! a large package over a thin line takes its time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::link::Link;
use super::shelf::{Shelf, ShelfError};
use super::update::{Options, Source, Updated, update};

/// How one update went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The update.
    pub name: String,
    /// The version that is installed now; empty: none.
    pub version: String,
    /// Whether a new version was installed.
    pub changed: bool,
    /// What it was before.
    pub from: String,
    /// Files that were fetched.
    pub files: usize,
    /// Bytes that came over the wire.
    pub bytes: u64,
    /// Whether increments were taken in place of the full file.
    pub by_increments: bool,
    /// Where it came from; `None`: no source could do it.
    pub source: Option<String>,
    /// The sources that could not, and why.
    pub tried: Vec<(String, String)>,
}

impl Report {
    /// Whether it was done, be it that there was nothing to do.
    pub const fn is_done(&self) -> bool {
        self.source.is_some()
    }
}

/// The directories that are kept up to date.
#[derive(Debug)]
pub struct Updater {
    link: Link,
    shelves: Vec<(Options, Shelf)>,
}

impl Updater {
    /// Opens the directories. Blocks on the file system.
    ///
    /// # Errors
    /// [`ShelfError`]: one of them cannot be used.
    pub fn open(link: Link, updates: Vec<Options>) -> Result<Self, ShelfError> {
        let open = |options: Options| Shelf::open(&options.directory).map(|shelf| (options, shelf));
        let shelves = updates.into_iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { link, shelves })
    }

    /// Whom it trusts and how it shows who it is has changed.
    pub(super) fn use_link(&mut self, link: Link) {
        self.link = link;
    }

    /// What is installed, by the name of the update.
    pub fn versions(&self) -> BTreeMap<String, String> {
        let installed = self.shelves.iter().filter(|(_, shelf)| !shelf.is_empty());
        installed.map(|(options, shelf)| (options.name.clone(), shelf.manifest().version.clone())).collect()
    }

    /// Brings all of them up to date, as far as any of `sources` can. Never fails as a whole: each says how it went.
    pub async fn run(&mut self, sources: impl Fn(&Options) -> Vec<Source>) -> Vec<Report> {
        let mut reports = Vec::new();
        for (options, shelf) in &mut self.shelves {
            reports.push(run_one(&mut self.link, options, shelf, sources(options)).await);
        }
        // Until the next time it would only be idle.
        self.link.close();
        reports
    }
}

async fn run_one(link: &mut Link, options: &Options, shelf: &mut Shelf, sources: Vec<Source>) -> Report {
    let mut report = Report {
        name: options.name.clone(),
        version: shelf.manifest().version.clone(),
        changed: false,
        from: shelf.manifest().version.clone(),
        files: 0,
        bytes: 0,
        by_increments: false,
        source: None,
        tried: Vec::new(),
    };
    for source in sources {
        let told = format!("{}{}", source.authority, source.base);
        match update(link, &source, options, shelf).await {
            Ok(Updated::Installed { from, to, files, bytes, by_increments }) => {
                tracing::info!(update = options.name, %from, %to, files, bytes, source = told, "installed");
                let (version, source) = (to, Some(told));
                return Report {
                    version,
                    changed: true,
                    from,
                    files,
                    bytes,
                    by_increments,
                    source,
                    ..report
                };
            }
            Ok(Updated::Current { version }) => {
                tracing::debug!(update = options.name, %version, source = told, "nothing new");
                return Report { version, source: Some(told), ..report };
            }
            Err(error) => {
                tracing::warn!(update = options.name, source = told, %error, "this source cannot do it");
                report.tried.push((told, error.to_string()));
            }
        }
    }
    report
}
