//! What this node is told to do by the nodes above it or by its own operator: taken once it is on disk, done in order,
//! and told what became of it until that is heard.

use std::pin::Pin;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::commands::{Command, Commands, Outcome, OutcomeState};
use super::disk::Disk;

const FILE: &str = "inbox.json";

/// Does what nodes can be told to do. The application is one.
pub trait Worker: Send + Sync + 'static {
    /// Does it; what came of it, or why not, in a few words.
    fn work(&self, kind: String, ask: Value) -> Work;
}

/// Something being done.
pub type Work = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

/// What has to survive a crash.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// Of the numbers of the node above.
    epoch: Option<String>,
    /// The last one taken.
    received: u64,
    /// Taken and not done.
    pending: Vec<Command>,
    /// Done, and not heard of above.
    outcomes: Vec<Outcome>,
}

/// The commands of this node.
#[derive(Debug)]
pub(super) struct Inbox {
    name: String,
    kept: Mutex<Kept>,
    disk: Disk,
    commands: Arc<Commands>,
    /// Whether there is a node above to be told.
    has_uplink: bool,
    more: Notify,
    told: watch::Sender<u64>,
}

/// What the node above is told.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct PollAsk {
    /// Of which numbers `received` is.
    pub epoch: Option<String>,
    /// All commands up to this one are taken.
    pub received: u64,
    /// What became of commands.
    pub outcomes: Vec<Outcome>,
    /// The nodes behind this one.
    pub below: Vec<String>,
}

/// What it answers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct PollAnswer {
    /// Of the numbers of the commands.
    pub epoch: Option<String>,
    /// What is to be done, in order.
    pub commands: Vec<Command>,
}

impl Inbox {
    /// With what was taken and not done when the node went down.
    pub(super) fn open(name: &str, disk: Disk, commands: Arc<Commands>, has_uplink: bool) -> Self {
        let kept: Kept = disk.value(FILE).unwrap_or_default();
        let told = watch::Sender::new(0);
        let name = name.to_owned();
        Self { name, kept: Mutex::new(kept), disk, commands, has_uplink, more: Notify::new(), told }
    }

    /// Takes what the node above has answered. Blocks.
    pub(super) fn take(&self, answer: PollAnswer, outcomes_heard: usize) {
        let mut mine = Vec::new();
        {
            let mut kept = self.kept.lock();
            let heard = outcomes_heard.min(kept.outcomes.len());
            kept.outcomes.drain(..heard);
            if kept.epoch != answer.epoch && answer.epoch.is_some() {
                kept.epoch.clone_from(&answer.epoch);
                kept.received = 0;
            }
            for command in answer.commands {
                if command.sequence > kept.received {
                    kept.received = command.sequence;
                    mine.push(command);
                }
            }
            for command in &mine {
                if command.to.contains(&self.name) {
                    kept.pending.push(command.clone());
                }
            }
            if heard > 0 || !mine.is_empty() {
                self.keep(&kept);
            }
        }
        for command in mine {
            self.pass_on(command);
        }
        self.more.notify_one();
    }

    /// Takes a command from this node's own operator. Blocks.
    pub(super) fn take_own(&self, command: Command) {
        if command.to.contains(&self.name) {
            let mut kept = self.kept.lock();
            kept.pending.push(command.clone());
            self.keep(&kept);
            self.more.notify_one();
        }
        self.pass_on(command);
    }

    /// Gives a command to those below that it is for.
    fn pass_on(&self, mut command: Command) {
        command.to.retain(|node| *node != self.name);
        if !command.to.is_empty() {
            self.hear(self.commands.give(&command));
        }
    }

    /// Hears what became of commands, here or below. Blocks.
    pub(super) fn hear(&self, outcomes: Vec<Outcome>) {
        let foreign: Vec<Outcome> = outcomes.into_iter().filter(|it| !self.commands.note(it)).collect();
        if foreign.is_empty() || !self.has_uplink {
            return;
        }
        let mut kept = self.kept.lock();
        kept.outcomes.extend(foreign);
        self.keep(&kept);
        drop(kept);
        self.told.send_modify(|count| *count += 1);
    }

    /// What to tell the node above.
    pub(super) fn ask(&self) -> PollAsk {
        let kept = self.kept.lock();
        PollAsk {
            epoch: kept.epoch.clone(),
            received: kept.received,
            outcomes: kept.outcomes.clone(),
            below: self.commands.nodes().into_iter().map(|(node, ..)| node).collect(),
        }
    }

    /// Hears when there is more to tell above.
    pub(super) fn told(&self) -> watch::Receiver<u64> {
        self.told.subscribe()
    }

    /// Does what comes in, in order; what takes long goes on beside what follows. Ends never.
    pub(super) async fn work(self: Arc<Self>, worker: Arc<dyn Worker>) {
        let mut begun: Vec<String> = Vec::new();
        let mut beside = JoinSet::new();
        loop {
            let next = self.kept.lock().pending.iter().find(|command| !begun.contains(&command.id)).cloned();
            let Some(command) = next else {
                tokio::select! {
                    () = self.more.notified() => {}
                    Some(done) = beside.join_next() => {
                        if let Ok((command, result)) = done {
                            self.finish(&mut begun, command, result).await;
                        }
                    }
                }
                continue;
            };
            begun.push(command.id.clone());
            let work = self.begin(&worker, &command);
            if command.kind == "warm" {
                beside.spawn(async move {
                    let result = work.await;
                    (command, result)
                });
            } else {
                let result = work.await;
                self.finish(&mut begun, command, result).await;
            }
        }
    }

    fn begin(&self, worker: &Arc<dyn Worker>, command: &Command) -> Work {
        tracing::info!(id = command.id, kind = command.kind, "told to act by the fleet");
        worker.work(command.kind.clone(), command.ask.clone())
    }

    async fn finish(
        self: &Arc<Self>,
        begun: &mut Vec<String>,
        command: Command,
        result: Result<String, String>,
    ) {
        begun.retain(|id| *id != command.id);
        let outcome = match result {
            Ok(text) => command.outcome(&self.name, OutcomeState::Done, &text),
            Err(text) => command.outcome(&self.name, OutcomeState::Failed, &text),
        };
        let this = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            // What became of it first: a crash in between does it twice rather than losing the word.
            this.hear(vec![outcome]);
            let mut kept = this.kept.lock();
            kept.pending.retain(|it| it.id != command.id);
            this.keep(&kept);
        });
        let _ = done.await;
    }

    fn keep(&self, kept: &Kept) {
        if let Err(error) = self.disk.keep(FILE, kept) {
            tracing::error!(%error, "cannot write what this node is told to do");
        }
    }
}
