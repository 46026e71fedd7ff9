//! `waypost config check`: all problems of a file in one run.

use super::args::{ConfigCheckArgs, GlobalArgs};
use super::exit::Exit;
use super::{policy, talk};
use crate::config::{self, CheckedConfig, ControlSource, Diagnostics};
use crate::fleet::Compiled;

/// Checks the file of `args`, or else that of `--config`, and the documents that it names. Wrong documents do not make a
/// configuration invalid: the node starts, and serves those it had.
pub(super) fn run(args: &ConfigCheckArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let path = args.file.as_deref().unwrap_or(&global.config);
    let loaded = config::load(path);
    let documents = loaded.as_ref().ok().and_then(|(config, _)| documents(config));
    let right = loaded.is_ok();
    let found = match loaded {
        Ok((_, found)) | Err(found) => found,
    };
    let quiet = found.is_empty() && documents.as_ref().is_none_or(Documents::are_well);
    let valid = right && (quiet || !args.deny_warnings);
    if global.wants_json() {
        talk::data(&json(valid, &found, documents.as_ref())?)?;
    } else {
        talk::show(&found);
        if let Some(documents) = &documents {
            documents.show();
        }
        if valid && !global.quiet {
            talk::data(&format!("{}: configuration is valid\n", path.display()))?;
        }
    }
    Ok(if valid { Exit::Done } else { Exit::ConfigInvalid })
}

/// What the `[control] directory` of a configuration holds.
struct Documents {
    directory: String,
    compiled: Result<Compiled, String>,
}

/// The documents of an authority.
fn documents(config: &CheckedConfig) -> Option<Documents> {
    let ControlSource::Directory(directory) = &config.control.as_ref()?.source else { return None };
    let compiled = policy::compile(directory).map_err(|error| format!("{error:#}"));
    Some(Documents { directory: directory.display().to_string(), compiled })
}

impl Documents {
    fn are_well(&self) -> bool {
        self.compiled.as_ref().is_ok_and(|compiled| compiled.problems.is_empty())
    }

    fn show(&self) {
        let wrong = match &self.compiled {
            Ok(compiled) => {
                policy::show(compiled);
                compiled.fleet.is_none()
            }
            Err(error) => {
                talk::say(error);
                true
            }
        };
        if wrong {
            talk::say(&format!(
                "warning: the documents in {} cannot come into force; the last good ones serve",
                self.directory
            ));
        }
    }

    fn json(&self) -> serde_json::Value {
        let compiled = self.compiled.as_ref().ok();
        serde_json::json!({
            "directory": self.directory,
            "valid": compiled.is_some_and(|it| it.fleet.is_some()),
            "error": self.compiled.as_ref().err(),
            "diagnostics": compiled.map(|it| &it.problems),
        })
    }
}

fn json(valid: bool, found: &Diagnostics, documents: Option<&Documents>) -> serde_json::Result<String> {
    let answer = serde_json::json!({
        "schema": 1,
        "file": found.file(),
        "valid": valid,
        "errors": found.errors(),
        "warnings": found.warnings(),
        "diagnostics": found.to_json(),
        "documents": documents.map(Documents::json),
    });
    serde_json::to_string_pretty(&answer).map(|text| text + "\n")
}
