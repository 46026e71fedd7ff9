//! A conversation with one other node: small questions and answers, whole in memory, some of them held for a while.
//!
//! Nothing of the care for files is here (resuming, truth of heads, health): who asks checks what it is told.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, HOST, USER_AGENT};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::client::{no_head, parse_base};
use super::connect::{Dialer, builder};
use super::resolve::Resolver;
use super::tls::Sessions;
use super::{FetchError, Options, Trust, UpstreamError};

/// Connections kept between questions: one for each that is usually held.
const KEPT: usize = 4;

const AGENT: HeaderValue = HeaderValue::from_static(concat!("waypost/", env!("CARGO_PKG_VERSION")));

/// The way to one node.
#[derive(Debug)]
pub struct Link {
    base: String,
    dialer: Dialer,
    kept: Mutex<Vec<Line>>,
}

/// One connection and the task that drives it; dropping it ends both.
#[derive(Debug)]
struct Line {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
    /// It has answered before, so a break may only mean that the other side closed it as idle.
    used: bool,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    /// Checks the options and loads the trust; opens no connection. Of the options, those count that say where it goes,
    /// whom to trust, who we are, and how long connecting may take.
    ///
    /// # Errors
    /// All of them are configuration.
    pub fn new(options: &Options) -> Result<Self, UpstreamError> {
        let (own, base) = parse_base(&options.url)
            .map_err(|problem| UpstreamError::Url { url: options.url.clone(), problem })?;
        let sessions = match (Sessions::of(options), &options.trust) {
            (Err(_), Trust::System) if !own.secure && options.identity.is_none() => None,
            (sessions, _) => Some(sessions?),
        };
        let dialer = Dialer {
            own,
            sessions,
            resolver: Resolver::default(),
            connect_timeout: options.connect_timeout,
            stall_timeout: options.stall_timeout,
        };
        Ok(Self { base, dialer, kept: Mutex::default() })
    }

    /// Asks, and reads the whole answer, of at most `most` bytes, `within` a time. The request's target is relative to the
    /// node's URL. Dropping it closes its connection.
    ///
    /// # Errors
    /// No connection, no answer in time, one that breaks off, or one that is too long.
    pub async fn ask(
        &self,
        request: Request<Bytes>,
        within: Duration,
        most: usize,
    ) -> Result<Response<Bytes>, FetchError> {
        timeout(within, self.exchange(request, most))
            .await
            .unwrap_or(Err(FetchError::FirstByteTimeout(within)))
    }

    async fn exchange(&self, request: Request<Bytes>, most: usize) -> Result<Response<Bytes>, FetchError> {
        let (mut head, body) = request.into_parts();
        let target = format!("{}{}", self.base, head.uri.path().trim_start_matches('/'));
        head.uri = target.parse::<Uri>().map_err(|_| FetchError::Target)?;
        let host = HeaderValue::from_str(&self.dialer.own.authority()).map_err(|_| FetchError::Target)?;
        head.headers.insert(HOST, host);
        head.headers.insert(USER_AGENT, AGENT);
        head.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        loop {
            let mut line = match self.take() {
                Some(line) => line,
                None => self.dial().await?,
            };
            let request = Request::from_parts(head.clone(), Full::new(body.clone()));
            match line.sender.send_request(request).await {
                Ok(response) => {
                    let response = read(response, most).await?;
                    self.keep(line);
                    return Ok(response);
                }
                // Whatever is asked between nodes may be asked again.
                Err(error) if line.used && !error.is_parse() => {}
                Err(error) => return Err(no_head(&self.dialer.own, &error)),
            }
        }
    }

    async fn dial(&self) -> Result<Line, FetchError> {
        let wire = self.dialer.wire(&self.dialer.own).await?;
        let (sender, connection) = builder()
            .handshake(TokioIo::new(wire))
            .await
            .map_err(|error| FetchError::Io(error.to_string()))?;
        // How it ends is also told to the request under way; an idle end interests nobody.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Line { sender, driver, used: false })
    }

    fn take(&self) -> Option<Line> {
        let mut kept = self.kept.lock();
        while let Some(line) = kept.pop() {
            if line.sender.is_ready() {
                return Some(line);
            }
        }
        None
    }

    fn keep(&self, mut line: Line) {
        line.used = true;
        let mut kept = self.kept.lock();
        if kept.len() < KEPT {
            kept.push(line);
        }
    }
}

async fn read(response: Response<Incoming>, most: usize) -> Result<Response<Bytes>, FetchError> {
    let (head, mut body) = response.into_parts();
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| FetchError::Io(error.to_string()))?;
        let Some(data) = frame.data_ref() else { continue };
        if whole.len() + data.len() > most {
            return Err(FetchError::Io(format!("the answer is larger than {most} bytes")));
        }
        whole.extend_from_slice(data);
    }
    Ok(Response::from_parts(head, whole.into()))
}
