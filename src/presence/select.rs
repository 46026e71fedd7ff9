//! Selectors: which agents are meant. Pure.
//!
//! `state=grey,tag=kiosk` is what matches all its terms. A value may have `*`; `!=` is "does not match"; several values
//! of one term are divided by `|`. Of an agent with several tags or addresses, one has to match.

use std::fmt;

use super::agent::Agent;
use super::behind::WORDS;
use super::state::State;

/// Bytes of a selector.
const BYTES: usize = 4 << 10;

/// The field that is not said by the agent itself.
const BEHIND: &str = "behind";

/// What an agent can be selected by.
const FIELDS: [&str; 12] =
    ["id", "state", "contact", "handler", "host", "os", "tree", "tag", "address", "version", "clone", BEHIND];

/// Why a selector is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorError {
    /// What is wrong.
    pub message: String,
    /// What to write.
    pub help: String,
}

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SelectorError {}

#[derive(Clone, Debug)]
struct Term {
    field: String,
    values: Vec<String>,
    negated: bool,
}

/// A selector. The empty one means everybody.
#[derive(Clone, Debug, Default)]
pub struct Selector(Vec<Term>);

impl Selector {
    /// Understands `text`.
    ///
    /// # Errors
    /// The first term that is none, and what could be meant.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > BYTES {
            return Err(wrong("the selector is longer than 4 KiB", "select by tree, tag or state"));
        }
        let terms = text.split(',').map(str::trim).filter(|term| !term.is_empty());
        terms.map(term).collect::<Result<_, _>>().map(Self)
    }

    /// Whether it has to be known what an agent is behind with.
    pub fn asks_behind(&self) -> bool {
        self.0.iter().any(|term| term.field == BEHIND)
    }

    /// Whether an agent that is behind with these (`sitelist`, `policies`, `content`) is meant, as far as that goes.
    pub fn matches_behind(&self, words: &[&str]) -> bool {
        self.0.iter().filter(|term| term.field == BEHIND).all(|term| {
            let found = words.iter().any(|word| term.values.iter().any(|value| glob(value, word)));
            found != term.negated
        })
    }

    /// Whether this agent is meant, but for what it is behind with. `node` is the name of the node it talks to where it
    /// talks to this one.
    pub fn matches(&self, agent: &Agent, node: &str) -> bool {
        self.0.iter().filter(|term| term.field != BEHIND).all(|term| {
            let hit = |text: &str| term.values.iter().any(|value| glob(value, text));
            let told = &agent.told;
            let properties = &told.properties;
            let found = match term.field.as_str() {
                "id" => hit(agent.id.as_str()),
                "state" => {
                    hit(agent.standing.state.as_str())
                        || (agent.standing.state.is_live() && hit("live"))
                        || (agent.cloned && hit("clone"))
                }
                "clone" => hit(if agent.cloned { "true" } else { "false" }),
                "contact" => hit(agent.contact.as_str()),
                "handler" => hit(agent.handler.as_deref().unwrap_or(node)),
                "host" => hit(&properties.host),
                "os" => hit(&properties.os),
                "tree" => hit(properties.tree.as_deref().unwrap_or("/")),
                "tag" => properties.tags.iter().any(|tag| hit(tag)),
                "address" => properties.addresses.iter().any(|address| hit(&address.to_string())),
                "version" => hit(&properties.agent_version),
                catalogue => {
                    let name = catalogue.strip_prefix("content:").unwrap_or_default();
                    told.content.get(name).is_some_and(|version| hit(version))
                }
            };
            found != term.negated
        })
    }
}

fn wrong(message: impl Into<String>, help: impl Into<String>) -> SelectorError {
    SelectorError { message: message.into(), help: help.into() }
}

