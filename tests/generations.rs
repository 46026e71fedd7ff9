//! Catalogues: what agents see while their publisher does what publishers do.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may stop at the first broken assumption"
)]

use std::time::Duration;

use waypost::testkit::client::{Answer, Client};
use waypost::testkit::node::{Home, Plan, TestNode, eventually};
use waypost::testkit::origin::Origin;
use waypost::testkit::publisher::{CURRENT, Edition, ROOT};
use waypost::testkit::script::{Gate, Hold, Script};

const MIB: usize = 1 << 20;

fn plan(origins: &[&Origin]) -> Plan {
    let urls: Vec<String> = origins.iter().map(|origin| origin.url()).collect();
    Plan::new(format!(
        "[[repository]]\nname = \"dats\"\npath = \"/\"\npreset = \"epo\"\nupstreams = {urls:?}\n"
    ))
    .with("check_every = \"1s\"")
}

fn path(name: &str) -> String {
    format!("/{CURRENT}{name}")
}

/// A node before an origin that has edition 1.
async fn scene(lines: &str) -> (Origin, TestNode) {
    let origin = Origin::start().await;
    Edition::new(1, 2, 100_000).publish(&origin, "/");
    let plan = plan(&[&origin]).with(lines);
    // A key stands only once.
    let often = if lines.contains("check_every") { "check_every = \"1s\"" } else { "" };
    let repositories = plan.repositories.replacen(often, "", usize::from(!often.is_empty()));
    let node = Home::new().start(&Plan { repositories, ..plan }).await;
    (origin, node)
}

