//! A real client as a child process: in a clean environment, with a time limit, and killed when nobody waits for it.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;
use waypost::testkit::process::Signal;

/// Longer than any client needs on a slow machine.
const LIMIT: Duration = Duration::from_secs(180);

/// What a client may know of the environment: certificates, proxies and settings of the machine would win over what
/// a test says.
const KEPT: &[&str] = &["PATH", "HOME", "USER", "TMPDIR", "PYENV_ROOT", "PYENV_VERSION", "LD_LIBRARY_PATH"];

/// A client to be run.
pub(crate) struct Agent(Command);

/// What a run of a client came to.
pub(crate) struct Outcome {
    /// Exit code; -1 if a signal ended it.
    pub(crate) code: i32,
    /// What it said, both streams.
    pub(crate) said: String,
    stdout: Vec<u8>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it ended with {} and said:\n{}", self.code, self.said)
    }
}

impl Outcome {
    /// What it wrote to stdout alone.
    pub(crate) fn stdout(&self) -> &[u8] {
        &self.stdout
    }

    /// It went well.
    #[track_caller]
    pub(crate) fn succeeds(self) -> Self {
        assert_eq!(self.code, 0, "{self}");
        self
    }
}

impl Agent {
    /// With nothing of the environment that could change what it does.
    pub(crate) fn new(program: &str) -> Self {
        let mut command = Command::new(program);
        command.env_clear().env("LC_ALL", "C.UTF-8");
        for name in KEPT {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        Self(command)
    }

    pub(crate) fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.0.arg(word);
        self
    }

    pub(crate) fn args(mut self, words: &[&str]) -> Self {
        self.0.args(words);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.0.current_dir(dir);
        self
    }

    /// Runs it to its end.
    pub(crate) async fn run(self) -> Outcome {
        self.start().end().await
    }

    /// Starts it, as the head of a process group of its own: some clients have helpers.
    pub(crate) fn start(mut self) -> Running {
        let name = self.0.as_std().get_program().to_string_lossy().into_owned();
        self.0.process_group(0);
        let child = self.0.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Running { name, child }
    }
}

/// A client that runs.
pub(crate) struct Running {
    name: String,
    child: Child,
}

impl Running {
    /// Whether it has ended.
    pub(crate) fn is_over(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_some()
    }

    /// Waits for its end.
    pub(crate) async fn end(self) -> Outcome {
        let Self { name, child } = self;
        let output = timeout(LIMIT, child.wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("{name} ran longer than {LIMIT:?}"));
        let output = output.expect("a child can be waited for");
        let said = [output.stdout.as_slice(), &output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        Outcome { code: output.status.code().unwrap_or(-1), said, stdout: output.stdout }
    }

    /// Sends a signal to it and its helpers, and waits for its end.
    pub(crate) async fn stop(self, signal: Signal) -> Outcome {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        let group = id.and_then(rustix::process::Pid::from_raw).expect("it has not ended yet");
        rustix::process::kill_process_group(group, signal).expect("our own child can be signalled");
        self.end().await
    }
}

/// Whether these programs are there, each tried with the words behind it.
///
/// # Panics
/// One is not, under CI.
pub(crate) async fn have(programs: &[&[&str]]) -> bool {
    for words in programs {
        let [program, words @ ..] = words else { continue };
        let mut agent = Agent::new(program).args(words);
        let there = match agent.0.spawn() {
            Ok(child) => Running { name: (*program).to_owned(), child }.end().await.code == 0,
            Err(_) => false,
        };
        if !there {
            println!("SKIPPED: `{program} {}` does not run on this machine", words.join(" "));
            assert!(std::env::var_os("CI").is_none(), "CI has no {program}");
            return false;
        }
    }
    true
}
