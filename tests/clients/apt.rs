//! apt against a signed repository: indexes by hash, packages resumed, the origin failing.

use std::path::PathBuf;

use waypost::testkit::process::{Signal, eventually};
use waypost::testkit::script::{Gate, Hold, How, Script};

use super::agent::{Agent, have};
use super::repository::{PACKAGES, Published, published};
use super::stage::{Stage, answered, file};

/// What the repository's configuration says about apt's files. A rule about a file outranks a preset.
const RULES: &str = r#"
preset = "generic"

[[repository.rule]]
match = "**/by-hash/**"
immutable = true

[[repository.rule]]
match = "pool/**"
immutable = true

[[repository.rule]]
match = "dists/**"
fresh_for = "0s"
stale_while_revalidate = "0s"
"#;

/// A machine with apt.
pub(crate) struct Machine {
    root: PathBuf,
}

impl Machine {
    /// One that knows nothing yet, with `url` in its sources and further lines of `apt.conf`.
    pub(crate) fn new(stage: &Stage, name: &str, url: &str, conf: &str) -> Self {
        let root = stage.folder(name);
        let write = |path: &str, text: &[u8]| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            std::fs::write(path, text).expect("a file");
        };
        for dir in
            ["etc/apt/apt.conf.d", "etc/apt/preferences.d", "var/lib/apt/lists/partial", "archives/partial"]
        {
            std::fs::create_dir_all(root.join(dir)).expect("a directory");
        }
        let (ca, key) = (stage.ca(), stage.path("archive.gpg"));
        write("var/lib/dpkg/status", b"");
        write(
            "etc/apt/sources.list",
            format!("deb [signed-by={}] {url} stable main\n", key.display()).as_bytes(),
        );
        let conf = format!(
            "Dir {root:?};\nDir::State::status {status:?};\nDir::Cache::archives {archives:?};\n\
             APT::Architecture \"amd64\";\nAPT::Architectures \"amd64\";\nAPT::Sandbox::User \"root\";\n\
             Acquire::https::CAInfo {ca:?};\nAcquire::Languages \"none\";\nAcquire::Retries \"0\";\n{conf}\n",
            status = root.join("var/lib/dpkg/status"),
            archives = root.join("archives"),
        );
        write("apt.conf", conf.as_bytes());
        Self { root }
    }

    fn agent(&self, words: &[&str]) -> Agent {
        Agent::new("apt-get").env("APT_CONFIG", self.root.join("apt.conf")).args(words)
    }

    pub(crate) fn update(&self) -> Agent {
        // A warning about an index that could not be had is a failure here.
        self.agent(&["update", "--error-on=any"])
    }

    /// Downloads the packages; they are not unpacked.
    pub(crate) fn install(&self) -> Agent {
        self.agent(&["install", "-y", "-d", PACKAGES[2].name])
    }

    /// It has the three packages of `published`, byte for byte.
    #[track_caller]
    pub(crate) fn has_packages(&self, published: &Published) {
        assert_eq!(self.count_packages(published), PACKAGES.len());
    }

    /// How many packages of `published` it has, each byte for byte.
    #[track_caller]
    pub(crate) fn count_packages(&self, published: &Published) -> usize {
        let mut found = 0;
        for (path, body) in &published.files {
            let Some(name) = path.strip_prefix("pool/main/") else { continue };
            let Ok(got) = std::fs::read(self.root.join("archives").join(name)) else { continue };
            assert!(got == *body, "{name} has {} bytes that are not its own {}", got.len(), body.len());
            found += 1;
        }
        found
    }
}

/// A node in front of the first publication.
pub(crate) async fn stage(lines: &str) -> Option<(Stage, &'static [Published; 2])> {
    let programs: &[&[&str]] = &[
        &["apt-get", "--version"],
        &["apt-ftparchive", "--version"],
        &["dpkg-deb", "--version"],
        &["gpg", "--version"],
        &["gpgv", "--version"],
        &["gzip", "--version"],
    ];
    if !have(programs).await {
        return None;
    }
    let publications = published().await;
    let stage = Stage::new(lines).await;
    std::fs::write(stage.path("archive.gpg"), &publications[0].key).expect("a file");
    stage.publish(0, &publications[0].files);
    Some((stage, publications))
}

async fn update_and_install(stage: &Stage, name: &str, published: &Published) -> Machine {
    let machine = Machine::new(stage, name, &stage.url(""), "");
    machine.update().run().await.succeeds();
    machine.install().run().await.succeeds();
    machine.has_packages(published);
    machine
}

