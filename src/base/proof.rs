//! What proves a body: a digest of one of the four kinds that catalogues list, computed while the body arrives.

use std::fmt;

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha512};

use super::digest::{Digest, Hasher};

/// A kind of digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SHA-256 (FIPS 180-4).
    Sha256,
    /// SHA-512 (FIPS 180-4).
    Sha512,
    /// SHA-1 (FIPS 180-4).
    Sha1,
    /// MD5 (RFC 1321).
    Md5,
}

/// A running digest over a body that arrives in pieces: its SHA-256, which names it, and another kind where it is
/// that one which proves it.
#[derive(Clone, Default)]
pub struct BodyHasher {
    sha256: Hasher,
    other: Other,
}

#[derive(Clone, Default)]
enum Other {
    #[default]
    None,
    Sha512(Sha512),
    Sha1(Sha1),
    Md5(Md5),
}

/// What a body hashed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digests {
    /// Its SHA-256.
    pub sha256: Digest,
    /// The other kind, where there was one.
    other: Vec<u8>,
}

impl BodyHasher {
    /// For a body that a digest of this kind proves.
    pub fn proving(kind: Kind) -> Self {
        let other = match kind {
            Kind::Sha256 => Other::None,
            Kind::Sha512 => Other::Sha512(Sha512::new()),
            Kind::Sha1 => Other::Sha1(Sha1::new()),
            Kind::Md5 => Other::Md5(Md5::new()),
        };
        Self { sha256: Hasher::default(), other }
    }

    /// Takes the next bytes in order.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        match &mut self.other {
            Other::None => {}
            Other::Sha512(hasher) => hasher.update(bytes),
            Other::Sha1(hasher) => hasher.update(bytes),
            Other::Md5(hasher) => hasher.update(bytes),
        }
    }

    /// The digests of all bytes taken.
    pub fn finish(self) -> Digests {
        let other = match self.other {
            Other::None => Vec::new(),
            Other::Sha512(hasher) => hasher.finalize().to_vec(),
            Other::Sha1(hasher) => hasher.finalize().to_vec(),
            Other::Md5(hasher) => hasher.finalize().to_vec(),
        };
        Digests { sha256: self.sha256.finish(), other }
    }
}

impl fmt::Debug for BodyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BodyHasher")
    }
}

impl Digests {
    /// The digest that proves the body: of the kind the hasher was made for.
    pub fn proof(&self) -> &[u8] {
        if self.other.is_empty() { &self.sha256.0 } else { &self.other }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digests of "abc": FIPS 180-4's examples, and RFC 1321 §A.5.
    const ABC: [(Kind, &str); 4] = [
        (Kind::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            Kind::Sha512,
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ),
        (Kind::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
        (Kind::Md5, "900150983cd24fb0d6963f7d28e17f72"),
    ];

    #[test]
    fn each_kind_is_the_one_of_its_standard_and_sha_256_always_comes_along() {
        for (kind, expected) in ABC {
            let mut hasher = BodyHasher::proving(kind);
            hasher.update(b"a");
            hasher.update(b"bc");
            let digests = hasher.finish();
            let text: String = digests.proof().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(text, expected, "{kind:?}");
            assert_eq!(digests.sha256, Digest::of(b"abc"), "{kind:?}");
        }
    }
}
