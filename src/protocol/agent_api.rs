//! The JSON of the agents' API under `/agent/v1/`: what an agent and its handler say to each other.
//!
//! Types only, shared by both sides. Unknown fields are ignored and unknown words fall into an `Unknown` variant, so
//! that either side may be the older one. What arrives is bounded by [`CheckIn::check`], which the handler asks
//! before it keeps anything of it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Bytes in a check-in's body; more is 413.
pub const CHECK_IN_BYTES: usize = 64 << 10;

/// How an agent stays in contact between its check-ins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Contact {
    /// A WebSocket that is held open.
    Stream,
    /// Long polls, one after the other.
    Tunnel,
    /// Not at all; also what a word means that we do not know.
    #[default]
    #[serde(other)]
    Checkin,
}

impl Contact {
    /// All of them, in the order of their value.
    pub const ALL: [Self; 3] = [Self::Stream, Self::Tunnel, Self::Checkin];

    /// The word in JSON, metrics and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Tunnel => "tunnel",
            Self::Checkin => "checkin",
        }
    }
}

/// What an agent says of its machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Properties {
    /// Its host name.
    pub host: String,
    /// Its operating system, in its own words.
    pub os: String,
    /// Its addresses, as it sees them.
    pub addresses: Vec<IpAddr>,
    /// Its place in the system tree, such as `/emea/berlin`.
    pub tree: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// The version of the agent itself.
    pub agent_version: String,
}

/// `POST /agent/v1/checkin`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckIn {
    /// Grows with every check-in of one boot.
    pub sequence: u64,
    /// What was drawn at random when the agent started, in hex. Sequences of different boots are not compared.
    pub boot: String,
    /// The machine.
    #[serde(default)]
    pub properties: Properties,
    /// Installed content, by `repository/catalogue`: its version.
    #[serde(default)]
    pub content: BTreeMap<String, String>,
    /// The ETag of the sitelist it uses.
    #[serde(default)]
    pub sitelist: Option<String>,
    /// The policies it has, by `category/name`: their SHA-256 in hex.
    #[serde(default)]
    pub policies: BTreeMap<String, String>,
    /// How it stays in contact.
    #[serde(default)]
    pub contact: Contact,
}

/// A newer sitelist.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SitelistNews {
    /// Its ETag.
    pub etag: String,
    /// Where it is: a path of this handler.
    pub url: String,
}

/// One policy the agent should have.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PolicyNews {
    /// Its category.
    pub category: String,
    /// Its name.
    pub name: String,
    /// The SHA-256 of its body, in hex.
    pub sha256: String,
}

/// What an agent is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActionKind {
    /// Check in now.
    Wake,
    /// Update now.
    Update,
    /// A word that we do not know: leave it.
    #[serde(other)]
    Unknown,
}

/// A pending action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// Its number; it may come again until it has been answered by a check-in.
    pub id: u64,
    /// What to do.
    pub kind: ActionKind,
}

/// The answer to a check-in: durable, and what has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedIn {
    /// The sequence of the check-in, which is on disk now.
    pub acknowledged: u64,
    /// The newer sitelist; nothing where the agent has it.
    #[serde(default)]
    pub sitelist: Option<SitelistNews>,
    /// All policies the agent should have; nothing where it has exactly them.
    #[serde(default)]
    pub policies: Option<Vec<PolicyNews>>,
    /// When to check in next, in seconds from now.
    pub next_checkin_s: u64,
    /// What to do.
    #[serde(default)]
    pub actions: Vec<Action>,
}

/// The 409 to a check-in that is not newer than one of the same boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldSequence {
    /// The least sequence that would be taken.
    pub expected: u64,
}

/// What a handler says over the channel, one JSON text frame each, and in the answer to a poll.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Message {
    /// Check in now; a new sitelist is used at once.
    Wake {
        /// The number of the action.
        id: u64,
    },
    /// The sitelist of this agent is another one: fetched with the next check-in, or now.
    SitelistChanged,
    /// The handler is going away in an orderly way: go to the next one.
    Shutdown,
    /// A word that we do not know: leave it.
    #[serde(other)]
    Unknown,
}

/// `POST /agent/v1/poll`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Poll {
    /// The last `Wake` the agent has seen: it is not told again.
    pub seen: Option<u64>,
}

/// The answer to a poll: at once if there is something to say, else empty after the time it is held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Polled {
    /// In the order in which they came up.
    pub messages: Vec<Message>,
}

/// `GET /agent/v1/probe`: what the handler sees of the connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probed {
    /// The handler's name.
    pub node: String,
    /// The address the connection comes from.
    pub address: IpAddr,
    /// Routers between the agent and the handler, if that can be told.
    #[serde(default)]
    pub hops: Option<u8>,
    /// The received TTL or hop limit it is told from.
    #[serde(default)]
    pub ttl: Option<u8>,
    /// How busy the handler is, 0 to 1.
    #[serde(default)]
    pub load: f64,
    /// Whether agents should be sent here.
    #[serde(default)]
    pub state: HandlerState,
}

/// Whether agents should be sent to a handler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HandlerState {
    /// It is going to end: only those that have no other.
    Draining,
    /// Yes; also what a word means that we do not know.
    #[default]
    #[serde(other)]
    Active,
}

