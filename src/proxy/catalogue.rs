//! Answers of a repository whose catalogues are known: catalogue files out of one generation, listed files held to
//! what it says, and everything else by the rules.

use std::sync::Arc;
use std::time::Duration;

use http::header::{AGE, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, IF_NONE_MATCH, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use super::answer::Source;
use super::represent::{Send, Whole, represent};
use super::serve::{Asked, CACHE_STATUS, Reply, Target, from_entry};
use super::{refuse, wait};
use crate::cache::verdict::{ClientWish, Reason};
use crate::fill::Origin;
use crate::protocol::validators::Validators;
use crate::repository::rules::{Effective, REVALIDATE_AT_MOST};
use crate::stage::{Catalogues, GENERATION, ListedFile, PartOf, Place, Scope, Visitor};
use crate::telemetry::CacheResult;

/// How long a request for a catalogue waits for upstream's word on it where there is one to give meanwhile.
const QUICK: Duration = Duration::from_millis(1_500);

/// How long a request waits for a catalogue that has never been read. Agents give up at 30 seconds.
const COLD: Duration = Duration::from_secs(20);

/// What is listed is known by its content: it cannot change.
static LISTED: Effective = Effective::immutable();

/// Who asks.
fn visitor<'a>(asked: &Asked<'a>) -> Visitor<'a> {
    let field = |name| asked.headers.get(name).and_then(|value| value.to_str().ok());
    Visitor {
        connection: asked.peer.connection,
        address: asked.peer.address.ip(),
        agent: field(USER_AGENT),
        generation: asked.headers.get(GENERATION).and_then(|value| value.to_str().ok()),
        observer: false,
    }
}

/// Answers what is in memory and right, without waiting for anything.
pub(super) fn hot(asked: &Asked<'_>, origin: &Arc<Origin>, catalogues: &Catalogues) -> Option<Reply> {
    if asked.query.is_some() {
        return wait::hot(asked, origin);
    }
    match catalogues.locate(asked.below, &visitor(asked)) {
        Place::Plain if catalogues.preset().is_delta(asked.below) => None,
        Place::Plain => wait::hot(asked, origin),
        Place::Listed(file) => {
            let entry = asked.plane.store.hot(file.file.key.as_str())?;
            let asked = Asked { effective: &LISTED, ..*asked };
            let status = wait::hit(&asked, Reason::Hit);
            Some(from_entry(&asked, origin, &entry, (CacheResult::Hit, Reason::Hit.as_str()), status))
        }
        Place::Part(part) if !is_doubtful(asked, &part) => Some(from_part(asked, origin, catalogues, &part)),
        Place::Part(_) | Place::Unstaged(_) | Place::Withdrawn(_) => None,
    }
}

/// Answers whatever it takes to.
pub(super) async fn serve(asked: &Asked<'_>, origin: &Arc<Origin>, catalogues: &Catalogues) -> Reply {
    if asked.query.is_some() {
        return wait::cached(asked, origin).await;
    }
    let visitor = visitor(asked);
    let mut place = catalogues.locate(asked.below, &visitor);
    if let Place::Part(part) = &place
        && is_doubtful(asked, part)
        && origin.supply.sources.down_until(asked.now).is_none()
    {
        // One look for everybody who asks meanwhile; upstream being slow costs nobody more than this.
        catalogues.staged(&part.scope, QUICK).await;
        place = catalogues.locate(asked.below, &visitor);
    }
    let patience = Instant::now() + COLD;
    while let Place::Unstaged(scope) = &place {
        let left = patience.saturating_duration_since(Instant::now());
        if left.is_zero() || scope.is_hopeless() {
            break;
        }
        catalogues.staged(scope, left).await;
        place = catalogues.locate(asked.below, &visitor);
    }
    match place {
        Place::Part(part) => from_part(asked, origin, catalogues, &part),
        Place::Listed(file) => listed(asked, origin, catalogues, file).await,
        Place::Withdrawn(part) if part.is_root => not_offered(asked, catalogues, &part.scope),
        Place::Withdrawn(_) => refuse::try_again("this repository is too old to be used\n", "too-old"),
        Place::Unstaged(scope) if catalogues.preset().is_catalogue(asked.below) => {
            not_offered(asked, catalogues, &scope)
        }
        Place::Unstaged(_) | Place::Plain => plain(asked, origin, catalogues).await,
    }
}

/// Whether upstream should be asked before this root goes out: nobody has for long, or the client insists.
fn is_doubtful(asked: &Asked<'_>, part: &PartOf) -> bool {
    if !part.is_root {
        return false;
    }
    let age = asked.now.since(part.generation.confirmed_at());
    part.is_due
        || (age >= REVALIDATE_AT_MOST && asked.wants.freshness && ClientWish::of(asked.headers).insists())
}

