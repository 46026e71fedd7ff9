//! An entry as it is kept on disk: versioned, and readable by every later release.
//!
//! A record names its blocks. It is written as one version byte followed by the postcard form of
//! [`Record`]; a version that is not known is an absent entry, never a guess.

use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::digest::Digest;

/// The version this release writes.
pub const RECORD_VERSION: u8 = 1;

/// The head of a stored reply: what RFC 9111 §3.1 asks us to keep, already cut down to the end-to-end
/// fields that may be repeated to agents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Status code: 200, or 404/410 for a negative entry.
    pub status: u16,
    /// Header fields in order, names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// When the request that got this reply was sent (`request_time` of RFC 9111 §4.2.3).
    pub requested_at: Timestamp,
    /// When its head arrived, or when it was last revalidated (`response_time`).
    pub received_at: Timestamp,
    /// The upstream it came from, as its base URL. Validators are only comparable within one upstream.
    pub source: String,
    /// The selecting request headers and their values, for `Vary` (RFC 9111 §4.1). Empty: does not vary.
    pub selecting: Vec<(String, Vec<u8>)>,
}

/// Where the bytes of a body are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyMap {
    /// In the record itself, up to `limits::INLINE_BYTES`.
    Inline(Vec<u8>),
    /// In blocks of `limits::BLOCK_BYTES` (the last one shorter), in order. `None` is a hole.
    Blocks(Vec<Option<Digest>>),
}

/// An entry on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The reply's head.
    pub head: Head,
    /// The body's length in bytes, where it is known. Always known when `digest` is.
    pub length: Option<u64>,
    /// SHA-256 of the whole body: present exactly when the body was complete and right.
    pub digest: Option<Digest>,
    /// The bytes, or their names.
    pub body: BodyMap,
    /// Set by a soft purge: stale from then on, still usable when upstream is down.
    pub stale: bool,
    /// Pinned by an operator: evicted last.
    pub pinned: bool,
}

/// Why bytes from the index are not a record.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by a release that this one does not know.
    #[error("record version {0} is not known to this release")]
    Version(u8),
    /// Not a record at all.
    #[error("not a record")]
    Malformed,
}

impl Record {
    /// Whether the whole body is here and proven.
    pub fn is_complete(&self) -> bool {
        let blocks = match &self.body {
            BodyMap::Inline(_) => true,
            BodyMap::Blocks(blocks) => blocks.iter().all(Option::is_some),
        };
        blocks && self.digest.is_some() && self.length.is_some()
    }

    /// The record as bytes for the index.
    pub fn encode(&self) -> Vec<u8> {
        // Serialising to a Vec cannot fail: every length is known and no type here is fallible.
        postcard::to_extend(self, vec![RECORD_VERSION]).unwrap_or_default()
    }

    /// Reads a record back.
    ///
    /// # Errors
    /// [`RecordError`]: treat the entry as absent.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        match bytes.split_first() {
            Some((&RECORD_VERSION, rest)) => postcard::from_bytes(rest).map_err(|_| RecordError::Malformed),
            Some((&version, _)) => Err(RecordError::Version(version)),
            None => Err(RecordError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            head: Head {
                status: 200,
                headers: vec![("etag".into(), b"\"v1\"".to_vec())],
                requested_at: Timestamp(1_000),
                received_at: Timestamp(2_000),
                source: "https://master.example/Software/".into(),
                selecting: vec![],
            },
            length: Some(3),
            digest: Some(Digest::of(b"abc")),
            body: BodyMap::Blocks(vec![Some(Digest::of(b"abc"))]),
            stale: false,
            pinned: true,
        }
    }

    /// The golden file of version 1: if this fails, old caches can no longer be read.
    #[test]
    fn version_1_reads_as_it_was_written() {
        let golden = concat!(
            "01c8010104657461670422763122e807d00f2068747470733a2f2f6d61737465722e6578616d706c652f536f66747761",
            "72652f00010301ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad010101ba7816bf8f01",
            "cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad0001",
        );
        let written: String = record().encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(written, golden);
        assert_eq!(Record::decode(&record().encode()), Ok(record()));
    }

    #[test]
    fn an_unknown_version_is_said_to_be_one() {
        assert_eq!(Record::decode(&[9, 1, 2, 3]), Err(RecordError::Version(9)));
        assert_eq!(Record::decode(&[]), Err(RecordError::Malformed));
        assert_eq!(Record::decode(&[RECORD_VERSION, 1]), Err(RecordError::Malformed));
    }

    #[test]
    fn a_record_with_a_hole_is_not_complete() {
        let mut holed = record();
        assert!(holed.is_complete());
        holed.body = BodyMap::Blocks(vec![None]);
        assert!(!holed.is_complete());
        let unproven = Record { digest: None, ..record() };
        assert!(!unproven.is_complete());
    }
}