fn version(answer: &Answer) -> u64 {
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    text.split("CatalogVersion=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .expect("a version")
        .parse()
        .unwrap()
}

async fn shows(node: &TestNode, number: u64) {
    eventually(&format!("edition {number} is shown"), async || {
        version(&node.get(&format!("/{ROOT}"), &[]).await) == number
    })
    .await;
}

fn catalogue(status: &serde_json::Value) -> serde_json::Value {
    status["catalogues"][0].clone()
}

#[tokio::test]
async fn the_first_request_waits_until_the_catalogue_is_understood() {
    let (origin, node) = scene("").await;
    let answer = node.get(&path("part0.bin"), &[]).await;
    assert_eq!(
        (answer.status, &answer.body),
        (200, &Edition::new(1, 2, 100_000).body(&format!("{CURRENT}part0.bin")))
    );
    assert_eq!(
        origin.counts(&format!("/{ROOT}")).requests,
        3,
        "read, again when all was read, and a moment later"
    );
    let root = node.get(&format!("/{ROOT}"), &[]).await;
    assert_eq!(version(&root), 1);
    let generation = root.header("waypost-generation").unwrap();
    assert!(generation.starts_with("id=\"") && generation.contains("version=\"1\", age="), "{generation}");
    assert!(root.header("cache-status").unwrap().contains("generation"), "{:?}", root.headers);
    let shown = catalogue(&node.status().await);
    assert_eq!((&shown["version"], &shown["alarm"]), (&"1".into(), &false.into()), "{shown}");
    assert!(shown["files"].as_u64().unwrap() >= 5, "{shown}");
}

#[tokio::test]
async fn names_fold_case_and_upstream_is_asked_in_its_own_spelling() {
    let (origin, node) = scene("").await;
    let expected = Edition::new(1, 2, 100_000).body(&format!("{CURRENT}part1.bin"));
    for spelling in ["/current/vscandat1000/dat/0000/PART1.bin", "/CURRENT/VSCANDAT1000/dat/0000/part1.BIN"] {
        let answer = node.get(spelling, &[]).await;
        assert_eq!((answer.status, &answer.body), (200, &expected), "{spelling}");
    }
    assert_eq!(origin.counts(&path("part1.bin")).requests, 1);
    assert_eq!(version(&node.get("/sitestat.XML", &[]).await), 1);
}

#[tokio::test]
async fn a_new_edition_is_shown_with_what_agents_used_of_the_last_one_already_here() {
    let (origin, node) = scene("").await;
    for name in ["part0.bin", "avvdat-1.zip"] {
        assert_eq!(node.get(&path(name), &[]).await.status, 200);
    }
    let next = Edition::new(2, 2, 100_000);
    next.publish(&origin, "/");
    shows(&node, 2).await;
    let before = origin.counts(&path("part0.bin")).requests;
    assert_eq!(origin.counts(&path("avvdat-2.zip")).requests, 1, "the next of its kind");
    assert_eq!(origin.counts(&path("part1.bin")).requests, 0, "nobody wanted it");
    for name in ["part0.bin", "avvdat-2.zip"] {
        let answer = node.get(&path(name), &[]).await;
        assert_eq!((answer.status, &answer.body), (200, &next.body(&format!("{CURRENT}{name}"))));
        assert!(answer.header("cache-status").unwrap().contains("hit"), "{:?}", answer.headers);
    }
    assert_eq!(origin.counts(&path("part0.bin")).requests, before);
}

#[tokio::test]
async fn who_began_with_an_edition_gets_all_of_it_while_others_get_the_next() {
    let (origin, node) = scene("prepare = \"all\"").await;
    let (first, second) = (Edition::new(1, 2, 100_000), Edition::new(2, 2, 100_000));
    let mut old = node.client().await;
    let agent = [("user-agent", "old/1")];
    assert_eq!(version(&old.get(&format!("/{ROOT}"), &agent).await.unwrap()), 1);
    second.publish(&origin, "/");
    shows(&node, 2).await;
    for name in ["Replica.log", "avvdat.ini", "part0.bin", "part1.bin"] {
        let answer = old.get(&path(name), &agent).await.unwrap();
        assert_eq!(
            answer.body,
            first.body(&format!("{CURRENT}{name}")),
            "{name} of the edition it began with"
        );
        let mut again = node.client().await;
        let answer = again.get(&path(name), &agent).await.unwrap();
        assert_eq!(
            answer.body,
            first.body(&format!("{CURRENT}{name}")),
            "{name} over a connection of its own"
        );
        let answer = node.get(&path(name), &[("user-agent", "new/1")]).await;
        assert_eq!(answer.body, second.body(&format!("{CURRENT}{name}")), "{name} of the newest");
    }
    assert_eq!(version(&old.get(&format!("/{ROOT}"), &agent).await.unwrap()), 2, "it begins anew");
    assert_eq!(
        old.get(&path("part0.bin"), &agent).await.unwrap().body,
        second.body(&format!("{CURRENT}part0.bin"))
    );
}

#[tokio::test]
async fn a_catalogue_published_before_its_payload_is_not_shown() {
    let (origin, node) = scene("prepare = \"all\"").await;
    shows(&node, 1).await;
    let next = Edition::new(2, 2, 100_000);
    let late = format!("{CURRENT}part1.bin");
    for (path, body) in next.files.iter().filter(|(path, _)| *path != late) {
        origin.set(&format!("/{path}"), Script::text(body.clone()));
    }
    eventually("it is looked at and not shown", async || {
        catalogue(&node.status().await)["trouble"]["reason"] == "not-ready"
    })
    .await;
    assert_eq!(version(&node.get(&format!("/{ROOT}"), &[]).await), 1);
    let answer = node.get(&path("part1.bin"), &[]).await;
    assert_eq!((answer.status, answer.body), (200, Edition::new(1, 2, 100_000).body(&late)));
    origin.set(&format!("/{late}"), Script::text(next.body(&late)));
    shows(&node, 2).await;
    assert_eq!(node.get(&path("part1.bin"), &[]).await.body, next.body(&late));
    assert!(catalogue(&node.status().await)["trouble"].is_null());
}

/// A version and its payloads, and beside the root still the files of the edition before: only time tells.
#[tokio::test]
async fn a_publication_is_not_shown_while_its_files_still_come() {
    let (origin, node) = scene("").await;
    shows(&node, 1).await;
    let next = Edition::new(2, 2, 100_000);
    let late = ["Replica.log", "catalog.z"];
    let (log, gate) = (path("Replica.log"), Gate::default());
    let asked = |path: &str| origin.counts(path).requests;
    let before = asked(&log);
    for (path, body) in next.files.iter().filter(|(path, _)| !late.contains(&path.as_str())) {
        origin.set(&format!("/{path}"), Script::text(body.clone()));
    }
    let hold = Some(Hold { at: None, gate: gate.clone() });
    origin.set(&log, Script { hold, ..Script::text(next.body(&log[1..])) });
    eventually("it is read", async || asked(&log) > before).await;
    let before = asked("/Replica.log");
    gate.open();
    eventually("and looked at again", async || asked("/Replica.log") > before).await;
    // The publisher goes on within a second: so long it has to lie still.
    for name in late {
        origin.set(&format!("/{name}"), Script::text(next.body(name)));
    }
    eventually("edition 2 is shown", async || {
        let mut agent = node.client().await;
        let shown = version(&agent.get(&format!("/{ROOT}"), &[]).await.unwrap());
        let beside = agent.get("/catalog.z", &[]).await.unwrap().body;
        assert_eq!(beside, format!("catalog {shown}"), "of the edition it began with");
        shown == 2
    })
    .await;
}

/// The same file by file, with longer pauses than anybody waits: a version whose payloads have not come.
#[tokio::test]
async fn a_version_whose_payloads_have_not_come_is_not_shown() {
    let (origin, node) = scene("").await;
    shows(&node, 1).await;
    let next = Edition::new(2, 2, 100_000);
    for name in [ROOT, "Replica.log", "catalog.z"] {
        origin.set(&format!("/{name}"), Script::text(next.body(name)));
    }
    eventually("it waits for the payloads", async || {
        catalogue(&node.status().await)["trouble"]["reason"] == "unsettled"
    })
    .await;
    assert_eq!(version(&node.get(&format!("/{ROOT}"), &[]).await), 1);
    next.publish(&origin, "/");
    shows(&node, 2).await;
}

#[tokio::test]
async fn an_agent_that_takes_its_time_gets_its_edition_whatever_comes_after() {
    let (origin, node) = scene("prepare = \"all\"").await;
    let mut slow = node.client().await;
    assert_eq!(version(&slow.get(&format!("/{ROOT}"), &[]).await.unwrap()), 1);
    for number in 2..=6 {
        Edition::new(number, 2, 100_000).publish(&origin, "/");
        shows(&node, number).await;
    }
    let first = Edition::new(1, 2, 100_000);
    for name in ["Replica.log", "avvdat.ini", "part0.bin", "avvdat-1.zip"] {
        let answer = slow.get(&path(name), &[]).await.unwrap();
        assert_eq!((answer.status, answer.body), (200, first.body(&format!("{CURRENT}{name}"))), "{name}");
    }
}

#[tokio::test]
async fn a_node_behind_a_node_shows_the_same_generation() {
    let (origin, region) = scene("prepare = \"all\"").await;
    let upstream = format!(
        "[[repository]]\nname = \"dats\"\npath = \"/\"\npreset = \"epo\"\nupstreams = [\"http://{}/\"]\n\
         check_every = \"1s\"\n",
        region.plain
    );
    let branch = Home::new().start(&Plan::new(upstream)).await;
    shows(&branch, 1).await;
    Edition::new(2, 2, 100_000).publish(&origin, "/");
    shows(&branch, 2).await;
    let of = async |node: &TestNode| {
        let answer = node.get(&format!("/{ROOT}"), &[]).await;
        let field = answer.header("waypost-generation").unwrap().to_owned();
        field.split(',').next().unwrap().to_owned()
    };
    assert_eq!(of(&branch).await, of(&region).await, "the same generation has the same name");
    for name in ["Replica.log", "part1.bin"] {
        let answer = branch.get(&path(name), &[]).await;
        assert_eq!(answer.body, Edition::new(2, 2, 100_000).body(&format!("{CURRENT}{name}")));
    }
}

#[tokio::test]
async fn upstream_is_asked_for_the_generation_that_it_said_it_has() {
    let origin = Origin::start().await;
    let edition = Edition::new(1, 2, 100_000);
    edition.publish(&origin, "/");
    let named = "id=\"0123456789abcdef\", version=\"1\", age=3";
    let headers = vec![("waypost-generation".to_owned(), named.to_owned())];
    origin.set(&format!("/{ROOT}"), Script { headers, ..Script::text(edition.body(ROOT)) });
    let node = Home::new().start(&plan(&[&origin])).await;
    shows(&node, 1).await;
    let (of_root, of_parts): (Vec<String>, Vec<String>) = origin
        .heads()
        .into_iter()
        .filter(|head| head.contains("Replica.log ") || head.contains(ROOT))
        .partition(|head| head.contains(ROOT));
    let names = |head: &String| head.contains("waypost-generation: 0123456789abcdef");
    assert!(!of_root.iter().any(names), "of the root the newest is wanted: {of_root:?}");
    assert!(!of_parts.is_empty() && of_parts.iter().all(names), "{of_parts:?}");
    let shown = node.get(&format!("/{ROOT}"), &[]).await;
    let field = shown.header("waypost-generation").unwrap();
    assert!(!field.contains("0123456789abcdef"), "its own name for it: {field}");
}

#[tokio::test]
async fn a_repository_that_is_being_replicated_keeps_its_last_edition() {
    let (origin, node) = scene("").await;
    shows(&node, 1).await;
    let disabled = "<SiteStatus Status=\"Disabled\" CatalogVersion=\"2\"/>";
    origin.set(&format!("/{ROOT}"), Script::text(disabled));
    origin.unset(&path("part0.bin"));
    eventually("it is noticed", async || {
        catalogue(&node.status().await)["trouble"]["reason"] == "not-offered"
    })
    .await;
    assert_eq!(version(&node.get(&format!("/{ROOT}"), &[]).await), 1);
}

#[tokio::test]
async fn before_there_is_anything_to_offer_agents_are_told_to_go_elsewhere() {
    let origin = Origin::start().await;
    origin.set(&format!("/{ROOT}"), Script::text("<SiteStatus Status=\"Disabled\" CatalogVersion=\"1\"/>"));
    let node = Home::new().start(&plan(&[&origin])).await;
    let answer = node.get(&format!("/{ROOT}"), &[]).await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(answer.status == 200 && text.contains("Status=\"Disabled\""), "{} {text}", answer.status);
}

#[tokio::test]
async fn a_catalogue_that_cannot_be_understood_never_replaces_one_that_was() {
    let (origin, node) = scene("").await;
    shows(&node, 1).await;
    let log = format!("/{CURRENT}Replica.log");
    let next = Edition::new(2, 2, 100_000);
    next.publish(&origin, "/");
    origin.set(
        &log,
        Script::text(
            "[General]\r\nNumItems=1\r\n[ITEM_1]\r\nName=../../etc/passwd\r\nType=File\r\nSize=1\r\n",
        ),
    );
    eventually("it is refused", async || catalogue(&node.status().await)["trouble"]["reason"] == "malformed")
        .await;
    let detail = catalogue(&node.status().await)["trouble"]["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("Replica.log") && detail.contains("line "), "{detail}");
    assert_eq!(version(&node.get(&format!("/{ROOT}"), &[]).await), 1);
    assert!(
        node.metric("waypost_generations_refused_total{repository=\"dats\",reason=\"malformed\"}").await > 0
    );
    next.publish(&origin, "/");
    shows(&node, 2).await;
}

#[tokio::test]
async fn a_mirror_that_lags_behind_does_not_take_agents_back() {
    let (good, lagging) = (Origin::start().await, Origin::start().await);
    Edition::new(5, 1, 50_000).publish(&good, "/");
    Edition::new(4, 1, 50_000).publish(&lagging, "/");
    let node = Home::new().start(&plan(&[&good, &lagging])).await;
    shows(&node, 5).await;
    good.set(&format!("/{ROOT}"), Script::status(503, &[]));
    eventually("the other one is looked at", async || lagging.counts(&format!("/{ROOT}")).requests > 0).await;
    eventually("and found to be older", async || {
        let reason = catalogue(&node.status().await)["trouble"]["reason"].clone();
        reason == "unreachable" || reason == "older"
    })
    .await;
    assert_eq!(version(&node.get(&format!("/{ROOT}"), &[]).await), 5);
    Edition::new(6, 1, 50_000).publish(&lagging, "/");
    shows(&node, 6).await;
}

#[tokio::test]
async fn wrong_bytes_of_one_mirror_are_fetched_from_the_next() {
    let (bad, good) = (Origin::start().await, Origin::start().await);
    let edition = Edition::new(1, 1, 3 * MIB);
    edition.publish(&bad, "/");
    edition.publish(&good, "/");
    bad.set(&path("part0.bin"), Script::text("<html>please log in</html>"));
    let node = Home::new().start(&plan(&[&bad, &good])).await;
    let answer = node.get(&path("part0.bin"), &[]).await;
    assert_eq!((answer.status, answer.body), (200, edition.body(&format!("{CURRENT}part0.bin"))));
}

#[tokio::test]
async fn a_dead_wan_changes_nothing_but_the_age() {
    let (origin, node) = scene("alarm_after = \"2s\"").await;
    shows(&node, 1).await;
    let edition = Edition::new(1, 2, 100_000);
    assert_eq!(node.get(&path("part0.bin"), &[]).await.status, 200);
    drop(origin);
    eventually("there is an alarm", async || catalogue(&node.status().await)["alarm"] == true).await;
    let root = node.get(&format!("/{ROOT}"), &[]).await;
    assert_eq!(version(&root), 1);
    assert!(root.header("age").unwrap().parse::<u64>().unwrap() >= 2, "{:?}", root.headers);
    assert_eq!(node.get(&path("part0.bin"), &[]).await.body, edition.body(&format!("{CURRENT}part0.bin")));
    assert_eq!(node.metric("waypost_generation_alarm{repository=\"dats\"}").await, 1);
}

#[tokio::test]
async fn what_is_too_old_is_not_offered_where_the_administrator_says_so() {
    let (origin, node) = scene("stop_after = \"2s\"").await;
    shows(&node, 1).await;
    drop(origin);
    eventually("agents are sent elsewhere", async || {
        let answer = node.get(&format!("/{ROOT}"), &[]).await;
        String::from_utf8_lossy(&answer.body).contains("Disabled")
    })
    .await;
}

#[tokio::test]
async fn generations_survive_a_restart_without_upstream() {
    let (origin, node) = scene("").await;
    shows(&node, 1).await;
    let edition = Edition::new(1, 2, 100_000);
    for name in ["part0.bin", "avvdat.ini"] {
        assert_eq!(node.get(&path(name), &[]).await.status, 200);
    }
    let plan = plan(&[&origin]);
    drop(origin);
    let home = node.stop().await;
    let node = home.start(&plan).await;
    assert_eq!(version(&node.get(&format!("/{ROOT}"), &[]).await), 1);
    for name in ["part0.bin", "avvdat.ini"] {
        let answer = node.get(&path(name), &[]).await;
        assert_eq!((answer.status, answer.body), (200, edition.body(&format!("{CURRENT}{name}"))), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_agents_that_insist_are_one_look_at_upstream() {
    for warm in [false, true] {
        let (origin, node) = scene("check_every = \"1h\"").await;
        let root = format!("/{ROOT}");
        if warm {
            shows(&node, 1).await;
            // Long enough that a client's insisting is listened to again.
            tokio::time::sleep(Duration::from_millis(5_100)).await;
        }
        let before = origin.counts(&root).requests;
        let mut agents = tokio::task::JoinSet::new();
        for _ in 0..500 {
            let (address, root) = (node.plain, root.clone());
            agents.spawn(async move {
                let mut client = Client::connect(address).await.unwrap();
                client.get(&root, &[("cache-control", "max-age=0")]).await.unwrap().status
            });
        }
        while let Some(status) = agents.join_next().await {
            assert_eq!(status.unwrap(), 200);
        }
        let asked = origin.counts(&root).requests - before;
        let look = if warm { 1 } else { 3 };
        assert!((look..=2 * look).contains(&asked), "warm {warm}: {asked}");
    }
}

#[tokio::test]
async fn an_administrators_rule_outranks_the_preset() {
    let (origin, node) = scene("[[repository.rule]]\nmatch = \"SiteStat.xml\"\nfresh_for = \"1h\"").await;
    let root = format!("/{ROOT}");
    let answer = node.get(&root, &[]).await;
    assert_eq!((answer.status, answer.header("waypost-generation")), (200, None));
    Edition::new(2, 2, 100_000).publish(&origin, "/");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(version(&node.get(&root, &[]).await), 1, "fresh for an hour, as it says");
}

#[tokio::test]
async fn what_a_catalogue_lists_can_be_fetched_ahead_by_its_operator() {
    let (origin, node) = scene("").await;
    let edition = Edition::new(1, 2, 100_000);
    let asked = node.operate("POST", "/v1/warm", "{\"patterns\":[],\"catalog\":true}").await;
    assert_eq!(asked["total"], 3, "two parts and the full file; the others are catalogue files: {asked}");
    let job = format!("/v1/jobs/{}", asked["id"]);
    eventually("it is done", async || node.operate("GET", &job, "").await["state"] == "done").await;
    let done = node.operate("GET", &job, "").await;
    assert_eq!(done["failures"], 0, "{done}");
    drop(origin);
    for name in ["part0.bin", "part1.bin", "avvdat-1.zip"] {
        let answer = node.get(&path(name), &[]).await;
        assert_eq!((answer.status, answer.body), (200, edition.body(&format!("{CURRENT}{name}"))), "{name}");
    }
}
