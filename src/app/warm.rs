//! Fetching ahead: what a warm-up means, and the job that does it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::task::JoinSet;

use super::fault;
use super::jobs::{Guard, Ongoing};
use super::locate::{self, Place};
use super::operator::NodeOperator;
use crate::admin::ApiError;
use crate::admin::api::{Job, JobState, SCHEMA, WarmAsk};
use crate::base::limits::{BLOCK_BYTES, LISTED_FILES};
use crate::cache::Key;
use crate::cache::verdict::{self, ClientWish, Known, Question, UpstreamState, Verdict};
use crate::fill::{self, Cause, Origin, Pace, Seat, Settled};
use crate::proxy::Kind;
use crate::repository::pattern::{Patterns, is_glob};
use crate::stage::{self, Catalogues, Visitor};

/// Files at the same time, where nothing is said, and at most.
const AT_ONCE: usize = 4;
const MOST_AT_ONCE: usize = 64;
/// Entries of one question to the store.
const PAGE: usize = 10_000;
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Before a file is tried again after trouble; the second time twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// Tries of one file. A fill has gone through every upstream and resumed for a minute by itself.
const TRIES: u32 = 3;

/// Begins a warm-up, or says what it would be about.
pub(super) async fn begin(node: &Arc<NodeOperator>, ask: WarmAsk) -> Result<Job, ApiError> {
    let at_once = ask.jobs.unwrap_or(AT_ONCE);
    if !(1..=MOST_AT_ONCE).contains(&at_once) {
        return Err(fault::bad("`jobs` is out of range", format!("allowed: 1 to {MOST_AT_ONCE}")));
    }
    if ask.limit_rate == Some(0) {
        return Err(fault::bad("`limit_rate` is 0", "leave it out for no limit"));
    }
    let paths = expand(node, &ask.patterns, ask.catalog).await?;
    if paths.is_empty() {
        return Err(nothing_matches(node, &ask));
    }
    if ask.dry_run {
        return Ok(dry_run(node, &paths).await);
    }
    let guard = node.jobs.begin("warm", paths.len() as u64)?;
    let job = guard.job().told();
    let (node, rate) = (Arc::clone(node), ask.limit_rate);
    tokio::spawn(async move { run(&node, guard, paths, at_once, rate).await });
    Ok(job)
}

/// The paths that are meant: those that are written out, and of a pattern those that are known. Known is what is
/// stored, and what the generations that are shown list; with `catalog` only that, all of it if there is no pattern.
async fn expand(node: &NodeOperator, patterns: &[String], catalog: bool) -> Result<Vec<String>, ApiError> {
    let everything = ["/**".to_owned()];
    let patterns = if catalog && patterns.is_empty() { &everything } else { patterns };
    let (globs, exact): (Vec<String>, Vec<String>) =
        patterns.iter().cloned().partition(|text| is_glob(text) || text.ends_with('/'));
    fault::patterns(patterns)?;
    let mut paths = BTreeSet::new();
    for url in exact {
        let (path, query) = locate::canonical(&url)?;
        paths.insert(query.map_or_else(|| path.clone(), |query| format!("{path}?{query}")));
    }
    if !globs.is_empty() {
        let patterns = Arc::new(fault::patterns(&globs)?);
        for (_, catalogues) in node.reloader.catalogues() {
            if catalog && let Some(root) = catalogues.preset().root_of("any") {
                // One that nobody has asked for yet is read now.
                by_catalogue(&catalogues, &root).await;
            }
            paths.extend(catalogues.listed_paths().into_iter().filter(|path| patterns.matches(path)));
        }
        if !catalog {
            add_stored(node, &patterns, &mut paths).await;
        }
        if paths.len() > LISTED_FILES {
            let message = format!("more than {LISTED_FILES} files match");
            return Err(fault::bad(message, "name a narrower pattern"));
        }
    }
    Ok(paths.into_iter().collect())
}

