//! `waypost handlers`, `sitelist`, `policy` and `explain --agent`: what the fleet's documents say, and changing it.

use super::args::GlobalArgs;
use super::client::{Client, query};
use super::documents_args::{AgentWords, HandlersCommand, HandlersOrderArgs, HandlersStateArgs};
use super::exit::Exit;
use super::operate_args::Output;
use super::policy;
use super::policy_args::{AgentArgs, PolicyCommand, PolicyShowArgs, SitelistCommand};
use super::print::{self, Table};
use crate::admin::api::Done;
use crate::admin::documents::{
    AgentAsk, HandlerRow, Handlers, Policies, PolicyAsk, PolicyRow, PolicyShown, SitelistShown, StateAsk,
};
use crate::base::clock::Clock;
use crate::base::size::render_size;
use crate::fleet::Explanation;

/// `waypost handlers …`
pub(super) async fn handlers(command: &HandlersCommand, global: &GlobalArgs) -> anyhow::Result<Exit> {
    match command {
        HandlersCommand::Ls(_) => ls(global).await,
        HandlersCommand::Order(args) => order(args, global).await,
        HandlersCommand::Drain(args) => set_state(args, "draining", global).await,
        HandlersCommand::Resume(args) => set_state(args, "active", global).await,
    }
}

/// `waypost sitelist …`
pub(super) async fn sitelist(command: &SitelistCommand, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let SitelistCommand::Show(args) = command else { return Ok(Exit::Done) };
    let ask = ask_of(&args.agent);
    let shown: SitelistShown = Client::new(global)?.get(&query("/v1/agents/sitelist", &ask)).await?;
    print::answer(global, &shown, || format!("{}\n", shown.text.trim_end()))?;
    Ok(Exit::Done)
}

/// `waypost policy …`
pub(super) async fn policy(command: &PolicyCommand, global: &GlobalArgs) -> anyhow::Result<Exit> {
    match command {
        PolicyCommand::Ls(_) => policies(global).await,
        PolicyCommand::Show(args) => show(args, global).await,
        PolicyCommand::Resolve(args) => {
            policy::show_policies(&explanation(&ask_of(&args.agent), global).await?, global)?;
            Ok(Exit::Done)
        }
        PolicyCommand::Check(_) | PolicyCommand::Import(_) => Ok(Exit::Done),
    }
}

/// `waypost explain --agent`
pub(super) async fn explain(ask: AgentAsk, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let found = explanation(&ask, global).await?;
    print::answer(global, &found, || print::lines(&found.to_string()))?;
    Ok(Exit::Done)
}

/// An agent as it is asked about.
pub(super) fn ask(agent: &str, like: &AgentWords) -> AgentAsk {
    let list = |items: &[String]| (!items.is_empty()).then(|| items.join(","));
    AgentAsk {
        agent: agent.to_owned(),
        tree: like.tree.clone(),
        tags: list(&like.tag),
        addresses: list(&like.address),
    }
}

fn ask_of(args: &AgentArgs) -> AgentAsk {
    let like = AgentWords {
        tree: args.tree.as_ref().map(ToString::to_string),
        tag: args.tags.clone(),
        address: args.addresses.iter().map(ToString::to_string).collect(),
    };
    ask(args.id.as_str(), &like)
}

async fn explanation(ask: &AgentAsk, global: &GlobalArgs) -> anyhow::Result<Explanation> {
    Ok(Client::new(global)?.get(&query("/v1/agents/explain", ask)).await?)
}

async fn ls(global: &GlobalArgs) -> anyhow::Result<Exit> {
    let found: Handlers = Client::new(global)?.get("/v1/handlers").await?;
    let wide = global.format() == Output::Wide;
    print::list(global, (&found, &found.handlers), || table(&found.handlers, wide))?;
    Ok(Exit::Done)
}

fn table(handlers: &[HandlerRow], wide: bool) -> String {
    if handlers.is_empty() {
        return "the fleet has no handlers\n".to_owned();
    }
    let now = Clock::system().now().0 / 1_000;
    let narrow = ["NAME", "STATE", "ADDRESS", "GROUPS", "SEEN"];
    let all = ["NAME", "STATE", "ADDRESS", "GROUPS", "SEEN", "OUTSIDE", "WEIGHT", "WAITING"];
    let mut table = Table::new(if wide { &all } else { &narrow }, &[4, 6, 7]);
    for row in handlers {
        let seen = row.seen.map_or_else(|| "-".to_owned(), |at| print::time(now.saturating_sub(at)));
        let mut cells =
            vec![row.name.clone(), row.state.clone(), row.internal.clone(), row.groups.join(", "), seen];
        if wide {
            cells.push(row.external.clone().unwrap_or_else(|| "-".to_owned()));
            cells.extend([row.weight.to_string(), row.waiting.to_string()]);
        }
        table.row(cells);
    }
    table.render()
}

async fn order(args: &HandlersOrderArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let found = explanation(&ask_of(&args.agent), global).await?;
    print::list(global, (&found.handlers, &found.handlers), || {
        let mut table = Table::new(&["ORDER", "HANDLER", "ADDRESS", "STATE", "BECAUSE"], &[0]);
        for row in &found.handlers {
            let state = row.state.as_str().to_owned();
            let texts = [row.name.clone(), row.internal.clone(), state, row.because.clone()];
            table.row([row.order.to_string()].into_iter().chain(texts).collect());
        }
        if table.is_empty() { "no handler\n".to_owned() } else { table.render() }
    })?;
    Ok(Exit::Done)
}

async fn set_state(args: &HandlersStateArgs, state: &str, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let ask = StateAsk { name: args.name.clone(), state: state.to_owned() };
    let done: Done = Client::new(global)?.post("/v1/handlers/state", &ask).await?;
    print::answer(global, &done, || match (global.quiet, done.changed) {
        (true, _) => String::new(),
        (false, true) => format!("{} is {state} now\n", args.name),
        (false, false) => format!("{} is {state} already: nothing to do\n", args.name),
    })?;
    Ok(Exit::Done)
}

async fn policies(global: &GlobalArgs) -> anyhow::Result<Exit> {
    let found: Policies = Client::new(global)?.get("/v1/policies").await?;
    let wide = global.format() == Output::Wide;
    print::list(global, (&found, &found.policies), || {
        let heading: &[&str] =
            if wide { &["CATEGORY", "NAME", "SIZE", "SHA-256"] } else { &["CATEGORY", "NAME", "SIZE"] };
        let mut table = Table::new(heading, &[2]);
        for PolicyRow { category, name, bytes, sha256 } in &found.policies {
            let mut cells = vec![category.clone(), name.clone(), render_size(*bytes)];
            cells.extend(wide.then(|| sha256.clone()));
            table.row(cells);
        }
        if table.is_empty() { "the fleet has no policies\n".to_owned() } else { table.render() }
    })?;
    Ok(Exit::Done)
}

async fn show(args: &PolicyShowArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let ask = PolicyAsk { name: args.name.clone() };
    let found: PolicyShown = Client::new(global)?.get(&query("/v1/policies/one", &ask)).await?;
    print::answer(global, &found, || found.body.clone())?;
    Ok(Exit::Done)
}
