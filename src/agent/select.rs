//! Which handler to use, out of those that are in the list, and why that one. Pure: it is told who answered.
//!
//! *Ordered*: the list's own order; among equals chance. *Nearest*: the class of the address (internal, external,
//! installed default), then hops, then chance; latency is measured for people, and decides nothing.

use std::cmp::Ordering;
use std::fmt;
use std::time::Duration;

use super::pace::chance_of;

/// How a handler is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// By the order of the list.
    #[default]
    Ordered,
    /// By address class and hops.
    Nearest,
}

impl Method {
    /// The word in configuration, sitelist and status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ordered => "ordered",
            Self::Nearest => "nearest",
        }
    }
}

/// What kind of address it is. In the order of preference; the number is what people see as priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Inside of the organisation.
    Internal = 1,
    /// Reachable from outside.
    External = 2,
    /// What the agent was installed with; it stays whatever the list says.
    Installed = 3,
}

/// One address of one handler.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// The handler's name in the list; its address where it was installed.
    pub handler: String,
    /// `host:port`.
    pub address: String,
    /// Its place in the list; lower first, equal means choose by chance.
    pub order: u32,
    /// What kind of address it is.
    pub class: Class,
    /// Whether the list says that it is being emptied.
    pub draining: bool,
}

/// What became of asking a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It answered.
    Answered {
        /// Routers on the way, where the handler could tell.
        hops: Option<u8>,
        /// From the question to the answer.
        latency: Duration,
        /// Whether it says itself that it is being emptied.
        draining: bool,
    },
    /// It did not, or not as a handler does; why, for people.
    Silent(String),
    /// Nobody asked: one before it answers.
    NotAsked,
}

/// A candidate and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The candidate.
    pub candidate: Candidate,
    /// What it did.
    pub seen: Seen,
    /// Whether a request to it failed a short time ago: it answers questions and is of no use.
    pub failed_lately: bool,
}

/// What makes one candidate come before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advantage {
    /// The other one is being emptied, failed lately, or does not answer.
    Health,
    /// The order of the list.
    Order,
    /// The class of the address.
    Class,
    /// Hops.
    Hops,
    /// Chance among equals.
    Chance,
}

/// Why a candidate stands where it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is used; what puts it before the next that answers, `None` where there is no other.
    Chosen(Option<Advantage>),
    /// It answers, and is worse than the one before it.
    Behind(Advantage),
    /// It answers, and is being emptied.
    Draining,
    /// It answers, but a request to it failed a short time ago.
    FailedLately,
    /// One before it answers, so it was not asked.
    NotAsked,
    /// It does not answer.
    Silent(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chosen(None) => "chosen: no other answers",
            Self::Chosen(Some(Advantage::Health)) => "chosen: the others are draining or failed lately",
            Self::Chosen(Some(Advantage::Order)) => "chosen: first in order",
            Self::Chosen(Some(Advantage::Class)) => "chosen: best class of address",
            Self::Chosen(Some(Advantage::Hops)) => "chosen: fewest hops",
            Self::Chosen(Some(Advantage::Chance)) => "chosen: by chance among equals",
            Self::Behind(Advantage::Order) => "later in order",
            Self::Behind(Advantage::Class) => "worse class of address",
            Self::Behind(Advantage::Hops) => "more hops",
            Self::Behind(Advantage::Health | Advantage::Chance) => "equal, behind by chance",
            Self::Draining => "draining",
            Self::FailedLately => "a request failed lately",
            Self::NotAsked => "not asked: one before it answers",
            Self::Silent(why) => return write!(f, "no answer: {why}"),
        })
    }
}

/// One line of the evaluated list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Whom it is about.
    pub candidate: Candidate,
    /// What it was compared by first: its order, or the number of its class.
    pub priority: u32,
    /// What it did.
    pub seen: Seen,
    /// Why it stands here.
    pub reason: Reason,
}

impl Line {
    /// Hops to it, where known.
    pub const fn hops(&self) -> Option<u8> {
        match self.seen {
            Seen::Answered { hops, .. } => hops,
            Seen::Silent(_) | Seen::NotAsked => None,
        }
    }

    /// How long it took to answer, where it did.
    pub const fn latency(&self) -> Option<Duration> {
        match self.seen {
            Seen::Answered { latency, .. } => Some(latency),
            Seen::Silent(_) | Seen::NotAsked => None,
        }
    }
}

/// The order to ask candidates in: the one they would have if all of them answered alike.
pub fn asking_order(method: Method, candidates: &[Candidate], seed: u64) -> Vec<Candidate> {
    let alike = |candidate: &Candidate| Observed {
        candidate: candidate.clone(),
        seen: Seen::Answered { hops: None, latency: Duration::ZERO, draining: false },
        failed_lately: false,
    };
    let lines = evaluate(method, candidates.iter().map(alike).collect(), seed);
    lines.into_iter().map(|line| line.candidate).collect()
}

