//! The command line: one file a subcommand, no logic beyond talking and printing. stdout is data, stderr is talk.

mod agent;
mod agent_args;
mod args;
mod bars;
mod cache;
mod client;
mod config_check;
mod config_init;
mod config_show;
mod documents;
mod documents_args;
mod exit;
mod fleet;
mod fleet_args;
mod generate;
mod on;
mod operate_args;
mod policy;
mod policy_args;
mod print;
mod purge;
mod reload;
mod serve;
mod status;
mod talk;
mod warm;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

pub use agent_args::{AgentCommand, AgentProbeArgs};
pub use args::{
    Cli, Color, Command, CompletionArgs, ConfigCheckArgs, ConfigCommand, ConfigInitArgs, ConfigShowArgs,
    DemoArgs, GlobalArgs, ManArgs, Role, ServeArgs, Story,
};
pub use config_init::sample;
pub use documents_args::{AgentWords, HandlersCommand, HandlersLsArgs, HandlersOrderArgs, HandlersStateArgs};
pub use exit::{Exit, Failure};
pub use fleet_args::{FleetCommand, FleetForgetArgs, FleetLsArgs, FleetShowArgs, FleetWakeArgs};
pub use operate_args::{
    CacheCommand, CacheGcArgs, CacheLsArgs, CachePinArgs, CacheShowArgs, CacheVerifyArgs, ExplainArgs,
    FillsCancelArgs, FillsCommand, FillsLsArgs, HealthArgs, LogArgs, Output, PurgeArgs, ReloadArgs,
    StatusArgs, TailArgs, WarmArgs,
};
pub use policy_args::{
    AgentArgs, PolicyCheckArgs, PolicyCommand, PolicyImportArgs, PolicyLsArgs, PolicyResolveArgs,
    PolicyShowArgs, SitelistCheckArgs, SitelistCommand, SitelistShowArgs,
};

use crate::config::{AgentConfig, CheckedConfig};

/// What the commands start. Handed in by the binary, so that the command line need not know the application.
#[derive(Clone, Copy, Debug)]
pub struct Starters {
    /// Runs a node until it is told to stop.
    pub serve: fn(CheckedConfig) -> anyhow::Result<ExitCode>,
    /// Runs the demonstration; says its outcome as JSON if told so.
    pub demo: fn(DemoArgs, bool) -> anyhow::Result<ExitCode>,
    /// Runs an agent until it is told to stop.
    pub agent: fn(AgentConfig) -> anyhow::Result<ExitCode>,
}

/// Parses `words` (the first is the program's name), does what they say, and tells how it ended.
pub fn main(words: impl IntoIterator<Item = impl Into<OsString> + Clone>, starters: Starters) -> ExitCode {
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        // Help and version come this way as well: to stdout and with success.
        Err(told) => {
            let _ = told.print();
            return if told.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    run(cli, starters)
}

/// Does what `cli` says. An error is told with its causes on stderr.
pub fn run(cli: Cli, starters: Starters) -> ExitCode {
    talk::choose_color(cli.global.color);
    let global = &cli.global;
    let ended = match &cli.command {
        Command::Demo(args) => (starters.demo)(args.clone(), global.wants_json()),
        Command::Serve(args) => serve::run(args, global, starters),
        Command::Agent(command) => agent::run(command, global, starters),
        Command::Config(command) => configure(command, global).map(ExitCode::from),
        Command::Sitelist(command @ SitelistCommand::Check(_)) => {
            policy::sitelist(command, global).map(ExitCode::from)
        }
        Command::Policy(command) if command.is_offline() => {
            policy::policy(command, global).map(ExitCode::from)
        }
        Command::Completion(args) => generate::completion(args.shell).map(ExitCode::from),
        Command::Man(args) => generate::man(&args.dir).map(ExitCode::from),
        command => operate(command, global).map(ExitCode::from),
    };
    ended.unwrap_or_else(|error| told(&error, global.wants_json()))
}

fn configure(command: &ConfigCommand, global: &GlobalArgs) -> anyhow::Result<Exit> {
    match command {
        ConfigCommand::Check(args) => config_check::run(args, global),
        ConfigCommand::Show(args) => config_show::show(args, global),
        ConfigCommand::Schema => config_show::schema(),
        ConfigCommand::Init(args) => config_init::run(args.role),
    }
}

/// What is asked of a node that runs.
fn operate(command: &Command, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Reload(args) => reload::run(args, global).await,
            Command::Status(args) => status::status(args, global).await,
            Command::Health(args) => status::health(args, global).await,
            Command::Warm(args) => warm::run(args, global).await,
            Command::Purge(args) => purge::run(args, global).await,
            Command::Explain(args) => match (&args.agent, &args.url) {
                (Some(agent), _) => documents::explain(documents::ask(agent, &args.like), global).await,
                (None, url) => cache::explain(url.as_deref().unwrap_or_default(), global).await,
            },
            Command::Handlers(command) => documents::handlers(command, global).await,
            Command::Sitelist(command) => documents::sitelist(command, global).await,
            Command::Policy(command) => documents::policy(command, global).await,
            Command::Cache(command) => cache::run(command, global).await,
            Command::Fills(FillsCommand::Ls(args)) => status::fills(args, global).await,
            Command::Fills(FillsCommand::Cancel(args)) => status::cancel(args, global).await,
            Command::Fleet(command) => fleet::run(command, global).await,
            Command::Tail(args) => status::tail(args, global).await,
            Command::Log(args) => reload::log(args, global).await,
            Command::Demo(_)
            | Command::Serve(_)
            | Command::Agent(_)
            | Command::Config(_)
            | Command::Completion(_)
            | Command::Man(_) => Ok(Exit::Done),
        }
    })
}

