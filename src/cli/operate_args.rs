//! What can be said on the command line to a node that runs.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::documents_args::AgentWords;
use crate::base::size::{parse_duration, parse_rate};

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For people, with more columns
    Wide,
    /// As the node says it
    Json,
    /// One line of JSON for each row
    Jsonl,
}

/// `waypost status`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost status\n  \
                        waypost status --watch")]
pub struct StatusArgs {
    /// Again every two seconds, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
}

/// `waypost health`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost health\n  \
                        waypost health --live --timeout 2s")]
pub struct HealthArgs {
    /// Only whether the process lives, not whether agents should be sent here
    #[arg(long)]
    pub live: bool,
}

/// `waypost explain`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost explain /Software/Current/avvdat.zip\n  \
                        waypost explain --agent PC-0815 --tree /emea/berlin --address 10.1.2.3")]
pub struct ExplainArgs {
    /// The URL, or its path
    #[arg(value_name = "URL", required_unless_present = "agent", conflicts_with = "agent")]
    pub url: Option<String>,
    /// Why this agent gets its handlers and policies, instead of a URL its answer
    #[arg(long, value_name = "ID")]
    pub agent: Option<String>,
    /// What else the agent is like.
    #[command(flatten)]
    pub like: AgentWords,
}

/// `waypost reload`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost reload --dry-run\n  \
                        waypost reload")]
pub struct ReloadArgs {
    /// Say what would change, and change nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

/// `waypost purge`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost purge '/Software/Current/**' -n\n  \
                        waypost purge --soft --all --yes")]
pub struct PurgeArgs {
    /// Paths of URLs: a file, a folder with its `/`, or a glob
    #[arg(value_name = "PATTERN")]
    pub patterns: Vec<String>,
    /// Everything that is stored
    #[arg(long, conflicts_with_all = ["patterns", "from_file"])]
    pub all: bool,
    /// Only set it stale: asked about before it is used, still used while upstream is down
    #[arg(long)]
    pub soft: bool,
    /// Only what was received or confirmed longer ago
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub older_than: Option<std::time::Duration>,
    /// More patterns, one a line; `-` is stdin
    #[arg(long, value_name = "FILE")]
    pub from_file: Option<PathBuf>,
    /// At these nodes, by way of the fleet: a handler or a group
    #[arg(long, value_name = "HANDLER|GROUP")]
    pub on: Option<String>,
    /// Show count and bytes, and purge nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// `waypost warm`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost warm /Software/Current/avvdat.zip --limit-rate 2MiB/s\n  \
                        waypost warm --from-file list.txt -j 2")]
pub struct WarmArgs {
    /// Paths of URLs, or globs over what is stored and what catalogues list
    #[arg(value_name = "PATTERN")]
    pub patterns: Vec<String>,
    /// Only what catalogues list; all of it where nothing else is said
    #[arg(long)]
    pub catalog: bool,
    /// More of them, one a line; `-` is stdin
    #[arg(long, value_name = "FILE")]
    pub from_file: Option<PathBuf>,
    /// Files at the same time, 1 to 64
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=64))]
    pub jobs: Option<u64>,
    /// Bytes a second on average, such as 2MiB/s
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub limit_rate: Option<u64>,
    /// At these nodes, by way of the fleet: a handler or a group
    #[arg(long, value_name = "HANDLER|GROUP")]
    pub on: Option<String>,
    /// Show what would be fetched, and fetch nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Begin, print the job's number, and leave
    #[arg(long)]
    pub detach: bool,
    /// Watch a job that runs already
    #[arg(long, value_name = "ID", conflicts_with_all = ["patterns", "catalog", "from_file", "dry_run", "detach", "jobs", "limit_rate", "on"])]
    pub job: Option<u64>,
}

/// `waypost cache …`
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
                        waypost cache ls '/Software/**/*.zip'\n  \
                        waypost cache verify --repair")]
