//! What the lead and the readers of one fill share: the head, the growing body, and who waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::blame::Givers;
use super::body::{Body, Found, StoredAt};
use super::cause::Cause;
use super::heal::Heals;
use super::job::{Job, Supply};
use super::seat::{Outcome, Settled};
use super::tokens::Tokens;
use crate::base::clock::{Clock, Timestamp};
use crate::base::limits::{BLOCK_BYTES, LANE_AHEAD_BYTES};
use crate::cache::purge::Fate;
use crate::cache::{Head, Key, Prepared};
use crate::store::{Refused, Reservation, Store};

/// The head of a body that is arriving.
#[derive(Debug)]
pub struct Opened {
    /// The head as it will be stored.
    pub head: Head,
    /// Answer headers made from it. Without digest, because there is none yet.
    pub prepared: Prepared,
    /// Length of the body in bytes, where upstream said it.
    pub length: Option<u64>,
}

/// One fill, shared by its lead, its lanes and its readers.
pub(super) struct Fill {
    key: Key,
    pub(super) supply: Arc<Supply>,
    pub(super) path: String,
    pub(super) query: Option<String>,
    /// The headers of every question of it.
    pub(super) headers: HeaderMap,
    pub(super) store: Store,
    pub(super) heals: Arc<Heals>,
    pub(super) tokens: Tokens,
    clock: Clock,
    room: Mutex<Option<Reservation>>,
    interest: AtomicUsize,
    kept: AtomicBool,
    pinned: AtomicBool,
    /// Who sent the body at hand.
    pub(super) givers: Givers,
    /// Tells those who give way that somebody sat down.
    pub(super) seated: Notify,
    /// What a purge says about what it brings: a [`Fate`] as a number.
    fate: AtomicU8,
    /// Set when blocks are no longer written to disk: readers then rely on memory and healing.
    pub(super) unstored: AtomicBool,
    /// Tells the lead that a reader wants bytes far ahead.
    pub(super) wanted: Notify,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    body: Body,
    /// Spans that readers wait for far ahead of every lane.
    wants: Vec<(u64, u64)>,
    wakers: Vec<Waker>,
    epoch: u64,
}

enum Phase {
    Waiting,
    Streaming(Arc<Opened>),
    Settled(Settled, Option<Arc<Opened>>),
}

/// What a waiter remembers about its place among the wakers, so that it does not register twice.
#[derive(Default)]
pub(super) struct Place(Option<(u64, Waker)>);

impl State {
    fn register(&mut self, place: &mut Place, cx: &Context<'_>) {
        if let Some((epoch, waker)) = &place.0
            && *epoch == self.epoch
            && waker.will_wake(cx.waker())
        {
            return;
        }
        self.wakers.push(cx.waker().clone());
        place.0 = Some((self.epoch, cx.waker().clone()));
    }
}

