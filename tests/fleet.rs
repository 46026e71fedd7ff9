//! The fleet's control documents as administrators meet them: a directory in, and either every agent's handlers and
//! policies with their reasons or all mistakes with their places out.
//!
//! `WAYPOST_BLESS=1 cargo test --test fleet` writes the golden answers again; look at the difference then.

#![expect(clippy::expect_used, clippy::panic, reason = "a test may stop at the first broken assumption")]

#[path = "fleet/import.rs"]
mod import;
#[path = "fleet/model.rs"]
mod model;
#[path = "fleet/sitelists.rs"]
mod sitelists;

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use waypost::fleet::{AgentId, Compiled, Documents, Facts, Fleet, State, TreePath, compile};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Documents of a few texts.
fn documents(files: &[(&str, &str)]) -> Documents {
    let mut documents = Documents::default();
    for (name, text) in files {
        documents.insert(name, Bytes::copy_from_slice(text.as_bytes())).expect("a document");
    }
    documents
}

fn compiled(files: &[(&str, &str)]) -> Compiled {
    compile(&documents(files))
}

/// A fleet of documents that have to be right.
fn fleet(files: &[(&str, &str)]) -> Fleet {
    let compiled = compiled(files);
    let told = compiled.render(false);
    compiled.fleet.unwrap_or_else(|| panic!("{told}"))
}

/// What is wrong with documents, drawn.
fn mistakes(files: &[(&str, &str)]) -> String {
    compiled(files).render(false)
}

/// All files below a directory that are control documents.
fn directory(dir: &Path) -> Documents {
    let mut documents = Documents::default();
    let mut left = vec![dir.to_owned()];
    while let Some(at) = left.pop() {
        for entry in fs::read_dir(&at).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                left.push(path);
                continue;
            }
            let name = path.strip_prefix(dir).expect("below").to_string_lossy().into_owned();
            if Documents::wants(&name) {
                documents.insert(&name, fs::read(&path).expect("readable").into()).expect("a document");
            }
        }
    }
    documents
}

fn sample() -> Fleet {
    let compiled = compile(&directory(&root().join("deploy/examples/fleet")));
    assert!(compiled.problems.is_empty(), "{}", compiled.render(false));
    compiled.fleet.expect("a fleet")
}

fn agent(id: &str) -> Facts {
    Facts::of(AgentId::parse(id).expect("an id"))
}

fn at(id: &str, tree: &str, tags: &[&str], addresses: &[&str]) -> Facts {
    Facts {
        tree: Some(TreePath::parse(tree).expect("a place")),
        tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
        addresses: addresses.iter().map(|text| text.parse().expect("an address")).collect(),
        ..agent(id)
    }
}

/// The handlers of an agent in order, each with its `Order`.
fn handlers(fleet: &Fleet, facts: &Facts) -> Vec<(u32, String)> {
    fleet.explain(facts).handlers.into_iter().map(|it| (it.order, it.name)).collect()
}

fn names(fleet: &Fleet, facts: &Facts) -> Vec<String> {
    handlers(fleet, facts).into_iter().map(|(_, name)| name).collect()
}

fn policies(fleet: &Fleet, facts: &Facts) -> Vec<String> {
    fleet.policies(facts).entries.iter().map(|it| it.path()).collect()
}

/// Compares with a golden file, or writes it.
fn golden(name: &str, found: &str) {
    let file = root().join("tests/golden/fleet").join(name);
    if std::env::var_os("WAYPOST_BLESS").is_some() {
        fs::write(&file, found).expect("the golden file");
    }
    let expected = fs::read_to_string(&file).expect("the golden file");
    assert_eq!(found, expected, "{} differs", file.display());
}

/// Three handlers, with more behind them.
const THREE: &str = "\
[[handler]]\nname = \"a\"\ninternal = \"a.example\"\n\
[[handler]]\nname = \"b\"\ninternal = \"b.example\"\n\
[[handler]]\nname = \"c\"\ninternal = \"c.example\"\n";

fn three(more: &str) -> Fleet {
    fleet(&[("fleet.toml", &format!("{THREE}{more}"))])
}

