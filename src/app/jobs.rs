//! Jobs that run on the node whether anybody watches or not.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::admin::api::{Done, Job, JobFailure, JobItem, JobState, SCHEMA};
use crate::admin::{ApiError, Code};

/// Jobs at the same time.
const RUNNING: usize = 4;
/// Jobs that are remembered, the running ones included.
const REMEMBERED: usize = 32;
/// Failures that are named; more are counted.
const NAMED: usize = 100;

/// All jobs since the start, as far as they are remembered.
#[derive(Default)]
pub(super) struct Jobs(Mutex<List>);

#[derive(Default)]
struct List {
    last: u64,
    jobs: VecDeque<Arc<Ongoing>>,
}

/// One of them.
pub(super) struct Ongoing {
    id: u64,
    kind: &'static str,
    began: Instant,
    stop: watch::Sender<bool>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    total: u64,
    finished: u64,
    changed: u64,
    bytes: u64,
    running: Vec<JobItem>,
    failed: Vec<JobFailure>,
    failures: u64,
    ended: Option<(JobState, Duration)>,
}

impl Jobs {
    /// A new job; it is over when the guard is dropped.
    pub(super) fn begin(&self, kind: &'static str, total: u64) -> Result<Guard, ApiError> {
        let mut list = self.0.lock();
        if list.jobs.iter().filter(|job| job.is_running()).count() >= RUNNING {
            let message = format!("{RUNNING} jobs run already");
            return Err(ApiError::new(Code::Busy, message, "wait for one, or end one: DELETE /v1/jobs/ID"));
        }
        list.last += 1;
        let job = Arc::new(Ongoing {
            id: list.last,
            kind,
            began: Instant::now(),
            stop: watch::Sender::new(false),
            state: Mutex::new(State { total, ..State::default() }),
        });
        list.jobs.push_back(Arc::clone(&job));
        while list.jobs.len() > REMEMBERED {
            let Some(old) = list.jobs.iter().position(|job| !job.is_running()) else { break };
            list.jobs.remove(old);
        }
        Ok(Guard(job))
    }

    pub(super) fn all(&self) -> Vec<Job> {
        self.0.lock().jobs.iter().map(|job| job.told()).collect()
    }

    pub(super) fn told(&self, id: u64) -> Option<Job> {
        self.0.lock().jobs.iter().find(|job| job.id == id).map(|job| job.told())
    }

    pub(super) fn cancel(&self, id: u64) -> Result<Done, ApiError> {
        let job = self.0.lock().jobs.iter().find(|job| job.id == id).cloned();
        let job = job
            .ok_or_else(|| ApiError::not_found(format!("there is no job {id}"), "GET /v1/jobs lists them"))?;
        let changed = job.is_running();
        job.stop.send_replace(true);
        Ok(if changed { Done::CHANGED } else { Done::NOTHING })
    }
}

impl Ongoing {
    fn is_running(&self) -> bool {
        self.state.lock().ended.is_none()
    }

    pub(super) fn told(&self) -> Job {
        let state = self.state.lock();
        let (ended, time) = state.ended.map_or((JobState::Running, self.began.elapsed()), |ended| ended);
        Job {
            schema: SCHEMA,
            id: self.id,
            kind: self.kind.to_owned(),
            state: ended,
            total: state.total,
            finished: state.finished,
            changed: state.changed,
            bytes: state.bytes + state.running.iter().map(|item| item.bytes).sum::<u64>(),
            running: state.running.clone(),
            failed: state.failed.clone(),
            failures: state.failures,
            seconds: time.as_secs(),
        }
    }

    /// Whether an operator has ended it.
    pub(super) fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Returns when an operator ends it.
    pub(super) async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        // The sender is ours, so there is no error.
        let _ = stop.wait_for(|stop| *stop).await;
    }

    /// Work on something has begun or come further.
    pub(super) fn on(&self, path: &str, bytes: u64, length: Option<u64>) {
        let mut state = self.state.lock();
        match state.running.iter_mut().find(|item| item.path == path) {
            Some(item) => (item.bytes, item.length) = (bytes, length),
            None => state.running.push(JobItem { path: path.to_owned(), bytes, length }),
        }
    }

    /// Work on something is over.
    pub(super) fn finished(&self, path: &str, changed: bool, bytes: u64) {
        let mut state = self.state.lock();
        state.running.retain(|item| item.path != path);
        state.finished += 1;
        state.changed += u64::from(changed);
        state.bytes += bytes;
    }

    /// Something is missing.
    pub(super) fn failed(&self, path: &str, why: &str) {
        let mut state = self.state.lock();
        state.running.retain(|item| item.path != path);
        state.finished += 1;
        state.failures += 1;
        if state.failed.len() < NAMED {
            state.failed.push(JobFailure { path: path.to_owned(), why: why.to_owned() });
        }
    }

    /// Counts without naming: for work on blocks.
    pub(super) fn counted(&self, finished: u64, changed: u64, bytes: u64) {
        let mut state = self.state.lock();
        state.finished += finished;
        state.changed += changed;
        state.bytes += bytes;
    }

    /// Bytes so far, and for how long.
    pub(super) fn pace(&self) -> (u64, Duration) {
        (self.told().bytes, self.began.elapsed())
    }
}

/// A job's own hold of it. Dropping it, however the job ended, is the job's end.
pub(super) struct Guard(Arc<Ongoing>);

impl Guard {
    pub(super) fn job(&self) -> &Arc<Ongoing> {
        &self.0
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let stopped = self.0.is_stopped();
        let mut state = self.0.state.lock();
        state.running.clear();
        let ended = match state.failures {
            _ if stopped => JobState::Cancelled,
            0 => JobState::Done,
            _ => JobState::Partly,
        };
        state.ended = Some((ended, self.0.began.elapsed()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_over_when_its_guard_goes_and_says_how() {
        let jobs = Jobs::default();
        let guard = jobs.begin("warm", 2).unwrap();
        guard.job().on("/a", 5, Some(10));
        assert_eq!((jobs.told(1).unwrap().state, jobs.told(1).unwrap().bytes), (JobState::Running, 5));
        guard.job().finished("/a", true, 10);
        guard.job().failed("/b", "not-found");
        drop(guard);
        let told = jobs.told(1).unwrap();
        assert_eq!((told.state, told.finished, told.changed, told.failures), (JobState::Partly, 2, 1, 1));
        assert_eq!(told.failed[0].why, "not-found");
        assert_eq!(jobs.cancel(1).unwrap(), Done::NOTHING);
        assert!(jobs.cancel(2).is_err());
    }

    #[test]
    fn jobs_are_few_at_a_time_and_old_ones_are_forgotten() {
        let jobs = Jobs::default();
        let held: Vec<_> = (0..RUNNING).map(|_| jobs.begin("warm", 0).unwrap()).collect();
        assert_eq!(jobs.begin("warm", 0).err().map(|error| error.code), Some(Code::Busy));
        jobs.cancel(1).unwrap();
        drop(held);
        assert_eq!(jobs.told(1).unwrap().state, JobState::Cancelled);
        (0..REMEMBERED).for_each(|_| drop(jobs.begin("verify", 0).unwrap()));
        assert_eq!(jobs.all().len(), REMEMBERED);
        assert!(jobs.told(1).is_none());
    }
}
