//! An authority, a directory, agents in it: what every test here begins with.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use waypost::agent::link::Identity;
use waypost::agent::{Agent, Options, Order, Status, ask, update};
use waypost::protocol::agent_api::Contact;
use waypost::repository::preset::preset_named;
use waypost::testkit::pki::Authority;

/// What survives a restart of the agent.
pub(crate) struct Scene {
    pub(crate) authority: Authority,
    dir: tempfile::TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self { authority: Authority::new("agents' test CA"), dir: tempfile::tempdir().expect("a directory") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// An agent that begins at once, with retries that a test can wait for.
    pub(crate) fn options(&self, handlers: &[String]) -> Options {
        let mut options = Options::new("pc-17", self.path("state"), handlers.to_vec());
        options.identity = Identity {
            trust: Some(self.authority.pem().into_bytes()),
            id: "pc-17".to_owned(),
            ..Identity::default()
        };
        options.contact = Contact::Checkin;
        options.first_checkin_within = Duration::ZERO;
        options.pace.retry_first = Duration::from_millis(100);
        options.pace.retry_most = Duration::from_millis(200);
        options.pace.grace = Duration::from_millis(200);
        // Machines that run tests are slow at times, and none of these handlers hangs.
        options.patience.connect = Duration::from_secs(20);
        options
    }

    pub(crate) fn update(&self, preset: &str, folder: &str) -> update::Options {
        update::Options {
            name: "dat".to_owned(),
            path: "/Software/".to_owned(),
            folder: folder.to_owned(),
            preset: preset_named(preset).expect("it is one"),
            directory: self.path("dat"),
        }
    }

    /// The installed file, as programs read it.
    pub(crate) fn installed(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.path("dat").join("current").join(name)).ok()
    }
}

/// An agent that runs in this process.
pub(crate) struct Running {
    state_dir: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) fn start(options: Options) -> Self {
        let state_dir = options.state_dir.clone();
        let agent = Agent::open(options).expect("it can begin");
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(agent.run(async { drop(stopped.await) }));
        Self { state_dir, stop: Some(stop), task }
    }

    pub(crate) async fn status(&self) -> Status {
        status(&self.state_dir).await.unwrap_or_default()
    }

    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        (&mut self.task).await.expect("it ends in order");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the agent of this directory says of itself, if one runs.
pub(crate) async fn status(state_dir: &Path) -> Option<Status> {
    ask(state_dir, Order::Status).await.ok().flatten().map(|done| done.status)
}
