//! Updates from nodes and from origins that misbehave.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use waypost::agent::{Agent, Report};
use waypost::base::digest::Digest;
use waypost::testkit::content;
use waypost::testkit::handler::{Handler, Script as HandlerScript};
use waypost::testkit::node::{Home, Plan};
use waypost::testkit::origin::Origin;
use waypost::testkit::publisher::{CURRENT, Edition, ROOT};
use waypost::testkit::script::{How, Script};

use crate::scene::Scene;

/// Puts an edition into a directory, payloads first and the root last.
fn publish(edition: &Edition, dir: &Path) {
    for (path, body) in &edition.files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().expect("it has a folder")).expect("folders can be made");
        let new = path.with_extension("publishing");
        fs::write(&new, body).expect("it can be written");
        fs::rename(new, path).expect("it can be moved");
    }
}

/// An agent with one update of this preset and folder, against an origin that is its only handler.
fn agent(scene: &Scene, origin: &Origin, preset: &str, folder: &str) -> Agent {
    let mut options = scene.options(&[origin.authority()]);
    options.updates = vec![scene.update(preset, folder)];
    Agent::open(options).expect("it can begin")
}

/// An origin that is a handler as far as a probe goes.
async fn origin(scene: &Scene) -> Origin {
    let origin = Origin::start_tls(&scene.authority.server(&["127.0.0.1"]), None).await;
    origin.set("/agent/v1/probe", Script::bytes(r#"{"node":"o","address":"127.0.0.1"}"#));
    origin
}

async fn only(agent: &mut Agent) -> Report {
    let mut reports = agent.update().await;
    assert_eq!(reports.len(), 1);
    reports.remove(0)
}

fn generic(origin: &Origin, files: &[(&str, Bytes)]) {
    let mut list = String::new();
    for (name, body) in files {
        list += &format!("{}  {name}\n", Digest::of(body));
        origin.set(&format!("/Software/{name}"), Script::text(body.clone()));
    }
    origin.set("/Software/SHA256SUMS", Script::text(list));
}

#[tokio::test]
async fn a_directory_follows_the_editions_of_a_real_node_and_says_so_in_its_check_ins() {
    let scene = Scene::new();
    let master = scene.path("master");
    let (first, second) = (Edition::new(20, 3, 40_000), Edition::new(21, 3, 40_000));
    publish(&first, &master);
    let home = Home::new();
    let plan = Plan::new(format!(
        "[[repository]]\nname = \"software\"\npath = \"/Software/\"\npreset = \"epo\"\ndirectory = {master:?}\n"
    ));
    let node = home.start(&plan).await;
    let script = HandlerScript { repositories: Some(node.plain), ..HandlerScript::default() };
    let handler = Handler::start(&scene.authority, script).await;
    let mut options = scene.options(&[handler.authority()]);
    options.updates = vec![scene.update("epo", CURRENT)];
    let mut agent = Agent::open(options).unwrap();

    let report = only(&mut agent).await;
    assert!(report.changed && report.is_done(), "{report:?}");
    assert_eq!((report.version.as_str(), report.files), ("20", 5), "{report:?}");
    for (path, body) in
        first.files.iter().filter(|(path, _)| path.starts_with(CURRENT) && !path.ends_with(".log"))
    {
        assert_eq!(scene.installed(&path[CURRENT.len()..]).unwrap(), *body, "{path}");
    }
    let report = only(&mut agent).await;
    assert!(!report.changed && report.is_done(), "{report:?}");

    publish(&second, &master);
    let report = only(&mut agent).await;
    assert_eq!((report.from.as_str(), report.version.as_str()), ("20", "21"), "{report:?}");
    assert_eq!(scene.installed("part0.bin").unwrap(), second.body(&format!("{CURRENT}part0.bin")));
    assert!(scene.installed("avvdat-20.zip").is_none());
    agent.check_in().await.unwrap();
    assert_eq!(handler.checkins()[0].content.get("Software/SiteStat.xml").map(String::as_str), Some("21"));
}

#[tokio::test]
async fn increments_come_in_place_of_the_full_file_and_the_full_file_where_they_are_gone() {
    let scene = Scene::new();
    let origin = origin(&scene).await;
    let put = |dat: u64, deltas: &[&str]| {
        let full = (format!("avvdat-{dat}.zip"), content::whole(dat, 50_000));
        let pointer = format!("[AVV-ZIP]\r\nDATVersion={dat}\r\nFileName={}\r\nFileSize=50000\r\n", full.0);
        let mut files = vec![full, ("avvdat.ini".to_owned(), pointer.into())];
        files.extend(deltas.iter().map(|name| ((*name).to_owned(), content::whole(7, 900))));
        let mut log = format!("[General]\r\nNumItems={}\r\n", files.len());
        for (number, (name, body)) in (1..).zip(&files) {
            let (length, hash) = (body.len(), Digest::of(body));
            log += &format!(
                "[ITEM_{number}]\r\nName={name}\r\nType=File\r\nSize={length}\r\nHash256={hash}\r\n"
            );
            origin.set(&format!("/Software/D/{name}"), Script::text(body.clone()));
        }
        origin.set("/Software/D/Replica.log", Script::text(log));
        origin.set(
            "/Software/SiteStat.xml",
            Script::text(format!("<SiteStatus Status=\"Enabled\" CatalogVersion=\"{dat}\"/>")),
        );
    };
    let mut agent = agent(&scene, &origin, "epo", "D/");
    put(10, &[]);
    let report = only(&mut agent).await;
    assert!(report.changed && !report.by_increments, "{report:?}");

    put(12, &["1011.gem", "1112.gem"]);
    let report = only(&mut agent).await;
    assert!(report.by_increments && report.bytes < 5_000, "{report:?}");
    let there = |name: &str| scene.installed(name).is_some();
    assert!(there("avvdat-10.zip") && there("1011.gem") && there("1112.gem") && !there("avvdat-12.zip"));
    assert!(!only(&mut agent).await.changed);

    put(13, &["1213.gem"]);
    origin.unset("/Software/D/1213.gem");
    let report = only(&mut agent).await;
    assert!(report.changed && !report.by_increments, "{report:?}");
    assert!(there("avvdat-13.zip") && !there("avvdat-10.zip") && !there("1011.gem"));
}

#[tokio::test]
async fn a_transfer_that_broke_goes_on_where_it_stopped() {
    let scene = Scene::new();
    let origin = origin(&scene).await;
    let body = content::whole(5, 200_000);
    generic(&origin, &[("big.bin", body.clone())]);
    origin.set("/Software/big.bin", Script::text(body.clone()).breaking(120_000, How::Finish, 1));
    let mut agent = agent(&scene, &origin, "generic", "");
    let report = only(&mut agent).await;
    assert!(!report.is_done() && scene.installed("big.bin").is_none(), "{report:?}");
    drop(agent);
    let mut agent = self::agent(&scene, &origin, "generic", "");
    let report = only(&mut agent).await;
    assert!(report.changed, "{report:?}");
    assert_eq!(scene.installed("big.bin").unwrap(), body);
    let ranges = origin.counts("/Software/big.bin").ranges;
    assert!(ranges.len() == 1 && ranges[0] != "bytes=0-", "{ranges:?}");
    assert!(report.bytes < 200_000, "{report:?}");
}

#[tokio::test]
async fn wrong_bytes_are_not_installed_and_the_version_before_stays() {
    let scene = Scene::new();
    let origin = origin(&scene).await;
    let mut agent = agent(&scene, &origin, "generic", "");
    generic(&origin, &[("a.bin", content::whole(1, 9_000)), ("b.bin", content::whole(2, 9_000))]);
    assert!(only(&mut agent).await.changed);
    let before = scene.installed("a.bin").unwrap();
    generic(&origin, &[("a.bin", content::whole(3, 9_000)), ("b.bin", content::whole(4, 9_000))]);
    origin
        .set("/Software/b.bin", Script::text(content::whole(4, 9_000)).breaking(100, How::Flip, usize::MAX));
    let report = only(&mut agent).await;
    assert!(
        !report.is_done() && report.tried[0].1.contains("not those that the catalogue lists"),
        "{report:?}"
    );
    assert_eq!(scene.installed("a.bin").unwrap(), before);
    origin.set("/Software/b.bin", Script::text(content::whole(4, 9_000)));
    assert!(only(&mut agent).await.changed);
    assert_eq!(scene.installed("b.bin").unwrap(), content::whole(4, 9_000));
}

#[tokio::test]
async fn hostile_names_are_refused_with_everything_that_came_along() {
    let scene = Scene::new();
    let origin = origin(&scene).await;
    let mut agent = agent(&scene, &origin, "generic", "");
    let good = Digest::of(b"x");
    for name in [
        "../escaped",
        "/etc/escaped",
        "a/../../escaped",
        "nul.txt",
        "c:escaped",
        "esc\u{7}aped",
        "a/b/../escaped",
    ] {
        origin.set("/Software/SHA256SUMS", Script::text(format!("{good}  fine\n{good}  {name}\n")));
        origin.set("/Software/fine", Script::text("x"));
        let report = only(&mut agent).await;
        assert!(!report.is_done(), "{name}: {report:?}");
    }
    assert!(scene.installed("fine").is_none());
    let mut found: Vec<_> = fs::read_dir(scene.path("")).unwrap().map(|it| it.unwrap().file_name()).collect();
    found.sort();
    assert_eq!(found, ["dat", "state"]);
}

#[tokio::test]
async fn an_older_or_suspended_repository_is_passed_over_and_the_next_source_does_it() {
    let scene = Scene::new();
    let (stale, current) = (origin(&scene).await, origin(&scene).await);
    let (old, new) = (Edition::new(5, 1, 500), Edition::new(6, 1, 500));
    new.publish(&stale, "/Software/");
    let mut options = scene.options(&[stale.authority(), current.authority()]);
    options.updates = vec![scene.update("epo", CURRENT)];
    let mut agent = Agent::open(options).unwrap();
    assert!(only(&mut agent).await.is_done());
    let newest = Edition::new(7, 1, 500);
    // Whichever of the two equals is asked first: the one that can does it.
    for (one, other) in [(&stale, &current), (&current, &stale)] {
        old.publish(one, "/Software/");
        newest.publish(other, "/Software/");
        let report = only(&mut agent).await;
        assert_eq!((report.is_done(), report.version.as_str()), (true, "7"), "{report:?}");
    }
    for it in [&stale, &current] {
        it.set(
            &format!("/Software/{ROOT}"),
            Script::text("<SiteStatus Status=\"Disabled\" CatalogVersion=\"9\"/>"),
        );
    }
    let report = only(&mut agent).await;
    assert!(
        !report.is_done() && report.tried.iter().all(|(_, why)| why.contains("offers nothing")),
        "{report:?}"
    );
    assert_eq!(report.version, "7");
}
