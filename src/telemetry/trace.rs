//! Spans: what a request or a fetch is called in a trace that goes over several nodes, and who is told about it.
//!
//! Names are those of W3C Trace Context, level 1. Nobody has to listen: without a [`Tracer`] there are no spans.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::AccessRecord;
use crate::base::clock::Timestamp;

/// Names the trace that a request is part of.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// One piece of work within a trace. Ids that are all zeros are never valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The trace.
    pub trace: [u8; 16],
    /// The piece of work.
    pub id: [u8; 8],
    /// What it is part of, where that is known.
    pub parent: Option<[u8; 8]>,
}

/// A fetch from upstream, at its end.
#[derive(Clone, Copy, Debug)]
pub struct FillRecord<'a> {
    /// The repository.
    pub repository: &'a str,
    /// The path of what was fetched, as agents ask for it.
    pub path: &'a str,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// Bytes of the body that were here at its end.
    pub bytes: u64,
    /// `complete`, or the word of its cause.
    pub word: &'static str,
}

/// What is asked of a tracer when the node ends.
pub type Flushed<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Who is told about spans. Telling never waits and never fails.
pub trait Tracer: Send + Sync + fmt::Debug {
    /// The span of a request with this `traceparent`, if it is to be told about.
    fn begin(&self, traceparent: Option<&str>) -> Option<Span>;
    /// A request has been answered.
    fn request(&self, span: &Span, record: &AccessRecord<'_>);
    /// A fetch has ended.
    fn fill(&self, span: &Span, record: &FillRecord<'_>);
    /// Spans that were lost since the start: the collector was too slow, or not there.
    fn lost(&self) -> u64;
    /// Delivers what waits, within `patience`.
    fn flush(&self, patience: Duration) -> Flushed<'_>;
}

impl Span {
    /// The first of a trace.
    pub fn first() -> Self {
        let mut trace = [0; 16];
        fill_random(&mut trace);
        Self { trace, id: new_id(), parent: None }
    }

    /// A piece of this one.
    #[must_use]
    pub fn part(&self) -> Self {
        Self { trace: self.trace, id: new_id(), parent: Some(self.id) }
    }

    /// A piece of the one that a `traceparent` names, and whether that one is told about. `None`: it is none.
    pub fn of(traceparent: &str) -> Option<(Self, bool)> {
        let mut fields = traceparent.trim().split('-');
        let (version, trace, parent, flags) =
            (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let version: [u8; 1] = unhex(version)?;
        // Later versions may say more behind; this one has nothing there (§4.3).
        if version == [0xff] || (version == [0] && fields.next().is_some()) {
            return None;
        }
        let (trace, parent): ([u8; 16], [u8; 8]) = (unhex(trace)?, unhex(parent)?);
        let [flags] = unhex::<1>(flags)?;
        let valid = trace != [0; 16] && parent != [0; 8];
        valid.then(|| (Self { trace, id: new_id(), parent: Some(parent) }, flags & 1 == 1))
    }

    /// As a `traceparent` of a question to another node.
    pub fn header(&self) -> HeaderValue {
        let text = format!("00-{}-{}-01", hex(&self.trace), hex(&self.id));
        // Nothing but digits.
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
    }
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digits = |byte: &u8| [byte >> 4, byte & 0xf].map(|it| char::from_digit(it.into(), 16).unwrap_or('0'));
    bytes.iter().flat_map(digits).collect()
}

/// Digits of exactly this many bytes, in lower case as the standard wants them (§3.2.2.3).
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes().as_chunks::<2>();
    if text.len() != 2 * N || text.bytes().any(|it| !matches!(it, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.0) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

fn new_id() -> [u8; 8] {
    let mut id = [0; 8];
    fill_random(&mut id);
    id
}

fn fill_random(bytes: &mut [u8]) {
    // Without randomness spans of two traces may meet; nothing but their picture depends on it.
    let _ = getrandom::fill(bytes);
    if let Some(last) = bytes.last_mut() {
        *last |= u8::from(*last == 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_trace_goes_on_over_nodes() {
        let (span, told) = Span::of(PARENT).unwrap();
        assert_eq!((hex(&span.trace).as_str(), told), ("0af7651916cd43dd8448eb211c80319c", true));
        assert_eq!(span.parent.map(|id| hex(&id)).as_deref(), Some("b7ad6b7169203331"));
        let part = span.part();
        assert_eq!((part.trace, part.parent), (span.trace, Some(span.id)));
        assert_ne!(part.id, span.id);
        let (next, _) = Span::of(part.header().to_str().unwrap()).unwrap();
        assert_eq!((next.trace, next.parent), (span.trace, Some(part.id)));
        assert_eq!(Span::of(&PARENT.replace("-01", "-00")).map(|(_, told)| told), Some(false));
        assert!(Span::of(&format!("{}-more", PARENT.replacen("00", "01", 1))).is_some(), "a later version");
    }

    #[test]
    fn what_is_no_parent_is_none() {
        for wrong in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-ü",
        ] {
            assert_eq!(Span::of(wrong), None, "{wrong}");
        }
    }
}
