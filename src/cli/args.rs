//! What can be said on the command line. Types only, so that completions and manual pages can be made from them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::agent_args::AgentCommand;
use super::documents_args::HandlersCommand;
use super::fleet_args::FleetCommand;
use super::operate_args::{
    CacheCommand, ExplainArgs, FillsCommand, HealthArgs, LogArgs, Output, PurgeArgs, ReloadArgs, StatusArgs,
    TailArgs, WarmArgs, duration,
};
use super::policy_args::{PolicyCommand, SitelistCommand};
use crate::base::size::{parse_rate, parse_size};

/// The whole command line.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "waypost",
    version,
    about = "The update handler of a branch office: every file crosses the WAN once",
    long_about = "The update handler of a branch office: every file crosses the WAN once, is verified, and \
                  streams to every agent while it is still arriving.",
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:\n  \
                  waypost demo\n  \
                  waypost serve -c waypost.toml"
)]
pub struct Cli {
    /// What applies to every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Configuration file
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        env = "WAYPOST_CONFIG",
        default_value = "/etc/waypost/waypost.toml"
    )]
    pub config: PathBuf,
    /// The node to talk to: a Unix socket's path or https://HOST:PORT [default: the socket of the configuration]
    #[arg(
        short,
        long,
        global = true,
        value_name = "ENDPOINT",
        env = "WAYPOST_SERVER",
        hide_env_values = true
    )]
    pub server: Option<String>,
    /// File with the bearer token for https
    #[arg(long, global = true, value_name = "FILE", env = "WAYPOST_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// PEM file with the authority of the node's certificate for https [default: the system's]
    #[arg(long, global = true, value_name = "FILE", env = "WAYPOST_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// How to print answers
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORMAT",
        env = "WAYPOST_OUTPUT",
        value_enum,
        default_value = "table"
    )]
    pub output: Output,
    /// Short for --output json
    #[arg(long, global = true)]
    pub json: bool,
    /// How long to wait for the node
    #[arg(long, global = true, value_name = "DURATION", env = "WAYPOST_TIMEOUT", default_value = "30s", value_parser = duration)]
    pub timeout: std::time::Duration,
    /// Never ask; what would have to be asked fails
    #[arg(long, global = true, env = "WAYPOST_NO_INPUT", value_parser = clap::builder::FalseyValueParser::new())]
    pub no_input: bool,
    /// Say more; twice says everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Say errors only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Colours in output
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        env = "WAYPOST_COLOR",
        value_enum,
        default_value = "auto"
    )]
    pub color: Color,
}

impl GlobalArgs {
    /// How answers are printed.
    pub fn format(&self) -> Output {
        if self.json { Output::Json } else { self.output }
    }

    /// Whether answers are for programs.
    pub fn wants_json(&self) -> bool {
        matches!(self.format(), Output::Json | Output::Jsonl)
    }
}

/// When output has colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show the whole story on this machine, with made-up files: nothing to prepare
    Demo(DemoArgs),
    /// Run a node
    Serve(ServeArgs),
    /// Check a configuration, show it, or begin one
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Have the node read its configuration again
    Reload(ReloadArgs),
    /// Show on one screen how the node is
    Status(StatusArgs),
    /// Tell by the exit code whether the node is healthy
    Health(HealthArgs),
    /// Fetch files ahead of their first agent
    Warm(WarmArgs),
    /// Make stored files go, or stale
    Purge(PurgeArgs),
    /// Say why a URL is answered as it is
    Explain(ExplainArgs),
    /// Look at what is stored and care for it
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Fetches that run
    #[command(subcommand)]
    Fills(FillsCommand),
    /// Agents: who is there, and asking them to come
    #[command(subcommand)]
    Fleet(FleetCommand),
    /// The handlers of the fleet
    #[command(subcommand)]
    Handlers(HandlersCommand),
    /// Follow requests as they end
    Tail(TailArgs),
    /// Log more or less from now on
    Log(LogArgs),
    /// Run an agent on an endpoint, or ask one
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Sitelists: which handlers an agent may use
    #[command(subcommand)]
    Sitelist(SitelistCommand),
    /// Policies and the fleet's other control documents
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Print completions for a shell
    Completion(CompletionArgs),
    /// Write manual pages
    Man(ManArgs),
}

