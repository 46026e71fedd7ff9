//! `waypost purge`: count, ask, purge.

use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::path::Path;

use super::args::GlobalArgs;
use super::client::Client;
use super::exit::{Exit, Failure};
use super::operate_args::PurgeArgs;
use super::{on, print, talk};
use crate::admin::api::{PurgeAsk, Reached};
use crate::base::size::render_size;

/// Bytes of a list of patterns.
const LIST_BYTES: u64 = 4 << 20;

/// Does it.
pub(super) async fn run(args: &PurgeArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let patterns = patterns(&args.patterns, args.from_file.as_deref())?;
    if patterns.is_empty() && !args.all && args.older_than.is_none() {
        let help = "name paths or patterns, such as '/Software/Current/**', or --all, or --older-than 30d";
        return Err(Failure::new(Exit::Usage, "nothing is named to be purged", help).into());
    }
    let everything = args.all || patterns.is_empty();
    let ask = PurgeAsk {
        patterns,
        all: args.all,
        soft: args.soft,
        older_than: args.older_than.map(|time| time.as_secs()),
        dry_run: args.dry_run,
    };
    if let Some(on) = &args.on {
        if args.dry_run {
            return Err(on::refuse("--dry-run").into());
        }
        if everything && !args.yes {
            confirm(global, &format!("would purge everything at {on}"))?;
        }
        return on::run("purge", (on, &ask), true, global).await;
    }
    let client = Client::new(global)?;
    if everything && !args.dry_run && !args.yes {
        let counted: Reached = client.post("/v1/purge", &PurgeAsk { dry_run: true, ..ask.clone() }).await?;
        if counted.changed || counted.entries > 0 {
            confirm(global, &sentence(&counted, args.soft, true))?;
        }
    }
    let reached: Reached = client.post("/v1/purge", &ask).await?;
    print::answer(global, &reached, || {
        let mut text = String::new();
        if args.dry_run {
            reached.first.iter().for_each(|key| text += &format!("{}\n", print::printable(key)));
            if reached.entries > reached.first.len() as u64 {
                text += "…\n";
            }
        }
        if !global.quiet {
            text += &format!("{}\n", sentence(&reached, args.soft, args.dry_run));
        }
        text
    })?;
    Ok(Exit::Done)
}

fn sentence(reached: &Reached, soft: bool, would: bool) -> String {
    let (entries, bytes) = (print::many(reached.entries, "entry"), render_size(reached.bytes));
    let fills = match reached.fills {
        0 => String::new(),
        fills => format!(", and {} under way", print::many(fills, "fetch").replace("fetchs", "fetches")),
    };
    match (reached.entries == 0 && reached.fills == 0, would, soft) {
        (true, _, _) => "nothing matches: nothing to do".to_owned(),
        (_, true, false) => format!("would purge {entries}, {bytes}"),
        (_, true, true) => format!("would set {entries} stale, {bytes}"),
        (_, false, false) => format!("purged {entries}, {bytes}{fills}"),
        (_, false, true) => format!("set {entries} stale, {bytes}{fills}"),
    }
}

/// Asks on a terminal. Elsewhere somebody has to have said `--yes`.
pub(super) fn confirm(global: &GlobalArgs, what: &str) -> Result<(), Failure> {
    if global.no_input || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        let help = "look first with -n, then say --yes";
        return Err(Failure::new(Exit::Usage, format!("{what}: this has to be confirmed"), help));
    }
    talk::ask(&format!("{what}. Go on? [y/N] "));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" if read.is_ok() => Ok(()),
        _ => Err(Failure::new(Exit::Failed, "left as it is", "")),
    }
}

/// Patterns of the command line and of a file: one a line, empty lines and those that begin with `#` left out.
pub(super) fn patterns(given: &[String], file: Option<&Path>) -> Result<Vec<String>, Failure> {
    let mut patterns = given.to_vec();
    let Some(file) = file else { return Ok(patterns) };
    let wrong = |why: String| {
        let help = "name a text file with one path or pattern a line, or - for stdin";
        Failure::new(Exit::Usage, format!("--from-file {}: {why}", file.display()), help)
    };
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().take(LIST_BYTES + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|it| it.take(LIST_BYTES + 1).read_to_string(&mut text))
    };
    if read.map_err(|error| wrong(error.to_string()))? as u64 > LIST_BYTES {
        return Err(wrong("is larger than 4 MiB".to_owned()));
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    patterns.extend(lines.map(str::to_owned));
    Ok(patterns)
}
