//! What can be said on the command line about the fleet's documents to a node that runs.

use clap::{Args, Subcommand};

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
    Order(AgentArgs),
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

/// `waypost handlers order`, `sitelist show` and `policy resolve`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost handlers order --agent PC-0815\n  \
                        waypost sitelist show --agent PC-0815 --tree /emea/berlin --address 10.1.2.3")]
pub struct AgentArgs {
    /// The agent's id
    #[arg(long, value_name = "ID")]
    pub agent: String,
    /// What else it is like.
    #[command(flatten)]
    pub like: AgentWords,
}

/// `waypost sitelist …`
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
                        waypost sitelist show --agent PC-0815\n  \
                        waypost sitelist show --agent PC-0815 --json")]
pub enum SitelistCommand {
    /// Print an agent's sitelist as it gets it
    Show(AgentArgs),
}

/// `waypost policy …`
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
                        waypost policy ls\n  \
                        waypost policy resolve --agent PC-0815")]
pub enum PolicyCommand {
    /// List the policies of the fleet
    #[command(visible_alias = "list")]
    Ls(PolicyLsArgs),
    /// Print one policy
    Show(PolicyShowArgs),
    /// Show an agent's policies, and who gave them
    Resolve(AgentArgs),
}

/// `waypost policy ls`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost policy ls\n  \
                        waypost policy ls -o wide")]
pub struct PolicyLsArgs {}

/// `waypost policy show`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost policy show av/base\n  \
                        waypost policy show av/base --json")]
pub struct PolicyShowArgs {
    /// Its name
    #[arg(value_name = "CATEGORY/NAME")]
    pub name: String,
}
