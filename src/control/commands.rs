//! Commands to nodes: kept on disk for each node until it has taken them, in order, and what became of each.
//!
//! A node further down is reached through the one below that says it is behind it. One lock, held for memory and one
//! small file; everything here blocks for that file and is called aside from the runtime's threads.

use std::collections::{BTreeMap, HashMap, VecDeque};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use super::disk::Disk;
use crate::base::clock::{Clock, Timestamp};
use crate::base::limits::{COMMAND_HOPS, COMMANDS, NODES_BELOW, ORDERS};
use crate::protocol::caller::is_node_name;

/// Something a node is to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Its place in the order of the node that it is given to.
    #[serde(default)]
    pub sequence: u64,
    /// What names it everywhere.
    pub id: String,
    /// The nodes that are to do it: the one that gets it, or those behind it.
    pub to: Vec<String>,
    /// `purge`, `warm`, `wake`, `forget`.
    pub kind: String,
    /// What exactly.
    pub ask: Value,
    /// Not done after this moment, milliseconds since 1970.
    pub expires: u64,
    /// Nodes it may still be passed on by.
    pub hops: u8,
}

/// What became of a command at a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The command.
    pub id: String,
    /// The node.
    pub node: String,
    /// How it went.
    pub state: OutcomeState,
    /// In words.
    pub text: String,
}

/// How a command went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutcomeState {
    /// The node has not said anything yet.
    Waiting,
    /// Done, or there was nothing to do.
    Done,
    /// The node could not.
    Failed,
    /// The node did not come for it in time.
    Expired,
}

/// What was given here, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Order {
    /// What names it.
    pub id: String,
    /// What it is.
    pub kind: String,
    /// When it was given, milliseconds since 1970.
    pub given: u64,
    /// Each node, by name.
    pub nodes: Vec<Outcome>,
}

/// The commands that wait for one node.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Queue {
    /// Changes when numbers begin again, so that a node does not take new commands for old ones.
    epoch: String,
    last: u64,
    commands: VecDeque<Command>,
}

#[derive(Debug, Default)]
struct State {
    queues: HashMap<String, Queue>,
    /// When each node last asked.
    seen: BTreeMap<String, Timestamp>,
    /// Nodes further down, and the one that they are behind.
    via: BTreeMap<String, String>,
    orders: VecDeque<Order>,
}

/// All commands that were given here or are passed on.
#[derive(Debug)]
pub(super) struct Commands {
    state: Mutex<State>,
    disk: Disk,
    clock: Clock,
    news: watch::Sender<u64>,
}

impl Commands {
    /// With what waited when the node went down.
    pub(super) fn open(disk: Disk, clock: Clock) -> Self {
        let mut state = State::default();
        for file in disk.names() {
            let Some(node) = file.strip_suffix(".json").filter(|name| is_node_name(name)) else { continue };
            if let Some(queue) = disk.value(&file) {
                state.queues.insert(node.to_owned(), queue);
            }
        }
        Self { state: Mutex::new(state), disk, clock, news: watch::Sender::new(0) }
    }

    /// Remembers an order for these nodes.
    pub(super) fn begin(&self, id: &str, kind: &str, nodes: &[String]) {
        let waiting = |node: &String| Outcome {
            id: id.to_owned(),
            node: node.clone(),
            state: OutcomeState::Waiting,
            text: String::new(),
        };
        let given = self.clock.now().0;
        let order = Order {
            id: id.to_owned(),
            kind: kind.to_owned(),
            given,
            nodes: nodes.iter().map(waiting).collect(),
        };
        let mut state = self.state.lock();
        state.orders.push_back(order);
        while state.orders.len() > ORDERS {
            state.orders.pop_front();
        }
    }

    /// Has a command wait for those of its nodes that are not this one; gives back what cannot wait.
    pub(super) fn give(&self, command: &Command) -> Vec<Outcome> {
        let mut refused = Vec::new();
        let mut state = self.state.lock();
        let mut hops: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for node in &command.to {
            let hop = state.via.get(node).unwrap_or(node).clone();
            hops.entry(hop).or_default().push(node.clone());
        }
        for (hop, to) in hops {
            let failed = |why: &str| -> Vec<Outcome> {
                to.iter().map(|node| command.outcome(node, OutcomeState::Failed, why)).collect()
            };
            let Some(hops) = command.hops.checked_sub(1) else {
                refused.extend(failed("it went in a circle"));
                continue;
            };
            let queue = state.queues.entry(hop.clone()).or_insert_with(Queue::new);
            // Given again by a node above that did not hear that it was taken.
            if queue.commands.iter().any(|it| it.id == command.id && it.to == to) {
                continue;
            }
            if queue.commands.len() >= COMMANDS {
                refused.extend(failed("too many commands wait for it already"));
                continue;
            }
            queue.last += 1;
            let sequence = queue.last;
            queue.commands.push_back(Command { sequence, to: to.clone(), hops, ..command.clone() });
            if let Err(error) = self.disk.keep(&format!("{hop}.json"), queue) {
                queue.commands.pop_back();
                refused.extend(failed(&format!("cannot be written to disk: {error}")));
            }
        }
        drop(state);
        self.wake();
        refused
    }

