//! Somebody who looks at the fleet the whole time, as the authority shows it, and counts what must never be seen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::operator::{Operator, Row};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// What was seen so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) looks: u64,
    /// Agents that stood there twice in one look, all looks together.
    pub(super) doubles: u64,
}

/// Dropping it ends the looking.
pub(super) struct Watch {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Watch {
    pub(super) fn begin(operator: Operator) -> Self {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let notes = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                if let Ok(rows) = operator.agents().await {
                    let doubles = doubles(&rows);
                    let mut notes = notes.lock();
                    notes.looks += 1;
                    notes.doubles += doubles;
                }
            }
        });
        Self { seen, task }
    }

    pub(super) fn seen(&self) -> Seen {
        *self.seen.lock()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How many agents are in contact in more than one row.
pub(super) fn doubles<'a>(rows: impl IntoIterator<Item = &'a Row>) -> u64 {
    let mut times: BTreeMap<&str, u64> = BTreeMap::new();
    for row in rows.into_iter().filter(|row| row.is_there()) {
        *times.entry(&row.id).or_default() += 1;
    }
    times.values().filter(|&&times| times > 1).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_is_there_twice_is_found_and_one_that_left_elsewhere_is_not() {
        let row = |id: &str, state: &str| Row { id: id.into(), state: state.into(), ..Row::default() };
        let rows = [row("a", "connected"), row("b", "connected"), row("b", "grey")];
        assert_eq!(doubles(&rows), 0);
        assert_eq!(doubles(&[rows.as_slice(), &[row("a", "reporting")]].concat()), 1);
    }
}