/// All candidates, best first, each with its reason. The first is to be used if its reason is [`Reason::Chosen`];
/// otherwise nobody answers. The order of `observed` does not matter.
pub fn evaluate(method: Method, mut observed: Vec<Observed>, seed: u64) -> Vec<Line> {
    observed.sort_by(|one, other| compare(method, seed, one, other).1);
    let advantage = observed.first().zip(observed.get(1)).and_then(|(first, after)| match after.seen {
        Seen::Silent(_) => None,
        Seen::Answered { .. } => Some(compare(method, seed, first, after).0),
        // It was not asked because of what comes before health.
        Seen::NotAsked => {
            let alike = Observed { candidate: after.candidate.clone(), ..first.clone() };
            Some(compare(method, seed, first, &alike).0)
        }
    });
    let mut before = None;
    let mut lines = Vec::with_capacity(observed.len());
    for it in &observed {
        let reason = match (&it.seen, before) {
            (Seen::Silent(why), _) => Reason::Silent(why.clone()),
            (Seen::NotAsked, _) => Reason::NotAsked,
            (_, None) => Reason::Chosen(advantage),
            _ if health(it) == DRAINING => Reason::Draining,
            _ if it.failed_lately => Reason::FailedLately,
            (_, Some(before)) => Reason::Behind(compare(method, seed, before, it).0),
        };
        let priority = match method {
            Method::Ordered => it.candidate.order,
            Method::Nearest => it.candidate.class as u32,
        };
        lines.push(Line { candidate: it.candidate.clone(), priority, seen: it.seen.clone(), reason });
        before = Some(it);
    }
    lines
}

const DRAINING: u8 = 2;
const NOT_ASKED: u8 = 3;

/// How well a candidate is; lower is better.
fn health(it: &Observed) -> u8 {
    match it.seen {
        Seen::Answered { draining, .. } if draining || it.candidate.draining => DRAINING,
        Seen::Answered { .. } => it.failed_lately.into(),
        Seen::NotAsked => NOT_ASKED,
        Seen::Silent(_) => NOT_ASKED + 1,
    }
}

