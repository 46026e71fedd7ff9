//! Answers that may not be shared: passed through to the one who asked, never stored, never coalesced.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;

use super::Fills;
use super::cause::Cause;
use super::follow::Broken;
use super::job::Job;
use super::open::{Line, ask_all, first_ask};
use crate::protocol::headers::{header_map, storable_headers};
use crate::protocol::reply::ReplyKind;
use crate::upstream::BodyError;

/// The reply that turned out not to be shareable, for whoever of those who waited takes it first.
#[derive(Clone)]
pub struct Parked(Arc<Mutex<Option<Line>>>);

impl Parked {
    pub(super) fn new(line: Line) -> Self {
        Self(Arc::new(Mutex::new(Some(line))))
    }

    /// Takes the reply, if nobody has.
    pub fn take(&self) -> Option<Direct> {
        self.0.lock().take().map(Direct::new)
    }
}

/// One reply for one agent.
pub struct Direct {
    /// 200, 404 or 410.
    pub status: StatusCode,
    /// The fields that may be passed on.
    pub headers: HeaderMap,
    /// Length of the body in bytes, where upstream said it.
    pub length: Option<u64>,
    /// The body.
    pub body: PassBody,
}

impl Direct {
    fn new(line: Line) -> Self {
        let length = match line.reply.kind {
            ReplyKind::Whole { length, .. } => length,
            _ => Some(0),
        };
        Self {
            status: line.reply.status,
            headers: header_map(&storable_headers(&line.reply.headers)),
            length,
            body: PassBody(if length == Some(0) { Passing::Done } else { Passing::Idle(Box::new(line)) }),
        }
    }
}

impl Fills {
    /// Fetches for one agent alone. Upstream's limit on fetches holds all the same.
    ///
    /// # Errors
    /// As for a fill.
    pub async fn direct(&self, job: &Job) -> Result<Direct, Cause> {
        let token = self.0.tokens.issue();
        let mut ask = first_ask(job, None);
        ask.loop_tokens.push(token.as_str().to_owned());
        let line = ask_all(self, job, &ask, &[]).await?;
        Ok(Direct::new(line))
    }
}

/// A body on its way through. An error in it breaks the transfer.
pub struct PassBody(Passing);

type Next = Pin<Box<dyn Future<Output = (Box<Line>, Option<Result<Bytes, BodyError>>)> + Send>>;

enum Passing {
    Idle(Box<Line>),
    Waiting(Next),
    Done,
}

impl PassBody {
    /// The next bytes, as they come.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        loop {
            match std::mem::replace(&mut self.0, Passing::Done) {
                Passing::Idle(mut line) => {
                    self.0 = Passing::Waiting(Box::pin(async move {
                        let frame = line.reply.frame().await;
                        (line, frame)
                    }));
                }
                Passing::Waiting(mut next) => {
                    let Poll::Ready((line, frame)) = next.as_mut().poll(cx) else {
                        self.0 = Passing::Waiting(next);
                        return Poll::Pending;
                    };
                    return Poll::Ready(match frame {
                        Some(Ok(bytes)) => {
                            self.0 = Passing::Idle(line);
                            Some(Ok(bytes))
                        }
                        Some(Err(error)) => Some(Err(Broken(Cause::Broken(error.blame().to_owned())))),
                        None => None,
                    });
                }
                Passing::Done => return Poll::Ready(None),
            }
        }
    }
}
