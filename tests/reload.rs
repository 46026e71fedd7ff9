//! Reading the configuration again: all or nothing, and no request lost over it.

#![expect(clippy::expect_used, reason = "a test may stop at the first broken assumption")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use waypost::testkit::content;
use waypost::testkit::origin::Origin;
use waypost::testkit::pki::Authority;
use waypost::testkit::process::{Dice, Process, Signal, Site, eventually, is_long};
use waypost::testkit::script::Script;

async fn reload(site: &Site, flags: &[&str]) -> Value {
    let words: Vec<&str> = ["reload", "--json"].into_iter().chain(flags.iter().copied()).collect();
    let (code, out, talk) = site.run(&words).await;
    assert_eq!(code, 0, "{talk}");
    serde_json::from_str(&out).expect("JSON")
}

/// A repository `o`, further tables behind it, and the level of the log.
fn config(origin: &Origin, more: &str, level: &str) -> String {
    let url = origin.url();
    format!(
        "[server]\nplain_listen = \"127.0.0.1:0\"\nnode = \"test\"\n\n[admin]\nsocket = \"admin.sock\"\n\n\
         [cache]\ndir = \"cache\"\nsize = \"64MiB\"\nmemory = \"8MiB\"\nmin_free = \"0B\"\n\n\
         [[repository]]\nname = \"o\"\npath = \"/o/\"\nupstreams = [\"{url}o/\"]\n{more}\n\
         [log]\nformat = \"json\"\nlevel = \"{level}\"\n"
    )
}

fn site(dir: &Path) -> Site {
    Site::new(env!("CARGO_BIN_EXE_waypost"), dir)
}

fn whats(reloaded: &Value) -> Vec<(String, bool)> {
    let changes = reloaded["changes"].as_array().expect("a list");
    let one = |it: &Value| (it["what"].as_str().unwrap_or_default().to_owned(), it["restart"] == true);
    changes.iter().map(one).collect()
}

#[tokio::test]
async fn what_changed_is_in_force_and_what_waits_for_a_restart_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let origin = Origin::start().await;
    origin.set("/p/x", Script::file(3, 500));
    let site = site(dir.path());
    site.write_config(&config(&origin, "", "info"));
    let node = site.start().await;
    assert_eq!(reload(&site, &[]).await["changed"], false);
    assert_eq!(node.get("/p/x", &[]).await.status, 404);

    let more =
        format!("\n[[repository]]\nname = \"p\"\npath = \"/p/\"\nupstreams = [\"{}p/\"]\n", origin.url());
    let text = config(&origin, &more, "debug").replace("memory = \"8MiB\"", "memory = \"16MiB\"");
    site.write_config(&text);
    let expected = [
        ("[log] level".to_owned(), false),
        ("repository p".to_owned(), false),
        ("[cache] memory".to_owned(), true),
    ];
    let dry = reload(&site, &["-n"]).await;
    assert_eq!((whats(&dry).as_slice(), &dry["changed"]), (&expected[..], &json!(true)));
    assert_eq!(node.get("/p/x", &[]).await.status, 404, "a dry run changes nothing");
    assert_eq!(whats(&reload(&site, &[]).await), expected);
    assert_eq!(node.get("/p/x", &[]).await.body, content::whole(3, 500));
    let again = reload(&site, &[]).await;
    assert_eq!(whats(&again), [("[cache] memory".to_owned(), true)], "it still waits");

    for (flags, last) in [
        (&["reload"][..], "nothing is in force yet: it waits for a restart of the node\n"),
        (&["reload", "-n"], "a reload would change nothing; a restart would\n"),
    ] {
        let (code, out, _) = site.run(flags).await;
        assert_eq!((code, out), (0, format!("changed [cache] memory  (waits for a restart)\n{last}")));
    }

    site.write_config(&config(&origin, "", "info"));
    assert_eq!(reload(&site, &[]).await["changed"], true);
    assert!(site.run(&["reload"]).await.1.ends_with("nothing to do\n"));
    assert_eq!(node.get("/p/x", &[]).await.status, 404, "its repository is gone");
    node.stop().await;
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_told_with_its_lines() {
    let dir = tempfile::tempdir().expect("a directory");
    let origin = Origin::start().await;
    origin.set("/o/x", Script::file(3, 500));
    let site = site(dir.path());
    site.write_config(&config(&origin, "", "info"));
    let node = site.start().await;
    assert_eq!(node.metric("waypost_config_last_reload_successful").await, 1.0);
    for bad in
        ["fresh_fro = \"1m\"\n", "[[repository]]\nname = \"o\"\npath = \"/z/\"\ndirectory = \".\"\n", "[[[\n"]
    {
        site.write_config(&config(&origin, bad, "info"));
        // The client finds the socket although the file is broken.
        let (code, out, talk) = site.run(&["reload", "-s", "admin.sock"]).await;
        assert_eq!((code, out.as_str()), (3, ""), "{talk}");
        assert!(talk.contains("waypost.toml:") && talk.contains("stays in force"), "{talk}");
        assert_eq!(node.metric("waypost_config_last_reload_successful").await, 0.0);
        assert_eq!(node.get("/o/x", &[]).await.status, 200);
    }
    std::fs::remove_file(dir.path().join("waypost.toml")).expect("it was there");
    let (code, _, talk) = site.run(&["reload", "-s", "admin.sock"]).await;
    assert_eq!((code, talk.contains("cannot read")), (3, true), "{talk}");
    site.write_config(&config(&origin, "", "info"));
    node.signal(Signal::HUP);
    eventually("the good file is in force", async || {
        node.metric("waypost_config_last_reload_successful").await == 1.0
    })
    .await;
    eventually("both are in the log", async || {
        node.said("configuration reloaded") && node.said("was not reloaded")
    })
    .await;
    node.stop().await;
}

