//! The life of a request.
//!
//! door → loop? → route → query → verdict → bytes. Each step takes a value and returns the next; whatever ends
//! early is a [`Reply`] too, so that every request leaves one line and one count.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{AGE, CACHE_CONTROL, CONNECTION, ETAG, LAST_MODIFIED, VIA};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Incoming};
use tokio::time::timeout;

use super::answer::{Answer, Source};
use super::directory::{Directory, DirectoryError};
use super::meter::{Meter, RequestHead};
use super::represent::{Send, Whole, represent};
use super::{Ids, Kind, Plane, QueryMode, Repository, catalogue, refuse, wait};
use crate::base::clock::Timestamp;
use crate::base::limits::{DISCARD_FOR, DISCARDED_BYTES};
use crate::cache::verdict::{Known, ttl_seconds};
use crate::cache::{Entry, Key, Moment};
use crate::fill::Origin;
use crate::protocol::cache_status::{CacheStatus, Fwd};
use crate::protocol::digest_field::repr_digest;
use crate::protocol::headers::loop_tokens;
use crate::protocol::request::{Admitted, Door, Wants, check_request, must_close};
use crate::protocol::target::decode_path;
use crate::protocol::validators::{EntityTag, Validators, render_date};
use crate::repository::rules::{Effective, STALE_IF_ERROR};
use crate::server::Peer;
use crate::stage::KnownFile;
use crate::telemetry::{CacheResult, Span};

pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// A request that came through the door, for one repository.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) plane: &'a Arc<Plane>,
    pub(super) peer: &'a Peer,
    pub(super) repository: &'a Arc<Repository>,
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
    /// What these fields ask.
    pub(super) wants: Wants,
    /// The canonical path, whole.
    pub(super) path: &'a str,
    /// The path below the repository's.
    pub(super) below: &'a str,
    /// The query, where it is part of the name.
    pub(super) query: Option<&'a str>,
    pub(super) effective: &'a Effective,
    /// What is known beforehand about the file.
    pub(super) target: Option<&'a Target>,
    /// What this request is called in a trace, if it is told about.
    pub(super) span: Option<Span>,
    pub(super) now: Timestamp,
}

/// A file whose content is known before it is fetched.
pub(super) struct Target {
    pub(super) file: Arc<KnownFile>,
    /// The generation to ask an upstream node for.
    pub(super) generation: Option<HeaderValue>,
}

/// An answer before it is one.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) source: Source,
    /// Length of the body in bytes, where known.
    pub(super) length: Option<u64>,
    pub(super) result: CacheResult,
    /// The word of the verdict.
    pub(super) verdict: &'static str,
    /// The connection ends with this answer.
    pub(super) close: bool,
    /// `headers` were said before: they have their `Via` already.
    pub(super) said: bool,
}

/// An answer that is there, or one that somebody has to be waited for.
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the usual one: boxing it would cost every hit"
)]
pub(super) enum Served {
    /// What is hot, and what is refused. Taken by the first poll.
    Now(Option<Response<Answer>>),
    /// Boxed: a future has room for the largest thing it may ever wait for, and HTTP/2 moves it several times per
    /// request.
    Later(Pin<Box<dyn Future<Output = Response<Answer>> + std::marker::Send>>),
}

impl Future for Served {
    type Output = Response<Answer>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response<Answer>> {
        match self.get_mut() {
            Self::Now(answer) => answer.take().map_or(Poll::Pending, Poll::Ready),
            Self::Later(answer) => answer.as_mut().poll(cx),
        }
    }
}

