//! Time comes through a clock, so that tests can turn it and pure code only ever gets a value.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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

    /// This moment moved by so many milliseconds either way, saturating.
    #[must_use]
    pub const fn moved(self, by: i64) -> Self {
        Self(self.0.saturating_add_signed(by))
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
///
/// There are two: the wall clock, which people and other nodes understand and which somebody may set, and a steady one
/// that only ever runs, by which to wait.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Hands>>);

/// A test's hands, in milliseconds. The wall clock is `ahead` of the steady one, so that both advance in one step.
#[derive(Debug)]
struct Hands {
    steady: AtomicU64,
    ahead: AtomicU64,
}

/// Where the machine's steady clock begins.
static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Clock {
    /// The machine's clocks.
    pub const fn system() -> Self {
        Self(None)
    }

    /// Clocks that stand still until [`Clock::advance`] moves them; clones move together.
    pub fn manual(start: Timestamp) -> Self {
        Self(Some(Arc::new(Hands { steady: AtomicU64::new(0), ahead: AtomicU64::new(start.0) })))
    }

    /// The current moment. A call without lock or system call (vDSO) on the machine's clock.
    pub fn now(&self) -> Timestamp {
        self.0.as_ref().map_or_else(
            || Timestamp::from_system(SystemTime::now()),
            |hands| {
                let ahead = hands.ahead.load(Ordering::Relaxed);
                Timestamp(hands.steady.load(Ordering::Relaxed).wrapping_add(ahead))
            },
        )
    }

    /// Time since some moment before the first call, whatever becomes of the wall clock. Sleep of the machine is not
    /// counted.
    pub fn steady(&self) -> Duration {
        self.0.as_ref().map_or_else(
            || BEGUN.elapsed(),
            |hands| Duration::from_millis(hands.steady.load(Ordering::Relaxed)),
        )
    }

    /// Moves manual clocks forward; the machine's do not care.
    pub fn advance(&self, by: Duration) {
        if let Some(hands) = &self.0 {
            let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
            hands.steady.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// Sets a manual wall clock, as somebody sets a machine's: no time has passed by that.
    pub fn set(&self, to: Timestamp) {
        if let Some(hands) = &self.0 {
            let ahead = to.0.wrapping_sub(hands.steady.load(Ordering::Relaxed));
            hands.ahead.store(ahead, Ordering::Relaxed);
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
        assert_eq!((other.now(), other.steady()), (Timestamp(3_000), Duration::from_secs(2)));
        other.set(Timestamp(7));
        assert_eq!((clock.now(), clock.steady()), (Timestamp(7), Duration::from_secs(2)));
    }

    #[test]
    fn a_clock_that_went_backwards_gives_no_time_not_a_panic() {
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
    }
}
