//! The time of presence: it reads as the wall clock does and runs as the steady one.
//!
//! Times of agents are shown to people, written down and told to other nodes, so they are the wall clock's; what waits
//! for them must not wait for a wall clock that somebody sets. So presence has its own, at the same time as the wall
//! clock, and when that one jumps, it jumps after it together with every time that is known ([`Hands::follow`]): what
//! was heard a minute ago was heard a minute ago.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::base::clock::{Clock, Timestamp};

/// Milliseconds by which the two may differ: a clock that is being corrected slowly does not jump.
const APART: u64 = 1_000;

/// What presence goes by.
#[derive(Debug)]
pub(super) struct Hands {
    clock: Clock,
    /// Milliseconds from the steady clock to this one.
    ahead: AtomicI64,
}

impl Hands {
    pub(super) fn new(clock: Clock) -> Self {
        let hands = Self { clock, ahead: AtomicI64::new(0) };
        hands.ahead.store(hands.behind(), Ordering::Relaxed);
        hands
    }

    /// The current moment. Where it is compared with times that are known, it is read under the lock that they have.
    pub(super) fn now(&self) -> Timestamp {
        let steady = u64::try_from(self.clock.steady().as_millis()).unwrap_or(u64::MAX);
        Timestamp(steady).moved(self.ahead.load(Ordering::Relaxed))
    }

    /// Goes where the wall clock has jumped. By how many milliseconds, if it has: all times that are known have to be
    /// moved by as much, before anybody asks again.
    pub(super) fn follow(&self) -> Option<i64> {
        let by = self.behind();
        let jumped = by.unsigned_abs() > APART;
        jumped.then(|| {
            self.ahead.fetch_add(by, Ordering::Relaxed);
            by
        })
    }

    /// Milliseconds to the wall clock.
    fn behind(&self) -> i64 {
        i64::try_from(i128::from(self.clock.now().0) - i128::from(self.now().0)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const START: Timestamp = Timestamp(1_000_000_000_000);

    #[test]
    fn time_runs_on_while_the_wall_clock_is_set() {
        let clock = Clock::manual(START);
        let hands = Hands::new(clock.clone());
        clock.advance(Duration::from_secs(5));
        assert_eq!((hands.now(), hands.follow()), (clock.now(), None));
        for to in [START.moved(-3_600_000), START.moved(86_400_000), Timestamp(0)] {
            let before = hands.now();
            clock.set(to);
            clock.advance(Duration::from_millis(250));
            assert_eq!(hands.now(), before.moved(250), "nobody was told yet");
            let by = hands.follow().unwrap();
            assert_eq!((before.moved(250).moved(by), hands.now()), (clock.now(), clock.now()));
            assert_eq!(hands.follow(), None);
        }
    }

    #[test]
    fn a_clock_that_is_corrected_slowly_does_not_jump() {
        let clock = Clock::manual(START);
        let hands = Hands::new(clock.clone());
        clock.set(START.moved(-900));
        assert_eq!((hands.follow(), hands.now()), (None, START));
    }
}
