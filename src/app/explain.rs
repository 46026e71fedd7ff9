//! Why a URL is answered as it is: the facts, and the sentences made of them. Looks, and touches nothing.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use serde_json::{Value, json};

use super::explain_catalogue::{Told, tell_catalogue};
use super::locate::{self, Place};
use super::operator::NodeOperator;
use crate::admin::ApiError;
use crate::admin::api::{Explanation, SCHEMA};
use crate::base::clock::Timestamp;
use crate::base::size::render_size;
use crate::cache::verdict::{self, ClientWish, Known, Question, UpstreamState, Verdict};
use crate::cache::{BodyMap, Entry, EntryBody};
use crate::fill::Origin;
use crate::proxy::Kind;
use crate::repository::rules::Effective;
use crate::stage::Catalogues;

/// What is said about a URL, as it grows.
pub(super) struct Story {
    words: Vec<String>,
    facts: serde_json::Map<String, Value>,
}

impl Story {
    pub(super) fn say(&mut self, words: impl Into<String>) {
        self.words.push(words.into());
    }

    pub(super) fn note(&mut self, name: &str, fact: Value) {
        self.facts.insert(name.to_owned(), fact);
    }
}

/// Explains a URL.
pub(super) async fn explain(node: &NodeOperator, url: &str) -> Result<Explanation, ApiError> {
    let (path, _) = locate::canonical(url)?;
    let mut story = Story { words: Vec::new(), facts: serde_json::Map::new() };
    let routes = node.plane.routes();
    if routes.find(&path).is_none() {
        let prefixes: Vec<&str> = routes.all().iter().map(|it| it.prefix.as_str()).collect();
        story
            .say(format!("{path} is no repository's: a request gets 404. There is {}.", prefixes.join(", ")));
        let words = story.words;
        let verdict = "no-repository".to_owned();
        return Ok(Explanation {
            schema: SCHEMA,
            path,
            repository: None,
            key: None,
            verdict,
            words,
            facts: json!({}),
        });
    }
    let place = locate::locate(&routes, url)?;
    let repository = &place.repository;
    story.say(format!("{} belongs to repository {} at {}.", place.path, repository.name, repository.prefix));
    tell_rule(node, &place, &mut story);
    let verdict = match &repository.kind {
        Kind::Directory { .. } => {
            story.say("This node is its master: the file is read from the directory, past the cache.");
            "directory"
        }
        Kind::Upstreams { origin, catalogues } => {
            tell_cached(node, &place, (origin, catalogues.as_ref()), &mut story).await
        }
    };
    let is_cached = matches!(repository.kind, Kind::Upstreams { .. });
    Ok(Explanation {
        schema: SCHEMA,
        repository: Some(repository.name.clone()),
        key: is_cached.then(|| place.key.as_str().to_owned()),
        path: place.path,
        verdict: verdict.to_owned(),
        words: story.words,
        facts: Value::Object(story.facts),
    })
}

fn tell_rule(node: &NodeOperator, place: &Place, story: &mut Story) {
    let rules = match &place.repository.kind {
        Kind::Directory { rules, .. } => rules,
        Kind::Upstreams { origin, .. } => &origin.supply.rules,
    };
    let Some(which) = rules.which(&place.below) else {
        story.say("No rule matches it: what its origin says about freshness counts.");
        return;
    };
    let config = node.reloader.config();
    let configured = config.repositories.iter().find(|it| it.name == place.repository.name);
    if configured.is_some_and(|it| which >= it.rules.len()) {
        let effective = rules.effective(&place.below);
        return story.say(format!("The preset's rule for such names applies: {}.", rule_words(effective)));
    }
    let pattern =
        configured.and_then(|it| it.rules.get(which)).map(|rule| rule.pattern.as_str()).unwrap_or_default();
    let effective = rules.effective(&place.below);
    story.say(format!("Rule {} (match = \"{pattern}\") applies: {}.", which + 1, rule_words(effective)));
    story.note("rule", json!({ "number": which + 1, "match": pattern }));
}

fn rule_words(effective: &Effective) -> String {
    let time = |name: &str, time: Option<Duration>| time.map(|time| format!("{name} {}", span(time)));
    let immutable = effective.immutable.map(|yes| if yes { "immutable" } else { "not immutable" }.to_owned());
    let parts = [
        immutable,
        time("fresh for", effective.fresh_for),
        time("stale-while-revalidate", effective.stale_while_revalidate),
        time("stale-if-error", effective.stale_if_error),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "it leaves everything to the origin".to_owned() } else { parts.join(", ") }
}