/// `waypost completion`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost completion bash > /usr/share/bash-completion/completions/waypost\n  \
                        waypost completion zsh")]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// `waypost man`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost man --dir man1\n  \
                        waypost man --dir /usr/local/share/man/man1")]
pub struct ManArgs {
    /// The directory, made if it is missing
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
}

/// `waypost serve`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost serve -c waypost.toml\n  \
                        waypost serve -c /etc/waypost/waypost.toml --check")]
pub struct ServeArgs {
    /// Check the configuration and exit
    #[arg(long)]
    pub check: bool,
}

/// `waypost config …`
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
                        waypost config check waypost.toml\n  \
                        waypost config init --role branch > waypost.toml")]
pub enum ConfigCommand {
    /// Check a file and print all problems in one run
    Check(ConfigCheckArgs),
    /// Print what is in force: the file, and the defaults with it
    Show(ConfigShowArgs),
    /// Print a JSON schema of the file
    #[command(after_help = "Examples:\n  \
                            waypost config schema\n  \
                            waypost config schema > waypost.schema.json")]
    Schema,
    /// Print a commented configuration to begin with
    Init(ConfigInitArgs),
}

/// `waypost config check`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost config check waypost.toml\n  \
                        waypost config check --json --deny-warnings waypost.toml")]
pub struct ConfigCheckArgs {
    /// The file, instead of the one of --config
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Fail on warnings too
    #[arg(long)]
    pub deny_warnings: bool,
}

/// `waypost config show`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost config show\n  \
                        waypost config show --effective --origin")]
pub struct ConfigShowArgs {
    /// Every key, with its default where the file says nothing
    #[arg(long)]
    pub effective: bool,
    /// Say where each value comes from
    #[arg(long)]
    pub origin: bool,
}

/// `waypost config init`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost config init --role branch > waypost.toml\n  \
                        waypost config init --role hq | less")]
pub struct ConfigInitArgs {
    /// Where the node will stand
    #[arg(long, value_enum)]
    pub role: Role,
}

/// Where a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// In a branch office, behind a thin line
    Branch,
    /// Between headquarters and branches
    Region,
    /// At headquarters: the master of a directory
    Hq,
}

/// `waypost demo`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost demo\n  \
                        waypost demo --story cache --agents 200 --size 50MiB --wan 100Mbit/s --keep")]
pub struct DemoArgs {
    /// What is shown
    #[arg(long, value_name = "STORY", value_enum, default_value = "fleet")]
    pub story: Story,
    /// Agents, 2 to 2000
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = agents)]
    pub agents: usize,
    /// Size of the largest file
    #[arg(long, value_name = "SIZE", default_value = "8MiB", value_parser = size)]
    pub size: u64,
    /// Speed of the WAN
    #[arg(long, value_name = "RATE", default_value = "20Mbit/s", value_parser = rate)]
    pub wan: u64,
    /// Leave the nodes running at the end, with commands to try
    #[arg(long)]
    pub keep: bool,
    /// The handler's port, of the story of the cache [default: the kernel chooses]
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
}

/// What the demo shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Story {
    /// Headquarters, two handlers, their agents, and what happens when one of them or the WAN dies
    Fleet,
    /// One handler and many agents that want the same file over a thin line
    Cache,
}

fn agents(text: &str) -> Result<usize, String> {
    let number = text.parse().map_err(|_| "not a whole number".to_owned())?;
    if (1..=2_000).contains(&number) { Ok(number) } else { Err("allowed: 1 to 2000".to_owned()) }
}

fn size(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text).map_err(|error| error.to_string())?;
    if (1 << 10..=4 << 30).contains(&bytes) { Ok(bytes) } else { Err("allowed: 1KiB to 4GiB".to_owned()) }
}

fn rate(text: &str) -> Result<u64, String> {
    let rate = parse_rate(text).map_err(|error| error.to_string())?;
    if (1 << 10..=10 << 30).contains(&rate) { Ok(rate) } else { Err("allowed: 1KiB/s to 10GiB/s".to_owned()) }
}
