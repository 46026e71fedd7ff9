//! Policies: settings documents by category, and the list of those that one agent has.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::base::digest::Digest;

/// A settings document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its category: the folder it lies in.
    pub category: String,
    /// Its name: the file's without its ending.
    pub name: String,
    /// The file, relative to the documents.
    pub file: String,
    /// Its text.
    pub body: Bytes,
    /// What names its body.
    pub sha256: Digest,
}

impl Policy {
    /// The media type of its body, by the ending of its file.
    pub fn media_type(&self) -> &'static str {
        match self.file.rsplit_once('.').map(|(_, ending)| ending) {
            Some("json") => "application/json",
            Some("xml") => "application/xml",
            Some("toml") => "application/toml",
            _ => "text/plain; charset=utf-8",
        }
    }
}

/// The policies of one agent, by category and then by name; in a category with several slots there may be several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// They.
    pub entries: Vec<ManifestEntry>,
}

/// One policy of an agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ManifestEntry {
    /// Its category.
    pub category: String,
    /// Its name.
    pub name: String,
    /// SHA-256 of its body, in hexadecimal digits.
    #[serde(with = "hex")]
    pub sha256: Digest,
}

impl ManifestEntry {
    /// `category/name`.
    pub fn path(&self) -> String {
        format!("{}/{}", self.category, self.name)
    }
}

impl Manifest {
    /// Equal where two manifests are.
    pub fn digest(&self) -> Digest {
        let lines = self.entries.iter().map(|it| format!("{}/{} {}\n", it.category, it.name, it.sha256));
        Digest::of(lines.collect::<String>().as_bytes())
    }
}

/// Digests as people and agents write them.
pub(super) mod hex {
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    use crate::base::digest::Digest;

    pub(in crate::fleet) fn serialize<S: Serializer>(digest: &Digest, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(digest)
    }

    pub(in crate::fleet) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(from)?;
        text.parse().map_err(de::Error::custom)
    }
}
