//! Sitelists: those that are written, those that others write, and those that are no sitelists.

use std::fs;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use waypost::fleet::State;
use waypost::fleet::sitelist::{Extra, Protocol, Role, Selection, Site, Sitelist, check, parse, render};
use waypost::fleet::xml::{Element, Node};

use super::{agent, at, fleet, golden, root, sample};

fn file(name: &str) -> Vec<u8> {
    fs::read(root().join("tests/golden/fleet").join(name)).expect("a file")
}

#[test]
fn what_a_fleet_writes_is_read_again_as_it_was() {
    let list = sample().sitelist(&at("l", "/", &["laptop"], &[]), 7);
    let text = render(&list);
    assert_eq!(parse(text.as_bytes()), Ok(list.clone()));
    assert_eq!((list.global_version.as_str(), list.selection), ("7", Some(Selection::Nearest)));
    let last = list.ordered().last().map(|site| (site.role.clone(), site.name.clone()));
    assert_eq!(last, Some((Role::Fallback, "vendor".to_owned())));
    assert!(list.ordered().windows(2).all(|pair| pair[0].order <= pair[1].order));
    for credential in ["<UserName></UserName>", "<Password Encrypted=\"0\"></Password>"] {
        assert_eq!(text.matches(credential).count(), list.sites.len());
    }
}

#[test]
fn a_digest_changes_with_the_list_and_not_with_its_version() {
    let fleet = sample();
    let (one, two) = (fleet.sitelist(&agent("x"), 1), fleet.sitelist(&agent("x"), 2));
    assert_eq!(one.digest(), two.digest());
    assert_ne!(render(&one), render(&two));
    assert_ne!(one.digest(), fleet.sitelist(&at("x", "/Servers", &[], &[]), 1).digest());
}

#[test]
fn a_vendors_list_is_read_and_keeps_what_is_not_known_but_no_credentials() {
    let bytes = file("vendor-sitelist.xml");
    assert!(bytes.starts_with(b"\xef\xbb\xbf") && bytes.windows(2).any(|pair| pair == b"\r\n"));
    let (list, notes) = check(&bytes).expect("a sitelist");
    let names: Vec<&str> = list.ordered().iter().map(|site| site.name.as_str()).collect();
    assert_eq!(names, ["AH_BRANCH7", "BRANCH7_HTTP", "BRANCH7_UNC", "NoOrder", "NAIHttp"]);
    let first = list.ordered()[0];
    assert_eq!(first.server_ip.as_deref(), Some("192.0.2.10:80"));
    assert_eq!((first.secure_port, first.protocol), (Some(443), Protocol::Spipe));
    assert!(!list.sites.iter().find(|site| site.name == "Off").expect("a site").enabled);
    assert!(notes.iter().any(|note| note.contains("passwords")), "{notes:?}");
    let text = render(&list);
    for kept in
        ["FutureThing=\"1\"", "<ShareName>repo$</ShareName>", "<Policy Kind=\"x\"><Deep>text</Deep></Policy>"]
    {
        assert!(text.contains(kept), "{kept} in {text}");
    }
    for secret in ["f2mwBTzPQdtnY6QNOsVexH9psAU8z0HbZ2OkDTrFXsR", "epoadmin", "hunter2"] {
        assert!(!text.contains(secret) && !format!("{list:?}").contains(secret), "{secret}");
    }
    assert_eq!(parse(text.as_bytes()), Ok(list));
    golden("vendor-rewritten.xml", &text);
}

#[test]
fn a_short_list_needs_little() {
    let text = "<SiteLists><SiteList><HttpSite Name='a' Server='a:80'/></SiteList></SiteLists>";
    let list = parse(text.as_bytes()).expect("a sitelist");
    assert_eq!((list.sites[0].order, list.sites[0].enabled, list.sites[0].local), (None, true, false));
}

#[test]
fn what_is_no_sitelist_is_refused_in_bounded_time() {
    let site = "<HttpSite Name='a' Server='a'/>";
    let list = |inside: &str| format!("<SiteLists><SiteList>{inside}</SiteList></SiteLists>");
    assert!(parse(list(&site.repeat(1_000)).as_bytes()).is_ok());
    for (text, why) in [
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><SiteLists/>".to_owned(), "DOCTYPE"),
        (list("&a;"), "entity"),
        (
            list(&format!("<HttpSite {}/>", (0..80_000).map(|n| format!("a{n}='' ")).collect::<String>())),
            "bytes",
        ),
        (
            list(&format!("<HttpSite {}/>", (0..20_000).map(|n| format!("a{n}='' ")).collect::<String>())),
            "attributes",
        ),
        (list(&"<a>".repeat(10_000)), "deep"),
        (list(&site.repeat(1_001)), "1000 sites"),
        ("<SiteLists/>".to_owned(), "no `SiteList`"),
        ("<html/>".to_owned(), "no sitelist"),
        ("not XML at all".to_owned(), "outside"),
        (String::new(), "empty"),
        ("<SiteLists xmlns:wp='urn:other'><SiteList/></SiteLists>".to_owned(), "prefix"),
        (" ".repeat(300_000), "bytes"),
    ] {
        let error = parse(text.as_bytes()).expect_err(why).to_string();
        assert!(error.contains(why), "{error} for {why}");
    }
}

