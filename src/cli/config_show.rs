//! `waypost config show` and `schema`: what is in force, and what could be.

use serde_json::{Value, json};

use super::args::{ConfigShowArgs, GlobalArgs};
use super::exit::Exit;
use super::{print, talk};
use crate::config::{self, Origin, Shown};

/// `waypost config show`
pub(super) fn show(args: &ConfigShowArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let shown = match config::show(&global.config) {
        Ok(shown) => shown,
        Err(found) => {
            talk::show(&found);
            return Ok(Exit::ConfigInvalid);
        }
    };
    let wanted = |shown: &&Shown| args.effective || matches!(shown.origin, Origin::Line(_));
    let shown: Vec<&Shown> = shown.iter().filter(wanted).collect();
    let rows: Vec<Value> = shown.iter().map(|it| row(it)).collect();
    let whole = json!({ "schema": 1, "file": global.config.display().to_string(), "keys": rows });
    print::list(global, (&whole, &rows), || toml(&shown, args.origin, &global.config.display().to_string()))?;
    Ok(Exit::Done)
}

fn row(shown: &Shown) -> Value {
    let line = match shown.origin {
        Origin::Line(line) => Some(line),
        Origin::Default => None,
    };
    json!({ "key": shown.place, "value": shown.value, "line": line })
}

/// TOML again, so that it can be used as it is printed.
fn toml(shown: &[&Shown], origin: bool, file: &str) -> String {
    let mut text = String::new();
    let mut at = String::new();
    for it in shown {
        let table = it.place.strip_suffix(it.key.as_str()).unwrap_or_default();
        if table != at {
            let gap = if at.is_empty() { "" } else { "\n" };
            text += &format!("{gap}{}\n", it.table);
            table.clone_into(&mut at);
        }
        let from = match (origin, it.origin) {
            (false, _) => String::new(),
            (true, Origin::Line(line)) => format!("  # {file}:{line}"),
            (true, Origin::Default) => "  # default".to_owned(),
        };
        text += &format!("{} = {}{from}\n", it.key, it.value);
    }
    text
}

/// `waypost config schema`
pub(super) fn schema() -> anyhow::Result<Exit> {
    talk::data(&(serde_json::to_string_pretty(&config::schema())? + "\n"))?;
    Ok(Exit::Done)
}
