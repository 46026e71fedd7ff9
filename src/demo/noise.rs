//! Made-up file bodies: they look random (nothing on the way can compress them) and follow from their seed.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use crate::base::digest::{Digest, Hasher};

/// Writes a file of `size` bytes and gives its SHA-256.
pub(super) fn write(to: &Path, size: u64, seed: u64) -> io::Result<Digest> {
    let mut file = BufWriter::new(File::create(to)?);
    let mut hasher = Hasher::default();
    let (mut state, mut left) = (seed, size);
    let mut block = Vec::with_capacity(64 << 10);
    while left > 0 {
        block.clear();
        while block.len() < 64 << 10 {
            block.extend_from_slice(&next(&mut state).to_le_bytes());
        }
        block.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        hasher.update(&block);
        file.write_all(&block)?;
        left -= block.len() as u64;
    }
    file.flush()?;
    Ok(hasher.finish())
}

/// SplitMix64 (Steele, Lea, Flood 2014).
const fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
