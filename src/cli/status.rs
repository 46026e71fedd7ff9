//! `waypost status`, `health`, `fills`: how the node is.

use std::io::IsTerminal as _;
use std::time::Duration;

use serde_json::Value;

use super::args::GlobalArgs;
use super::client::Client;
use super::exit::{Exit, Failure};
use super::operate_args::{FillsCancelArgs, FillsLsArgs, HealthArgs, Output, StatusArgs};
use super::print::{self, Table};
use super::talk;
use crate::admin::api::{Done, Named};
use crate::base::size::render_size;

/// Between two looks of `--watch`.
const EVERY: Duration = Duration::from_secs(2);

/// `waypost status`
pub(super) async fn status(args: &StatusArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let wide = global.format() == Output::Wide;
    watch(args.watch, global, "/v1/status", |status| screen(status, wide)).await
}

/// `waypost fills ls`
pub(super) async fn fills(args: &FillsLsArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    watch(args.watch, global, "/v1/fills", |value| {
        fills_table(value).unwrap_or_else(|| "no fetch runs\n".to_owned())
    })
    .await
}

/// `waypost fills cancel`
pub(super) async fn cancel(args: &FillsCancelArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let ask = Named { url: args.url.clone() };
    let done: Done = Client::new(global)?.post("/v1/fills/cancel", &ask).await?;
    print::answer(global, &done, || if global.quiet { String::new() } else { "ended\n".to_owned() })?;
    Ok(Exit::Done)
}

/// `waypost health`
pub(super) async fn health(args: &HealthArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let path = if args.live { "/livez" } else { "/readyz" };
    let (status, text) = Client::new(global)?.plain(path).await?;
    let well = status == 200;
    let value = serde_json::json!({ "schema": 1, "healthy": well, "message": text });
    print::answer(global, &value, || if global.quiet { String::new() } else { format!("{text}\n") })?;
    Ok(if well { Exit::Done } else { Exit::Unhealthy })
}

