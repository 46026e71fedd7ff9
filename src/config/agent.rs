//! The agent's own file, `agent.toml`: checked as a node's is, all problems in one run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files::{self, IDENTITY};
use super::node;
use super::ranges::Allowed;
use super::reader::{self, At, Context, Keys, Section};
use super::{Code, Diagnostic, Diagnostics, LogConfig, Secret, SecretError, TlsFiles};
use crate::agent::link::Identity;
use crate::agent::select::Method;
use crate::agent::{Options, Papers, update};
use crate::fleet::{AgentId, TreePath};
use crate::protocol::agent_api::Contact;
use crate::protocol::target::path_of_name;
use crate::repository::preset::{Preset, preset_named};

const ROOT: Keys = Keys { known: &["agent", "update", "log"], later: &[] };
const AGENT: Keys = Keys {
    known: &[
        "id",
        "state_dir",
        "handlers",
        "ca",
        "client_cert",
        "token",
        "select",
        "contact",
        "tree",
        "tags",
        "checkin_interval",
        "first_checkin",
        "update_interval",
        "verify_interval",
        "retry",
    ],
    later: &[],
};
const UPDATE: Keys = Keys { known: &["name", "path", "folder", "preset", "directory"], later: &[] };

const fn allowed(default: u64, from: u64, to: u64) -> Allowed<Duration> {
    let (from, to) = (Duration::from_secs(from), Duration::from_secs(to));
    Allowed { default: Duration::from_secs(default), range: from..=to }
}

const HOUR: u64 = 3_600;
/// ePO's default, and the end of its range.
const CHECKIN_INTERVAL: Allowed<Duration> = allowed(HOUR, 1, 48 * HOUR);
/// What agents of this kind do after their installation.
const FIRST_CHECKIN: Allowed<Duration> = allowed(45, 0, HOUR);
/// Content is published daily, and checked for far more often.
const UPDATE_INTERVAL: Allowed<Duration> = allowed(HOUR, 1, 7 * 24 * HOUR);
const VERIFY_INTERVAL: Allowed<Duration> = allowed(HOUR, 1, 24 * HOUR);
/// The model's minute.
const RETRY: Allowed<Duration> = allowed(60, 1, HOUR);

/// Where the unit's `StateDirectory=waypost-agent` puts it.
const STATE_DIR: &str = "/var/lib/waypost-agent";
/// Tried one after the other.
const HANDLERS: usize = 16;
/// What a check-in may say.
const TAGS: usize = 64;
/// Each is a directory that somebody reads.
const UPDATES: usize = 64;

/// An agent's configuration that holds together.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// What it writes about itself.
    pub log: LogConfig,
    options: Options,
    ca: Option<PathBuf>,
    certificate: Option<TlsFiles>,
    token: Option<Secret>,
}

impl AgentConfig {
    /// What the agent is and does, with its secrets. Blocks on the file system.
    ///
    /// # Errors
    /// [`SecretError`]: one of them cannot be read any more.
    pub fn options(&self) -> Result<Options, SecretError> {
        let mut options = self.options.clone();
        options.identity = self.identity()?;
        let again = self.clone();
        options.papers = Some(Papers::new(move || again.identity().map_err(|error| error.to_string())));
        Ok(options)
    }

    fn identity(&self) -> Result<Identity, SecretError> {
        let file = |path: &PathBuf| Secret::File(path.clone()).read();
        let certificate = self.certificate.as_ref();
        Ok(Identity {
            trust: self.ca.as_ref().map(file).transpose()?,
            certificate: certificate.map(|it| Ok((file(&it.cert)?, it.key.read()?))).transpose()?,
            token: match &self.token {
                Some(token) => Some(String::from_utf8_lossy(token.read()?.trim_ascii()).into_owned()),
                None => None,
            },
            id: self.options.id.clone(),
        })
    }
}

/// Reads and checks an agent's file. Paths in it are relative to its directory. The second value has the warnings.
///
/// # Errors
/// All that is wrong, warnings included.
pub fn load_agent(path: &Path) -> Result<(AgentConfig, Diagnostics), Diagnostics> {
    let name = path.display().to_string();
    let (text, base) = super::open(path, "name the file with -c; the README has one to begin with")?;
    let cx = Context::new(&base);
    let config = reader::parse(&text, &cx).map(|table| {
        let root = Section::root(&table, &ROOT, &cx);
        let log = node::log(&root.section("log", "[log]", &node::LOG));
        let updates = updates(&root);
        agent(&root.section("agent", "[agent]", &AGENT), updates, log)
    });
    let (found, secrets) = cx.into_found();
    let found = Diagnostics::new(&name, &text, found, &secrets);
    match config {
        Some(config) if found.errors() == 0 => Ok((config, found)),
        _ => Err(found),
    }
}

