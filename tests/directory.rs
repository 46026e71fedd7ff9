//! A directory as a repository: this node is its master.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use waypost::base::digest::Digest;
use waypost::testkit::client::{Answer, End};
use waypost::testkit::content;
use waypost::testkit::http2::Http2;
use waypost::testkit::node::{Home, NAME, Plan, TestNode};

const MIB: usize = 1 << 20;

/// What caches are told about a file without a rule: ask each time, and go on with it if nobody answers.
const UNRULED: &str = "public, max-age=0, stale-while-revalidate=0, stale-if-error=604800";

/// A node whose repository at `/` is the directory `files` of its home.
async fn master() -> (Home, TestNode) {
    master_with("").await
}

async fn master_with(lines: &str) -> (Home, TestNode) {
    let home = Home::new();
    fs::create_dir(home.path("files")).unwrap();
    let node = home.start(&Plan::directory(&home.path("files")).with(lines)).await;
    (home, node)
}

/// Writes a file of body `seed` that was last changed an hour ago.
fn put(home: &Home, name: &str, seed: u64, len: usize) -> PathBuf {
    let path = home.path("files").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content::whole(seed, len)).unwrap();
    age(&path, 3_600);
    path
}

fn age(path: &Path, seconds: u64) {
    let then = SystemTime::now() - Duration::from_secs(seconds);
    fs::File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
}

fn tag_of(seed: u64, len: usize) -> String {
    format!("\"sha256-{}\"", Digest::of(&content::whole(seed, len)))
}

fn check(answer: &Answer, seed: u64, len: usize) {
    assert_eq!((answer.status, answer.end), (200, End::Complete));
    assert!(answer.body == content::whole(seed, len));
}

#[tokio::test]
async fn a_file_is_served_with_what_is_known_about_it() {
    let (home, node) = master().await;
    let path = put(&home, "Current/DAT/avv.zip", 1, 3 * MIB + 7);
    let answer = node.get("/Current/DAT/avv.zip", &[]).await;
    check(&answer, 1, 3 * MIB + 7);
    assert_eq!(answer.header("etag"), Some(tag_of(1, 3 * MIB + 7).as_str()));
    assert_eq!(answer.header("content-type"), Some("application/zip"));
    assert_eq!(answer.header("accept-ranges"), Some("bytes"));
    assert_eq!(answer.header("content-length"), Some("3145735"));
    let modified = httpdate::fmt_http_date(fs::metadata(path).unwrap().modified().unwrap());
    assert_eq!(answer.header("last-modified"), Some(modified.as_str()));
    assert!(answer.header("repr-digest").unwrap().starts_with("sha-256=:"));
    assert_eq!(answer.header("cache-control"), Some(UNRULED));
    for name in ["via", "x-request-id", "cache-status", "date"] {
        assert!(answer.header(name).is_some(), "{name}");
    }
    assert_eq!(answer.header("age"), None, "it is the origin's own");
    let mut agent = Http2::connect(node.tls, NAME, home.authority()).await.unwrap();
    check(&agent.request("GET", "/Current/DAT/avv.zip", &[]).await.unwrap(), 1, 3 * MIB + 7);
}

#[tokio::test]
async fn parts_of_a_file_are_served() {
    let (home, node) = master().await;
    let len = 2 * MIB + 5;
    put(&home, "f", 1, len);
    let mut client = node.client().await;
    for (asked, start, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=131070-131075", 131_070, 131_076),
        ("bytes=-5", len - 5, len),
        ("bytes=1000000-", 1_000_000, len),
        ("bytes=0-99999999999", 0, len),
    ] {
        let answer = client.get("/f", &[("range", asked)]).await.unwrap();
        assert_eq!((answer.status, answer.end), (206, End::Complete), "{asked}");
        assert_eq!(answer.header("content-range").unwrap(), format!("bytes {start}-{}/{len}", end - 1));
        assert!(answer.body == content::piece(1, start as u64, end - start), "{asked}");
    }
    let answer = client.get("/f", &[("range", "bytes=2097157-")]).await.unwrap();
    assert_eq!((answer.status, answer.header("content-range")), (416, Some("bytes */2097157")));
    let answer = client.get("/f", &[("range", "bytes=0-9,2000000-2000009")]).await.unwrap();
    assert_eq!((answer.status, answer.end), (206, End::Complete));
    assert!(answer.header("content-type").unwrap().starts_with("multipart/byteranges; boundary="));
    for (start, len) in [(0, 10), (2_000_000, 10)] {
        let part = content::piece(1, start, len);
        assert!(answer.body.windows(len).any(|at| at == part));
    }
}

