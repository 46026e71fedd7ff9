//! Which check-ins are new: sequences within a boot, and two machines that say they are the same agent. Pure.
//!
//! An agent draws its boot at random when it starts, so a boot that was followed by another one does not return.
//! One that does, more than once, belongs to a second machine with the same identity: a copied disk.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;

/// Earlier boots that are remembered: two machines that share an identity and restart in turn are still found.
const EARLIER: usize = 4;

/// Contradictions after which an agent counts as cloned. A check-in that was under way while the agent restarted
/// makes one.
const CONTRADICTIONS: u32 = 2;

/// How long an agent counts as cloned after the last contradiction.
const CLONED_FOR: Duration = Duration::from_hours(24);

/// One run of an agent, and its last check-in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Boot {
    id: String,
    sequence: u64,
}

/// The boots of one agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Boots {
    /// The newest first.
    known: Vec<Boot>,
    contradictions: u32,
    last: Timestamp,
}

/// What a check-in is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// New: to be acknowledged.
    New,
    /// A replay, or older than what is known.
    Old {
        /// The least sequence of this boot that would be new.
        expected: u64,
    },
}

impl Boots {
    /// Judges a check-in. Nothing is noted unless it is new.
    pub(super) fn judge(&mut self, boot: &str, sequence: u64, now: Timestamp) -> Verdict {
        let place = self.known.iter().position(|known| known.id == boot);
        let Some(place) = place else {
            self.known.insert(0, Boot { id: boot.to_owned(), sequence });
            self.known.truncate(EARLIER);
            return Verdict::New;
        };
        let Some(known) = self.known.get_mut(place) else { return Verdict::New };
        if sequence <= known.sequence {
            return Verdict::Old { expected: known.sequence.saturating_add(1) };
        }
        known.sequence = sequence;
        if place > 0 {
            if now.since(self.last) > CLONED_FOR {
                self.contradictions = 0;
            }
            self.contradictions = self.contradictions.saturating_add(1);
            self.last = now;
        }
        Verdict::New
    }

    /// The clock was set by so many milliseconds.
    pub(super) fn jump(&mut self, by: i64) {
        if self.contradictions > 0 {
            self.last = self.last.moved(by);
        }
    }

    /// Whether two machines use this identity, as far as is known now.
    pub(super) fn is_cloned(&self, now: Timestamp) -> bool {
        self.contradictions >= CONTRADICTIONS && now.since(self.last) <= CLONED_FOR
    }

    /// Whether what `self` tells is newer than what `other` does; nothing where that cannot be told from them.
    pub(super) fn is_newer_than(&self, other: &Self) -> Option<bool> {
        let (ours, theirs) = (self.known.first()?, other.known.first()?);
        let comparable = ours.id == theirs.id && ours.sequence != theirs.sequence;
        comparable.then_some(ours.sequence > theirs.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);

    #[test]
    fn a_sequence_is_taken_once_and_in_order() {
        let mut boots = Boots::default();
        assert_eq!(boots.judge("a", 5, NOW), Verdict::New);
        assert_eq!(boots.judge("a", 5, NOW), Verdict::Old { expected: 6 });
        assert_eq!(boots.judge("a", 1, NOW), Verdict::Old { expected: 6 });
        assert_eq!(boots.judge("a", 9, NOW), Verdict::New);
        assert_eq!(boots.judge("b", 1, NOW), Verdict::New, "a restart begins anew");
        assert!(!boots.is_cloned(NOW));
    }

    #[test]
    fn a_check_in_that_was_overtaken_by_a_restart_makes_no_clone() {
        let mut boots = Boots::default();
        for (boot, sequence) in [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("b", 3)] {
            assert_eq!(boots.judge(boot, sequence, NOW), Verdict::New);
        }
        assert!(!boots.is_cloned(NOW));
    }

    #[test]
    fn two_machines_in_turn_are_a_clone_until_a_day_after_one_of_them_is_gone() {
        let mut boots = Boots::default();
        for sequence in 1..4 {
            boots.judge("a", sequence, NOW);
            boots.judge("b", sequence, NOW);
        }
        assert!(boots.is_cloned(NOW));
        let later = NOW.after(CLONED_FOR + Duration::from_secs(1));
        boots.judge("b", 9, later);
        assert!(!boots.is_cloned(later));
    }

    #[test]
    fn restarts_are_remembered_within_a_bound() {
        let mut boots = Boots::default();
        for boot in 0..1_000 {
            boots.judge(&boot.to_string(), 1, NOW);
        }
        assert_eq!(boots.known.len(), EARLIER);
        assert!(!boots.is_cloned(NOW));
    }
}
