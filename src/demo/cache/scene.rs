//! The scene: everything the story needs, built from nothing and taken away at its end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use super::agent::Handler;
use super::content::{self, BASE, Content};
use super::witness::Witness;
use crate::demo::folder::Folder;
use crate::demo::pki::Authority;
use crate::demo::wan::Wan;
use crate::demo::{Options, RunningNode, StartNode};

/// One way; a branch in another city.
pub(super) const DELAY: Duration = Duration::from_millis(15);

/// Everything that runs. [`Scene::close`] ends it politely; dropping it too takes the files away.
pub(super) struct Scene {
    pub(super) options: Options,
    pub(super) content: Content,
    pub(super) witness: Witness,
    pub(super) wan: Wan,
    pub(super) handler: Handler,
    pub(super) address: SocketAddr,
    nodes: Vec<RunningNode>,
    folder: Folder,
}

impl Scene {
    pub(super) async fn build(options: &Options, nodes: &impl StartNode) -> anyhow::Result<Self> {
        let folder = Folder::make()?;
        let (root, size) = (folder.path("master/Software"), options.size);
        let content = tokio::task::spawn_blocking(move || content::write(&root, size)).await??;
        let authority = Authority::new()?;
        folder.write("ca.pem", &authority.certificate())?;
        let identity = authority.server("waypost demo handler")?;
        folder.write("handler.pem", &identity.certificate)?;
        folder.write("handler.key", &identity.key)?;

        let master = nodes.start(&folder.write("master.toml", &master_config())?).await?;
        let behind = *master.plain.first().context("the master listens nowhere")?;
        let witness = Witness::open(&authority.server("waypost demo headquarters")?, behind).await?;
        let wan = Wan::open(witness.address(), options.wan, DELAY).await?;
        let config = handler_config(options, wan.address().port());
        let handler = nodes.start(&folder.write("handler.toml", &config)?).await?;
        let address = *handler.addresses.first().context("the handler listens nowhere")?;
        Ok(Self {
            options: options.clone(),
            content,
            witness,
            wan,
            handler: Handler::new(address, &authority.certificate())?,
            address,
            nodes: vec![handler, master],
            folder,
        })
    }

    /// Where agents find the repository.
    pub(super) fn url(&self) -> String {
        format!("https://localhost:{}{BASE}", self.address.port())
    }

    /// A file of the demo, for the operator to look at.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.path(name)
    }

    /// Ends the nodes, the handler first, and takes the files away.
    pub(super) async fn close(self) {
        for node in self.nodes {
            // There is nobody left to tell; the files go either way.
            let _ = tokio::time::timeout(Duration::from_secs(5), node.stop).await;
        }
    }
}

fn master_config() -> String {
    r#"# The master: serves the files of a directory. TLS is ended in front of it.
[server]
plain_listen = "127.0.0.1:0"
node = "master"

[cache]
dir = "master-cache"
size = "64MiB"

[[repository]]
name = "software"
path = "/Software/"
preset = "generic"
directory = "master/Software"
"#
    .to_owned()
}

/// Agents of the demo share one address, and a cut line has to be seen soon.
fn handler_config(options: &Options, wan: u16) -> String {
    let Options { agents, size, port, .. } = options;
    let cache = (size * 4).max(256 << 20) >> 20;
    let connections = agents + 100;
    format!(
        r#"# The handler of the branch office.
[server]
listen = "127.0.0.1:{port}"
tls = {{ cert = "handler.pem", key = {{ file = "handler.key" }} }}
node = "branch"

[cache]
dir = "handler-cache"
size = "{cache}MiB"
memory = "64MiB"

[limits]
connections_per_address = {connections}

[[repository]]
name = "software"
path = "/Software/"
preset = "generic"
upstreams = ["https://localhost:{wan}/Software/"]
ca = "ca.pem"

[[repository.rule]]
match = "**/*.{{zip,upd}}"
immutable = true

[[repository.rule]]
match = "**/*.xml"
fresh_for = "10m"
"#
    )
}
