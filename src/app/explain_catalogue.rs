//! What a repository's catalogue makes of a file, in words.

use serde_json::json;

use super::explain::{Story, span};
use super::locate::Place;
use crate::base::clock::Timestamp;
use crate::base::size::render_size;
use crate::repository::rules::Effective;
use crate::stage::{self, Catalogues, ListedFile, PartOf, Visitor};

/// How a file is answered, as far as the catalogue says.
pub(super) enum Told {
    /// Out of the generation: nothing else counts.
    Part(&'static str),
    /// By what is listed: the place to look at instead.
    Listed(Box<Place>, Effective),
    /// By the rules.
    Plain,
}

/// Tells what the catalogue says about a file.
pub(super) fn tell_catalogue(
    catalogues: &Catalogues,
    place: &Place,
    now: Timestamp,
    story: &mut Story,
) -> Told {
    match catalogues.locate(&place.below, &Visitor::observer()) {
        stage::Place::Part(part) => Told::Part(tell_part(&part, now, story)),
        stage::Place::Withdrawn(part) => {
            tell_part(&part, now, story);
            story.say("It is older than stop_after: a request now is sent elsewhere (not-offered).");
            Told::Part("not-offered")
        }
        stage::Place::Listed(file) => {
            tell_listed(&file, now, story);
            let listed = Place {
                repository: place.repository.clone(),
                path: place.path.clone(),
                below: place.below.clone(),
                query: None,
                key: file.file.key.clone(),
            };
            Told::Listed(Box::new(listed), Effective::immutable())
        }
        stage::Place::Unstaged(scope) => {
            story.say(format!(
                "Its catalogue, {}, has not been read yet: the first request has it read and waits for it.",
                scope.root
            ));
            Told::Plain
        }
        stage::Place::Plain => {
            story.say("No generation that is kept here lists it: it goes by the rules.");
            Told::Plain
        }
    }
}

fn tell_generation(generation: &stage::Generation, now: Timestamp, story: &mut Story) {
    let version = generation.version.as_ref().map_or_else(String::new, |it| format!(", version {}", it.text));
    let shown = span(now.since(generation.staged_at));
    let confirmed = span(now.since(generation.confirmed_at()));
    story.say(format!(
        "Generation {}{version}: read from {}, shown since {shown}, confirmed by upstream {confirmed} ago; it names {} \
         files.",
        generation.id,
        generation.source,
        generation.len()
    ));
    story.note(
        "generation",
        json!({
            "id": &*generation.id,
            "version": generation.version.as_ref().map(|it| it.text.as_str()),
            "source": generation.source,
            "shown_at_ms": generation.staged_at.0,
            "confirmed_at_ms": generation.confirmed_at().0,
            "files": generation.len(),
        }),
    );
}

fn tell_part(part: &PartOf, now: Timestamp, story: &mut Story) -> &'static str {
    tell_generation(&part.generation, now, story);
    story.say(format!(
        "It is a catalogue file of this generation ({}): a request now gets these bytes, whatever upstream has, unless it \
         began with an earlier generation.",
        render_size(part.entry.length)
    ));
    if let Some(trouble) = part.scope.why_not() {
        story.say(format!("Nothing newer is shown because of this: {trouble} ({}).", trouble.word()));
    }
    if part.is_due { "generation-unconfirmed" } else { "generation" }
}

fn tell_listed(file: &ListedFile, now: Timestamp, story: &mut Story) {
    match &file.generation {
        Some(generation) => tell_generation(generation, now, story),
        None => story.say("Its own name says its digest."),
    }
    let file = &file.file;
    let length = file.expect.length.map_or_else(|| "a size that is not listed".to_owned(), render_size);
    let word = file.expect.word().unwrap_or_default();
    story.say(format!(
        "It is listed with {length} and {word}: nothing else is stored or served under its name."
    ));
    story.note("listed", json!({ "bytes": file.expect.length, "digest": word, "asked_as": &*file.ask }));
}
