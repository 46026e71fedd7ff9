//! `waypost fleet …`: the agents, as the node sees them.

use std::io::IsTerminal as _;
use std::time::Duration;

use super::args::GlobalArgs;
use super::client::{Client, query};
use super::exit::{Exit, Failure};
use super::fleet_args::{FleetCommand, FleetForgetArgs, FleetLsArgs, FleetShowArgs, FleetWakeArgs};
use super::operate_args::Output;
use super::print::{self, Table};
use super::purge::confirm;
use crate::admin::agents_api::{AgentRow, Agents, AgentsAsk, AgentsReached, ForgetAsk, WakeAsk, WakeTold};
use crate::admin::api::{Done, SCHEMA};
use crate::base::clock::Clock;

/// Rows of one question.
const PAGE: usize = 10_000;
/// Between two looks of `--watch`.
const EVERY: Duration = Duration::from_secs(2);

/// Does what is said.
pub(super) async fn run(command: &FleetCommand, global: &GlobalArgs) -> anyhow::Result<Exit> {
    match command {
        FleetCommand::Ls(args) => ls(args, global).await,
        FleetCommand::Show(args) => show(args, global).await,
        FleetCommand::Wake(args) => wake(args, global).await,
        FleetCommand::Forget(args) => forget(args, global).await,
    }
}

async fn ls(args: &FleetLsArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let client = Client::new(global)?;
    let state = args.state.as_ref().map(|state| format!("state={state}"));
    let behind = args.behind.then(|| "behind=*".to_owned());
    let terms: Vec<String> = args.selector.iter().cloned().chain(state).chain(behind).collect();
    let selector = (!terms.is_empty()).then(|| terms.join(","));
    let on_terminal = std::io::stdout().is_terminal() && !global.wants_json();
    loop {
        let agents = all(&client, selector.as_deref()).await?;
        let whole = Agents { schema: SCHEMA, agents: agents.clone(), next: None };
        // Home and clear to the end: without flicker, and what was on the screen before stays above.
        let clear = if args.watch && on_terminal { "\u{1b}[H\u{1b}[J" } else { "" };
        print::list(global, (&whole, &agents), || {
            format!("{clear}{}", table(&agents, global.format() == Output::Wide))
        })?;
        if !args.watch {
            return Ok(Exit::Done);
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn all(client: &Client, selector: Option<&str>) -> Result<Vec<AgentRow>, Failure> {
    let mut agents = Vec::new();
    let mut after = None;
    loop {
        let selector = selector.map(str::to_owned);
        let ask = AgentsAsk { selector, limit: Some(PAGE), after: after.take() };
        let page: Agents = client.get(&query("/v1/agents", &ask)).await?;
        agents.extend(page.agents);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(agents),
        }
    }
}

fn ago(seconds: u64) -> String {
    let now = Clock::system().now().0 / 1_000;
    if seconds == 0 { "-".to_owned() } else { print::time(now.saturating_sub(seconds)) }
}

fn state(row: &AgentRow) -> String {
    let clone = if row.cloned { ", clone" } else { "" };
    format!("{} ({}){clone}", row.state, row.cause)
}

fn table(rows: &[AgentRow], wide: bool) -> String {
    if rows.is_empty() {
        return "no agent matches; one that is gone is found by --state\n".to_owned();
    }
    let mut heading = vec!["AGENT", "STATE", "SINCE", "CHECK-IN", "CONTACT", "HANDLER", "BEHIND"];
    if wide {
        heading.extend(["HOST", "TREE", "TAGS", "ADDRESS", "VERSION", "CONTENT"]);
    }
    let mut table = Table::new(&heading, &[2, 3]);
    for row in rows {
        let mut cells = vec![
            row.id.clone(),
            state(row),
            ago(row.since),
            // One that does not check in has only been seen.
            ago(if row.checked_in == 0 { row.heard } else { row.checked_in }),
            row.contact.clone(),
            row.handler.clone(),
            row.behind.join(", "),
        ];
        if wide {
            let content: Vec<String> =
                row.content.iter().map(|(name, version)| format!("{name} {version}")).collect();
            cells.extend([
                row.host.clone(),
                row.tree.clone().unwrap_or_default(),
                row.tags.join(" "),
                row.addresses.first().cloned().unwrap_or_default(),
                row.agent_version.clone(),
                content.join(", "),
            ]);
        }
        table.row(cells);
    }
    table.render()
}

async fn show(args: &FleetShowArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let row: AgentRow = Client::new(global)?.get(&format!("/v1/agents/{}", args.id)).await?;
    print::answer(global, &row, || screen(&row))?;
    Ok(Exit::Done)
}

fn screen(row: &AgentRow) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            text += &format!("{name:<12} {}\n", print::printable(&value));
        }
    };
    line("agent", row.id.clone());
    line("state", format!("{}, for {}", state(row), ago(row.since)));
    line("contact", format!("{} at {}", row.contact, row.handler));
    line("heard", format!("{} ago", ago(row.heard)));
    if row.check_ins > 0 {
        line("check-ins", format!("{}, the last {} ago", row.check_ins, ago(row.checked_in)));
    }
    line("behind", row.behind.join(", "));
    line("host", row.host.clone());
    line("os", row.os.clone());
    line("addresses", row.addresses.join(", "));
    line("tree", row.tree.clone().unwrap_or_default());
    line("tags", row.tags.join(", "));
    line("agent", row.agent_version.clone());
    line("sitelist", row.sitelist.clone().unwrap_or_default());
    for (name, version) in &row.content {
        let newer = row.newer.get(name).map(|newer| format!(", {newer} is here")).unwrap_or_default();
        line("content", format!("{name} {version}{newer}"));
    }
    for (name, digest) in &row.policies {
        line("policy", format!("{name} {digest}"));
    }
    text
}

