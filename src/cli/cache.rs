//! `waypost cache …`: looking at what is stored, and caring for it.

use super::args::GlobalArgs;
use super::client::{Client, query};
use super::exit::{Exit, Failure};
use super::operate_args::{
    CacheCommand, CacheGcArgs, CacheLsArgs, CachePinArgs, CacheShowArgs, CacheVerifyArgs, Output,
};
use super::print::{self, Table};
use super::{bars, talk};
use crate::admin::api::{
    DryRun, Entries, EntriesAsk, EntryRow, Explanation, Job, Named, PinAsk, Reached, SCHEMA, VerifyAsk,
};
use crate::base::clock::Clock;
use crate::base::size::render_size;

/// Rows of one question.
const PAGE: usize = 10_000;

/// Does what is said.
pub(super) async fn run(command: &CacheCommand, global: &GlobalArgs) -> anyhow::Result<Exit> {
    match command {
        CacheCommand::Ls(args) => ls(args, global).await,
        CacheCommand::Show(args) => show(args, global).await,
        CacheCommand::Verify(args) => verify(args, global).await,
        CacheCommand::Gc(args) => gc(args, global).await,
        CacheCommand::Pin(args) => pin(args, global, true).await,
        CacheCommand::Unpin(args) => pin(args, global, false).await,
    }
}

async fn ls(args: &CacheLsArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let client = Client::new(global)?;
    let most = args.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let mut all: Vec<EntryRow> = Vec::new();
    let mut after = None;
    loop {
        let limit = Some(PAGE.min(most - all.len()));
        let ask = EntriesAsk { pattern: args.pattern.clone(), limit, after: after.take() };
        let page: Entries = client.get(&query("/v1/entries", &ask)).await?;
        all.extend(page.entries);
        match page.next {
            Some(next) if all.len() < most => after = Some(next),
            next => {
                after = next;
                break;
            }
        }
    }
    let whole = Entries { schema: SCHEMA, entries: all.clone(), next: after.clone() };
    print::list(global, (&whole, &all), || table(&all, global.format() == Output::Wide))?;
    if after.is_some() && !global.quiet && !global.wants_json() {
        talk::say("there are more: raise --limit, or name a pattern");
    }
    Ok(Exit::Done)
}

fn table(rows: &[EntryRow], wide: bool) -> String {
    if rows.is_empty() {
        return "nothing is stored that matches\n".to_owned();
    }
    let now = Clock::system().now().0 / 1_000;
    let heading: &[&str] =
        if wide { &["KEY", "SIZE", "AGE", "MARKS", "SHA-256"] } else { &["KEY", "SIZE", "AGE", "MARKS"] };
    let mut table = Table::new(heading, &[1, 2]);
    for row in rows {
        let marks = match (row.pinned, row.stale) {
            (true, true) => "pinned, stale",
            (true, false) => "pinned",
            (false, true) => "stale",
            (false, false) => "",
        };
        let age = print::time(now.saturating_sub(row.received));
        let key = row.key.split('\n').next().unwrap_or_default().to_owned();
        let mut cells = vec![key, render_size(row.bytes), age, marks.to_owned()];
        if wide {
            cells.push(row.sha256.clone());
        }
        table.row(cells);
    }
    table.render()
}

async fn show(args: &CacheShowArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let ask = Named { url: args.url.clone() };
    let found: Explanation = Client::new(global)?.get(&query("/v1/explain", &ask)).await?;
    if found.facts.get("entry").is_none() && found.facts.get("partial").is_none() {
        let help = "waypost explain says why, waypost cache ls what is stored";
        return Err(Failure::new(Exit::NotFound, format!("{} is not stored", found.path), help).into());
    }
    print::answer(global, &found, || {
        let mut text = format!("key  {}\n", print::printable(found.key.as_deref().unwrap_or("-")));
        for part in ["entry", "partial", "freshness"] {
            let Some(facts) = found.facts.get(part).and_then(serde_json::Value::as_object) else { continue };
            text += &format!("{part}\n");
            for (name, value) in facts {
                let value = value.as_str().map_or_else(|| value.to_string(), print::printable);
                text += &format!("  {name:<30} {value}\n");
            }
        }
        text
    })?;
    Ok(Exit::Done)
}

/// `waypost explain`
pub(super) async fn explain(url: &str, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let ask = Named { url: url.to_owned() };
    let found: Explanation = Client::new(global)?.get(&query("/v1/explain", &ask)).await?;
    print::answer(global, &found, || {
        found.words.iter().map(|line| format!("{}\n", print::printable(line))).collect()
    })?;
    Ok(Exit::Done)
}

async fn verify(args: &CacheVerifyArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let client = Client::new(global)?;
    let ask = VerifyAsk { repair: args.repair, limit_rate: args.limit_rate };
    let job: Job = client.post("/v1/verify", &ask).await?;
    bars::watch(&client, global, job).await
}

async fn gc(args: &CacheGcArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let reached: Reached = Client::new(global)?.post("/v1/gc", &DryRun { dry_run: args.dry_run }).await?;
    print::answer(global, &reached, || {
        if global.quiet {
            return String::new();
        }
        let would = if args.dry_run { "would remove" } else { "removed" };
        let blocks = print::many(reached.entries, "block");
        format!("{would} {blocks} that nothing names, {}\n", render_size(reached.bytes))
    })?;
    Ok(Exit::Done)
}

async fn pin(args: &CachePinArgs, global: &GlobalArgs, pinned: bool) -> anyhow::Result<Exit> {
    let ask = PinAsk { patterns: args.patterns.clone(), pinned };
    let reached: Reached = Client::new(global)?.post("/v1/pin", &ask).await?;
    print::answer(global, &reached, || {
        if global.quiet {
            return String::new();
        }
        let did = if pinned { "pinned" } else { "unpinned" };
        match reached.entries {
            0 => "nothing to do\n".to_owned(),
            entries => format!("{did} {}, {}\n", print::many(entries, "entry"), render_size(reached.bytes)),
        }
    })?;
    Ok(Exit::Done)
}
