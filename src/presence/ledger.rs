//! What has to survive this process: agents, wake-ups, what the node above has not heard yet. In redb.
//!
//! One thread does all of it. Whatever waits when it begins a commit goes into that commit, so a thousand check-ins a
//! second share a few dozen syncs. The spool towards the node above has no rows of its own: it is the order in which
//! agents have changed since they were last acknowledged, so it is never longer than the table of agents, and an
//! agent that changes twice while the WAN is down is told once, as it is then, with the count of its check-ins.

use std::collections::HashSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use redb::{
    Builder, Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, Table,
    TableDefinition, WriteTransaction,
};
use tokio::sync::{mpsc, oneshot};

use super::AgentId;
use super::agent::Agent;
use crate::base::crash::{Step, reach};

/// id → agent as JSON, behind its version
const AGENTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("agents");
/// number → id: who has changed, in this order
const CHANGED: TableDefinition<'_, u64, &str> = TableDefinition::new("changed");
/// id → its number in `changed`
const PLACES: TableDefinition<'_, &str, u64> = TableDefinition::new("places");
/// number → wake-up as JSON
const WAKES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("wakes");
/// node below → (its spool, the last number taken from it)
const NODES: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("nodes");
/// id → the node it talked to, or nothing: forgotten, and the node above does not know
const FORGOTTEN: TableDefinition<'_, &str, &str> = TableDefinition::new("forgotten");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The layout of these tables.
const SCHEMA: u64 = 1;
/// The version of a row's JSON.
const ROW: u8 = 1;
const FILE: &str = "agents.redb";
/// Bytes of pages kept in memory: all agents are in memory anyway.
const PAGE_CACHE: usize = 8 << 20;
/// Changes that may wait for the disk. A check-in beyond it is told to come again.
const WAITING: usize = 8_192;
/// Bytes of agents after which a report is full.
const REPORT_BYTES: usize = 1 << 20;
/// Between two attempts on a disk that refuses.
const AGAIN: Duration = Duration::from_millis(500);
/// Changes in one commit.
const BATCH: usize = 2_048;

/// A change.
#[derive(Clone, Debug)]
pub(super) enum Row {
    /// An agent as it is now.
    Agent(Box<Agent>),
    /// It is forgotten, and nobody has to be told.
    Forget(AgentId),
    /// It is forgotten while it talked to the node of this name, or to this one, and the node above is told.
    Forgotten(AgentId, Option<String>),
    /// A wake-up as it is now.
    Wake(u64, Vec<u8>),
    /// It is over, and told.
    WakeOver(u64),
    /// Everything up to this number has been acknowledged above.
    Told(u64),
    /// A node below has been heard: its spool, and the number.
    Heard(String, u64, u64),
}

/// What the ledger could not do.
#[derive(Debug, thiserror::Error)]
pub(super) enum LedgerError {
    /// More waits for the disk than may.
    #[error("too much waits for the disk")]
    Busy,
    /// The disk refused, or the thread is gone.
    #[error("the agents' state could not be written: {0}")]
    Failed(String),
}

/// Why it does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or the file.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// A later release wrote it.
    #[error("{} was written by a later release (format {found})", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// What the database says of it.
    #[error("{}: {why}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// Its words.
        why: String,
    },
}

/// What is not acknowledged above yet.
#[derive(Debug, Default)]
pub(super) struct Spooled {
    /// The spool: another one after the file was lost.
    pub(super) spool: u64,
    /// The number of the last one here.
    pub(super) last: u64,
    /// All that wait, these included.
    pub(super) waiting: u64,
    pub(super) agents: Vec<Agent>,
    /// Agents that were forgotten, and the nodes they talked to where it was not this one.
    pub(super) forgotten: Vec<(AgentId, Option<String>)>,
}

/// What was there at the start.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) agents: Vec<Agent>,
    pub(super) wakes: Vec<Vec<u8>>,
    pub(super) nodes: Vec<(String, (u64, u64))>,
}

enum Job {
    Write(Vec<Row>, Option<oneshot::Sender<Result<(), String>>>),
    Spooled(usize, oneshot::Sender<Result<Spooled, String>>),
}

