//! freshclam against a private mirror: version checks by range, deltas one after the other, the origin failing.

use std::path::PathBuf;

use bytes::Bytes;
use waypost::testkit::process::eventually;
use waypost::testkit::script::{How, Script};

use super::agent::{Agent, Outcome, have};
use super::stage::{File, Stage, answered, file};

/// What the repository's configuration says about ClamAV's files. A rule about a file outranks a preset.
const RULES: &str = r#"
preset = "generic"

[[repository.rule]]
match = "*.cdiff"
immutable = true

[[repository.rule]]
match = "**"
fresh_for = "0s"
stale_while_revalidate = "0s"
"#;

/// The newest version there is.
pub(crate) const NEWEST: u32 = 6;

/// A machine with freshclam.
pub(crate) struct Scanner {
    root: PathBuf,
    ca: PathBuf,
}

impl Scanner {
    /// One that has the database in version `has`, if any, and asks the mirror at `stage`.
    pub(crate) async fn new(stage: &Stage, name: &str, has: Option<u32>) -> Self {
        Self::with(stage, name, has, "").await
    }

    async fn with(stage: &Stage, name: &str, has: Option<u32>, lines: &str) -> Self {
        let root = stage.folder(name);
        let database = stage.folder(&format!("{name}/db"));
        if let Some(version) = has {
            std::fs::write(database.join("test.cvd"), data(&format!("test-{version}.cvd"))).expect("a file");
        }
        let who = Agent::new("id").arg("-un").run().await.succeeds();
        let who = String::from_utf8_lossy(who.stdout()).trim().to_owned();
        let config = format!(
            "DatabaseMirror {url}\nDNSDatabaseInfo no\nDatabaseDirectory {db}\nDatabaseOwner {who}\n\
             ConnectTimeout 10\nReceiveTimeout 60\nMaxAttempts 1\nTestDatabases no\n{lines}\n",
            url = stage.url("clamav"),
            db = database.display(),
        );
        std::fs::write(root.join("freshclam.conf"), config).expect("a file");
        Self { root, ca: stage.ca() }
    }

    fn agent(&self) -> Agent {
        let config = self.root.join("freshclam.conf");
        let agent = Agent::new("freshclam").env("CURL_CA_BUNDLE", &self.ca);
        agent.args(&["--no-dns", "--stdout", "--config-file"]).arg(config)
    }

    /// Updates the database `test`.
    pub(crate) async fn update(&self) -> Outcome {
        self.agent().arg("--update-db=test").run().await
    }

    /// A file of its database.
    pub(crate) fn database(&self, name: &str) -> Option<Bytes> {
        std::fs::read(self.root.join("db").join(name)).ok().map(Bytes::from)
    }

    /// The version of the database that it has, whole (`.cvd`) or put together from deltas (`.cld`).
    #[track_caller]
    pub(crate) fn version(&self) -> u32 {
        let database = self.database("test.cld").or_else(|| self.database("test.cvd"));
        let head = String::from_utf8_lossy(&database.expect("a database")[..100]).into_owned();
        head.split(':').nth(2).and_then(|version| version.parse().ok()).expect("a version in its header")
    }
}

/// A file of the test data.
pub(crate) fn data(name: &str) -> Bytes {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/freshclam").join(name);
    std::fs::read(path).expect("test data").into()
}

/// What a mirror has whose database is of this version.
pub(crate) fn mirror(version: u32) -> Vec<File> {
    let cvd = ("clamav/test.cvd".to_owned(), data(&format!("test-{version}.cvd")));
    let cdiff = |version| {
        let name = format!("test-{version}.cdiff");
        (format!("clamav/{name}"), data(&name))
    };
    (2..=version).map(cdiff).chain([cvd]).collect()
}

/// A node in front of a mirror of this version.
pub(crate) async fn stage(lines: &str, version: u32) -> Option<Stage> {
    if !have(&[&["freshclam", "--version"], &["id", "-un"]]).await {
        return None;
    }
    let stage = Stage::new(lines).await;
    stage.publish(version, &mirror(version));
    Some(stage)
}

