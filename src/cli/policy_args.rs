//! What can be said on the command line about the fleet's documents.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::fleet::{AgentId, TreePath};

/// `waypost sitelist …`
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
                        waypost sitelist show --agent pc-1001\n  \
                        waypost sitelist check SiteList.xml")]
pub enum SitelistCommand {
    /// Print an agent's sitelist as the node gives it out
    Show(SitelistShowArgs),
    /// Read a sitelist as an agent would, and say what is in it
    Check(SitelistCheckArgs),
}

/// `waypost sitelist show`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost sitelist show --agent pc-1001\n  \
                        waypost sitelist show --agent new --tree /Branches/Berlin --address 10.7.0.9")]
pub struct SitelistShowArgs {
    /// Who it is about, and what is known of it
    #[command(flatten)]
    pub agent: AgentArgs,
}

/// `waypost sitelist check`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost sitelist check SiteList.xml\n  \
                        waypost sitelist check sitelist.xml --deny-warnings --json")]
pub struct SitelistCheckArgs {
    /// The file; - is what comes in
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Fail on warnings too
    #[arg(long)]
    pub deny_warnings: bool,
}

/// `waypost policy …`
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
                        waypost policy check fleet\n  \
                        waypost policy resolve --agent pc-1001")]
pub enum PolicyCommand {
    /// List the policies of the fleet
    #[command(visible_alias = "list")]
    Ls(PolicyLsArgs),
    /// Print one policy
    Show(PolicyShowArgs),
    /// Compile a directory of control documents and print all problems in one run
    Check(PolicyCheckArgs),
    /// Say which policies an agent has, and why
    Resolve(PolicyResolveArgs),
    /// Turn an export of ePO's policy assignment rules into rules.toml
    Import(PolicyImportArgs),
}

impl PolicyCommand {
    /// Whether it does without a node.
    pub fn is_offline(&self) -> bool {
        match self {
            Self::Ls(_) | Self::Show(_) => false,
            Self::Resolve(args) => args.dir.is_some(),
            Self::Check(_) | Self::Import(_) => true,
        }
    }
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
                        waypost policy show antivirus/standard\n  \
                        waypost policy show antivirus/standard --json")]
pub struct PolicyShowArgs {
    /// Its name
    #[arg(value_name = "CATEGORY/NAME")]
    pub name: String,
}

/// `waypost policy check`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost policy check fleet\n  \
                        waypost policy check --json --deny-warnings fleet")]
pub struct PolicyCheckArgs {
    /// The directory with fleet.toml, rules.toml and policies
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Fail on warnings too
    #[arg(long)]
    pub deny_warnings: bool,
}

/// `waypost policy resolve`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost policy resolve --agent pc-1001\n  \
                        waypost policy resolve --dir fleet --agent new --tree /Servers --tag till --address 10.7.0.9 -o wide")]
pub struct PolicyResolveArgs {
    /// A directory with control documents, instead of those of the node
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Who it is about, and what is known of it
    #[command(flatten)]
    pub agent: AgentArgs,
}

/// An agent on the command line: one that is known, or one that might be.
#[derive(Clone, Debug, Args)]
pub struct AgentArgs {
    /// The agent's id
    #[arg(long = "agent", value_name = "ID", value_parser = AgentId::parse)]
    pub id: AgentId,
    /// Where it says it is in the tree
    #[arg(long, value_name = "PATH", value_parser = TreePath::parse)]
    pub tree: Option<TreePath>,
    /// A tag it says it has; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// An address of it; may be repeated
    #[arg(long = "address", value_name = "ADDRESS")]
    pub addresses: Vec<IpAddr>,
}

/// `waypost policy import`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost policy import PolicyAssignmentRules.xml > fleet/rules.toml\n  \
                        waypost policy import PolicyAssignmentRules.xml --json")]
pub struct PolicyImportArgs {
    /// The export; - is what comes in
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}
