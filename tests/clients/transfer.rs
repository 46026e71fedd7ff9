//! A large file that general clients fetch, break off, and go on with: what wget, aria2 and curl have in common.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use waypost::testkit::content;
use waypost::testkit::process::{Signal, eventually};
use waypost::testkit::script::{Gate, Hold, Script};

use super::agent::{Agent, have};
use super::stage::{Stage, file};

/// What the repository's configuration says: files never change under their names.
const RULES: &str = "preset = \"generic\"\n\n[[repository.rule]]\nmatch = \"**\"\nimmutable = true\n";

/// The file that is fetched.
pub(crate) const FILE: &str = "large.bin";

/// Its length.
pub(crate) const LEN: u64 = 12 << 20;

/// A node in front of the file.
pub(crate) struct Transfer {
    pub(crate) stage: Stage,
    body: Bytes,
    sha256: Vec<u8>,
}

impl Transfer {
    /// `None` where the client, tried with the words behind it, is not there.
    pub(crate) async fn new(client: &[&str]) -> Option<Self> {
        if !have(&[client]).await {
            return None;
        }
        let stage = Stage::new(RULES).await;
        let body = content::whole(1, usize::try_from(LEN).expect("it fits"));
        stage.publish(0, &[(FILE.to_owned(), body.clone())]);
        let sha256 = Sha256::digest(&body).to_vec();
        Some(Self { stage, body, sha256 })
    }

    /// The file as the origin shows it.
    pub(crate) fn script(&self) -> Script {
        file(0, &self.body)
    }

    /// The origin stops at this byte until the gate is opened.
    pub(crate) fn hold_at(&self, at: u64) -> Gate {
        let gate = Gate::default();
        self.stage
            .set(FILE, Script { hold: Some(Hold { at: Some(at), gate: gate.clone() }), ..self.script() });
        gate
    }

    /// An agent's directory, and the file in it.
    pub(crate) fn place(&self, agent: &str) -> (PathBuf, PathBuf) {
        let dir = self.stage.folder(agent);
        let file = dir.join(FILE);
        (dir, file)
    }

    /// The file at `path` has the SHA-256 that it has at the origin.
    #[track_caller]
    pub(crate) fn is_right(&self, path: &Path) {
        let got = std::fs::read(path).expect("the file");
        assert_eq!(got.len(), self.body.len());
        assert!(Sha256::digest(&got).to_vec() == self.sha256, "{} is another file", path.display());
    }

    /// It crossed from the origin once.
    #[track_caller]
    pub(crate) fn crossed_once(&self) {
        assert_eq!(self.stage.crossed(FILE), LEN);
    }

    /// It crossed from the origin once, but for what proves that a transfer goes on with the same file.
    #[track_caller]
    pub(crate) fn crossed_about_once(&self) {
        let crossed = self.stage.crossed(FILE);
        assert!((LEN..=LEN + LEN / 20).contains(&crossed), "{crossed} of {LEN}");
    }

    /// Kills the node when it has noted what it has, and starts it again.
    pub(crate) async fn kill_the_node(&mut self) {
        let node = &self.stage.node;
        eventually("its progress is on disk", async || node.status().await["cache"]["partials"] == 1).await;
        self.stage.kill_and_restart().await;
    }

    /// Not all that had crossed before the node was killed, half of the file, crossed again.
    #[track_caller]
    pub(crate) fn crossed_not_all_again(&self) {
        let crossed = self.stage.crossed(FILE);
        assert!((LEN..LEN + LEN / 2 - (512 << 10)).contains(&crossed), "{crossed} of {LEN}");
    }

    /// Starts `agent` and ends it when it has more than `least` bytes of the file at `path`; how many it has then.
    pub(crate) async fn break_off(&self, agent: Agent, path: &Path, least: u64, signal: Signal) -> u64 {
        let running = agent.start();
        let has = || std::fs::metadata(path).map_or(0, |meta| meta.len());
        eventually("the agent has a part", async || has() > least).await;
        running.stop(signal).await;
        let had = has();
        assert!(had > least, "{had}");
        had
    }
}