#[tokio::test]
async fn freshclam_is_listed_by_the_id_of_its_machine_with_the_version_it_took() {
    let lines = "preset = \"clamav\"\n[agents]\nstate_dir = \"state\"\npassive = true";
    let Some(stage) = stage(lines, NEWEST).await else { return };
    let one = Scanner::new(&stage, "one", None).await;
    one.update().await.succeeds();
    eventually("it is listed", async || {
        let answer = stage.node.ask("/v1/agents?selector=state%3Dpassive").await;
        let found: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let Some(row) = found["agents"].as_array().and_then(|rows| rows.first()) else { return false };
        let id = row["id"].as_str().unwrap_or_default();
        // 36 characters of a UUID behind its kind.
        id.starts_with("clamav:")
            && id.len() == 43
            && row["agent_version"].as_str().is_some_and(|it| it.starts_with("ClamAV/"))
            && row["content"]["repo/clamav/test.cvd"].as_str().is_some_and(|it| it.parse() == Ok(NEWEST))
    })
    .await;
}

#[tokio::test]
async fn freshclam_gets_the_database_and_the_next_machine_costs_no_upstream_body() {
    let Some(stage) = stage(RULES, NEWEST).await else { return };
    let whole = data("test-6.cvd");
    let one = Scanner::new(&stage, "one", None).await;
    one.update().await.succeeds();
    assert!(one.database("test.cvd") == Some(whole.clone()));
    assert_eq!(stage.crossed("clamav/test.cvd"), whole.len() as u64);
    stage.settles().await;
    let two = Scanner::new(&stage, "two", None).await;
    two.update().await.succeeds();
    assert!(two.database("test.cvd") == Some(whole.clone()));
    assert_eq!(stage.crossed("clamav/test.cvd"), whole.len() as u64);
}

#[tokio::test]
async fn freshclam_looks_at_the_first_bytes_and_is_told_that_nothing_changed() {
    let Some(stage) = stage(RULES, NEWEST).await else { return };
    let old = Scanner::new(&stage, "old", Some(1)).await;
    old.update().await.succeeds();
    let head = stage.logs("the version check", answered(206, "/test.cvd")).await;
    assert_eq!((&head["range"], &head["bytes"]), (&"bytes=0-511".into(), &512.into()), "{head}");
    let outcome = old.update().await.succeeds();
    assert!(outcome.said.contains("up-to-date"), "{outcome}");
    // The database is as old as its header says, which is long before it was published: then it is sent again.
    stage.set(
        "clamav/test.cvd",
        Script {
            last_modified: Some("Wed, 23 Jun 2021 01:34:00 GMT".to_owned()),
            ..file(NEWEST, &data("test-6.cvd"))
        },
    );
    let outcome = old.update().await.succeeds();
    assert!(outcome.said.contains("up-to-date"), "{outcome}");
    stage.logs("the 304", answered(304, "/test.cvd")).await;
}

#[tokio::test]
async fn freshclam_comes_with_a_new_connection_for_each_file_and_follows_the_chain_of_deltas() {
    let Some(stage) = stage(RULES, NEWEST).await else { return };
    let one = Scanner::new(&stage, "one", Some(1)).await;
    one.update().await.succeeds();
    assert_eq!(one.version(), NEWEST);
    let mut ports = Vec::new();
    for version in 2..=NEWEST {
        let name = format!("test-{version}.cdiff");
        let line = stage.logs("the delta", answered(200, &name)).await;
        assert_eq!((&line["verdict"], &line["complete"]), (&"miss".into(), &true.into()), "{line}");
        ports.push(line["client"].to_string());
        assert_eq!(stage.asked(&format!("clamav/{name}")), 1);
    }
    ports.sort();
    ports.dedup();
    assert_eq!(ports.len(), 5, "one connection for each");
    stage.settles().await;
    let cold = stage.origin().body_bytes();
    // From another version on, with what is there already.
    for has in [1, 3, 5] {
        let next = Scanner::new(&stage, &format!("from-{has}"), Some(has)).await;
        next.update().await.succeeds();
        assert_eq!(next.version(), NEWEST);
    }
    assert_eq!(stage.origin().body_bytes(), cold);
}

#[tokio::test]
async fn freshclam_gets_the_whole_database_where_the_origin_has_no_delta() {
    let Some(stage) = stage(RULES, NEWEST).await else { return };
    // Of a chain that breaks later it takes what there is, and the rest at its next update.
    stage.set("clamav/test-4.cdiff", Script::status(404, &[]));
    let one = Scanner::new(&stage, "one", Some(1)).await;
    for version in [3, NEWEST] {
        one.update().await.succeeds();
        assert_eq!(one.version(), version);
    }
    assert!(one.database("test.cvd") == Some(data("test-6.cvd")));
}

