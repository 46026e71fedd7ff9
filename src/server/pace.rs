//! What a connection notes about itself so that the sweeper can judge it, and how the sweeper speaks back.
//!
//! The connection's own task writes, the sweeper reads: relaxed atomics, no lock on the way of a byte. Time is
//! the sweeper's tick, a plain load; being late by one tick never matters to a deadline of seconds.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Waker};

use parking_lot::Mutex;

use super::lane::Lane;

/// Milliseconds since the server began, advanced by the sweeper.
#[derive(Debug, Default)]
pub(super) struct Ticks(AtomicU64);

impl Ticks {
    pub(super) fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, millis: u64) {
        self.0.store(millis, Ordering::Relaxed);
    }
}

/// What a connection is doing, as far as deadlines care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    /// TLS handshake, waiting for its turn included.
    Handshake,
    /// A request head is expected at once, or has begun to arrive.
    Head,
    /// Kept open between requests.
    Idle,
    /// At least one request is being answered.
    Busy,
    /// We have said all; the client may close.
    Closing,
}

/// What a connection is told to do. Only ever goes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Order {
    /// Carry on.
    Go,
    /// Finish the running answers, take no further request.
    Finish,
    /// Wait no longer for the head that has begun: say so, and end.
    Late,
    /// End now.
    Cut,
}

/// Has not been idle for long.
const AWAKE: u8 = 0;
/// Was told to rest.
const TOLD: u8 = 1;
/// Has put down what it could since its last request.
const RESTED: u8 = 2;

/// The shared notes of one connection.
#[derive(Debug)]
pub(super) struct Pace {
    ticks: Arc<Ticks>,
    stage: AtomicU8,
    since: AtomicU64,
    open: AtomicU32,
    requests: AtomicU64,
    multiplexed: AtomicBool,
    blocked: AtomicBool,
    written: AtomicU64,
    close_delimits: AtomicBool,
    rest: AtomicU8,
    resting: AtomicBool,
    lanes: Mutex<Vec<Weak<Lane>>>,
    order: AtomicU8,
    waker: OnceLock<Waker>,
}

impl Pace {
    pub(super) fn new(ticks: Arc<Ticks>) -> Self {
        let since = AtomicU64::new(ticks.now());
        Self {
            ticks,
            stage: AtomicU8::new(Stage::Handshake as u8),
            since,
            open: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            multiplexed: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            written: AtomicU64::new(0),
            close_delimits: AtomicBool::new(false),
            rest: AtomicU8::new(AWAKE),
            resting: AtomicBool::new(false),
            lanes: Mutex::new(Vec::new()),
            order: AtomicU8::new(Order::Go as u8),
            waker: OnceLock::new(),
        }
    }

    /// HTTP/2: reads say nothing about heads, and answers run in lanes.
    pub(super) fn multiplex(&self) {
        self.multiplexed.store(true, Ordering::Relaxed);
    }

    pub(super) fn multiplexed(&self) -> bool {
        self.multiplexed.load(Ordering::Relaxed)
    }

    /// An HTTP/1.0 client asked: the end of the connection may be the end of a body to it (RFC 9112 §6.3).
    pub(super) fn note_close_delimits(&self) {
        self.close_delimits.store(true, Ordering::Relaxed);
    }

    pub(super) fn close_delimits(&self) -> bool {
        self.close_delimits.load(Ordering::Relaxed)
    }

