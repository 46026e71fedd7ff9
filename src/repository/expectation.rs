//! What a catalogue says about a file before it is fetched: its length and its digests.

use crate::base::digest::Digest;
use crate::base::proof::Kind;

/// What a file must be. Every field that is `None` was not listed and promises nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expectation {
    /// Length in bytes.
    pub length: Option<u64>,
    /// SHA-256 (FIPS 180-4).
    pub sha256: Option<Digest>,
    /// SHA-512 (FIPS 180-4). Boxed: it is listed beside SHA-256 or not at all.
    pub sha512: Option<Box<[u8; 64]>>,
    /// SHA-1 (FIPS 180-4). Finds damage; against somebody who wants to deceive it proves nothing.
    pub sha1: Option<[u8; 20]>,
    /// MD5 (RFC 1321). As SHA-1.
    pub md5: Option<[u8; 16]>,
}

/// The strongest digest of an expectation: the one that a body is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof<'a> {
    /// SHA-256, preferred: it is computed for every body anyway.
    Sha256(&'a Digest),
    /// SHA-512.
    Sha512(&'a [u8; 64]),
    /// SHA-1.
    Sha1(&'a [u8; 20]),
    /// MD5.
    Md5(&'a [u8; 16]),
}

impl<'a> Proof<'a> {
    /// Which kind it is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Sha256(_) => Kind::Sha256,
            Self::Sha512(_) => Kind::Sha512,
            Self::Sha1(_) => Kind::Sha1,
            Self::Md5(_) => Kind::Md5,
        }
    }

    /// Its bytes.
    pub const fn bytes(&self) -> &'a [u8] {
        match *self {
            Self::Sha256(digest) => &digest.0,
            Self::Sha512(digest) => digest,
            Self::Sha1(digest) => digest,
            Self::Md5(digest) => digest,
        }
    }
}

impl Expectation {
    /// A length and a SHA-256.
    pub const fn exactly(length: u64, sha256: Digest) -> Self {
        Self { length: Some(length), sha256: Some(sha256), sha512: None, sha1: None, md5: None }
    }

    /// What a body is compared with: SHA-256, else SHA-512, else SHA-1, else MD5. `None`: no digest is listed.
    pub fn proof(&self) -> Option<Proof<'_>> {
        let sha256 = self.sha256.as_ref().map(Proof::Sha256);
        let sha512 = || self.sha512.as_deref().map(Proof::Sha512);
        let sha1 = || self.sha1.as_ref().map(Proof::Sha1);
        let md5 = || self.md5.as_ref().map(Proof::Md5);
        sha256.or_else(sha512).or_else(sha1).or_else(md5)
    }

    /// Whether two listings of one file cannot both be right.
    pub fn contradicts(&self, other: &Self) -> bool {
        fn differ<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
            matches!((one, other), (Some(one), Some(other)) if one != other)
        }
        differ(self.length.as_ref(), other.length.as_ref())
            || differ(self.sha256.as_ref(), other.sha256.as_ref())
            || differ(self.sha512.as_ref(), other.sha512.as_ref())
            || differ(self.sha1.as_ref(), other.sha1.as_ref())
            || differ(self.md5.as_ref(), other.md5.as_ref())
    }

    /// Both together, where they do not contradict each other.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            length: self.length.or(other.length),
            sha256: self.sha256.or(other.sha256),
            sha512: self.sha512.or(other.sha512),
            sha1: self.sha1.or(other.sha1),
            md5: self.md5.or(other.md5),
        }
    }

    /// The word that names this content in keys: algorithm and digest in hexadecimal; `None` without a digest.
    pub fn word(&self) -> Option<String> {
        let proof = self.proof()?;
        let name = match proof.kind() {
            Kind::Sha256 => "sha256",
            Kind::Sha512 => "sha512",
            Kind::Sha1 => "sha1",
            Kind::Md5 => "md5",
        };
        let bytes = proof.bytes();
        let mut word = String::with_capacity(name.len() + 1 + 2 * bytes.len());
        word.push_str(name);
        word.push('-');
        for byte in bytes {
            for nibble in [byte >> 4, byte & 15] {
                word.push(char::from_digit(nibble.into(), 16).unwrap_or('0'));
            }
        }
        Some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_digest_proves_a_body() {
        let weak = Expectation { sha1: Some([1; 20]), md5: Some([2; 16]), ..Expectation::default() };
        assert_eq!(weak.proof(), Some(Proof::Sha1(&[1; 20])));
        assert_eq!(weak.word().unwrap(), format!("sha1-{}", "01".repeat(20)));
        let strong = Expectation { sha256: Some(Digest([3; 32])), ..weak };
        assert_eq!(strong.proof(), Some(Proof::Sha256(&Digest([3; 32]))));
        assert_eq!(Expectation { length: Some(3), ..Expectation::default() }.word(), None);
    }

    #[test]
    fn listings_contradict_each_other_only_where_both_say_something() {
        let sized = Expectation { length: Some(3), ..Expectation::default() };
        let named = Expectation { sha256: Some(Digest([3; 32])), ..Expectation::default() };
        assert!(!sized.contradicts(&named));
        assert!(sized.contradicts(&Expectation { length: Some(4), ..Expectation::default() }));
        assert!(named.contradicts(&Expectation::exactly(3, Digest([4; 32]))));
        assert_eq!(sized.and(named), Expectation::exactly(3, Digest([3; 32])));
    }
}
