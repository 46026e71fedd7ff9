//! What has to survive this process: agents, wake-ups, what the node above has not heard yet. In redb.
//!
//! One thread does all of it. Whatever waits when it begins a commit goes into that commit, so a thousand check-ins a
//! second share a few dozen syncs. The spool towards the node above has no rows of its own: it is the order in which
//! agents have changed since they were last acknowledged, so it is never longer than the table of agents, and an
//! agent that changes twice while the WAN is down is told once, as it is then, with the count of its check-ins.

mod tables;

use std::collections::HashSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use redb::Database;
use tokio::sync::{mpsc, oneshot};

use self::tables::{Written, commit, open, spooled};
use super::AgentId;
use super::agent::Agent;

const FILE: &str = "agents.redb";
/// Changes that may wait for the disk. A check-in beyond it is told to come again.
const WAITING: usize = 8_192;
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

#[cfg(test)]
mod tests {
    use super::tables::{META, ROW, parse, render};
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
