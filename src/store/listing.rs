//! What is stored, by key: for listings, counts and sweeps. Reads the index in slices, so that no reader holds an old
//! version of it for long.

use std::ops::Bound;

use super::apply::Kind;
use super::index::{ENTRIES, Index, IndexError, OrIndex, PARTIALS, PLACES, existing, parse_row};
use crate::cache::Record;

/// Rows of one slice.
const SLICE: usize = 1_024;
/// Keys that a count names.
const NAMED: usize = 20;

/// Looks into a record of a key.
pub(super) type Wants<'a> = &'a dyn Fn(&str, &Record) -> bool;

/// Which records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    /// Complete entries.
    Entries,
    /// Unfinished bodies.
    Partials,
}

/// Some records in the order of their keys.
pub(super) struct Slice {
    pub(super) found: Vec<(String, Record)>,
    /// Where to go on; `None` at the end.
    pub(super) next: Option<String>,
}

/// How much matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Entries.
    pub entries: u64,
    /// Bytes on disk that they name, shared blocks each time.
    pub bytes: u64,
    /// The first twenty keys.
    pub first: Vec<String>,
}

impl Index {
    /// The records of up to 1,024 keys after `after` that are wanted, by their key and then by what they say. A
    /// damaged row is passed over.
    pub(super) fn slice(
        &self,
        rows: Rows,
        after: Option<&str>,
        wants_key: &dyn Fn(&str) -> bool,
        wants: Wants<'_>,
    ) -> Result<Slice, IndexError> {
        self.read(|txn| {
            let table = match rows {
                Rows::Entries => ENTRIES,
                Rows::Partials => PARTIALS,
            };
            let mut slice = Slice { found: Vec::new(), next: None };
            let Some(table) = existing(txn.open_table(table))? else { return Ok(slice) };
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            for (number, row) in table.range::<&str>((from, Bound::Unbounded)).or_index()?.enumerate() {
                let (key, row) = row.or_index()?;
                let key = key.value();
                if wants_key(key)
                    && let Some(record) = parse_row(key, row.value())
                    && wants(key, &record)
                {
                    slice.found.push((key.to_owned(), record));
                }
                if number + 1 >= SLICE {
                    slice.next = Some(key.to_owned());
                    break;
                }
            }
            Ok(slice)
        })
    }

    /// How many entries match, and how large they are. `begin` is called when the version that is counted is
    /// certain: what happens then is not in it. `wants` looks into the record, where that is needed.
    pub(super) fn count_matching(
        &self,
        begin: &mut dyn FnMut(),
        matches: &dyn Fn(&str) -> bool,
        wants: Option<Wants<'_>>,
    ) -> Result<Counted, IndexError> {
        self.read(|txn| {
            let mut counted = Counted::default();
            let (places, entries) = (existing(txn.open_table(PLACES))?, existing(txn.open_table(ENTRIES))?);
            begin();
            let (Some(places), Some(entries)) = (places, entries) else { return Ok(counted) };
            let entry = Kind::Entry as u8;
            for row in places.range((entry, "")..(entry + 1, "")).or_index()? {
                let (place, row) = row.or_index()?;
                let (_, key) = place.value();
                if !matches(key) {
                    continue;
                }
                if let Some(wants) = wants {
                    let record = entries.get(key).or_index()?.and_then(|row| parse_row(key, row.value()));
                    if !record.is_some_and(|record| wants(key, &record)) {
                        continue;
                    }
                }
                counted.entries += 1;
                counted.bytes += row.value().2;
                if counted.first.len() < NAMED {
                    counted.first.push(key.to_owned());
                }
            }
            Ok(counted)
        })
    }
}
