//! An origin whose files a test publishes, the real program in front of it with TLS, and a directory for agents.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::Value;
use waypost::testkit::origin::Origin;
use waypost::testkit::pki::Authority;
use waypost::testkit::process::{Process, Signal, Site, eventually};
use waypost::testkit::script::Script;

/// The name in the node's certificate, which agents use.
const NAME: &str = "localhost";

/// Everything is below this path, at the node and at the origin.
const BASE: &str = "/repo/";

/// When publications began: long ago, so that dates are validators that can be trusted.
const FIRST_PUBLICATION: Duration = Duration::from_secs(1_750_000_000);

/// A file of the origin: path below the repository, and body.
pub(crate) type File = (String, Bytes);

/// One test's world.
pub(crate) struct Stage {
    pub(crate) node: Process,
    origin: Option<Origin>,
    site: Site,
    dir: tempfile::TempDir,
}

impl Stage {
    /// The program in front of an origin that has nothing yet. `lines` are further lines of its repository: preset
    /// and rules.
    pub(crate) async fn new(lines: &str) -> Self {
        let origin = Origin::start().await;
        let dir = tempfile::tempdir().expect("a directory");
        let authority = Authority::new("the office's own authority");
        let server = authority.server(&[NAME, "127.0.0.1"]);
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("a file");
        write("ca.pem", &authority.pem());
        write("node.pem", &server.cert);
        write("node.key", &server.key);
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(dir.path().join("node.key"), private).expect("our own file");
        let site = Site::new(env!("CARGO_BIN_EXE_waypost"), dir.path());
        let upstream = format!("http://{}{BASE}", origin.authority());
        site.write_config(&format!(
            "[server]\nlisten = \"127.0.0.1:0\"\ntls = {{ cert = \"node.pem\", key = {{ file = \"node.key\" }} }}\n\
             [admin]\nsocket = \"admin.sock\"\n\n[cache]\ndir = \"cache\"\nsize = \"256MiB\"\nmin_free = \"0B\"\n\n\
             [[repository]]\nname = \"repo\"\npath = {BASE:?}\nupstreams = [{upstream:?}]\n{lines}\n\n\
             [log]\nformat = \"json\"\naccess = \"access.log\"\n"
        ));
        let node = site.start().await;
        Self { node, origin: Some(origin), site, dir }
    }

    /// A path in the test's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new directory in it.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).expect("a directory");
        path
    }

    /// The certificate of the authority.
    pub(crate) fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// Where agents find `path` of the repository.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{NAME}:{}{BASE}{path}", self.node.tls.port())
    }

    /// The same at the origin, past the node.
    pub(crate) fn origin_url(&self, path: &str) -> String {
        format!("{}{}{path}", self.origin().url().trim_end_matches('/'), BASE)
    }

    pub(crate) fn origin(&self) -> &Origin {
        self.origin.as_ref().expect("the origin is up")
    }

    /// Scripts a path of the repository at the origin.
    pub(crate) fn set(&self, path: &str, script: Script) {
        self.origin().set(&format!("{BASE}{path}"), script);
    }

    /// Publishes files at the origin, as a web server shows them: with both validators, changed at the hour of this
    /// number.
    pub(crate) fn publish<'a>(&self, number: u32, files: impl IntoIterator<Item = &'a File>) {
        for (path, body) in files {
            self.set(path, file(number, body));
        }
    }

    /// How often a path of the repository was asked for at the origin.
    pub(crate) fn asked(&self, path: &str) -> usize {
        self.origin().counts(&format!("{BASE}{path}")).requests
    }

    /// Bytes of bodies that crossed from the origin for a path of the repository.
    pub(crate) fn crossed(&self, path: &str) -> u64 {
        self.origin().counts(&format!("{BASE}{path}")).body_bytes
    }

    /// The origin refuses connections from now on.
    pub(crate) fn lose_origin(&mut self) {
        self.origin = None;
    }

    /// The program is killed, and starts again on another port.
    pub(crate) async fn kill_and_restart(&mut self) {
        self.node.signal(Signal::KILL);
        self.node.code().await;
        self.node = self.site.start().await;
    }

    /// Waits for a line of the access log that is so; it is written a moment after its request is over.
    pub(crate) async fn logs(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        eventually(what, async || {
            let text = std::fs::read_to_string(self.path("access.log")).unwrap_or_default();
            let mut lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
            found = lines.find(|line| is_so(line));
            found.is_some()
        })
        .await;
        found.expect("it was looked at")
    }

    /// Waits until what was fetched is stored: from then on the cache is warm.
    pub(crate) async fn settles(&self) {
        let none = |status: &Value| status["fills"].as_array().is_some_and(Vec::is_empty);
        eventually("no fill is running", async || none(&self.node.status().await)).await;
    }
}

impl Drop for Stage {
    /// A test that failed shows what the node did and said.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.path("access.log")).unwrap_or_default();
            println!("access log:\n{log}\nthe node said:\n{}", self.node.log().join("\n"));
        }
    }
}

/// Whether a line of the access log is an answer of this status for a path that ends so.
pub(crate) fn answered(status: u16, end: &str) -> impl Fn(&Value) -> bool {
    move |line| {
        line["status"] == status && line["target"].as_str().is_some_and(|target| target.ends_with(end))
    }
}

/// A file as a web server shows it: with both validators, changed at the hour of this number.
pub(crate) fn file(number: u32, body: &Bytes) -> Script {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    let changed = UNIX_EPOCH + FIRST_PUBLICATION + Duration::from_hours(number.into());
    Script {
        etag: Some(format!("\"{:x}\"", hasher.finish())),
        last_modified: Some(httpdate::fmt_http_date(changed)),
        // Says how far the other date can be trusted.
        headers: vec![("date".to_owned(), httpdate::fmt_http_date(SystemTime::now()))],
        ..Script::bytes(body.clone())
    }
}
