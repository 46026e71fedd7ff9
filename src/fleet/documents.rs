//! The control documents as they lie in their directory, or as they came from upstream: names and bytes, bounded.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::names::check_name;
use crate::base::limits::{DOCUMENT_BYTES, DOCUMENTS, DOCUMENTS_BYTES, POLICY_BYTES};

/// Handlers, groups, assignment rules, the system tree.
pub const FLEET: &str = "fleet.toml";
/// Which agents get which policies.
pub const RULES: &str = "rules.toml";
/// Which handlers drain or are disabled: written by the authority itself.
pub const STATES: &str = "states.toml";
/// The folder of policies: `policies/CATEGORY/NAME` with or without an ending.
pub const POLICIES: &str = "policies/";

/// A file that cannot be a control document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Its name is none of the four kinds.
    #[error("`{0}` is no control document: {FLEET}, {RULES}, {STATES} or {POLICIES}CATEGORY/NAME")]
    Name(String),
    /// It is larger than its kind may be.
    #[error("`{name}` is larger than {allowed} bytes")]
    TooLarge {
        /// The file.
        name: String,
        /// Bytes it may have.
        allowed: usize,
    },
    /// There are too many of them.
    #[error("there are more than {DOCUMENTS} control documents")]
    TooMany,
    /// All together are too large.
    #[error("the control documents have more than {DOCUMENTS_BYTES} bytes together")]
    TooMuch,
}

/// The documents: relative path with `/` to bytes, in the order of the paths. Cloning shares the bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Documents {
    files: BTreeMap<String, Bytes>,
    bytes: usize,
}

impl Documents {
    /// Whether a file of this name is a control document; a directory may hold others, such as a README.
    pub fn wants(name: &str) -> bool {
        matches!(name, FLEET | RULES | STATES) || policy_name(name).is_some()
    }

    /// How many bytes a document of this name may have.
    pub fn allowed_bytes(name: &str) -> usize {
        if name.starts_with(POLICIES) { POLICY_BYTES } else { DOCUMENT_BYTES }
    }

    /// Adds a document, or puts it in the place of the one of that name.
    ///
    /// # Errors
    /// When it is none, too large, or too much with the others; nothing is changed then.
    pub fn insert(&mut self, name: &str, body: Bytes) -> Result<(), DocumentError> {
        if !Self::wants(name) {
            return Err(DocumentError::Name(name.chars().take(200).collect()));
        }
        let allowed = Self::allowed_bytes(name);
        if body.len() > allowed {
            return Err(DocumentError::TooLarge { name: name.to_owned(), allowed });
        }
        let before = self.files.get(name).map(Bytes::len);
        if before.is_none() && self.files.len() >= DOCUMENTS {
            return Err(DocumentError::TooMany);
        }
        let bytes = self.bytes - before.unwrap_or(0) + body.len();
        if bytes > DOCUMENTS_BYTES {
            return Err(DocumentError::TooMuch);
        }
        self.bytes = bytes;
        self.files.insert(name.to_owned(), body);
        Ok(())
    }

    /// The document of that name.
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.files.get(name)
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.files.iter().map(|(name, body)| (name.as_str(), body))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Bytes of all of them.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Category and name of the policy in a file, where it is one: `policies/av/base.json` is `av` and `base`.
pub(super) fn policy_name(path: &str) -> Option<(&str, &str)> {
    let (category, file) = path.strip_prefix(POLICIES)?.split_once('/')?;
    let name = file.rsplit_once('.').map_or(file, |(name, _)| name);
    // The whole file name as well: `a.` and `a.b c` have good names before their dot.
    let right = check_name(category).is_ok() && check_name(name).is_ok() && check_name(file).is_ok();
    (right && !file.ends_with('.')).then_some((category, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_control_documents_are_taken() {
        for right in ["fleet.toml", "rules.toml", "states.toml", "policies/av/base.json", "policies/av/base"]
        {
            assert!(Documents::wants(right), "{right}");
        }
        for wrong in [
            "README.md",
            "policies/base.json",
            "policies/av/deep/base.json",
            "policies/av/.hidden",
            "policies/../fleet.toml",
            "policies/av/x.",
            "/fleet.toml",
            "fleet.toml~",
            "",
        ] {
            assert!(!Documents::wants(wrong), "{wrong}");
            assert!(matches!(Documents::default().insert(wrong, Bytes::new()), Err(DocumentError::Name(_))));
        }
        assert_eq!(policy_name("policies/av/base.v2.json"), Some(("av", "base.v2")));
    }

    #[test]
    fn bytes_are_bounded_each_and_together_and_a_replacement_counts_once() {
        let mut documents = Documents::default();
        let body = Bytes::from(vec![b'x'; POLICY_BYTES]);
        let fits = DOCUMENTS_BYTES / POLICY_BYTES;
        for number in 0..fits {
            documents.insert(&format!("policies/av/p{number}"), body.clone()).expect("it fits");
        }
        assert_eq!(documents.insert("policies/av/more", body.clone()), Err(DocumentError::TooMuch));
        documents.insert("policies/av/p0", body).expect("instead of the one there");
        assert_eq!((documents.len(), documents.bytes()), (fits, DOCUMENTS_BYTES));
        let large = Bytes::from(vec![b'x'; POLICY_BYTES + 1]);
        let refused = documents.insert("policies/av/p0", large);
        assert!(matches!(refused, Err(DocumentError::TooLarge { allowed: POLICY_BYTES, .. })));
    }
}
