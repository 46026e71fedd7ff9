//! Newcomers first: while many connections are being made, running downloads give way.
//!
//! A download takes all of the processor it can get, and a handshake needs it four times for a moment. When a
//! thousand agents come at once, those that got in first would let the others wait for seconds for their first byte.
//! So while a crowd is at the door, only a few pieces go out at each beat; an answer's first piece never waits.
//!
//! A crowd that does not move is none: newcomers that are slow themselves hold nobody up.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;

/// Handshakes at once from which on it is a crowd: fewer leave the processor enough room.
const CROWD: usize = 8;

/// Time between two beats.
const BEAT: Duration = Duration::from_millis(10);

/// Pieces that go out at each beat of a crowd: 200 MB/s, which two slow cores have beside their handshakes.
const PIECES: usize = 16;

/// Bytes of an answer's first piece in a crowd, a TLS record: it says that the answer is there, and a thousand of them
/// cost no more than the handshakes of a few.
pub(super) const FIRST_BYTES: usize = 16 << 10;

/// Beats without a handshake done after which a crowd counts as slow.
const PATIENCE: usize = 5;

/// Beats with few newcomers after which the crowd is through. One alone says little: while the door is being opened to
/// the next ones, nobody stands in it.
const CALM: usize = 3;

/// The crowd, and who gives way to it.
#[derive(Debug, Default)]
pub(super) struct Rush {
    crowded: AtomicBool,
    newcomers: AtomicUsize,
    done: AtomicUsize,
    waiting: Mutex<VecDeque<Waker>>,
    came: Notify,
}

impl Rush {
    /// A newcomer has spoken: its handshake begins. It is one until the guard is dropped.
    pub(super) fn enter(&self) -> Newcomer<'_> {
        let newcomers = self.newcomers.fetch_add(1, Ordering::Relaxed) + 1;
        if newcomers >= CROWD && !self.crowded.swap(true, Ordering::Relaxed) {
            self.came.notify_one();
        }
        Newcomer(self)
    }

    /// Whether pieces have to wait for their turn at the moment.
    pub(super) fn is_on(&self) -> bool {
        self.crowded.load(Ordering::Relaxed)
    }

    /// Wakes `waker` at its turn, or when the crowd is gone.
    pub(super) fn give_way(&self, waker: &Waker) {
        let mut waiting = self.waiting.lock();
        if self.is_on() {
            waiting.push_back(waker.clone());
        } else {
            drop(waiting);
            waker.wake_by_ref();
        }
    }

    /// Keeps the beat; never returns.
    pub(super) async fn run(&self) {
        loop {
            self.came.notified().await;
            let (mut done, mut still, mut calm) = (self.done.load(Ordering::Relaxed), 0, 0);
            while calm < CALM && still < PATIENCE {
                sleep(BEAT).await;
                let now = self.done.load(Ordering::Relaxed);
                still = if now == done { still + 1 } else { 0 };
                calm = if self.newcomers.load(Ordering::Relaxed) < CROWD { calm + 1 } else { 0 };
                done = now;
                self.let_go(PIECES);
            }
            self.end();
        }
    }

    fn end(&self) {
        {
            // Under the lock: who saw the crowd and is about to wait must not miss its end.
            let _waiting = self.waiting.lock();
            self.crowded.store(false, Ordering::Relaxed);
        }
        self.let_go(usize::MAX);
    }

    fn let_go(&self, most: usize) {
        let wakers: Vec<Waker> = {
            let mut waiting = self.waiting.lock();
            let count = waiting.len().min(most);
            let wakers = waiting.drain(..count).collect();
            if waiting.is_empty() {
                // A crowd's memory is not kept for ever.
                *waiting = VecDeque::new();
            }
            wakers
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A connection whose handshake is under way.
#[derive(Debug)]
pub(super) struct Newcomer<'a>(&'a Rush);

impl Drop for Newcomer<'_> {
    fn drop(&mut self) {
        self.0.newcomers.fetch_sub(1, Ordering::Relaxed);
        self.0.done.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_few_newcomers_hold_nobody_up_and_a_crowd_does() {
        let rush = Rush::default();
        let few: Vec<_> = (1..CROWD).map(|_| rush.enter()).collect();
        assert!(!rush.is_on());
        let one_more = rush.enter();
        assert!(rush.is_on());
        drop((few, one_more));
    }

    #[test]
    fn a_piece_that_gives_way_after_the_crowd_left_goes_at_once() {
        let (rush, bell) = (Rush::default(), Arc::new(Bell::default()));
        rush.give_way(&Waker::from(Arc::clone(&bell)));
        assert_eq!(bell.0.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn pieces_go_a_few_at_a_beat_and_all_of_them_when_the_crowd_is_slow() {
        let (rush, bell) = (Arc::new(Rush::default()), Arc::new(Bell::default()));
        let beat = tokio::spawn({
            let rush = Arc::clone(&rush);
            async move { rush.run().await }
        });
        let _crowd: Vec<_> = (0..CROWD).map(|_| rush.enter()).collect();
        (0..3 * PIECES).for_each(|_| rush.give_way(&Waker::from(Arc::clone(&bell))));
        assert_eq!(bell.0.load(Ordering::Relaxed), 0);
        sleep(BEAT + BEAT / 2).await;
        assert_eq!(bell.0.load(Ordering::Relaxed), PIECES);
        sleep(BEAT * PATIENCE as u32).await;
        assert!(!rush.is_on(), "nobody of the crowd got through");
        assert_eq!(bell.0.load(Ordering::Relaxed), 3 * PIECES);
        beat.abort();
    }
}