/// A catalogue file out of its generation.
fn from_part(asked: &Asked<'_>, origin: &Arc<Origin>, catalogues: &Catalogues, part: &PartOf) -> Reply {
    let (entry, prepared) = (&part.entry, part.entry.prepared());
    let mut headers = prepared.template.clone();
    // Two publications within one second have the same date: then only the tag tells them apart.
    let validators = if part.is_date_shared && !asked.headers.contains_key(IF_NONE_MATCH) {
        Validators { last_modified: None, ..prepared.validators.clone() }
    } else {
        prepared.validators.clone()
    };
    let whole = Whole { validators: &validators, length: Some(entry.length) };
    let (status, send, length) = represent(asked, &whole, &mut headers);
    let age = asked.now.since(part.generation.confirmed_at());
    headers.insert(AGE, HeaderValue::from(age.as_secs()));
    let reason = if part.is_due { Reason::GenerationUnconfirmed } else { Reason::Generation };
    headers.insert(CACHE_STATUS, wait::hit(asked, reason).render());
    headers.insert(GENERATION, generation_field(part, age));
    if asked.method == Method::GET && send == Send::Whole {
        count_waste(asked, catalogues, length);
    }
    if part.is_root {
        let version = || part.generation.version_text();
        let who = (asked.peer, asked.headers, asked.now);
        asked.plane.passers.took(who, asked.repository, &part.scope.root, version);
    }
    let result = if part.is_due { CacheResult::Stale } else { CacheResult::Hit };
    let source = Source::stored(entry, origin, send);
    Reply { status, headers, source, length, result, verdict: reason.as_str(), close: false, said: false }
}

/// `id="…", age=…` and the version: which edition of the repository this is, and how long ago upstream last said that
/// it is the newest.
fn generation_field(part: &PartOf, age: Duration) -> HeaderValue {
    let generation = &part.generation;
    let version = generation.version.as_ref().map(|it| it.text.as_str()).unwrap_or_default();
    let safe = |letter: &char| letter.is_ascii_graphic() && !matches!(letter, '"' | '\\');
    let version: String = version.chars().filter(safe).take(64).collect();
    let text = format!("id=\"{}\", version=\"{version}\", age={}", generation.id, age.as_secs());
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("id=\"\""))
}

/// A file that a catalogue or its own name proves.
async fn listed(asked: &Asked<'_>, origin: &Arc<Origin>, catalogues: &Catalogues, file: ListedFile) -> Reply {
    if catalogues.preset().is_delta(asked.below) {
        catalogues.follow_chain(asked.below);
    }
    catalogues.adopt(&file).await;
    let target = Target {
        file: Arc::clone(&file.file),
        generation: file.generation.as_ref().and_then(|it| HeaderValue::from_str(&it.id).ok()),
    };
    let held = Asked { effective: &LISTED, target: Some(&target), ..*asked };
    let reply = wait::cached(&held, origin).await;
    if reply.status.is_server_error()
        && let Some(scope) = &file.scope
    {
        // The catalogue and what upstream has do not fit: maybe there is a newer one.
        catalogues.doubt(scope);
    }
    if reply.status == StatusCode::OK && asked.method == Method::GET {
        count_waste(asked, catalogues, reply.length);
    }
    reply
}

/// Whoever takes an increment has the version that it leads to, and need not ask for the catalogue itself.
fn took_delta(asked: &Asked<'_>, catalogues: &Catalogues) {
    let preset = catalogues.preset();
    if let (Some(root), Some(version)) = (preset.root_of(asked.below), preset.version_of_delta(asked.below)) {
        let who = (asked.peer, asked.headers, asked.now);
        asked.plane.passers.took(who, asked.repository, &root, || version.to_string());
    }
}

/// A file no catalogue speaks about.
async fn plain(asked: &Asked<'_>, origin: &Arc<Origin>, catalogues: &Catalogues) -> Reply {
    if !catalogues.preset().is_delta(asked.below) {
        let reply = wait::cached(asked, origin).await;
        if reply.status == StatusCode::OK && asked.method == Method::GET {
            count_waste(asked, catalogues, reply.length);
        }
        return reply;
    }
    catalogues.follow_chain(asked.below);
    // It may be published any moment: everybody who asks has upstream asked.
    let effective = Effective { negative_for: Duration::ZERO, ..*asked.effective };
    let reply = wait::cached(&Asked { effective: &effective, ..*asked }, origin).await;
    if reply.status == StatusCode::NOT_FOUND {
        catalogues.note_missing_delta(asked.below, &visitor(asked));
    } else if reply.status == StatusCode::OK {
        took_delta(asked, catalogues);
    }
    reply
}

fn count_waste(asked: &Asked<'_>, catalogues: &Catalogues, length: Option<u64>) {
    if let (Some(missed), Some(length)) = (catalogues.take_missed(asked.below, &visitor(asked)), length) {
        catalogues.note_waste(missed, length);
    }
}

/// There is no catalogue to give: agents are told to go elsewhere in the words of their kind of repository.
fn not_offered(asked: &Asked<'_>, catalogues: &Catalogues, scope: &Scope) -> Reply {
    let is_root = catalogues.preset().fold(asked.below) == catalogues.preset().fold(&scope.root);
    if let Some((media, text)) = catalogues.preset().not_offered().filter(|_| is_root) {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(CACHE_STATUS, wait::hit(asked, Reason::NotOffered).render());
        let (source, length) =
            (Source::Bytes(bytes::Bytes::from_static(text.as_bytes())), Some(text.len() as u64));
        let (status, verdict) = (StatusCode::OK, Reason::NotOffered.as_str());
        let result = CacheResult::Error;
        return Reply { status, headers, source, length, result, verdict, close: false, said: false };
    }
    match scope.why_not() {
        Some(trouble) => refuse::failed(asked, &trouble.cause()),
        None => refuse::try_again("the catalogue is being read; try again\n", Reason::NotOffered.as_str()),
    }
}
