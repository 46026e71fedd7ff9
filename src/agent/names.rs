//! Names that a catalogue gives become files on this machine: only those that mean one thing on any file system and
//! stay where they are put. Pure.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::base::limits::CATALOGUE_DEPTH;
use crate::protocol::target::decode_path;

/// Bytes in one segment: what file systems take.
const SEGMENT_BYTES: usize = 255;

/// What Windows takes for a device, whatever stands behind the first dot.
const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "conin$", "conout$"];

/// The relative name of a file, with `/` between folders: nothing in it leads elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileName(String);

/// A name that is not taken, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name `{name}` is refused: {why}")]
pub struct HostileName {
    name: String,
    why: &'static str,
}

impl FileName {
    /// From the canonical path of a URL, below the folder that is mirrored.
    ///
    /// # Errors
    /// [`HostileName`]: the catalogue is not to be believed.
    pub fn of_path(path: &str) -> Result<Self, HostileName> {
        Self::try_from(decode_path(path))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As a path below where it is put.
    pub fn to_path(&self) -> PathBuf {
        self.0.split('/').collect()
    }

    /// The folders above the file, outermost first.
    pub fn folders(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').filter_map(|(at, _)| self.0.get(..at))
    }
}

impl TryFrom<String> for FileName {
    type Error = HostileName;

    fn try_from(name: String) -> Result<Self, HostileName> {
        let wrong = (name.split('/').count() > CATALOGUE_DEPTH)
            .then_some("it lies too deep")
            .or_else(|| name.split('/').find_map(why_not));
        match wrong {
            None => Ok(Self(name)),
            Some(why) => {
                let name = name.chars().take(80).flat_map(char::escape_debug).collect();
                Err(HostileName { name, why })
            }
        }
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> Self {
        name.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with one segment, if anything.
fn why_not(segment: &str) -> Option<&'static str> {
    let stem = segment.split('.').next().unwrap_or_default().trim_end();
    let numbered = |port: &str| {
        let number = stem.get(..3).filter(|begin| begin.eq_ignore_ascii_case(port)).and(stem.get(3..));
        number.is_some_and(|it| {
            matches!(it, "0" | "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "¹" | "²" | "³")
        })
    };
    if segment.is_empty() {
        Some("a part of it is empty")
    } else if segment == "." || segment == ".." {
        Some("it leads out of its folder")
    } else if segment.len() > SEGMENT_BYTES {
        Some("a part of it is longer than 255 bytes")
    } else if segment.contains(['\\', ':', '\0']) {
        Some("it has a backslash, a colon or a NUL")
    } else if segment.chars().any(char::is_control) {
        Some("it has a control character")
    } else if segment.contains(char::REPLACEMENT_CHARACTER) {
        Some("it is not UTF-8")
    } else if segment.ends_with(['.', ' ']) || segment.starts_with(' ') {
        Some("it begins with a blank, or ends in a dot or blank")
    } else if DEVICES.iter().any(|device| stem.eq_ignore_ascii_case(device))
        || numbered("com")
        || numbered("lpt")
    {
        Some("it is the name of a device")
    } else {
        None
    }
}

/// Whether two of these names cannot be files side by side: one is a folder to another, or they differ in case only.
pub fn collide<'a>(names: impl Iterator<Item = &'a FileName>) -> Option<&'a FileName> {
    let mut files = std::collections::HashSet::new();
    let mut folders = std::collections::HashSet::new();
    let mut all = Vec::new();
    for name in names {
        if !files.insert(name.0.to_lowercase()) {
            return Some(name);
        }
        folders.extend(name.folders().map(str::to_lowercase));
        all.push(name);
    }
    all.into_iter().find(|name| folders.contains(&name.0.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Result<FileName, HostileName> {
        FileName::try_from(text.to_owned())
    }

    #[test]
    fn usual_names_are_taken() {
        for text in [
            "a",
            "avvdat-11230.zip",
            "Current/X/0409/ä b.exe",
            "-x",
            ".hidden",
            "a..b",
            "console",
            "com10",
            "nullify.x",
        ] {
            assert_eq!(name(text).unwrap().as_str(), text);
        }
        assert_eq!(FileName::of_path("a%20b/c%2B").unwrap().as_str(), "a b/c+");
        assert_eq!(name("a/b/c").unwrap().folders().collect::<Vec<_>>(), ["a", "a/b"]);
    }

    #[test]
    fn hostile_names_are_refused() {
        let deep = "d/".repeat(CATALOGUE_DEPTH) + "f";
        let long = "x".repeat(256);
        for text in [
            "",
            "/",
            "/etc/passwd",
            "a//b",
            "a/",
            "..",
            "../x",
            "a/../../x",
            ".",
            "a/./b",
            "a\\b",
            "..\\x",
            "C:x",
            "file:stream",
            "a\0b",
            "a\nb",
            "a\u{1b}[2J",
            "con",
            "NUL.txt",
            "a/Com1.zip/b",
            "lpt9",
            "aux ",
            "x.",
            "x ",
            " x",
            "LPT¹",
            "\u{fffd}",
            &deep,
            &long,
        ] {
            assert!(name(text).is_err(), "{text:?}");
        }
        for path in ["%2E%2E/x", "a%2Fb/../c", "%00", "a%5Cb", "%ff"] {
            assert!(FileName::of_path(path).is_err(), "{path}");
        }
        let error = name("a\u{1b}[2J").unwrap_err().to_string();
        assert!(!error.contains('\u{1b}'), "{error:?}");
    }

    #[test]
    fn names_that_cannot_stand_side_by_side_are_found() {
        let all = |texts: &[&str]| texts.iter().map(|text| name(text).unwrap()).collect::<Vec<_>>();
        assert!(collide(all(&["a/b", "a/c", "b"]).iter()).is_none());
        assert!(collide(all(&["a/b", "A"]).iter()).is_some());
        assert!(collide(all(&["x.zip", "X.ZIP"]).iter()).is_some());
    }

    proptest! {
        #[test]
        fn a_name_that_is_taken_stays_below_where_it_is_put(text in "([a-c./\\\\: ]|\\PC){0,12}") {
            if let Ok(name) = name(&text) {
                let path = name.to_path();
                prop_assert!(path.is_relative());
                prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
                prop_assert_eq!(path.to_str(), Some(text.as_str()));
            }
        }
    }
}
