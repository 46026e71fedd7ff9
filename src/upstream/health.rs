//! Whether an upstream is worth asking: back-off after trouble, one probe at a time, throughput.
//!
//! A small circuit breaker. Trouble adds up; enough of it in a row opens the breaker for a back-off that doubles
//! with each opening (1 s to 60 s, ± 20 % so that nodes do not come back together). When it has passed, one
//! fetch is let through as the probe: its success closes the breaker, its failure opens it again.

use std::time::Duration;

use parking_lot::Mutex;

use crate::base::clock::Timestamp;

/// First back-off.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest back-off: a WAN that is back is used within a minute.
const BACKOFF_LONGEST: Duration = Duration::from_secs(60);
/// Points in a row that open the breaker.
const OPEN_AT: u32 = 5;
/// A probe that never reported (its task was dropped) stops blocking others after this.
const PROBE_LEASE: Duration = Duration::from_secs(20);
/// Weight of the newest measurement in the throughput average, in percent.
const NEWEST_WEIGHT: u64 = 20;
/// Transfers below this say more about latency than about throughput.
const MEASURABLE_BYTES: u64 = 64 << 10;

/// What kind of trouble is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody there, or nobody we trust: resolve, connect, TLS. Twice in a row opens the breaker.
    Unreachable,
    /// There, but it failed one fetch: timeout, reset, stall, lie, 5xx. Five times in a row open the breaker.
    Failing,
    /// It asked for a pause (429 or 503 with `Retry-After`). Opens the breaker for that long, within 60 s.
    Pause(Duration),
}

impl Trouble {
    /// The word for logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Failing => "failing",
            Self::Pause(_) => "asked-for-a-pause",
        }
    }
}

/// Whether to ask now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Ask.
    Up,
    /// In back-off until then.
    Down {
        /// End of the back-off.
        until: Timestamp,
    },
    /// The back-off is over: one fetch may try.
    HalfOpen,
    /// The back-off is over and one fetch is trying.
    Probing {
        /// When another one may try although that one has not reported.
        until: Timestamp,
    },
}

/// The health of one upstream. All methods are a short lock and never wait for I/O.
#[derive(Debug, Default)]
pub struct Health(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    points: u32,
    failures: u32,
    openings: u32,
    open_until: Option<Timestamp>,
    probe_until: Option<Timestamp>,
    rate: Option<u64>,
    paused: bool,
}

impl Inner {
    fn state(&self, now: Timestamp) -> State {
        match (self.open_until, self.probe_until) {
            (None, _) => State::Up,
            (Some(until), _) if until.is_ahead(now, BACKOFF_LONGEST) => State::Down { until },
            (Some(_), Some(until)) if until.is_ahead(now, PROBE_LEASE) => State::Probing { until },
            (Some(_), _) => State::HalfOpen,
        }
    }

    /// It asked for a pause, and nobody probed since: an older transfer that ends well does not undo that.
    const fn holds_pause(&self) -> bool {
        self.paused && self.probe_until.is_none()
    }

    fn open(&mut self, now: Timestamp, least: Duration) {
        let doubled = BACKOFF_FIRST.saturating_mul(1 << self.openings.min(6)).min(BACKOFF_LONGEST);
        self.openings = self.openings.saturating_add(1);
        self.open_until = Some(now.after(jittered(doubled).max(least).min(BACKOFF_LONGEST)));
        self.probe_until = None;
    }
}

impl Health {
    /// A truthful head came: closes the breaker, but keeps the points, so that heads whose bodies never arrive
    /// open it again.
    ///
    /// Returns whether this closed the breaker.
    pub fn report_head(&self) -> bool {
        let mut inner = self.0.lock();
        let closes = !inner.holds_pause() && inner.open_until.take().is_some();
        if closes {
            inner.probe_until = None;
            inner.paused = false;
            inner.points = OPEN_AT - 1;
        }
        closes
    }

