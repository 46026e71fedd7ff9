//! Further lanes of a fill, for spans that readers want far ahead of the first one.
//!
//! A lane takes its place at an upstream before it claims a block. Until then the span is anybody's: where all places
//! are taken, the readers get it from the first lane as soon as that comes by, or from the lane once there is a place.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::body::Body;
use super::cause::Cause;
use super::lane::{Course, Lane, Stop, note_progress};
use super::open::place_at;
use crate::base::limits::{BLOCK_BYTES, LANES};
use crate::protocol::validators::resume_validator;

/// The further lanes of one fill.
#[derive(Default)]
pub(super) struct Ahead {
    lanes: JoinSet<()>,
    /// First blocks of the spans that wait for a place. Readers ask for theirs again and again.
    waiting: Arc<Mutex<Vec<usize>>>,
}

impl Ahead {
    /// Starts lanes for what readers want far ahead, within the bound.
    pub(super) fn open(&mut self, course: &Arc<Course>) {
        while self.lanes.try_join_next().is_some() {}
        for (at, until) in course.fill.take_wants() {
            if self.lanes.len() + 1 >= LANES || resume_validator(&course.opened.prepared.origin).is_none() {
                return;
            }
            let first = (at / BLOCK_BYTES) as usize;
            if self.waiting.lock().contains(&first) {
                continue;
            }
            self.waiting.lock().push(first);
            let (course, waiting) = (Arc::clone(course), Arc::clone(&self.waiting));
            self.lanes.spawn(async move {
                let lane = claim(course, first, until).await;
                waiting.lock().retain(|other| *other != first);
                if let Some(lane) = lane {
                    run(lane).await;
                }
            });
        }
    }

    /// Waits until one of them is over.
    ///
    /// # Errors
    /// [`Cause::Internal`]: there is none, or it panicked.
    pub(super) async fn one_ends(&mut self) -> Result<(), Cause> {
        self.lanes.join_next().await.ok_or(Cause::Internal)?.map_err(|_| Cause::Internal)
    }
}

/// A lane from block `first` on, unless somebody has it by the time there is a place.
async fn claim(course: Arc<Course>, first: usize, until: u64) -> Option<Lane> {
    let upstream = course.fill.supply.sources.candidates(course.fill.now()).next()?;
    let permit = place_at(&upstream).await.ok()?;
    let wanted = until.min(course.opened.length.unwrap_or(until)).div_ceil(BLOCK_BYTES) as usize;
    let limit = course.fill.look(|body| {
        let limit = wanted.min(first + body.holes_from(first));
        (limit > first && body.claim(first)).then_some(limit)
    })?;
    Some(Lane::ahead(course, (first, limit), (upstream, permit)))
}

/// What a lane cannot get it leaves to the first one.
async fn run(mut lane: Lane) {
    let mut result = lane.reopen(None, None).await;
    while result.is_ok() {
        let upstream = lane.line.as_ref().map(|line| Arc::clone(&line.upstream));
        result = match lane.pump().await {
            Stop::Broken(error) => lane.reopen(Some(&error), upstream).await,
            Stop::Wanted => Ok(()),
            Stop::End if lane.course.opened.length == Some(lane.at) => {
                lane.seal_last().await;
                break;
            }
            Stop::End | Stop::Taken | Stop::Alone => break,
        };
    }
    if let Err(cause) = result {
        tracing::info!(key = %lane.fill().key(), at = lane.at, %cause, "a second lane was given up");
        if cause != Cause::Overloaded {
            lane.fill().look(Body::stay_single);
        }
    }
    lane.release();
    lane.settle_writes().await;
    // The first lane may stand still for long, and what is here shall outlive this process.
    note_progress(&lane.course);
}
