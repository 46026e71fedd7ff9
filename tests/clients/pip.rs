//! pip against a simple index whose links have the SHA-256 of what they lead to.

use std::path::PathBuf;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use waypost::testkit::script::{How, Script};

use super::agent::{Agent, have};
use super::stage::{File, Stage, answered, file};

/// What the repository is, and what its configuration says about an index and its files.
const RULES: &str = r#"
preset = "generic"

[[repository.rule]]
match = "files/**"
immutable = true

[[repository.rule]]
match = "simple/**"
fresh_for = "0s"
stale_while_revalidate = "0s"
"#;

const NAME: &str = "office_tool";

/// Where the index of the package is, and of which kind it is.
const INDEX: &str = "simple/office-tool/";

/// Makes a wheel of the version in `sys.argv[2]` at `sys.argv[1]`: a zip file with a few lines about itself.
const MAKE_WHEEL: &str = r##"
import sys, zipfile
path, version = sys.argv[1:]
info = "office_tool-" + version + ".dist-info/"
with zipfile.ZipFile(path, "w") as wheel:
    def add(name, text):
        wheel.writestr(zipfile.ZipInfo(name), text)
    add("office_tool.py", "# " + version + " " + "x" * 300000)
    add(info + "METADATA", "Metadata-Version: 2.1\nName: office-tool\nVersion: " + version + "\n")
    add(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    add(info + "RECORD", "")
"##;

/// An index that lists some wheels.
struct Index {
    stage: Stage,
    wheels: Vec<(String, Bytes)>,
}

impl Index {
    /// One with the first version, and a node in front of it.
    async fn new() -> Option<Self> {
        if !have(&[&["python3", "-m", "pip", "--version"]]).await {
            return None;
        }
        let mut index = Self { stage: Stage::new(RULES).await, wheels: Vec::new() };
        index.add("1.0").await;
        Some(index)
    }

    /// Adds a version and lists it.
    async fn add(&mut self, version: &str) {
        let name = format!("{NAME}-{version}-py3-none-any.whl");
        let path = self.stage.path(&name);
        Agent::new("python3").args(&["-c", MAKE_WHEEL]).arg(&path).arg(version).run().await.succeeds();
        self.wheels.push((name, Bytes::from(std::fs::read(&path).expect("the wheel"))));
        let number = u32::try_from(self.wheels.len()).expect("a small number");
        let files: Vec<File> =
            self.wheels.iter().map(|(name, body)| (format!("files/{name}"), body.clone())).collect();
        self.stage.publish(0, &files);
        let link = |(name, body): &(String, Bytes)| {
            let hash: String = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
            format!("<a href=\"../../files/{name}#sha256={hash}\">{name}</a><br>\n")
        };
        let page: String = self.wheels.iter().map(link).collect();
        let page = format!("<!DOCTYPE html><html><body>\n{page}</body></html>\n");
        let mut script = file(number, &page.into());
        script.headers.push(("content-type".to_owned(), "text/html".to_owned()));
        self.stage.set(INDEX, script);
    }

    /// A new machine downloads `what`, and has the bytes of the newest wheel.
    async fn download(&self, machine: &str, what: &str) {
        let out: PathBuf = self.stage.folder(machine);
        let pip = Agent::new("python3").args(&["-m", "pip", "--isolated", "download", "--no-cache-dir"]);
        let pip = pip.args(&["--disable-pip-version-check", "--no-deps", "--retries", "0", "--index-url"]);
        let pip = pip.arg(self.stage.url("simple/")).arg("--cert").arg(self.stage.ca()).arg("-d").arg(&out);
        pip.arg(what).run().await.succeeds();
        let (name, body) = self.wheels.last().expect("there is one");
        assert!(std::fs::read(out.join(name)).is_ok_and(|got| got == *body), "{machine}: {name}");
    }
}

#[tokio::test]
async fn pip_downloads_and_the_next_machine_costs_no_upstream_body() {
    let Some(mut index) = Index::new().await else { return };
    index.download("one", "office-tool").await;
    index.stage.settles().await;
    let cold = index.stage.origin().body_bytes();
    index.download("two", "office-tool==1.0").await;
    assert_eq!(index.stage.origin().body_bytes(), cold);
    // The index is asked about each time, the wheel once.
    index.add("1.1").await;
    index.download("three", "office-tool").await;
    assert_eq!(index.stage.asked(&format!("files/{}", index.wheels[0].0)), 1);
    index.stage.logs("the new wheel", answered(200, &index.wheels[1].0)).await;
}

#[tokio::test]
async fn pip_does_not_notice_that_the_origin_breaks_off() {
    let Some(index) = Index::new().await else { return };
    let (name, body) = &index.wheels[0];
    let path = format!("files/{name}");
    index.stage.set(&path, file(0, body).breaking(200_000, How::Reset, 1));
    index.download("one", "office-tool").await;
    assert_eq!(index.stage.asked(&path), 2);
}

#[tokio::test]
async fn pip_downloads_while_the_origin_only_says_no() {
    for status in [429, 500] {
        let Some(index) = Index::new().await else { return };
        index.download("one", "office-tool").await;
        index.stage.settles().await;
        index.stage.set(INDEX, Script::status(status, &[]));
        index.stage.set(&format!("files/{}", index.wheels[0].0), Script::status(status, &[]));
        index.download("two", "office-tool").await;
    }
}

#[tokio::test]
async fn pip_downloads_with_the_origin_dead() {
    let Some(mut index) = Index::new().await else { return };
    index.download("one", "office-tool").await;
    index.stage.settles().await;
    index.stage.lose_origin();
    index.download("two", "office-tool").await;
}