    /// A node asks: it has taken all up to `received` of this epoch, and these nodes are behind it.
    pub(super) fn heard(&self, node: &str, epoch: Option<&str>, received: u64, below: &[String]) {
        let mut moved = Vec::new();
        {
            let mut state = self.state.lock();
            let is_new = state.seen.insert(node.to_owned(), self.clock.now()).is_none();
            state.via.remove(node);
            for name in below.iter().filter(|name| is_node_name(name) && *name != node) {
                let full = state.via.len() >= NODES_BELOW && !state.via.contains_key(name);
                if !full && !state.seen.contains_key(name) {
                    let before = state.via.insert(name.clone(), node.to_owned());
                    if before.as_deref() != Some(node) {
                        // What waited for it elsewhere goes that way.
                        moved.extend(state.queues.remove(name).map(|queue| (name.clone(), queue)));
                    }
                }
            }
            if let Some(queue) = state.queues.get_mut(node) {
                let taken = epoch == Some(queue.epoch.as_str());
                let before = queue.commands.len();
                queue.commands.retain(|command| !taken || command.sequence > received);
                if queue.commands.len() != before
                    && let Err(error) = self.disk.keep(&format!("{node}.json"), queue)
                {
                    // It is offered again after a restart; the node knows that it has it.
                    tracing::error!(node, %error, "cannot write what waits for a node");
                }
            }
            if is_new {
                drop(state);
                self.wake();
            }
        }
        for (name, queue) in moved {
            for command in queue.commands {
                self.give(&command);
            }
            let empty = Queue::new();
            let _ = self.disk.keep(&format!("{name}.json"), &empty);
        }
    }

    /// What waits for a node, with the epoch of its numbers.
    pub(super) fn waiting(&self, node: &str) -> (Option<String>, Vec<Command>) {
        let state = self.state.lock();
        state.queues.get(node).map_or((None, Vec::new()), |queue| {
            (Some(queue.epoch.clone()), queue.commands.iter().cloned().collect())
        })
    }

    /// Takes away what nobody came for in time; what became of it.
    pub(super) fn expire(&self) -> Vec<Outcome> {
        let now = self.clock.now().0;
        let mut state = self.state.lock();
        let mut expired = Vec::new();
        for (node, queue) in &mut state.queues {
            let (late, rest): (VecDeque<_>, VecDeque<_>) =
                queue.commands.drain(..).partition(|command| command.expires <= now);
            queue.commands = rest;
            if late.is_empty() {
                continue;
            }
            for command in late {
                let text = "it was away too long";
                expired.extend(command.to.iter().map(|to| command.outcome(to, OutcomeState::Expired, text)));
            }
            if let Err(error) = self.disk.keep(&format!("{node}.json"), queue) {
                tracing::error!(node, %error, "cannot write what waits for a node");
            }
        }
        expired
    }

    /// Notes what became of a command that was given here; whether it was.
    pub(super) fn note(&self, outcome: &Outcome) -> bool {
        let mut state = self.state.lock();
        let Some(order) = state.orders.iter_mut().find(|order| order.id == outcome.id) else { return false };
        if let Some(node) = order.nodes.iter_mut().find(|node| node.node == outcome.node) {
            *node = outcome.clone();
        }
        true
    }

    /// An order that was given here.
    pub(super) fn order(&self, id: &str) -> Option<Order> {
        self.state.lock().orders.iter().find(|order| order.id == id).cloned()
    }

    /// The nodes that have asked since the start, with the time, those behind them, and those that something waits for.
    pub(super) fn nodes(&self) -> Vec<(String, Option<Timestamp>, usize)> {
        let state = self.state.lock();
        let waiting = |node: &String| state.queues.get(node).map_or(0, |queue| queue.commands.len());
        let near = state.seen.iter().map(|(node, at)| (node.clone(), Some(*at), waiting(node)));
        let far = state.via.keys().map(|node| (node.clone(), None, waiting(node)));
        let known = |node: &String| state.seen.contains_key(node) || state.via.contains_key(node);
        let away = state.queues.iter().filter(|(node, queue)| !known(node) && !queue.commands.is_empty());
        let away = away.map(|(node, queue)| (node.clone(), None, queue.commands.len()));
        near.chain(far).chain(away).collect()
    }

    /// Whether a node is known here.
    pub(super) fn knows(&self, node: &str) -> bool {
        let state = self.state.lock();
        state.seen.contains_key(node) || state.via.contains_key(node)
    }