    /// Tells an HTTP/1 connection that it has been idle long enough to put down what only a request needs; once between
    /// two requests.
    pub(super) fn let_rest(&self) {
        let told = self.rest.compare_exchange(AWAKE, TOLD, Ordering::SeqCst, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if told.is_ok()
            && let Some(waker) = self.waker.get()
        {
            waker.wake_by_ref();
        }
    }

    /// Whether the connection was told to rest and still may: nothing has come since, and nothing waits to go out.
    pub(super) fn may_rest(&self) -> bool {
        self.rest.load(Ordering::Relaxed) == TOLD && self.stage() == Stage::Idle && !self.blocked()
    }

    /// Until [`Pace::end_rest`], a shutdown of the stream is none.
    pub(super) fn begin_rest(&self) {
        self.rest.store(RESTED, Ordering::Relaxed);
        self.resting.store(true, Ordering::Relaxed);
    }

    pub(super) fn end_rest(&self) {
        self.resting.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_resting(&self) -> bool {
        self.resting.load(Ordering::Relaxed)
    }

    pub(super) fn enter(&self, stage: Stage) {
        self.since.store(self.ticks.now(), Ordering::Relaxed);
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    pub(super) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Handshake,
            1 => Stage::Head,
            2 => Stage::Idle,
            3 => Stage::Busy,
            _ => Stage::Closing,
        }
    }

    /// The tick of the last change of stage.
    pub(super) fn since(&self) -> u64 {
        self.since.load(Ordering::Relaxed)
    }

    pub(super) fn note_read(&self) {
        if self.stage.load(Ordering::Relaxed) == Stage::Idle as u8 && !self.multiplexed() {
            self.enter(Stage::Head);
        }
    }

    pub(super) fn note_written(&self, bytes: usize) {
        // One writer: a load and a store are cheaper than a locked add.
        self.written.store(self.written().wrapping_add(bytes as u64), Ordering::Relaxed);
        if self.blocked() {
            self.blocked.store(false, Ordering::Relaxed);
        }
    }

    pub(super) fn note_blocked(&self) {
        self.blocked.store(true, Ordering::Relaxed);
    }

    /// Whether the last write found the socket full.
    pub(super) fn blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Bytes the socket has taken.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Requests begun so far, counting this one.
    pub(super) fn begin_request(self: &Arc<Self>) -> (OpenRequest, u64) {
        if self.open.fetch_add(1, Ordering::Relaxed) == 0 {
            self.enter(Stage::Busy);
        }
        if self.rest.load(Ordering::Relaxed) != AWAKE {
            self.rest.store(AWAKE, Ordering::Relaxed);
        }
        let number = self.requests.load(Ordering::Relaxed) + 1;
        self.requests.store(number, Ordering::Relaxed);
        (OpenRequest(Arc::clone(self)), number)
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// A lane for one answer of an HTTP/2 connection, or nothing on HTTP/1.1, where the socket tells all.
    pub(super) fn open_lane(&self) -> Option<Arc<Lane>> {
        if !self.multiplexed() {
            return None;
        }
        let lane = Arc::new(Lane::new(Arc::clone(&self.ticks)));
        let mut lanes = self.lanes.lock();
        if lanes.len() == lanes.capacity() {
            lanes.retain(|lane| lane.strong_count() > 0);
        }
        lanes.push(Arc::downgrade(&lane));
        Some(lane)
    }

    /// The lanes in which bytes wait for the client, as `test` sees them.
    pub(super) fn any_lane(&self, test: impl Fn(&Lane) -> bool) -> bool {
        if !self.multiplexed() {
            return false;
        }
        let mut lanes = self.lanes.lock();
        lanes.retain(|lane| lane.strong_count() > 0);
        lanes.iter().filter_map(Weak::upgrade).any(|lane| lane.waiting() > 0 && test(&lane))
    }

    pub(super) fn give(&self, order: Order) {
        let news = self.order.fetch_max(order as u8, Ordering::SeqCst) < order as u8;
        // Against the fence in `order`: either we see the waker, or it sees the order.
        fence(Ordering::SeqCst);
        if news && let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// The standing order, without interest in later ones.
    pub(super) fn standing(&self) -> Order {
        match self.order.load(Ordering::Acquire) {
            0 => Order::Go,
            1 => Order::Finish,
            2 => Order::Late,
            _ => Order::Cut,
        }
    }

    /// The standing order; a later one wakes the task. A connection lives in one task, so its waker never
    /// changes and is taken once.
    pub(super) fn order(&self, cx: &Context<'_>) -> Order {
        if self.waker.get().is_none() {
            let _ = self.waker.set(cx.waker().clone());
            fence(Ordering::SeqCst);
        }
        self.standing()
    }
}

/// A request that is being answered. Dropping it says that the answer has left hyper's hands or never will.
#[derive(Debug)]
pub(super) struct OpenRequest(Arc<Pace>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.enter(Stage::Idle);
        }
    }
}
