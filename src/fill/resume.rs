//! Going on where a body broke off, on this upstream or another, only with proof that it is the same body.
//!
//! Proof is a strong validator and an equal total length, the right start, and an overlap with what we hold that
//! is compared byte for byte: mirrors have been seen to answer a range out of another file of the same size. Where a
//! catalogue lists a digest, that proves the whole at its end: then no validator is needed.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use tokio::time::Instant;

use super::body::{Body, Found, start_of};
use super::cause::Cause;
use super::heal::read_or_heal;
use super::lane::Lane;
use super::open::{Line, ask_one, lied};
use super::proof::WRONG_LENGTH;
use super::state::Fill;
use crate::base::limits::{OVERLAP_BYTES, PIECE_BYTES};
use crate::protocol::reply::ReplyKind;
use crate::protocol::validators::{Validators, resume_validator, same_representation};
use crate::upstream::{Ask, BodyError, Span, Upstream};

/// After everybody was tried once. Doubles with every round.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between rounds.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Trouble at one place of a body: since when, and who has been tried there.
pub(super) struct Setback {
    at: u64,
    since: Instant,
    pause: Duration,
    tried: Vec<String>,
}

impl Setback {
    fn at(at: u64) -> Self {
        Self { at, since: Instant::now(), pause: FIRST_PAUSE, tried: Vec::new() }
    }
}

impl Lane {
    /// Opens upstream again at the lane's position: on the same upstream once, then on the others by priority and
    /// health, until the budget is spent. Readers notice nothing but a pause.
    ///
    /// An upstream that goes on and breaks again without having brought more than the resuming cost counts as tried:
    /// the others come next, and after them a pause that grows.
    ///
    /// # Errors
    /// [`Cause::Changed`] when somebody answered with another file and nobody with ours, else what went wrong last.
    pub(super) async fn reopen(
        &mut self,
        trouble: Option<&BodyError>,
        same: Option<Arc<Upstream>>,
    ) -> Result<(), Cause> {
        let budget = self.course.fills.0.options.resume_for;
        let mut setback = match self.setback.take() {
            Some(setback) if self.at >= setback.at && self.at - setback.at <= OVERLAP_BYTES => setback,
            _ => Setback::at(self.at),
        };
        if let (Some(BodyError::TooSlow { .. }), Some(same)) = (trouble, &same) {
            setback.tried.push(same.name().to_owned());
        }
        loop {
            match self.reopen_somewhere(trouble, same.clone(), &mut setback).await {
                Some(Err(Cause::Changed)) => return Err(Cause::Changed),
                Some(Ok(())) => {
                    self.setback = Some(setback);
                    return Ok(());
                }
                failed => {
                    if setback.since.elapsed() + setback.pause >= budget {
                        let word = failed.and_then(Result::err).map_or("no upstream", |cause| cause.word());
                        return Err(Cause::Broken(word.to_owned()));
                    }
                }
            }
            tokio::time::sleep(setback.pause).await;
            setback.pause = (setback.pause * 2).min(LONGEST_PAUSE);
            setback.tried.clear();
        }
    }

    /// One round: everybody who has not been tried here. `None` if there is nobody left.
    async fn reopen_somewhere(
        &mut self,
        trouble: Option<&BodyError>,
        same: Option<Arc<Upstream>>,
        setback: &mut Setback,
    ) -> Option<Result<(), Cause>> {
        let others = self.course.fills.candidates(&self.course.job, &self.fill().givers.barred());
        let mut last = None;
        for upstream in same.into_iter().chain(others) {
            if setback.tried.iter().any(|name| name == upstream.name()) {
                continue;
            }
            setback.tried.push(upstream.name().to_owned());
            match self.continue_at(&upstream).await {
                Ok(()) => {
                    self.tell_resumed(trouble, &upstream);
                    return Some(Ok(()));
                }
                Err(cause) if last != Some(Cause::Changed) => last = Some(cause),
                Err(_) => {}
            }
        }
        last.map(Err)
    }

    fn tell_resumed(&self, trouble: Option<&BodyError>, upstream: &Upstream) {
        let Some(trouble) = trouble else { return };
        self.fill().supply.events.resumed(trouble.blame());
        let key = self.fill().key();
        tracing::info!(%key, at = self.at, upstream = upstream.name(), after = trouble.blame(), "resumed");
    }

