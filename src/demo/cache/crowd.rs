//! A crowd: many agents that ask for one file at the same moment, and what became of each.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::ensure;
use http::StatusCode;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::agent::{Fetched, Handler, Manner};
use super::content::Item;

/// What a crowd got.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// Agents that asked.
    pub(super) agents: usize,
    /// Those whose bytes have the expected SHA-256, sorted by nothing.
    pub(super) verified: Vec<Fetched>,
    /// Those who left on purpose.
    pub(super) left: usize,
    /// What the others say went wrong.
    pub(super) failures: Vec<String>,
}

/// Sends `agents` agents for `item`; the first of them behaves as `first` says, the rest stay to the end.
pub(super) async fn rush(
    handler: &Handler,
    item: &Item,
    agents: usize,
    first: Manner,
    delivered: &Arc<AtomicU64>,
) -> Crowd {
    let (gun, ready) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for number in 0..agents {
        let manner = if number == 0 { first } else { Manner::default() };
        let (handler, item, delivered) = (handler.clone(), item.clone(), Arc::clone(delivered));
        let mut ready = ready.clone();
        tasks.spawn(async move {
            ready.wait_for(|fired| *fired).await?;
            let fetched = handler.fetch(item.path, manner, &delivered).await?;
            check(&fetched, &item).map(|()| fetched)
        });
    }
    gun.send_replace(true);
    let mut crowd = Crowd { agents, ..Crowd::default() };
    while let Some(outcome) = tasks.join_next().await {
        match outcome.map_err(anyhow::Error::from).flatten() {
            Ok(fetched) if fetched.complete => crowd.verified.push(fetched),
            Ok(_) => crowd.left += 1,
            Err(error) => crowd.failures.push(format!("{error:#}")),
        }
    }
    crowd
}

/// Whether an agent may use what it got. Who left has nothing to check.
pub(super) fn check(fetched: &Fetched, item: &Item) -> anyhow::Result<()> {
    ensure!(fetched.status == StatusCode::OK, "answered {}", fetched.status);
    if fetched.complete {
        ensure!(fetched.bytes == item.size, "{} of {} bytes", fetched.bytes, item.size);
        ensure!(fetched.digest == item.digest, "the bytes have another SHA-256");
    }
    Ok(())
}

impl Crowd {
    /// The first-byte time that `share` (0 to 1) of the verified agents did not exceed (nearest rank).
    pub(super) fn first_byte(&self, share: f64) -> Duration {
        let mut times: Vec<_> = self.verified.iter().map(|fetched| fetched.first_byte).collect();
        times.sort_unstable();
        let rank = (times.len() as f64 * share).ceil() as usize;
        times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// When the last one was done.
    pub(super) fn last_byte(&self) -> Duration {
        self.verified.iter().map(|fetched| fetched.last_byte).max().unwrap_or_default()
    }

    /// Everyone who stayed has the right bytes.
    pub(super) fn all_right(&self) -> bool {
        self.failures.is_empty() && self.verified.len() + self.left == self.agents
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::digest::Digest;

    fn fetched(millis: u64) -> Fetched {
        Fetched {
            status: StatusCode::OK,
            retry_after: None,
            digest: Digest::of(b"abc"),
            bytes: 3,
            first_byte: Duration::from_millis(millis),
            last_byte: Duration::from_millis(millis * 2),
            complete: true,
            text: String::new(),
        }
    }

    #[test]
    fn a_percentile_is_an_agent_that_was_measured() {
        let verified = (1..=100).rev().map(fetched).collect();
        let crowd = Crowd { agents: 100, verified, ..Crowd::default() };
        assert_eq!(crowd.first_byte(0.5), Duration::from_millis(50));
        assert_eq!(crowd.first_byte(0.99), Duration::from_millis(99));
        assert_eq!(crowd.last_byte(), Duration::from_millis(200));
        assert_eq!(Crowd::default().first_byte(0.99), Duration::ZERO);
    }

    #[test]
    fn short_wrong_and_refused_bodies_are_failures() {
        let item = Item { path: "x", size: 3, digest: Digest::of(b"abc") };
        assert!(check(&fetched(1), &item).is_ok());
        assert!(check(&Fetched { bytes: 2, ..fetched(1) }, &item).is_err());
        assert!(check(&Fetched { digest: Digest::of(b"abd"), ..fetched(1) }, &item).is_err());
        assert!(check(&Fetched { status: StatusCode::BAD_GATEWAY, ..fetched(1) }, &item).is_err());
        assert!(check(&Fetched { bytes: 2, complete: false, ..fetched(1) }, &item).is_ok());
    }
}