#[tokio::test]
async fn apt_updates_and_installs_and_the_next_machine_costs_no_upstream_body() {
    let Some((stage, [first, _])) = stage(RULES).await else { return };
    let machine = update_and_install(&stage, "one", first).await;
    for (path, body) in first.files.iter().filter(|(path, _)| path.starts_with("pool/")) {
        assert_eq!((stage.asked(path), stage.crossed(path)), (1, body.len() as u64), "{path}");
    }
    stage.settles().await;
    let cold = stage.origin().body_bytes();
    update_and_install(&stage, "two", first).await;
    // What a machine has already is confirmed.
    machine.update().run().await.succeeds();
    stage.logs("InRelease is confirmed", answered(304, "/InRelease")).await;
    assert_eq!(stage.origin().body_bytes(), cold);
}

#[tokio::test]
async fn apt_asks_for_indexes_by_their_hash() {
    let Some((stage, [first, second])) = stage(RULES).await else { return };
    let machine = update_and_install(&stage, "one", first).await;
    stage.publish(1, &second.files);
    machine.update().run().await.succeeds();
    machine.install().run().await.succeeds();
    machine.has_packages(second);
    let by_hash = |line: &serde_json::Value| {
        line["target"].as_str().is_some_and(|target| target.contains("/by-hash/SHA512/"))
    };
    stage.logs("an index by its hash", by_hash).await;
    for name in ["Packages", "Packages.gz"] {
        assert_eq!(stage.asked(&format!("dists/stable/main/binary-amd64/{name}")), 0, "{name}");
    }
}

#[tokio::test]
async fn apt_resumes_a_package_of_which_it_has_a_part() {
    let Some((stage, [first, _])) = stage(RULES).await else { return };
    let (path, body) = first.largest_package();
    let gate = Gate::default();
    let at = body.len() as u64 / 2;
    let hold = Some(Hold { at: Some(at), gate: gate.clone() });
    stage.set(path, Script { hold, ..file(0, body) });
    let machine = Machine::new(&stage, "one", &stage.url(""), "");
    machine.update().run().await.succeeds();
    let running = machine.install().start();
    let partial = machine.root.join("archives/partial").join(path.trim_start_matches("pool/main/"));
    let has = || std::fs::metadata(&partial).map_or(0, |meta| meta.len());
    eventually("half of the package is there", async || has() > at / 2).await;
    running.stop(Signal::TERM).await;
    let had = has();
    assert!(had > at / 2 && had < body.len() as u64, "{had}");
    gate.open();
    machine.install().run().await.succeeds();
    machine.has_packages(first);
    let rest = stage.logs("the rest of the package", answered(206, path)).await;
    assert_eq!(rest["bytes"], body.len() as u64 - had, "{rest}");
    assert_eq!((stage.asked(path), stage.crossed(path)), (1, body.len() as u64));
}

#[tokio::test]
async fn apt_does_not_notice_that_the_origin_breaks_off() {
    let Some((stage, [first, _])) = stage(RULES).await else { return };
    for (path, body) in &first.files {
        let how = if path.len() % 2 == 0 { How::Reset } else { How::Finish };
        stage.set(path, file(0, body).breaking(body.len() as u64 / 2, how, 1));
    }
    update_and_install(&stage, "one", first).await;
    let (path, body) = first.largest_package();
    assert_eq!(stage.asked(path), 2, "it broke off once");
    let crossed = stage.crossed(path);
    assert!(crossed < body.len() as u64 * 11 / 10, "{crossed} of {}", body.len());
}

#[tokio::test]
async fn apt_updates_and_installs_with_the_origin_dead() {
    let Some((mut stage, [first, _])) = stage(RULES).await else { return };
    let old = update_and_install(&stage, "old", first).await;
    stage.settles().await;
    stage.lose_origin();
    update_and_install(&stage, "new", first).await;
    old.update().run().await.succeeds();
}

#[tokio::test]
async fn apt_updates_and_installs_while_the_origin_only_says_no() {
    for status in [403, 429, 503] {
        let Some((stage, [first, _])) = stage(RULES).await else { return };
        update_and_install(&stage, "old", first).await;
        stage.settles().await;
        for (path, _) in &first.files {
            stage.set(path, Script::status(status, &[("retry-after", "3600")]));
        }
        update_and_install(&stage, "new", first).await;
    }
}

#[tokio::test]
async fn apt_gets_a_new_publication_after_the_old_one() {
    let Some((stage, [first, second])) = stage(RULES).await else { return };
    let machine = update_and_install(&stage, "one", first).await;
    stage.publish(1, &second.files);
    machine.update().run().await.succeeds();
    machine.install().run().await.succeeds();
    machine.has_packages(second);
    update_and_install(&stage, "two", second).await;
}