/// The thread, and the way to it. Dropping it waits for what was given to it.
#[derive(Debug)]
pub(super) struct Ledger {
    /// None once it is closed.
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Ledger {
    /// Opens the file in `dir`, or makes it. A damaged one is set aside: agents check in again.
    pub(super) fn open(dir: &Path) -> Result<(Self, Found), OpenError> {
        std::fs::create_dir_all(dir).map_err(|error| OpenError::Io { path: dir.to_path_buf(), error })?;
        let path = dir.join(FILE);
        let (db, found) = match open(&path) {
            Err(OpenError::Database { why, .. }) => {
                tracing::error!(%why, file = %path.display(), "the agents' state is damaged: set aside");
                let aside = path.with_extension("damaged");
                std::fs::rename(&path, &aside).map_err(|error| OpenError::Io { path: aside, error })?;
                open(&path)?
            }
            other => other?,
        };
        let (jobs, queue) = mpsc::channel(WAITING);
        let start = std::thread::Builder::new().name("agents".into());
        let thread = start
            .spawn(move || Writer { path, db: Some(db), late: Vec::new() }.run(queue))
            .map_err(|error| OpenError::Io { path: dir.to_path_buf(), error })?;
        Ok((Self { jobs: Mutex::new(Some(jobs)), thread: Mutex::new(Some(thread)) }, found))
    }

    /// Has rows written; they are durable when what is returned says so. Rows are written in the order of these
    /// calls.
    pub(super) fn write(&self, rows: Vec<Row>) -> Result<Durable, LedgerError> {
        let (done, wait) = oneshot::channel();
        self.send(Job::Write(rows, Some(done)))?;
        Ok(Durable(wait))
    }

    /// Writes rows some time soon; false where too much waits already.
    pub(super) fn post(&self, rows: Vec<Row>) -> bool {
        rows.is_empty() || self.send(Job::Write(rows, None)).is_ok()
    }

    /// Up to `most` agents that have changed, the longest ago first.
    pub(super) async fn spooled(&self, most: usize) -> Result<Spooled, LedgerError> {
        let (done, wait) = oneshot::channel();
        self.send(Job::Spooled(most, done))?;
        answer(wait).await
    }

    /// Waits until all that was given to it is written, and lets go of the file. Blocks.
    pub(super) fn close(&self) {
        self.jobs.lock().take();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }

    fn send(&self, job: Job) -> Result<(), LedgerError> {
        let jobs = self.jobs.lock();
        let Some(jobs) = &*jobs else { return Err(LedgerError::Failed("it is closed".to_owned())) };
        jobs.try_send(job).map_err(|_| LedgerError::Busy)
    }
}

/// Rows on their way to the disk.
#[derive(Debug)]
#[must_use]
pub(super) struct Durable(oneshot::Receiver<Result<(), String>>);

impl Durable {
    /// Returns when they are there.
    pub(super) async fn wait(self) -> Result<(), LedgerError> {
        answer(self.0).await
    }
}

async fn answer<T>(wait: oneshot::Receiver<Result<T, String>>) -> Result<T, LedgerError> {
    wait.await.unwrap_or_else(|_| Err("its thread has ended".to_owned())).map_err(LedgerError::Failed)
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.close();
    }
}