/// Every fifth configuration is invalid, every other one has another rule; agents ask all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_over_reloads() {
    let (rounds, agents) = if is_long() { (100, 8) } else { (20, 4) };
    let mut dice = Dice::seeded(7);
    let dir = tempfile::tempdir().expect("a directory");
    let origin = Origin::start().await;
    for number in 0..20 {
        origin.set(&format!("/o/{number}"), Script::file(number, 30_000));
    }
    let site = site(dir.path());
    site.write_config(&config(&origin, "", "info"));
    let node: Arc<Process> = Arc::new(site.start().await);
    let (over, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..agents {
        let (node, over, answers, mut dice) =
            (Arc::clone(&node), Arc::clone(&over), Arc::clone(&answers), dice.split());
        asking.spawn(async move {
            let mut client = node.connect().await;
            while !over.load(Ordering::Relaxed) {
                let number = dice.below(20);
                let answer = client.get(&format!("/o/{number}"), &[]).await.expect("an answer");
                assert_eq!(
                    (answer.status, answer.body),
                    (200, content::whole(number, 30_000)),
                    "/o/{number}"
                );
                answers.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for round in 1..=rounds {
        let rule = format!("[[repository.rule]]\nmatch = \"*{round}\"\nfresh_for = \"{round}m\"\n");
        let bad = round % 5 == 0;
        site.write_config(&config(&origin, if bad { "nonsense = 1\n" } else { &rule }, "info"));
        let before = answers.load(Ordering::Relaxed);
        let (code, _, talk) = site.run(&["reload", "-s", "admin.sock"]).await;
        assert_eq!(code, if bad { 3 } else { 0 }, "round {round}: {talk}");
        eventually("agents go on", async || answers.load(Ordering::Relaxed) > before || asking.is_empty())
            .await;
    }
    over.store(true, Ordering::Relaxed);
    while let Some(ended) = asking.join_next().await {
        ended.expect("every answer was right");
    }
    Arc::into_inner(node).expect("nobody else has it").stop().await;
}

#[tokio::test]
async fn certificates_are_read_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let origin = Origin::start().await;
    origin.set("/o/x", Script::file(1, 100));
    let (old, new) = (Authority::new("old CA"), Authority::new("new CA"));
    let write = |authority: &Authority| {
        let issued = authority.server(&["localhost"]);
        std::fs::write(dir.path().join("node.pem"), issued.cert).expect("a file");
        std::fs::write(dir.path().join("node.key"), issued.key).expect("a file");
    };
    write(&old);
    let site = site(dir.path());
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
    let tls = format!(
        "listen = \"127.0.0.1:{port}\"\ntls = {{ cert = \"node.pem\", key = {{ file = \"node.key\" }} }}\nplain_listen"
    );
    site.write_config(&config(&origin, "", "info").replacen("plain_listen", &tls, 1));
    let node = site.start().await;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let shake = async |authority: &Authority| {
        waypost::testkit::client::Client::connect_tls(address, "localhost", authority).await.is_ok()
    };
    assert!(shake(&old).await && !shake(&new).await);
    write(&new);
    assert_eq!(whats(&reload(&site, &[]).await), [("[server] tls".to_owned(), false)]);
    assert!(shake(&new).await && !shake(&old).await);
    // A key of another certificate: the whole reload is refused.
    std::fs::write(dir.path().join("node.key"), old.server(&["localhost"]).key).expect("a file");
    let (code, _, talk) = site.run(&["reload"]).await;
    assert_eq!((code, talk.contains("nothing was changed")), (3, true), "{talk}");
    assert!(shake(&new).await);
    node.stop().await;
}
