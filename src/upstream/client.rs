//! One upstream: asks, follows its own redirects, judges, and reports to its health.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderValue, Response, StatusCode, Uri};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::connect::Dialer;
use super::health::Trouble;
use super::meter::Pace;
use super::place::{Place, check_redirect, resolve_location};
use super::pool::{Line, Pool};
use super::reply::Body;
use super::resolve::Resolver;
use super::tls::{Sessions, tls_problem};
use super::{Ask, FetchError, Health, Options, RedirectProblem, Reply, Trust, UpstreamError};
use crate::base::clock::{Clock, Timestamp};
use crate::base::limits;
use crate::protocol::reply::{Lie, ReplyKind, check_reply};

/// Bytes of a refused `Location` that are repeated in the error.
const LOCATION_SHOWN: usize = 200;

/// The right to one fetch of an upstream at a time; dropping it gives the place back.
#[derive(Debug)]
pub struct Permit {
    _place: OwnedSemaphorePermit,
}

/// One source of a repository.
#[derive(Debug)]
pub struct Upstream(Arc<Inner>);

/// What an upstream and the replies it gave share.
#[derive(Debug)]
pub(super) struct Inner {
    name: String,
    base: String,
    via: HeaderValue,
    clock: Clock,
    places: Arc<Semaphore>,
    dialer: Dialer,
    pub(super) options: Options,
    pub(super) health: Health,
    pub(super) pool: Pool,
}

impl Inner {
    /// Reports trouble to the health, now.
    pub(super) fn trouble(&self, trouble: Trouble) {
        if self.health.report_failure(self.clock.now(), trouble) {
            tracing::warn!(upstream = self.name, trouble = trouble.as_str(), "upstream in back-off");
        }
    }

    /// Notes an end of trouble, where a report to the health `closed` the breaker.
    pub(super) fn back(&self, closed: bool) {
        if closed {
            tracing::info!(upstream = self.name, "upstream is back");
        }
    }
}

/// A reply head, the connection its body comes on, and when.
struct Exchange {
    line: Line,
    response: Response<Incoming>,
    requested_at: Timestamp,
}

impl Upstream {
    /// Checks the options and loads the trust; opens no connection.
    ///
    /// # Errors
    /// All of them are configuration: the URL, missing roots, a bad client certificate.
    pub fn new(options: Options, clock: Clock) -> Result<Self, UpstreamError> {
        let (own, base) = parse_base(&options.url)
            .map_err(|problem| UpstreamError::Url { url: options.url.clone(), problem })?;
        // Without TLS of its own, an upstream needs roots only should a redirect lead to https.
        let sessions = match (Sessions::of(&options), &options.trust) {
            (Err(_), Trust::System) if !own.secure && options.identity.is_none() => None,
            (sessions, _) => Some(sessions?),
        };
        let via = HeaderValue::from_str(&format!("1.1 {}", options.node))
            .ok()
            .filter(|_| !options.node.is_empty() && options.node.bytes().all(|byte| byte.is_ascii_graphic()))
            .ok_or_else(|| UpstreamError::Node(options.node.clone()))?;
        Ok(Self(Arc::new(Inner {
            name: format!("{}://{}{base}", own.scheme(), own.authority()),
            base,
            via,
            clock,
            places: Arc::new(Semaphore::new(options.concurrent.clamp(1, Semaphore::MAX_PERMITS))),
            dialer: Dialer {
                own,
                sessions,
                resolver: Resolver::default(),
                connect_timeout: options.connect_timeout,
                stall_timeout: options.stall_timeout,
            },
            options,
            health: Health::default(),
            pool: Pool::default(),
        })))
    }

    /// Its URL with the slash at the end: what logs, metrics and [`Reply::source`] call it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Lower comes first.
    pub fn priority(&self) -> u32 {
        self.0.options.priority
    }

