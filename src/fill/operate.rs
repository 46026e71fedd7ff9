//! What operators do to fills: end one, or purge what they bring.

use std::sync::Arc;

use super::seat::Settled;
use super::state::Fill;
use super::{Cause, Fills};
use crate::cache::Key;
use crate::cache::purge::{Fate, Purge};

impl Fills {
    /// Purges what fills under way bring that began before `purge`, and what is remembered as absent or not
    /// shareable; returns how many fills that is. A hard purge wins over them: they go on for the readers they have,
    /// nobody joins them any more, and nothing of them is kept. After a soft one their file is stale from the start.
    ///
    /// To be called when the store knows the purge already.
    pub fn purge(&self, purge: &Purge) -> usize {
        let fate = if purge.soft { Fate::Stale } else { Fate::Gone };
        let matching: Vec<Arc<Fill>> = {
            let mut flights = self.0.flights.lock();
            let matching =
                flights.values().filter(|fill| purge.matches(fill.key().as_str())).cloned().collect();
            if fate == Fate::Gone {
                flights.retain(|key, _| !purge.matches(key.as_str()));
            }
            matching
        };
        self.0.negative.lock().retain(|key, _| !purge.matches(key.as_str()));
        self.0.direct.lock().retain(|key, _| !purge.matches(key.as_str()));
        matching.iter().filter(|fill| !fill.is_settled()).map(|fill| fill.condemn(fate)).count()
    }

    /// Ends the fill of `key`: its readers' transfers break. Its blocks stay, for the next one to go on from. Whether
    /// there was one.
    pub fn cancel(&self, key: &Key) -> bool {
        let Some(fill) = self.0.flights.lock().remove(key) else { return false };
        let running = !fill.is_settled();
        fill.settle(Settled::Failed(Cause::Abandoned));
        running
    }
}