impl Fill {
    pub(super) fn new(job: &Job, store: Store, (heals, tokens): (Arc<Heals>, Tokens), clock: Clock) -> Self {
        Self {
            key: job.key.clone(),
            supply: Arc::clone(&job.supply),
            path: job.path.clone(),
            query: job.query.clone(),
            headers: job.headers(),
            store,
            heals,
            tokens,
            clock,
            room: Mutex::new(None),
            interest: AtomicUsize::new(0),
            kept: AtomicBool::new(job.wanted),
            pinned: AtomicBool::new(job.pinned),
            givers: Givers::default(),
            seated: Notify::new(),
            fate: AtomicU8::new(Fate::Stays as u8),
            unstored: AtomicBool::new(false),
            wanted: Notify::new(),
            state: Mutex::new(State {
                phase: Phase::Waiting,
                body: Body::default(),
                wants: Vec::new(),
                wakers: Vec::new(),
                epoch: 0,
            }),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    pub(super) fn interest(&self) -> usize {
        self.interest.load(Ordering::Acquire)
    }

    /// Goes on to the end even without readers, from now on, where `wanted`.
    pub(super) fn want(&self, wanted: bool) {
        self.kept.fetch_or(wanted, Ordering::AcqRel);
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.kept.load(Ordering::Acquire)
    }

    /// Its entry will be pinned, from now on, where `pinned`.
    pub(super) fn pin(&self, pinned: bool) {
        self.pinned.fetch_or(pinned, Ordering::AcqRel);
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.pinned.load(Ordering::Acquire)
    }

    pub(super) fn sit(&self) {
        self.interest.fetch_add(1, Ordering::AcqRel);
        self.seated.notify_waiters();
    }

    pub(super) fn stand_up(&self) {
        self.interest.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether readers have seen a head: then what they get must go on as it began, or break.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state.lock().phase, Phase::Waiting)
    }

    /// A purge reached it; the harshest counts.
    pub(super) fn condemn(&self, fate: Fate) {
        self.fate.fetch_max(fate as u8, Ordering::AcqRel);
    }

    /// What is to become of what it brings.
    pub(super) fn fate(&self) -> Fate {
        match self.fate.load(Ordering::Acquire) {
            fate if fate == Fate::Gone as u8 => Fate::Gone,
            fate if fate == Fate::Stale as u8 => Fate::Stale,
            _ => Fate::Stays,
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Settled(..))
    }

    pub(super) fn progress(&self) -> (Key, u64, Option<u64>, usize) {
        let state = self.state.lock();
        let length = match &state.phase {
            Phase::Waiting => None,
            Phase::Streaming(opened) => opened.length,
            Phase::Settled(_, opened) => opened.as_ref().and_then(|it| it.length),
        };
        (self.key.clone(), state.body.arrived(), length, self.interest())
    }

    /// Reserves room on the disk for a body of `length` bytes. Where there is none, the body goes through without
    /// being stored: coalesced all the same, and never an error.
    pub(super) fn make_room(&self, length: Option<u64>, max_object: u64) {
        let refused = match length {
            Some(length) if length > max_object => Some(Refused::TooLarge),
            length => match self.store.reserve(length.unwrap_or(BLOCK_BYTES)) {
                Ok(room) => {
                    *self.room.lock() = Some(room);
                    None
                }
                Err(refused) => Some(refused),
            },
        };
        if let Some(why) = refused {
            self.unstored.store(true, Ordering::Release);
            tracing::warn!(key = %self.key, %why, "the body goes through without being stored");
        }
    }

    /// Makes sure that `bytes` more may be written; a body of unknown length reserves as it grows.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.room.lock().as_mut().is_some_and(|room| room.left() >= bytes || room.grow(bytes).is_ok())
    }

    /// `bytes` of the reserved room are used now.
    pub(super) fn settle_room(&self, bytes: u64) {
        if let Some(room) = self.room.lock().as_mut() {
            room.settle(bytes);
        }
    }

    /// Runs `change` on the growing body; then wakes everybody who waits.
    pub(super) fn grow<T>(&self, change: impl FnOnce(&mut Body) -> T) -> T {
        let (result, wakers) = {
            let mut state = self.state.lock();
            let result = change(&mut state.body);
            if matches!(state.phase, Phase::Waiting) {
                // Whoever waits for the head has no use for bytes.
                return result;
            }
            state.epoch += 1;
            (result, std::mem::take(&mut state.wakers))
        };
        wakers.into_iter().for_each(Waker::wake);
        result
    }

    /// Looks at the growing body without waking anybody.
    pub(super) fn look<T>(&self, look: impl FnOnce(&mut Body) -> T) -> T {
        look(&mut self.state.lock().body)
    }

    /// The head is known and a body begins that may be shared. Nobody sees it before [`Fill::open`].
    pub(super) fn begin(&self, body: Body) {
        self.state.lock().body = body;
    }

