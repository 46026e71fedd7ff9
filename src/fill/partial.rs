//! Going on with a body that an earlier fill began and did not finish.

use super::body::{Body, start_of};
use super::job::Job;
use super::resume::are_different;
use crate::base::limits::OVERLAP_BYTES;
use crate::cache::{BodyMap, Record};
use crate::protocol::headers::header_map;
use crate::protocol::reply::ReplyKind;
use crate::protocol::validators::{Validators, resume_validator, same_representation};
use crate::upstream::{Reply, Span};

/// Whether there is something to go on with.
pub(super) fn is_useful(partial: &Record, job: &Job) -> bool {
    first_gap(partial).is_some() && job.listed_length().is_none_or(|listed| partial.length == Some(listed))
}

/// The first block a record lacks; the last one where it lacks none, so that there is something to ask for.
pub(super) fn first_gap(partial: &Record) -> Option<usize> {
    let BodyMap::Blocks(blocks) = &partial.body else { return None };
    let held = blocks.iter().any(Option::is_some);
    let gap = blocks.iter().position(Option::is_none).unwrap_or(blocks.len().saturating_sub(1));
    held.then_some(gap)
}

/// What to ask for. Where a digest proves the whole at its end, any upstream may go on: then an overlap stands in for
/// the validator.
pub(super) fn continuation(partial: &Record, job: &Job) -> Option<Span> {
    let start = start_of(first_gap(partial)?);
    if job.proof().is_some() {
        return Some(Span { start: start.saturating_sub(OVERLAP_BYTES), end: None, if_range: None });
    }
    let validators = Validators::of(&header_map(&partial.head.headers));
    Some(Span { start, end: None, if_range: Some(resume_validator(&validators)?) })
}

/// Whether a 206 continues the body that the record began.
pub(super) fn continues(partial: &Record, job: &Job, reply: &Reply) -> bool {
    let ours = Validators::of(&header_map(&partial.head.headers));
    let theirs = Validators::of(&reply.headers);
    let is_same = if job.proof().is_some() {
        partial.head.source != reply.source || !are_different(&ours, &theirs)
    } else {
        same_representation(&ours, &theirs)
    };
    is_same && matches!(reply.kind, ReplyKind::Part { total, .. } if partial.length == Some(total))
}

/// The body as far as it is here, with the block left open where it goes on.
pub(super) fn body_of(partial: &Record, gap: usize) -> Option<Body> {
    let BodyMap::Blocks(names) = &partial.body else { return None };
    let mut body = Body::new(partial.length);
    for (index, digest) in names.iter().enumerate().filter(|(index, _)| *index != gap) {
        if let Some(digest) = digest {
            body.adopt(index, *digest);
        }
    }
    Some(body)
}
