//! SHA-256 as a value: what names a block and proves a body (FIPS 180-4).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`, about 0.45 s a GB on one core with SHA instructions.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 64 hexadecimal digits.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 digest is 64 hexadecimal digits")]
pub struct NotADigest;

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let mut out = [0_u8; 32];
        if pairs.len() != out.len() || !rest.is_empty() {
            return Err(NotADigest);
        }
        for (to, [high, low]) in out.iter_mut().zip(pairs) {
            *to = nibble(*high)? << 4 | nibble(*low)?;
        }
        Ok(Self(out))
    }
}

fn nibble(digit: u8) -> Result<u8, NotADigest> {
    let value = char::from(digit).to_digit(16).ok_or(NotADigest)?;
    u8::try_from(value).map_err(|_| NotADigest)
}

/// A running SHA-256 over a body that arrives in pieces.
#[derive(Clone, Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// Takes the next bytes in order.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes taken.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn text_and_value_are_the_same_digest() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(Digest::of(b"")));
        assert_eq!(EMPTY.to_uppercase().parse(), Ok(Digest::of(b"")));
    }

    #[test]
    fn anything_else_is_no_digest() {
        for text in ["", "e3", &EMPTY[1..], &format!("{EMPTY}00"), &EMPTY.replace('e', "g")] {
            assert_eq!(text.parse::<Digest>(), Err(NotADigest), "{text}");
        }
    }

    #[test]
    fn pieces_hash_like_the_whole() {
        let mut hasher = Hasher::default();
        hasher.update(b"way");
        hasher.update(b"post");
        assert_eq!(hasher.finish(), Digest::of(b"waypost"));
    }
}
