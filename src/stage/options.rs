//! What may be turned about catalogues.

use std::path::PathBuf;
use std::time::Duration;

use crate::repository::rules::{Globs, Rules};

/// What has to be here before a new generation is shown.
#[derive(Debug)]
pub enum Prepare {
    /// Its catalogue files only.
    Nothing,
    /// Its incremental updates.
    Deltas,
    /// What agents fetched of the one before, in its new version, and its incremental updates.
    Used,
    /// Everything it names.
    All,
    /// What these globs match.
    Matching(Globs),
}

/// The options of one repository's catalogues.
#[derive(Debug)]
pub struct Options {
    /// How often upstream is asked whether there is a newer generation, while agents come. Default a minute.
    pub check_every: Duration,
    /// What is fetched before a generation is shown. Default [`Prepare::Used`].
    pub prepare: Prepare,
    /// After this long it is shown although files are still arriving, as long as all of them do. Default 10 minutes.
    pub prepare_within: Duration,
    /// Whether what agents used is fetched in its new version before they ask. Default yes.
    pub prefetch: bool,
    /// Bytes a second that fetching ahead may take while no agent reads; 0 is no limit, the default.
    pub prefetch_rate: u64,
    /// How long an agent that began with a generation gets its files after another one is shown. Default 30 minutes.
    pub grace: Duration,
    /// Age, counted from upstream's last confirmation, from which on there is an alarm. Default a day.
    pub alarm_after: Duration,
    /// Age from which on the catalogue is not offered any more, so that agents go elsewhere. Default never.
    pub stop_after: Option<Duration>,
    /// The administrator's own rules: a catalogue file that one of them calls fresh for a time or immutable goes by it.
    pub overrides: Rules,
    /// The directory in which generations are remembered over a restart.
    pub remember: PathBuf,
}

impl Options {
    /// The defaults, remembering in `remember`.
    pub fn new(remember: impl Into<PathBuf>) -> Self {
        Self {
            check_every: Duration::from_secs(60),
            prepare: Prepare::Used,
            prepare_within: Duration::from_secs(600),
            prefetch: true,
            prefetch_rate: 0,
            grace: Duration::from_secs(1_800),
            alarm_after: Duration::from_secs(86_400),
            stop_after: None,
            overrides: Rules::default(),
            remember: remember.into(),
        }
    }
}
