//! What can be said on the command line about the fleet's documents to a node that runs.

use clap::{Args, Subcommand};

use super::policy_args::AgentArgs;

/// An agent, as it is or as it would be.
#[derive(Clone, Debug, Args)]
pub struct AgentWords {
    /// As if it were here in the system tree
    #[arg(long, value_name = "PATH", requires = "agent")]
    pub tree: Option<String>,
    /// As if it had these tags, and no others
    #[arg(long, value_name = "TAG", requires = "agent")]
    pub tag: Vec<String>,
    /// As if it had these addresses, and no others
    #[arg(long, value_name = "ADDRESS", requires = "agent")]
    pub address: Vec<String>,
}

/// `waypost handlers …`
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
                        waypost handlers ls\n  \
                        waypost handlers drain berlin-2")]
pub enum HandlersCommand {
    /// List the handlers of the fleet
    #[command(visible_alias = "list")]
    Ls(HandlersLsArgs),
    /// Show an agent's handlers in their order
    Order(HandlersOrderArgs),
    /// Put handlers last in every list, so that agents leave them
    Drain(HandlersStateArgs),
    /// Put handlers back in their place
    Resume(HandlersStateArgs),
}

/// `waypost handlers ls`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost handlers ls\n  \
                        waypost handlers ls -o wide")]
pub struct HandlersLsArgs {}

/// `waypost handlers drain` and `resume`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost handlers drain berlin-2\n  \
                        waypost handlers resume berlin")]
pub struct HandlersStateArgs {
    /// A handler, or a group for all in it
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// `waypost handlers order`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost handlers order --agent pc-1001\n  \
                        waypost handlers order --agent new --tree /Branches/Berlin --address 10.7.0.9")]
pub struct HandlersOrderArgs {
    /// Who it is about, and what is known of it
    #[command(flatten)]
    pub agent: AgentArgs,
}
