//! How long a body has been waited for, and how much of it came: the ground for "stalled" and "too slow".
//!
//! Only the time spent waiting for the upstream counts. A fill that pauses because its readers are slow, or that drops
//! the waiting future to look at something else, changes nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::BodyError;

/// What a body must reach.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) stall: Duration,
    pub(super) min_rate: u64,
    pub(super) window: Duration,
}

/// The measurement of one body.
#[derive(Debug)]
pub(super) struct Meter {
    pace: Pace,
    begun: Instant,
    waited: Duration,
    quiet: Duration,
    window_waited: Duration,
    window_bytes: u64,
    pub(super) bytes: u64,
}

impl Meter {
    pub(super) fn new(pace: Pace) -> Self {
        let zero = Duration::ZERO;
        Self {
            pace,
            begun: Instant::now(),
            waited: zero,
            quiet: zero,
            window_waited: zero,
            window_bytes: 0,
            bytes: 0,
        }
    }

    /// Starts to wait; the guard's drop ends it.
    pub(super) fn wait(&mut self) -> Waiting<'_> {
        Waiting { meter: self, since: Instant::now() }
    }

    /// Takes note of time spent waiting.
    fn waited(&mut self, time: Duration) {
        self.waited += time;
        self.quiet += time;
        self.window_waited += time;
    }

    /// The longest that may still be waited for the next byte.
    pub(super) fn patience(&self) -> Duration {
        self.pace.stall.saturating_sub(self.quiet)
    }

    /// Takes note of `bytes` that arrived.
    pub(super) fn arrived(&mut self, bytes: usize) -> Result<(), BodyError> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.quiet = Duration::ZERO;
        self.bytes = self.bytes.saturating_add(bytes);
        self.window_bytes = self.window_bytes.saturating_add(bytes);
        if self.pace.min_rate == 0 || self.window_waited < self.pace.window {
            return Ok(());
        }
        let rate = per_second(self.window_bytes, self.window_waited);
        self.window_bytes = 0;
        self.window_waited = Duration::ZERO;
        if rate < self.pace.min_rate {
            Err(BodyError::TooSlow { rate, minimum: self.pace.min_rate })
        } else {
            Ok(())
        }
    }

    /// Bytes and the time since the head, if most of it was spent waiting; otherwise the body says nothing about
    /// the upstream.
    pub(super) fn throughput(&self) -> Option<(u64, Duration)> {
        self.throughput_in(self.begun.elapsed())
    }

    fn throughput_in(&self, whole: Duration) -> Option<(u64, Duration)> {
        (self.waited >= whole / 2).then_some((self.bytes, whole))
    }
}

fn per_second(bytes: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(bytes) * 1_000_000 / time.as_micros().max(1)).unwrap_or(u64::MAX)
}

/// The time from now to its drop is spent waiting.
pub(super) struct Waiting<'a> {
    meter: &'a mut Meter,
    since: Instant,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.meter.waited(self.since.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn meter() -> Meter {
        Meter::new(Pace { stall: 20 * SECOND, min_rate: 100, window: 30 * SECOND })
    }

    #[test]
    fn waits_that_were_broken_off_add_up_to_a_stall() {
        let mut meter = meter();
        meter.waited(8 * SECOND);
        meter.waited(8 * SECOND);
        assert_eq!(meter.patience(), 4 * SECOND);
        meter.arrived(1).unwrap();
        assert_eq!(meter.patience(), 20 * SECOND);
    }

    #[test]
    fn a_pause_of_ours_is_neither_stall_nor_slowness() {
        let mut meter = meter();
        for _ in 0..10 {
            meter.waited(SECOND);
            meter.arrived(10).unwrap();
        }
        assert_eq!(meter.patience(), 20 * SECOND);
        assert_eq!(meter.throughput_in(1_010 * SECOND), None);
    }

    #[test]
    fn a_trickle_is_too_slow_after_a_window_and_the_rate_is_named() {
        let mut meter = meter();
        let mut seconds = 0;
        let error = loop {
            meter.waited(SECOND);
            seconds += 1;
            if let Err(error) = meter.arrived(99) {
                break error;
            }
        };
        assert_eq!((seconds, error), (30, BodyError::TooSlow { rate: 99, minimum: 100 }));
    }

    #[test]
    fn fast_enough_is_measured_and_goes_on() {
        let mut meter = meter();
        for _ in 0..100 {
            meter.waited(SECOND);
            meter.arrived(100).unwrap();
        }
        assert_eq!(meter.throughput_in(100 * SECOND), Some((10_000, 100 * SECOND)));
    }
}