/// A pattern that reaches nothing is a mistake, or too early: whoever wrote it thinks that files will be here.
fn nothing_matches(node: &NodeOperator, ask: &WarmAsk) -> ApiError {
    let no_catalogue = node.reloader.catalogues().is_empty();
    let (message, help) = match (ask.catalog, no_catalogue) {
        (true, true) => (
            "no repository has a catalogue".to_owned(),
            "name files by their paths, or give a repository a preset that has one",
        ),
        (true, false) => (
            "no catalogue lists a file that matches".to_owned(),
            "look at the catalogues in waypost status, and at the pattern: letters count, ** is any depth",
        ),
        (false, _) => (
            format!("nothing is known that matches {}", ask.patterns.join(", ")),
            "a pattern reaches what is stored and what catalogues list; name other files by their paths, or with --from-file",
        ),
    };
    ApiError::not_found(message, help)
}

/// What is stored of the files that match, up to a few more than may be.
async fn add_stored(node: &NodeOperator, patterns: &Arc<Patterns>, paths: &mut BTreeSet<String>) {
    let mut after = None;
    loop {
        let listed = node.store.list(after, Some(Arc::clone(patterns)), PAGE).await;
        paths.extend(listed.records.iter().map(|(key, _)| Key::path_in(key.as_str()).to_owned()));
        match listed.next {
            Some(next) if paths.len() <= LISTED_FILES => after = Some(next),
            _ => return,
        }
    }
}

async fn dry_run(node: &NodeOperator, paths: &[String]) -> Job {
    let mut job = Job {
        schema: SCHEMA,
        id: 0,
        kind: "warm".to_owned(),
        state: JobState::Done,
        total: paths.len() as u64,
        finished: 0,
        changed: 0,
        bytes: 0,
        running: Vec::new(),
        failed: Vec::new(),
        failures: 0,
        seconds: 0,
    };
    for path in paths {
        match locate::locate(&node.plane.routes(), path) {
            Ok(place) => {
                let wanted = wanted(node, &place).await.is_some();
                job.changed += u64::from(wanted);
                if wanted && job.running.len() < 20 {
                    job.running.push(crate::admin::api::JobItem { path: place.path, bytes: 0, length: None });
                }
            }
            Err(error) => {
                job.failures += 1;
                job.failed.push(crate::admin::api::JobFailure { path: path.clone(), why: error.message });
            }
        }
    }
    job
}

async fn run(node: &Arc<NodeOperator>, guard: Guard, paths: Vec<String>, at_once: usize, rate: Option<u64>) {
    let job = Arc::clone(guard.job());
    let mut files = JoinSet::new();
    // All files share it, and none that an agent reads is held back by it.
    let pace = rate.map(|rate| Arc::new(Pace::new(rate, BLOCK_BYTES)));
    for path in paths {
        while files.len() >= at_once {
            files.join_next().await;
        }
        if job.is_stopped() {
            break;
        }
        let (node, job, pace) = (Arc::clone(node), Arc::clone(&job), pace.clone());
        files.spawn(async move {
            tokio::select! {
                () = one(&node, &job, &path, pace) => {}
                () = job.stopped() => {}
            }
        });
    }
    while files.join_next().await.is_some() {}
    let told = job.told();
    tracing::info!(
        job = told.id,
        files = told.total,
        fetched = told.changed,
        missing = told.failures,
        "warmed up"
    );
    drop(guard);
}

