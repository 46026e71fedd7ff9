//! The real `curl` in front of a node: what administrators will try first.
//!
//! Where there is no `curl` the tests say so and pass, except under CI (`CI` is set), where they fail.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]
#![expect(clippy::print_stderr, reason = "a skipped test says why")]

use std::fs;
use std::path::PathBuf;

use tokio::process::Command;
use waypost::testkit::content;
use waypost::testkit::node::{Home, Plan, TestNode};
use waypost::testkit::origin::Origin;
use waypost::testkit::script::{Framing, How, Script};

const LEN: usize = 3_000_000;

/// What a run of curl came to.
struct Outcome {
    code: i32,
    stdout: String,
    stderr: String,
}

/// A node, curl, and a place for what it fetches.
struct Scene {
    origin: Origin,
    node: TestNode,
    plan: Plan,
}

impl Scene {
    /// `None` where there is no curl.
    async fn new() -> Option<Self> {
        if Command::new("curl").arg("--version").output().await.is_err() {
            assert!(std::env::var_os("CI").is_none(), "CI has no curl");
            eprintln!("skipped: there is no curl on this machine");
            return None;
        }
        let origin = Origin::start().await;
        let headers = vec![("cache-control".to_owned(), "max-age=1000".to_owned())];
        origin.set("/f", Script { headers, ..Script::file(1, LEN as u64) });
        let plan = Plan::upstreams(&[&origin.url()]).with("stall_timeout = \"1s\"");
        let node = Home::new().start(&plan).await;
        Some(Self { origin, node, plan })
    }

    fn out(&self) -> PathBuf {
        self.node.home().path("out")
    }

    fn fetched(&self) -> Vec<u8> {
        fs::read(self.out()).unwrap()
    }

