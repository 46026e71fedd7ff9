//! `waypost agent …`: run the agent, or ask the one that runs. Where none runs, what is asked for is done here.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::agent_args::{AgentCommand, AgentProbeArgs};
use super::args::{Cli, GlobalArgs};
use super::exit::{Exit, Failure};
use super::print::{self, Table};
use super::{Starters, serve, talk};
use crate::agent::{self, Agent, Done, Listed, Options, Order, Report};
use crate::base::size::render_size;
use crate::config::{self, AgentConfig};

/// Where the package puts it.
const CONFIG: &str = "/etc/waypost-agent/agent.toml";

/// Does it.
pub(super) fn run(
    command: &AgentCommand,
    global: &GlobalArgs,
    starters: Starters,
) -> anyhow::Result<ExitCode> {
    let file = config_file(global);
    let (mut config, warnings) = match config::load_agent(&file) {
        Ok(loaded) => loaded,
        Err(found) => {
            talk::show(&found);
            return Ok(Exit::ConfigInvalid.into());
        }
    };
    if !global.quiet {
        talk::show(&warnings);
    }
    if matches!(command, AgentCommand::Run) {
        config.log.level = serve::level(config.log.level, global);
        return (starters.agent)(config);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(ask(command, &config, global)).map(ExitCode::from)
}

/// The agent's file where none is named: the node's own default is not for agents.
fn config_file(global: &GlobalArgs) -> PathBuf {
    let usual = Cli::command()
        .get_arguments()
        .find(|it| it.get_id() == "config")
        .is_some_and(|it| it.get_default_values().iter().any(|default| Path::new(default) == global.config));
    if usual { PathBuf::from(CONFIG) } else { global.config.clone() }
}

async fn ask(command: &AgentCommand, config: &AgentConfig, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let options = config.options().context("cannot read a secret")?;
    match command {
        AgentCommand::Run => Ok(Exit::Done),
        AgentCommand::Probe(args) => probe(args, &options, global).await,
        AgentCommand::Status => status(&options, global).await,
        AgentCommand::Checkin => checkin(options, global).await,
        AgentCommand::Update => update(options, global).await,
    }
}

async fn probe(args: &AgentProbeArgs, options: &Options, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let lines = Agent::probe(options).await?;
    let list: Vec<Listed> = lines.iter().map(Listed::from).collect();
    let chosen = list.first().filter(|it| it.reason.starts_with("chosen"));
    let answer = serde_json::json!({
        "schema": 1,
        "chosen": chosen.map(|it| &it.address),
        "list": list,
    });
    print::answer(global, &answer, || {
        if args.explain {
            return table(&list);
        }
        chosen.map(|it| format!("{}\n", it.address)).unwrap_or_default()
    })?;
    match chosen {
        Some(_) => Ok(Exit::Done),
        None => Err(no_connection(list.len()).into()),
    }
}

fn table(list: &[Listed]) -> String {
    let mut table = Table::new(&["PRIORITY", "TTL", "LATENCY", "ADDRESS", "REASON"], &[0, 1, 2]);
    for it in list {
        let last = it.priority == u32::MAX;
        table.row(vec![
            if last { "last".to_owned() } else { it.priority.to_string() },
            it.hops.map_or_else(|| "-".to_owned(), |hops| hops.to_string()),
            it.latency_ms.map_or_else(|| "-".to_owned(), |latency| format!("{latency:.1} ms")),
            it.address.clone(),
            it.reason.clone(),
        ]);
    }
    table.render()
}

async fn status(options: &Options, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let Some(done) = running(options, Order::Status, global).await? else {
        let message = format!("no agent runs with {}", options.state_dir.display());
        return Err(Failure::new(Exit::Unreachable, message, "start it: waypost agent run").into());
    };
    let status = &done.status;
    print::answer(global, status, || {
        let mut text = format!("agent {}: {}\n", status.id, status.state);
        let mut line = |name: &str, value: String| text += &format!("  {name:<12} {value}\n");
        if let Some(handler) = &status.handler {
            line("handler", format!("{handler} ({})", status.selection));
        }
        let open = if status.channel_open { "open" } else { "not open" };
        line(
            "contact",
            match &*status.contact {
                "checkin" => "check-ins only".to_owned(),
                contact => format!("{contact}, {open}"),
            },
        );
        if let Some(seconds) = status.next_checkin_s {
            line("next", format!("check-in in {seconds} s"));
        }
        for (name, version) in &status.content {
            line("content", format!("{} {}", print::printable(name), print::printable(version)));
        }
        for name in status.policies.keys() {
            line("policy", print::printable(name));
        }
        if let Some(error) = &status.last_error {
            line("last error", print::printable(error));
        }
        if !status.list.is_empty() {
            text += "\n";
            text += &table(&status.list);
        }
        text
    })?;
    Ok(if status.handler.is_some() { Exit::Done } else { Exit::Unhealthy })
}

async fn checkin(options: Options, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let done = match running(&options, Order::CheckIn, global).await? {
        Some(done) => done,
        None => {
            let mut agent = Agent::open(options)?;
            let error = agent.check_in().await.err().map(|error| error.to_string());
            Done { status: agent.status(), error, reports: Vec::new() }
        }
    };
    if let Some(error) = &done.error {
        return Err(failed(error).into());
    }
    print::answer(global, &done.status, || {
        format!("checked in with {}\n", done.status.handler.as_deref().unwrap_or("-"))
    })?;
    Ok(Exit::Done)
}

async fn update(options: Options, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let reports = match running(&options, Order::Update, global).await? {
        Some(done) => match done.error {
            Some(error) => return Err(failed(&error).into()),
            None => done.reports,
        },
        None => Agent::open(options)?.update().await,
    };
    let answer = serde_json::json!({
        "schema": 1,
        "changed": reports.iter().any(|report| report.changed),
        "updates": reports,
    });
    print::answer(global, &answer, || reports.iter().map(sentence).collect())?;
    for report in &reports {
        for (source, why) in report.tried.iter().filter(|_| !report.is_done()) {
            talk::say(&print::printable(&format!("{}: {source}: {why}", report.name)));
        }
    }
    let done = reports.iter().filter(|report| report.is_done()).count();
    Ok(match (done, reports.len()) {
        (done, all) if done == all => Exit::Done,
        (0, _) => Exit::Failed,
        _ => Exit::Partly,
    })
}

fn sentence(report: &Report) -> String {
    let name = &report.name;
    let text = if !report.is_done() {
        format!("{name}: not updated, version `{}` stays", report.version)
    } else if report.changed {
        let how = if report.by_increments { ", by increments" } else { "" };
        let files = print::many(report.files as u64, "file");
        format!("{name}: version {} installed ({files}, {}{how})", report.version, render_size(report.bytes))
    } else {
        format!("{name}: version {} is current", report.version)
    };
    print::printable(&text) + "\n"
}

/// Asks the agent that runs; `None`: none does.
async fn running(options: &Options, order: Order, global: &GlobalArgs) -> anyhow::Result<Option<Done>> {
    let asked = agent::ask(&options.state_dir, order);
    // An update takes as long as it takes.
    let answered = match order {
        Order::Update => Ok(asked.await),
        Order::Status | Order::CheckIn => tokio::time::timeout(global.timeout, asked).await,
    };
    let dir = options.state_dir.display();
    match answered {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let message = format!("the agent of {dir} may not be asked by this user");
            Err(Failure::new(Exit::NotAllowed, message, "come as root or as the agent's user").into())
        }
        Ok(Err(error)) => {
            let message = format!("the agent of {dir} did not answer: {error}");
            Err(Failure::new(Exit::Failed, message, "look at its log").into())
        }
        Err(_) => {
            let message = format!("the agent of {dir} did not answer within {:?}", global.timeout);
            Err(Failure::new(Exit::TimedOut, message, "look at its log, or wait longer with --timeout")
                .into())
        }
    }
}

fn failed(error: &str) -> Failure {
    Failure::new(Exit::Unreachable, error, "waypost agent probe --explain says why")
}

fn no_connection(handlers: usize) -> Failure {
    let message = format!("No Connection: none of {} answers", print::many(handlers as u64, "handler"));
    Failure::new(Exit::Unreachable, message, "--explain says why")
}
