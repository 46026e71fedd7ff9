//! The admin API from outside: who is let in by which door, and what strangers and mistakes get.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may stop at the first broken assumption"
)]

use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;
use waypost::testkit::client::{Answer, Client};
use waypost::testkit::pki::{Authority, Issued};
use waypost::testkit::process::{Process, Site};

const OPERATOR: &str = "0123456789abcdef-operator";
const VIEWER: &str = "0123456789abcdef-viewer";

struct Scene {
    node: Process,
    authority: Authority,
    address: SocketAddr,
    dir: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let authority = Authority::new("admin CA");
        let issued = authority.server(&["node.example", "127.0.0.1"]);
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("a file");
        write("admin.pem", &issued.cert);
        write("admin.key", &issued.key);
        write("ca.pem", &authority.pem());
        write("operator.token", OPERATOR);
        write("viewer.token", &format!("{VIEWER}\n"));
        std::fs::create_dir(dir.path().join("files")).expect("a directory");
        write("files/a.txt", "a");
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
        let site = Site::new(env!("CARGO_BIN_EXE_waypost"), dir.path());
        site.write_config(&config(&port.to_string(), TOKENS));
        let node = site.start().await;
        Self { node, authority, address: port, dir }
    }

    async fn ask(&self, request: &str) -> Answer {
        let client = Client::connect_tls(self.address, "node.example", &self.authority).await;
        let mut client = client.expect("the node's certificate is ours");
        let port = self.address.port();
        let request = request.replace("HOST", &format!("Host: node.example:{port}"));
        client.send(request.as_bytes()).await.expect("it takes a request");
        client.read_answer("GET").await.expect("an answer")
    }

    async fn get(&self, path: &str, token: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHOST\r\nAuthorization: Bearer {token}\r\n\r\n")).await
    }

    async fn post(&self, path: &str, token: &str, kind: &str, body: &str) -> Answer {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHOST\r\nAuthorization: Bearer {token}\r\n");
        self.ask(&format!("{head}Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}")).await
    }

    /// Asks with this certificate; the status, if it is answered at all.
    async fn show(&self, shown: &Issued, question: &str) -> Option<u16> {
        let tcp = tokio::net::TcpStream::connect(self.address).await.expect("it listens");
        let name = "node.example".try_into().expect("a name");
        let stream = self.authority.connector_showing(shown).connect(name, tcp).await.ok()?;
        let mut client = Client::over(stream);
        let port = self.address.port();
        let (method, _) = question.split_once(' ').expect("a method and a path");
        let request = format!(
            "{question} HTTP/1.1\r\nHost: node.example:{port}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        client.send(request.as_bytes()).await.ok()?;
        // In TLS 1.3 a client hears of its refusal after the handshake.
        client.read_answer(method).await.ok().map(|answer| answer.status)
    }
}

const HOLDERS: &str = "certificates = [{ name = \"Ann\", role = \"operator\" }]\n";

const TOKENS: &str = "tokens = [\n  { name = \"ops\", role = \"operator\", secret = { file = \"operator.token\" } },\n  \
                      { name = \"eyes\", role = \"viewer\", secret = { file = \"viewer.token\" } },\n]\n";

fn config(listen: &str, admin: &str) -> String {
    format!(
        "[server]\nplain_listen = \"127.0.0.1:0\"\n\n[admin]\nsocket = \"admin.sock\"\nlisten = \"{listen}\"\n\
         tls = {{ cert = \"admin.pem\", key = {{ file = \"admin.key\" }} }}\n{admin}\n\
         [cache]\ndir = \"cache\"\nsize = \"64MiB\"\nmemory = \"8MiB\"\nmin_free = \"0B\"\n\n\
         [[repository]]\nname = \"files\"\npath = \"/\"\ndirectory = \"files\"\n\n[log]\nformat = \"json\"\n"
    )
}