    /// Whether it is worth asking. [`Upstream::fetch`] and [`Reply::frame`] report what they see themselves; report
    /// only what they cannot see (a wrong digest, a mirror with other bytes).
    pub fn health(&self) -> &Health {
        &self.0.health
    }

    /// Waits for one of its `concurrent` places, in order of arrival. `fetch` itself takes none: a fill holds its place
    /// over its whole life, resumes included.
    ///
    /// # Errors
    /// `Overloaded`, only should the places have been closed, which nothing does.
    pub async fn acquire(&self) -> Result<Permit, FetchError> {
        let place = Arc::clone(&self.0.places).acquire_owned().await;
        place.map(|place| Permit { _place: place }).map_err(|_| FetchError::Overloaded)
    }

    /// A place, if one is free.
    ///
    /// # Errors
    /// `Overloaded` if not.
    pub fn try_acquire(&self) -> Result<Permit, FetchError> {
        let place = Arc::clone(&self.0.places).try_acquire_owned();
        place.map(|place| Permit { _place: place }).map_err(|_| FetchError::Overloaded)
    }

    /// Asks, and gives the reply once its head is here and found truthful. Redirects within the configured hosts
    /// are followed; a connection from the pool that turns out dead is replaced once.
    ///
    /// # Errors
    /// See [`FetchError`]; each is already reported to the health.
    pub async fn fetch(&self, ask: &Ask) -> Result<Reply, FetchError> {
        let result = self.follow(ask).await;
        match &result {
            Ok(reply) => self.report_head(&reply.kind),
            Err(error) => self.report_error(error),
        }
        result
    }

    async fn follow(&self, ask: &Ask) -> Result<Reply, FetchError> {
        let inner = &self.0;
        let own = &inner.dialer.own;
        let (mut place, mut target) = (own.clone(), ask.target(&inner.base)?);
        for _ in 0..=limits::REDIRECTS {
            let reply = self.judge(ask, self.exchange(ask, &place, &target).await?)?;
            let ReplyKind::Redirect(location) = &reply.kind else { return Ok(reply) };
            let refuse = |problem| FetchError::Redirect { to: shown(location), problem };
            let (next, next_target) = resolve_location(&place, &target, location)
                .ok_or_else(|| refuse(RedirectProblem::Unusable))?;
            check_redirect(own, &place, &next, &inner.options.redirect_hosts).map_err(refuse)?;
            (place, target) = (next, next_target);
            reply.discard().await;
        }
        Err(FetchError::Redirect { to: shown(target.as_str()), problem: RedirectProblem::TooMany })
    }

    /// One request and its reply head.
    async fn exchange(
        &self,
        ask: &Ask,
        place: &Place,
        target: &PathAndQuery,
    ) -> Result<Exchange, FetchError> {
        let inner = &self.0;
        let mut kept = inner.pool.take(place).await;
        loop {
            let mut line = match kept.take() {
                Some(line) => line,
                None => inner.dialer.dial(place).await?,
            };
            let request = ask.request(place, target, *place == inner.dialer.own, &inner.via)?;
            let requested_at = inner.clock.now();
            // One deadline for the whole head: hyper skips 1xx replies without end.
            match timeout(inner.options.first_byte_timeout, line.send(request)).await {
                Err(_) => return Err(FetchError::FirstByteTimeout(inner.options.first_byte_timeout)),
                Ok(Ok(response)) => return Ok(Exchange { line, response, requested_at }),
                // The server may have closed a kept connection in the moment we took it; a GET may be sent again.
                Ok(Err(error)) if line.used && !error.is_parse() => {}
                Ok(Err(error)) => return Err(no_head(place, &error)),
            }
        }
    }