    /// Asks `upstream` for the bytes from here on, and proves them.
    async fn continue_at(&mut self, upstream: &Arc<Upstream>) -> Result<(), Cause> {
        let opened = Arc::clone(&self.course.opened);
        let ours = &opened.prepared.origin;
        let job = &self.course.job;
        let proven_later = job.proof().is_some();
        // Elsewhere the same file may have another tag.
        let at_home = opened.head.source == upstream.name();
        let validator = resume_validator(ours).filter(|_| at_home || !proven_later);
        if validator.is_none() && !proven_later {
            return Err(Cause::Changed);
        }
        let overlap = self.overlap().await;
        let ask = Ask {
            path: job.path.clone(),
            query: job.query.clone(),
            headers: job.headers(),
            range: Some(Span {
                start: self.at - overlap.len() as u64,
                end: self.span_end(),
                if_range: validator,
            }),
            loop_tokens: job.loop_tokens.clone(),
        };
        let line = ask_one(&self.fill().supply, upstream, &ask).await?;
        let theirs = Validators::of(&line.reply.headers);
        let same = if proven_later {
            !at_home || !are_different(ours, &theirs)
        } else {
            same_representation(ours, &theirs)
        };
        match line.reply.kind {
            ReplyKind::Part { total, .. }
                if same && opened.length.or(self.total).is_none_or(|it| it == total) =>
            {
                self.total = Some(total);
                self.match_overlap(line, overlap).await
            }
            ReplyKind::Whole { length, .. }
                if same && (length == opened.length || (proven_later && length.is_none())) =>
            {
                // Ranges do not work there. One lane can still go on by reading past what is here.
                self.fill().look(Body::stay_single);
                self.match_from_start(line).await
            }
            ReplyKind::Part { total: length, .. } | ReplyKind::Whole { length: Some(length), .. }
                if job.listed_length().is_some_and(|listed| listed != length) =>
            {
                lied(&self.fill().supply, upstream, &ask, WRONG_LENGTH);
                Err(Cause::Changed)
            }
            ReplyKind::Part { .. } | ReplyKind::Whole { .. } => Err(Cause::Changed),
            // Its file ends before ours does.
            ReplyKind::Other(StatusCode::RANGE_NOT_SATISFIABLE) if opened.length.is_some() => {
                Err(Cause::Changed)
            }
            _ => Err(Cause::Refused(line.reply.status.as_u16())),
        }
    }

    /// Where the span this lane asks for ends: at its limit, or at the end of the body.
    fn span_end(&self) -> Option<u64> {
        let length = self.course.opened.length?;
        let end = if self.limit == usize::MAX { length } else { start_of(self.limit).min(length) };
        (end < length).then_some(end)
    }

    /// The bytes just before our position, as far as they are here.
    async fn overlap(&self) -> Bytes {
        let mut overlap = BytesMut::new();
        let mut at = self.at.saturating_sub(OVERLAP_BYTES);
        while at < self.at {
            let Ok(bytes) = held(self.fill(), at).await else { return Bytes::new() };
            let take = bytes.len().min(usize::try_from(self.at - at).unwrap_or(usize::MAX));
            overlap.extend_from_slice(&bytes.slice(..take));
            at += take as u64;
        }
        overlap.freeze()
    }

    /// Whether the reply at hand, which begins `before` bytes before our position, repeats what we hold there.
    pub(super) async fn fits(&mut self, before: u64) -> bool {
        let Some(line) = self.line.take() else { return false };
        let overlap = self.overlap().await;
        overlap.len() as u64 == before && self.match_overlap(line, overlap).await.is_ok()
    }

    /// Compares the overlap with what we hold; what comes after it is new.
    async fn match_overlap(&mut self, mut line: Line, mut overlap: Bytes) -> Result<(), Cause> {
        let mut frame = Bytes::new();
        while !overlap.is_empty() {
            frame = next_frame(&mut line).await?;
            let common = frame.len().min(overlap.len());
            if frame.split_to(common) != overlap.split_to(common) {
                return Err(Cause::Changed);
            }
        }
        self.pending = frame;
        self.line = Some(line);
        Ok(())
    }

    /// Reads a whole body from its start, comparing everything before our position with what we hold.
    async fn match_from_start(&mut self, mut line: Line) -> Result<(), Cause> {
        let mut at = 0;
        let mut frame = Bytes::new();
        while at < self.at {
            if frame.is_empty() {
                frame = next_frame(&mut line).await?;
            }
            let ours = held(self.fill(), at).await?;
            let left = usize::try_from(self.at - at).unwrap_or(usize::MAX);
            let common = frame.len().min(ours.len()).min(left);
            if frame.split_to(common) != ours.slice(..common) {
                return Err(Cause::Changed);
            }
            at += common as u64;
        }
        self.pending = frame;
        self.line = Some(line);
        Ok(())
    }
}

/// Whether one server says itself, by its tags, that these are two representations.
pub(super) fn are_different(ours: &Validators, theirs: &Validators) -> bool {
    match (&ours.etag, &theirs.etag) {
        (Some(ours), Some(theirs)) => !ours.weak_eq(theirs),
        _ => false,
    }
}

async fn next_frame(line: &mut Line) -> Result<Bytes, Cause> {
    match line.reply.frame().await {
        Some(Ok(frame)) => Ok(frame),
        Some(Err(error)) => Err(Cause::Broken(error.blame().to_owned())),
        None => Err(Cause::Changed),
    }
}

/// Bytes of a growing body at `at`, from wherever they are.
///
/// # Errors
/// [`Cause::Internal`] where there is a hole; else why a bad block could not be fetched again.
pub(super) async fn held(fill: &Arc<Fill>, at: u64) -> Result<Bytes, Cause> {
    match fill.look(|body| body.find(at)) {
        Found::Bytes(bytes) => Ok(bytes),
        Found::Nothing => Err(Cause::Internal),
        Found::Stored(place) => read_or_heal(fill, &place, PIECE_BYTES).await,
    }
}
