//! The right to write so many bytes.

use std::fmt;
use std::sync::Arc;

use super::error::Refused;
use super::shared::Shared;
use super::space::disk_len;

/// Room on disk for a running fill. Dropping it gives back what was not settled.
pub struct Reservation {
    shared: Arc<Shared>,
    /// Bytes promised in all, settled ones included: what `max_object` is compared with.
    total: u64,
    left: u64,
}

impl Reservation {
    pub(super) fn of(shared: &Arc<Shared>, bytes: u64) -> Result<Self, Refused> {
        let mut reservation = Self { shared: Arc::clone(shared), total: 0, left: 0 };
        reservation.grow(bytes)?;
        Ok(reservation)
    }

    /// Asks for `bytes` more.
    ///
    /// # Errors
    /// [`Refused`]; what was granted before stays.
    pub fn grow(&mut self, bytes: u64) -> Result<(), Refused> {
        let total = self.total.saturating_add(bytes);
        // On disk a file takes whole blocks of 4 KiB; `max_object` is about the body.
        let taken = disk_len(total.min(u64::MAX - 4096)) - disk_len(self.total);
        let space = &self.shared.space;
        space.reserve(taken, total, self.shared.clock.now())?;
        if space.is_over() {
            self.shared.pending.hurry();
        }
        self.total = total;
        self.left += taken;
        Ok(())
    }

    /// Says that `bytes` of it are written now, and accounted for as written.
    pub fn settle(&mut self, bytes: u64) {
        let bytes = bytes.min(self.left);
        self.shared.space.give_back(bytes);
        self.left -= bytes;
    }

    /// Bytes of it that are left.
    pub const fn left(&self) -> u64 {
        self.left
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.space.give_back(self.left);
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("left", &self.left).finish_non_exhaustive()
    }
}