async fn tell_cached(
    node: &NodeOperator,
    place: &Place,
    (origin, catalogues): (&Arc<Origin>, Option<&Arc<Catalogues>>),
    story: &mut Story,
) -> &'static str {
    let now = node.clock.now();
    let by_rule = place.repository.effective(&place.below);
    let told = catalogues.map_or(Told::Plain, |it| tell_catalogue(it, place, now, story));
    let (place, effective) = match &told {
        Told::Part(verdict) => return verdict,
        Told::Listed(listed, effective) => (&**listed, effective),
        Told::Plain => (place, by_rule),
    };
    let entry = match node.fills.negative(&place.key) {
        Some(entry) => Some(entry),
        None => node.store.find(place.key.as_str()).await,
    };
    match &entry {
        Some(entry) => {
            tell_entry(node, entry, now, story).await;
            tell_freshness(entry, effective, now, story);
        }
        None => tell_absence(node, place, story).await,
    }
    tell_fill(node, place, story);
    let upstream = tell_upstreams(origin, now, story);
    let question = Question {
        entry: entry.as_ref().map(|entry| Known { prepared: entry.prepared(), stale: entry.stale }),
        effective,
        wish: ClientWish::of(&HeaderMap::new()),
        upstream,
        now,
    };
    let verdict = verdict::decide(&question);
    let reason = verdict.reason().as_str();
    let running = node.fills.is_running(&place.key);
    story.say(format!(
        "A request now: {} ({reason}).",
        what_happens(&verdict, running, node.fills.is_direct(&place.key))
    ));
    reason
}

async fn tell_entry(node: &NodeOperator, entry: &Arc<Entry>, now: Timestamp, story: &mut Story) {
    let head = &entry.head;
    let ago = span(now.since(head.received_at));
    if entry.prepared().is_negative() {
        story.say(format!(
            "{} said {} {ago} ago; that is remembered in memory only.",
            head.source, head.status
        ));
        return;
    }
    let (held, blocks) = match &entry.body {
        EntryBody::Inline(_) => (0, 0),
        EntryBody::Blocks(blocks) => {
            let digests = blocks.iter().map(|block| block.digest).collect();
            (node.store.held(digests).await, blocks.len())
        }
    };
    let size = render_size(entry.length);
    let place = match (blocks, held) {
        (0, _) => "its bytes are in the index".to_owned(),
        (blocks, held) if held == blocks => format!("all {blocks} blocks are here"),
        (blocks, held) => {
            format!("{held} of {blocks} blocks are here, the others are fetched again when they are read")
        }
    };
    story.say(format!(
        "It is stored: {size}, from {}, received or confirmed {ago} ago; {place}.",
        head.source
    ));
    let marks = match (entry.stale, entry.pinned) {
        (true, true) => "It was set stale by an operator, whatever its freshness, and it is pinned.",
        (true, false) => "It was set stale by an operator, whatever its freshness.",
        (false, true) => "It is pinned: evicted last.",
        (false, false) => "",
    };
    if !marks.is_empty() {
        story.say(marks);
    }
    story.note(
        "entry",
        json!({
            "bytes": entry.length, "sha256": entry.digest.to_string(), "source": head.source, "status": head.status,
            "received_at_ms": head.received_at.0, "blocks": blocks, "blocks_held": held, "stale": entry.stale,
            "pinned": entry.pinned, "uses": entry.usage().1,
        }),
    );
}

async fn tell_absence(node: &NodeOperator, place: &Place, story: &mut Story) {
    let Some(partial) = node.store.find_partial(place.key.as_str()).await else {
        return story.say("It is not stored.");
    };
    let BodyMap::Blocks(names) = &partial.body else { return story.say("It is not stored.") };
    let held = names.iter().flatten().count();
    story.say(format!(
        "It is not stored whole: {held} of {} blocks are here from a fetch that ended early, and the next one goes on from them.",
        names.len()
    ));
    story.note("partial", json!({ "blocks": names.len(), "blocks_held": held, "bytes": partial.length }));
}