    /// Readers start now.
    pub(super) fn open(&self, opened: Arc<Opened>) {
        self.change_phase(|state| {
            if matches!(state.phase, Phase::Waiting) {
                state.phase = Phase::Streaming(opened);
            }
        });
    }

    /// What has arrived is wrong: from now on nobody gets any more of it.
    pub(super) fn discard(&self) {
        // The next attempt reserves for itself.
        drop(self.room.lock().take());
        let mut state = self.state.lock();
        state.body = Body::default();
        state.wants.clear();
    }

    /// The fill is over. The first call wins; later ones change nothing.
    pub(super) fn settle(&self, settled: Settled) {
        self.change_phase(|state| {
            let opened = match &state.phase {
                Phase::Settled(..) => return,
                Phase::Streaming(opened) => Some(Arc::clone(opened)),
                Phase::Waiting => None,
            };
            state.phase = Phase::Settled(settled, opened);
        });
    }

    fn change_phase(&self, change: impl FnOnce(&mut State)) {
        let wakers = {
            let mut state = self.state.lock();
            change(&mut state);
            state.epoch += 1;
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// What those who wait for the head get, once there is something.
    pub(super) fn poll_outcome(&self, place: &mut Place, cx: &Context<'_>) -> Poll<Outcome> {
        let mut state = self.state.lock();
        let outcome = match &state.phase {
            Phase::Waiting => None,
            Phase::Streaming(opened) => Some(Outcome::Streaming(Arc::clone(opened))),
            Phase::Settled(settled, _) => Some(Outcome::Settled(settled.clone())),
        };
        outcome.map_or_else(
            || {
                state.register(place, cx);
                Poll::Pending
            },
            Poll::Ready,
        )
    }

    /// How the fill ended, once it has.
    pub(super) fn poll_settled(&self, place: &mut Place, cx: &Context<'_>) -> Poll<Settled> {
        let mut state = self.state.lock();
        if let Phase::Settled(settled, _) = &state.phase {
            return Poll::Ready(settled.clone());
        }
        state.register(place, cx);
        Poll::Pending
    }

    /// Bytes at `at`, if they are here; else the caller is woken when there is news. `until` is the end of
    /// what the reader wants, for a lane of its own when that lies far ahead.
    pub(super) fn poll_bytes(
        &self,
        at: u64,
        until: u64,
        place: &mut Place,
        cx: &Context<'_>,
    ) -> Poll<Arrival> {
        let mut state = self.state.lock();
        let is_over = matches!(state.phase, Phase::Settled(Settled::Entry { .. }, _));
        let is_withheld = !is_over && state.body.withholds(at);
        match state.body.find(at) {
            _ if is_withheld => {}
            Found::Bytes(bytes) => return Poll::Ready(Arrival::Bytes(bytes)),
            Found::Stored(place) => return Poll::Ready(Arrival::Stored(place)),
            Found::Nothing => {}
        }
        match &state.phase {
            Phase::Settled(Settled::Entry { entry, .. }, _) if at >= entry.length => {
                return Poll::Ready(Arrival::End);
            }
            Phase::Settled(Settled::Failed(cause), _) => return Poll::Ready(Arrival::Failed(cause.clone())),
            Phase::Settled(..) => return Poll::Ready(Arrival::Failed(Cause::Internal)),
            Phase::Waiting | Phase::Streaming(_) => {}
        }
        if !is_withheld && state.body.lane_wanted(at, LANE_AHEAD_BYTES) && !state.wants.contains(&(at, until))
        {
            state.wants.push((at, until));
            self.wanted.notify_one();
        }
        state.register(place, cx);
        Poll::Pending
    }

    /// The spans readers wait for far ahead; asking takes them.
    pub(super) fn take_wants(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.state.lock().wants)
    }
}

/// What a reader finds at its position.
pub(super) enum Arrival {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A sealed block in the store.
    Stored(StoredAt),
    /// The body is complete and this is its end.
    End,
    /// It will never come.
    Failed(Cause),
}