#[test]
fn the_sample_compiles_and_leads_its_agents() {
    let fleet = sample();
    assert_eq!((fleet.handlers().len(), fleet.groups().len(), fleet.agents()), (5, 3, 3));
    let till = agent("till-1");
    let explained = fleet.explain(&till);
    assert_eq!((explained.tree.as_str(), explained.rule.name.as_str()), ("/Branches/Berlin", "Berlin"));
    let order = names(&fleet, &till);
    assert!(order[..2].iter().all(|name| name.starts_with("berlin")), "{order:?}");
    assert!(order[2..].iter().all(|name| name.starts_with("hq")) && order.len() == 4, "{order:?}");
    assert_eq!(
        policies(&fleet, &till),
        ["antivirus/standard", "exclusions/common", "exclusions/journal", "updates/night"]
    );
    let lisbon = Facts { addresses: vec!["10.9.1.1".parse().expect("an address")], ..agent("x") };
    assert_eq!(fleet.explain(&lisbon).tree.as_str(), "/Branches/Lisbon");
    let server = at("s", "/Elsewhere", &["server"], &[]);
    assert_eq!(
        policies(&fleet, &server),
        ["antivirus/server", "exclusions/common", "exclusions/databases", "updates/daily"]
    );
    let mut europe = fleet.members("europe").expect("a group");
    europe.sort_by(|one, two| one.name.cmp(&two.name));
    assert_eq!(
        europe.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(),
        ["berlin-1", "berlin-2", "hq-1", "hq-2", "lisbon-1"]
    );
    assert!(fleet.members("nobody").is_none());
    golden("explain-till.txt", &explained.to_string());
    golden("explain-till.json", &(serde_json::to_string_pretty(&explained).expect("JSON") + "\n"));
    golden("sitelist-till.xml", &waypost::fleet::sitelist::render(&fleet.sitelist(&till, 42)));
}

#[test]
fn an_explanation_survives_its_way_as_json() {
    let explained = sample().explain(&at("laptop-1", "/", &["laptop"], &["192.0.2.1"]));
    let json = serde_json::to_string(&explained).expect("JSON");
    let again: waypost::fleet::Explanation = serde_json::from_str(&json).expect("an explanation");
    assert_eq!(again, explained);
}

#[test]
fn all_mistakes_of_all_files_are_told_in_one_run() {
    let read = |name: &str| fs::read(root().join("tests/golden/fleet/mistakes").join(name)).expect("a file");
    let mut documents = Documents::default();
    for name in [
        "fleet.toml",
        "rules.toml",
        "states.toml",
        "policies/av/broken.json",
        "policies/av/base.txt",
        "policies/av/base.json",
    ] {
        documents.insert(name, read(name).into()).expect("a document");
    }
    let compiled = compile(&documents);
    assert!(compiled.fleet.is_none());
    assert!(compiled.errors() > 20, "{}", compiled.errors());
    golden("mistakes.txt", &compiled.render(false));
    assert!(!format!("{compiled:?}").contains("hunter2"), "a password is shown");
    let one = compiled.problems.iter().find(|it| it.message.contains("no handler or group")).expect("told");
    assert_eq!(&*one.file, "fleet.toml");
    assert!(one.line.is_some() && one.column.is_some() && one.span.is_some());
}

#[test]
fn rules_that_do_nothing_are_warned_of() {
    let text = format!(
        "{THREE}\
        [[assignment]]\nname = \"early\"\ntree = [\"/A\"]\nhandlers = [\"a\"]\n\
        [[assignment]]\nname = \"within\"\ntree = [\"/A/B\"]\ntags = [\"t\"]\nhandlers = [\"b\"]\n\
        [[assignment]]\nname = \"net\"\naddresses = [\"10.0.0.0/8\"]\nhandlers = [\"a\"]\n\
        [[assignment]]\nname = \"two nets\"\naddresses = [\"10.1.0.0/16\", \"11.0.0.0/8\"]\nhandlers = [\"b\"]\n\
        [[assignment]]\nname = \"one\"\naddresses = [\"172.16.0.1-172.16.0.50\"]\nhandlers = [\"a\"]\n\
        [[assignment]]\nname = \"two\"\naddresses = [\"172.16.0.40-172.16.0.90\"]\nhandlers = [\"b\"]\n\
        [[assignment]]\nname = \"rest\"\nhandlers = \"all\"\n\
        [[assignment]]\nname = \"late\"\nagents = [\"x\"]\nhandlers = [\"c\"]\n"
    );
    let compiled = compiled(&[("fleet.toml", &text)]);
    assert_eq!((compiled.errors(), compiled.fleet.is_some()), (0, true), "{}", compiled.render(false));
    let told: Vec<(&str, Option<usize>)> =
        compiled.problems.iter().map(|it| (it.message.as_str(), it.line)).collect();
    let line = |name: &str| {
        let at = text.find(&format!("name = \"{name}\"")).expect("a rule");
        Some(text[..at].matches('\n').count())
    };
    assert_eq!(
        told,
        [
            ("rule `within` is never reached", line("within")),
            ("rule `two nets` is never reached for 10.1.0.0/16", line("two nets")),
            (
                "rules `one` and `two` overlap: 172.16.0.1-172.16.0.50 and 172.16.0.40-172.16.0.90",
                line("two")
            ),
            ("rule `late` is never reached", line("late")),
        ]
    );
}