pub enum CacheCommand {
    /// List what is stored
    #[command(visible_alias = "list")]
    Ls(CacheLsArgs),
    /// Show one stored file
    Show(CacheShowArgs),
    /// Read every block and compare it with its name
    Verify(CacheVerifyArgs),
    /// Remove blocks that nothing names
    Gc(CacheGcArgs),
    /// Evict these last
    Pin(CachePinArgs),
    /// Evict these like all others again
    Unpin(CachePinArgs),
}

/// `waypost cache ls`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost cache ls\n  \
                        waypost cache ls '*.zip' -o wide --limit 50")]
pub struct CacheLsArgs {
    /// Paths of URLs: a file, a folder with its `/`, or a glob
    #[arg(value_name = "PATTERN")]
    pub pattern: Option<String>,
    /// Rows at most; all of them without it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
}

/// `waypost cache show`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost cache show /Software/Current/avvdat.zip\n  \
                        waypost cache show /Software/Current/avvdat.zip --json")]
pub struct CacheShowArgs {
    /// The URL, or its path
    #[arg(value_name = "URL")]
    pub url: String,
}

/// `waypost cache verify`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost cache verify\n  \
                        waypost cache verify --repair --limit-rate 50MiB/s")]
pub struct CacheVerifyArgs {
    /// Fetch damaged blocks again
    #[arg(long)]
    pub repair: bool,
    /// Bytes a second, such as 50MiB/s
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub limit_rate: Option<u64>,
}

/// `waypost cache gc`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost cache gc -n\n  \
                        waypost cache gc")]
pub struct CacheGcArgs {
    /// Count, and remove nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

/// `waypost cache pin` and `unpin`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost cache pin '/Software/Current/**'\n  \
                        waypost cache unpin /Software/Current/avvdat.zip")]
pub struct CachePinArgs {
    /// Paths of URLs: a file, a folder with its `/`, or a glob
    #[arg(value_name = "PATTERN", required = true)]
    pub patterns: Vec<String>,
}

/// `waypost fills …`
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
                        waypost fills ls --watch\n  \
                        waypost fills cancel /Software/huge.iso")]
pub enum FillsCommand {
    /// List fetches that run
    #[command(visible_alias = "list")]
    Ls(FillsLsArgs),
    /// End a fetch; its readers' transfers break
    Cancel(FillsCancelArgs),
}

/// `waypost fills ls`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost fills ls\n  \
                        waypost fills ls --watch")]
pub struct FillsLsArgs {
    /// Again every two seconds, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
}

/// `waypost fills cancel`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost fills cancel /Software/huge.iso\n  \
                        waypost fills cancel https://handler.example/Software/huge.iso")]
pub struct FillsCancelArgs {
    /// The URL, or its path
    #[arg(value_name = "URL")]
    pub url: String,
}

/// `waypost tail`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost tail --misses\n  \
                        waypost tail --errors --match '/Software/**' -o jsonl")]
pub struct TailArgs {
    /// Only what did not come from the cache
    #[arg(long)]
    pub misses: bool,
    /// Only errors and transfers that broke
    #[arg(long)]
    pub errors: bool,
    /// Only these paths
    #[arg(long = "match", value_name = "PATTERN")]
    pub pattern: Option<String>,
}

/// `waypost log`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost log debug\n  \
                        waypost log info,waypost::fill=debug")]
pub struct LogArgs {
    /// error, warn, info, debug, trace, or a filter
    #[arg(value_name = "LEVEL")]
    pub level: String,
}

/// A duration with its unit.
pub(super) fn duration(text: &str) -> Result<std::time::Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

fn rate(text: &str) -> Result<u64, String> {
    match parse_rate(text) {
        Ok(0) => Err("0 would never end; leave it out for no limit".to_owned()),
        Ok(rate) => Ok(rate),
        Err(error) => Err(error.to_string()),
    }
}
