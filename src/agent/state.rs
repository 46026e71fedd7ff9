//! What the agent keeps through restarts, in its state directory: its sitelist, its policies, its seed. Every file is
//! replaced as a whole; one that is damaged is as good as none, and the next check-in brings it again.
//!
//! The directory belongs to one process at a time, which holds a lock in it.

use std::collections::BTreeMap;
use std::fs::{self, File as FsFile, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::names::FileName;
use super::shelf::{self, ShelfError};
use crate::base::digest::Digest;
use crate::base::limits::{AGENT_ANSWER_BYTES, POLICY_BYTES};
use crate::fleet::sitelist::{Sitelist, parse};

const STATE: &str = "state.json";
const SITELIST: &str = "sitelist.xml";
const POLICIES: &str = "policies";
const LOCK: &str = "agent.lock";

/// How the state is written at present.
const SCHEMA: u32 = 1;

/// The state directory cannot be used. The administrator's.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The disk, or rights.
    #[error(transparent)]
    Disk(#[from] ShelfError),
    /// Another agent has it.
    #[error("another agent uses {}", .0.display())]
    InUse(PathBuf),
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Record {
    schema: u32,
    /// Chance that stays: which of equal handlers, when.
    seed: u64,
    /// Of the sitelist that is kept.
    etag: Option<String>,
    /// Its content, so that a crash between the two files is found out.
    sitelist: Option<Digest>,
}

/// The state directory.
#[derive(Debug)]
pub struct State {
    dir: PathBuf,
    record: Record,
    sitelist: Option<Sitelist>,
    policies: BTreeMap<String, Digest>,
    _lock: Option<FsFile>,
}

impl State {
    /// Opens it for the one agent that changes it; makes it where it is missing. `draw` is the seed of a new one.
    ///
    /// # Errors
    /// [`StateError`]
    pub fn open(dir: &Path, draw: u64) -> Result<Self, StateError> {
        shelf::make_dir(dir, 0o750)?;
        let path = dir.join(LOCK);
        let failed = |error: io::Error| ShelfError { path: path.clone(), error };
        let lock = OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(StateError::InUse(dir.to_owned())),
            Err(fs::TryLockError::Error(error)) => return Err(failed(error).into()),
        }
        let mut state = Self::look(dir);
        if state.record.schema != SCHEMA {
            state.record = Record { schema: SCHEMA, seed: draw, ..Record::default() };
            state.save()?;
        }
        state._lock = Some(lock);
        Ok(state)
    }

    /// Reads it beside the agent that has it. Changes nothing.
    pub fn look(dir: &Path) -> Self {
        let text = read(&dir.join(STATE), AGENT_ANSWER_BYTES);
        let record: Record = text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let list = read(&dir.join(SITELIST), AGENT_ANSWER_BYTES)
            .filter(|text| record.sitelist == Some(Digest::of(text)))
            .and_then(|text| parse(&text).ok());
        let record = if list.is_some() { record } else { Record { etag: None, sitelist: None, ..record } };
        let policies = installed_policies(&dir.join(POLICIES));
        Self { dir: dir.to_owned(), record, sitelist: list, policies, _lock: None }
    }

    /// Chance that stays with this agent.
    pub const fn seed(&self) -> u64 {
        self.record.seed
    }

    /// The sitelist, if there is one.
    pub const fn sitelist(&self) -> Option<&Sitelist> {
        self.sitelist.as_ref()
    }

    /// Its ETag.
    pub fn etag(&self) -> Option<&str> {
        self.record.etag.as_deref()
    }

    /// The policies that are there, `category/name`, by what they really are.
    pub const fn policies(&self) -> &BTreeMap<String, Digest> {
        &self.policies
    }

    /// Keeps a sitelist.
    ///
    /// # Errors
    /// The disk fails; the list of before stays.
    pub fn keep_sitelist(&mut self, text: &[u8], list: Sitelist, etag: &str) -> Result<(), StateError> {
        shelf::replace(&self.dir.join(SITELIST), text, 0o640)?;
        self.record.etag = Some(etag.to_owned());
        self.record.sitelist = Some(Digest::of(text));
        self.sitelist = Some(list);
        self.save()
    }

    /// Puts a policy in place.
    ///
    /// # Errors
    /// The disk fails; the policy of before stays.
    pub fn keep_policy(&mut self, name: &PolicyName, body: &[u8]) -> Result<(), StateError> {
        let path = self.dir.join(POLICIES).join(name.0.to_path());
        shelf::make_dir(&self.dir.join(POLICIES), 0o750)?;
        if let Some(category) = path.parent() {
            shelf::make_dir(category, 0o750)?;
        }
        shelf::replace(&path, body, 0o640)?;
        self.policies.insert(name.0.to_string(), Digest::of(body));
        Ok(())
    }

    /// Takes away the policies that are not among `stay`.
    ///
    /// # Errors
    /// The disk fails.
    pub fn drop_policies(&mut self, stay: &[PolicyName]) -> Result<(), StateError> {
        let stays = |name: &str| stay.iter().any(|it| it.0.as_str() == name);
        let gone: Vec<String> = self.policies.keys().filter(|name| !stays(name)).cloned().collect();
        for name in gone {
            shelf::remove(&self.dir.join(POLICIES).join(&name))?;
            self.policies.remove(&name);
        }
        Ok(())
    }

    fn save(&self) -> Result<(), StateError> {
        let text = serde_json::to_vec_pretty(&self.record).unwrap_or_default();
        Ok(shelf::replace(&self.dir.join(STATE), &text, 0o640)?)
    }
}

/// The name of a policy as a file: category and name, neither of them leading anywhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyName(FileName);

impl PolicyName {
    /// From what a handler says; `None`: no file may be called so.
    pub fn of(category: &str, name: &str) -> Option<Self> {
        let plain = |part: &str| !part.contains('/') && !part.starts_with('.');
        let name = FileName::try_from(format!("{category}/{name}"))
            .ok()
            .filter(|_| plain(category) && plain(name))?;
        Some(Self(name))
    }

    /// `category/name`.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

fn installed_policies(dir: &Path) -> BTreeMap<String, Digest> {
    let mut found = BTreeMap::new();
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
    for category in entries(dir) {
        for file in entries(&category.path()) {
            let (category, name) = (category.file_name(), file.file_name());
            let name = category
                .to_str()
                .zip(name.to_str())
                .and_then(|(category, name)| PolicyName::of(category, name));
            if let Some((name, body)) = name.zip(read(&file.path(), POLICY_BYTES)) {
                found.insert(name.0.into(), Digest::of(&body));
            }
        }
    }
    found
}

/// A file of at most `most` bytes.
fn read(path: &Path, most: usize) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    FsFile::open(path).ok()?.take(most as u64 + 1).read_to_end(&mut content).ok()?;
    (content.len() <= most).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"<ns:SiteLists xmlns:ns="naSiteList" GlobalVersion="1" LocalVersion="1" Type="Client"><SiteList Default="1" Name="SomeGUID"><SpipeSite Type="master" Name="a" Order="1" Server="a.example:443" Enabled="1" Local="0"/></SiteList></ns:SiteLists>"#;

    #[test]
    fn what_is_kept_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::open(dir.path(), 42).unwrap();
        state.keep_sitelist(LIST.as_bytes(), parse(LIST.as_bytes()).unwrap(), "\"e\"").unwrap();
        state.keep_policy(&PolicyName::of("av", "base").unwrap(), b"body").unwrap();
        drop(state);
        let state = State::open(dir.path(), 43).unwrap();
        assert_eq!((state.seed(), state.etag()), (42, Some("\"e\"")));
        assert_eq!(state.sitelist().unwrap().sites.len(), 1);
        assert_eq!(state.policies().get("av/base"), Some(&Digest::of(b"body")));
    }

    #[test]
    fn one_agent_has_the_directory_and_others_may_look() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path(), 1).unwrap();
        assert!(matches!(State::open(dir.path(), 1), Err(StateError::InUse(_))));
        assert_eq!(State::look(dir.path()).seed(), 1);
        drop(state);
        State::open(dir.path(), 1).unwrap();
    }

    #[test]
    fn a_damaged_file_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::open(dir.path(), 1).unwrap();
        state.keep_sitelist(LIST.as_bytes(), parse(LIST.as_bytes()).unwrap(), "\"e\"").unwrap();
        drop(state);
        fs::write(dir.path().join(SITELIST), LIST.replace("a.example", "evil.example")).unwrap();
        let state = State::look(dir.path());
        assert!(state.sitelist().is_none() && state.etag().is_none());
        fs::write(dir.path().join(STATE), "{").unwrap();
        assert_eq!(State::open(dir.path(), 9).unwrap().seed(), 9);
    }

    #[test]
    fn policies_are_what_lies_there_and_go_when_they_are_no_longer_listed() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::open(dir.path(), 1).unwrap();
        let (one, two) = (PolicyName::of("av", "base").unwrap(), PolicyName::of("fw", "strict").unwrap());
        state.keep_policy(&one, b"1").unwrap();
        state.keep_policy(&two, b"2").unwrap();
        fs::write(dir.path().join("policies/av/base"), "edited").unwrap();
        assert_eq!(State::look(dir.path()).policies().get("av/base"), Some(&Digest::of(b"edited")));
        state.drop_policies(&[two]).unwrap();
        assert_eq!(State::look(dir.path()).policies().len(), 1);
        for (category, name) in
            [("..", "x"), ("a", "../x"), ("a/b", "x"), ("a", ".x"), ("a", "nul"), ("", "x")]
        {
            assert!(PolicyName::of(category, name).is_none(), "{category}/{name}");
        }
    }
}
