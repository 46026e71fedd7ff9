//! Connections kept for the next request.
//!
//! A [`Line`] is one connection and the task that drives it; dropping it ends both. It comes back to the [`Pool`] only
//! by [`Pool::keep`], which is called in one place: at the proven end of a truthful reply.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Connection, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::connect::Wire;
use super::place::Place;

/// Connections kept at most; as many as the usual number of fetches at a time.
const KEPT: usize = 16;
/// Unused for longer, a connection is closed: many servers close theirs at 5 to 75 s, and racing them costs a retry.
const KEPT_FOR: Duration = Duration::from_secs(30);
/// hyper is ready again in the same turn as the body's end is seen; longer means something is still to be read.
const READY_WITHIN: Duration = Duration::from_millis(50);

/// One connection.
#[derive(Debug)]
pub(super) struct Line {
    place: Place,
    sender: SendRequest<Empty<Bytes>>,
    driver: JoinHandle<()>,
    idle_since: Instant,
    /// It has answered before, so a break may only mean that the server closed it as idle.
    pub(super) used: bool,
}

impl Line {
    pub(super) fn new(
        place: Place,
        sender: SendRequest<Empty<Bytes>>,
        connection: Connection<TokioIo<Wire>, Empty<Bytes>>,
    ) -> Self {
        // How it ends is also told to the request or body under way; an idle end interests nobody.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Self { place, sender, driver, idle_since: Instant::now(), used: false }
    }

    /// Sends, and waits for the final reply head.
    pub(super) async fn send(&mut self, request: Request<Empty<Bytes>>) -> hyper::Result<Response<Incoming>> {
        self.sender.send_request(request).await
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The idle connections of one upstream.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Vec<Line>>);

impl Pool {
    /// A connection to `place` that is ready for a request. The newest first: the others may grow old and close.
    pub(super) async fn take(&self, place: &Place) -> Option<Line> {
        loop {
            let mut line = {
                let mut idle = self.0.lock();
                idle.retain(|line| line.idle_since.elapsed() < KEPT_FOR && !line.sender.is_closed());
                let at = idle.iter().rposition(|line| line.place == *place)?;
                idle.remove(at)
            };
            if let Ok(Ok(())) = timeout(READY_WITHIN, line.sender.ready()).await {
                return Some(line);
            }
        }
    }

    /// Keeps `line` for the next request.
    pub(super) fn keep(&self, mut line: Line) {
        line.used = true;
        line.idle_since = Instant::now();
        let mut idle = self.0.lock();
        idle.retain(|line| line.idle_since.elapsed() < KEPT_FOR && !line.sender.is_closed());
        if idle.len() < KEPT && !line.sender.is_closed() {
            idle.push(line);
        }
    }

    /// Connections kept now.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }
}
