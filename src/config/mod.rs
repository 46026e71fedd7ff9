//! The configuration: what the file says (`reader`) → what it means ([`CheckedConfig`]), or all that is wrong
//! with it ([`Diagnostics`]), each with its line, column and advice.

mod admin;
mod agent;
mod bounds;
mod catalogue;
mod checked;
mod control;
mod files;
mod node;
mod presence;
mod ranges;
mod reference;
mod reference_fleet;
mod repository;
mod rules;
mod schema;
mod secret;
mod shown;
mod upstreams;
mod values;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

pub use crate::base::report::diagnostic::{Code, Diagnostic, Diagnostics, Position, Related, Severity};
pub use agent::{AgentConfig, load_agent};
pub use checked::{
    AccessFormat, AdminConfig, AdminRole, CacheConfig, CatalogueConfig, CertificateConfig, CheckedConfig,
    Limits, LogConfig, LogFormat, LogLevel, OtlpConfig, PrepareConfig, Preset, QueryMode, RepositoryConfig,
    RuleConfig, ServerConfig, Source, TlsFiles, TokenConfig, UpstreamConfig, UpstreamsConfig,
};
pub use control::{
    AgentTokenConfig, AgentsConfig, ControlConfig, ControlSource, ControlUpstream, NodeTokenConfig,
};
pub use presence::PresenceConfig;
pub use schema::schema;
pub use secret::{Secret, SecretError};
pub use shown::{Origin, Shown, show};

use crate::base::address;
use crate::base::limits::CONFIG_BYTES;
use crate::base::report::{diagnostic, reader};
use reader::{Context, Keys, Section};

/// The keys at the top of the file.
const ROOT: Keys = Keys {
    known: &["server", "admin", "cache", "limits", "repository", "control", "agents", "log"],
    later: &["include"],
};

/// What to do without a file.
const BEGIN: &str = "name the file with -c, or begin one: waypost config init --role branch > waypost.toml";

/// Reads and checks the file at `path`. Paths in it are relative to its directory. The second value has the
/// warnings, if any.
///
/// # Errors
/// All that is wrong, warnings included; nothing of the file is used then.
pub fn load(path: &Path) -> Result<(CheckedConfig, Diagnostics), Diagnostics> {
    let (text, base) = open(path, BEGIN)?;
    check_text(&path.display().to_string(), &text, &base)
}

/// The text of a file, and where its relative paths start; `help` is for who has no such file.
fn open(path: &Path, help: &str) -> Result<(String, PathBuf), Diagnostics> {
    let name = path.display().to_string();
    let failed = |why: String| {
        let found = Diagnostic { span: None, ..Diagnostic::error(Code::File, 0..0, why) };
        Diagnostics::new(&name, "", vec![found.help(help)], &[])
    };
    let text = read(path).map_err(|why| failed(format!("cannot read {name}: {why}")))?;
    // Absolute, so that what was checked stays right whatever the working directory becomes.
    let base = path.parent().unwrap_or(Path::new(""));
    let base = std::path::absolute(if base.as_os_str().is_empty() { Path::new(".") } else { base });
    let base = base.map_err(|error| failed(format!("cannot find the working directory: {error}")))?;
    Ok((text, base))
}

/// Where a node that runs from this file has its admin socket, as far as that can be told from a file that may have
/// errors elsewhere.
pub fn admin_socket(path: &Path) -> Option<PathBuf> {
    let text = read(path).ok()?;
    let base = std::path::absolute(path).ok()?.parent()?.to_owned();
    let cx = Context::new(&base);
    let table = reader::parse(&text, &cx)?;
    let root = Section::root(&table, &ROOT, &cx);
    root.section("admin", "[admin]", &admin::ADMIN).path("socket").map(|at| at.value)
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(CONFIG_BYTES + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > CONFIG_BYTES {
        return Err("it is larger than 4 MiB".to_owned());
    }
    String::from_utf8(text).map_err(|error| {
        let line = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        format!("line {} is not UTF-8", line.filter(|byte| **byte == b'\n').count() + 1)
    })
}

/// Checks `text`, which people know as `file_name`; relative paths in it start at `base_dir`. Looks at the
/// files that it names, and writes nothing.
///
/// # Errors
/// All that is wrong, warnings included.
pub fn check_text(
    file_name: &str,
    text: &str,
    base_dir: &Path,
) -> Result<(CheckedConfig, Diagnostics), Diagnostics> {
    let cx = Context::new(base_dir);
    let config = reader::parse(text, &cx).map(|table| {
        let root = Section::root(&table, &ROOT, &cx);
        let cache = bounds::cache(&root.section("cache", "[cache]", &bounds::CACHE));
        let control = control::control(&root);
        let agents = root.section("agents", "[agents]", &control::AGENTS);
        let server = node::server(&root.section("server", "[server]", &node::SERVER));
        CheckedConfig {
            file: base_dir.join(Path::new(file_name).file_name().unwrap_or_default()),
            admin: admin::admin(&root.section("admin", "[admin]", &admin::ADMIN), &server),
            server,
            limits: bounds::limits(&root.section("limits", "[limits]", &bounds::LIMITS)),
            repositories: repository::repositories(&root, &cache.dir),
            agents: control::agents(&agents),
            presence: presence::presence(&root, control.as_ref(), &agents),
            control,
            log: node::log(&root.section("log", "[log]", &node::LOG)),
            cache,
            _proof: checked::Proof,
        }
    });
    let (found, secrets) = cx.into_found();
    let found = Diagnostics::new(file_name, text, found, &secrets);
    match config {
        Some(config) if found.errors() == 0 => Ok((config, found)),
        _ => Err(found),
    }
}
