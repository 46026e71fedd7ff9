//! The bundle: the fleet's documents as one thing with a version, as it travels from node to node and lies on disk.
//!
//! Its index names every document with length and SHA-256, so that a change moves only what changed, and whoever takes
//! one over can prove each byte of it. The digest of the index is over that list alone: the same documents have the same.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::base::limits::{DOCUMENTS, DOCUMENTS_BYTES};
use crate::fleet::{Documents, FLEET, STATES};

/// The shape of the index.
const SCHEMA: u32 = 1;

/// What a bundle is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// The shape.
    pub schema: u32,
    /// Grows with every change.
    pub version: u64,
    /// The version with which anything changed that sitelists are made of.
    pub sitelists: u64,
    /// When it was issued, milliseconds since 1970.
    pub issued: u64,
    /// SHA-256 over the list of documents.
    pub digest: String,
    /// SHA-256 over all of the above.
    pub seal: String,
    /// The documents, by name.
    pub documents: Vec<Item>,
}

/// One document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Its path in the directory.
    pub name: String,
    /// Bytes.
    pub length: usize,
    /// SHA-256 of its bytes.
    pub sha256: String,
}

/// The documents at one version.
#[derive(Clone, Debug)]
pub struct Bundle {
    index: Index,
    documents: Documents,
    bodies: BTreeMap<Digest, Bytes>,
}

/// Why something is no bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Of a later release, perhaps.
    #[error("its shape {0} is not known here")]
    Schema(u32),
    /// The list is not what its digest says.
    #[error("its list of documents is altered")]
    Digest,
    /// Too many documents, too many bytes, or names that are none.
    #[error("it names what no bundle has: {0}")]
    Names(String),
    /// A document is missing, or other bytes.
    #[error("the document {0} is missing or altered")]
    Document(String),
}

impl Bundle {
    /// These documents as a new version.
    pub fn issue(documents: Documents, version: u64, issued: Timestamp, before: Option<&Self>) -> Self {
        let items: Vec<Item> = documents
            .iter()
            .map(|(name, body)| Item {
                name: name.to_owned(),
                length: body.len(),
                sha256: Digest::of(body).to_string(),
            })
            .collect();
        let same = |name: &str| before.is_some_and(|it| it.documents.get(name) == documents.get(name));
        let sitelists = match before {
            Some(before) if same(FLEET) && same(STATES) => before.index.sitelists,
            _ => version,
        };
        let digest = digest_of(&items).to_string();
        let (issued, seal) = (issued.0, String::new());
        let mut index = Index { schema: SCHEMA, version, sitelists, issued, digest, seal, documents: items };
        index.seal = index.sealed();
        Self::with(index, documents)
    }

    /// What an index says, from bodies by digest; every byte is proven.
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn assemble(index: Index, body: impl Fn(&Digest) -> Option<Bytes>) -> Result<Self, BundleError> {
        index.check()?;
        let mut documents = Documents::default();
        for item in &index.documents {
            let altered = || BundleError::Document(item.name.clone());
            let digest = item.digest().ok_or_else(altered)?;
            let bytes = body(&digest).filter(|bytes| bytes.len() == item.length).ok_or_else(altered)?;
            if Digest::of(&bytes) != digest {
                return Err(altered());
            }
            documents.insert(&item.name, bytes).map_err(|error| BundleError::Names(error.to_string()))?;
        }
        Ok(Self::with(index, documents))
    }

    fn with(index: Index, documents: Documents) -> Self {
        let named = index
            .documents
            .iter()
            .filter_map(|item| Some((item.digest()?, documents.get(&item.name)?.clone())));
        let bodies = named.collect();
        Self { index, documents, bodies }
    }

    /// Its index.
    pub const fn index(&self) -> &Index {
        &self.index
    }

    /// Its documents.
    pub const fn documents(&self) -> &Documents {
        &self.documents
    }

    /// A body by its digest.
    pub fn body(&self, sha256: &Digest) -> Option<&Bytes> {
        self.bodies.get(sha256)
    }

    /// What names this version and its content.
    pub fn tag(&self) -> String {
        self.index.tag()
    }
}

impl Item {
    /// Its SHA-256.
    pub fn digest(&self) -> Option<Digest> {
        self.sha256.parse().ok()
    }
}

