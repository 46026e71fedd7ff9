//! How long to wait: everything that many agents do at intervals is spread, so that an outage that ends for all of
//! them at once does not end with all of them at the door. Pure: the chance comes in as a seed.

use std::time::Duration;

/// Every so often where all goes well: a check-in, a verification. Half as much shorter or longer would be felt; a
/// tenth spreads 10,000 agents of an hourly check-in over twelve minutes.
const REGULAR_SPREAD: u32 = 10;

/// Retries in `No Connection` that keep to the first interval before they back off.
const STEADY_RETRIES: u32 = 5;

/// Chance as a number, equal for equal seeds: what else there is to tell draws apart goes in as `draw`.
/// SplitMix64 (Steele, Lea, Flood 2014): no table, and neighbours come out unlike each other.
pub fn chance(seed: u64, draw: u64) -> u64 {
    let mut mixed = seed ^ draw.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = mixed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Chance that hangs on a name.
pub fn chance_of(seed: u64, name: &str) -> u64 {
    name.bytes().fold(chance(seed, name.len() as u64), |mixed, byte| chance(mixed, byte.into()))
}

/// `interval`, longer or shorter by up to a tenth.
pub fn regular(interval: Duration, seed: u64, draw: u64) -> Duration {
    within(interval - interval / REGULAR_SPREAD, interval / REGULAR_SPREAD * 2, seed, draw)
}

/// A moment within `span`.
pub fn anywhere(span: Duration, seed: u64, draw: u64) -> Duration {
    within(Duration::ZERO, span, seed, draw)
}

/// The wait before retry `attempt` (the first is 0) when nobody answers: `first` for a while, then twice as long each
/// time up to `most`; of that, between half and one and a half.
pub fn retry(first: Duration, most: Duration, attempt: u32, seed: u64) -> Duration {
    let doublings = attempt.saturating_sub(STEADY_RETRIES - 1).min(16);
    let wait = first.saturating_mul(1 << doublings).min(most.max(first));
    within(wait / 2, wait, seed, attempt.into())
}

fn within(from: Duration, span: Duration, seed: u64, draw: u64) -> Duration {
    let parts = u32::try_from(chance(seed, draw) >> 44).unwrap_or_default();
    from.saturating_add(span.mul_f64(f64::from(parts) / f64::from(1 << 20)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn retries_stay_a_minute_apart_and_then_back_off_up_to_the_most() {
        let most = 15 * MINUTE;
        let middle = |attempt| {
            let all: Duration = (0..1_000).map(|seed| retry(MINUTE, most, attempt, seed)).sum();
            (all / 1_000).as_secs_f64() / 60.0
        };
        for (attempt, minutes) in [(0, 1.0), (4, 1.0), (5, 2.0), (6, 4.0), (8, 15.0), (4_000_000_000, 15.0)] {
            assert!((middle(attempt) / minutes - 1.0).abs() < 0.05, "{attempt}: {}", middle(attempt));
        }
    }

    #[test]
    fn many_agents_do_not_come_at_once() {
        let mut seconds: Vec<u64> =
            (0..1_000).map(|agent| retry(MINUTE, MINUTE, 0, agent).as_secs()).collect();
        seconds.sort_unstable();
        seconds.dedup();
        assert_eq!(seconds.len(), 60, "every second of the minute has its agents");
    }

    proptest! {
        #[test]
        fn a_wait_stays_within_its_bounds(seed: u64, draw: u64, attempt: u32, secs in 1_u64..100_000) {
            let interval = Duration::from_secs(secs);
            let wait = regular(interval, seed, draw);
            prop_assert!(wait >= interval * 9 / 10 && wait <= interval * 11 / 10);
            prop_assert!(anywhere(interval, seed, draw) <= interval);
            let wait = retry(MINUTE, interval, attempt, seed);
            prop_assert!(wait >= MINUTE / 2 && wait <= interval.max(MINUTE) * 3 / 2);
        }
    }
}
