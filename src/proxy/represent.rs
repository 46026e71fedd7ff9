//! From a representation and a request to status, header fields and the bytes to send.
//!
//! The order is RFC 9110 §13.2.2: conditions first, then `If-Range`, then ranges. The same for a stored entry, a
//! body that is arriving and a file of a directory.

use std::ops::Range;

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::serve::Asked;
use crate::protocol::multipart::Multipart;
use crate::protocol::range::{
    RangeAnswer, content_range, content_range_unsatisfied, decide_range, parse_range,
};
use crate::protocol::validators::{Conditional, Validators, decide_conditional, decide_if_range};

/// What to send of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Send {
    /// No body at all.
    Nothing,
    /// All of it.
    Whole,
    /// One range.
    Span(Range<u64>),
    /// Several ranges in a frame.
    Many(Multipart),
}

/// A representation, before anybody asked for a part of it.
pub(super) struct Whole<'a> {
    /// Its validators.
    pub(super) validators: &'a Validators,
    /// Its length in bytes, where known.
    pub(super) length: Option<u64>,
}

/// Fields that a 304 does not repeat: they describe the body it does not have (RFC 9110 §15.4.5).
const OF_THE_BODY: [http::HeaderName; 3] = [CONTENT_TYPE, CONTENT_LENGTH, http::header::ACCEPT_RANGES];

/// Decides what to send, and completes `headers`, which already has the representation's own fields. Returns the
/// length of what is sent, where it is known.
pub(super) fn represent(
    asked: &Asked<'_>,
    whole: &Whole<'_>,
    headers: &mut HeaderMap,
) -> (StatusCode, Send, Option<u64>) {
    let condition = asked.wants.condition.then(|| decide_conditional(asked.headers, whole.validators));
    match condition.unwrap_or(Conditional::Proceed) {
        Conditional::Proceed => {}
        Conditional::NotModified => {
            OF_THE_BODY.iter().for_each(|name| drop(headers.remove(name)));
            return (StatusCode::NOT_MODIFIED, Send::Nothing, None);
        }
        Conditional::Failed => {
            headers.clear();
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            return (StatusCode::PRECONDITION_FAILED, Send::Nothing, Some(0));
        }
    }
    let Some(length) = whole.length else {
        // Without a length there is no 206 that could be trusted; the whole is always a right answer (§14.2).
        let send = if asked.method == Method::HEAD { Send::Nothing } else { Send::Whole };
        return (StatusCode::OK, send, None);
    };
    let (status, send, sent) = match ranges(asked, whole.validators, length) {
        RangeAnswer::Whole => (StatusCode::OK, Send::Whole, length),
        RangeAnswer::One(range) => {
            headers.insert(CONTENT_RANGE, content_range(&range, Some(length)));
            let sent = range.end - range.start;
            (StatusCode::PARTIAL_CONTENT, Send::Span(range), sent)
        }
        RangeAnswer::Many(ranges) => {
            let frame = Multipart::of(ranges, length, headers.get(CONTENT_TYPE), random());
            headers.insert(CONTENT_TYPE, frame.content_type());
            let sent = frame.total_len;
            (StatusCode::PARTIAL_CONTENT, Send::Many(frame), sent)
        }
        RangeAnswer::Unsatisfiable => {
            headers.clear();
            headers.insert(CONTENT_RANGE, content_range_unsatisfied(length));
            (StatusCode::RANGE_NOT_SATISFIABLE, Send::Nothing, 0)
        }
    };
    headers.insert(CONTENT_LENGTH, HeaderValue::from(sent));
    let send = if asked.method == Method::HEAD { Send::Nothing } else { send };
    (status, send, Some(sent))
}

fn ranges(asked: &Asked<'_>, validators: &Validators, length: u64) -> RangeAnswer {
    if !asked.wants.range || asked.method != Method::GET || !decide_if_range(asked.headers, validators) {
        return RangeAnswer::Whole;
    }
    decide_range(&parse_range(asked.headers), length)
}

/// Random bits for a boundary that no body can contain on purpose.
fn random() -> u128 {
    let mut bytes = [0_u8; 16];
    if let Err(error) = getrandom::fill(&mut bytes) {
        tracing::error!(%error, "no random numbers; multipart boundaries can be guessed");
    }
    u128::from_be_bytes(bytes)
}