fn agent(section: &Section<'_>, updates: Vec<update::Options>, log: LogConfig) -> AgentConfig {
    let id = id(section);
    let state_dir = section.path("state_dir");
    if let Some(dir) = &state_dir {
        files::check_directory_to_be(section.cx, dir);
    }
    let state_dir = state_dir.map_or_else(|| PathBuf::from(STATE_DIR), |at| at.value);
    let handlers = handlers(section);
    let mut options = Options::new(id, state_dir, handlers);
    let methods = [Method::Ordered, Method::Nearest].map(|method| (method.as_str(), method));
    options.method = section.word("select", &methods).map_or(options.method, |at| at.value);
    let contacts = Contact::ALL.map(|contact| (contact.as_str(), contact));
    options.contact = section.word("contact", &contacts).map_or(options.contact, |at| at.value);
    options.host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    options.os = os();
    options.tree = section.text("tree").and_then(|text| {
        let bad =
            |_| bad_value(section, &text, "is not a place in the tree", "write it like \"/emea/berlin\"");
        TreePath::parse(text.value).map_err(bad).ok().map(|tree| tree.to_string())
    });
    let tags = section.texts("tags");
    if tags.len() > TAGS {
        node::too_many(section, "tags", TAGS);
    }
    options.tags = tags.iter().map(|tag| tag.value.to_owned()).collect();
    options.checkin_interval = section.duration_or("checkin_interval", &CHECKIN_INTERVAL);
    options.first_checkin_within = section.duration_or("first_checkin", &FIRST_CHECKIN);
    options.update_interval = section.duration_or("update_interval", &UPDATE_INTERVAL);
    options.pace.verify_every = section.duration_or("verify_interval", &VERIFY_INTERVAL);
    options.pace.retry_first = section.duration_or("retry", &RETRY);
    options.updates = updates;
    let ca = section.path("ca");
    if let Some(ca) = &ca {
        files::check_certificates(section.cx, ca);
    }
    let certificate = section
        .has("client_cert")
        .then(|| files::identity(&section.section("client_cert", "`client_cert`", &IDENTITY)))
        .flatten();
    let token = section.secret("token");
    if let (Some(token), true) = (&token, section.has("client_cert")) {
        let message = "`token` has no effect beside `client_cert`";
        section.cx.report(Diagnostic::warning(Code::NoEffect, token.span.clone(), message));
    }
    AgentConfig { log, options, ca: ca.map(|at| at.value), certificate, token: token.map(|at| at.value) }
}

fn id(section: &Section<'_>) -> String {
    let Some(text) = section.text("id") else {
        if !section.has("id") {
            section.missing("id", "write id = \"pc-17\", what this agent is called in the fleet");
        }
        return String::new();
    };
    if AgentId::parse(text.value).is_err() {
        let help = "allowed: 1 to 128 letters, digits and `._:{}-`";
        bad_value(section, &text, "is not an agent's id", help);
    }
    text.value.to_owned()
}

fn handlers(section: &Section<'_>) -> Vec<String> {
    let texts = section.texts("handlers");
    if texts.is_empty() {
        section.missing("handlers", "write handlers = [\"handler.example:8443\"], where the agent begins");
    }
    if texts.len() > HANDLERS {
        node::too_many(section, "handlers", HANDLERS);
    }
    let parsed = texts.iter().filter_map(|text| {
        let host = node::host_and_port(section.cx, text)?;
        if host
            .rsplit_once(':')
            .is_none_or(|(host, port)| port.parse::<u16>().is_err() || host.ends_with(':'))
        {
            bad_value(section, text, "has no port", "write it like \"handler.example:8443\"");
        }
        Some(host)
    });
    parsed.collect()
}

fn updates(root: &Section<'_>) -> Vec<update::Options> {
    let sections = root.sections("update", "[[update]]", &UPDATE);
    if sections.len() > UPDATES {
        node::too_many(root, "update", UPDATES);
    }
    let mut all: Vec<update::Options> = Vec::new();
    for section in sections {
        let Some(options) = update(&section) else { continue };
        for (key, twice) in [
            ("name", all.iter().any(|it| it.name == options.name)),
            ("directory", all.iter().any(|it| it.directory == options.directory)),
        ] {
            if twice {
                let span = section.key_span(key).unwrap_or_else(|| section.span.clone());
                let message = format!("two updates have this `{key}`");
                section.cx.report(Diagnostic::error(Code::Conflict, span, message));
            }
        }
        all.push(options);
    }
    all
}

