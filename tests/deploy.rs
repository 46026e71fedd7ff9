//! What `deploy/` says fits what the program is: metrics, runbooks, times, places.

#![expect(clippy::expect_used, clippy::panic, reason = "a test may stop at the first broken assumption")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;
use waypost::telemetry::Exposition;

mod busy;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("readable")
}

/// The metrics the program exposes, each with its labels.
fn exposed() -> BTreeMap<String, BTreeSet<String>> {
    let text = busy::busy().render(Exposition::Classic);
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let labels = line.split_once('{').map_or("", |(_, rest)| rest);
        let labels = labels.split("=\"").filter_map(|part| part.rsplit(['{', ',', ' ']).next());
        // What a scraper adds.
        let added = ["instance".to_owned(), "job".to_owned()];
        all.entry(name.to_owned()).or_default().extend(labels.map(str::to_owned).chain(added));
    }
    all
}

const fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The metrics that an expression asks for, each with the labels it selects by.
fn asked(expression: &str) -> Vec<(String, Vec<String>)> {
    let starts = expression.match_indices("waypost_").map(|(at, _)| at);
    let one = |at: usize| {
        let rest = expression.get(at..).unwrap_or_default();
        let (name, after) = rest.split_at(rest.find(|c| !is_word(c)).unwrap_or(rest.len()));
        let selector = after.strip_prefix('{').and_then(|it| it.split('}').next()).unwrap_or_default();
        let labels = selector.split(',').map(|part| part.trim().split(['=', '!']).next().unwrap_or_default());
        let labels = labels.filter(|label| !label.is_empty()).map(str::to_owned).collect();
        (name.to_owned(), labels)
    };
    starts.map(one).collect()
}

/// The labels that an expression groups by.
fn grouped(expression: &str) -> BTreeSet<String> {
    let groups = ["by (", "on (", "ignoring (", "without ("];
    let lists = groups.iter().flat_map(|word| expression.split(word).skip(1));
    let labels = lists.flat_map(|rest| rest.split(')').next().unwrap_or_default().split(','));
    labels.map(|label| label.trim().to_owned()).collect()
}

/// What is wrong with an expression, given what is exposed.
fn check_expression(expression: &str, exposed: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut known = BTreeSet::new();
    for (name, labels) in asked(expression) {
        let Some(there) = exposed.get(&name) else {
            wrong.push(format!("there is no metric {name}: {expression}"));
            continue;
        };
        known.extend(there.iter().cloned());
        let unknown = labels.iter().filter(|label| !there.contains(*label));
        wrong.extend(unknown.map(|label| format!("{name} has no label {label}: {expression}")));
    }
    let unknown = grouped(expression).into_iter().filter(|label| !known.contains(label));
    wrong.extend(unknown.map(|label| format!("nothing here has a label {label}: {expression}")));
    wrong
}

/// The rules: each alert's name with the lines that belong to it.
fn alerts(rules: &str) -> Vec<(&str, &str)> {
    let blocks = rules.split("- alert: ").skip(1);
    blocks.filter_map(|block| block.split_once('\n')).collect()
}

/// An alert's expression, of one or several lines.
fn expression(alert: &str) -> &str {
    let rest = alert.split_once("expr: ").map_or("", |(_, rest)| rest);
    let ends = ["\n        for:", "\n        labels:"];
    let end = ends.iter().filter_map(|end| rest.find(end)).min().unwrap_or(rest.len());
    rest.get(..end).unwrap_or_default()
}

