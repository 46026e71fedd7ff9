//! The client against scripted origins: lies, timeouts, redirects, TLS, the pool, the health.

mod client;
mod health;
mod lies;
mod redirects;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::health::State;
use super::*;
use crate::base::clock::{Clock, Timestamp};
use crate::protocol::reply::{Lie, ReplyKind};
use crate::testkit::content;
use crate::testkit::corpus::{self, Question, ReplyOutcome};
use crate::testkit::origin::Origin;
use crate::testkit::pki::{Authority, Issued};
use crate::testkit::script::{Framing, Gate, Hold, How, Ranges, Raw, Script};

const SHORT: Duration = Duration::from_millis(300);

fn options(origin: &Origin) -> Options {
    Options { first_byte_timeout: Duration::from_secs(5), ..Options::new(origin.url()) }
}

fn upstream(origin: &Origin) -> Upstream {
    Upstream::new(options(origin), Clock::system()).unwrap()
}

fn ask(path: &str) -> Ask {
    Ask { path: path.to_owned(), ..Ask::default() }
}

fn ask_range(path: &str, start: u64, end: Option<u64>) -> Ask {
    Ask { range: Some(Span { start, end, if_range: None }), ..ask(path) }
}

/// The whole body, or how it broke.
async fn read(reply: &mut Reply) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    while let Some(frame) = reply.frame().await {
        body.extend_from_slice(&frame?);
    }
    Ok(body)
}

async fn fetch(upstream: &Upstream, ask: &Ask) -> Result<Vec<u8>, String> {
    let mut reply = upstream.fetch(ask).await.map_err(|error| error.blame().to_owned())?;
    read(&mut reply).await.map_err(|error| error.blame().to_owned())
}
