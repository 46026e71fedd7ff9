//! Secrets are used and never told: everything that a node writes, says and shows is searched for those that were
//! planted. That an agent gets only its own sitelist and policies is in `tests/control/agents.rs`.

use std::fs;
use std::path::Path;

use waypost::testkit::client::{Answer, Client};
use waypost::testkit::node::NAME;
use waypost::testkit::origin::Origin;
use waypost::testkit::process::{Process, eventually};
use waypost::testkit::script::Script;
use waypost::testkit::stage::Stage;

/// What nobody may ever read again, each with where it is planted.
const PLANTED: &[(&str, &str)] = &[
    ("canary-of-the-operator-0123456789", "the operator's token"),
    ("canary-of-enrolment-0123456789", "an enrolment token of agents"),
    ("canary-of-the-node-below-0123456789", "a token of a node below"),
    ("canary-to-the-node-above-0123456789", "what the node shows to the one above"),
    ("canary-that-is-wrong-0123456789", "a token that is nobody's"),
    ("canary-of-a-cookie-0123456789", "an agent's cookie"),
    ("canary-of-an-agent-0123456789", "credentials of an agent that asks for a file"),
    ("canary-in-the-environment-0123456789", "a value in the wrong place of a configuration"),
];

const fn secret(index: usize) -> &'static str {
    PLANTED[index].0
}

/// The body of a PEM file: its second line.
fn of_pem(pem: &str) -> String {
    pem.lines().nth(1).expect("a line").to_owned()
}

/// Everything that was seen, and where.
#[derive(Default)]
struct Seen(Vec<(String, Vec<u8>)>);

impl Seen {
    fn text(&mut self, place: &str, text: &str) {
        self.0.push((place.to_owned(), text.as_bytes().to_vec()));
    }

    fn answer(&mut self, place: &str, answer: &Answer) {
        let head: Vec<String> =
            answer.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        self.text(place, &head.join("\n"));
        self.0.push((place.to_owned(), answer.body.to_vec()));
    }

    /// All regular files below `dir`, but those that are the secrets' own.
    fn files(&mut self, dir: &Path) {
        for entry in fs::read_dir(dir).expect("a directory").flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let own = ["token", "key"].iter().any(|it| path.extension().is_some_and(|is| is == *it));
            if path.is_dir() {
                self.files(&path);
            } else if path.is_file() && !own {
                self.0.push((name, fs::read(&path).expect("readable")));
            }
        }
    }

    /// Nothing of it has any of these in it.
    fn check(&self, secrets: &[(String, &str)]) {
        for (secret, what) in secrets {
            for (place, bytes) in &self.0 {
                let found = bytes.windows(secret.len()).any(|at| at == secret.as_bytes());
                assert!(!found, "{what} stands in {place}");
            }
        }
    }
}

/// A node that uses every kind of secret there is, and says as much as it can be made to say.
async fn node_with_secrets(stage: &Stage, above: &Origin) -> Process {
    let write = |name: &str, text: &str| stage.home.write(name, text);
    write("operator.token", secret(0));
    write("agents.token", secret(1));
    write("below.token", &format!("{}\n", secret(2)));
    write("above.token", secret(3));
    let admin = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
    let (upstream, control) = (stage.origin.url(), above.url());
    stage.site.write_config(&format!(
        "[server]\nplain_listen = \"127.0.0.1:0\"\nlisten = \"127.0.0.1:0\"\nnode = \"test\"\n\
         tls = {{ cert = \"node.pem\", key = {{ file = \"node.key\" }} }}\n\n\
         [admin]\nsocket = \"admin.sock\"\nlisten = \"{admin}\"\n\
         tokens = [{{ name = \"ops\", role = \"operator\", secret = {{ file = \"operator.token\" }} }}]\n\n\
         [cache]\ndir = \"cache\"\nsize = \"64MiB\"\nmemory = \"8MiB\"\nmin_free = \"0B\"\n\n\
         [[repository]]\nname = \"o\"\npath = \"/o/\"\nupstreams = [\"{upstream}o/\"]\n\
         forward_headers = [\"x-channel\"]\n\n\
         [control]\nupstream = \"{control}\"\nca = \"ca.pem\"\nstate_dir = \"state\"\ntoken = {{ file = \"above.token\" }}\n\
         tokens = [{{ name = \"below\", secret = {{ file = \"below.token\" }} }}]\n\n\
         [agents]\ntokens = [{{ name = \"all\", tree = \"/\", secret = {{ file = \"agents.token\" }} }}]\n\n\
         [log]\nformat = \"json\"\nlevel = \"trace\"\naccess = \"access.log\"\n"
    ));
    stage.site.start().await
}

