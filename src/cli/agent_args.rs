//! What can be said after `waypost agent`. Types only.

use clap::{Args, Subcommand};

/// `waypost agent …`
#[derive(Clone, Debug, Subcommand)]
#[command(before_help = "Without -c the agent's file is /etc/waypost-agent/agent.toml.")]
#[command(after_help = "Examples:\n  \
                        waypost agent run -c agent.toml\n  \
                        waypost agent probe --explain")]
pub enum AgentCommand {
    /// Run the agent of this endpoint
    #[command(after_help = "Examples:\n  \
                            waypost agent run\n  \
                            waypost agent run -c agent.toml -v")]
    Run,
    /// Verify the list of handlers and check in now
    #[command(after_help = "Examples:\n  \
                            waypost agent checkin\n  \
                            waypost agent checkin -c agent.toml --json")]
    Checkin,
    /// Bring the directories up to date now
    #[command(after_help = "Examples:\n  \
                            waypost agent update\n  \
                            waypost agent update -c agent.toml --json")]
    Update,
    /// Ask the handlers of the list, and print the one that would be used
    Probe(AgentProbeArgs),
    /// Show how the agent is
    #[command(after_help = "Examples:\n  \
                            waypost agent status\n  \
                            waypost agent status -c agent.toml --json")]
    Status,
}

/// `waypost agent probe`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
                        waypost agent probe\n  \
                        waypost agent probe --explain -c agent.toml")]
pub struct AgentProbeArgs {
    /// Print the evaluated list: priority, TTL (hops), latency, address, and the reason of the choice
    #[arg(long)]
    pub explain: bool,
}
