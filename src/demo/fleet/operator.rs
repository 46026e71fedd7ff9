//! The operator: types commands, as everybody can, and reads their JSON.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::node::command;

/// No command of the story takes longer, on the slowest of machines.
const PATIENCE: Duration = Duration::from_secs(60);

/// Somebody with access to one node's socket.
#[derive(Clone, Debug)]
pub(super) struct Operator {
    program: PathBuf,
    socket: PathBuf,
}

impl Operator {
    pub(super) fn at(program: &Path, socket: &Path) -> Self {
        Self { program: program.to_owned(), socket: socket.to_owned() }
    }

    /// Runs `waypost WORDS` and gives what it says.
    ///
    /// # Errors
    /// It failed; with what it said about that.
    pub(super) async fn ask(&self, words: &str) -> anyhow::Result<Value> {
        let mut command = command(&self.program);
        command.arg("-s").arg(&self.socket).args(["--json", "--no-input"]).args(words.split(' '));
        let output = tokio::time::timeout(PATIENCE, command.output());
        let output = output.await.with_context(|| format!("waypost {words}: no end"))??;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("waypost {words}: {}: {}", output.status, said.trim());
        }
        serde_json::from_slice(&output.stdout).with_context(|| format!("waypost {words}: no JSON"))
    }

    /// The agents that are not gone, as this node lists them.
    pub(super) async fn agents(&self) -> anyhow::Result<Vec<Row>> {
        let told = self.ask("fleet ls").await?;
        let rows = told.get("agents").and_then(Value::as_array).context("fleet ls lists nothing")?;
        Ok(rows.iter().map(Row::of).collect())
    }
}

/// A line of `waypost fleet ls`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) state: String,
    /// Since when it is in this state, in seconds since 1970.
    pub(super) since: u64,
    pub(super) handler: String,
    /// Whether it has not what it should have.
    pub(super) behind: bool,
}

impl Row {
    fn of(value: &Value) -> Self {
        let text = |key| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self {
            id: text("id"),
            state: text("state"),
            since: value.get("since").and_then(Value::as_u64).unwrap_or_default(),
            handler: text("handler"),
            behind: value.get("behind").and_then(Value::as_array).is_some_and(|all| !all.is_empty()),
        }
    }

    /// In contact, as far as this node knows.
    pub(super) fn is_there(&self) -> bool {
        ["connected", "reporting"].contains(&&*self.state)
    }
}