    /// A fetch gave a truthful answer to its end, 404 included. Closes the breaker and forgets the trouble before.
    ///
    /// Returns whether this closed the breaker.
    pub fn report_ok(&self) -> bool {
        let mut inner = self.0.lock();
        if inner.holds_pause() {
            return false;
        }
        let closes = inner.open_until.is_some();
        *inner = Inner { rate: inner.rate, ..Inner::default() };
        closes
    }

    /// `bytes` of a body arrived during `waited` of waiting for them.
    pub fn report_rate(&self, bytes: u64, waited: Duration) {
        if bytes < MEASURABLE_BYTES {
            return;
        }
        let micros = waited.as_micros().max(1);
        let measured = u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX);
        let mut inner = self.0.lock();
        inner.rate = Some(inner.rate.map_or(measured, |old| {
            (old / 100)
                .saturating_mul(100 - NEWEST_WEIGHT)
                .saturating_add((measured / 100).saturating_mul(NEWEST_WEIGHT))
        }));
    }

    /// A fetch failed. Returns whether this opened the breaker.
    pub fn report_failure(&self, now: Timestamp, trouble: Trouble) -> bool {
        let mut inner = self.0.lock();
        inner.failures = inner.failures.saturating_add(1);
        // Fetches that were under way when the breaker opened say nothing new.
        if matches!(inner.state(now), State::Down { .. }) {
            return false;
        }
        let probe_failed = inner.open_until.is_some();
        let (points, least) = match trouble {
            Trouble::Unreachable => (OPEN_AT.div_ceil(2), Duration::ZERO),
            Trouble::Failing => (1, Duration::ZERO),
            Trouble::Pause(pause) => (OPEN_AT, pause),
        };
        inner.points = inner.points.saturating_add(points);
        let open = probe_failed || inner.points >= OPEN_AT;
        if open {
            inner.paused = matches!(trouble, Trouble::Pause(_));
            inner.open(now, least);
        }
        open
    }

    /// Whether to ask now. Changes nothing.
    pub fn state(&self, now: Timestamp) -> State {
        self.0.lock().state(now)
    }

    /// Whether to ask now; takes the one probe if that is what is left.
    pub fn admit(&self, now: Timestamp) -> bool {
        let mut inner = self.0.lock();
        match inner.state(now) {
            State::Up => true,
            State::Down { .. } | State::Probing { .. } => false,
            State::HalfOpen => {
                inner.probe_until = Some(now.after(PROBE_LEASE));
                true
            }
        }
    }

    /// Failures since the last good answer.
    pub fn failures(&self) -> u32 {
        self.0.lock().failures
    }

    /// Average throughput in bytes a second, if any body large enough to tell has come.
    pub fn throughput(&self) -> Option<u64> {
        self.0.lock().rate
    }
}

