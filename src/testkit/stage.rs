//! The real program in front of a scripted origin, in a directory that goes with the test.

use std::path::{Path, PathBuf};

use super::content;
use super::node::Home;
use super::origin::Origin;
use super::process::{Setup, Site};
use super::script::{Gate, Hold, Script};
use crate::base::digest::Digest;
use crate::base::limits::BLOCK_BYTES;

const BLOCK: usize = BLOCK_BYTES as usize;

/// An origin and a site whose configuration names it; no node runs yet. `setup` may be changed and
/// [written again](Site::configure).
#[derive(Debug)]
pub struct Stage {
    /// The upstream.
    pub origin: Origin,
    /// Where nodes run.
    pub site: Site,
    /// What the configuration says.
    pub setup: Setup,
    /// The site's directory.
    pub home: Home,
}

impl Stage {
    /// With the program at `binary`.
    pub async fn new(binary: &str) -> Self {
        let home = Home::new();
        let origin = Origin::start().await;
        let site = Site::new(binary, home.dir());
        let setup = Setup::new(&site, &origin.url());
        site.configure(&setup);
        Self { origin, site, setup, home }
    }

    /// Scripts a file; gives its path, in which `seed` is.
    pub fn file(&self, seed: u64, length: u64) -> String {
        let path = format!("/o/f{seed}");
        self.origin.set(&path, Script::file(seed, length));
        path
    }

    /// As [`Stage::file`], of which only the first `at` bytes come before the gate is opened.
    pub fn held(&self, seed: u64, length: u64, at: u64) -> (String, Gate) {
        let path = self.file(seed, length);
        let gate = Gate::default();
        let hold = Some(Hold { at: Some(at), gate: gate.clone() });
        self.origin.set(&path, Script { hold, ..Script::file(seed, length) });
        (path, gate)
    }

    /// The cache directory.
    pub fn cache(&self) -> &Path {
        &self.setup.cache
    }

    /// Where a block of a file of [`Stage::file`] is on disk.
    pub fn block(&self, seed: u64, length: usize, index: usize) -> PathBuf {
        let start = index * BLOCK;
        let name = Digest::of(&content::piece(seed, start as u64, BLOCK.min(length - start))).to_string();
        let (first, rest) = name.split_at(2);
        let (second, rest) = rest.split_at(2);
        self.cache().join("content-v2/sha256").join(first).join(second).join(rest)
    }

    /// Requests for these paths that reached the origin.
    pub fn requests(&self, paths: &[String]) -> usize {
        paths.iter().map(|path| self.origin.counts(path).requests).sum()
    }
}