#[tokio::test]
async fn conditions_are_answered_by_content_and_date() {
    let (home, node) = master().await;
    put(&home, "f", 1, 1_000);
    let tag = tag_of(1, 1_000);
    let (weak, modified) = (format!("W/{tag}"), node.get("/f", &[]).await);
    let modified = modified.header("last-modified").unwrap().to_owned();
    let mut client = node.client().await;
    let range = ("range", "bytes=0-9");
    for (headers, status) in [
        (vec![("if-none-match", tag.as_str())], 304),
        (vec![("if-none-match", weak.as_str())], 304),
        (vec![("if-none-match", "*")], 304),
        (vec![("if-none-match", "\"other\"")], 200),
        (vec![("if-none-match", "\"other\""), ("if-modified-since", modified.as_str())], 200),
        (vec![("if-modified-since", modified.as_str())], 304),
        (vec![("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT")], 200),
        (vec![("if-modified-since", "nonsense")], 200),
        (vec![("if-match", tag.as_str())], 200),
        (vec![("if-match", weak.as_str())], 412),
        (vec![("if-match", "\"other\"")], 412),
        (vec![("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT")], 412),
        (vec![("if-unmodified-since", modified.as_str())], 200),
        (vec![range, ("if-range", tag.as_str())], 206),
        (vec![range, ("if-range", weak.as_str())], 200),
        (vec![range, ("if-range", modified.as_str())], 206),
        (vec![range, ("if-range", "\"other\"")], 200),
        (vec![range, ("if-none-match", tag.as_str())], 304),
    ] {
        for method in ["GET", "HEAD"] {
            let status = if (method, status) == ("HEAD", 206) { 200 } else { status };
            let answer = client.request(method, "/f", &headers).await.unwrap();
            assert_eq!(answer.status, status, "{method} {headers:?}");
            let len = match (method, status) {
                ("GET", 200) => 1_000,
                ("GET", 206) => 10,
                _ => 0,
            };
            assert_eq!((answer.body.len(), answer.end), (len, End::Complete), "{method} {headers:?}");
            if status == 304 {
                assert_eq!(
                    (answer.header("etag"), answer.header("content-length")),
                    (Some(tag.as_str()), None)
                );
            }
        }
    }
}

