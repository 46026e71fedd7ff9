//! Promise 4: a body that cannot be had whole is an error to every client, and none of them keeps a stump for the file.
//! The origin breaks off and has another file by then, so that nothing can be put together; once with a length, once
//! in chunks. curl, over both versions of HTTP, is in `tests/curl.rs`.

use std::path::Path;

use waypost::testkit::content;
use waypost::testkit::script::{Framing, How, Script};

use super::agent::{Agent, have};
use super::stage::Stage;

const LEN: u64 = 3_000_000;

/// In the middle of a block, and of whatever else a transfer is made of.
const BREAKS_AT: u64 = 2_000_001;

const RULES: &str = "preset = \"generic\"\n\n[[repository.rule]]\nmatch = \"**\"\nimmutable = true\n";

const PYTHON: &str = "import ssl, sys, urllib.request
context = ssl.create_default_context(cafile=sys.argv[1])
body = urllib.request.urlopen(sys.argv[2], context=context).read()
open(sys.argv[3], 'wb').write(body)";

const NODE: &str = "const [url, file] = process.argv.slice(-2);
fetch(url).then(it => it.arrayBuffer()).then(
  it => require('fs').writeFileSync(file, Buffer.from(it)),
  why => { console.error(why); process.exit(1); });";

/// How a client is told to fetch a URL into a file, trusting an authority.
type Fetch = fn(ca: &Path, url: &str, file: &Path) -> Agent;

fn wget(ca: &Path, url: &str, file: &Path) -> Agent {
    let agent = Agent::new("wget").args(&["--no-config", "--no-hsts", "-nv", "--tries=1", "--timeout=60"]);
    agent.arg("--ca-certificate").arg(ca).arg("-O").arg(file).arg(url)
}

fn python(ca: &Path, url: &str, file: &Path) -> Agent {
    Agent::new("python3").args(&["-c", PYTHON]).arg(ca).arg(url).arg(file)
}

fn node(ca: &Path, url: &str, file: &Path) -> Agent {
    Agent::new("node").env("NODE_EXTRA_CA_CERTS", ca).args(&["-e", NODE, "--"]).arg(url).arg(file)
}

/// The part of apt that fetches, without an archive around it.
const APT: &str = "/usr/lib/apt/apt-helper";

fn apt(ca: &Path, url: &str, file: &Path) -> Agent {
    let trust = format!("Acquire::https::CAInfo={}", ca.display());
    let agent =
        Agent::new(APT).args(&["-o", &trust, "-o", "Acquire::Retries=0", "-o", "APT::Sandbox::User=root"]);
    agent.arg("download-file").arg(url).arg(file)
}

/// What is there after a download that failed: nothing, or what says by its end that it is not all.
async fn breaks_visibly(program: &[&str], fetch: Fetch) {
    if !have(&[program]).await {
        return;
    }
    let stage = Stage::new(RULES).await;
    for (name, framing) in [("length", Framing::Length), ("chunks", Framing::Chunked)] {
        let broken = Script::file(1, LEN).breaking(BREAKS_AT, How::Reset, 1);
        stage.set(name, Script { framing, becomes: Some((1, "\"v2\"".to_owned(), 2)), ..broken });
        let file = stage.folder("out").join(name);
        let outcome = fetch(&stage.ca(), &stage.url(name), &file).run().await;
        assert_ne!(outcome.code, 0, "{name}: a stump was taken for the whole: {outcome}");
        let kept = std::fs::read(&file).unwrap_or_default();
        assert!(kept.len() as u64 <= BREAKS_AT, "{name}: {} bytes", kept.len());
        assert!(kept == content::whole(1, kept.len()), "{name}: wrong bytes");
        // Whoever comes next gets the new file, and not a byte of the old one.
        stage.settles().await;
        let _ = std::fs::remove_file(&file);
        fetch(&stage.ca(), &stage.url(name), &file).run().await.succeeds();
        let got = std::fs::read(&file).expect("the file");
        assert!(
            got == content::whole(2, usize::try_from(LEN).expect("small")),
            "{name}: {} bytes",
            got.len()
        );
    }
}

#[tokio::test]
async fn p04_wget_fails_where_a_file_cannot_be_had_whole() {
    breaks_visibly(&["wget", "--version"], wget).await;
}

#[tokio::test]
async fn p04_python_fails_where_a_file_cannot_be_had_whole() {
    breaks_visibly(&["python3", "--version"], python).await;
}

#[tokio::test]
async fn p04_node_fails_where_a_file_cannot_be_had_whole() {
    breaks_visibly(&["node", "--version"], node).await;
}

#[tokio::test]
async fn p04_apt_fails_where_a_file_cannot_be_had_whole() {
    breaks_visibly(&[APT, "--version"], apt).await;
}
