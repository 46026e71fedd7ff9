//! The scrub: reads the blocks that nobody asks for, slowly, so that rot is found before its file is needed.
//!
//! A pass begins at a place of its own choice: one that always began at the front would, on a node that is restarted
//! every day, never come to the end of a large cache.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::Store;
use super::error::Damage;
use super::pool::Lane;
use super::shared::{Shared, count};
use super::totals::ScrubReport;
use crate::base::digest::Digest;

/// Blocks that are looked up at a time.
const STEP: usize = 64;
/// Between the beginnings of two passes, at least: a small cache is not read over and over.
const PASS_EVERY: Duration = Duration::from_secs(24 * 3600);

impl Store {
    /// Scrubs for ever, one pass after the other, at no more than `bytes_per_second`. Ends only when the store does.
    pub async fn keep_scrubbing(&self, bytes_per_second: u64) {
        while !self.0.pool.is_closed() {
            let begun = Instant::now();
            let report = self.scrub(bytes_per_second).await;
            let ScrubReport { checked, bad, missing } = report;
            tracing::info!(checked, bad, missing, seconds = begun.elapsed().as_secs(), "cache scrubbed");
            tokio::time::sleep_until(begun + PASS_EVERY).await;
        }
    }

    /// One pass of the scrub: reads every block that a record names and compares it with its name, at no more
    /// than `bytes_per_second`. Bad blocks are dropped; they are fetched again when they are asked for.
    pub async fn scrub(&self, bytes_per_second: u64) -> ScrubReport {
        let mut report = ScrubReport::default();
        let begin = somewhere();
        let (mut last, mut wrapped) = (begin, false);
        self.index_opened().await;
        loop {
            let shared = std::sync::Arc::clone(self.shared());
            let list = move || shared.index.blocks_after(last, STEP);
            let Some(Ok(blocks)) = self.0.pool.run(Lane::Write, list).await else { return report };
            for (digest, len) in &blocks {
                if wrapped && begin.is_none_or(|begin| begin.0 < digest.0) {
                    return report;
                }
                last = Some(*digest);
                let (shared, digest) = (std::sync::Arc::clone(self.shared()), *digest);
                let Some(found) = self.0.pool.run(Lane::Write, move || check(&shared, &digest)).await else {
                    return report;
                };
                self.shared().counts.scrubbed.fetch_add(u64::from(*len), Ordering::Relaxed);
                report.checked += 1;
                match found {
                    Some(Damage::Missing) => report.missing += 1,
                    Some(_) => report.bad += 1,
                    None => {}
                }
                let pause = f64::from(*len) / bytes_per_second.max(1) as f64;
                tokio::time::sleep(Duration::from_secs_f64(pause)).await;
            }
            if blocks.len() < STEP {
                if wrapped || begin.is_none() {
                    return report;
                }
                (last, wrapped) = (None, true);
            }
        }
    }
}

/// Where a pass begins; `None` is the front.
fn somewhere() -> Option<Digest> {
    let mut place = [0; 32];
    getrandom::fill(&mut place).ok().map(|()| Digest(place))
}

/// Checks one block: `None` where all is well.
pub(super) fn check(shared: &Shared, digest: &Digest) -> Option<Damage> {
    let damage = shared.content.read(digest, None).err()?;
    // Freed since it was listed: then it is right that it is gone.
    if !shared.index.names(digest).unwrap_or(false) {
        return None;
    }
    if matches!(damage, Damage::Content | Damage::Length) {
        tracing::warn!(%digest, damage = damage.as_str(), "bad block: dropped by the scrub, to be fetched again");
        count(&shared.counts.bad_scrub);
        shared.forget(digest);
        let _ = shared.content.remove(digest);
    }
    Some(damage)
}