#[tokio::test]
async fn head_says_all_and_sends_nothing() {
    let (home, node) = master().await;
    put(&home, "f.xml", 1, 5_000);
    let mut client = node.client().await;
    let head = client.request("HEAD", "/f.xml", &[]).await.unwrap();
    let get = client.get("/f.xml", &[]).await.unwrap();
    for name in ["etag", "last-modified", "content-length", "content-type", "repr-digest", "accept-ranges"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
    assert_eq!((head.status, head.body.len()), (200, 0));
    let missing = client.request("HEAD", "/g", &[]).await.unwrap();
    assert_eq!((missing.status, missing.header("content-length")), (404, Some("10")));
    check(&client.get("/f.xml", &[]).await.unwrap(), 1, 5_000);
}

#[tokio::test]
async fn an_empty_file_is_a_file() {
    let (home, node) = master().await;
    put(&home, "empty", 1, 0);
    let mut client = node.client().await;
    let answer = client.get("/empty", &[]).await.unwrap();
    assert_eq!((answer.status, answer.header("content-length"), answer.end), (200, Some("0"), End::Complete));
    assert_eq!(client.get("/empty", &[("range", "bytes=0-")]).await.unwrap().status, 416);
    assert_eq!(client.get("/empty", &[("if-none-match", &tag_of(1, 0))]).await.unwrap().status, 304);
}

#[tokio::test]
async fn nothing_outside_and_nothing_hidden_is_served() {
    let (home, node) = master().await;
    home.write("secret", "a secret");
    put(&home, "sub/f", 1, 100);
    put(&home, ".hidden", 1, 100);
    put(&home, "sub/.git/config", 1, 100);
    let files = home.path("files");
    symlink("../secret", files.join("up")).unwrap();
    symlink(home.path("secret"), files.join("absolute")).unwrap();
    symlink("../..", files.join("sub/out")).unwrap();
    symlink("/etc", files.join("etc")).unwrap();
    symlink("loop", files.join("loop")).unwrap();
    symlink("/proc/self/root", files.join("magic")).unwrap();
    symlink("gone", files.join("dangling")).unwrap();
    symlink("sub/f", files.join("inside")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, files.join("pipe"), rustix::fs::FileType::Fifo, 0o644.into(), 0)
        .unwrap();
    let mut client = node.client().await;
    for path in [
        "/up",
        "/absolute",
        "/sub/out/secret",
        "/etc/passwd",
        "/loop",
        "/magic/etc/passwd",
        "/dangling",
        "/pipe",
        "/.hidden",
        "/sub/.git/config",
        "/sub/.git",
        "/sub",
        "/sub/",
        "/",
        "/sub/f/",
        "/sub/f/x",
        "/missing",
        "/waypost.toml",
        "/%2ehidden",
        "/sub%00f",
        "/..%2fsecret",
        "/%2e%2e/secret",
        "/../secret",
    ] {
        let answer = client.get(path, &[]).await.unwrap();
        assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
        assert!(answer.body.len() < 30 && !String::from_utf8_lossy(&answer.body).contains('/'), "{path}");
        if answer.status == 400 {
            client = node.client().await;
        }
    }
    check(&client.get("/inside", &[]).await.unwrap(), 1, 100);
    check(&client.get("/sub/f", &[]).await.unwrap(), 1, 100);
}

#[tokio::test]
async fn names_may_have_any_character_a_name_may_have() {
    let (home, node) = master().await;
    for (number, (name, path)) in (1..).zip([
        ("a b.txt", "/a%20b.txt"),
        ("ä+~_-.zip", "/%C3%A4+~_-.zip"),
        ("100% #1?.txt", "/100%25%20%231%3F.txt"),
        ("x;y=1,z", "/x;y=1,z"),
        ("CON", "/CON"),
    ]) {
        put(&home, name, number, 100);
        check(&node.get(path, &[]).await, number, 100);
    }
}

#[tokio::test]
async fn a_new_content_has_a_new_tag_and_an_old_one_keeps_its_own() {
    let (home, node) = master().await;
    let path = put(&home, "f", 1, 1_000);
    check(&node.get("/f", &[]).await, 1, 1_000);
    put(&home, "f", 2, 1_000);
    let answer = node.get("/f", &[("if-none-match", &tag_of(1, 1_000))]).await;
    check(&answer, 2, 1_000);
    assert_eq!(answer.header("etag"), Some(tag_of(2, 1_000).as_str()));
    // Copied anew, with another date: the same file.
    put(&home, "g", 2, 1_000);
    age(&home.path("files/g"), 60);
    fs::rename(home.path("files/g"), &path).unwrap();
    assert_eq!(node.get("/f", &[("if-none-match", &tag_of(2, 1_000))]).await.status, 304);
    fs::remove_file(path).unwrap();
    assert_eq!(node.get("/f", &[]).await.status, 404);
}

/// A download that has begun and waits for its reader.
struct Download(TcpStream);

impl Download {
    async fn begin(node: &TestNode, path: &str) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(64 << 10).unwrap();
        socket.connect(&node.plain.into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut tcp = TcpStream::from_std(socket.into()).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        tcp.write_all(request.as_bytes()).await.unwrap();
        tcp.readable().await.unwrap();
        Self(tcp)
    }

    /// The body as far as it comes.
    async fn finish(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A reset is one way of breaking.
        drop(self.0.read_to_end(&mut bytes).await);
        let head = bytes.windows(4).position(|at| at == b"\r\n\r\n").unwrap();
        bytes.split_off(head + 4)
    }
}

#[tokio::test]
async fn a_file_replaced_during_a_download_is_still_sent_as_it_was() {
    let (home, node) = master().await;
    let len = 24 * MIB;
    put(&home, "f", 1, len);
    let download = Download::begin(&node, "/f").await;
    put(&home, "new", 2, len);
    fs::rename(home.path("files/new"), home.path("files/f")).unwrap();
    assert!(download.finish().await == content::whole(1, len));
    check(&node.get("/f", &[]).await, 2, len);
    let download = Download::begin(&node, "/f").await;
    fs::remove_file(home.path("files/f")).unwrap();
    assert!(download.finish().await == content::whole(2, len));
}

#[tokio::test]
async fn a_file_changed_during_a_download_breaks_it_visibly() {
    let (home, node) = master().await;
    let len = 24 * MIB;
    for change in ["bytes in the end", "shorter", "longer", "written anew"] {
        let path = put(&home, "f", 1, len);
        let download = Download::begin(&node, "/f").await;
        let mut file = fs::File::options().write(true).open(&path).unwrap();
        match change {
            "bytes in the end" => {
                file.seek(SeekFrom::End(-10)).unwrap();
                file.write_all(b"tampered").unwrap();
            }
            "shorter" => file.set_len(1 << 20).unwrap(),
            "longer" => {
                file.seek(SeekFrom::End(0)).unwrap();
                file.write_all(b"more").unwrap();
            }
            _ => fs::write(&path, content::whole(2, len)).unwrap(),
        }
        let body = download.finish().await;
        assert!(body.len() < len, "{change}: looks whole");
        assert!(body == content::whole(1, body.len()), "{change}: a byte of the other file");
    }
}

#[tokio::test]
async fn rules_say_what_caches_are_told() {
    let rules = "[[repository.rule]]\nmatch = \"*.zip\"\nimmutable = true\n\
                 [[repository.rule]]\nmatch = \"*.xml\"\nfresh_for = \"90s\"\n";
    let (home, node) = master_with(rules).await;
    for (name, expected) in [
        ("a.zip", "public, max-age=31536000, immutable"),
        ("b.xml", "public, max-age=90, stale-if-error=604800"),
        ("c", UNRULED),
    ] {
        put(&home, name, 1, 10);
        assert_eq!(node.get(&format!("/{name}"), &[]).await.header("cache-control"), Some(expected));
    }
}

#[tokio::test]
async fn a_query_means_nothing_to_a_file() {
    let (home, node) = master().await;
    put(&home, "f", 1, 10);
    assert_eq!(node.get("/f?x=1", &[]).await.status, 400);
    let (home, node) = master_with("query = \"drop\"").await;
    put(&home, "f", 1, 10);
    check(&node.get("/f?x=1", &[]).await, 1, 10);
}

#[tokio::test]
async fn a_handler_in_front_of_a_master_is_indistinguishable_and_asks_only_what_it_must() {
    let (home, master) = master_with("[[repository.rule]]\nmatch = \"*.zip\"\nimmutable = true\n").await;
    put(&home, "cat.xml", 1, 5_000);
    put(&home, "big.zip", 2, 3 * MIB);
    let ca = home.path("ca.pem");
    let plan = Plan::new(format!(
        "[[repository]]\nname = \"files\"\npath = \"/\"\nupstreams = [\"https://localhost:{}/\"]\nca = {ca:?}\n",
        master.tls.port()
    ));
    let handler = Home::new().start(&plan).await;
    for (path, seed, len) in [("/cat.xml", 1, 5_000), ("/big.zip", 2, 3 * MIB)] {
        let direct = master.get(path, &[]).await;
        for _ in 0..3 {
            let answer = handler.tls_client().await.get(path, &[]).await.unwrap();
            check(&answer, seed, len);
            for name in ["etag", "last-modified", "content-type", "cache-control"] {
                assert_eq!(answer.header(name), direct.header(name), "{path}: {name}");
            }
            handler.settled().await;
        }
        let hit = handler.get(path, &[]).await;
        assert_eq!(hit.header("repr-digest"), direct.header("repr-digest"));
    }
    // The mutable one is another one now, and nobody sees the old one.
    put(&home, "cat.xml", 3, 5_000);
    check(&handler.get("/cat.xml", &[]).await, 3, 5_000);
    handler.settled().await;
    let metrics = master.admin("/metrics").await;
    let sent = metrics
        .lines()
        .filter(|line| line.starts_with("waypost_cache_response_bytes_total{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum::<u64>();
    let looked = 5_000 + 3 * MIB as u64;
    assert_eq!(sent - looked, 2 * 5_000 + 3 * MIB as u64, "each version went to the handler once");
    // And without its master it goes on with what it has.
    drop(master);
    handler.settled().await;
    let mut agent = handler.client().await;
    for _ in 0..3 {
        check(&agent.get("/cat.xml", &[]).await.unwrap(), 3, 5_000);
        check(&agent.get("/big.zip", &[]).await.unwrap(), 2, 3 * MIB);
    }
}