/// One request, from its head to the answer's.
pub(super) fn serve(plane: &Arc<Plane>, request: Request<Incoming>, peer: &Arc<Peer>) -> Served {
    let (parts, body) = request.into_parts();
    let id = plane.ids.next();
    let mut meter = Meter::start(plane, &parts, peer, id);
    let parts = meter.keep(parts);
    let door = Door { sni: peer.sni.as_deref(), names: &plane.options.names, body: !body.is_end_stream() };
    let reply = match check_request(&parts, &door) {
        Err(refusal) => {
            plane.metrics.requests_refused.of(refusal.reason.as_str()).inc();
            let reply = refuse::at_the_door(&refusal);
            if door.body && parts.version == Version::HTTP_2 {
                let (plane, peer) = (Arc::clone(plane), Arc::clone(peer));
                return Served::Later(Box::pin(async move {
                    discard(body).await;
                    finish(&plane, (&parts, &peer), reply, (id, meter))
                }));
            }
            reply
        }
        Ok(Admitted { wants, .. }) if wants.looped && plane.fills.is_loop(&loop_tokens(&parts.headers)) => {
            refuse::a_loop()
        }
        Ok(Admitted { target, wants }) => match plane.routes.load().find(target.path()) {
            None => refuse::unknown(),
            Some(repository) => {
                meter.of(repository);
                let place = (target.path(), target.query());
                let asked = Asked::of(plane, (repository, peer), (&*parts, wants), place, meter.span());
                match asked.map_or_else(|| Some(refuse::query()), |asked| at_once(&asked)) {
                    Some(reply) => reply,
                    None => {
                        let target = (target.path().to_owned(), target.query().map(str::to_owned));
                        let place = (Arc::clone(plane), Arc::clone(repository), Arc::clone(peer));
                        let answer = after_a_while(place, target, (parts, wants), (id, meter));
                        return Served::Later(Box::pin(answer));
                    }
                }
            }
        },
    };
    Served::Now(Some(finish(plane, (&parts, peer), reply, (id, meter))))
}