    /// Hears when anything new waits, or a node is new.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    fn wake(&self) {
        self.news.send_modify(|count| *count += 1);
    }
}

impl Queue {
    fn new() -> Self {
        Self { epoch: random_id(), last: 0, commands: VecDeque::new() }
    }
}

impl Command {
    /// A command from here, with a name of its own.
    pub fn new(kind: &str, ask: Value, to: Vec<String>, expires: Timestamp) -> Self {
        let id = random_id();
        Self { sequence: 0, id, to, kind: kind.to_owned(), ask, expires: expires.0, hops: COMMAND_HOPS }
    }

    /// What became of it at a node.
    pub fn outcome(&self, node: &str, state: OutcomeState, text: &str) -> Outcome {
        Outcome { id: self.id.clone(), node: node.to_owned(), state, text: text.to_owned() }
    }
}

/// Sixteen hexadecimal digits that nobody else has.
fn random_id() -> String {
    let mut bytes = [0; 8];
    // Without randomness two orders may have one name; nothing worse than a mixed-up answer comes of it.
    let _ = getrandom::fill(&mut bytes);
    format!("{:016x}", u64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn commands(dir: &std::path::Path) -> (Commands, Clock) {
        let clock = Clock::manual(Timestamp(1_000));
        let disk = Disk::open(dir).unwrap().below("queue").unwrap();
        (Commands::open(disk, clock.clone()), clock)
    }

    fn purge(to: &[&str]) -> Command {
        let to = to.iter().map(|node| (*node).to_owned()).collect();
        Command::new("purge", json!({ "all": true }), to, Timestamp(10_000))
    }

    fn ids(waiting: &(Option<String>, Vec<Command>)) -> Vec<(u64, &str)> {
        waiting.1.iter().map(|it| (it.sequence, it.id.as_str())).collect()
    }

    #[test]
    fn what_waits_for_a_node_survives_and_goes_in_order_until_it_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let (commands_, _) = commands(dir.path());
        let (one, two) = (purge(&["a", "b"]), purge(&["a"]));
        assert_eq!((commands_.give(&one), commands_.give(&two)), (vec![], vec![]));
        drop(commands_);
        let (again, _) = commands(dir.path());
        // Nobody has asked since, and operators see that something waits.
        let mut seen = again.nodes();
        seen.sort();
        assert_eq!(seen, [("a".to_owned(), None, 2), ("b".to_owned(), None, 1)]);
        let waiting = again.waiting("a");
        assert_eq!(ids(&waiting), [(1, one.id.as_str()), (2, two.id.as_str())]);
        again.heard("a", Some("another life"), 2, &[]);
        assert_eq!(again.waiting("a").1.len(), 2);
        again.heard("a", waiting.0.as_deref(), 1, &[]);
        assert_eq!(ids(&again.waiting("a")), [(2, two.id.as_str())]);
        again.heard("a", waiting.0.as_deref(), 2, &[]);
        assert_eq!((again.waiting("a").1.len(), again.waiting("b").1.len()), (0, 1));
    }

    #[test]
    fn a_node_further_down_is_reached_through_the_one_it_is_behind() {
        let dir = tempfile::tempdir().unwrap();
        let (commands, _) = commands(dir.path());
        let early = purge(&["branch"]);
        commands.give(&early);
        commands.heard("region", None, 0, &["branch".to_owned()]);
        let late = purge(&["region", "branch"]);
        commands.give(&late);
        assert_eq!(commands.waiting("branch").1.len(), 0);
        let (_, waiting) = commands.waiting("region");
        let to: Vec<_> = waiting.iter().map(|it| it.to.clone()).collect();
        assert_eq!(to, [vec!["branch"], vec!["region", "branch"]]);
        assert!(commands.knows("branch") && !commands.knows("other"));
        // It comes by itself now.
        commands.heard("branch", None, 0, &[]);
        commands.give(&purge(&["branch"]));
        assert_eq!(commands.waiting("branch").1.len(), 1);
    }

    #[test]
    fn what_nobody_comes_for_ends_and_too_much_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (commands, clock) = commands(dir.path());
        let command = purge(&["a"]);
        commands.begin(&command.id, "purge", &command.to);
        commands.give(&command);
        assert_eq!(commands.expire(), []);
        clock.advance(std::time::Duration::from_secs(60));
        let expired = commands.expire();
        assert_eq!(expired[0].state, OutcomeState::Expired);
        assert!(commands.note(&expired[0]));
        assert_eq!(commands.order(&command.id).unwrap().nodes, expired);
        let circle = Command { hops: 0, ..purge(&["a"]) };
        assert_eq!(commands.give(&circle)[0].state, OutcomeState::Failed);
    }
}
