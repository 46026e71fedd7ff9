//! The service's body on its way into hyper: cut to what a connection may hold, and noted while it is open.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::BoxError;
use super::lane::{Chunk, Lane};
use super::pace::OpenRequest;
use super::rush::{FIRST_BYTES, Rush};
use crate::base::limits::PIECE_BYTES;

/// The body of an answer, or nothing where the server answers by itself.
pub(super) struct Outgoing<B> {
    body: Option<B>,
    /// What is left of a frame that was longer than a piece; HTTP/2 only.
    rest: Bytes,
    /// An error of the body that waits for what came before it to be written.
    error: Option<BoxError>,
    lane: Option<Arc<Lane>>,
    /// Pieces after the first one give way to a crowd of newcomers; each once.
    turn: Turn,
    rush: Arc<Rush>,
    _open: OpenRequest,
}

/// Whether the next piece has given way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It is the first one: it goes.
    First,
    /// It has waited: it goes.
    Ours,
    /// It has to wait if there is a crowd.
    Next,
}

impl<B> Outgoing<B> {
    pub(super) fn new(
        body: Option<B>,
        lane: Option<Arc<Lane>>,
        (open, rush): (OpenRequest, &Arc<Rush>),
    ) -> Self {
        let rush = Arc::clone(rush);
        Self { body, rest: Bytes::new(), error: None, lane, turn: Turn::First, rush, _open: open }
    }

    /// The next piece: on HTTP/1.1 the whole frame, which is written before the next is asked for. h2 keeps what
    /// it is given per stream, so there a frame is at most a piece; as it is while others are waiting, and then the
    /// first one is small.
    fn cut(&mut self, mut bytes: Bytes) -> Chunk {
        let most = match std::mem::replace(&mut self.turn, Turn::Next) {
            Turn::First if self.rush.is_on() => FIRST_BYTES,
            _ if self.lane.is_some() || self.rush.is_on() => PIECE_BYTES,
            _ => usize::MAX,
        };
        if bytes.len() > most {
            self.rest = bytes.split_off(most);
        }
        Chunk::new(bytes, self.lane.as_ref())
    }
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin> Body for Outgoing<B> {
    type Data = Chunk;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, BoxError>>> {
        let this = &mut *self;
        if this.turn == Turn::Next && this.rush.is_on() && !this.is_end_stream() {
            this.turn = Turn::Ours;
            this.rush.give_way(cx.waker());
            return Poll::Pending;
        }
        if !this.rest.is_empty() {
            let rest = std::mem::take(&mut this.rest);
            return Poll::Ready(Some(Ok(Frame::data(this.cut(rest)))));
        }
        if let Some(error) = this.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        Poll::Ready(match ready!(Pin::new(body).poll_frame(cx)) {
            Some(Ok(frame)) => Some(Ok(match frame.into_data() {
                Ok(bytes) => Frame::data(this.cut(bytes)),
                // Ends an HTTP/1.1 body as an empty frame would: nothing is lost, no trailer is ever ours.
                Err(frame) => frame.map_data(|bytes| Chunk::new(bytes, None)),
            })),
            Some(Err(error)) => {
                // hyper throws away what it has buffered when it hears of an error: the head and bytes a client
                // could resume from. A turn of the loop lets it write first.
                this.error = Some(error);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let inner = self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}