fn told(answer: &Answer) -> (u16, String, String) {
    let body: Value = serde_json::from_slice(&answer.body).expect("errors are JSON");
    let word = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
    (answer.status, word("code"), word("help"))
}

async fn waypost(dir: &Path, words: &[&str]) -> (i32, String, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_waypost"));
    let output = command.args(words).current_dir(dir).stdin(std::process::Stdio::null()).output().await;
    let output = output.expect("the program runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn tokens_open_the_door_as_far_as_their_role_goes() {
    let scene = Scene::new().await;
    assert_eq!(scene.get("/v1/status", VIEWER).await.status, 200);
    assert_eq!(scene.get("/metrics", OPERATOR).await.status, 200);
    let (status, code, help) =
        told(&scene.post("/v1/purge", VIEWER, "application/json", "{\"all\":true}").await);
    assert_eq!((status, code.as_str(), help.contains("operator")), (403, "not-allowed", true));
    assert_eq!(scene.post("/v1/purge", OPERATOR, "application/json", "{\"all\":true}").await.status, 200);
    assert!(scene.node.said("token ops"), "who did it is in the log");
    for token in ["", "wrong", "0123456789abcdef-operato", &format!("{OPERATOR}x")] {
        let (status, code, help) = told(&scene.get("/livez", token).await);
        assert_eq!((status, code.as_str()), (401, "not-authenticated"), "{token}");
        assert!(help.contains("--token-file"), "{help}");
    }
    let naked = scene.ask("GET /metrics HTTP/1.1\r\nHOST\r\n\r\n").await;
    assert_eq!((naked.status, naked.header("www-authenticate")), (401, Some("Bearer")));
    assert!(!scene.node.said(OPERATOR), "no token is ever in the log");
    scene.node.stop().await;
}

#[tokio::test]
async fn another_host_another_body_another_method_are_refused() {
    let scene = Scene::new().await;
    let port = scene.address.port();
    for host in ["evil.example", "node.example", "127.0.0.1:1", &format!("localhost:{port}")] {
        let request =
            format!("GET /v1/status HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {VIEWER}\r\n\r\n");
        assert_eq!(told(&scene.ask(&request).await).1, "host", "{host}");
    }
    let json = "application/json";
    for (path, kind, body, status, code) in [
        ("/v1/purge", "text/plain", "{\"all\":true}", 415, "media-type"),
        ("/v1/purge", json, "{\"all\":", 400, "bad-request"),
        ("/v1/purge", json, "{\"everything\":true}", 400, "bad-request"),
        ("/v1/purge", json, "{}", 400, "bad-request"),
        ("/v1/purge", json, "{\"patterns\":[\"x/y\"]}", 400, "bad-request"),
        ("/v1/warm", json, "{\"patterns\":[\"/a\"],\"jobs\":0}", 400, "bad-request"),
        ("/v1/warm", json, "{\"patterns\":[\"/a\"],\"limit_rate\":0}", 400, "bad-request"),
        ("/v1/log", json, "{\"level\":\"a=b=c\"}", 400, "bad-request"),
        ("/v1/fills/cancel", json, "{\"url\":\"/nothing\"}", 404, "not-found"),
        ("/v1/status", json, "{}", 405, "method"),
        ("/v2/status", json, "{}", 404, "not-found"),
    ] {
        let (found, word, help) = told(&scene.post(path, OPERATOR, kind, body).await);
        assert_eq!((found, word.as_str(), help.is_empty()), (status, code, false), "{path} {body}");
    }
    for path in [
        "/v1/explain",
        "/v1/explain?url=nonsense",
        "/v1/entries?limit=0",
        "/v1/entries?limti=5",
        "/v1/jobs/x",
    ] {
        let (status, code, help) = told(&scene.get(path, VIEWER).await);
        assert_eq!((status, code.as_str(), help.is_empty()), (400, "bad-request", false), "{path}");
    }
    let long = "x".repeat(2 << 20);
    let (status, code, _) =
        told(&scene.post("/v1/purge", OPERATOR, json, &format!("{{\"patterns\":[\"{long}\"]}}")).await);
    assert_eq!((status, code.as_str()), (413, "too-large"));
    assert_eq!(scene.get("/livez", VIEWER).await.status, 200, "the node is none the worse");
    scene.node.stop().await;
}

#[tokio::test]
async fn the_command_line_comes_in_by_tls_as_well() {
    let scene = Scene::new().await;
    let dir = scene.dir.path();
    let server = format!("https://127.0.0.1:{}", scene.address.port());
    let at = |words: &[&'static str]| {
        let server = server.clone();
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        async move {
            let mut all: Vec<&str> = words.iter().map(String::as_str).collect();
            all.extend(["-s", server.as_str()]);
            waypost(dir, &all).await
        }
    };
    let trusted = ["--ca-file", "ca.pem", "--token-file", "viewer.token"];
    let (code, out, talk) = at(&["health", trusted[0], trusted[1], trusted[2], trusted[3]]).await;
    assert_eq!((code, out.as_str()), (0, "ok\n"), "{talk}");
    let (code, _, talk) = at(&["status", "--ca-file", "ca.pem"]).await;
    assert_eq!((code, talk.contains("--token-file")), (5, true), "{talk}");
    let (code, _, talk) = at(&["reload", trusted[0], trusted[1], trusted[2], trusted[3]]).await;
    assert_eq!((code, talk.contains("operator")), (5, true), "{talk}");
    let (code, _, talk) = at(&["status", "--token-file", "viewer.token"]).await;
    assert_eq!(
        (code, talk.contains("not trusted here"), talk.contains("--ca-file FILE")),
        (4, true, true),
        "{talk}"
    );
    for (file, told) in [("no-such-file", "no-such-file"), ("viewer.token", "no certificate in PEM")] {
        let words = ["status", "-s", server.as_str(), "--token-file", "viewer.token", "--ca-file", file];
        let (code, _, talk) = waypost(dir, &words).await;
        assert_eq!((code, talk.contains(told), talk.contains("--ca-file")), (2, true, true), "{talk}");
    }
    let elsewhere = server.replace("127.0.0.1", "localhost");
    let words = ["status", "-s", elsewhere.as_str(), "--token-file", "viewer.token", "--ca-file", "ca.pem"];
    let (code, _, talk) = waypost(dir, &words).await;
    assert_eq!((code, talk.contains("for another name")), (4, true), "{talk}");
    for (token, told) in [("no-such-file", "token file"), ("admin.pem", "no token")] {
        let words = ["status", "-s", server.as_str(), "--ca-file", "ca.pem", "--token-file", token];
        let (code, _, talk) = waypost(dir, &words).await;
        assert_eq!((code, talk.contains(told)), (2, true), "{token}: {talk}");
    }
    scene.node.stop().await;
}

#[tokio::test]
async fn certificates_open_the_door_by_the_name_in_them_and_tokens_are_exchanged_without_a_restart() {
    let scene = Scene::new().await;
    let dir = scene.dir.path();
    let staff = Authority::new("staff CA");
    std::fs::write(dir.join("staff.pem"), staff.pem()).expect("a file");
    let listen = scene.address.to_string();
    std::fs::write(
        dir.join("waypost.toml"),
        config(&listen, &format!("client_ca = \"staff.pem\"\n{HOLDERS}{TOKENS}")),
    )
    .expect("a file");
    std::fs::write(dir.join("viewer.token"), "another-token-0123456789").expect("a file");
    let (code, out, talk) = waypost(dir, &["reload", "-c", "waypost.toml"]).await;
    assert_eq!((code, out.contains("tokens"), out.contains("client_ca")), (0, true, true), "{out}{talk}");
    assert_eq!(scene.get("/livez", VIEWER).await.status, 401, "the old token is worth nothing now");
    assert_eq!(scene.get("/livez", "another-token-0123456789").await.status, 200);
    let (ann, eve) = (staff.person("Ann", &["ann.example"]), staff.person("Eve", &["eve.example"]));
    assert_eq!(scene.show(&ann, "GET /v1/status").await, Some(200));
    assert_eq!(scene.show(&ann, "POST /v1/gc").await, Some(200), "a listed operator");
    assert!(scene.node.said("certificate Ann"), "who did it is in the log");
    assert_eq!(scene.show(&eve, "GET /v1/status").await, Some(200));
    assert_eq!(scene.show(&eve, "POST /v1/gc").await, Some(403), "whoever is not listed looks");
    let stranger = Authority::new("strangers").person("Ann", &["ann.example"]);
    assert_eq!(scene.show(&stranger, "GET /v1/status").await, None, "another authority's Ann is nobody");
    let text = config(&listen, &format!("client_ca = \"staff.pem\"\n{TOKENS}"));
    std::fs::write(dir.join("waypost.toml"), text).expect("a file");
    let (code, out, talk) = waypost(dir, &["reload", "-c", "waypost.toml"]).await;
    assert_eq!((code, out.contains("[admin] certificates")), (0, true), "{out}{talk}");
    assert_eq!(scene.show(&ann, "POST /v1/gc").await, Some(403), "she is not listed any more");
    scene.node.stop().await;
}

#[tokio::test]
async fn tcp_without_credentials_is_an_error_of_the_configuration() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::new("admin CA");
    let issued = authority.server(&["node.example"]);
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("a file");
    write("admin.pem", &issued.cert);
    write("admin.key", &issued.key);
    write("short.token", "short");
    write("good.token", OPERATOR);
    std::fs::create_dir(dir.path().join("files")).expect("a directory");
    let token = |file: &str| {
        format!("tokens = [{{ name = \"a\", role = \"viewer\", secret = {{ file = \"{file}\" }} }}]")
    };
    for (admin, told) in [
        (String::new(), "`tokens` is missing"),
        ("tokens = []".to_owned(), "nobody could come in"),
        (token("short.token"), "can be guessed"),
        (token("no-such-file"), "no-such-file"),
        (
            "tokens = [{ name = \"a\", role = \"god\", secret = { file = \"good.token\" } }]".to_owned(),
            "\"operator\"",
        ),
        (
            "tokens = [{ name = \"a\", role = \"viewer\", secret = \"hunter2\" }]".to_owned(),
            "say where it is",
        ),
        (format!("{}\noperators = \"no-such-group\"", token("good.token")), "no group"),
        (format!("{}\nclient_ca = \"good.token\"", token("good.token")), "no certificate"),
        (
            "client_ca = \"admin.pem\"\ncertificates = [{ name = \"ann\" }]".to_owned(),
            "write role = \"viewer\"",
        ),
        (
            "client_ca = \"admin.pem\"\ncertificates = [{ name = \"ann\", role = \"viewer\" }, \
             { name = \"ann\", role = \"operator\" }]"
                .to_owned(),
            "two certificates have this name",
        ),
    ] {
        write("waypost.toml", &config("127.0.0.1:0", &admin));
        let (code, _, talk) = waypost(dir.path(), &["config", "check", "waypost.toml"]).await;
        assert_eq!((code, talk.contains(told)), (3, true), "{admin}: {talk}");
        assert!(!talk.contains("hunter2"), "{talk}");
    }
    write("waypost.toml", &config("127.0.0.1:0", &format!("{}\n{HOLDERS}", token("good.token"))));
    let (code, _, talk) = waypost(dir.path(), &["config", "check", "waypost.toml"]).await;
    assert_eq!((code, talk.contains("no effect without `client_ca`")), (0, true), "{talk}");
    write("waypost.toml", &config("127.0.0.1:0", &token("good.token")));
    let (code, _, talk) = waypost(dir.path(), &["config", "check", "waypost.toml"]).await;
    assert_eq!(code, 0, "{talk}");
}
