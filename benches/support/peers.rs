//! Who is measured side by side: waypost, what people would take instead, and the floor. The others come from the
//! distribution's packages; Pingora is a library, so `benches/pingora` has a small proxy made with it, which is built
//! apart and named by `PINGORA_BIN`.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::node::{Node, Setup};
use super::server::Server;

/// A server that can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Waypost,
    Nginx,
    Varnish,
    TrafficServer,
    Squid,
    Pingora,
    Bare,
}

impl Peer {
    pub const ALL: [Self; 7] = [
        Self::Waypost,
        Self::Nginx,
        Self::Varnish,
        Self::TrafficServer,
        Self::Squid,
        Self::Pingora,
        Self::Bare,
    ];

    /// Its name in tables and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waypost => "waypost",
            Self::Nginx => "nginx",
            Self::Varnish => "varnish",
            Self::TrafficServer => "ats",
            Self::Squid => "squid",
            Self::Pingora => "pingora",
            Self::Bare => "bare",
        }
    }

    /// Whether it speaks HTTP/2 to clients.
    pub fn speaks_http2(self) -> bool {
        self != Self::Squid
    }

    /// Whether it asks an origin at all.
    pub fn caches(self) -> bool {
        self != Self::Bare
    }

    /// The program that has to be there, if it is not.
    pub fn missing(self) -> Option<String> {
        let programs: &[&str] = match self {
            Self::Waypost | Self::Bare => &[],
            Self::Nginx => &["nginx"],
            Self::Varnish => &["varnishd", "hitch"],
            Self::TrafficServer => &["traffic_server"],
            Self::Squid => &["squid"],
            Self::Pingora => {
                return std::env::var_os("PINGORA_BIN").is_none().then(|| "PINGORA_BIN".to_owned());
            }
        };
        let absent = programs.iter().find(|program| {
            let mut look = Command::new("sh");
            look.arg("-c").arg(format!("command -v {program}")).stdout(Stdio::null());
            !look.status().is_ok_and(|status| status.success())
        });
        absent.map(|program| (*program).to_owned())
    }

    /// Starts it in front of `origin` with `memory` MiB for hot objects, and waits until it listens.
    pub fn start(self, origin: SocketAddr, memory: u64) -> anyhow::Result<Server> {
        if self == Self::Waypost {
            return Ok(Node::launch(Setup::new(origin, memory))?.into_server());
        }
        let mut server = Server::prepare(None)?;
        let place = Place { dir: server.dir().to_owned(), address: server.address(), origin, memory };
        let log = server.log();
        for (mut command, ready) in self.commands(&place)? {
            server.tree.start(&mut command, &log)?;
            if let Some(file) = ready {
                wait_for(&place.dir.join(file))?;
                // Varnish has its socket long before its VCL is compiled.
                std::thread::sleep(COMPILING);
            }
        }
        server.wait()?;
        Ok(server)
    }

    /// The programs to start, each with the file that says it is ready.
    fn commands(self, place: &Place) -> anyhow::Result<Vec<(Command, Option<&'static str>)>> {
        let path = |name: &str| place.dir.join(name);
        Ok(match self {
            Self::Waypost => Vec::new(),
            Self::Nginx => {
                let mut nginx = Command::new("nginx");
                nginx.arg("-p").arg(&place.dir).arg("-c").arg(place.write("nginx.conf", NGINX)?);
                vec![(nginx, None)]
            }
            Self::Varnish => {
                place.write("default.vcl", VARNISH)?;
                let hitch = place.write("hitch.conf", HITCH)?;
                let mut varnish = Command::new("varnishd");
                varnish.args(["-F", "-j", "none", "-T", "none", "-n"]).arg(path("varnish"));
                varnish.arg("-f").arg(path("default.vcl"));
                varnish.arg("-a").arg(format!("{},PROXY,mode=666", path("v.sock").display()));
                varnish.arg("-s").arg(format!("mem=malloc,{}M", place.memory));
                varnish.arg("-s").arg(format!("disk=file,{},8G", path("store").display()));
                for parameter in [
                    "feature=+http2",
                    "thread_pool_min=100",
                    "thread_pool_max=5000",
                    "timeout_idle=900",
                    "listen_depth=4096",
                    "vsl_mask=-Debug,-VCL_call,-Hash",
                ] {
                    varnish.args(["-p", parameter]);
                }
                place.give_to("_hitch", &[])?;
                let mut tls = Command::new("hitch");
                tls.arg(format!("--config={}", hitch.display()));
                vec![(varnish, Some("v.sock")), (tls, None)]
            }
            Self::TrafficServer => {
                for (name, text) in ATS {
                    place.write(&format!("etc/{name}"), text)?;
                }
                place.give_to("trafficserver", &["cache", "log.d", "run", "etc"])?;
                let mut ats = Command::new("traffic_server");
                ats.env("TS_ROOT", &place.dir)
                    .env("PROXY_CONFIG_CONFIG_DIR", path("etc"))
                    .current_dir(&place.dir);
                vec![(ats, None)]
            }
            Self::Squid => {
                let config = place.write("squid.conf", SQUID)?;
                place.give_to("proxy", &["cache", "."])?;
                let squid = || {
                    let mut squid = Command::new("squid");
                    squid.args(["-n", "bench", "-f"]).arg(&config);
                    squid
                };
                let made = squid().args(["-N", "-z"]).stderr(Stdio::null()).stdout(Stdio::null()).status()?;
                ensure!(made.success(), "squid -z: {made}");
                let mut squid = squid();
                squid.arg("--foreground");
                vec![(squid, None)]
            }
            Self::Pingora => {
                let mut proxy = Command::new(std::env::var_os("PINGORA_BIN").context("PINGORA_BIN")?);
                proxy.args([place.address.to_string(), place.origin.to_string(), place.memory.to_string()]);
                proxy.arg(path("server.pem")).arg(path("server.key"));
                vec![(proxy, None)]
            }
            Self::Bare => {
                let mut bare = Command::new(std::env::current_exe()?);
                bare.arg("bare").arg(place.address.to_string()).arg(&place.dir);
                vec![(bare, None)]
            }
        })
    }
}