/// The order of two candidates, and what it comes from. Total: the last word has the address.
fn compare(method: Method, seed: u64, one: &Observed, other: &Observed) -> (Advantage, Ordering) {
    let (a, b) = (&one.candidate, &other.candidate);
    let hops = |it: &Observed| match it.seen {
        Seen::Answered { hops: Some(hops), .. } => u16::from(hops),
        _ => u16::MAX,
    };
    let by_chance = |a: &str, b: &str| chance_of(seed, a).cmp(&chance_of(seed, b)).then_with(|| a.cmp(b));
    let health = (Advantage::Health, health(one).cmp(&health(other)));
    let steps = match method {
        Method::Ordered => [
            health,
            (Advantage::Order, a.order.cmp(&b.order)),
            // One handler's addresses stand together, the internal one first.
            (Advantage::Chance, by_chance(&a.handler, &b.handler)),
            (Advantage::Class, a.class.cmp(&b.class)),
        ],
        Method::Nearest => [
            health,
            (Advantage::Class, a.class.cmp(&b.class)),
            (Advantage::Hops, hops(one).cmp(&hops(other))),
            (Advantage::Chance, by_chance(&a.handler, &b.handler)),
        ],
    };
    let decided = steps.into_iter().find(|(_, order)| order.is_ne());
    decided.unwrap_or_else(|| (Advantage::Chance, by_chance(&a.address, &b.address)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(handler: &str, order: u32, class: Class) -> Candidate {
        let address = format!("{handler}-{class:?}.example:443");
        Candidate { handler: handler.to_owned(), address, order, class, draining: false }
    }

    fn answered(candidate: Candidate, hops: u8) -> Observed {
        let seen = Seen::Answered { hops: Some(hops), latency: Duration::from_millis(3), draining: false };
        Observed { candidate, seen, failed_lately: false }
    }

    fn silent(candidate: Candidate) -> Observed {
        Observed { candidate, seen: Seen::Silent("refused".to_owned()), failed_lately: false }
    }

    fn told(lines: &[Line]) -> Vec<(&str, String)> {
        lines.iter().map(|line| (&*line.candidate.handler, line.reason.to_string())).collect()
    }

    #[test]
    fn in_order_the_first_that_answers_is_chosen_however_far_it_is() {
        let lines = evaluate(
            Method::Ordered,
            vec![
                answered(candidate("c", 3, Class::Internal), 1),
                answered(candidate("b", 2, Class::External), 30),
                silent(candidate("a", 1, Class::Internal)),
            ],
            7,
        );
        let expected =
            [("b", "chosen: first in order"), ("c", "later in order"), ("a", "no answer: refused")];
        assert_eq!(told(&lines), expected.map(|(handler, why)| (handler, why.to_owned())));
        assert_eq!(lines[0].priority, 2);
    }

    #[test]
    fn nearest_looks_at_the_class_then_at_hops_and_never_at_the_order() {
        let lines = evaluate(
            Method::Nearest,
            vec![
                answered(candidate("far", 1, Class::Internal), 9),
                answered(candidate("near", 9, Class::Internal), 2),
                answered(candidate("outside", 1, Class::External), 1),
                answered(candidate("installed", 1, Class::Installed), 0),
            ],
            7,
        );
        let expected = [
            ("near", "chosen: fewest hops"),
            ("far", "more hops"),
            ("outside", "worse class of address"),
            ("installed", "worse class of address"),
        ];
        assert_eq!(told(&lines), expected.map(|(handler, why)| (handler, why.to_owned())));
        assert_eq!(lines.iter().map(|line| line.priority).collect::<Vec<_>>(), [1, 1, 2, 3]);
    }

    #[test]
    fn who_drains_or_failed_lately_is_used_only_when_nobody_else_answers() {
        let mut failed = answered(candidate("failed", 1, Class::Internal), 1);
        failed.failed_lately = true;
        let mut draining = answered(candidate("draining", 2, Class::Internal), 1);
        draining.candidate.draining = true;
        let good = answered(candidate("good", 3, Class::Internal), 1);
        let lines = evaluate(Method::Ordered, vec![failed.clone(), draining.clone(), good], 1);
        let expected = [
            ("good", "chosen: the others are draining or failed lately"),
            ("failed", "a request failed lately"),
            ("draining", "draining"),
        ];
        assert_eq!(told(&lines), expected.map(|(handler, why)| (handler, why.to_owned())));
        let lines = evaluate(Method::Ordered, vec![draining], 1);
        assert_eq!(lines[0].reason, Reason::Chosen(None));
        assert!(evaluate(Method::Nearest, Vec::new(), 1).is_empty());
    }

    #[test]
    fn equals_are_spread_by_the_seed() {
        let equals = || (0..4).map(|name| answered(candidate(&name.to_string(), 1, Class::Internal), 1));
        let mut counts = [0_u32; 4];
        for seed in 0..4_000 {
            let lines = evaluate(Method::Ordered, equals().collect(), seed);
            assert_eq!(lines[0].reason, Reason::Chosen(Some(Advantage::Chance)));
            counts[lines[0].candidate.handler.parse::<usize>().unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (900..1_100).contains(count)), "{counts:?}");
    }

    fn any_observed() -> impl Strategy<Value = Vec<Observed>> {
        let seen = prop_oneof![
            (prop::option::of(0_u8..4), any::<bool>()).prop_map(|(hops, draining)| Seen::Answered {
                hops,
                latency: Duration::from_millis(1),
                draining
            }),
            Just(Seen::Silent("gone".to_owned())),
            Just(Seen::NotAsked),
        ];
        let class = prop::sample::select(vec![Class::Internal, Class::External, Class::Installed]);
        let one = (0_u32..4, 0_usize..6, class, any::<bool>(), seen, any::<bool>());
        prop::collection::vec(one, 0..12).prop_map(|all| {
            let numbered = all.into_iter().enumerate();
            numbered
                .map(|(number, (order, handler, class, draining, seen, failed_lately))| Observed {
                    candidate: Candidate {
                        handler: handler.to_string(),
                        address: format!("h{number}:443"),
                        order,
                        class,
                        draining,
                    },
                    seen,
                    failed_lately,
                })
                .collect()
        })
    }

    /// What decides before chance, said once more and in another way.
    fn rank(method: Method, it: &Observed) -> (u8, u32, u32) {
        let Seen::Answered { hops, draining, .. } = it.seen else {
            return (if it.seen == Seen::NotAsked { 8 } else { 9 }, by(method, it), 999);
        };
        let health = if draining || it.candidate.draining { 5 } else { u8::from(it.failed_lately) };
        (health, by(method, it), hops.map_or(999, u32::from) * u32::from(method == Method::Nearest))
    }

    fn by(method: Method, it: &Observed) -> u32 {
        if method == Method::Ordered { it.candidate.order } else { it.candidate.class as u32 }
    }

    proptest! {
        #[test]
        fn the_order_is_total_and_does_not_hang_on_how_it_was_told(observed in any_observed(), seed: u64, nearest: bool) {
            let method = if nearest { Method::Nearest } else { Method::Ordered };
            let lines = evaluate(method, observed.clone(), seed);
            let mut turned = observed.clone();
            turned.reverse();
            prop_assert_eq!(&lines, &evaluate(method, turned, seed));
            prop_assert_eq!(lines.len(), observed.len());
            let ranks: Vec<_> = lines.iter().map(|line| {
                let it = observed.iter().find(|it| it.candidate.address == line.candidate.address).unwrap();
                rank(method, it)
            }).collect();
            prop_assert!(ranks.is_sorted(), "{ranks:?}");
        }

        #[test]
        fn the_one_chosen_answers_and_somebody_is_chosen_if_anybody_answers(
            observed in any_observed(), seed: u64, nearest: bool,
        ) {
            let method = if nearest { Method::Nearest } else { Method::Ordered };
            let answers = observed.iter().any(|it| matches!(it.seen, Seen::Answered { .. }));
            let lines = evaluate(method, observed, seed);
            let chosen = |line: &Line| matches!(line.reason, Reason::Chosen(_));
            prop_assert_eq!(lines.first().is_some_and(chosen), answers);
            prop_assert!(!lines.iter().skip(1).any(chosen));
        }
    }
}