/// Tells an error on stderr, and finds its exit code.
fn told(error: &anyhow::Error, json: bool) -> ExitCode {
    // Whoever read our data has had enough of it: `waypost tail | head`.
    if error.downcast_ref::<std::io::Error>().is_some_and(|it| it.kind() == std::io::ErrorKind::BrokenPipe) {
        return Exit::Done.into();
    }
    let Some(failure) = error.downcast_ref::<Failure>() else {
        talk::say(&format!("waypost: {error:#}"));
        return Exit::Failed.into();
    };
    let Failure { exit, message, help } = failure;
    if json {
        let code = *exit as u8;
        talk::say(
            &serde_json::json!({ "schema": 1, "error": { "exit": code, "message": message, "help": help } })
                .to_string(),
        );
    } else {
        talk::say(&format!("waypost: {}", message.trim_end()));
        if !help.is_empty() {
            talk::say(&format!("  {help}"));
        }
    }
    (*exit).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn each(command: &clap::Command, look: &mut impl FnMut(&clap::Command)) {
        look(command);
        command.get_subcommands().for_each(|sub| each(sub, look));
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_help_ends_with_two_examples() {
        each(&Cli::command(), &mut |command| {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let mut lines = help.lines();
            assert_eq!(lines.next(), Some("Examples:"), "{}", command.get_name());
            let examples: Vec<&str> = lines.collect();
            assert_eq!(examples.len(), 2, "{}", command.get_name());
            assert!(examples.iter().all(|line| line.trim_start().starts_with("waypost ")));
        });
    }

    #[test]
    fn every_example_of_the_help_parses() {
        each(&Cli::command(), &mut |command| {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().skip(1) {
                let command = line.split(['|', '>']).next().unwrap_or_default();
                let words = command.split_whitespace();
                Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        });
    }

    #[test]
    fn the_demo_takes_quantities_with_units() {
        let words = ["waypost", "demo", "--agents", "200", "--size", "50MiB", "--wan", "100Mbit/s"];
        let Command::Demo(args) = Cli::try_parse_from(words).expect("a command line").command else {
            panic!("not the demo");
        };
        assert_eq!((args.agents, args.size, args.wan, args.keep), (200, 50 << 20, 12_500_000, false));
        for wrong in
            [["--agents", "0"], ["--agents", "2001"], ["--size", "16"], ["--size", "0B"], ["--wan", "20MiB"]]
        {
            assert!(Cli::try_parse_from(["waypost", "demo"].iter().chain(&wrong)).is_err(), "{wrong:?}");
        }
    }
}
