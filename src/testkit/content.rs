//! Bodies as a function of (seed, offset), so that any byte of any transfer can be checked without keeping it.

use bytes::Bytes;

use crate::base::digest::Digest;
use crate::base::proof::{BodyHasher, Kind};
use crate::repository::expectation::Expectation;

/// The `len` bytes at `offset` of the body `seed`.
pub fn piece(seed: u64, offset: u64, len: usize) -> Bytes {
    let mut out = Vec::with_capacity(len.saturating_add(8));
    let mut word = offset / 8;
    let skip = usize::try_from(offset % 8).unwrap_or(0);
    while out.len() < len + skip {
        out.extend_from_slice(&mix(seed, word).to_le_bytes());
        word = word.wrapping_add(1);
    }
    let mut out = Bytes::from(out);
    out.truncate(len + skip);
    out.split_off(skip)
}

/// The first `len` bytes of the body `seed`.
pub fn whole(seed: u64, len: usize) -> Bytes {
    piece(seed, 0, len)
}

/// How a catalogue lists this body: its length, and a digest of this kind.
pub fn listing(body: &[u8], kind: Kind) -> Expectation {
    let mut hasher = BodyHasher::proving(kind);
    hasher.update(body);
    let digests = hasher.finish();
    let proof = digests.proof();
    let mut expect = Expectation { length: Some(body.len() as u64), ..Expectation::default() };
    match kind {
        Kind::Sha256 => expect.sha256 = Some(Digest(proof.try_into().expect("32 bytes"))),
        Kind::Sha512 => expect.sha512 = Some(Box::new(proof.try_into().expect("64 bytes"))),
        Kind::Sha1 => expect.sha1 = Some(proof.try_into().expect("20 bytes")),
        Kind::Md5 => expect.md5 = Some(proof.try_into().expect("16 bytes")),
    }
    expect
}

/// splitmix64 over the word's number: every word is independent, so any offset costs the same.
fn mix(seed: u64, word: u64) -> u64 {
    let mut x = seed.wrapping_add(word.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_a_window_on_the_whole() {
        let whole = whole(7, 1_000);
        for (offset, len) in [(0, 1), (1, 7), (3, 997), (8, 16), (999, 1), (500, 0)] {
            assert_eq!(piece(7, offset as u64, len), whole.slice(offset..offset + len), "{offset}+{len}");
        }
        assert_ne!(whole, super::whole(8, 1_000));
    }
}