/// `base` ± 20 %, so that nodes that lost the same upstream do not come back in the same moment.
fn jittered(base: Duration) -> Duration {
    let percent = getrandom::u32().map_or(100, |random| 80 + random % 41);
    base * percent / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn end_of(state: State) -> Timestamp {
        match state {
            State::Down { until } => until,
            other => panic!("not down: {other:?}"),
        }
    }

    /// Opens it at `now` and gives the end of the back-off.
    fn open(health: &Health, now: Timestamp) -> Timestamp {
        while !health.report_failure(now, Trouble::Unreachable) {}
        end_of(health.state(now))
    }

    #[test]
    fn twice_unreachable_or_five_times_failing_opens_the_breaker() {
        let now = Timestamp(1_000_000);
        for (trouble, times) in [(Trouble::Unreachable, 2), (Trouble::Failing, 5)] {
            let health = Health::default();
            for time in 1..=times {
                assert_eq!(health.report_failure(now, trouble), time == times, "{trouble:?} {time}");
            }
            assert!(!health.admit(now));
        }
    }

    #[test]
    fn a_good_answer_in_between_forgets_the_trouble() {
        let (health, now) = (Health::default(), Timestamp(0));
        for _ in 0..20 {
            assert!(!health.report_failure(now, Trouble::Failing));
            health.report_ok();
        }
        assert_eq!(health.state(now), State::Up);
    }

    #[test]
    fn the_back_off_doubles_from_one_second_to_sixty_with_jitter() {
        let health = Health::default();
        let mut now = Timestamp(0);
        for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
            let until = open(&health, now);
            let took = until.since(now);
            let base = SECOND * expected;
            assert!(
                took >= base * 8 / 10 && took <= (base * 12 / 10).min(BACKOFF_LONGEST),
                "{expected}: {took:?}"
            );
            now = until;
            assert!(health.admit(now));
        }
    }

    #[test]
    fn one_probe_at_a_time_and_its_success_closes() {
        let health = Health::default();
        let now = open(&health, Timestamp(0));
        assert_eq!(health.state(now), State::HalfOpen);
        assert!(health.admit(now));
        assert!(!health.admit(now));
        assert!(matches!(health.state(now), State::Probing { .. }));
        health.report_ok();
        assert!(health.admit(now) && health.admit(now));
        assert_eq!(health.failures(), 0);
    }

    #[test]
    fn a_probe_that_vanished_blocks_for_its_lease_only() {
        let health = Health::default();
        let now = open(&health, Timestamp(0));
        assert!(health.admit(now));
        assert!(!health.admit(now.after(PROBE_LEASE - SECOND)));
        assert!(health.admit(now.after(PROBE_LEASE)));
    }

    #[test]
    fn heads_without_their_bodies_open_it_again_at_once() {
        let health = Health::default();
        let now = open(&health, Timestamp(0));
        assert!(health.admit(now));
        health.report_head();
        assert_eq!(health.state(now), State::Up);
        assert!(health.report_failure(now, Trouble::Failing));
    }

    #[test]
    fn a_pause_that_was_asked_for_is_kept_within_a_minute_and_not_undone_by_older_transfers() {
        let (health, now) = (Health::default(), Timestamp(0));
        assert!(health.report_failure(now, Trouble::Pause(30 * SECOND)));
        health.report_ok();
        assert_eq!(end_of(health.state(now)), now.after(30 * SECOND));
        let health = Health::default();
        health.report_failure(now, Trouble::Pause(SECOND * 86_400));
        assert_eq!(end_of(health.state(now)), now.after(BACKOFF_LONGEST));
    }

    #[test]
    fn fetches_that_were_under_way_do_not_lengthen_the_back_off() {
        let health = Health::default();
        let until = open(&health, Timestamp(0));
        for _ in 0..100 {
            assert!(!health.report_failure(Timestamp(10), Trouble::Unreachable));
        }
        assert_eq!(end_of(health.state(Timestamp(10))), until);
    }

    #[test]
    fn throughput_is_a_moving_average_of_bodies_large_enough_to_tell() {
        let health = Health::default();
        health.report_rate(1_000, SECOND);
        assert_eq!(health.throughput(), None);
        health.report_rate(1_000_000, SECOND);
        assert_eq!(health.throughput(), Some(1_000_000));
        health.report_rate(2_000_000, SECOND);
        assert_eq!(health.throughput(), Some(1_200_000));
    }

    /// A wait of a minute became one of a day.
    #[test]
    fn a_clock_that_is_set_back_does_not_keep_an_upstream_down() {
        let day = Duration::from_secs(86_400);
        let (health, now) = (Health::default(), Timestamp(0).after(day));
        open(&health, now);
        assert!(matches!(health.state(now), State::Down { .. }));
        let back = Timestamp(5);
        assert_eq!(health.state(back), State::HalfOpen);
        assert!(health.admit(back), "one may try");
        assert!(!health.admit(back), "and one only");
        health.report_ok();
        assert_eq!(health.state(back), State::Up);
    }
}