/// One file, until it is here or cannot be had.
async fn one(node: &NodeOperator, job: &Ongoing, path: &str, pace: Option<Arc<Pace>>) {
    let place = match locate::locate(&node.plane.routes(), path) {
        Ok(place) => place,
        Err(error) => return job.failed(path, &error.message),
    };
    job.on(path, 0, None);
    let mut pause = PAUSE;
    for tries in 1..=TRIES {
        let Some(fill) = wanted(node, &place).await else { return job.finished(path, false, 0) };
        let seat = node.fills.join(fill::Job { pace: pace.clone(), ..fill });
        let settled = watch(job, path, &seat).await;
        match settled {
            Settled::Entry { entry, .. } if entry.prepared().is_negative() => {
                return job.failed(path, "not-found");
            }
            Settled::Entry { revalidated, .. } => {
                let (bytes, _) = seat.progress();
                return job.finished(path, !revalidated, bytes);
            }
            Settled::NotShareable(_) => return job.failed(path, "not-shareable"),
            Settled::Failed(cause) if tries == TRIES || !is_passing(&cause) => {
                return job.failed(path, cause.word());
            }
            Settled::Failed(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

/// Whether it may go better in a moment.
const fn is_passing(cause: &Cause) -> bool {
    matches!(
        cause,
        Cause::Overloaded
            | Cause::Unreachable(_)
            | Cause::Broken(_)
            | Cause::Changed
            | Cause::UpstreamDown { .. }
    )
}

async fn watch(job: &Ongoing, path: &str, seat: &Seat) -> Settled {
    let settled = seat.settled();
    tokio::pin!(settled);
    loop {
        tokio::select! {
            settled = &mut settled => return settled,
            () = tokio::time::sleep(LOOK) => {
                let (bytes, length) = seat.progress();
                job.on(path, bytes, length);
            }
        }
    }
}

/// The fill that a file needs; `None` where an agent would be answered from the cache.
async fn wanted(node: &NodeOperator, place: &Place) -> Option<fill::Job> {
    let Kind::Upstreams { origin, catalogues } = &place.repository.kind else { return None };
    if let Some(catalogues) = catalogues {
        match by_catalogue(catalogues, &place.below).await {
            stage::Place::Part(_) | stage::Place::Withdrawn(_) => return None,
            stage::Place::Listed(file) => return listed(node, origin, catalogues, file).await,
            stage::Place::Plain | stage::Place::Unstaged(_) => {}
        }
    }
    let entry = node.store.find(place.key.as_str()).await;
    let effective = *place.repository.effective(&place.below);
    let question = Question {
        entry: entry.as_ref().map(|entry| Known { prepared: entry.prepared(), stale: entry.stale }),
        effective: &effective,
        wish: ClientWish::of(&HeaderMap::new()),
        upstream: UpstreamState::Up,
        now: node.clock.now(),
    };
    if matches!(verdict::decide(&question), Verdict::Serve(_)) {
        return None;
    }
    let stale = entry.filter(|entry| !entry.prepared().is_negative() && entry.prepared().can_revalidate());
    let target = (place.key.clone(), place.below.clone(), place.query.clone());
    Some(job_of(origin, target, stale, effective))
}

/// How long a warm-up waits for a catalogue that has never been read.
const READ_WITHIN: Duration = Duration::from_secs(60);

/// What the repository's catalogue says about a file; a catalogue that nobody has asked for yet is read first.
async fn by_catalogue(catalogues: &Catalogues, below: &str) -> stage::Place {
    let operator = Visitor { observer: false, ..Visitor::observer() };
    let until = tokio::time::Instant::now() + READ_WITHIN;
    loop {
        let place = catalogues.locate(below, &operator);
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        match &place {
            stage::Place::Unstaged(scope) if !left.is_zero() && !scope.is_hopeless() => {
                catalogues.staged(scope, left).await;
            }
            _ => return place,
        }
    }
}

/// The fill that a listed file needs, held to its listing; `None` where it is here.
async fn listed(
    node: &NodeOperator,
    origin: &Origin,
    catalogues: &Catalogues,
    file: stage::ListedFile,
) -> Option<fill::Job> {
    catalogues.adopt(&file).await;
    let file = file.file;
    if node.store.find(file.key.as_str()).await.is_some() {
        return None;
    }
    let effective = crate::repository::rules::Effective::immutable();
    let job = job_of(origin, (file.key.clone(), file.ask.to_string(), None), None, effective);
    Some(fill::Job { expect: Some(Arc::clone(&file.expect)), pinned: true, ..job })
}

fn job_of(
    origin: &Origin,
    (key, path, query): (Key, String, Option<String>),
    stale: Option<Arc<crate::cache::Entry>>,
    effective: crate::repository::rules::Effective,
) -> fill::Job {
    fill::Job {
        query,
        seen: stale.as_ref().map(|entry| entry.head.received_at),
        stale,
        wanted: true,
        ..fill::Job::new(key, path, &origin.supply, effective)
    }
}
