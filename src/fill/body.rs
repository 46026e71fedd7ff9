//! A body while it grows: a row of block slots, filled by one lane or several.
//!
//! A slot is a hole, being written by one lane, or sealed. Only the lane that claimed a slot writes it, so a byte
//! is never fetched twice. What readers see of an open slot are the pieces published so far, in order.

use std::sync::Arc;

use bytes::Bytes;

use crate::base::digest::Digest;
use crate::base::limits::BLOCK_BYTES;
use crate::cache::Block;

/// The slots of a growing body.
#[derive(Default)]
pub(super) struct Body {
    slots: Vec<Slot>,
    /// Total length in bytes, where known; then `slots` has its final length from the start.
    length: Option<u64>,
    /// Set when upstream does not serve ranges, or lanes failed too often.
    single_lane: bool,
    /// The last block is not for readers yet: with it they would have a whole body that nobody has proven.
    unproven: bool,
}

enum Slot {
    Hole,
    Open(Vec<Bytes>),
    Sealed(Sealed),
}

/// A whole block: its name, and its bytes for as long as somebody keeps them here.
struct Sealed {
    block: Arc<Block>,
    len: usize,
    recent: Option<Bytes>,
}

/// What is at a position.
pub(super) enum Found {
    /// At least one byte, in memory.
    Bytes(Bytes),
    /// In the store.
    Stored(StoredAt),
    /// Not here yet.
    Nothing,
}

/// A place in a sealed block.
pub(super) struct StoredAt {
    pub(super) block: Arc<Block>,
    /// Which one of the body it is.
    pub(super) index: usize,
    /// Its length in bytes.
    pub(super) len: usize,
    /// The place within it.
    pub(super) offset: usize,
}

/// Block index and offset within the block of a position.
pub(super) fn split(at: u64) -> (usize, usize) {
    ((at / BLOCK_BYTES) as usize, (at % BLOCK_BYTES) as usize)
}

/// First byte of block `index`.
pub(super) const fn start_of(index: usize) -> u64 {
    (index as u64).saturating_mul(BLOCK_BYTES)
}

impl Body {
    /// An empty body of `length` bytes, or of unknown length.
    pub(super) fn new(length: Option<u64>) -> Self {
        let slots = length.map_or(0, |length| length.div_ceil(BLOCK_BYTES) as usize);
        Self { slots: (0..slots).map(|_| Slot::Hole).collect(), length, single_lane: false, unproven: false }
    }

    /// The same, with its last block held back for as long as the fill goes on.
    #[must_use]
    pub(super) fn holding_back(self, unproven: bool) -> Self {
        Self { unproven, ..self }
    }

    /// Whether what is at `at` is held back. Where the length is unknown, any block may be the last one as long as
    /// there is none behind it.
    pub(super) fn withholds(&self, at: u64) -> bool {
        self.unproven && split(at).0 + 1 >= self.slots.len()
    }

    /// Fills in a block that an earlier fill of the same identity left on disk.
    pub(super) fn adopt(&mut self, index: usize, digest: Digest) {
        let left = self.length.unwrap_or(u64::MAX).saturating_sub(start_of(index));
        let len = left.min(BLOCK_BYTES) as usize;
        if let Some(slot @ Slot::Hole) = self.slots.get_mut(index) {
            *slot = Slot::Sealed(Sealed { block: Arc::new(Block::unchecked(digest)), len, recent: None });
        }
    }

    /// Claims block `index` for the caller; `false` when somebody has or had it, or it lies behind the end.
    pub(super) fn claim(&mut self, index: usize) -> bool {
        if self.length.is_none() && index == self.slots.len() {
            self.slots.push(Slot::Hole);
        }
        match self.slots.get_mut(index) {
            Some(slot @ Slot::Hole) => {
                *slot = Slot::Open(Vec::new());
                true
            }
            _ => false,
        }
    }

    /// Gives a claimed block back: its lane failed.
    pub(super) fn release(&mut self, index: usize) {
        if let Some(slot @ Slot::Open(_)) = self.slots.get_mut(index) {
            *slot = Slot::Hole;
        }
    }