struct Writer {
    path: PathBuf,
    /// Not there after an error: redb refuses everything then, and the next job opens the file again.
    db: Option<Database>,
    /// What the disk has refused. Whoever waited for it was told so; the agents' state in memory has it all the same,
    /// and would never be written again where nothing changes.
    late: Vec<Row>,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut waiting = Vec::new();
        let mut goes_on = true;
        while goes_on {
            goes_on = self.wait(&mut queue, &mut waiting);
            let mut writes = vec![(std::mem::take(&mut self.late), None)];
            for job in waiting.drain(..) {
                match job {
                    Job::Write(rows, done) => writes.push((rows, done)),
                    Job::Spooled(most, done) => {
                        let _ = done.send(self.with(|db| spooled(db, most)));
                    }
                }
            }
            if writes.iter().any(|(rows, _)| !rows.is_empty()) {
                self.write(writes);
            }
        }
    }

    /// Waits for jobs, or a moment where something is to be tried again; false where there are no more to come.
    fn wait(&self, queue: &mut mpsc::Receiver<Job>, jobs: &mut Vec<Job>) -> bool {
        if self.late.is_empty() {
            return queue.blocking_recv_many(jobs, BATCH) > 0;
        }
        std::thread::sleep(AGAIN);
        while jobs.len() < BATCH {
            match queue.try_recv() {
                Ok(job) => jobs.push(job),
                Err(mpsc::error::TryRecvError::Empty) => return true,
                Err(mpsc::error::TryRecvError::Disconnected) => return false,
            }
        }
        true
    }

    fn write(&mut self, writes: Vec<Written>) {
        let again = writes.first().is_some_and(|(late, _)| !late.is_empty());
        let result = self.with(|db| commit(db, &writes));
        match &result {
            Err(why) if !again => tracing::error!(%why, "the agents' state cannot be written"),
            Ok(()) if again => tracing::info!("the agents' state is written again"),
            _ => {}
        }
        let mut refused = Vec::new();
        for (rows, done) in writes {
            let _ = done.map(|done| done.send(result.clone()));
            if result.is_err() {
                refused.extend(rows);
            }
        }
        self.late = newest(refused);
    }

    fn with<T>(&mut self, job: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, String> {
        if self.db.is_none() {
            self.db = Some(open(&self.path).map_err(|error| error.to_string())?.0);
        }
        let Some(db) = &self.db else { return Err("the file is not open".to_owned()) };
        let done = catch_unwind(AssertUnwindSafe(|| job(db)))
            .unwrap_or_else(|_| Err(redb::Error::Corrupted("an invariant of its file is broken".into())));
        done.map_err(|error| {
            let db = self.db.take();
            let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
            error.to_string()
        })
    }
}

/// The last row of each agent, and all others, in their order; where that is too much, not the oldest.
fn newest(rows: Vec<Row>) -> Vec<Row> {
    let mut seen = HashSet::new();
    let is_newest =
        |row: &Row| if let Row::Agent(agent) = row { seen.insert(agent.id.clone()) } else { true };
    let mut kept: Vec<Row> = rows.into_iter().rev().filter(is_newest).take(WAITING).collect();
    kept.reverse();
    kept
}

fn open(path: &Path) -> Result<(Database, Found), OpenError> {
    let wrong = |error: redb::Error| match error {
        redb::Error::Io(error) if error.kind() != io::ErrorKind::InvalidData => {
            OpenError::Io { path: path.to_path_buf(), error }
        }
        other => OpenError::Database { path: path.to_path_buf(), why: other.to_string() },
    };
    let opened = catch_unwind(AssertUnwindSafe(|| -> Result<_, redb::Error> {
        let db = Builder::new().set_cache_size(PAGE_CACHE).create(path)?;
        let schema = prepare(&db)?;
        let found = read_all(&db)?;
        Ok((db, schema, found))
    }));
    let opened =
        opened.unwrap_or_else(|_| Err(redb::Error::Corrupted("an invariant of its file is broken".into())));
    match opened.map_err(wrong)? {
        (db, SCHEMA, found) => Ok((db, found)),
        (_, found, _) => Err(OpenError::Newer { path: path.to_path_buf(), found }),
    }
}

/// Makes the tables of a new file; says which layout an old one has.
fn prepare(db: &Database) -> Result<u64, redb::Error> {
    let mut txn = db.begin_write()?;
    txn.set_quick_repair(true);
    let schema = {
        let mut meta = txn.open_table(META)?;
        let schema = meta.get("schema")?.map(|row| row.value());
        if schema.is_none() {
            meta.insert("schema", SCHEMA)?;
            meta.insert("spool", drawn())?;
        }
        txn.open_table(AGENTS)?;
        txn.open_table(CHANGED)?;
        txn.open_table(PLACES)?;
        txn.open_table(WAKES)?;
        txn.open_table(NODES)?;
        txn.open_table(FORGOTTEN)?;
        schema.unwrap_or(SCHEMA)
    };
    txn.commit()?;
    Ok(schema)
}

/// A number that no other spool has.
fn drawn() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness the time of the file's making has to do.
    if getrandom::fill(&mut bytes).is_err() {
        bytes = crate::base::clock::Clock::system().now().0.to_le_bytes();
    }
    u64::from_le_bytes(bytes) >> 1
}