    /// curl over HTTPS with the node's CA, writing to `out`. Says status, HTTP version and bytes.
    async fn curl(&self, words: &[&str], path: &str) -> Outcome {
        let ca = self.node.home().path("ca.pem");
        let url = format!("https://localhost:{}{path}", self.node.tls.port());
        let mut command = Command::new("curl");
        command.args(["-q", "-sS", "--noproxy", "*", "--max-time", "30", "--cacert"]).arg(ca);
        command.args(["-w", "%{http_code} %{http_version} %{size_download}", "-o"]).arg(self.out());
        let output = command.args(words).arg(url).kill_on_drop(true).output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Outcome {
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    async fn expect(&self, words: &[&str], path: &str, said: &str) {
        let outcome = self.curl(words, path).await;
        assert_eq!((outcome.code, outcome.stdout.as_str()), (0, said), "{words:?}: {}", outcome.stderr);
    }
}

#[tokio::test]
async fn curl_fetches_cold_and_warm_over_both_versions() {
    let Some(scene) = Scene::new().await else { return };
    for (words, version) in [(&["--http2"], "2"), (&["--http1.1"], "1.1"), (&["--http2"], "2")] {
        scene.expect(words, "/f", &format!("200 {version} {LEN}")).await;
        assert!(scene.fetched() == content::whole(1, LEN));
    }
    assert_eq!(scene.origin.counts("/f").requests, 1);
}

#[tokio::test]
async fn curl_speaks_both_versions_of_tls() {
    let Some(scene) = Scene::new().await else { return };
    for words in [&["--tlsv1.2", "--tls-max", "1.2"][..], &["--tlsv1.3"]] {
        scene.expect(words, "/f", &format!("200 2 {LEN}")).await;
        assert!(scene.fetched() == content::whole(1, LEN));
    }
    let refused = scene.curl(&["--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0"], "/f").await;
    assert_ne!(refused.code, 0, "{}", refused.stdout);
}

#[tokio::test]
async fn curl_resumes_a_file() {
    let Some(scene) = Scene::new().await else { return };
    for (version, have) in [("--http2", 1), ("--http1.1", 1_234_567), ("--http2", LEN - 1)] {
        fs::write(scene.out(), content::whole(1, have)).unwrap();
        let said = format!("206 {} {}", if version == "--http2" { "2" } else { "1.1" }, LEN - have);
        scene.expect(&[version, "-C", "-"], "/f", &said).await;
        assert!(scene.fetched() == content::whole(1, LEN), "{have}");
    }
    assert_eq!(scene.origin.counts("/f").requests, 1);
}

#[tokio::test]
async fn curl_resumes_after_the_node_was_restarted() {
    let Some(mut scene) = Scene::new().await else { return };
    scene.expect(&[], "/f", &format!("200 2 {LEN}")).await;
    scene.node.settled().await;
    let home = scene.node.stop().await;
    scene.node = home.start(&scene.plan).await;
    fs::write(scene.out(), content::whole(1, 2_000_000)).unwrap();
    scene.expect(&["-C", "-", "-H", "If-Range: \"v1\""], "/f", "206 2 1000000").await;
    assert!(scene.fetched() == content::whole(1, LEN));
    assert_eq!(scene.origin.counts("/f").requests, 1);
}

#[tokio::test]
async fn curl_gets_ranges() {
    let Some(scene) = Scene::new().await else { return };
    for version in ["--http2", "--http1.1"] {
        let number = if version == "--http2" { "2" } else { "1.1" };
        scene.expect(&[version, "--range", "1000-1999"], "/f", &format!("206 {number} 1000")).await;
        assert!(scene.fetched() == content::piece(1, 1_000, 1_000));
        scene.expect(&[version, "--range", "-10"], "/f", &format!("206 {number} 10")).await;
        assert!(scene.fetched() == content::piece(1, LEN as u64 - 10, 10));
        let parts = scene.curl(&[version, "--range", "0-9,100-109"], "/f").await;
        assert!(parts.code == 0 && parts.stdout.starts_with("206 "), "{}", parts.stderr);
        scene.expect(&[version, "--range", "9000000-"], "/f", &format!("416 {number} 0")).await;
    }
}

#[tokio::test]
async fn curl_asks_for_heads_and_with_conditions() {
    let Some(scene) = Scene::new().await else { return };
    for state in ["cold", "warm"] {
        for (version, number) in [("--http2", "2"), ("--http1.1", "1.1")] {
            scene.expect(&[version, "-I"], "/f", &format!("200 {number} 0")).await;
            let head = String::from_utf8(scene.fetched()).unwrap().to_lowercase();
            for field in ["content-length: 3000000", "etag: \"v1\"", "accept-ranges: bytes", "x-request-id: "]
            {
                assert!(head.contains(field), "{state}: {field} in {head}");
            }
            scene.expect(&[version, "-I"], "/missing", &format!("404 {number} 0")).await;
            scene.expect(&[version, "-I"], "//", &format!("400 {number} 0")).await;
            scene.expect(&[version, "-H", "If-None-Match: \"v1\""], "/f", &format!("304 {number} 0")).await;
            scene.expect(&[version, "-H", "If-Match: \"v2\""], "/f", &format!("412 {number} 0")).await;
        }
    }
    scene.expect(&["-H", "If-None-Match: \"v2\""], "/f", &format!("200 2 {LEN}")).await;
}

#[tokio::test]
async fn curl_fails_where_a_file_cannot_be_had_whole() {
    let Some(scene) = Scene::new().await else { return };
    // Upstream breaks off, and what it has then is another file: nothing can be put together.
    let broken = |framing| Script {
        framing,
        becomes: Some((1, "\"v2\"".to_owned(), 2)),
        ..Script::file(1, LEN as u64).breaking(2_000_000, How::Reset, 1)
    };
    for (path, framing) in [("/length", Framing::Length), ("/chunks", Framing::Chunked)] {
        for version in ["--http2", "--http1.1"] {
            let path = format!("{path}{version}");
            scene.origin.set(&path, broken(framing));
            let outcome = scene.curl(&[version], &path).await;
            assert!(matches!(outcome.code, 18 | 56 | 92), "{path}: {} {}", outcome.code, outcome.stderr);
            let got = scene.fetched();
            assert!(got.len() < LEN && got == content::whole(1, got.len()), "{path}");
            // The next one gets the new file.
            scene.node.settled().await;
            let again = scene.curl(&[version], &path).await;
            assert_eq!(again.code, 0, "{path}: {}", again.stderr);
            assert!(scene.fetched() == content::whole(2, LEN), "{path}");
        }
    }
}

#[tokio::test]
async fn curl_with_fail_says_that_there_is_nothing() {
    let Some(scene) = Scene::new().await else { return };
    for path in ["/missing", "/f?query", "/a%2fb"] {
        let outcome = scene.curl(&["--fail"], path).await;
        assert_eq!(outcome.code, 22, "{path}");
    }
    scene.origin.set("/broken", Script::status(500, &[]));
    let outcome = scene.curl(&["--fail"], "/broken").await;
    assert_eq!((outcome.code, &outcome.stdout[..3]), (22, "503"));
}

#[tokio::test]
async fn curl_is_told_that_nothing_can_be_posted() {
    let Some(scene) = Scene::new().await else { return };
    let body = scene.node.home().path("body");
    let data = format!("@{}", body.display());
    for (length, version) in [(3, "--http1.1"), (3, "--http2"), (30_000, "--http2"), (300_000, "--http2")] {
        fs::write(&body, vec![b'x'; length]).unwrap();
        for round in 0..20 {
            let post = scene.curl(&[version, "--data-binary", &data], "/f").await;
            let said = (post.code, &post.stdout[..3]);
            // What is longer than we read may be broken off instead.
            let broken = length == 300_000 && matches!(post.code, 55 | 92);
            assert!(said == (0, "405") || broken, "{length}, {round}: {said:?} {}", post.stderr);
        }
    }
}

#[tokio::test]
async fn curl_fetches_from_a_directory_and_over_plain_http() {
    let Some(scene) = Scene::new().await else { return };
    let home = Home::new();
    home.write("files/readme.txt", "hello\n");
    let node = home.start(&Plan::directory(&home.path("files"))).await;
    let url = format!("http://{}/readme.txt", node.plain);
    let output = Command::new("curl").args(["-q", "-sS", "--noproxy", "*", &url]).output().await.unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), b"hello\n".as_slice()));
    // Loopback has no name to check, and the certificate has the address.
    let ca = home.path("ca.pem");
    let url = format!("https://{}/readme.txt", node.tls);
    let mut command = Command::new("curl");
    command.args(["-q", "-sS", "--noproxy", "*", "--cacert"]).arg(ca).arg(&url);
    assert_eq!(command.output().await.unwrap().stdout, b"hello\n");
    drop(scene);
}