fn tell_freshness(entry: &Entry, effective: &Effective, now: Timestamp, story: &mut Story) {
    let known = Known { prepared: entry.prepared(), stale: entry.stale };
    let facts = &entry.prepared().freshness;
    let Some(ttl) = verdict::ttl_seconds(&known, effective, now) else {
        story.say("Freshness: by rule it never changes under its name, so time does not make it stale.");
        return story.note("freshness", json!({ "immutable": true }));
    };
    let by = match effective.fresh_for {
        _ if entry.prepared().is_negative() => format!("negative_for {}", span(effective.negative_for)),
        Some(time) => format!("the rule's {} from its receipt", span(time)),
        None => format!(
            "the origin's {}, of which {} were over when it came",
            span(facts.lifetime),
            span(facts.initial_age)
        ),
    };
    let time = span(Duration::from_secs(ttl.unsigned_abs()));
    let is =
        if ttl > 0 { format!("it is fresh for {time} more") } else { format!("it is stale since {time}") };
    story.say(format!("Freshness: {by}; it is {} old, so {is}.", span(facts.age(now))));
    story.note(
        "freshness",
        json!({
            "ttl_seconds": ttl, "age_seconds": facts.age(now).as_secs(), "lifetime_seconds": facts.lifetime.as_secs(),
            "stale_while_revalidate_seconds": effective.stale_while_revalidate(facts).as_secs(),
            "stale_if_error_seconds": effective.stale_if_error(facts).as_secs(),
        }),
    );
}

fn tell_fill(node: &NodeOperator, place: &Place, story: &mut Story) {
    let running = node.fills.list().into_iter().find(|(key, ..)| *key == place.key);
    let Some((_, bytes, length, readers)) = running else { return };
    let of = length.map_or_else(String::new, |length| format!(" of {}", render_size(length)));
    story.say(format!("It is being fetched: {}{of} are here, {readers} read along.", render_size(bytes)));
    story.note("fill", json!({ "bytes": bytes, "length": length, "readers": readers }));
}

fn tell_upstreams(origin: &Origin, now: Timestamp, story: &mut Story) -> UpstreamState {
    let sources = &origin.supply.sources;
    let names: Vec<&str> = sources.all().iter().map(|it| it.name()).collect();
    story.note("upstreams", json!(names));
    match sources.down_until(now) {
        None => {
            story.say(format!("Upstream: {}.", names.join(", then ")));
            UpstreamState::Up
        }
        Some(until) => {
            let left = span(until.since(now));
            story.say(format!(
                "Every upstream is in back-off, the first for {left} more: {}.",
                names.join(", ")
            ));
            UpstreamState::Down
        }
    }
}

fn what_happens(verdict: &Verdict, running: bool, direct: bool) -> String {
    match verdict {
        Verdict::Serve(_) => "is answered from the cache, without asking anybody".to_owned(),
        Verdict::ServeStale { refresh: true, .. } => {
            "is answered from the cache, and upstream is asked behind".to_owned()
        }
        Verdict::ServeStale { .. } => "is answered from the cache although it is stale".to_owned(),
        Verdict::Revalidate(_) => {
            "waits while upstream is asked whether what we have is still right".to_owned()
        }
        Verdict::Fetch(_) if direct => {
            "gets a fetch of its own, because the last answer was for one client only".to_owned()
        }
        Verdict::Fetch(_) if running => "joins the fetch that is under way".to_owned(),
        Verdict::Fetch(_) => "begins a fetch and reads along".to_owned(),
        Verdict::Refuse { .. } if running => {
            "joins the fetch that is under way, although upstream is down".to_owned()
        }
        Verdict::Refuse { status, .. } => format!("gets {status}"),
    }
}

/// A time as people say it, in two units.
pub(super) fn span(time: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let mut left = time.as_secs();
    let mut said = Vec::new();
    for (seconds, unit) in UNITS {
        if left >= seconds && said.len() < 2 {
            said.push(format!("{} {unit}", left / seconds));
            left %= seconds;
        }
    }
    if said.is_empty() { "0 s".to_owned() } else { said.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_two_units() {
        for (seconds, words) in
            [(0, "0 s"), (59, "59 s"), (3_600, "1 h"), (90_061, "1 d 1 h"), (125, "2 min 5 s")]
        {
            assert_eq!(span(Duration::from_secs(seconds)), words);
        }
    }
}