/// The routers between us and who sent a packet that arrived with this TTL: what is missing to the next of the usual
/// initial values 64, 128 and 255 (Linux and macOS, Windows, network gear).
pub const fn hops(ttl: u8) -> u8 {
    let from = match ttl {
        0..=64 => 64,
        65..=128 => 128,
        _ => 255,
    };
    from - ttl
}

/// Which bound a check-in breaks. A real agent stays far below all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    /// The field.
    pub field: &'static str,
    /// What would be allowed.
    pub most: usize,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is longer than {}, or not what it should be", self.field, self.most)
    }
}

impl std::error::Error for Excess {}

/// Bytes in any one text of a check-in.
const TEXT_BYTES: usize = 255;
/// Bytes in a boot: 256 bits in hex.
const BOOT_BYTES: usize = 64;
/// Addresses of one machine.
const ADDRESSES: usize = 32;
/// Tags of one agent.
const TAGS: usize = 64;
/// Catalogues, and policies, of one agent.
const NAMED: usize = 256;

impl CheckIn {
    /// Whether every part is within its bound, and the boot is hex: what is kept of an agent stays small.
    ///
    /// # Errors
    /// The first part that is not; the answer is 400.
    pub fn check(&self) -> Result<(), Excess> {
        let text = |field, text: &str, most| {
            let good = text.len() <= most && !text.chars().any(char::is_control);
            if good { Ok(()) } else { Err(Excess { field, most }) }
        };
        let many =
            |field, count: usize, most| if count <= most { Ok(()) } else { Err(Excess { field, most }) };
        let Properties { host, os, addresses, tree, tags, agent_version } = &self.properties;
        text("boot", &self.boot, BOOT_BYTES)?;
        if self.boot.is_empty() || !self.boot.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Excess { field: "boot", most: BOOT_BYTES });
        }
        text("host", host, TEXT_BYTES)?;
        text("os", os, TEXT_BYTES)?;
        text("agent_version", agent_version, TEXT_BYTES)?;
        text("tree", tree.as_deref().unwrap_or_default(), TEXT_BYTES)?;
        text("sitelist", self.sitelist.as_deref().unwrap_or_default(), TEXT_BYTES)?;
        many("addresses", addresses.len(), ADDRESSES)?;
        many("tags", tags.len(), TAGS)?;
        tags.iter().try_for_each(|tag| text("tags", tag, TEXT_BYTES))?;
        for (field, map) in [("content", &self.content), ("policies", &self.policies)] {
            many(field, map.len(), NAMED)?;
            for (name, value) in map {
                text(field, name, TEXT_BYTES)?;
                text(field, value, TEXT_BYTES)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_in_needs_little_and_ignores_what_it_does_not_know() {
        let said = r#"{"sequence":1,"boot":"0a","properties":{"host":"pc","colour":"red"},"contact":"pigeon","x":[]}"#;
        let check_in: CheckIn = serde_json::from_str(said).unwrap();
        assert_eq!((check_in.sequence, check_in.contact), (1, Contact::Checkin));
        assert_eq!(check_in.properties.host, "pc");
        check_in.check().unwrap();
    }

    #[test]
    fn messages_have_the_words_of_the_protocol() {
        for (message, json) in [
            (Message::Wake { id: 7 }, r#"{"kind":"wake","id":7}"#),
            (Message::SitelistChanged, r#"{"kind":"sitelist-changed"}"#),
            (Message::Shutdown, r#"{"kind":"shutdown"}"#),
        ] {
            assert_eq!(serde_json::to_string(&message).unwrap(), json);
            assert_eq!(serde_json::from_str::<Message>(json).unwrap(), message);
        }
        let newer = r#"{"kind":"dance","steps":3}"#;
        assert_eq!(serde_json::from_str::<Message>(newer).unwrap(), Message::Unknown);
        let action: Action = serde_json::from_str(r#"{"id":1,"kind":"dance"}"#).unwrap();
        assert_eq!(action.kind, ActionKind::Unknown);
    }

    #[test]
    fn what_is_beyond_its_bound_is_refused_by_name() {
        let good = CheckIn { sequence: 1, boot: "c0ffee".to_owned(), ..CheckIn::default() };
        good.check().unwrap();
        let field = |change: &dyn Fn(&mut CheckIn)| {
            let mut bad = good.clone();
            change(&mut bad);
            bad.check().unwrap_err().field
        };
        assert_eq!(field(&|it| it.boot.clear()), "boot");
        assert_eq!(field(&|it| it.boot = "xyz".to_owned()), "boot");
        assert_eq!(field(&|it| it.properties.host = "h".repeat(256)), "host");
        assert_eq!(field(&|it| it.properties.os = "a\nb".to_owned()), "os");
        assert_eq!(field(&|it| it.properties.tags = vec![String::new(); 65]), "tags");
        let many = (0..257).map(|n| (n.to_string(), String::new())).collect();
        assert_eq!(field(&|it| it.content = BTreeMap::clone(&many)), "content");
    }

    #[test]
    fn hops_count_from_the_next_usual_initial_value() {
        assert_eq!([64, 61, 128, 120, 255, 250, 1].map(hops), [0, 3, 0, 8, 0, 5, 63]);
    }
}