/// One request on a connection of its own, over TLS or not.
async fn ask(
    stage: &Stage,
    node: &Process,
    tls: bool,
    method: &str,
    path: &str,
    more: &str,
    body: &str,
) -> Answer {
    let client = if tls {
        Client::connect_tls(node.tls, NAME, stage.home.authority()).await
    } else {
        Client::connect(node.address).await
    };
    let mut client = client.expect("the node accepts");
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{more}content-length: {length}\r\n\r\n");
    let head = if method == "GET" { head.replace("content-length: 0\r\n", "") } else { head };
    client.send((head + body).as_bytes()).await.expect("it is sent");
    client.read_answer(method).await.expect("an answer")
}

#[tokio::test]
async fn no_secret_is_ever_written_shown_or_answered() {
    let stage = Stage::new(env!("CARGO_BIN_EXE_waypost")).await;
    let above = Origin::start_tls(&stage.home.authority().server(&["127.0.0.1"]), None).await;
    stage.origin.set("/o/f", Script::file(1, 200_000));
    stage.origin.set("/o/broken", Script::status(500, &[]));
    stage.origin.set("/o/refused", Script::status(401, &[("www-authenticate", "Basic realm=x")]));
    let node = node_with_secrets(&stage, &above).await;
    let mut seen = Seen::default();
    let cookie = format!("cookie: session={}\r\n", secret(5));
    let with = |token: &str| format!("authorization: Bearer {token}\r\nwaypost-agent: pc-1\r\n{cookie}");

    // Files, found and not, with credentials and cookies that are nobody else's.
    for tls in [false, true] {
        for path in ["/o/f", "/o/missing", "/o/broken", "/o/refused", "/nowhere", "/o/a%2fb", "/o/f?q=1"] {
            let credentials = format!("authorization: {}\r\n{cookie}", secret(6));
            seen.answer(path, &ask(&stage, &node, tls, "GET", path, &credentials, "").await);
        }
    }
    seen.text("what upstream is asked", &stage.origin.heads().join("\n"));
    // Agents and nodes, with what is theirs and with what is nobody's.
    let said = "{\"sequence\":1,\"boot\":\"b1\"}";
    for token in [secret(1), secret(4), secret(0)] {
        for path in ["/agent/v1/sitelist.xml", "/agent/v1/policies", "/node/v1/bundle"] {
            seen.answer(path, &ask(&stage, &node, false, "GET", path, &with(token), "").await);
        }
        let checked_in = ask(&stage, &node, true, "POST", "/agent/v1/checkin", &with(token), said).await;
        assert_eq!(checked_in.status, if token == secret(1) { 200 } else { 401 }, "{checked_in:?}");
        seen.answer("a check-in", &checked_in);
    }
    for token in [secret(2), secret(4)] {
        let more = format!("authorization: Bearer {token}\r\nwaypost-node: below\r\n");
        seen.answer("a node", &ask(&stage, &node, false, "GET", "/node/v1/bundle", &more, "").await);
    }
    eventually("its own token went up", async || above.heads().iter().any(|head| head.contains(secret(3))))
        .await;

    // What operators are shown, by the socket and by the command line.
    for path in
        ["/v1/status", "/v1/config", "/v1/agents", "/v1/agents/pc-1", "/v1/explain?url=/o/f", "/metrics"]
    {
        seen.answer(path, &node.ask(path).await);
    }
    for words in [
        &["config", "show", "--effective", "--origin"][..],
        &["config", "check"],
        &["status"],
        &["reload"],
        &["explain", "/o/f"],
        &["fleet", "ls"],
    ] {
        let (_, out, talk) = stage.site.run(words).await;
        assert!(!(out.is_empty() && talk.is_empty()), "{words:?} says nothing");
        seen.text(&words.join(" "), &(out + &talk));
    }
    // A value where a reference should be: the mistake is told and the value is not.
    let good = fs::read_to_string(stage.home.path("waypost.toml")).expect("a configuration");
    let bad = good.replace("{ file = \"above.token\" }", &format!("\"{}\"", secret(7)));
    assert_ne!(good, bad);
    stage.site.write_config(&bad);
    for words in [&["config", "check"][..], &["reload", "-s", "admin.sock"]] {
        let (code, out, talk) = stage.site.run(words).await;
        assert_eq!(code, 3, "{talk}");
        seen.text("a mistake in the configuration", &(out + &talk));
    }
    stage.site.write_config(&good);
    seen.text("the log", &node.log().join("\n"));
    assert!(node.said("TRACE") || node.said("DEBUG"), "it says all it can");
    node.stop().await;

    // What is left on the disk: logs, cache, what is known of agents.
    seen.files(stage.home.dir());
    assert!(seen.0.iter().any(|(place, bytes)| place == "access.log" && !bytes.is_empty()));
    assert!(seen.0.iter().any(|(place, _)| place == "agents.redb"));
    let mut secrets: Vec<(String, &str)> =
        PLANTED.iter().map(|(secret, what)| ((*secret).to_owned(), *what)).collect();
    let key = fs::read_to_string(stage.home.path("node.key")).expect("a key");
    secrets.push((of_pem(&key), "the node's private key"));
    seen.check(&secrets);
}