#[test]
fn priority_goes_across_groups_and_draining_handlers_come_last_of_all() {
    let groups = "[[group]]\nname = \"one\"\nmembers = [\"c\", \"a\"]\n[[group]]\nname = \"two\"\nmembers = [\"b\", \"a\"]\n\
                  [[assignment]]\nname = \"r\"\nhandlers = [\"one\", \"two\"]\n";
    assert_eq!(names(&three(groups), &agent("x")), ["c", "a", "b"]);
    let with = |state: &str| {
        let states = format!("[[handler]]\nname = \"c\"\nstate = \"{state}\"\n");
        fleet(&[("fleet.toml", &format!("{THREE}{groups}")), ("states.toml", &states)])
    };
    assert_eq!(handlers(&with("draining"), &agent("x")), [(1, "a".into()), (2, "b".into()), (3, "c".into())]);
    let disabled = with("disabled");
    assert_eq!(names(&disabled, &agent("x")), ["a", "b"]);
    assert_eq!(disabled.explain(&agent("x")).left_out[0].because, "it is disabled");
    assert_eq!(disabled.handler("c").map(|it| it.state), Some(State::Disabled));
}

#[test]
fn equals_have_the_same_order_and_nothing_else_has() {
    let fleet = three(
        "[[handler]]\nname = \"d\"\ninternal = \"d.example\"\n\
         [[group]]\nname = \"any\"\norder = \"random\"\nmembers = [\"a\", \"b\"]\n\
         [[assignment]]\nname = \"r\"\nhandlers = [\"c\", \"any\", \"d\"]\n",
    );
    let order = handlers(&fleet, &agent("x"));
    assert_eq!(order, [(1, "c".into()), (2, "a".into()), (2, "b".into()), (3, "d".into())]);
    let list = fleet.sitelist(&agent("x"), 7);
    let orders: Vec<Option<u32>> = list.sites.iter().map(|site| site.order).collect();
    assert_eq!(orders, [Some(1), Some(2), Some(2), Some(3)]);
}

#[test]
fn groups_within_groups_are_led_through_once_however_they_are_nested() {
    // Each has both of the next: two to the fifteenth ways.
    let mut text = THREE.to_owned();
    for level in 0..15 {
        for side in ["l", "r"] {
            let next = level + 1;
            let members =
                if level == 14 { "\"a\", \"b\"".to_owned() } else { format!("\"l{next}\", \"r{next}\"") };
            text += &format!(
                "[[group]]\nname = \"{side}{level}\"\norder = \"balanced\"\nmembers = [{members}]\n"
            );
        }
    }
    text += "[[assignment]]\nname = \"r\"\nhandlers = [\"l0\"]\n";
    let fleet = fleet(&[("fleet.toml", &text)]);
    let mut order = names(&fleet, &agent("x"));
    order.sort();
    assert_eq!(order, ["a", "b"]);
}

#[test]
fn loops_of_groups_are_found_with_their_way() {
    let told = mistakes(&[(
        "fleet.toml",
        &format!(
            "{THREE}[[group]]\nname = \"x\"\nmembers = [\"y\"]\n[[group]]\nname = \"y\"\nmembers = [\"z\", \"a\"]\n\
             [[group]]\nname = \"z\"\nmembers = [\"x\"]\n[[group]]\nname = \"w\"\nmembers = [\"x\"]\n\
             [[group]]\nname = \"s\"\nmembers = [\"s\"]\n"
        ),
    )]);
    for way in ["x → y → z → x", "y → z → x → y", "z → x → y → z", "s → s"] {
        assert!(told.contains(way), "{told}");
    }
    assert_eq!(told.matches("within each other").count(), 4, "{told}");
}

