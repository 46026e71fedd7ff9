//! From what a repository says about its catalogues to the part that watches them.

use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use tokio::task::JoinHandle;

use super::build::own_rules;
use super::events::CatalogueEvents;
use crate::base::clock::Clock;
use crate::config::{
    CatalogueConfig, CheckedConfig, PrepareConfig, Preset, RepositoryConfig, Source, UpstreamsConfig,
};
use crate::fill::Origin;
use crate::repository::preset;
use crate::repository::rules::{Globs, Rules};
use crate::stage::{Catalogues, Options, Prepare};
use crate::telemetry::{CatalogueMetrics, Metrics};

/// What kind of repository this is; `None` where nothing is known about its names.
pub(super) fn preset_of(repository: &RepositoryConfig) -> Option<&'static dyn preset::Preset> {
    let watched = match &repository.source {
        Source::Upstreams(upstreams) => upstreams.catalogue.is_some(),
        Source::Directory(_) => repository.preset != Preset::Generic,
    };
    watched.then(|| preset::preset_named(repository.preset.as_str())).flatten()
}

/// Catalogues that are looked after, once that has begun and until this is dropped.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) catalogues: Arc<Catalogues>,
    counts: CatalogueMetrics,
    task: OnceLock<JoinHandle<()>>,
}

impl Watched {
    /// Looks after them from now on; a second time changes nothing. Inside a tokio runtime.
    ///
    /// Not when they are made: a reload that is only tried makes them too, and must not have anybody asked.
    pub(super) fn begin(&self, metrics: &Metrics) {
        self.task.get_or_init(|| {
            let (watched, counts) = (Arc::downgrade(&self.catalogues), self.counts.clone());
            metrics.before_reading(move |_| {
                let Some(catalogues) = watched.upgrade() else { return };
                let status = catalogues.status();
                let shown = || status.iter().filter_map(|it| it.generation.as_ref());
                counts.timestamp.set(shown().map(|it| it.staged_at.0 / 1_000).max().unwrap_or(0));
                counts.age.set(status.iter().map(|it| it.age.as_secs()).max().unwrap_or(0));
                counts.alarm.set(u64::from(status.iter().any(|it| it.alarm)));
            });
            tokio::spawn(Arc::clone(&self.catalogues).run())
        });
    }

    #[cfg(test)]
    pub(super) fn has_begun(&self) -> bool {
        self.task.get().is_some()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

/// The catalogues of a repository, where its kind has some.
pub(super) fn build(
    config: &CheckedConfig,
    (repository, upstreams): (&RepositoryConfig, &UpstreamsConfig),
    origin: &Arc<Origin>,
    metrics: &Metrics,
    clock: &Clock,
) -> anyhow::Result<Option<Watched>> {
    let kind = preset_of(repository);
    let Some((watched, kind)) = upstreams.catalogue.as_ref().zip(kind) else { return Ok(None) };
    let options =
        options(config, repository, watched).with_context(|| format!("repository {}", repository.name))?;
    let counts = metrics.catalogues(&repository.name);
    let events = Box::new(CatalogueEvents(counts.clone()));
    let catalogues = Catalogues::new(options, kind, Arc::clone(origin), clock.clone(), events);
    Ok(Some(Watched { catalogues, counts, task: OnceLock::new() }))
}

fn options(
    config: &CheckedConfig,
    repository: &RepositoryConfig,
    watched: &CatalogueConfig,
) -> anyhow::Result<Options> {
    let prepare = match &watched.prepare {
        PrepareConfig::Nothing => Prepare::Nothing,
        PrepareConfig::Deltas => Prepare::Deltas,
        PrepareConfig::Used => Prepare::Used,
        PrepareConfig::All => Prepare::All,
        PrepareConfig::Matching(patterns) => Prepare::Matching(Globs::compile(patterns)?),
    };
    Ok(Options {
        check_every: watched.check_every,
        prepare,
        prepare_within: watched.prepare_within,
        prefetch: watched.prefetch,
        prefetch_rate: watched.prefetch_rate,
        grace: watched.grace,
        alarm_after: watched.alarm_after,
        stop_after: watched.stop_after,
        overrides: Rules::compile(own_rules(repository).collect())?,
        ..Options::new(config.cache.dir.join("generations"))
    })
}
