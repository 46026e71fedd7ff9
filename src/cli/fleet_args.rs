//! What can be said on the command line about agents.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::operate_args::duration;

/// `waypost fleet …`
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
                        waypost fleet ls -l tag=kiosk\n  \
                        waypost fleet wake -l tree=/emea/* --over 10m")]
pub enum FleetCommand {
    /// List agents and where they stand
    #[command(visible_alias = "list")]
    Ls(FleetLsArgs),
    /// Show one agent
    Show(FleetShowArgs),
    /// Ask agents to check in now
    Wake(FleetWakeArgs),
    /// Forget agents; they may come again
    Forget(FleetForgetArgs),
}

/// `waypost fleet ls`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost fleet ls --behind\n  \
                        waypost fleet ls -l 'tree=/emea/*,tag=kiosk|pos' --watch")]
pub struct FleetLsArgs {
    /// Only these: id, state, contact, handler, host, os, tree, tag, address, version, clone, behind, content:REPOSITORY/CATALOGUE
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// Only those that have not what they should have: sitelist, policies or content
    #[arg(long)]
    pub behind: bool,
    /// Only in this state; without it, agents that are gone are left out
    #[arg(long, value_name = "STATE")]
    pub state: Option<String>,
    /// Again every two seconds, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
}

/// `waypost fleet show`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost fleet show pc-7\n  \
                        waypost fleet show pc-7 --json")]
pub struct FleetShowArgs {
    /// The agent
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `waypost fleet wake`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost fleet wake pc-7 pc-8\n  \
                        waypost fleet wake --group branch-7 --over 15m --attempts 2")]
pub struct FleetWakeArgs {
    /// These agents
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// All agents that this selects
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// All agents that belong to this group of handlers
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// Spread over this time, so that they do not come all at once
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub over: Option<Duration>,
    /// How often an agent is told, 1 to 20
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20))]
    pub attempts: Option<u32>,
    /// Between two attempts
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub spacing: Option<Duration>,
    /// Show what came of a wake-up, by its number
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["ids", "selector", "group", "over", "attempts", "spacing"])]
    pub result: Option<u64>,
    /// Call a wake-up off, by its number
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["ids", "selector", "group", "over", "attempts", "spacing", "result"])]
    pub abort: Option<u64>,
}

/// `waypost fleet forget`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost fleet forget pc-7\n  \
                        waypost fleet forget pc-7 pc-8 --yes")]
pub struct FleetForgetArgs {
    /// These agents
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}
