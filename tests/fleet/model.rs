//! Rules against a slow model that looks at each in turn, and what must hold of every order.

use std::fmt::Write as _;
use std::net::IpAddr;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::{agent, at, fleet, names};

/// A rule as it is written: places, networks, tags, tags not to have, agents.
#[derive(Clone, Debug, Default)]
struct Written {
    tree: Vec<&'static str>,
    folder: Vec<&'static str>,
    addresses: Vec<&'static str>,
    tags: Vec<&'static str>,
    all_tags: Vec<&'static str>,
    without_tags: Vec<&'static str>,
    agents: Vec<&'static str>,
}

const PLACES: [&str; 5] = ["/", "/A", "/A/B", "/A/BB", "/C"];
/// Each with the addresses of `ADDRESSES` that it has, by hand.
const NETWORKS: [(&str, &[&str]); 6] = [
    ("10.0.0.0/8", &["10.0.0.1", "10.1.2.3"]),
    ("10.1.2.3", &["10.1.2.3"]),
    ("10.0.0.0-10.1.2.2", &["10.0.0.1"]),
    ("2001:db8::/32", &["2001:db8::7"]),
    ("::/0", &["2001:db8::7", "fe80::1"]),
    ("0.0.0.0/0", &["10.0.0.1", "10.1.2.3", "192.0.2.9"]),
];
const ADDRESSES: [&str; 5] = ["10.0.0.1", "10.1.2.3", "192.0.2.9", "2001:db8::7", "fe80::1"];
const TAGS: [&str; 3] = ["t", "u", "v"];
const AGENTS: [&str; 3] = ["pc-1", "pc-2", "pc-3"];

fn some(of: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<&'static str>> {
    // Half of all keys are not there.
    prop_oneof![Just(Vec::new()), prop::sample::subsequence(of, 1..=most)]
}

fn written() -> impl Strategy<Value = Written> {
    const NAMES: [&str; 6] =
        [NETWORKS[0].0, NETWORKS[1].0, NETWORKS[2].0, NETWORKS[3].0, NETWORKS[4].0, NETWORKS[5].0];
    (
        some(&PLACES, 2),
        some(&PLACES, 2),
        prop_oneof![Just(Vec::new()), prop::sample::subsequence(&NAMES[..], 1..=2)],
        some(&TAGS, 2),
        some(&TAGS, 2),
        some(&TAGS, 2),
        some(&AGENTS, 2),
    )
        .prop_map(|(tree, folder, addresses, tags, all_tags, without_tags, agents)| Written {
            tree,
            folder,
            addresses,
            tags,
            all_tags,
            without_tags,
            agents,
        })
}

fn list(key: &str, values: &[&str]) -> String {
    if values.is_empty() { String::new() } else { format!("{key} = {values:?}\n") }
}

impl Written {
    fn text(&self) -> String {
        [
            list("tree", &self.tree),
            list("folder", &self.folder),
            list("addresses", &self.addresses),
            list("tags", &self.tags),
            list("all_tags", &self.all_tags),
            list("without_tags", &self.without_tags),
            list("agents", &self.agents),
        ]
        .concat()
    }

