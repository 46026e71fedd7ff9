//! Balanced order: a weighted rendezvous hash. Each agent gives each member a number of its own, and orders them by it;
//! a member that joins, leaves or changes its weight changes no other's number, so only the agents move that must.

use crate::base::digest::Digest;

/// What an agent or a member is hashed by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seed(u64);

impl Seed {
    /// Of an agent's id or a member's name.
    pub(super) fn of(name: &str) -> Self {
        let Digest([a, b, c, d, e, f, g, h, ..]) = Digest::of(name.as_bytes());
        Self(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// The number that `agent` gives a member; the greatest is first. Members of twice the weight are first for twice as
/// many agents. One without weight is behind all that have some.
pub(super) fn score(agent: Seed, member: Seed, weight: u64) -> f64 {
    // The finalizer of splitmix64 over both: a bit of either changes half of the bits.
    let mut bits = agent.0 ^ member.0.rotate_left(32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    // 53 bits and a half: never 0 and never 1, so that the logarithm is finite and not zero.
    let unit = ((bits >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    if weight == 0 { -1.0 / unit } else { weight as f64 / -unit.ln() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first<'m>(agent: &str, members: &[(&'m str, u64)]) -> &'m str {
        let agent = Seed::of(agent);
        let best = members
            .iter()
            .max_by(|one, two| {
                score(agent, Seed::of(one.0), one.1).total_cmp(&score(agent, Seed::of(two.0), two.1))
            })
            .expect("a member");
        best.0
    }

    fn shares(agents: usize, members: &[(&str, u64)]) -> Vec<f64> {
        let mut counts = vec![0_f64; members.len()];
        for number in 0..agents {
            let chosen = first(&format!("agent-{number}"), members);
            counts[members.iter().position(|(name, _)| *name == chosen).expect("a member")] += 1.0;
        }
        counts
    }

    #[test]
    fn a_thousand_agents_spread_by_weight_within_a_tenth() {
        for members in [&[("wp-a", 100), ("wp-b", 100)][..], &[("wp-a", 100), ("wp-b", 200)]] {
            let total: u64 = members.iter().map(|(_, weight)| weight).sum();
            for (count, (name, weight)) in shares(1_000, members).iter().zip(members) {
                let due = 1_000.0 * *weight as f64 / total as f64;
                assert!((count - due).abs() <= due / 10.0, "{name}: {count} of {due}");
            }
        }
    }

    #[test]
    fn many_agents_spread_over_many_members_by_weight() {
        let members = [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 10)];
        for (count, (name, weight)) in shares(40_000, &members).iter().zip(members) {
            let due = 40_000.0 * weight as f64 / 20.0;
            assert!((count - due).abs() <= due / 20.0, "{name}: {count} of {due}");
        }
    }

    #[test]
    fn who_joins_takes_and_who_leaves_gives_and_nobody_else_moves() {
        let before = [("a", 100), ("b", 100), ("c", 50)];
        let after = [("a", 100), ("b", 100), ("c", 50), ("d", 100)];
        let mut moved = 0;
        for number in 0..5_000 {
            let agent = format!("pc-{number:05}");
            let (one, two) = (first(&agent, &before), first(&agent, &after));
            assert!(one == two || two == "d", "{agent} went from {one} to {two}");
            moved += usize::from(one != two);
        }
        // 100 of 350 of the weight.
        assert!((1_200..1_700).contains(&moved), "{moved}");
    }

    #[test]
    fn a_member_without_weight_is_behind_all_others() {
        for number in 0..200 {
            assert_eq!(first(&format!("agent-{number}"), &[("a", 0), ("b", 1)]), "b");
        }
        let shares = shares(1_000, &[("a", 0), ("b", 0)]);
        assert!(shares.iter().all(|count| (400.0..600.0).contains(count)), "{shares:?}");
    }
}