impl<'a> Asked<'a> {
    /// What is asked of a repository: what the query means there, and where the files are. Nothing where it takes no
    /// query and there is one.
    fn of(
        plane: &'a Arc<Plane>,
        (repository, peer): (&'a Arc<Repository>, &'a Peer),
        (parts, wants): (&'a Parts, Wants),
        (path, query): (&'a str, Option<&'a str>),
        span: Option<Span>,
    ) -> Option<Self> {
        let query = match (repository.query, query) {
            (QueryMode::Refuse, Some(_)) => return None,
            (QueryMode::Key, query) => query,
            (QueryMode::Drop | QueryMode::Refuse, _) => None,
        };
        let below = repository.path_of(path).unwrap_or_default();
        Some(Self {
            plane,
            peer,
            repository,
            method: &parts.method,
            headers: &parts.headers,
            wants,
            path,
            below,
            query,
            effective: repository.effective(below),
            target: None,
            span,
            now: plane.clock.now(),
        })
    }
}

/// An answer without waiting for anybody: the way of nearly every request.
fn at_once(asked: &Asked<'_>) -> Option<Reply> {
    match &asked.repository.kind {
        Kind::Upstreams { origin, catalogues: Some(catalogues) } => catalogue::hot(asked, origin, catalogues),
        Kind::Upstreams { origin, catalogues: None } => wait::hot(asked, origin),
        Kind::Directory { .. } => None,
    }
}

/// An answer for which the store, a disk or an upstream has to be waited for.
async fn after_a_while(
    (plane, repository, peer): (Arc<Plane>, Arc<Repository>, Arc<Peer>),
    (path, query): (String, Option<String>),
    (parts, wants): (RequestHead, Wants),
    (id, meter): (u64, Meter),
) -> Response<Answer> {
    let place = (path.as_str(), query.as_deref());
    let reply = match Asked::of(&plane, (&repository, &peer), (&*parts, wants), place, meter.span()) {
        None => refuse::query(),
        Some(asked) => match &repository.kind {
            Kind::Upstreams { origin, catalogues: Some(catalogues) } => {
                catalogue::serve(&asked, origin, catalogues).await
            }
            Kind::Upstreams { origin, catalogues: None } => wait::cached(&asked, origin).await,
            Kind::Directory { directory, .. } => from_directory(&asked, directory).await,
        },
    };
    finish(&plane, (&parts, &peer), reply, (id, meter))
}

/// Reads what is left of a refused request: h2 resets a stream that is answered before its end, and a client that
/// still sends takes the reset for the answer. Over HTTP/1 the connection closes, and lingers for the same reason.
async fn discard(mut body: Incoming) {
    let rest = async {
        let mut total = 0;
        while let Some(Ok(frame)) = body.frame().await {
            total += frame.data_ref().map_or(0, |data| data.len() as u64);
            if total > DISCARDED_BYTES {
                return;
            }
        }
    };
    // Whether it ended or was too long or too slow: the answer is the same.
    let _ = timeout(DISCARD_FOR, rest).await;
}

/// What every answer has in common, whatever it is.
fn finish(
    plane: &Plane,
    (parts, peer): (&Parts, &Peer),
    mut reply: Reply,
    (id, mut meter): (u64, Meter),
) -> Response<Answer> {
    if plane.passers.is_wanted()
        && meter.has_repository()
        && (reply.status.is_success() || reply.status == StatusCode::NOT_MODIFIED)
    {
        plane.passers.came(peer, &parts.headers, plane.clock.now());
    }
    if parts.method == Method::HEAD {
        // hyper leaves it out over HTTP/1 only.
        reply.source = Source::Nothing;
    }
    reply.close |= must_close(parts);
    if !reply.said {
        reply.headers.insert(VIA, plane.via.clone());
    }
    let mut id = Ids::value(id);
    // Different each time: not worth a place in the table of HPACK, where it would push the others out.
    id.set_sensitive(true);
    reply.headers.insert(REQUEST_ID, id);
    if reply.close {
        reply.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    meter.judged(reply.status, reply.result, reply.verdict);
    if matches!(reply.source, Source::Nothing) {
        meter.bodiless();
        reply.length = Some(0);
    }
    let mut response = Response::new(Answer::new(reply.source, reply.length, meter));
    *response.status_mut() = reply.status;
    if parts.version == Version::HTTP_10 {
        // Else hyper says `keep-alive` beside our `close` to a client that asked for it.
        *response.version_mut() = Version::HTTP_10;
    }
    *response.headers_mut() = reply.headers;
    response
}

/// An answer from a stored entry.
pub(super) fn from_entry(
    asked: &Asked<'_>,
    origin: &Arc<Origin>,
    entry: &Arc<Entry>,
    (result, verdict): (CacheResult, &'static str),
    status: CacheStatus<'_>,
) -> Reply {
    let prepared = entry.prepared();
    if prepared.is_negative() {
        return refuse::absent(asked, entry, (result, verdict), &status);
    }
    asked.plane.store.note_use(entry);
    let age = prepared.freshness.age(asked.now).as_secs();
    let ttl = ttl_seconds(&Known { prepared, stale: entry.stale }, asked.effective, asked.now);
    // Hits that ask for the file and nothing else differ by these only, and most differ from the last one in nothing.
    let moment =
        (asked.wants.is_plain() && result == CacheResult::Hit).then_some(Moment { age, ttl, word: verdict });
    if let Some(headers) = moment.and_then(|moment| prepared.said(&moment)) {
        let send = if asked.method == Method::HEAD { Send::Nothing } else { Send::Whole };
        let (source, length) = (Source::stored(entry, origin, send), Some(entry.length));
        return Reply {
            status: StatusCode::OK,
            headers,
            source,
            length,
            result,
            verdict,
            close: false,
            said: true,
        };
    }
    let mut headers = prepared.template.clone();
    let whole = Whole { validators: &prepared.validators, length: Some(entry.length) };
    let (code, send, length) = represent(asked, &whole, &mut headers);
    headers.insert(AGE, HeaderValue::from(age));
    headers.insert(CACHE_STATUS, CacheStatus { ttl, ..status }.render());
    if let Some(moment) = moment {
        headers.insert(VIA, asked.plane.via.clone());
        prepared.keep_said(moment, &headers);
    }
    let source = Source::stored(entry, origin, send);
    Reply { status: code, headers, source, length, result, verdict, close: false, said: false }
}

/// An answer from a file of a directory.
async fn from_directory(asked: &Asked<'_>, directory: &Directory) -> Reply {
    let file = match directory.open_file(&decode_path(asked.below)).await {
        Ok(file) => file,
        Err(DirectoryError::NotFound | DirectoryError::Denied) => return refuse::not_here(),
        Err(error) => {
            tracing::error!(repository = asked.repository.name, path = asked.path, %error, "a file cannot be served");
            return refuse::try_again("the file cannot be read at the moment", "unreadable");
        }
    };
    let mut headers = HeaderMap::with_capacity(16);
    let tag = file.entity_tag();
    if let Ok(value) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, value);
    }
    if let Some(date) = render_date(file.modified()) {
        headers.insert(LAST_MODIFIED, date);
    }
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(file.media_type()));
    headers.insert(http::header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CACHE_CONTROL, cache_control(asked.effective));
    headers.insert(REPR_DIGEST, repr_digest(&file.digest()));
    let status = CacheStatus {
        node: &asked.plane.options.node,
        fwd: Some(Fwd::Bypass),
        detail: Some("directory"),
        ..CacheStatus::default()
    };
    headers.insert(CACHE_STATUS, status.render());
    let validators = Validators {
        etag: EntityTag::parse(tag.as_bytes()),
        last_modified: Some(file.modified()),
        date: Some(asked.now),
    };
    let whole = Whole { validators: &validators, length: Some(file.length()) };
    let (code, send, length) = represent(asked, &whole, &mut headers);
    let source = if send == Send::Nothing { Source::Nothing } else { Source::file(file, send) };
    Reply {
        status: code,
        headers,
        source,
        length,
        result: CacheResult::Bypass,
        verdict: "directory",
        close: false,
        said: false,
    }
}