    /// The next bytes of a claimed block.
    pub(super) fn publish(&mut self, index: usize, bytes: Bytes) {
        if let Some(Slot::Open(pieces)) = self.slots.get_mut(index) {
            pieces.push(bytes);
        }
    }

    /// All bytes published of a claimed block, in one piece.
    pub(super) fn gather(&self, index: usize) -> Bytes {
        match self.slots.get(index) {
            Some(Slot::Open(pieces)) => match pieces.as_slice() {
                [one] => one.clone(),
                pieces => pieces.concat().into(),
            },
            Some(Slot::Sealed(sealed)) => sealed.recent.clone().unwrap_or_default(),
            _ => Bytes::new(),
        }
    }

    /// The block is whole and has a name. Its bytes stay here as `recent` until [`Body::forget`].
    pub(super) fn seal(&mut self, index: usize, block: Block, recent: Bytes) {
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Slot::Sealed(Sealed { block: Arc::new(block), len: recent.len(), recent: Some(recent) });
        }
    }

    /// Lets go of the bytes of all sealed blocks but `keep` and the one after it.
    pub(super) fn forget_before(&mut self, keep: usize) {
        for slot in self.slots.iter_mut().take(keep) {
            if let Slot::Sealed(sealed) = slot {
                sealed.recent = None;
            }
        }
    }

    /// What is at `at`.
    pub(super) fn find(&self, at: u64) -> Found {
        let (index, offset) = split(at);
        match self.slots.get(index) {
            Some(Slot::Open(pieces)) => {
                let mut skip = offset;
                for piece in pieces {
                    if skip < piece.len() {
                        return Found::Bytes(piece.slice(skip..));
                    }
                    skip -= piece.len();
                }
                Found::Nothing
            }
            Some(Slot::Sealed(sealed)) => match &sealed.recent {
                _ if offset >= sealed.len => Found::Nothing,
                Some(bytes) => Found::Bytes(bytes.slice(offset..)),
                None => Found::Stored(StoredAt {
                    block: Arc::clone(&sealed.block),
                    index,
                    len: sealed.len,
                    offset,
                }),
            },
            _ => Found::Nothing,
        }
    }

    /// The first block that nobody has or fetches, at or after block `from`, else the first of all.
    pub(super) fn next_hole(&self, from: usize) -> Option<usize> {
        let hole = |(_, slot): &(usize, &Slot)| matches!(slot, Slot::Hole);
        let ahead = self.slots.iter().enumerate().skip(from).find(hole);
        ahead.or_else(|| self.slots.iter().enumerate().find(hole)).map(|(index, _)| index)
    }

    /// How many blocks from `from` on are holes, without a gap.
    pub(super) fn holes_from(&self, from: usize) -> usize {
        self.slots.iter().skip(from).take_while(|slot| matches!(slot, Slot::Hole)).count()
    }

    /// Whether a reader at `at` should get a lane of its own: nothing that is being written comes by soon.
    pub(super) fn lane_wanted(&self, at: u64, ahead: u64) -> bool {
        let (index, _) = split(at);
        if self.single_lane || self.length.is_none() || !matches!(self.slots.get(index), Some(Slot::Hole)) {
            return false;
        }
        let near = index.saturating_sub((ahead / BLOCK_BYTES) as usize);
        let between = self.slots.iter().take(index).skip(near);
        !between.rev().any(|slot| matches!(slot, Slot::Open(_)))
    }

    /// No more lanes: upstream does not serve ranges, or they fail.
    pub(super) fn stay_single(&mut self) {
        self.single_lane = true;
    }

    /// Whether every block is sealed.
    pub(super) fn is_whole(&self) -> bool {
        self.slots.iter().all(|slot| matches!(slot, Slot::Sealed(_)))
    }

    /// The names of the blocks held, for a record of the progress.
    pub(super) fn names(&self) -> Vec<Option<Digest>> {
        self.slots
            .iter()
            .map(|slot| match slot {
                Slot::Sealed(sealed) => Some(sealed.block.digest),
                _ => None,
            })
            .collect()
    }

    /// The sealed block `index`.
    pub(super) fn block(&self, index: usize) -> Option<(Arc<Block>, Option<Bytes>)> {
        match self.slots.get(index) {
            Some(Slot::Sealed(sealed)) => Some((Arc::clone(&sealed.block), sealed.recent.clone())),
            _ => None,
        }
    }

    /// The blocks of a whole body, with what is known of their checksums.
    pub(super) fn blocks(&self) -> Box<[Block]> {
        (0..self.slots.len())
            .filter_map(|index| self.block(index))
            .map(|(block, _)| Block { digest: block.digest, sums: block.sums.clone() })
            .collect()
    }

    /// Bytes that are here, in whatever order they came.
    pub(super) fn arrived(&self) -> u64 {
        let bytes = |slot: &Slot| match slot {
            Slot::Hole => 0,
            Slot::Open(pieces) => pieces.iter().map(|piece| piece.len() as u64).sum(),
            Slot::Sealed(sealed) => sealed.len as u64,
        };
        self.slots.iter().map(bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three_blocks() -> Body {
        Body::new(Some(2 * BLOCK_BYTES + 10))
    }

    #[test]
    fn a_block_is_claimed_once() {
        let mut body = three_blocks();
        assert!(body.claim(1));
        assert!(!body.claim(1));
        assert!(!body.claim(3), "behind the end");
        body.release(1);
        assert!(body.claim(1));
    }

    #[test]
    fn readers_see_published_pieces_in_order() {
        let mut body = three_blocks();
        body.claim(0);
        body.publish(0, Bytes::from_static(b"abc"));
        body.publish(0, Bytes::from_static(b"def"));
        let at = |at| match body.find(at) {
            Found::Bytes(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            _ => "-".to_owned(),
        };
        assert_eq!([at(0), at(2), at(3), at(5), at(6)], ["abc", "c", "def", "f", "-"]);
        assert_eq!(body.gather(0), "abcdef");
    }

    #[test]
    fn a_body_of_unknown_length_grows_block_by_block() {
        let mut body = Body::new(None);
        assert!(body.is_whole(), "empty and nothing promised");
        assert!(body.claim(0));
        assert!(!body.claim(2));
        body.seal(0, Block::unchecked(Digest::of(b"x")), Bytes::from_static(b"x"));
        assert!(body.claim(1));
        assert!(!body.is_whole());
    }

    #[test]
    fn a_lane_is_wanted_only_far_from_every_front() {
        let mut body = Body::new(Some(100 * BLOCK_BYTES));
        let ahead = 4 * BLOCK_BYTES;
        body.claim(0);
        assert!(!body.lane_wanted(3 * BLOCK_BYTES, ahead));
        assert!(body.lane_wanted(50 * BLOCK_BYTES + 5, ahead));
        body.claim(50);
        assert!(!body.lane_wanted(50 * BLOCK_BYTES + 5, ahead), "being written");
        assert!(!body.lane_wanted(52 * BLOCK_BYTES, ahead), "its lane comes by soon");
        body.stay_single();
        assert!(!body.lane_wanted(90 * BLOCK_BYTES, ahead));
    }

    #[test]
    fn the_last_block_is_held_back_and_of_an_unknown_length_the_newest() {
        let body = three_blocks().holding_back(true);
        assert!(!body.withholds(2 * BLOCK_BYTES - 1));
        assert!(body.withholds(2 * BLOCK_BYTES) && body.withholds(5 * BLOCK_BYTES));
        assert!(!three_blocks().withholds(2 * BLOCK_BYTES));
        let mut body = Body::new(None).holding_back(true);
        assert!(body.claim(0) && body.withholds(0));
        assert!(body.claim(1) && !body.withholds(0) && body.withholds(BLOCK_BYTES));
    }

    #[test]
    fn holes_are_found_ahead_first_and_then_behind() {
        let mut body = three_blocks();
        body.claim(1);
        assert_eq!(body.next_hole(1), Some(2));
        body.claim(2);
        assert_eq!(body.next_hole(1), Some(0));
        body.claim(0);
        assert_eq!(body.next_hole(0), None);
    }
}