#[tokio::test]
async fn freshclam_gets_databases_and_a_list_of_our_own() {
    let Some(stage) = stage(RULES, NEWEST).await else { return };
    let names = ["main.cvd", "daily.cvd", "bytecode.cvd"];
    let list = Bytes::from("44d88612fea8a8f36de82e1278abb02f:68:Office.Test.File\n");
    stage.publish(0, &names.map(|name| (format!("clamav/{name}"), data("test-6.cvd"))));
    stage.publish(0, &[("own/office.hdb".to_owned(), list.clone())]);
    let lines = format!("DatabaseCustomURL {}", stage.url("own/office.hdb"));
    for name in ["one", "two"] {
        let scanner = Scanner::with(&stage, name, None, &lines).await;
        scanner.agent().run().await.succeeds();
        assert_eq!(scanner.database("office.hdb"), Some(list.clone()));
        for name in names {
            assert!(scanner.database(name) == Some(data("test-6.cvd")), "{name}");
        }
        stage.settles().await;
    }
    assert_eq!(stage.crossed("own/office.hdb"), list.len() as u64);
    assert_eq!(stage.crossed("clamav/main.cvd"), data("test-6.cvd").len() as u64);
}

#[tokio::test]
async fn freshclam_does_not_notice_that_the_origin_breaks_off() {
    let Some(stage) = stage(RULES, NEWEST).await else { return };
    for (path, body) in mirror(NEWEST) {
        let how = if path.ends_with("3.cdiff") { How::Reset } else { How::Finish };
        stage.set(&path, file(NEWEST, &body).breaking(body.len() as u64 / 2, how, 1));
    }
    let (one, two) = (Scanner::new(&stage, "one", Some(1)).await, Scanner::new(&stage, "two", None).await);
    for scanner in [one, two] {
        scanner.update().await.succeeds();
        assert_eq!(scanner.version(), NEWEST);
    }
}

#[tokio::test]
async fn freshclam_gets_the_whole_database_where_a_delta_is_not_right() {
    let Some(stage) = stage(RULES, NEWEST).await else { return };
    let path = "clamav/test-2.cdiff";
    stage.set(path, file(NEWEST, &data("test-2.cdiff")).breaking(300, How::Flip, 1));
    let one = Scanner::new(&stage, "one", Some(1)).await;
    one.update().await.succeeds();
    assert_eq!(one.version(), NEWEST);
}

/// One machine fetched the database, another the deltas: everything there is.
async fn warm(version: u32) -> Option<Stage> {
    let stage = stage(RULES, version).await?;
    for (name, has) in [("whole", None), ("deltas", Some(1))] {
        let scanner = Scanner::new(&stage, name, has).await;
        scanner.update().await.succeeds();
        assert_eq!(scanner.version(), version);
    }
    stage.settles().await;
    Some(stage)
}

async fn update_what_is_cached(stage: &Stage) {
    for (name, has) in [("new", None), ("old", Some(2))] {
        let scanner = Scanner::new(stage, name, has).await;
        scanner.update().await.succeeds();
        assert_eq!(scanner.version(), NEWEST);
        // A refusal would be remembered in its directory for a day.
        scanner.update().await.succeeds();
    }
}

#[tokio::test]
async fn freshclam_never_sees_that_the_origin_asks_for_fewer_requests() {
    for status in [403, 429, 503] {
        let Some(stage) = warm(NEWEST).await else { return };
        for (path, _) in mirror(NEWEST) {
            stage.set(&path, Script::status(status, &[("retry-after", "3")]));
        }
        update_what_is_cached(&stage).await;
    }
}

#[tokio::test]
async fn freshclam_updates_with_the_origin_dead() {
    let Some(mut stage) = warm(NEWEST).await else { return };
    stage.lose_origin();
    update_what_is_cached(&stage).await;
}

#[tokio::test]
async fn freshclam_gets_a_new_publication_after_the_old_one() {
    let Some(stage) = stage(RULES, 3).await else { return };
    let one = Scanner::new(&stage, "one", None).await;
    one.update().await.succeeds();
    assert_eq!(one.version(), 3);
    for version in 4..=NEWEST {
        stage.publish(version, &mirror(version));
        one.update().await.succeeds();
        assert_eq!(one.version(), version);
    }
}
