//! Purges: what an operator wants gone or stale, as a rule that is true at once and swept through the index behind.
//!
//! A rule is about what was asked of upstream before its time. So it needs no list of the files it means: whatever
//! comes later under the same name is not touched, and a fetch that was under way counts by when it began.

use serde::{Deserialize, Serialize};

use super::key::Key;
use crate::base::clock::Timestamp;
use crate::base::limits::CLOCK_SLACK;
pub use crate::repository::pattern::{PatternError, Patterns};

/// What becomes of stored content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Nothing.
    Stays,
    /// It is stale from now on, and still usable when upstream is down.
    Stale,
    /// It is as if it were not there.
    Gone,
}

/// One purge.
#[derive(Clone, Debug)]
pub struct Purge {
    /// Paths; `None` is all of them.
    patterns: Option<Patterns>,
    /// Stale, not gone.
    pub soft: bool,
    /// Content that was asked for at this moment or before it.
    pub before: Timestamp,
}

/// As it is kept on disk.
#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    patterns: Option<Vec<String>>,
    soft: bool,
    before: Timestamp,
}

const VERSION: u32 = 1;

impl Purge {
    /// A purge of what matches, or of everything.
    pub const fn new(patterns: Option<Patterns>, soft: bool, before: Timestamp) -> Self {
        Self { patterns, soft, before }
    }

    /// Whether it is about this key, whenever its content came.
    pub fn matches(&self, key: &str) -> bool {
        self.patterns.as_ref().is_none_or(|patterns| patterns.matches(Key::path_in(key)))
    }

    /// What becomes of content of `key` that was asked for at `asked`. A time in the future was written under a wrong
    /// clock: such content is as old as may be.
    pub fn judge(&self, key: &str, asked: Timestamp, now: Timestamp) -> Fate {
        let is_older = asked <= self.before || asked > now.after(CLOCK_SLACK);
        match is_older && self.matches(key) {
            false => Fate::Stays,
            true if self.soft => Fate::Stale,
            true => Fate::Gone,
        }
    }

    /// A line of JSON, to be read by [`Purge::from_line`].
    pub fn to_line(&self) -> String {
        let patterns = self.patterns.as_ref().map(|patterns| patterns.texts().to_vec());
        let saved = Saved { version: VERSION, patterns, soft: self.soft, before: self.before };
        serde_json::to_string(&saved).unwrap_or_default()
    }

    /// Reads a line back; `None` for what is no purge of this release or an older one.
    pub fn from_line(line: &str) -> Option<Self> {
        let saved: Saved = serde_json::from_str(line).ok()?;
        if saved.version != VERSION {
            return None;
        }
        let patterns = saved.patterns.map(|texts| Patterns::parse(&texts)).transpose().ok()?;
        Some(Self { patterns, soft: saved.soft, before: saved.before })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purge(pattern: &str, soft: bool) -> Purge {
        Purge::new(Some(Patterns::parse(&[pattern]).unwrap()), soft, Timestamp(1_000))
    }

    #[test]
    fn what_was_asked_for_before_is_gone_and_what_comes_later_stays() {
        let now = Timestamp(2_000);
        let hard = purge("/a/**", false);
        assert_eq!(hard.judge("r:/a/x", Timestamp(1_000), now), Fate::Gone);
        assert_eq!(hard.judge("r:/a/x", Timestamp(1_001), now), Fate::Stays);
        assert_eq!(hard.judge("r:/b/x", Timestamp(1), now), Fate::Stays);
        assert_eq!(hard.judge("r:/a/x", now.after(CLOCK_SLACK * 2), now), Fate::Gone, "a wrong clock");
        assert_eq!(purge("/a/x", true).judge("r:/a/x", Timestamp(1), now), Fate::Stale);
        assert_eq!(Purge::new(None, false, now).judge("r:/c", now, now), Fate::Gone);
    }

    #[test]
    fn queries_and_variants_go_with_their_path() {
        let purge = purge("/a/x", false);
        for key in ["r:/a/x", "r:/a/x?q=1", "r:/a/x\naccept=de", "r:/a/x?q\nz=1"] {
            assert_eq!(purge.judge(key, Timestamp(1), Timestamp(2)), Fate::Gone, "{key}");
        }
    }

    #[test]
    fn a_purge_survives_being_written_down() {
        for purge in [purge("/a/**/*.zip", true), Purge::new(None, false, Timestamp(7))] {
            let again = Purge::from_line(&purge.to_line()).unwrap();
            assert_eq!((again.soft, again.before), (purge.soft, purge.before));
            assert_eq!(again.matches("r:/a/b/c.zip"), purge.matches("r:/a/b/c.zip"));
            assert_eq!(again.matches("r:/b"), purge.matches("r:/b"));
        }
        assert!(Purge::from_line("{\"version\":9}").is_none() && Purge::from_line("").is_none());
    }

    /// The golden line of version 1.
    #[test]
    fn version_1_reads_as_it_was_written() {
        let golden = r#"{"version":1,"patterns":["/a/x"],"soft":true,"before":1000}"#;
        assert_eq!(purge("/a/x", true).to_line(), golden);
        assert!(Purge::from_line(golden).is_some());
    }
}
