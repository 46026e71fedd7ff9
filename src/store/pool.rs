//! Threads for blocking file work, so that no disk ever stops the runtime.
//!
//! Two lanes: reads somebody waits for, and everything else. A read never waits for a write to end as long
//! as there are two threads, and every fourth job is a write even under a storm of reads.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Jobs that may wait in one lane. Beyond it callers wait outside, in order, with their own deadlines.
const QUEUE: usize = 1024;

type Job = Box<dyn FnOnce() + Send>;

/// Which queue a job stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Read,
    Write,
}

#[derive(Clone)]
pub(super) struct Pool(Arc<Shared>);

struct Shared {
    queues: Mutex<Queues>,
    wake: Condvar,
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    threads: usize,
}

#[derive(Default)]
struct Queues {
    reads: VecDeque<Job>,
    writes: VecDeque<Job>,
    writing: usize,
    turn: usize,
    closed: bool,
}

impl Pool {
    /// Starts `threads` threads; whoever holds the handles joins them after [`Pool::close`].
    pub(super) fn start(threads: usize) -> io::Result<(Self, Vec<JoinHandle<()>>)> {
        let pool = Self(Arc::new(Shared {
            queues: Mutex::default(),
            wake: Condvar::new(),
            reads: Arc::new(Semaphore::new(QUEUE)),
            writes: Arc::new(Semaphore::new(QUEUE)),
            threads: threads.max(1),
        }));
        let mut handles = Vec::new();
        for n in 0..pool.0.threads {
            let shared = Arc::clone(&pool.0);
            let name = format!("store-{n}");
            match std::thread::Builder::new().name(name).spawn(move || shared.work()) {
                Ok(handle) => handles.push(handle),
                Err(error) => {
                    pool.close();
                    return Err(error);
                }
            }
        }
        Ok((pool, handles))
    }

    /// Runs `job` on a thread. `None`: the pool is closed, or the job panicked.
    /// A caller that goes away does not stop its job.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let slots = Arc::clone(self.slots(lane));
        let permit = slots.acquire_owned().await.ok()?;
        let (tell, told) = oneshot::channel();
        self.push(lane, permit, move || drop(tell.send(job())));
        told.await.ok()
    }

    /// Hands `job` to a thread if there is a place in the queue; small clean-ups that may also not happen.
    pub(super) fn try_spawn(&self, job: impl FnOnce() + Send + 'static) {
        if let Ok(permit) = Arc::clone(self.slots(Lane::Write)).try_acquire_owned() {
            self.push(Lane::Write, permit, job);
        }
    }

    /// Ends the threads once the queues are empty; later jobs are refused.
    pub(super) fn close(&self) {
        self.0.reads.close();
        self.0.writes.close();
        self.0.queues.lock().closed = true;
        self.0.wake.notify_all();
    }

    /// Whether it was told to end.
    pub(super) fn is_closed(&self) -> bool {
        self.0.writes.is_closed()
    }

    fn slots(&self, lane: Lane) -> &Arc<Semaphore> {
        match lane {
            Lane::Read => &self.0.reads,
            Lane::Write => &self.0.writes,
        }
    }

    fn push(&self, lane: Lane, permit: OwnedSemaphorePermit, job: impl FnOnce() + Send + 'static) {
        let job: Job = Box::new(move || {
            let _place = permit;
            job();
        });
        let mut queues = self.0.queues.lock();
        if queues.closed {
            return;
        }
        match lane {
            Lane::Read => queues.reads.push_back(job),
            Lane::Write => queues.writes.push_back(job),
        }
        drop(queues);
        self.0.wake.notify_one();
    }
}

impl Shared {
    fn work(&self) {
        let mut queues = self.queues.lock();
        loop {
            let Some((lane, job)) = queues.next(self.threads) else {
                // Jobs of a closed pool are still done; a write that may not start yet is done by whoever is
                // writing now.
                if queues.closed {
                    return;
                }
                self.wake.wait(&mut queues);
                continue;
            };
            drop(queues);
            // A panic fails that job only: its caller sees the dropped channel.
            let _ = catch_unwind(AssertUnwindSafe(job));
            queues = self.queues.lock();
            if lane == Lane::Write {
                queues.writing -= 1;
                self.wake.notify_one();
            }
        }
    }
}

impl Queues {
    fn next(&mut self, threads: usize) -> Option<(Lane, Job)> {
        self.turn = self.turn.wrapping_add(1);
        let may_write = self.writing < threads.saturating_sub(1).max(1);
        let writes_turn = self.turn.is_multiple_of(4) || self.reads.is_empty();
        if may_write
            && writes_turn
            && let Some(job) = self.writes.pop_front()
        {
            self.writing += 1;
            return Some((Lane::Write, job));
        }
        self.reads.pop_front().map(|job| (Lane::Read, job))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_read_does_not_wait_for_writes() {
        let (pool, handles) = Pool::start(2).unwrap();
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        for _ in 0..8 {
            let gate = Arc::clone(&gate);
            pool.try_spawn(move || {
                let mut open = gate.0.lock();
                while !*open {
                    gate.1.wait(&mut open);
                }
            });
        }
        assert_eq!(pool.run(Lane::Read, || 7).await, Some(7));
        *gate.0.lock() = true;
        gate.1.notify_all();
        pool.close();
        handles.into_iter().for_each(|handle| handle.join().unwrap());
    }

    #[tokio::test]
    async fn a_panicking_job_fails_alone() {
        let (pool, handles) = Pool::start(1).unwrap();
        assert_eq!(pool.run(Lane::Write, || panic!("on purpose")).await, None::<()>);
        assert_eq!(pool.run(Lane::Write, || 1).await, Some(1));
        pool.close();
        assert_eq!(pool.run(Lane::Read, || 1).await, None);
        handles.into_iter().for_each(|handle| handle.join().unwrap());
    }
}
