//! What this node is told to do by the nodes above it or by its own operator: taken once it is on disk, done in order,
//! and told what became of it until that is heard.

use std::io;
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

    /// Takes what the node above has answered; false where the disk does not, and nothing is taken then: the node above
    /// offers it again. Blocks.
    pub(super) fn take(&self, answer: PollAnswer, outcomes_heard: usize) -> bool {
        let renumbered = |kept: &Kept| kept.epoch != answer.epoch && answer.epoch.is_some();
        let received = {
            let kept = self.kept.lock();
            if renumbered(&kept) { 0 } else { kept.received }
        };
        let mine: Vec<Command> = answer.commands.into_iter().filter(|it| it.sequence > received).collect();
        // Passed on before it counts as taken: a crash in between passes it on twice rather than never.
        let refused: Vec<Outcome> = mine.iter().flat_map(|command| self.pass_on(command)).collect();
        {
            let mut kept = self.kept.lock();
            let mut next = kept.clone();
            let heard = outcomes_heard.min(next.outcomes.len());
            next.outcomes.drain(..heard);
            if renumbered(&next) {
                next.epoch.clone_from(&answer.epoch);
                next.received = 0;
            }
            next.received = mine.iter().map(|command| command.sequence).fold(next.received, u64::max);
            let is_news = heard > 0 || !mine.is_empty();
            next.outcomes.extend(refused);
            next.pending.extend(mine.into_iter().filter(|command| command.to.contains(&self.name)));
            if is_news && self.keep(&next).is_err() {
                return false;
            }
            *kept = next;
        }
        self.more.notify_one();
        true
    }

    /// Takes a command from this node's own operator. Blocks.
    pub(super) fn take_own(&self, command: &Command) {
        let mut refused = self.pass_on(command);
        if command.to.contains(&self.name) {
            let mut kept = self.kept.lock();
            let mut next = kept.clone();
            next.pending.push(command.clone());
            match self.keep(&next) {
                Ok(()) => *kept = next,
                Err(error) => {
                    let why = format!("cannot be written to disk: {error}");
                    refused.push(command.outcome(&self.name, OutcomeState::Failed, &why));
                }
            }
        }
        self.hear(refused);
        self.more.notify_one();
    }

    /// Gives a command to those below that it is for; what cannot wait for them.
    fn pass_on(&self, command: &Command) -> Vec<Outcome> {
        let mut command = command.clone();
        command.to.retain(|node| *node != self.name);
        if command.to.is_empty() { Vec::new() } else { self.commands.give(&command) }
    }

    /// Hears what became of commands, here or below. Blocks.
    pub(super) fn hear(&self, outcomes: Vec<Outcome>) {
        let foreign: Vec<Outcome> = outcomes.into_iter().filter(|it| !self.commands.note(it)).collect();
        if foreign.is_empty() || !self.has_uplink {
            return;
        }
        let mut kept = self.kept.lock();
        kept.outcomes.extend(foreign);
        // Told from memory where the disk does not take it; a crash does the command again.
        let _ = self.keep(&kept);
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
            let _ = this.keep(&kept);
        });
        let _ = done.await;
    }

    fn keep(&self, kept: &Kept) -> io::Result<()> {
        self.disk.keep(FILE, kept).inspect_err(|error| {
            tracing::error!(%error, "cannot write what this node is told to do");
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::base::clock::{Clock, Timestamp};

    fn inbox(dir: &Path) -> Inbox {
        let disk = Disk::open(dir).unwrap();
        let queues = disk.below("queue").unwrap();
        let commands = Arc::new(Commands::open(queues, Clock::manual(Timestamp(1_000))));
        Inbox::open("region", disk, commands, true)
    }

    fn told(sequence: u64, to: &[&str]) -> PollAnswer {
        let to = to.iter().map(|node| (*node).to_owned()).collect();
        let command = Command { sequence, ..Command::new("purge", json!({}), to, Timestamp(10_000)) };
        PollAnswer { epoch: Some("one".to_owned()), commands: vec![command] }
    }

    /// It was called taken, done from memory, and forgotten by the next crash.
    #[test]
    fn a_command_that_cannot_be_written_is_not_taken_and_is_taken_when_it_comes_again() {
        let dir = tempfile::tempdir().unwrap();
        let inbox = inbox(dir.path());
        let in_the_way = dir.path().join("control/.inbox.json.new");
        fs::create_dir(&in_the_way).unwrap();
        assert!(!inbox.take(told(1, &["region"]), 0));
        assert_eq!((inbox.ask().received, inbox.kept.lock().pending.len()), (0, 0));
        fs::remove_dir(&in_the_way).unwrap();
        assert!(inbox.take(told(1, &["region"]), 0));
        assert!(inbox.take(told(1, &["region"]), 0), "again");
        assert_eq!((inbox.ask().received, inbox.kept.lock().pending.len()), (1, 1));
    }

    /// Its number was on disk before what waits for the node below: a crash in between lost it.
    #[test]
    fn a_command_for_a_node_below_waits_for_it_before_it_counts_as_taken() {
        let dir = tempfile::tempdir().unwrap();
        let inbox = inbox(dir.path());
        fs::create_dir(dir.path().join("control/.inbox.json.new")).unwrap();
        assert!(!inbox.take(told(1, &["branch"]), 0));
        assert_eq!(inbox.commands.waiting("branch").1.len(), 1);
        assert!(!inbox.take(told(1, &["branch"]), 0), "another one by its name");
        assert_eq!(inbox.commands.waiting("branch").1.len(), 2);
        let again = told(1, &["branch"]);
        for _ in 0..3 {
            assert!(!inbox.take(again.clone(), 0));
        }
        assert_eq!(inbox.commands.waiting("branch").1.len(), 3, "the same one waits once");
    }

    #[test]
    fn what_an_operator_wants_of_a_node_that_cannot_write_it_has_failed() {
        let dir = tempfile::tempdir().unwrap();
        let inbox = inbox(dir.path());
        fs::create_dir(dir.path().join("control/.inbox.json.new")).unwrap();
        let command = Command::new("purge", json!({}), vec!["region".to_owned()], Timestamp(10_000));
        inbox.commands.begin(&command.id, "purge", &command.to);
        inbox.take_own(&command);
        let order = inbox.commands.order(&command.id).unwrap();
        assert_eq!(order.nodes[0].state, OutcomeState::Failed);
        assert!(inbox.kept.lock().pending.is_empty());
    }
}