impl Index {
    /// What names this version and its content.
    pub fn tag(&self) -> String {
        format!("{}-{}", self.version, self.digest.get(..16).unwrap_or_default())
    }

    /// Whether it can be an index at all, before anything of it is fetched.
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn check(&self) -> Result<(), BundleError> {
        if self.schema != SCHEMA {
            return Err(BundleError::Schema(self.schema));
        }
        if self.documents.len() > DOCUMENTS {
            return Err(BundleError::Names(format!("more than {DOCUMENTS} documents")));
        }
        let bytes = self.documents.iter().fold(0_usize, |sum, item| sum.saturating_add(item.length));
        if bytes > DOCUMENTS_BYTES {
            return Err(BundleError::Names(format!("more than {DOCUMENTS_BYTES} bytes")));
        }
        let sorted = self.documents.is_sorted_by(|one, two| one.name < two.name);
        if let Some(strange) = self.documents.iter().find(|item| !Documents::wants(&item.name)) {
            return Err(BundleError::Names(strange.name.chars().take(100).collect()));
        }
        let digest = digest_of(&self.documents).to_string();
        if !sorted || digest != self.digest || self.sealed() != self.seal {
            return Err(BundleError::Digest);
        }
        Ok(())
    }

    fn sealed(&self) -> String {
        let Self { schema, version, sitelists, issued, digest, .. } = self;
        Digest::of(format!("{schema} {version} {sitelists} {issued} {digest}\n").as_bytes()).to_string()
    }
}

/// The digest of a list of documents: a line each.
fn digest_of(items: &[Item]) -> Digest {
    let line = |item: &Item| format!("{} {} {}\n", item.name, item.length, item.sha256);
    Digest::of(items.iter().map(line).collect::<String>().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(policy: &str) -> Documents {
        let mut documents = Documents::default();
        documents.insert(FLEET, Bytes::from_static(b"# a fleet")).unwrap();
        documents.insert("policies/av/base.json", Bytes::from(policy.to_owned())).unwrap();
        documents
    }

    fn issued() -> Bundle {
        Bundle::issue(documents("{}"), 7, Timestamp(5), None)
    }

    #[test]
    fn a_bundle_is_put_together_again_from_its_index_and_its_bodies() {
        let bundle = issued();
        let again = Bundle::assemble(bundle.index().clone(), |digest| bundle.body(digest).cloned()).unwrap();
        assert_eq!((again.index(), again.documents()), (bundle.index(), bundle.documents()));
        assert_eq!(again.tag(), bundle.tag());
    }

    #[test]
    fn anything_altered_or_missing_is_refused() {
        let bundle = issued();
        let with = |change: &dyn Fn(&mut Index)| {
            let mut index = bundle.index().clone();
            change(&mut index);
            Bundle::assemble(index, |digest| bundle.body(digest).cloned()).unwrap_err()
        };
        assert_eq!(with(&|index| index.schema = 9), BundleError::Schema(9));
        assert_eq!(with(&|index| index.version += 1), BundleError::Digest);
        assert_eq!(with(&|index| index.documents[0].length += 1), BundleError::Digest);
        assert_eq!(with(&|index| index.documents.reverse()), BundleError::Digest);
        assert_eq!(with(&|index| index.documents.clear()), BundleError::Digest);
        assert!(matches!(with(&|index| index.documents[0].name = "../x".to_owned()), BundleError::Names(_)));
        assert!(matches!(with(&|index| index.documents[0].length = usize::MAX), BundleError::Names(_)));
        let wrong =
            |body: Option<Bytes>| Bundle::assemble(bundle.index().clone(), |_| body.clone()).unwrap_err();
        let first = BundleError::Document(FLEET.to_owned());
        assert_eq!((wrong(None), wrong(Some(Bytes::from_static(b"# a float")))), (first.clone(), first));
    }

    #[test]
    fn sitelists_keep_their_version_while_only_policies_change() {
        let first = issued();
        let second = Bundle::issue(documents("{\"a\":1}"), 8, Timestamp(6), Some(&first));
        assert_eq!((second.index().version, second.index().sitelists), (8, 7));
        let mut documents = documents("{}");
        documents.insert(STATES, Bytes::from_static(b"")).unwrap();
        let third = Bundle::issue(documents, 9, Timestamp(7), Some(&second));
        assert_eq!(third.index().sitelists, 9);
    }
}
