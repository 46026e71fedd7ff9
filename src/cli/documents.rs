//! `waypost handlers`, `sitelist`, `policy` and `explain --agent`: what the fleet's documents say, and changing it.

use serde_json::Value;

use super::args::GlobalArgs;
use super::client::{Client, query};
use super::documents_args::{
    AgentArgs, AgentWords, HandlersCommand, HandlersStateArgs, PolicyCommand, PolicyShowArgs, SitelistCommand,
};
use super::exit::Exit;
use super::operate_args::Output;
use super::print::{self, Table};
use crate::admin::api::Done;
use crate::admin::documents::{
    AgentAsk, HandlerRow, Handlers, Policies, PolicyAsk, PolicyRow, PolicyShown, SitelistShown, StateAsk,
};
use crate::base::clock::Clock;
use crate::base::size::render_size;

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
    let SitelistCommand::Show(args) = command;
    let ask = ask(&args.agent, &args.like);
    let shown: SitelistShown = Client::new(global)?.get(&query("/v1/agents/sitelist", &ask)).await?;
    print::answer(global, &shown, || format!("{}\n", shown.text.trim_end()))?;
    Ok(Exit::Done)
}

/// `waypost policy …`
pub(super) async fn policy(command: &PolicyCommand, global: &GlobalArgs) -> anyhow::Result<Exit> {
    match command {
        PolicyCommand::Ls(_) => policies(global).await,
        PolicyCommand::Show(args) => show(args, global).await,
        PolicyCommand::Resolve(args) => resolve(args, global).await,
    }
}

/// `waypost explain --agent`
pub(super) async fn explain(agent: &str, like: &AgentWords, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let found = explanation(agent, like, global).await?;
    print::answer(global, &found, || {
        let mut text = format!(
            "{}\n  tree       {}  ({})\n  tags       {}  ({})\n",
            word(&found, "/agent"),
            word(&found, "/tree"),
            word(&found, "/tree_because"),
            words(&found, "tags"),
            word(&found, "/tags_because"),
        );
        text += &format!("  addresses  {}\n", words(&found, "addresses"));
        text += &format!("\nrule {}: {}\n", word(&found, "/rule/name"), word(&found, "/rule/because"));
        for passed in rows(&found, "passed_over") {
            text += &format!("  not {}: {}\n", word(passed, "/name"), word(passed, "/because"));
        }
        for group in rows(&found, "groups") {
            text += &format!("group {}: {}\n", word(group, "/name"), word(group, "/because"));
        }
        for left in rows(&found, "left_out") {
            text += &format!("without {}: {}\n", word(left, "/name"), word(left, "/because"));
        }
        text + "\n" + &handlers_table(&found) + "\n" + &policies_table(&found)
    })?;
    Ok(Exit::Done)
}

fn ask(agent: &str, like: &AgentWords) -> AgentAsk {
    let list = |items: &[String]| (!items.is_empty()).then(|| items.join(","));
    AgentAsk {
        agent: agent.to_owned(),
        tree: like.tree.clone(),
        tags: list(&like.tag),
        addresses: list(&like.address),
    }
}

async fn explanation(agent: &str, like: &AgentWords, global: &GlobalArgs) -> anyhow::Result<Value> {
    Ok(Client::new(global)?.get(&query("/v1/agents/explain", &ask(agent, like))).await?)
}

fn word(value: &Value, path: &str) -> String {
    value.pointer(path).and_then(Value::as_str).map(print::printable).unwrap_or_default()
}

fn rows<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn words(value: &Value, name: &str) -> String {
    let all: Vec<&str> = rows(value, name).iter().filter_map(Value::as_str).collect();
    if all.is_empty() { "none".to_owned() } else { print::printable(&all.join(", ")) }
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

async fn order(args: &AgentArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let found = explanation(&args.agent, &args.like, global).await?;
    let empty = Vec::new();
    let handlers = found.get("handlers").and_then(Value::as_array).unwrap_or(&empty);
    print::list(global, (&handlers, handlers), || handlers_table(&found))?;
    Ok(Exit::Done)
}

fn handlers_table(found: &Value) -> String {
    let mut table = Table::new(&["ORDER", "HANDLER", "ADDRESS", "STATE", "BECAUSE"], &[0]);
    for row in rows(found, "handlers") {
        let order = row.get("order").and_then(Value::as_u64).unwrap_or(0).to_string();
        let rest = ["/name", "/internal", "/state", "/because"].map(|path| word(row, path));
        table.row([order].into_iter().chain(rest).collect());
    }
    if table.is_empty() { "no handler\n".to_owned() } else { table.render() }
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

async fn resolve(args: &AgentArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let found = explanation(&args.agent, &args.like, global).await?;
    let empty = Vec::new();
    let policies = found.get("policies").and_then(Value::as_array).unwrap_or(&empty);
    print::list(global, (&policies, policies), || policies_table(&found))?;
    Ok(Exit::Done)
}

fn policies_table(found: &Value) -> String {
    let mut table = Table::new(&["CATEGORY", "POLICY", "BECAUSE", "INSTEAD OF"], &[]);
    for row in rows(found, "policies") {
        let cells = ["/category", "/name", "/because"].map(|path| word(row, path));
        let instead = match rows(row, "instead_of") {
            [] => String::new(),
            _ => words(row, "instead_of"),
        };
        table.row(cells.into_iter().chain([instead]).collect());
    }
    if table.is_empty() { "no policy\n".to_owned() } else { table.render() }
}