fn term(text: &str) -> Result<Term, SelectorError> {
    const HELP: &str = "write it like state=grey,tag=kiosk or tree=/emea/*,content:software/av!=5";
    let Some((field, value)) = text.split_once('=') else {
        return Err(wrong(format!("`{text}` selects by nothing"), HELP));
    };
    let negated = field.ends_with('!');
    let field = field.trim_end_matches('!').trim();
    if !FIELDS.contains(&field) && !field.starts_with("content:") {
        let known = FIELDS.join(", ");
        let help = format!("allowed: {known}, content:REPOSITORY/CATALOGUE");
        return Err(wrong(format!("agents cannot be selected by `{field}`"), help));
    }
    let values: Vec<String> = value.split('|').map(|value| value.trim().to_owned()).collect();
    if field == BEHIND {
        let unknown = values.iter().find(|value| !value.contains('*') && !WORDS.contains(&value.as_str()));
        if let Some(unknown) = unknown {
            let help = format!("allowed: {}, or * for any", WORDS.join(", "));
            return Err(wrong(format!("agents are not behind with `{unknown}`"), help));
        }
    }
    if field == "state" {
        let unknown = values
            .iter()
            .find(|value| State::parse(value).is_none() && !matches!(value.as_str(), "live" | "clone" | "*"));
        if let Some(unknown) = unknown {
            let all: Vec<&str> = State::ALL.iter().map(|state| state.as_str()).collect();
            let help = format!("allowed: {}, live, clone", all.join(", "));
            return Err(wrong(format!("there is no state `{unknown}`"), help));
        }
    }
    Ok(Term { field: field.to_owned(), values, negated })
}

/// Whether `text` is `pattern`, in which `*` is anything. In the time of the product of their lengths at most.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut place, mut back) = (0, 0, None);
    while let Some(byte) = text.get(place) {
        match pattern.get(at) {
            Some(b'*') => {
                back = Some((at, place));
                at += 1;
            }
            Some(other) if other == byte => {
                at += 1;
                place += 1;
            }
            _ => {
                let Some((star, from)) = back else { return false };
                back = Some((star, from + 1));
                at = star + 1;
                place = from + 1;
            }
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::presence::AgentId;
    use crate::presence::state::Rules;
    use crate::protocol::agent_api::{CheckIn, Properties};

    fn agent() -> Agent {
        let properties = Properties {
            host: "kiosk-7".to_owned(),
            addresses: vec!["10.1.2.3".parse().unwrap()],
            tree: Some("/emea/berlin".to_owned()),
            tags: vec!["kiosk".to_owned(), "pilot".to_owned()],
            ..Properties::default()
        };
        let content = [("software/av".to_owned(), "5.1".to_owned())].into();
        let told = Box::new(CheckIn { properties, content, ..CheckIn::default() });
        let id = AgentId::parse("pc-7").unwrap();
        Agent { told, ..Agent::new(id, Timestamp(1), &Rules::default()) }
    }

    #[test]
    fn an_agent_is_selected_by_all_terms_and_any_value() {
        let matches = |text: &str| Selector::parse(text).unwrap().matches(&agent(), "branch");
        for yes in [
            "",
            "id=pc-7",
            "id=pc-*,tag=kiosk",
            "tag=server|pilot",
            "tree=/emea/*",
            "address=10.1.*",
            "handler=branch",
            "state=live",
            "state!=grey",
            "content:software/av=5*",
            "content:software/av!=6",
            "clone=false",
        ] {
            assert!(matches(yes), "{yes}");
        }
        for no in ["id=pc", "tag=server", "tag!=kiosk", "tree=/emea", "state=grey", "handler=hq", "host=*8"] {
            assert!(!matches(no), "{no}");
        }
    }

    #[test]
    fn what_is_no_selector_is_told_with_what_could_be_meant() {
        let help = |text: &str| Selector::parse(text).unwrap_err();
        assert!(help("kiosk").help.contains("tag=kiosk"));
        assert!(help("colour=red").help.contains("tree"));
        assert!(help("behind=dat").help.contains("content"));
        assert!(help("state=gray").help.contains("grey"));
        assert!(Selector::parse(&"x".repeat(5_000)).is_err());
    }

    #[test]
    fn who_is_behind_is_selected_by_what_with() {
        let matches = |text: &str, words: &[&str]| {
            let selector = Selector::parse(text).unwrap();
            assert!(selector.asks_behind() && selector.matches(&agent(), "branch"));
            selector.matches_behind(words)
        };
        assert!(matches("behind=content,id=pc-7", &["policies", "content"]));
        assert!(matches("behind=*", &["sitelist"]) && !matches("behind=*", &[]));
        assert!(matches("behind!=*", &[]) && !matches("behind!=*", &["content"]));
        assert!(!matches("behind=sitelist|policies", &["content"]));
        assert!(Selector::default().matches_behind(&["content"]));
    }

    #[test]
    fn stars_match_anything_and_take_no_time() {
        assert!(glob("a*c*", "abbbc"));
        assert!(glob("*", ""));
        assert!(!glob("a*b", "abc"));
        assert!(!glob(&"*a".repeat(50), &"b".repeat(10_000)));
    }
}