#[test]
fn the_largest_list_that_is_written_can_be_read() {
    let mut text = String::new();
    let long = "x".repeat(60);
    let paths: Vec<String> = (0..16).map(|number| format!("{}/{number}", "p".repeat(900))).collect();
    for number in 0..250 {
        let paths = if number % 2 == 0 { format!("{paths:?}") } else { "[\"S\"]".to_owned() };
        text += &format!(
            "[[handler]]\nname = \"{number}{long}\"\ninternal = \"{long}.{long}.{long}.example\"\nrepositories = {paths}\n"
        );
    }
    let fleet = fleet(&[("fleet.toml", &text)]);
    for number in 0..6 {
        let list = fleet.sitelist(&agent(&format!("a{number}")), u64::MAX);
        let text = render(&list);
        assert!(text.len() <= 256 << 10, "{}", text.len());
        assert_eq!(parse(text.as_bytes()), Ok(list));
    }
    let left = fleet.explain(&agent("a0")).left_out;
    assert!(left.iter().all(|it| it.because.contains("no room")) && !left.is_empty());
}

fn text() -> impl Strategy<Value = String> {
    // Text without white space around it: readers of real files take that for layout.
    "[a-zA-Z0-9<>&\"' äß\\t\\n\\r./:-]{0,20}".prop_map(|text| text.trim().to_owned())
}

fn element() -> impl Strategy<Value = Element> {
    let attributes = || prop::collection::btree_map("[A-Z][a-z]{1,6}", text(), 0..3);
    let leaf =
        ("[A-Z][a-z]{2,8}", attributes(), "[a-z<&\" \\t]{1,8}").prop_map(|(name, attributes, text)| {
            Element { name, attributes: attributes.into_iter().collect(), children: vec![Node::Text(text)] }
        });
    let middle = ("[A-Z][a-z]{2,8}", attributes(), prop::collection::vec(leaf, 0..3));
    middle.prop_map(|(name, attributes, children)| Element {
        // None of the names that mean something.
        name: format!("X{name}"),
        attributes: attributes.into_iter().collect(),
        children: children.into_iter().map(Node::Element).collect(),
    })
}

fn extra() -> impl Strategy<Value = Extra> {
    let attributes = prop::collection::btree_map("X[a-z]{1,8}", text(), 0..3);
    (attributes, prop::collection::vec(element(), 0..3))
        .prop_map(|(attributes, elements)| Extra { attributes: attributes.into_iter().collect(), elements })
}

fn site() -> impl Strategy<Value = Site> {
    let protocols = [Protocol::Spipe, Protocol::Http, Protocol::Ftp, Protocol::Unc, Protocol::Local];
    let roles = prop_oneof![
        Just(Role::Master),
        Just(Role::Repository),
        Just(Role::Fallback),
        "x[a-z]{0,5}".prop_map(Role::Other)
    ];
    let states = [None, Some(State::Active), Some(State::Draining), Some(State::Disabled)];
    let one = (
        prop::sample::select(protocols.to_vec()),
        roles,
        text(),
        any::<Option<u32>>(),
        any::<bool>(),
        any::<bool>(),
    );
    let two = (
        text(),
        prop::option::of(text()),
        prop::option::of(text()),
        prop::option::of(text()),
        prop::option::of(1_u16..),
    );
    let three = (
        text(),
        prop::option::of(text()),
        prop::option::of(text()),
        prop::sample::select(states.to_vec()),
        extra(),
    );
    (one, two, three).prop_map(|(one, two, three)| Site {
        protocol: one.0,
        role: one.1,
        name: one.2,
        order: one.3,
        enabled: one.4,
        local: one.5,
        server: two.0,
        server_name: two.1,
        server_ip: two.2,
        version: two.3,
        secure_port: two.4,
        relative_path: three.0,
        external: three.1,
        group: three.2,
        state: three.3,
        extra: three.4,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, rng_seed: RngSeed::Fixed(5), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parse_after_render_is_the_identity(
        versions in (text(), text(), text(), text()),
        selection in prop::sample::select(&[None, Some(Selection::Ordered), Some(Selection::Nearest)][..]),
        sites in prop::collection::vec(site(), 0..6),
        extra in extra(),
        list_extra in extra(),
    ) {
        let (global_version, local_version, kind, name) = versions;
        let list = Sitelist { global_version, local_version, kind, name, selection, sites, extra, list_extra };
        let text = render(&list);
        prop_assert_eq!(parse(text.as_bytes()), Ok(list.clone()), "{}", text);
        prop_assert_eq!(render(&parse(text.as_bytes()).expect("a list")), text);
    }
}
