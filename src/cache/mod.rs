//! What the cache knows and decides, without doing anything: keys, entries, records, verdicts.

mod entry;
mod key;
mod prepared;
pub mod purge;
mod reason;
mod record;
pub mod verdict;

pub use entry::{Block, Entry, EntryBody, PieceSums};
pub use key::Key;
pub use prepared::{Moment, Prepared, TEMPLATE_FIELDS};
pub use record::{BodyMap, Head, RECORD_VERSION, Record, RecordError};