async fn watch(
    again: bool,
    global: &GlobalArgs,
    path: &str,
    human: impl Fn(&Value) -> String,
) -> anyhow::Result<Exit> {
    let client = Client::new(global)?;
    let on_terminal = std::io::stdout().is_terminal() && !global.wants_json();
    loop {
        let value: Value = client.get(path).await?;
        // Home and clear to the end: without flicker, and what was on the screen before stays above.
        let clear = if again && on_terminal { "\u{1b}[H\u{1b}[J" } else { "" };
        print::answer(global, &value, || format!("{clear}{}", human(&value)))?;
        if !again {
            return Ok(Exit::Done);
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn number(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or(0)
}

fn word<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn sum(value: &Value, path: &str) -> u64 {
    let of = value.pointer(path).and_then(Value::as_object);
    of.map_or(0, |of| of.values().filter_map(Value::as_u64).sum())
}

/// One screen; wide, with what is behind its sums.
fn screen(status: &Value, wide: bool) -> String {
    let mut text = format!(
        "waypost {}  {}  up {}  {}\n",
        word(status, "/version"),
        word(status, "/phase"),
        print::time(number(status, "/seconds")),
        print::many(number(status, "/connections"), "connection"),
    );
    let (requests, bytes) = (sum(status, "/traffic/requests"), sum(status, "/traffic/bytes"));
    // Whatever did not need a body over the WAN.
    let saved = |of: &str| {
        ["hit", "collapsed", "revalidated", "stale"]
            .iter()
            .map(|it| number(status, &format!("/traffic/{of}/{it}")))
            .sum()
    };
    text += &format!(
        "requests  {requests}, {} from the cache\nbytes     {} to agents, {} from upstream, {} from the cache\n",
        print::percent(saved("requests"), requests),
        render_size(bytes),
        render_size(number(status, "/traffic/upstream_bytes")),
        print::percent(saved("bytes"), bytes),
    );
    text += &format!(
        "cache     {} of {}, {}, {} in memory\n",
        render_size(number(status, "/cache/bytes")),
        render_size(number(status, "/cache/limit_bytes")),
        print::many(number(status, "/cache/entries"), "entry"),
        render_size(number(status, "/cache/memory_bytes")),
    );
    if let Some(why) = status.pointer("/cache/degraded").and_then(Value::as_str) {
        text += &format!("          DEGRADED: {why}\n");
    }
    if wide {
        text += &format!(
            "          {}, {} promised to fetches, {}\n",
            print::many(number(status, "/cache/partials"), "unfinished file"),
            render_size(number(status, "/cache/reserved_bytes")),
            print::many(number(status, "/cache/integrity_failures"), "damaged block"),
        );
        text += &traffic(status);
    }
    text += &documents(status);
    text += &upstreams(status);
    text += &catalogues(status, wide);
    if let Some(table) = fills_table(status) {
        text += "\n";
        text += &table;
    }
    text
}

/// How requests were answered, by result.
fn traffic(status: &Value) -> String {
    let (requests, bytes) = (sum(status, "/traffic/requests"), sum(status, "/traffic/bytes"));
    let mut table = Table::new(&["RESULT", "REQUESTS", "OF ALL", "BYTES", "OF ALL"], &[1, 2, 3, 4]);
    for (result, count) in
        status.pointer("/traffic/requests").and_then(Value::as_object).into_iter().flatten()
    {
        let (count, size) =
            (count.as_u64().unwrap_or(0), number(status, &format!("/traffic/bytes/{result}")));
        table.row(vec![
            result.clone(),
            count.to_string(),
            print::percent(count, requests),
            render_size(size),
            print::percent(size, bytes),
        ]);
    }
    if table.is_empty() { String::new() } else { format!("\n{}", table.render()) }
}

/// Where the first of a report's findings is, as ` (FILE:LINE:COLUMN)`; nothing where it does not say.
fn place(report: &str) -> String {
    let at = report.lines().find_map(|line| line.trim_start().strip_prefix("--> "));
    at.map(|at| format!(" ({})", at.trim())).unwrap_or_default()
}

/// Where the fleet's documents come from, and how they are.
fn documents(status: &Value) -> String {
    if status.get("control").is_none() {
        return String::new();
    }
    let source = print::printable(word(status, "/control/source"));
    let mut text = match status.pointer("/control/version").and_then(Value::as_u64) {
        None => format!("documents none yet, {} of {source}\n", word(status, "/control/role")),
        Some(version) => {
            let age = print::time(number(status, "/control/age_seconds"));
            format!("documents version {version}, {age} old, {} of {source}\n", word(status, "/control/role"))
        }
    };
    if let Some(why) = status.pointer("/control/trouble/detail").and_then(Value::as_str) {
        let (first, place) = (why.lines().next().unwrap_or_default(), place(why));
        let reason = word(status, "/control/trouble/reason").to_uppercase();
        text += &format!("          {reason}: {}{}\n", print::printable(first), print::printable(&place));
    }
    text
}

fn upstreams(status: &Value) -> String {
    let mut table = Table::new(&["UPSTREAM", "REPOSITORY", "STATE", "SPEED"], &[]);
    for row in status.get("upstreams").and_then(Value::as_array).into_iter().flatten() {
        let up = row.get("up") == Some(&Value::Bool(true));
        let failures = number(row, "/failures_in_a_row");
        let state = match (up, failures) {
            (true, 0) => "up".to_owned(),
            (true, failures) => format!("up, {} in a row", print::many(failures, "failure")),
            (false, failures) => format!("DOWN, {} in a row", print::many(failures, "failure")),
        };
        let speed = row.get("bytes_per_second").and_then(Value::as_u64);
        let speed = speed.map_or("-".to_owned(), |speed| format!("{}/s", render_size(speed)));
        table.row(vec![word(row, "/url").to_owned(), word(row, "/repository").to_owned(), state, speed]);
    }
    if table.is_empty() { String::new() } else { format!("\n{}", table.render()) }
}

fn catalogues(status: &Value, wide: bool) -> String {
    let heading =
        ["CATALOGUE", "REPOSITORY", "VERSION", "CONFIRMED", "STATE", "GENERATION", "FILES", "KEPT", "FROM"];
    let heading = heading.get(..if wide { 9 } else { 5 }).unwrap_or(&heading);
    let mut table = Table::new(heading, &[6, 7]);
    let mut troubles = String::new();
    for row in status.get("catalogues").and_then(Value::as_array).into_iter().flatten() {
        let age = row.get("age_seconds").and_then(Value::as_u64);
        let confirmed = age.map_or_else(|| "-".to_owned(), |age| format!("{age} s ago"));
        let version = word(row, "/version");
        let version = if version.is_empty() { word(row, "/generation") } else { version };
        let state = match (row.get("alarm") == Some(&Value::Bool(true)), word(row, "/trouble/reason")) {
            (false, "") if age.is_some() => "shown".to_owned(),
            (false, "") => "none".to_owned(),
            (true, "") => "TOO OLD".to_owned(),
            (true, why) => format!("TOO OLD: {why}"),
            (false, why) => format!("nothing newer: {why}"),
        };
        let names = [word(row, "/root"), word(row, "/repository"), version].map(str::to_owned);
        let mut cells: Vec<String> = names.into_iter().chain([confirmed, state]).collect();
        if wide {
            let count = |name: &str| {
                row.get(name).and_then(Value::as_u64).map_or("-".to_owned(), |it| it.to_string())
            };
            let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
            cells.extend([or_dash(word(row, "/generation")), count("files"), count("kept")]);
            cells.push(or_dash(word(row, "/upstream")));
            let detail = word(row, "/trouble/detail");
            if !detail.is_empty() {
                troubles +=
                    &format!("  {}: {}\n", print::printable(word(row, "/root")), print::printable(detail));
            }
        }
        table.row(cells);
    }
    if table.is_empty() { String::new() } else { format!("\n{}{troubles}", table.render()) }
}

fn fills_table(value: &Value) -> Option<String> {
    let mut table = Table::new(&["FETCHING", "BYTES", "OF", "DONE", "READERS"], &[1, 2, 3, 4]);
    for row in value.get("fills").and_then(Value::as_array).into_iter().flatten() {
        let (bytes, length) = (number(row, "/bytes"), row.get("length").and_then(Value::as_u64));
        table.row(vec![
            word(row, "/key").to_owned(),
            render_size(bytes),
            length.map_or("?".to_owned(), render_size),
            length.map_or("-".to_owned(), |length| print::percent(bytes, length)),
            number(row, "/readers").to_string(),
        ]);
    }
    (!table.is_empty()).then(|| table.render())
}

/// `waypost tail`
pub(super) async fn tail(args: &super::operate_args::TailArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let ask = crate::admin::api::TailAsk {
        misses: args.misses,
        errors: args.errors,
        pattern: args.pattern.clone(),
    };
    let path = super::client::query("/v1/tail", &ask);
    let json = global.wants_json();
    let each = |line: &str| -> anyhow::Result<()> {
        let text = if json { line.to_owned() } else { tail_line(line) };
        Ok(talk::data(&format!("{text}\n"))?)
    };
    Client::new(global)?.follow(&path, each).await?;
    Err(Failure::new(
        Exit::Unreachable,
        "the node has ended the stream",
        "it may have been stopped; try again",
    )
    .into())
}

/// Time, status, verdict, bytes, duration, who and what.
fn tail_line(line: &str) -> String {
    let Ok(row) = serde_json::from_str::<Value>(line) else { return print::printable(line) };
    if let Some(missed) = row.get("missed").and_then(Value::as_u64) {
        return format!("… {} more, too fast to show", print::many(missed, "request"));
    }
    let clock = word(&row, "/time").split(['T', '.']).nth(1).unwrap_or_default().to_owned();
    let complete = row.get("complete") != Some(&Value::Bool(false));
    let milliseconds = row.get("duration_ms").and_then(Value::as_f64).unwrap_or(0.0);
    print::printable(&format!(
        "{clock} {} {:<24} {:>10} {:>8.1} ms  {} {} {}{}",
        number(&row, "/status"),
        word(&row, "/verdict"),
        render_size(number(&row, "/bytes")),
        milliseconds,
        word(&row, "/client"),
        word(&row, "/method"),
        word(&row, "/target"),
        if complete { "" } else { "  (broken off)" },
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_keeps_documents_back_is_told_with_its_place() {
        let detail = "error[unknown]: there is no handler `brunch`\n --> fleet.toml:7:13\n  |\n7 | handlers = [\"brunch\"]\n";
        let control = |detail: &str| {
            let trouble = json!({ "reason": "invalid", "detail": detail });
            documents(
                &json!({ "control": { "role": "authority", "source": "docs", "version": 3, "trouble": trouble } }),
            )
        };
        let told = control(detail);
        assert!(
            told.ends_with("INVALID: error[unknown]: there is no handler `brunch` (fleet.toml:7:13)\n"),
            "{told}"
        );
        assert!(control("it cannot be read").ends_with("INVALID: it cannot be read\n"));
    }
}