    /// The model: what the documentation says, word by word.
    fn is_for(&self, id: &str, tree: &str, tags: &[&str], addresses: &[&str]) -> bool {
        let within = |place: &str| place == "/" || tree == place || tree.starts_with(&format!("{place}/"));
        let place = self.tree.iter().any(|it| within(it)) || self.folder.contains(&tree);
        let network = |name: &&str| {
            let (_, has) = NETWORKS.iter().find(|(network, _)| network == name).expect("a network");
            addresses.iter().any(|address| has.contains(address))
        };
        let has = |tag: &&str| tags.contains(tag);
        (self.tree.is_empty() && self.folder.is_empty() || place)
            && (self.addresses.is_empty() || self.addresses.iter().any(network))
            && (self.tags.is_empty() || self.tags.iter().any(has))
            && self.all_tags.iter().all(has)
            && !self.without_tags.iter().any(has)
            && (self.agents.is_empty() || self.agents.contains(&id))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, rng_seed: RngSeed::Fixed(5), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_rule_decides_for_whom_the_slow_model_says(
        rules in prop::collection::vec(written(), 0..12),
        agents in prop::collection::vec(
            (0..AGENTS.len(), 0..PLACES.len(), some(&TAGS, 3), some(&ADDRESSES, 3)), 1..12),
    ) {
        let mut text = super::THREE.to_owned();
        let mut policies = String::new();
        for (number, rule) in rules.iter().enumerate() {
            let criteria = rule.text();
            write!(text, "[[assignment]]\nname = \"{number}\"\nhandlers = [\"a\"]\n{criteria}").expect("text");
            write!(policies, "[[rule]]\nname = \"{number}\"\npolicies = [\"k/p{number}\"]\n{criteria}").expect("text");
        }
        let bodies: Vec<(String, String)> =
            (0..rules.len()).map(|number| (format!("policies/k/p{number}"), number.to_string())).collect();
        let mut files = vec![("fleet.toml", text.as_str()), ("rules.toml", policies.as_str())];
        files.extend(bodies.iter().map(|(name, body)| (name.as_str(), body.as_str())));
        let fleet = fleet(&files);
        for (id, tree, tags, addresses) in agents {
            let (id, tree) = (AGENTS[id], PLACES[tree]);
            let first = rules.iter().position(|rule| rule.is_for(id, tree, &tags, &addresses));
            let facts = at(id, tree, &tags, &addresses);
            let expected = first.map_or("default".to_owned(), |number| number.to_string());
            prop_assert_eq!(fleet.explain(&facts).rule.name, expected);
            let expected: Vec<String> = first.map(|number| format!("k/p{number}")).into_iter().collect();
            prop_assert_eq!(super::policies(&fleet, &facts), expected);
        }
    }

    #[test]
    fn every_order_is_total_stable_and_loses_only_who_leaves(
        kinds in prop::collection::vec(0_usize..3, 4),
        weights in prop::collection::vec(1_u32..200, 8),
        gone in 0_usize..8,
        id in "[a-z0-9-]{1,20}",
    ) {
        let text = |gone: Option<usize>| {
            let mut text = String::new();
            for (number, weight) in weights.iter().enumerate() {
                let state = if gone == Some(number) { "disabled" } else { "active" };
                write!(text, "[[handler]]\nname = \"h{number}\"\ninternal = \"h{number}.example\"\nweight = {weight}\nstate = \"{state}\"\n").expect("text");
            }
            for (number, kind) in kinds.iter().enumerate() {
                let order = ["priority", "balanced", "random"][*kind];
                let (one, two) = (number * 2, number * 2 + 1);
                // Each group has two handlers and the group before it.
                let before = number.checked_sub(1).map_or(String::new(), |before| format!(", \"g{before}\""));
                write!(text, "[[group]]\nname = \"g{number}\"\norder = \"{order}\"\nmembers = [\"h{one}\", \"h{two}\"{before}]\n").expect("text");
            }
            text + "[[assignment]]\nname = \"r\"\nhandlers = [\"g3\", \"g0\"]\n"
        };
        let whole = fleet(&[("fleet.toml", &text(None))]);
        let order = names(&whole, &agent(&id));
        let mut sorted = order.clone();
        sorted.sort();
        sorted.dedup();
        prop_assert_eq!(sorted.len(), 8, "each once: {:?}", order);
        prop_assert_eq!(&names(&whole, &agent(&id)), &order);
        let tiers: Vec<u32> = super::handlers(&whole, &agent(&id)).iter().map(|(tier, _)| *tier).collect();
        prop_assert!(tiers.windows(2).all(|pair| pair[0] == pair[1] || pair[0] + 1 == pair[1]), "{:?}", tiers);
        // In a chain of balanced groups the weight of a group changes with its members, so its place may; the
        // members of the innermost groups keep theirs among each other.
        if kinds.iter().all(|kind| *kind != 1) {
            let left = names(&fleet(&[("fleet.toml", &text(Some(gone)))]), &agent(&id));
            let expected: Vec<String> = order.into_iter().filter(|name| *name != format!("h{gone}")).collect();
            prop_assert_eq!(left, expected);
        }
    }
}

#[test]
fn a_balanced_group_spreads_by_weight_and_moves_only_those_who_must() {
    let text = |states: [&str; 3]| {
        let mut text = String::new();
        for ((name, weight), state) in [("a", 100), ("b", 200), ("c", 100)].iter().zip(states) {
            write!(text, "[[handler]]\nname = \"{name}\"\ninternal = \"{name}.example\"\nweight = {weight}\nstate = \"{state}\"\n").expect("text");
        }
        text + "[[group]]\nname = \"g\"\norder = \"balanced\"\nmembers = [\"a\", \"b\", \"c\"]\n\
                [[assignment]]\nname = \"r\"\nhandlers = [\"g\"]\n"
    };
    let whole = fleet(&[("fleet.toml", &text(["active"; 3]))]);
    let without = fleet(&[("fleet.toml", &text(["active", "active", "disabled"]))]);
    let draining = fleet(&[("fleet.toml", &text(["active", "draining", "active"]))]);
    let mut firsts = [0_u32; 3];
    for number in 0..4_000 {
        let agent = agent(&format!("pc-{number:05}"));
        let before = names(&whole, &agent);
        let rest = |gone: &str| before.iter().filter(|name| *name != gone).cloned().collect::<Vec<_>>();
        assert_eq!(names(&without, &agent), rest("c"));
        let mut last = rest("b");
        last.push("b".to_owned());
        assert_eq!(names(&draining, &agent), last);
        firsts[["a", "b", "c"].iter().position(|name| *name == before[0]).expect("a handler")] += 1;
    }
    for (count, due) in firsts.iter().zip([1_000_u32, 2_000, 1_000]) {
        assert!(count.abs_diff(due) <= due / 10, "{firsts:?}");
    }
}

#[test]
fn the_addresses_of_the_model_are_addresses() {
    assert!(ADDRESSES.iter().all(|text| text.parse::<IpAddr>().is_ok()));
}
