//! The upstreams of one repository, in the order to ask them.

use std::cmp::Reverse;
use std::sync::Arc;

use super::Upstream;
use super::health::State;
use crate::base::clock::Timestamp;

/// The upstreams of one repository.
#[derive(Debug, Clone, Default)]
pub struct Sources(Vec<Arc<Upstream>>);

impl Sources {
    /// Orders by priority, lower first; equal ones stay as given.
    pub fn new(mut upstreams: Vec<Arc<Upstream>>) -> Self {
        upstreams.sort_by_key(|upstream| upstream.priority());
        Self(upstreams)
    }

    /// All of them, by priority.
    pub fn all(&self) -> &[Arc<Upstream>] {
        &self.0
    }

    /// The upstreams worth asking, best first: by priority; among equals the ones without recent failures, then the
    /// fastest (steps of two; unmeasured ones first, so that they get measured). One whose back-off is over comes
    /// at its place, to one caller at a time: it is handed out as the probe only when the iterator reaches it,
    /// so ask it or leave it un-iterated.
    pub fn candidates(&self, now: Timestamp) -> impl Iterator<Item = Arc<Upstream>> + Send + use<> {
        self.ranked(now, |_| Some(0))
    }

    /// As [`Sources::candidates`], without those that have no rank, and before anything else in the order of their
    /// ranks, lower first.
    pub fn ranked<R>(&self, now: Timestamp, rank: R) -> impl Iterator<Item = Arc<Upstream>> + Send + use<R>
    where
        R: Fn(&str) -> Option<u8>,
    {
        let ranked =
            self.0.iter().filter_map(|upstream| Some((rank(upstream.name())?, Arc::clone(upstream))));
        let mut order: Vec<_> = ranked.collect();
        order.sort_by_cached_key(|(rank, upstream)| {
            let health = upstream.health();
            let speed = health.throughput().map_or(u32::MAX, |rate| u64::BITS - rate.leading_zeros());
            (*rank, upstream.priority(), health.failures(), Reverse(speed))
        });
        order.into_iter().map(|(_, upstream)| upstream).filter(move |upstream| upstream.health().admit(now))
    }

    /// Whether all of them are known to be in trouble: if one may be asked at all, then as a probe.
    pub fn in_doubt(&self, now: Timestamp) -> bool {
        self.0.iter().all(|upstream| upstream.health().state(now) != State::Up)
    }

    /// When the first upstream may be asked again, if none may be now. `None` if one may, or if there is none at all.
    pub fn down_until(&self, now: Timestamp) -> Option<Timestamp> {
        let mut first: Option<Timestamp> = None;
        for upstream in &self.0 {
            match upstream.health().state(now) {
                State::Up | State::HalfOpen => return None,
                State::Down { until } | State::Probing { until } => {
                    first = Some(first.map_or(until, |first| first.min(until)));
                }
            }
        }
        first
    }
}
