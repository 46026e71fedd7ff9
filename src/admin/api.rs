//! What is said over the admin API, as types: the node and the command line share them.
//!
//! Every answer has `schema`. Fields are only ever added.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The number of the answers' shape.
pub const SCHEMA: u32 = 1;

const fn schema() -> u32 {
    SCHEMA
}

/// Names a file of a repository by its URL or path.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// `/Software/x.zip`, or a whole URL, whose host is not looked at.
    pub url: String,
}

/// Which entries to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntriesAsk {
    /// A pattern over paths; all where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// Entries of one answer at most; 1,000 where nothing is said, 10,000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Go on after this key, the `next` of the answer before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// One stored file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryRow {
    /// Its key: repository, path, and what else selects it.
    pub key: String,
    /// Bytes of the body.
    pub bytes: u64,
    /// When it was received or last confirmed, in seconds since 1970.
    pub received: u64,
    /// Set stale by an operator.
    pub stale: bool,
    /// Evicted last.
    pub pinned: bool,
    /// SHA-256 of the body.
    pub sha256: String,
}

/// Some entries, in the order of their keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entries {
    /// The shape.
    #[serde(default = "schema")]
    pub schema: u32,
    /// The entries.
    pub entries: Vec<EntryRow>,
    /// Where to go on, if there are more.
    pub next: Option<String>,
}

/// What to purge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeAsk {
    /// Patterns over paths.
    #[serde(default)]
    pub patterns: Vec<String>,
    /// Everything there is.
    #[serde(default)]
    pub all: bool,
    /// Only set it stale: it is asked about before it is used, and still used while upstream is down.
    #[serde(default)]
    pub soft: bool,
    /// Only what was received or confirmed longer ago than so many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub older_than: Option<u64>,
    /// Count, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a purge, a pin or a collection reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// The shape.
    #[serde(default = "schema")]
    pub schema: u32,
    /// Whether anything is different now.
    pub changed: bool,
    /// Entries that match.
    pub entries: u64,
    /// Their bytes on disk.
    pub bytes: u64,
    /// The first twenty of their keys.
    pub first: Vec<String>,
    /// Fetches under way that it reached: they feed their readers and are not kept.
    #[serde(default)]
    pub fills: u64,
}

/// What to pin or to release.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinAsk {
    /// Patterns over paths.
    pub patterns: Vec<String>,
    /// Pin, or release.
    pub pinned: bool,
}

/// Whether to only say what would happen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DryRun {
    /// Change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What to fetch ahead.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmAsk {
    /// Paths, or patterns over what is known.
    pub patterns: Vec<String>,
    /// Only what catalogues list, all of it where there is no pattern.
    #[serde(default)]
    pub catalog: bool,
    /// Files at the same time, 1 to 64; 4 where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<usize>,
    /// Bytes a second, on average.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_rate: Option<u64>,
    /// Say what would be fetched, and fetch nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// How to check the cache.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyAsk {
    /// Fetch damaged blocks again.
    #[serde(default)]
    pub repair: bool,
    /// Bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_rate: Option<u64>,
}

/// How a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It goes on.
    Running,
    /// It came to its end, and nothing is missing.
    Done,
    /// It came to its end, and something is missing.
    Partly,
    /// An operator ended it.
    Cancelled,
}

/// A file that a job works on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobItem {
    /// Its path.
    pub path: String,
    /// Bytes so far.
    pub bytes: u64,
    /// Bytes in all, where known.
    pub length: Option<u64>,
}

/// What a job could not do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFailure {
    /// The file.
    pub path: String,
    /// Why, in the words of the README.
    pub why: String,
}

/// A job on the node. It goes on without anybody watching.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The shape.
    #[serde(default = "schema")]
    pub schema: u32,
    /// Its number since the node started.
    pub id: u64,
    /// `warm` or `verify`.
    pub kind: String,
    /// How it is.
    pub state: JobState,
    /// Files (or blocks) in all.
    pub total: u64,
    /// Of them finished, well or not.
    pub finished: u64,
    /// Of them that were fetched or repaired.
    pub changed: u64,
    /// Bytes that came for it.
    pub bytes: u64,
    /// What it works on.
    pub running: Vec<JobItem>,
    /// What is missing; the first hundred.
    pub failed: Vec<JobFailure>,
    /// How many are missing.
    pub failures: u64,
    /// Seconds since it began, or until it ended.
    pub seconds: u64,
}

/// One key of the configuration that a reload changed, or could not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// As in the reference: `[log] level`, `repository software`.
    pub what: String,
    /// `added`, `removed` or `changed`.
    pub how: String,
    /// Whether it waits for a restart.
    pub restart: bool,
}

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The shape.
    #[serde(default = "schema")]
    pub schema: u32,
    /// Whether anything is different now (or would be).
    pub changed: bool,
    /// What.
    pub changes: Vec<Change>,
    /// Warnings about the file.
    pub warnings: Vec<String>,
}

/// Another log level.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogAsk {
    /// `error` to `trace`, or a filter such as `info,waypost::fill=debug`.
    pub level: String,
}

/// That something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The shape.
    #[serde(default = "schema")]
    pub schema: u32,
    /// Whether anything is different now.
    pub changed: bool,
}

impl Done {
    /// It is.
    pub const CHANGED: Self = Self { schema: SCHEMA, changed: true };
    /// There was nothing to do.
    pub const NOTHING: Self = Self { schema: SCHEMA, changed: false };
}

/// Which requests to follow.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TailAsk {
    /// Only what did not come from the cache.
    #[serde(default)]
    pub misses: bool,
    /// Only errors.
    #[serde(default)]
    pub errors: bool,
    /// Only paths that match.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
}

/// What is known about one URL. `words` is for people.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// The shape.
    #[serde(default = "schema")]
    pub schema: u32,
    /// The canonical path.
    pub path: String,
    /// The repository, if it is one's.
    pub repository: Option<String>,
    /// The name of the entry.
    pub key: Option<String>,
    /// The word of the verdict on a plain request now.
    pub verdict: String,
    /// Everything, in sentences.
    pub words: Vec<String>,
    /// The facts behind them.
    pub facts: Value,
}
