//! A link of limited rate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// A link of limited rate that transfers share.
#[derive(Debug, Default)]
pub(super) struct Link {
    rate: AtomicU64,
    free_at: Mutex<Option<Instant>>,
}

impl Link {
    /// Bytes a second; 0 is without limit.
    pub(super) fn new(rate: u64) -> Self {
        let link = Self::default();
        link.set_rate(rate);
        link
    }

    /// From now on.
    pub(super) fn set_rate(&self, rate: u64) {
        self.rate.store(rate, Ordering::Relaxed);
    }

    /// Waits until `bytes` have passed.
    pub(super) async fn pass(&self, bytes: u64) {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return;
        }
        let until = {
            let mut free_at = self.free_at.lock();
            let now = Instant::now();
            let from = free_at.map_or(now, |at| at.max(now));
            let until = from + Duration::from_micros(bytes.saturating_mul(1_000_000) / rate);
            *free_at = Some(until);
            until
        };
        sleep_until(until).await;
    }
}