#[test]
fn what_the_documents_say_of_an_agent_wins_over_what_it_says() {
    let fleet = three(
        "[[tree]]\npath = \"/A\"\nagents = [\"known\", { id = \"tagged\", tags = [] }]\n\
         [[tree]]\npath = \"/B\"\ntags = [\"sorted\"]\n\
         [[assignment]]\nname = \"a\"\ntree = [\"/A\"]\nhandlers = [\"a\"]\n\
         [[assignment]]\nname = \"b\"\ntree = [\"/B\"]\nhandlers = [\"b\"]\n\
         [[assignment]]\nname = \"t\"\ntags = [\"vip\"]\nhandlers = [\"c\"]\n",
    );
    let rule = |facts: &Facts| fleet.explain(facts).rule.name;
    assert_eq!(rule(&at("known", "/B", &["sorted"], &[])), "a");
    assert_eq!(rule(&at("stranger", "/A", &["sorted"], &[])), "b");
    assert_eq!(rule(&at("stranger", "/A", &[], &[])), "a");
    assert_eq!(rule(&at("other", "/C", &["vip"], &[])), "t");
    // Listed without tags: its own are not believed.
    assert_eq!(fleet.explain(&at("tagged", "/C", &["vip"], &[])).tags, [] as [&str; 0]);
    let nowhere = fleet.explain(&agent("nobody"));
    assert_eq!((nowhere.tree.as_str(), nowhere.rule.name.as_str()), ("/", "default"));
}

const POLICIES: [(&str, &str); 6] = [
    ("policies/av/base", "1"),
    ("policies/av/hard", "2"),
    ("policies/fw/base", "3"),
    ("policies/fw/open", "4"),
    ("policies/ex/one", "5"),
    ("policies/ex/two", "6"),
];

fn with_rules(rules: &str) -> Fleet {
    let mut files = vec![("fleet.toml", THREE), ("rules.toml", rules)];
    files.extend(POLICIES);
    fleet(&files)
}

#[test]
fn the_tree_hands_policies_down_until_they_are_replaced_broken_or_locked() {
    let fleet = with_rules(
        "multi_slot = [\"ex\"]\n\
         [[tree]]\npath = \"/\"\npolicies = [\"av/base\", \"fw/base\", \"ex/one\"]\n\
         [[tree]]\npath = \"/A\"\npolicies = [\"av/hard\", \"ex/two\"]\nlock = [\"av\"]\n\
         [[tree]]\npath = \"/A/B\"\npolicies = [\"av/base\"]\nbreak = [\"av\", \"fw\"]\n\
         [[tree]]\npath = \"/C\"\nbreak = true\n\
         [[tree]]\npath = \"/D\"\nbreak = [\"ex\"]\npolicies = [\"ex/two\"]\n",
    );
    let at = |tree: &str| policies(&fleet, &at("x", tree, &[], &[]));
    assert_eq!(at("/"), ["av/base", "ex/one", "fw/base"]);
    assert_eq!(at("/A/deep/er"), ["av/hard", "ex/one", "ex/two", "fw/base"]);
    assert_eq!(at("/A/B"), ["av/hard", "ex/one", "ex/two"]);
    assert_eq!(at("/C/x"), [] as [&str; 0]);
    assert_eq!(at("/D"), ["av/base", "ex/two", "fw/base"]);
}

#[test]
fn rules_win_over_the_tree_by_priority_and_several_slots_take_from_all() {
    let fleet = with_rules(
        "multi_slot = [\"ex\"]\n\
         [[tree]]\npath = \"/\"\npolicies = [\"av/base\", \"fw/base\", \"ex/one\"]\nlock = true\n\
         [[rule]]\nname = \"weak\"\npriority = 9\ntags = [\"t\"]\npolicies = [\"fw/base\", \"ex/two\"]\n\
         [[rule]]\nname = \"strong\"\npriority = 1\ntags = [\"t\"]\nwithout_tags = [\"no\"]\npolicies = [\"fw/open\"]\n",
    );
    let with = |tags: &[&str]| at("x", "/", tags, &[]);
    assert_eq!(policies(&fleet, &with(&["t"])), ["av/base", "ex/one", "ex/two", "fw/open"]);
    assert_eq!(policies(&fleet, &with(&["t", "no"])), ["av/base", "ex/one", "ex/two", "fw/base"]);
    let explained = fleet.explain(&with(&["t"]));
    let firewall = explained.policies.iter().find(|it| it.category == "fw").expect("a policy");
    assert!(firewall.because.contains("rule `strong`") && firewall.instead_of.len() == 2, "{firewall:?}");
    let entry = fleet.policies(&with(&["t"])).entries[3].clone();
    assert_eq!(fleet.policy(&entry.sha256).map(|it| &*it.body), Some(&b"4"[..]));
    assert_eq!(fleet.policy_named("fw", "open").map(|it| it.sha256), Some(entry.sha256));
}