    /// Lets a truthful head through. A lie drops the connection with the exchange.
    fn judge(&self, ask: &Ask, exchange: Exchange) -> Result<Reply, FetchError> {
        let inner = &self.0;
        let Exchange { line, response, requested_at } = exchange;
        let (head, incoming) = response.into_parts();
        let kind = check_reply(&ask.asked(), head.version, head.status, &head.headers)?;
        let options = &inner.options;
        let pace =
            Pace { stall: options.stall_timeout, min_rate: options.min_rate, window: options.rate_window };
        let mut reply = Reply {
            kind,
            status: head.status,
            headers: head.headers,
            requested_at,
            received_at: inner.clock.now(),
            source: inner.name.clone(),
            body: Some(Body::new(incoming, line, pace, Arc::clone(inner))),
        };
        // A 304 is rarely read to an end that it does not have; its connection is worth keeping all the same.
        reply.settle_if_ended();
        Ok(reply)
    }

    fn report_head(&self, kind: &ReplyKind) {
        match kind {
            ReplyKind::Busy { status, retry_after } => self.report_busy(*status, *retry_after),
            // A body is good at its end only; all others have said what they have to say.
            ReplyKind::Whole { .. } | ReplyKind::Part { .. } | ReplyKind::Redirect(_) => {
                self.0.back(self.0.health.report_head());
            }
            ReplyKind::NotModified | ReplyKind::Absent(_) | ReplyKind::Other(_) => {
                self.0.back(self.0.health.report_ok());
            }
        }
    }

    fn report_busy(&self, status: StatusCode, retry_after: Option<Duration>) {
        match (status.as_u16(), retry_after) {
            // It refuses this file or us, not everybody: other files may well come.
            (401 | 403 | 407 | 421, _) => self.0.back(self.0.health.report_head()),
            (429 | 503, Some(pause)) => self.0.trouble(Trouble::Pause(pause)),
            _ => self.0.trouble(Trouble::Failing),
        }
    }

    fn report_error(&self, error: &FetchError) {
        match error {
            FetchError::Resolve { .. } | FetchError::Connect { .. } | FetchError::Tls { .. } => {
                self.0.trouble(Trouble::Unreachable);
            }
            FetchError::FirstByteTimeout(_) | FetchError::Io(_) | FetchError::Lie(_) => {
                self.0.trouble(Trouble::Failing);
            }
            // It answered; where it sends us is not its health.
            FetchError::Redirect { .. } => self.0.back(self.0.health.report_head()),
            FetchError::Overloaded | FetchError::Target => {}
        }
    }

    #[cfg(test)]
    pub(super) fn kept_connections(&self) -> usize {
        self.0.pool.len()
    }
}

fn shown(location: &str) -> String {
    location.chars().take(LOCATION_SHOWN).collect()
}

pub(super) fn parse_base(url: &str) -> Result<(Place, String), &'static str> {
    if url.contains(['#', '?']) {
        return Err("it must not have a query or fragment");
    }
    let uri: Uri = url.parse().map_err(|_| "it is not a URL")?;
    let scheme = uri.scheme_str().ok_or("it must begin with http:// or https://")?;
    if !matches!(scheme, "http" | "https") {
        return Err("it must begin with http:// or https://");
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("it must not have user info; forward a header instead");
    }
    let place = Place::of(&uri).ok_or("its host or port is none")?;
    let path = uri.path();
    if path.contains("//") || path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err("its path must not have empty or dot segments");
    }
    let base = if path.ends_with('/') { path.to_owned() } else { format!("{path}/") };
    Ok((place, base))
}

/// No reply head on a fresh connection.
pub(super) fn no_head(place: &Place, error: &hyper::Error) -> FetchError {
    if let Some(problem) = tls_problem(error) {
        return FetchError::Tls { host: place.full(), problem };
    }
    if error.is_parse_too_large() {
        return FetchError::Lie(Lie::HeadTooLarge);
    }
    if error.is_parse() {
        return FetchError::Lie(Lie::Garbled);
    }
    let source = std::error::Error::source(error).map(|source| format!(": {source}"));
    FetchError::Io(format!("{error}{}", source.unwrap_or_default()))
}
