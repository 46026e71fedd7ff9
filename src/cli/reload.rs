//! `waypost reload` and `waypost log`: changing a node while it runs.

use super::args::GlobalArgs;
use super::client::Client;
use super::exit::Exit;
use super::operate_args::{LogArgs, ReloadArgs};
use super::{print, talk};
use crate::admin::api::{Done, DryRun, LogAsk, Reloaded};

/// `waypost reload`
pub(super) async fn run(args: &ReloadArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let done: Reloaded = Client::new(global)?.post("/v1/reload", &DryRun { dry_run: args.dry_run }).await?;
    if !global.quiet {
        done.warnings.iter().for_each(|warning| talk::say(&format!("warning: {warning}")));
    }
    print::answer(global, &done, || {
        if global.quiet {
            return String::new();
        }
        let mut text = String::new();
        for change in &done.changes {
            let when = if change.restart { "  (waits for a restart)" } else { "" };
            text += &format!("{} {}{when}\n", change.how, change.what);
        }
        let waits = done.changes.iter().any(|change| change.restart);
        text + match (args.dry_run, done.changed, waits) {
            (true, true, _) => "this would be in force after a reload\n",
            (true, false, false) => "a reload would change nothing\n",
            (true, false, true) => "a reload would change nothing; a restart would\n",
            (false, true, false) => "in force\n",
            (false, true, true) => "in force, but for what waits for a restart\n",
            (false, false, false) => "nothing to do\n",
            (false, false, true) => "nothing is in force yet: it waits for a restart of the node\n",
        }
    })?;
    Ok(Exit::Done)
}

/// `waypost log`
pub(super) async fn log(args: &LogArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let done: Done = Client::new(global)?.post("/v1/log", &LogAsk { level: args.level.clone() }).await?;
    print::answer(global, &done, || {
        if global.quiet {
            String::new()
        } else {
            "until the next restart, or reload of another level\n".to_owned()
        }
    })?;
    Ok(Exit::Done)
}