#[test]
fn a_group_that_is_wrong_does_not_make_its_rules_look_disabled() {
    let check = |members: &str| {
        let text = format!(
            "[[handler]]\nname = \"a\"\ninternal = \"a:443\"\nstate = \"disabled\"\n\
             [[group]]\nname = \"g\"\nmembers = [{members}]\n\
             [[assignment]]\nname = \"r\"\nhandlers = [\"g\"]\n"
        );
        let mut documents = Documents::default();
        documents.insert("fleet.toml", text.into()).expect("it is a document");
        let found = compile(&documents).problems;
        found.into_iter().map(|problem| problem.message).collect::<Vec<_>>()
    };
    assert_eq!(check("\"g\""), ["groups are within each other: g → g"]);
    let disabled = ["every handler of this group is disabled", "every handler of this rule is disabled"];
    assert_eq!(check("\"a\""), disabled);
}

#[test]
fn a_drained_handler_is_written_and_read_again_and_the_gone_are_left_out() {
    let first = three("");
    let now = b"[[handler]]\nname = \"gone\"\nstate = \"disabled\"\n[[handler]]\nname = \"b\"\nstate = \"disabled\"\n";
    let text = first.with_state(now, "a", State::Draining).expect("a handler");
    let second = fleet(&[("fleet.toml", THREE), ("states.toml", &text)]);
    let states: Vec<State> = second.handlers().iter().map(|it| it.state).collect();
    assert_eq!(states, [State::Draining, State::Disabled, State::Active]);
    assert!(!text.contains("gone") && first.with_state(b"", "nobody", State::Active).is_none());
    let back = second.with_state(text.as_bytes(), "a", State::Active).expect("a handler");
    assert!(back.contains("\"a\"\nstate = \"active\""), "{back}");
}

#[test]
fn tokens_open_their_place_and_no_other() {
    let fleet = sample();
    let berlin = fleet.enrolment("foo").expect("the token of the sample");
    assert_eq!((berlin.name.as_str(), fleet.enrolment("bar").is_none()), ("berlin", true));
    let place = |text: &str| TreePath::parse(text).expect("a place");
    assert_eq!(berlin.place(None), place("/Branches/Berlin"));
    assert_eq!(berlin.place(Some(&place("/Branches/Berlin/Tills"))), place("/Branches/Berlin/Tills"));
    assert_eq!(berlin.place(Some(&place("/Servers"))), place("/Branches/Berlin"));
    assert!(fleet.admits(berlin, &agent("till-1").id) && fleet.admits(berlin, &agent("new").id));
}

#[test]
fn a_file_that_is_something_else_is_told_in_bounded_space() {
    let log = "Nov 21 11:30:14 host kernel: [12.5] link = up, {speed}\n".repeat(2_000);
    let told = compiled(&[("fleet.toml", &log)]);
    assert!((1..=210).contains(&told.problems.len()), "{}", told.problems.len());
    let many = format!(
        "{THREE}[[group]]\nname = \"g\"\nmembers = [{}]\n",
        (0..300).map(|n| format!("\"x{n}\", ")).collect::<String>()
    );
    let told = compiled(&[("fleet.toml", &many)]);
    assert!(told.fleet.is_none() && told.problems.len() <= 210);
    assert!(told.render(false).contains("more findings about fleet.toml are not told"));
    assert!(compiled(&[]).render(false).contains("there is no fleet.toml"));
    let mut latin = Documents::default();
    latin.insert("fleet.toml", Bytes::from_static(b"x = 1\ny = \"\xe4\"\n")).expect("a document");
    assert!(compile(&latin).render(false).contains("line 2 of fleet.toml is not UTF-8"));
}
