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
}

impl Inner {
    fn state(&self, now: Timestamp) -> State {
        match (self.open_until, self.probe_until) {
            (None, _) => State::Up,
            (Some(until), _) if now < until => State::Down { until },
            (Some(_), Some(until)) if now < until => State::Probing { until },
            (Some(_), _) => State::HalfOpen,
        }
    }

    fn open(&mut self, now: Timestamp, least: Duration) {
        let doubled = BACKOFF_FIRST.saturating_mul(1 << self.openings.min(6)).min(BACKOFF_LONGEST);
        self.openings = self.openings.saturating_add(1);
        self.open_until = Some(now.after(jittered(doubled).max(least).min(BACKOFF_LONGEST)));
        self.probe_until = None;
    }
}

impl Health {
    /// A fetch gave a truthful answer, 404 included. Closes the breaker.
    pub fn report_ok(&self) {
        let mut inner = self.0.lock();
        let rate = inner.rate;
        *inner = Inner { rate, ..Inner::default() };
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
