//! What an administrator would have written: the nodes' configurations and the fleet's documents.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::staff::CHECK_IN;
use crate::base::digest::Digest;

/// What differs from node to node.
pub(super) struct Place {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    /// Connections that agents of this one machine may open.
    pub(super) connections: usize,
}

impl Place {
    fn server(&self) -> String {
        let Self { name, address, connections } = self;
        let seconds = CHECK_IN.as_secs();
        format!(
            r#"[server]
listen = "{address}"
tls = {{ cert = "{name}.pem", key = {{ file = "{name}.key" }} }}
node = "{name}"

[admin]
socket = "{name}.sock"

[limits]
connections_per_address = {connections}

[agents]
checkin_interval = "{seconds}s"
# An agent of a machine that is too busy is not late with intervals this short.
late_after = 20
offline_after = 40
stalled_after = 20

[log]
access = "{name}.access.log"
"#
        )
    }

    /// Headquarters: the master of a directory, and the authority of the fleet.
    pub(super) fn authority(&self, handlers: &[&str]) -> String {
        let tokens: Vec<String> = handlers
            .iter()
            .map(|name| format!("{{ name = \"{name}\", secret = {{ file = \"{name}.token\" }} }}"))
            .collect();
        format!(
            r#"# Headquarters: the master repository, and the fleet's documents.
{}
[cache]
dir = "hq-cache"
size = "64MiB"
min_free = "0B"

[[repository]]
name = "software"
path = "/Software/"
preset = "epo"
directory = "Software"

[control]
directory = "fleet"
state_dir = "hq-state"
check_every = "500ms"
tokens = [{}]
"#,
            self.server(),
            tokens.join(", ")
        )
    }

    /// A handler at the near end of the WAN.
    pub(super) fn handler(&self, wan: SocketAddr, cache: u64) -> String {
        let Self { name, .. } = self;
        let (port, mib) = (wan.port(), cache.div_ceil(1 << 20));
        format!(
            r#"# A handler of the branch office.
{}
[cache]
dir = "{name}-cache"
size = "{mib}MiB"
memory = "64MiB"
min_free = "0B"

[[repository]]
name = "software"
path = "/Software/"
preset = "epo"
upstreams = ["https://localhost:{port}/Software/"]
ca = "ca.pem"
check_every = "1s"

[control]
upstream = "https://localhost:{port}/"
ca = "ca.pem"
token = {{ file = "{name}.token" }}
state_dir = "{name}-state"
"#,
            self.server()
        )
    }
}

/// The fleet's documents, in their directory.
pub(super) struct Documents {
    dir: PathBuf,
    handlers: [(&'static str, SocketAddr); 2],
    /// SHA-256 of the token that agents enrol with.
    token: Digest,
}

const STANDARD: &str = "{ \"on_access_scan\": true, \"exclude\": [] }\n";
const STRICTER: &str = "{ \"on_access_scan\": true, \"exclude\": [], \"scan_archives\": true }\n";

impl Documents {
    /// Writes the first version.
    pub(super) fn write(
        dir: PathBuf,
        handlers: [(&'static str, SocketAddr); 2],
        token: &str,
    ) -> io::Result<Self> {
        let this = Self { dir, handlers, token: Digest::of(token.as_bytes()) };
        for (path, text) in [
            ("policies/antivirus/standard.json", STANDARD),
            ("policies/updates/daily.toml", "at = \"daily\"\n"),
            ("policies/updates/night.toml", "at = \"night\"\n"),
            (
                "rules.toml",
                "[[tree]]\npath = \"/\"\npolicies = [\"antivirus/standard\", \"updates/daily\"]\n",
            ),
        ] {
            let path = this.dir.join(path);
            path.parent().map(fs::create_dir_all).transpose()?;
            fs::write(path, text)?;
        }
        this.put("fleet.toml", &this.fleet(""))?;
        Ok(this)
    }

    /// The second version: one policy says something else, and tills get another one and another handler.
    pub(super) fn change(&self) -> io::Result<()> {
        let [_, (second, _)] = self.handlers;
        let [(first, _), _] = self.handlers;
        self.put("policies/antivirus/standard.json", STRICTER)?;
        let rules = fs::read_to_string(self.dir.join("rules.toml"))?;
        let tills = "\n[[rule]]\nname = \"Tills update at night\"\ntags = [\"till\"]\npolicies = [\"updates/night\"]\n";
        self.put("rules.toml", &(rules + tills))?;
        let assignment = format!(
            "[[assignment]]\nname = \"Tills\"\ntags = [\"till\"]\nhandlers = [\"{second}\", \"{first}\"]\n\n"
        );
        self.put("fleet.toml", &self.fleet(&assignment))
    }

    /// The digest of the policy that [`Documents::change`] changes, as it is after it.
    pub(super) fn stricter() -> String {
        Digest::of(STRICTER.as_bytes()).to_string()
    }

    fn fleet(&self, first: &str) -> String {
        let Self { handlers, token, .. } = self;
        let mut text = String::from("# Who talks to which handler.\n\n");
        for (name, address) in handlers {
            text += &format!(
                "[[handler]]\nname = \"{name}\"\ninternal = \"{address}\"\nrepositories = [\"Software\"]\n\n"
            );
        }
        let names: Vec<String> = handlers.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let members = names.join(", ");
        text + &format!(
            r#"[[group]]
name = "berlin"
order = "balanced"
members = [{members}]

[[tree]]
path = "/Berlin"

{first}[[assignment]]
name = "Everybody"
handlers = ["berlin"]

[[enrolment]]
name = "berlin"
tree = "/Berlin"
tokens = ["{token}"]
"#
        )
    }

    /// In one step, so that nobody reads half of it.
    fn put(&self, name: &str, text: &str) -> io::Result<()> {
        let to = self.dir.join(name);
        let new = beside(&to);
        fs::write(&new, text)?;
        fs::rename(new, to)
    }
}

/// Outside of the directory that is watched.
fn beside(path: &Path) -> PathBuf {
    let above = path.ancestors().find(|it| it.ends_with("fleet")).and_then(Path::parent);
    above.unwrap_or(path).join("being-written")
}