fn read_all(db: &Database) -> Result<Found, redb::Error> {
    let txn = db.begin_read()?;
    let mut found = Found::default();
    for row in txn.open_table(AGENTS)?.iter()? {
        let (id, row) = row?;
        match parse(row.value()) {
            Some(agent) => found.agents.push(agent),
            None => tracing::warn!(agent = id.value(), "not readable: it will check in again"),
        }
    }
    for row in txn.open_table(WAKES)?.iter()? {
        found.wakes.push(row?.1.value().to_vec());
    }
    for row in txn.open_table(NODES)?.iter()? {
        let (node, row) = row?;
        found.nodes.push((node.value().to_owned(), row.value()));
    }
    Ok(found)
}

fn render(agent: &Agent) -> Vec<u8> {
    let mut row = vec![ROW];
    // Writing to memory what has string keys only cannot fail.
    let _ = serde_json::to_writer(&mut row, agent);
    row
}

fn parse(row: &[u8]) -> Option<Agent> {
    let (version, json) = row.split_first()?;
    (*version == ROW).then(|| serde_json::from_slice(json).ok())?
}

type Written = (Vec<Row>, Option<oneshot::Sender<Result<(), String>>>);

fn commit(db: &Database, writes: &[Written]) -> Result<(), redb::Error> {
    let mut txn = db.begin_write()?;
    // A crash must not cost a walk through the whole file at the next start.
    txn.set_quick_repair(true);
    {
        let mut tables = Tables::open(&txn)?;
        for row in writes.iter().flat_map(|(rows, _)| rows) {
            tables.apply(row)?;
        }
        tables.meta.insert("number", tables.number)?;
    }
    reach(Step::AgentsBatch);
    txn.commit()?;
    reach(Step::AgentsCommitted);
    Ok(())
}

/// The tables of one transaction.
struct Tables<'t> {
    agents: Table<'t, &'static str, &'static [u8]>,
    changed: Table<'t, u64, &'static str>,
    places: Table<'t, &'static str, u64>,
    wakes: Table<'t, u64, &'static [u8]>,
    nodes: Table<'t, &'static str, (u64, u64)>,
    forgotten: Table<'t, &'static str, &'static str>,
    meta: Table<'t, &'static str, u64>,
    /// The last that was given to a change.
    number: u64,
}

impl<'t> Tables<'t> {
    fn open(txn: &'t WriteTransaction) -> Result<Self, redb::Error> {
        let meta = txn.open_table(META)?;
        let number = meta.get("number")?.map_or(0, |row| row.value());
        Ok(Self {
            agents: txn.open_table(AGENTS)?,
            changed: txn.open_table(CHANGED)?,
            places: txn.open_table(PLACES)?,
            wakes: txn.open_table(WAKES)?,
            nodes: txn.open_table(NODES)?,
            forgotten: txn.open_table(FORGOTTEN)?,
            meta,
            number,
        })
    }

    fn apply(&mut self, row: &Row) -> Result<(), redb::Error> {
        match row {
            Row::Agent(agent) => {
                let id = agent.id.as_str();
                self.agents.insert(id, render(agent).as_slice())?;
                self.forgotten.remove(id)?;
                self.change(id)?;
            }
            Row::Forgotten(id, handler) => {
                self.agents.remove(id.as_str())?;
                self.forgotten.insert(id.as_str(), handler.as_deref().unwrap_or_default())?;
                self.change(id.as_str())?;
            }
            Row::Forget(id) => {
                self.agents.remove(id.as_str())?;
                self.forgotten.remove(id.as_str())?;
                let place = self.places.remove(id.as_str())?.map(|row| row.value());
                if let Some(place) = place {
                    self.changed.remove(place)?;
                }
            }
            Row::Wake(number, json) => drop(self.wakes.insert(number, json.as_slice())?),
            Row::WakeOver(number) => drop(self.wakes.remove(number)?),
            Row::Told(last) => {
                for row in self.changed.extract_from_if(..=*last, |_, _| true)? {
                    let (_, id) = row?;
                    self.places.remove(id.value())?;
                    self.forgotten.remove(id.value())?;
                }
            }
            Row::Heard(node, spool, number) => {
                self.nodes.insert(node.as_str(), (*spool, *number))?;
            }
        }
        Ok(())
    }

