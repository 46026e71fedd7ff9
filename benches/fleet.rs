//! What the fleet's documents cost: compiling them, and answering agents.

#![expect(clippy::unwrap_used, reason = "a bench stops where its set-up is wrong")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use waypost::fleet::sitelist::{parse, render};
use waypost::fleet::{AgentId, Documents, Facts, compile};

const AGENTS: usize = 100_000;
const HANDLERS: usize = 500;
const RULES: usize = 5_000;
const PLACES: usize = 2_000;

/// A fleet of the size that is promised: half of the rules about handlers, half about policies.
fn documents() -> Documents {
    let mut fleet = String::new();
    for number in 0..HANDLERS {
        let weight = 50 + number % 4 * 50;
        write!(fleet, "[[handler]]\nname = \"wp-{number}\"\ninternal = \"wp-{number}.example:8443\"\nweight = {weight}\nrepositories = [\"Software\"]\n").unwrap();
    }
    for number in 0..HANDLERS / 5 {
        let members: Vec<String> = (0..5).map(|at| format!("\"wp-{}\"", number * 5 + at)).collect();
        let members = members.join(", ");
        write!(fleet, "[[group]]\nname = \"g{number}\"\norder = \"balanced\"\nmembers = [{members}]\n")
            .unwrap();
    }
    for place in 0..PLACES {
        let agents: String = (0..AGENTS / PLACES)
            .map(|at| match at % 10 {
                0 => format!("{{ id = \"pc-{place}-{at}\", tags = [\"laptop\", \"t{at}\"] }}, "),
                _ => format!("\"pc-{place}-{at}\", "),
            })
            .collect();
        write!(fleet, "[[tree]]\npath = \"/Region {}/Branch {place}\"\nagents = [{agents}]\n", place % 20)
            .unwrap();
    }
    let mut rules = String::from("[[tree]]\npath = \"/\"\npolicies = [\"av/p0\", \"fw/p0\", \"up/p0\"]\n");
    for number in 0..RULES / 2 {
        let criteria = match number % 5 {
            0 => format!("tree = [\"/Region {}/Branch {}\"]", number % 20, number % PLACES),
            1 => format!("addresses = [\"10.{}.{}.0/24\"]", number / 250, number % 250),
            2 => format!("addresses = [\"172.16.{0}.5-172.16.{0}.90\"]\ntags = [\"laptop\"]", number % 250),
            3 => format!("tags = [\"rare-{number}\"]"),
            _ => format!("agents = [\"pc-{0}-1\", \"pc-{0}-2\"]", number % PLACES),
        };
        let group = 1 + number % (HANDLERS / 5 - 1);
        write!(
            fleet,
            "[[assignment]]\nname = \"r{number}\"\n{criteria}\nhandlers = [\"g{group}\", \"g0\"]\n"
        )
        .unwrap();
        let policy = number % 100;
        write!(
            rules,
            "[[rule]]\nname = \"r{number}\"\n{criteria}\npolicies = [\"av/p{policy}\", \"fw/p{policy}\"]\n"
        )
        .unwrap();
    }
    let mut documents = Documents::default();
    documents.insert("fleet.toml", fleet.into()).unwrap();
    documents.insert("rules.toml", rules.into()).unwrap();
    for category in ["av", "fw", "up"] {
        for number in 0..100 {
            let body = format!("{{ \"setting\": {number} }}");
            documents.insert(&format!("policies/{category}/p{number}.json"), body.into()).unwrap();
        }
    }
    documents
}

fn facts(number: usize) -> Facts {
    let (place, at) = (number % PLACES, number % (AGENTS / PLACES));
    Facts {
        id: AgentId::parse(&format!("pc-{place}-{at}")).unwrap(),
        tree: None,
        tags: vec!["laptop".to_owned()],
        addresses: vec![format!("10.9.{}.7", number % 250).parse().unwrap(), "fe80::1".parse().unwrap()],
    }
}

fn fleets(bench: &mut Criterion) {
    let documents = documents();
    let compiled = compile(&documents);
    assert_eq!(compiled.errors(), 0, "{}", compiled.render(false));
    let fleet = compiled.fleet.unwrap();
    assert_eq!(fleet.agents(), AGENTS);
    let mut group = bench.benchmark_group("fleet");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    group.bench_function(
        format!("compile: 100,000 agents, 500 handlers, 5,000 rules, {} MiB", documents.bytes() >> 20),
        |b| {
            b.iter(|| compile(black_box(&documents)).fleet.is_some());
        },
    );
    let agents: Vec<Facts> = (0..5_000).map(|number| facts(number * 7)).collect();
    let mut next = agents.iter().cycle();
    group.sample_size(100).measurement_time(Duration::from_secs(2));
    group.bench_function("sitelist and its text, two groups", |b| {
        b.iter(|| render(&fleet.sitelist(next.next().unwrap(), 7)).len());
    });
    group.bench_function("policies", |b| b.iter(|| fleet.policies(next.next().unwrap())));
    group.bench_function("explain", |b| b.iter(|| fleet.explain(next.next().unwrap())));
    // Nobody's rule: all 500 handlers are balanced, and the first hundred written.
    let strangers: Vec<Facts> =
        (0..1_000).map(|number| Facts::of(AgentId::parse(&format!("x{number}")).unwrap())).collect();
    let mut next = strangers.iter().cycle();
    group.bench_function("sitelist and its text, all 500 handlers", |b| {
        b.iter(|| render(&fleet.sitelist(next.next().unwrap(), 7)).len());
    });
    let longest = render(&fleet.sitelist(strangers.first().unwrap(), 7));
    group.bench_function(format!("parse a sitelist of {} KiB", longest.len() >> 10), |b| {
        b.iter(|| parse(black_box(longest.as_bytes())).is_ok());
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300));
    targets = fleets
}
criterion_main!(benches);
