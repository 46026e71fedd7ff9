//! Time comes through a clock, so that tests can turn it and pure code only ever gets a value.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A moment on the wall clock, in milliseconds since 1970-01-01 UTC. Persisted as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The time from `earlier` to `self`; zero where the clock went backwards.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This moment moved by `by` into the future, saturating.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Whether a wait that ends at `self`, and was to take `most` at the longest, goes on at `now`. It does not where the
    /// clock was set back since: a wait of seconds would become one of hours.
    pub fn is_ahead(self, now: Self, most: Duration) -> bool {
        now < self && self.since(now) <= most
    }

    /// As the standard library's type, for HTTP dates and http-cache-semantics.
    pub fn to_system(self) -> SystemTime {
        UNIX_EPOCH.checked_add(Duration::from_millis(self.0)).unwrap_or(UNIX_EPOCH)
    }

    /// From the standard library's type; times before 1970 become 0.
    pub fn from_system(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Where "now" comes from: the machine, or a test's hand.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicU64>>);

impl Clock {
    /// The machine's wall clock.
    pub const fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still until [`Clock::advance`] moves it; clones move together.
    pub fn manual(start: Timestamp) -> Self {
        Self(Some(Arc::new(AtomicU64::new(start.0))))
    }

    /// The current moment. A call without lock or system call (vDSO) on the machine's clock.
    pub fn now(&self) -> Timestamp {
        self.0.as_ref().map_or_else(
            || Timestamp::from_system(SystemTime::now()),
            |hand| Timestamp(hand.load(Ordering::Relaxed)),
        )
    }

    /// Sets a manual clock, back too; a system clock does not care.
    pub fn set(&self, to: Timestamp) {
        if let Some(hand) = &self.0 {
            hand.store(to.0, Ordering::Relaxed);
        }
    }

    /// Moves a manual clock forward; a system clock does not care.
    pub fn advance(&self, by: Duration) {
        if let Some(hand) = &self.0 {
            let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
            hand.fetch_add(by, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_with_all_its_clones() {
        let clock = Clock::manual(Timestamp(1_000));
        let other = clock.clone();
        clock.advance(Duration::from_secs(2));
        assert_eq!(other.now(), Timestamp(3_000));
        other.set(Timestamp(5));
        assert_eq!(clock.now(), Timestamp(5));
    }

    #[test]
    fn a_wait_is_over_at_its_end_and_when_the_clock_was_set_back() {
        let (minute, end) = (Duration::from_secs(60), Timestamp(100_000));
        assert!(end.is_ahead(Timestamp(40_000), minute) && end.is_ahead(Timestamp(99_999), minute));
        assert!(!end.is_ahead(end, minute) && !end.is_ahead(Timestamp(39_999), minute));
    }

    #[test]
    fn a_clock_that_went_backwards_gives_no_time_not_a_panic() {
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
    }
}
