//! The tables of the ledger, and what is read and written in one go.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::{
    Builder, Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, Table,
    TableDefinition, WriteTransaction,
};
use tokio::sync::oneshot;

use super::{Found, OpenError, Row, Spooled};
use crate::base::crash::{Step, reach};
use crate::presence::AgentId;
use crate::presence::agent::Agent;

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
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The layout of these tables.
const SCHEMA: u64 = 1;
/// The version of a row's JSON.
pub(super) const ROW: u8 = 1;
/// Bytes of pages kept in memory: all agents are in memory anyway.
const PAGE_CACHE: usize = 8 << 20;
/// Bytes of agents after which a report is full.
const REPORT_BYTES: usize = 1 << 20;

/// Opens the file, or makes it; gives what is in it.
pub(super) fn open(path: &Path) -> Result<(Database, Found), OpenError> {
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

pub(super) fn render(agent: &Agent) -> Vec<u8> {
    let mut row = vec![ROW];
    // Writing to memory what has string keys only cannot fail.
    let _ = serde_json::to_writer(&mut row, agent);
    row
}

pub(super) fn parse(row: &[u8]) -> Option<Agent> {
    let (version, json) = row.split_first()?;
    (*version == ROW).then(|| serde_json::from_slice(json).ok())?
}

/// Rows, and who waits for them.
pub(super) type Written = (Vec<Row>, Option<oneshot::Sender<Result<(), String>>>);

/// Writes all of it, or nothing.
pub(super) fn commit(db: &Database, writes: &[Written]) -> Result<(), redb::Error> {
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

/// What the node above has not heard yet, the oldest first, `most` rows of it at the most.
pub(super) fn spooled(db: &Database, most: usize) -> Result<Spooled, redb::Error> {
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