/// What configurations are filled in with.
struct Place {
    dir: std::path::PathBuf,
    address: SocketAddr,
    origin: SocketAddr,
    memory: u64,
}

impl Place {
    /// Writes a configuration: `@DIR@`, `@PORT@`, `@ORIGIN@` and `@MEMORY@` are what they say.
    fn write(&self, name: &str, text: &str) -> anyhow::Result<std::path::PathBuf> {
        let text = text
            .replace("@DIR@", &self.dir.display().to_string())
            .replace("@PORT@", &self.address.port().to_string())
            .replace("@ORIGIN@", &self.origin.port().to_string())
            .replace("@MEMORY@", &self.memory.to_string());
        let file = self.dir.join(name);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&file, text)?;
        Ok(file)
    }

    /// Makes directories for a daemon that drops its rights to this user; only root has to.
    fn give_to(&self, user: &str, dirs: &[&str]) -> anyhow::Result<()> {
        fs::set_permissions(&self.dir, fs::Permissions::from_mode(0o755))?;
        let root = rustix::process::geteuid().is_root();
        for dir in dirs {
            let dir = self.dir.join(dir);
            fs::create_dir_all(&dir)?;
            if root {
                let id = |flag: &str| -> anyhow::Result<u32> {
                    let out = Command::new("id").args([flag, user]).output()?;
                    Ok(String::from_utf8(out.stdout)?.trim().parse()?)
                };
                chown(&dir, Some(id("-u")?), Some(id("-g")?))?;
            }
        }
        Ok(())
    }
}

/// More than a C compiler takes for a small VCL.
const COMPILING: Duration = Duration::from_secs(4);

fn wait_for(file: &Path) -> anyhow::Result<()> {
    let began = Instant::now();
    while !file.exists() {
        ensure!(began.elapsed() < Duration::from_secs(30), "{} does not appear", file.display());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

const NGINX: &str = include_str!("peers/nginx.conf");
const VARNISH: &str = include_str!("peers/default.vcl");
const HITCH: &str = include_str!("peers/hitch.conf");
const SQUID: &str = include_str!("peers/squid.conf");
const ATS: [(&str, &str); 9] = [
    ("records.config", include_str!("peers/records.config")),
    ("storage.config", "@DIR@/cache 8192M\n"),
    ("ssl_multicert.config", "dest_ip=* ssl_cert_name=server.pem ssl_key_name=server.key\n"),
    ("remap.config", "map / http://127.0.0.1:@ORIGIN@/\n"),
    (
        "ip_allow.yaml",
        "ip_allow:\n  - apply: in\n    ip_addrs: 127.0.0.0/8\n    action: allow\n    methods: ALL\n",
    ),
    ("plugin.config", ""),
    ("volume.config", ""),
    ("parent.config", ""),
    ("cache.config", ""),
];