    /// An agent is the last that has changed.
    fn change(&mut self, id: &str) -> Result<(), redb::Error> {
        self.number += 1;
        let before = self.places.insert(id, self.number)?.map(|row| row.value());
        if let Some(before) = before {
            self.changed.remove(before)?;
        }
        self.changed.insert(self.number, id)?;
        Ok(())
    }
}

fn spooled(db: &Database, most: usize) -> Result<Spooled, redb::Error> {
    let txn = db.begin_read()?;
    let spool = txn.open_table(META)?.get("spool")?.map_or(0, |row| row.value());
    let (agents, forgotten) = (txn.open_table(AGENTS)?, txn.open_table(FORGOTTEN)?);
    let mut found = Spooled { spool, ..Spooled::default() };
    let mut bytes = 0;
    let changed = txn.open_table(CHANGED)?;
    found.waiting = changed.len()?;
    for row in changed.iter()?.take(most) {
        let (number, id) = row?;
        found.last = number.value();
        let Some(row) = agents.get(id.value())? else {
            let handler = forgotten.get(id.value())?.map(|it| it.value().to_owned());
            if let (Some(handler), Ok(id)) = (handler, AgentId::parse(id.value())) {
                found.forgotten.push((id, Some(handler).filter(|it| !it.is_empty())));
            }
            continue;
        };
        found.agents.extend(parse(row.value()));
        bytes += row.value().len();
        if bytes > REPORT_BYTES {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::presence::state::Rules;

    fn agent(name: &str, check_ins: u64) -> Row {
        let id = AgentId::parse(name).unwrap();
        Row::Agent(Box::new(Agent { check_ins, ..Agent::new(id, Timestamp(5), &Rules::default()) }))
    }

    fn told(spooled: &Spooled) -> Vec<(&str, u64)> {
        spooled.agents.iter().map(|agent| (agent.id.as_str(), agent.check_ins)).collect()
    }

    #[tokio::test]
    async fn what_is_written_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, found) = Ledger::open(dir.path()).unwrap();
        assert!(found.agents.is_empty());
        ledger
            .write(vec![agent("a", 1), agent("b", 1), Row::Heard("branch".into(), 7, 9)])
            .unwrap()
            .wait()
            .await
            .unwrap();
        ledger.write(vec![agent("a", 2), Row::Wake(4, b"{}".to_vec())]).unwrap().wait().await.unwrap();
        ledger.write(vec![Row::Forget(AgentId::parse("b").unwrap())]).unwrap().wait().await.unwrap();
        drop(ledger);
        let (_, found) = Ledger::open(dir.path()).unwrap();
        let agents: Vec<_> = found.agents.iter().map(|it| (it.id.as_str(), it.check_ins)).collect();
        assert_eq!(agents, [("a", 2)]);
        assert_eq!(found.nodes, [("branch".to_owned(), (7, 9))]);
        assert_eq!(found.wakes, [b"{}".to_vec()]);
    }

    #[tokio::test]
    async fn the_spool_has_each_agent_once_until_it_is_acknowledged_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(dir.path()).unwrap();
        ledger
            .write(vec![agent("a", 1), agent("b", 1), agent("a", 2), agent("c", 1)])
            .unwrap()
            .wait()
            .await
            .unwrap();
        let first = ledger.spooled(2).await.unwrap();
        assert_eq!(told(&first), [("b", 1), ("a", 2)]);
        ledger.write(vec![agent("a", 3)]).unwrap().wait().await.unwrap();
        ledger.write(vec![Row::Told(first.last)]).unwrap().wait().await.unwrap();
        let second = ledger.spooled(9).await.unwrap();
        assert_eq!(told(&second), [("c", 1), ("a", 3)], "what changed meanwhile is told again");
        assert_eq!(second.spool, first.spool);
        ledger.write(vec![Row::Told(second.last)]).unwrap().wait().await.unwrap();
        assert!(ledger.spooled(9).await.unwrap().agents.is_empty());
    }

    #[tokio::test]
    async fn who_is_forgotten_is_told_of_once_and_not_if_it_came_back() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(dir.path()).unwrap();
        let id = |name: &str| AgentId::parse(name).unwrap();
        let all = ["a", "b", "c"].map(|name| agent(name, 1));
        ledger.write(all.into()).unwrap().wait().await.unwrap();
        let before = ledger.spooled(9).await.unwrap();
        let gone = vec![
            Row::Told(before.last),
            Row::Forgotten(id("a"), None),
            Row::Forgotten(id("b"), Some("branch".to_owned())),
            Row::Forgotten(id("c"), None),
            agent("c", 2),
        ];
        ledger.write(gone).unwrap().wait().await.unwrap();
        let spooled = ledger.spooled(9).await.unwrap();
        assert_eq!(spooled.forgotten, [(id("a"), None), (id("b"), Some("branch".to_owned()))]);
        assert_eq!(told(&spooled), [("c", 2)]);
        ledger.write(vec![Row::Told(spooled.last)]).unwrap().wait().await.unwrap();
        let after = ledger.spooled(9).await.unwrap();
        assert_eq!((after.waiting, after.forgotten.len()), (0, 0));
    }

    #[tokio::test]
    async fn a_damaged_file_is_set_aside_and_a_later_one_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), b"no database at all, but long enough to be taken for one")
            .unwrap();
        let (ledger, found) = Ledger::open(dir.path()).unwrap();
        assert!(found.agents.is_empty());
        ledger.write(vec![agent("a", 1)]).unwrap().wait().await.unwrap();
        drop(ledger);
        assert!(dir.path().join("agents.damaged").exists());
        let db = Database::create(dir.path().join(FILE)).unwrap();
        let txn = db.begin_write().unwrap();
        txn.open_table(META).unwrap().insert("schema", 99).unwrap();
        txn.commit().unwrap();
        drop(db);
        assert!(matches!(Ledger::open(dir.path()), Err(OpenError::Newer { found: 99, .. })));
    }

    /// It was told to be refused, known in memory, and never written again.
    #[tokio::test]
    async fn what_the_disk_has_refused_is_written_when_it_takes_it() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(dir.path()).unwrap();
        let file = dir.path().join(FILE);
        ledger.write(vec![agent("a", 1)]).unwrap().wait().await.unwrap();
        drop(ledger);
        // The next attempt has to open the file, and cannot: a directory is in its place.
        let aside = dir.path().join("aside");
        std::fs::rename(&file, &aside).unwrap();
        std::fs::create_dir(&file).unwrap();
        let (jobs, queue) = mpsc::channel(WAITING);
        let path = file.clone();
        let thread = std::thread::spawn(move || Writer { path, db: None, late: Vec::new() }.run(queue));
        let ledger = Ledger { jobs: Mutex::new(Some(jobs)), thread: Mutex::new(Some(thread)) };
        for count in 2..5 {
            let refused = ledger.write(vec![agent("a", count), agent("b", count)]).unwrap().wait().await;
            assert!(matches!(refused, Err(LedgerError::Failed(_))));
        }
        std::fs::remove_dir(&file).unwrap();
        std::fs::rename(&aside, &file).unwrap();
        drop(ledger);
        let (_, found) = Ledger::open(dir.path()).unwrap();
        let agents: Vec<_> = found.agents.iter().map(|it| (it.id.as_str(), it.check_ins)).collect();
        assert_eq!(agents, [("a", 4), ("b", 4)]);
    }

    #[test]
    fn rows_of_version_1_read_as_they_were_written() {
        let golden = concat!(
            r#"{"id":"pc-1","handler":"branch","standing":{"state":"connected","cause":"opened","since":5},"#,
            r#""heard":6,"checked_in":7,"check_ins":8,"contact":"stream","interval":{"secs":3600,"nanos":0},"#,
            r#""told":{"sequence":9,"boot":"ab","properties":{"host":"pc","os":"linux","addresses":["10.0.0.1"],"#,
            r#""tree":"/a","tags":["x"],"agent_version":"1"},"content":{"s/c":"3"},"sitelist":"e","#,
            r#""policies":{"av/base":"00"},"contact":"stream"},"cloned":false,"#,
            r#""boots":{"known":[{"id":"ab","sequence":9}],"contradictions":0,"last":0}}"#,
        );
        let row = [&[ROW], golden.as_bytes()].concat();
        let agent = parse(&row).unwrap();
        assert_eq!(String::from_utf8(render(&agent)).unwrap(), String::from_utf8(row).unwrap());
        assert_eq!(parse(&[9, b'{', b'}']), None);
    }
}
