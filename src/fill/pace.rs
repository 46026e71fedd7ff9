//! How fast fills go that nobody waits for: one bucket of bytes, shared by all of them, so that what is fetched ahead
//! gives way to what is asked for.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::state::Fill;

/// A shared rate. A fill that has readers neither waits here nor is counted.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: u64,
    /// How far the bucket runs ahead of the rate when it has not been used for a while.
    burst: Duration,
    /// When everything let through so far is paid for.
    paid_at: Mutex<Option<Instant>>,
}

impl Pace {
    /// So many bytes a second (at least one), and at most `burst` bytes at once after a pause.
    pub fn new(bytes_per_second: u64, burst: u64) -> Self {
        let bytes_per_second = bytes_per_second.max(1);
        Self { bytes_per_second, burst: time_of(burst, bytes_per_second), paid_at: Mutex::default() }
    }

    /// Books `bytes` and says how long they wait.
    fn book(&self, bytes: u64, now: Instant) -> Duration {
        let mut paid_at = self.paid_at.lock();
        // Time that nobody used is lost: the bucket is never fuller than the burst.
        let from = paid_at.map_or(now, |paid_at| paid_at.max(now));
        let until = from + time_of(bytes, self.bytes_per_second);
        *paid_at = Some(until);
        until.duration_since(now).saturating_sub(self.burst)
    }

    /// Holds a fill back that nobody reads, for `bytes` that came for it. Ends at once when somebody sits down.
    pub(super) async fn give_way(&self, fill: &Fill, bytes: u64) {
        if fill.interest() > 0 {
            return;
        }
        let now = Instant::now();
        let until = now + self.book(bytes, now);
        while fill.interest() == 0 {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                () = fill.seated.notified() => {}
            }
        }
    }
}

/// Never longer than an hour: whoever configured less than that pays with a wrong rate, not with an overflow.
fn time_of(bytes: u64, bytes_per_second: u64) -> Duration {
    let seconds = bytes as f64 / bytes_per_second as f64;
    Duration::from_secs_f64(seconds.min(3_600.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_a_burst_bytes_go_at_the_rate() {
        let pace = Pace::new(1_000, 500);
        let now = Instant::now();
        assert_eq!(pace.book(500, now), Duration::ZERO, "the burst");
        assert_eq!(pace.book(1_000, now), Duration::from_secs(1));
        assert_eq!(pace.book(1_000, now), Duration::from_secs(2), "everybody pays into one bucket");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_worth_no_more_than_the_burst() {
        let pace = Pace::new(1_000, 500);
        assert_eq!(pace.book(500, Instant::now()), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(3_000)).await;
        assert_eq!(pace.book(1_500, Instant::now()), Duration::from_secs(1));
    }

    #[test]
    fn a_rate_of_nothing_is_a_byte_a_second() {
        assert_eq!(Pace::new(0, 0).bytes_per_second, 1);
    }
}