/// What a master tells the caches in front of it: how long the rule says, or to ask each time. Never `no-cache`,
/// which would forbid them to go on with what they have while the WAN is down (RFC 9111 §4.2.4).
fn cache_control(effective: &Effective) -> HeaderValue {
    if effective.immutable == Some(true) {
        return HeaderValue::from_static("public, max-age=31536000, immutable");
    }
    let mut words = format!("public, max-age={}", effective.fresh_for.unwrap_or_default().as_secs());
    // Without a rule it has to be said: else the default of the cache in front serves the old one for a minute more.
    let unruled = effective.fresh_for.is_none().then_some(Duration::ZERO);
    if let Some(time) = effective.stale_while_revalidate.or(unruled) {
        words.push_str(&format!(", stale-while-revalidate={}", time.as_secs()));
    }
    let stale_if_error = effective.stale_if_error.unwrap_or(STALE_IF_ERROR);
    words.push_str(&format!(", stale-if-error={}", stale_if_error.as_secs()));
    HeaderValue::from_str(&words).unwrap_or(HeaderValue::from_static("public, max-age=0"))
}

/// The key of what is asked for.
pub(super) fn key_of(asked: &Asked<'_>) -> Key {
    match asked.target {
        Some(target) => target.file.key.clone(),
        None => Key::new(&asked.repository.name, asked.path, asked.query),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::rules::{Rule, Rules};

    #[test]
    fn a_master_lets_the_caches_in_front_of_it_go_on_without_it() {
        let words = |rule: Rule| {
            let rules = Rules::compile(vec![Rule { pattern: "**".to_owned(), ..rule }]).unwrap();
            cache_control(rules.effective("a")).to_str().unwrap().to_owned()
        };
        assert_eq!(
            words(Rule::default()),
            "public, max-age=0, stale-while-revalidate=0, stale-if-error=604800"
        );
        let rule = Rule {
            fresh_for: Some(Duration::from_secs(60)),
            stale_while_revalidate: Some(Duration::from_secs(5)),
            stale_if_error: Some(Duration::ZERO),
            ..Rule::default()
        };
        assert_eq!(words(rule), "public, max-age=60, stale-while-revalidate=5, stale-if-error=0");
        let immutable = Rule { immutable: Some(true), ..Rule::default() };
        assert_eq!(words(immutable), "public, max-age=31536000, immutable");
    }
}
