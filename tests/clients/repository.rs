//! A signed apt repository in two publications, made once for all tests with a throw-away key.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::OnceCell;
use waypost::testkit::content;

use super::agent::Agent;
use super::stage::File;

/// A package that is made.
pub(crate) struct Package {
    pub(crate) name: &'static str,
    size: usize,
    depends: &'static str,
}

/// The last one needs all.
pub(crate) const PACKAGES: [Package; 3] = [
    Package { name: "waypost-dat", size: 3 << 20, depends: "" },
    Package { name: "waypost-engine", size: 300 << 10, depends: "Depends: waypost-dat\n" },
    Package { name: "waypost-tool", size: 5_000, depends: "Depends: waypost-engine\n" },
];

/// A state of the repository.
pub(crate) struct Published {
    /// What it was signed with, as apt wants it.
    pub(crate) key: Bytes,
    pub(crate) files: Vec<File>,
}

impl Published {
    /// The index of packages, by the name that all publications have in common.
    pub(crate) fn index(&self) -> &File {
        self.files.iter().find(|(path, _)| path.ends_with("/Packages.gz")).expect("it was published")
    }

    pub(crate) fn largest_package(&self) -> &File {
        self.files
            .iter()
            .find(|(path, _)| path.starts_with("pool/main/waypost-dat"))
            .expect("it was published")
    }
}

/// The two publications: the same packages in versions 1 and 2.
pub(crate) async fn published() -> &'static [Published; 2] {
    static PUBLICATIONS: OnceCell<[Published; 2]> = OnceCell::const_new();
    PUBLICATIONS.get_or_init(make).await
}

async fn make() -> [Published; 2] {
    let dir = tempfile::tempdir().expect("a directory");
    let keys = dir.path().join("keys");
    fs::create_dir(&keys).expect("a directory");
    let gpg = || {
        let agent = Agent::new("gpg").args(&["--batch", "--quiet", "--pinentry-mode", "loopback"]);
        agent.args(&["--passphrase", "", "--homedir"]).arg(&keys)
    };
    let who = "Office <office@example.invalid>";
    gpg().args(&["--quick-generate-key", who, "ed25519", "sign", "never"]).run().await.succeeds();
    gpg().arg("--output").arg(dir.path().join("key")).arg("--export").run().await.succeeds();
    let key = Bytes::from(fs::read(dir.path().join("key")).expect("the key"));
    let mut made = Vec::new();
    for version in [1, 2] {
        let tree = dir.path().join(format!("v{version}"));
        index(&tree, version).await;
        let dists = tree.join("dists/stable");
        let output = dists.join("InRelease");
        gpg()
            .arg("--output")
            .arg(output)
            .arg("--clearsign")
            .arg(dists.join("Release"))
            .run()
            .await
            .succeeds();
        made.push(Published { key: key.clone(), files: collect(&tree) });
    }
    Agent::new("gpgconf").arg("--homedir").arg(&keys).args(&["--kill", "all"]).run().await.succeeds();
    made.try_into().unwrap_or_else(|_| unreachable!("two were made"))
}

/// Makes packages, `Packages`, `Packages.gz` and `Release` in `tree`.
async fn index(tree: &Path, version: u64) {
    let (pool, binary) = (tree.join("pool/main"), tree.join("dists/stable/main/binary-amd64"));
    for dir in [&pool, &binary] {
        fs::create_dir_all(dir).expect("a directory");
    }
    for (seed, package) in (0..).zip(&PACKAGES) {
        let Package { name, size, depends } = package;
        let root = tree.with_extension(name);
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: Office <office@example.invalid>\n\
             {depends}Description: data for a test\n"
        );
        fs::create_dir_all(root.join("DEBIAN")).expect("a directory");
        fs::write(root.join("DEBIAN/control"), control).expect("a file");
        fs::write(root.join("payload"), content::whole(version * 10 + seed, *size)).expect("a file");
        let deb = pool.join(format!("{name}_{version}_all.deb"));
        let build = Agent::new("dpkg-deb").args(&["--root-owner-group", "-Znone", "--build"]);
        build.arg(root).arg(deb).run().await.succeeds();
    }
    let packages = Agent::new("apt-ftparchive").args(&["packages", "pool"]).dir(tree).run().await.succeeds();
    fs::write(binary.join("Packages"), packages.stdout()).expect("a file");
    Agent::new("gzip").args(&["-n", "-k"]).arg(binary.join("Packages")).run().await.succeeds();
    let mut release = Agent::new("apt-ftparchive");
    for field in
        ["Origin=office", "Suite=stable", "Codename=stable", "Architectures=amd64", "Components=main"]
    {
        release = release.arg("-o").arg(format!("APT::FTPArchive::Release::{field}"));
    }
    let release = release.args(&["release", "dists/stable"]).dir(tree).run().await.succeeds();
    // Publications are an hour apart, whenever they are made: apt takes none that is older than what it has.
    let date = SystemTime::now() - Duration::from_hours(10 - version);
    let date = format!("Date: {}", httpdate::fmt_http_date(date));
    let lines = String::from_utf8_lossy(release.stdout()).into_owned();
    let lines = lines.lines().map(|line| if line.starts_with("Date:") { &date } else { line });
    let text: String =
        ["Acquire-By-Hash: yes"].into_iter().chain(lines).flat_map(|line| [line, "\n"]).collect();
    fs::write(tree.join("dists/stable/Release"), text).expect("a file");
}

/// All files of `tree`, and the indexes under the names of their hashes.
fn collect(tree: &Path) -> Vec<File> {
    let mut files = Vec::new();
    let mut open = vec![tree.to_owned()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).expect("readable").map(|entry| entry.expect("listed").path()));
        } else {
            let name = path.strip_prefix(tree).expect("below").to_string_lossy().into_owned();
            files.push((name, Bytes::from(fs::read(&path).expect("readable"))));
        }
    }
    let release = fs::read_to_string(tree.join("dists/stable/Release")).expect("readable");
    let mut kind = "";
    for line in release.lines() {
        let Some(entry) = line.strip_prefix(' ') else {
            kind = line.trim_end_matches(':');
            continue;
        };
        let words: Vec<&str> = entry.split_whitespace().collect();
        let [hash, _, name] = words[..] else { continue };
        let Some((folder, _)) = name.rsplit_once('/') else { continue };
        let Ok(body) = fs::read(tree.join("dists/stable").join(name)) else { continue };
        files.push((format!("dists/stable/{folder}/by-hash/{kind}/{hash}"), body.into()));
    }
    files
}
