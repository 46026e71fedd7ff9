//! ePO's exported rules: what becomes of them, and that it can be used as it is printed.

use std::fs;

use waypost::fleet::import::import;

use super::{at, fleet, golden, policies, root};

#[test]
fn an_export_becomes_rules_that_compile_and_mean_the_same() {
    let export = fs::read(root().join("tests/golden/fleet/epo-rules.xml")).expect("a file");
    let imported = import(&export).expect("an export");
    assert_eq!((imported.rules, imported.left), (2, 2));
    golden("epo-rules.toml", &imported.toml);
    golden("epo-rules.txt", &(imported.report.join("\n") + "\n"));
    let fleet = fleet(&[
        ("fleet.toml", super::THREE),
        ("rules.toml", &imported.toml),
        ("policies/endp_am_1060-21/strict-on-access", "1"),
        ("policies/endp_am_1060-21/server", "2"),
        ("policies/epoagentmeta-3/every-15-minutes", "3"),
    ]);
    let at = |tree: &str, tags: &[&str]| policies(&fleet, &at("x", tree, tags, &[]));
    let strict = ["endp_am_1060-21/strict-on-access", "epoagentmeta-3/every-15-minutes"];
    assert_eq!(at("/Workstations/7", &["EPO/Suspicious"]), strict);
    assert_eq!(at("/Workstations", &["Infected"]), strict);
    assert_eq!(at("/Workstations", &["Infected", "Lab & Test"]), [] as [&str; 0]);
    assert_eq!(at("/Workstations", &[]), [] as [&str; 0]);
    assert_eq!(at("/Servers", &[]), ["endp_am_1060-21/server"]);
    // The group only, and rules that were not understood give nothing.
    assert_eq!(at("/Servers/SQL", &["x"]), [] as [&str; 0]);
}

#[test]
fn what_is_no_export_is_told() {
    let sitelist = fs::read(root().join("tests/golden/fleet/vendor-sitelist.xml")).expect("a file");
    assert!(import(&sitelist).expect_err("a sitelist").reason.contains("EPOPolicyRule"));
    assert!(import(b"<!DOCTYPE a><a/>").expect_err("a DOCTYPE").reason.contains("DOCTYPE"));
}
