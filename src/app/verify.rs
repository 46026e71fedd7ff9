//! The job that reads every block and compares it with its name.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::fault;
use super::jobs::{Guard, Ongoing};
use super::operator::NodeOperator;
use crate::admin::ApiError;
use crate::admin::api::{Job, VerifyAsk};
use crate::base::digest::Digest;
use crate::cache::Key;
use crate::proxy::Kind;

/// Blocks of one step.
const STEP: usize = 16;
/// Damaged blocks that are remembered for repair; whoever has more has another trouble.
const REMEMBERED: usize = 10_000;

/// Begins it.
pub(super) fn begin(node: &Arc<NodeOperator>, ask: &VerifyAsk) -> Result<Job, ApiError> {
    if ask.limit_rate == Some(0) {
        return Err(fault::bad("`limit_rate` is 0", "leave it out for no limit"));
    }
    let guard = node.jobs.begin("verify", 0)?;
    let job = guard.job().told();
    let (node, repair, rate) = (Arc::clone(node), ask.repair, ask.limit_rate);
    tokio::spawn(async move { run(&node, guard, repair, rate).await });
    Ok(job)
}

async fn run(node: &NodeOperator, guard: Guard, repair: bool, rate: Option<u64>) {
    let job = guard.job();
    let mut bad = HashSet::new();
    let mut after = None;
    while !job.is_stopped() {
        keep_pace(job, rate).await;
        let step = node.store.check_blocks(after, STEP).await;
        job.counted(step.blocks, 0, step.bytes);
        if bad.len() < REMEMBERED {
            bad.extend(step.bad);
        }
        match step.last {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    if !bad.is_empty() {
        tell(node, job, bad, repair).await;
    }
    drop(guard);
}

/// Names the files that have damaged blocks, or has those fetched again.
async fn tell(node: &NodeOperator, job: &Ongoing, bad: HashSet<Digest>, repair: bool) {
    let routes = node.plane.routes();
    for (entry, places) in node.store.owners(bad).await {
        let key = entry.key.as_str();
        let repository = routes.all().iter().find(|it| it.name == Key::repository_in(key));
        let origin = repository.and_then(|repository| match &repository.kind {
            Kind::Upstreams { origin, .. } => Some(origin),
            Kind::Directory { .. } => None,
        });
        for place in places {
            let healed = match origin {
                Some(origin) if repair => {
                    node.fills.heal(&origin.supply, &entry, place).await.map_err(|it| it.word())
                }
                _ => Err("damaged"),
            };
            match healed {
                Ok(_) => job.counted(0, 1, 0),
                Err(word) => job.failed(Key::path_in(key), word),
            }
        }
    }
}

/// Waits until what has come so far is no more than the rate allows.
async fn keep_pace(job: &Ongoing, rate: Option<u64>) {
    let Some(rate) = rate else { return };
    let (bytes, time) = job.pace();
    let due = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
    tokio::select! {
        () = tokio::time::sleep(due.saturating_sub(time)) => {}
        () = job.stopped() => {}
    }
}