fn update(section: &Section<'_>) -> Option<update::Options> {
    for (key, help) in [
        ("name", "write name = \"dat\", what people call it"),
        ("path", "write path = \"/Software/\", where handlers have the repository"),
        ("directory", "write directory = \"dat\", where the files are to be"),
    ] {
        if !section.has(key) {
            section.missing(key, help);
        }
    }
    let name = section.text("name");
    if let Some(name) = name.as_ref().filter(|name| !is_plain(name.value)) {
        bad_value(section, name, "is not a name", "allowed: letters, digits, `-`, `_` and `.`, up to 64");
    }
    let path = section.text("path").and_then(|text| folder(section, &text, true));
    let below = match section.text("folder") {
        Some(text) => folder(section, &text, false)?,
        None => String::new(),
    };
    let presets: [(&'static str, &'static dyn Preset); 2] =
        [("epo", preset_named("epo")?), ("generic", preset_named("generic")?)];
    let preset =
        section.word("preset", &presets).map_or_else(|| preset_named("generic"), |at| Some(at.value));
    let directory = section.path("directory");
    if let Some(directory) = &directory {
        files::check_directory_to_be(section.cx, directory);
    }
    Some(update::Options {
        name: name?.value.to_owned(),
        path: path?,
        folder: below,
        preset: preset?,
        directory: directory?.value,
    })
}

/// A folder of a URL in its canonical spelling, with its slashes.
fn folder(section: &Section<'_>, text: &At<&str>, rooted: bool) -> Option<String> {
    let inner = text.value.trim_matches('/');
    let slash = if rooted { "/" } else { "" };
    let path = if inner.is_empty() {
        Ok(slash.to_owned())
    } else {
        path_of_name(inner).map(|path| format!("{slash}{path}/"))
    };
    path.map_err(|_| bad_value(section, text, "is not a folder", "write it like \"Current/VSCANDAT1000/\""))
        .ok()
}

fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && name.len() <= 64 && name.bytes().all(plain)
}

fn bad_value(section: &Section<'_>, text: &At<&str>, wrong: &str, help: &str) {
    let message = format!("`{}` {wrong}", text.value.escape_debug());
    section.cx.report(Diagnostic::error(Code::BadValue, text.span.clone(), message).help(help));
}

/// The machine's own name for its system.
fn os() -> String {
    let system = rustix::system::uname();
    format!("{} {}", system.sysname().to_string_lossy(), system.release().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<AgentConfig, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, text).unwrap();
        load_agent(&path).map(|(config, _)| config).map_err(|found| found.render(false))
    }

    #[test]
    fn the_smallest_file_has_an_id_and_a_handler() {
        let config = load("[agent]\nid = \"pc-17\"\nhandlers = \"h.example:8443\"\n").unwrap();
        let options = config.options().unwrap();
        assert_eq!((&*options.id, &*options.handlers), ("pc-17", &["h.example:8443".to_owned()][..]));
        assert_eq!(options.checkin_interval, Duration::from_secs(3_600));
        assert_eq!(options.identity.id, "pc-17");
        assert!(!options.host.is_empty() && !options.os.is_empty());
    }

    #[test]
    fn all_mistakes_are_told_at_once_with_their_place() {
        let told = load(
            "[agent]\nid = \"pc 17\"\nhandlers = [\"h.example\"]\nselect = \"nearst\"\ntree = \"a//b\"\nretry = \"1ms\"\n\
             ca = \"absent.pem\"\ncolour = 1\n[[update]]\nname = \"a b\"\npath = \"../x\"\n",
        )
        .unwrap_err();
        for words in [
            "agent.toml:2:",
            "is not an agent's id",
            "has no port",
            "did you mean \"nearest\"?",
            "is not a place in the tree",
            "`retry` is too small",
            "absent.pem is not there",
            "unknown key `colour`",
            "is not a name",
            "is not a folder",
            "`directory` is missing",
        ] {
            assert!(told.contains(words), "{words}: {told}");
        }
    }

    #[test]
    fn the_sample_of_the_packages_is_valid() {
        let config = load(include_str!("../../deploy/packaged/agent.toml")).unwrap();
        let options = config.options().unwrap();
        assert_eq!((options.updates.len(), options.contact), (1, Contact::Stream));
    }

    #[test]
    fn updates_are_whole_and_none_is_in_anothers_way() {
        let one = "[[update]]\nname = \"dat\"\npath = \"Software\"\nfolder = \"/Current/X\"\npreset = \"epo\"\ndirectory = \"dat\"\n";
        let agent = "[agent]\nid = \"a\"\nhandlers = \"h:1\"\n";
        let options = load(&format!("{agent}{one}")).unwrap().options().unwrap();
        let update = &options.updates[0];
        assert_eq!(
            (&*update.path, &*update.folder, update.preset.name()),
            ("/Software/", "Current/X/", "epo")
        );
        assert!(update.directory.is_absolute());
        let told = load(&format!("{agent}{one}{one}")).unwrap_err();
        assert_eq!(told.matches("two updates have this").count(), 2, "{told}");
    }
}
