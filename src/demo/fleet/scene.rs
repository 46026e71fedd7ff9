//! The scene: headquarters, two lines, two handlers and their agents, built from nothing and taken away at the end.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::master::Master;
use super::node::Node;
use super::operator::Operator;
use super::papers::{Documents, Place};
use super::staff::{Staff, Terms};
use crate::base::digest::Digest;
use crate::demo::Options;
use crate::demo::folder::Folder;
use crate::demo::pki::Authority;
use crate::demo::wan::Wan;
use crate::protocol::agent_api::Contact;

/// One way; a branch in another city.
pub(super) const DELAY: Duration = Duration::from_millis(15);

pub(super) const HQ: &str = "hq";
pub(super) const BRANCHES: [&str; 2] = ["berlin-1", "berlin-2"];

/// Bytes of a Unix socket's path, less what is below a run's folder.
const FOLDER_BYTES: usize = 70;

/// A handler and its line.
pub(super) struct Branch {
    pub(super) node: Node,
    pub(super) wan: Wan,
    pub(super) operator: Operator,
}

impl Branch {
    /// Where agents find it.
    pub(super) fn address(&self) -> String {
        self.node.address.to_string()
    }
}

/// Everything that runs. What is first here goes first.
pub(super) struct Scene {
    pub(super) options: Options,
    pub(super) staff: Staff,
    pub(super) branches: [Branch; 2],
    pub(super) hq: Node,
    pub(super) operator: Operator,
    pub(super) master: Master,
    pub(super) documents: Documents,
    folder: Folder,
}

impl Scene {
    pub(super) async fn build(options: &Options, program: &Path) -> anyhow::Result<Self> {
        let folder = Folder::make()?;
        let at = folder.path("");
        ensure!(at.as_os_str().len() <= FOLDER_BYTES, "{} is too long for sockets: set TMPDIR", at.display());
        let agents = options.agents as u64;
        ensure!(
            room(&at).is_none_or(|free| free > options.size * (agents * 3 + 12)),
            "{} has no room for {agents} agents with files of that size: set TMPDIR, or say --size",
            at.display()
        );

        let ports = Ports::draw()?;
        let authority = Authority::new()?;
        folder.write("ca.pem", &authority.certificate())?;
        let token = secret()?;
        let [first, second] = BRANCHES;
        let places = [(HQ, 1), (first, 2), (second, 3)].map(|(name, host)| (name, ports.free(host)));
        let mut addresses = Vec::new();
        for (name, address) in places {
            let address: SocketAddr = address.with_context(|| format!("no port for {name}"))?;
            let host = address.ip().to_string();
            let identity = authority.server_at(&format!("waypost demo {name}"), &[&*host, "localhost"])?;
            folder.write(&format!("{name}.pem"), &identity.certificate)?;
            folder.write(&format!("{name}.key"), &identity.key)?;
            folder.write(&format!("{name}.token"), &secret()?)?;
            let connections = options.agents * 8 + 200;
            addresses.push(Place { name, address, connections });
        }
        let [hq, one, two] = <[Place; 3]>::try_from(addresses).ok().context("three places")?;
        let documents =
            Documents::write(at.join("fleet"), [(first, one.address), (second, two.address)], &token)?;
        let master = Master::at(at.join("Software"))?;

        let config = folder.write("hq.toml", &hq.authority(&BRANCHES))?;
        let hq = Node::start(program, HQ, config, (hq.address, at.join("hq.sock"))).await?;
        let (one, two) = tokio::try_join!(
            branch(options, program, &folder, &one, hq.address),
            branch(options, program, &folder, &two, hq.address)
        )?;
        let terms =
            Terms { folder: at.join("agents"), ca: authority.certificate(), token, handler: one.address() };
        let operator = Operator::at(program, &hq.socket);
        let (staff, branches, options) = (Staff::new(terms), [one, two], options.clone());
        Ok(Self { options, staff, branches, hq, operator, master, documents, folder })
    }

    /// A file of the demo, for people to look at.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.path(name)
    }

    /// Bytes that crossed each line towards its handler so far, everything included.
    pub(super) fn crossed(&self) -> [u64; 2] {
        self.branches.each_ref().map(|branch| branch.wan.received())
    }

    /// How agent `number` is: most hold streams, some cannot, some do not want to.
    pub(super) const fn manner(number: usize) -> (Contact, bool) {
        let contact = match number % 8 {
            3 => Contact::Tunnel,
            6 => Contact::Checkin,
            _ => Contact::Stream,
        };
        (contact, number.is_multiple_of(5))
    }

    /// Sends the agents home, ends the nodes, and takes the files away.
    pub(super) async fn close(mut self) {
        self.staff.dismiss().await;
        let [one, two] = &mut self.branches;
        for node in [&mut one.node, &mut two.node, &mut self.hq] {
            // There is nobody left to tell; the files go either way.
            let _ = node.kill().await;
        }
    }
}

async fn branch(
    options: &Options,
    program: &Path,
    folder: &Folder,
    place: &Place,
    hq: SocketAddr,
) -> anyhow::Result<Branch> {
    let wan = Wan::open(hq, options.wan, DELAY).await?;
    let name = place.name;
    let config = place.handler(wan.address(), (options.size * 6).max(256 << 20));
    let config = folder.write(&format!("{name}.toml"), &config)?;
    let socket = folder.path(&format!("{name}.sock"));
    let node = Node::start(program, name, config, (place.address, socket)).await?;
    let operator = Operator::at(program, &node.socket);
    Ok(Branch { node, wan, operator })
}

/// Addresses of this machine that are this run's alone: each node has one, and its port stays free for it while it is
/// dead, because whoever connects to somebody does so from 127.0.0.1.
struct Ports([u8; 2]);

impl Ports {
    fn draw() -> anyhow::Result<Self> {
        let mut drawn = [0; 2];
        getrandom::fill(&mut drawn).map_err(std::io::Error::other)?;
        Ok(Self(drawn.map(|byte| byte % 254 + 1)))
    }

    fn free(&self, host: u8) -> std::io::Result<SocketAddr> {
        let [second, third] = self.0;
        TcpListener::bind((Ipv4Addr::new(127, second, third, host), 0))?.local_addr()
    }
}

fn secret() -> anyhow::Result<String> {
    let mut drawn = [0; 32];
    getrandom::fill(&mut drawn).map_err(std::io::Error::other)?;
    Ok(Digest::of(&drawn).to_string())
}

/// Bytes that are free where `at` is.
fn room(at: &Path) -> Option<u64> {
    let told = rustix::fs::statvfs(at).ok()?;
    Some(told.f_bavail * told.f_frsize)
}
