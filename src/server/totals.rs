//! What happened to connections, counted where it happens and read by whoever renders metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a connection was closed at accept, before a byte of it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// [`Options::connections`](super::Options::connections) are open.
    Connections,
    /// [`Options::connections_per_address`](super::Options::connections_per_address) are open from there.
    Address,
    /// The process has no file descriptor left.
    Descriptors,
}

/// Why a connection was cut by us after it was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The TLS handshake took too long.
    SlowHandshake,
    /// The request head took too long.
    SlowHead,
    /// Bytes waited for a client that took none, or next to none.
    StalledReader,
    /// It did not close after we had closed our side.
    Lingering,
    /// The drain took too long, or a stop was ordered.
    Stop,
}

impl Rejected {
    /// All reasons, in the order of [`Totals`].
    pub const ALL: [Self; 3] = [Self::Connections, Self::Address, Self::Descriptors];

    /// The word in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Address => "address",
            Self::Descriptors => "descriptors",
        }
    }
}

impl Cut {
    /// All reasons, in the order of [`Totals`].
    pub const ALL: [Self; 5] =
        [Self::SlowHandshake, Self::SlowHead, Self::StalledReader, Self::Lingering, Self::Stop];

    /// The word in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SlowHandshake => "slow-handshake",
            Self::SlowHead => "slow-head",
            Self::StalledReader => "stalled-reader",
            Self::Lingering => "lingering",
            Self::Stop => "stop",
        }
    }
}

/// Counters of a server since its start, and the connections open now.
#[derive(Debug, Default)]
pub struct Totals {
    open: AtomicU64,
    accepted: AtomicU64,
    requests: AtomicU64,
    handshake_failures: AtomicU64,
    oversized_heads: AtomicU64,
    rests: AtomicU64,
    rejected: [AtomicU64; Rejected::ALL.len()],
    cut: [AtomicU64; Cut::ALL.len()],
}

impl Totals {
    /// Connections open now.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// How often an idle HTTP/1 connection has put down its buffers.
    pub fn rests(&self) -> u64 {
        self.rests.load(Ordering::Relaxed)
    }

    pub(super) fn note_rest(&self) {
        self.rests.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections admitted.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Requests given to the service.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// TLS handshakes that failed: no shared version, a client that does not trust us, no TLS at all.
    pub fn handshake_failures(&self) -> u64 {
        self.handshake_failures.load(Ordering::Relaxed)
    }

    /// Requests answered 431 here because of their number of fields. hyper answers those that are too long.
    pub fn oversized_heads(&self) -> u64 {
        self.oversized_heads.load(Ordering::Relaxed)
    }

    /// Connections closed at accept.
    pub fn rejected(&self, why: Rejected) -> u64 {
        self.rejected.get(why as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Connections cut after they were admitted.
    pub fn cut(&self, why: Cut) -> u64 {
        self.cut.get(why as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub(super) fn note_open(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn note_requests(&self, count: u64) {
        self.requests.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn note_handshake_failure(&self) {
        self.handshake_failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_oversized_head(&self) {
        self.oversized_heads.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_rejected(&self, why: Rejected) {
        if let Some(count) = self.rejected.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn note_cut(&self, why: Cut) {
        if let Some(count) = self.cut.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}