async fn wake(args: &FleetWakeArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let client = Client::new(global)?;
    if let Some(id) = args.abort {
        let done: Done = client.delete(&format!("/v1/wakes/{id}")).await?;
        print::answer(
            global,
            &done,
            || if global.quiet { String::new() } else { "called off\n".to_owned() },
        )?;
        return Ok(Exit::Done);
    }
    let told: WakeTold = if let Some(id) = args.result {
        client.get(&format!("/v1/wakes/{id}")).await?
    } else {
        if args.ids.is_empty() && args.selector.is_none() && args.group.is_none() {
            let help = "name agents, or say -l SELECTOR or --group NAME";
            return Err(Failure::new(Exit::Usage, "nobody is named to be woken", help).into());
        }
        let ask = WakeAsk {
            agents: args.ids.clone(),
            selector: args.selector.clone(),
            group: args.group.clone(),
            over: args.over.map_or(0, |time| time.as_secs()),
            attempts: args.attempts,
            spacing: args.spacing.map(|time| time.as_secs()),
        };
        client.post("/v1/agents/wake", &ask).await?
    };
    print::answer(global, &told, || woken(&told, args.result.is_some(), global.quiet))?;
    Ok(Exit::Done)
}

fn woken(told: &WakeTold, each: bool, quiet: bool) -> String {
    let WakeTold { id, total, answered, .. } = told;
    if quiet {
        return format!("{id}\n");
    }
    if !each {
        let agents = print::many(*total, "agent");
        return format!("wake-up {id} of {agents} has begun; waypost fleet wake --result {id} tells\n");
    }
    let mut table = Table::new(&["AGENT", "WOKEN", "TOLD", "ANSWERED"], &[2, 3]);
    for row in &told.agents {
        let answered = row.answered.map_or_else(|| "-".to_owned(), |at| format!("{} ago", ago(at)));
        table.row(vec![row.agent.clone(), row.woken.clone(), row.attempts.to_string(), answered]);
    }
    let off = if told.aborted { ", called off" } else { "" };
    format!("{}{answered} of {total} have answered{off}\n", table.render())
}

async fn forget(args: &FleetForgetArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    if !args.yes {
        let agents = print::many(args.ids.len() as u64, "agent");
        confirm(global, &format!("would forget {agents}: {}", print::printable(&args.ids.join(", "))))?;
    }
    let ask = ForgetAsk { agents: args.ids.clone() };
    let reached: AgentsReached = Client::new(global)?.post("/v1/agents/forget", &ask).await?;
    print::answer(global, &reached, || match (global.quiet, reached.agents) {
        (true, _) => String::new(),
        (false, 0) => "none of them is known: nothing to do\n".to_owned(),
        (false, agents) => format!("forgot {}\n", print::many(agents, "agent")),
    })?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_is_a_table_and_an_agent_a_screen() {
        let row = AgentRow {
            id: "pc-7".to_owned(),
            state: "grey".to_owned(),
            cause: "ping-timeout".to_owned(),
            contact: "stream".to_owned(),
            handler: "branch".to_owned(),
            cloned: true,
            behind: vec!["sitelist".to_owned()],
            ..AgentRow::default()
        };
        let text = table(std::slice::from_ref(&row), false);
        assert!(text.contains("pc-7   grey (ping-timeout), clone"), "{text}");
        assert!(!text.contains("TREE") && table(std::slice::from_ref(&row), true).contains("TREE"));
        assert!(screen(&row).contains("behind       sitelist\n"));
        assert!(table(&[], false).contains("--state"));
    }
}