fn panels(dashboard: &Value) -> &[Value] {
    dashboard["panels"].as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn alerts_ask_for_metrics_that_exist() {
    let (rules, exposed) = (read("deploy/prometheus/rules.yml"), exposed());
    let alerts = alerts(&rules);
    assert!(alerts.len() > 10, "only {} alerts were found", alerts.len());
    for (name, alert) in alerts {
        let expression = expression(alert);
        assert!(!asked(expression).is_empty(), "{name} asks for nothing: {expression}");
        assert_eq!(check_expression(expression, &exposed), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn the_dashboard_asks_for_metrics_that_exist() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/waypost.json")).expect("JSON");
    let exposed = exposed();
    let mut shown = BTreeSet::new();
    for panel in panels(&dashboard).iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().expect("a title");
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "{title} shows nothing");
        for target in targets {
            let expression = target["expr"].as_str().expect("an expression");
            assert_eq!(check_expression(expression, &exposed), Vec::<String>::new(), "{title}");
            shown.extend(asked(expression).into_iter().map(|(name, _)| name));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        let query = variable["definition"].as_str().unwrap_or_default();
        for (name, _) in asked(query) {
            let labels = exposed.get(&name).expect("a metric");
            let label = query.trim_end_matches(')').rsplit(' ').next().unwrap_or_default();
            assert!(labels.contains(label), "{name} has no label {label}");
        }
    }
    // Of a histogram the buckets say more than sum and count.
    let parts = |name: &&String| !name.ends_with("_seconds_sum") && !name.ends_with("_seconds_count");
    let missing: Vec<&String> = exposed.keys().filter(parts).filter(|name| !shown.contains(*name)).collect();
    assert_eq!(missing, Vec::<&String>::new(), "not on the dashboard");
}

#[test]
fn panels_of_the_dashboard_do_not_overlap() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/waypost.json")).expect("JSON");
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels(&dashboard) {
        assert!(ids.insert(panel["id"].as_u64()), "two panels {}", panel["id"]);
        let number = |key: &str| panel["gridPos"][key].as_u64().expect("a number");
        let (x, y) = (number("x"), number("y"));
        assert!(x + number("w") <= 24, "{} is too wide", panel["title"]);
        for cell in (x..x + number("w")).flat_map(|x| (y..y + number("h")).map(move |y| (x, y))) {
            assert!(cells.insert(cell), "{} lies on another panel", panel["title"]);
        }
    }
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let (rules, readme) = (read("deploy/prometheus/rules.yml"), read("README.md"));
    let written: BTreeSet<&str> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("#### "))
        .filter(|it| it.starts_with("Waypost"))
        .collect();
    let mut told = BTreeSet::new();
    for (name, alert) in alerts(&rules) {
        let link = format!("README.md#{}\n", name.to_lowercase());
        assert!(alert.contains(&link), "{name} does not lead to its runbook");
        assert!(alert.contains("severity: "), "{name} has no severity");
        told.insert(name);
    }
    assert_eq!(told, written);
}

#[test]
fn a_bad_expression_is_found_out() {
    let exposed = exposed();
    for (expression, what) in [
        ("rate(waypost_nothing_total[5m])", "no metric waypost_nothing_total"),
        ("waypost_upstream_up{repository=\"a\"} == 0", "no label repository"),
        ("sum by (agent) (waypost_connections)", "a label agent"),
        ("waypost_connections + waypost_connection", "no metric waypost_connection:"),
    ] {
        let found = check_expression(expression, &exposed);
        assert!(found.iter().any(|it| it.contains(what)), "{expression}: {found:?}");
    }
    let fine = "sum by (le, instance) (rate(waypost_http_request_duration_seconds_bucket{route!=\"a\"}[5m]))";
    assert_eq!(check_expression(fine, &exposed), Vec::<String>::new());
}

/// Seconds of `30s`, `2m`, `1h` or a bare number.
fn seconds(text: &str) -> u64 {
    let text = text.trim().trim_matches('"');
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().expect("a number");
    match unit {
        "" | "s" => number,
        "m" => number * 60,
        "h" => number * 3600,
        other => panic!("{other} is no unit here"),
    }
}

/// The value after `key` and a separator, in each file that has it.
fn values(files: &[&str], key: &str) -> Vec<u64> {
    let texts: Vec<String> = files.iter().map(|path| read(path)).collect();
    let lines = texts.iter().flat_map(|text| text.lines());
    let rest = lines.filter_map(|line| line.trim_start_matches(['#', ' ']).strip_prefix(key));
    let rest = rest.filter_map(|rest| rest.trim_start().strip_prefix(['=', ':']));
    rest.map(|rest| seconds(rest.split('#').next().unwrap_or_default())).collect()
}

#[test]
fn a_stop_waits_for_the_drain_of_every_sample() {
    let samples = ["deploy/examples/branch.toml", "deploy/examples/region.toml", "deploy/examples/hq.toml"];
    let drains = values(&samples, "drain");
    let longest = *drains.iter().max().expect("a drain");
    let stops = [
        values(&["deploy/systemd/waypost.service"], "TimeoutStopSec"),
        values(&["deploy/helm/waypost/values.yaml"], "terminationGracePeriodSeconds"),
    ];
    for stop in stops {
        assert!(
            stop.len() == 1 && stop.iter().all(|stop| *stop > longest),
            "{stop:?} is not above {longest}"
        );
    }
}
