//! Agents at the real binary: `cargo bench --bench agents [-- streams|checkins|detection]`.
//!
//! Streams are held by a process of their own, this program once more, so that what is measured is the handler's: memory
//! and CPU from its `/proc`. `AGENTS_STREAMS` is how many there are (10,000), `AGENTS_SECONDS` for how long they are idle
//! (120, in which each is pinged once).

#![expect(clippy::print_stdout, reason = "the table is what this program is for")]
#![expect(unreachable_pub, reason = "a program; nothing of it can be reached")]
#![expect(dead_code, reason = "the support is that of other benches, too")]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use support::node::{Node, Setup};

/// Streams of one source address: a machine has some 28,000 ports for one.
const PER_ADDRESS: usize = 2_500;
/// Handshakes at once.
const AT_ONCE: usize = 32;
/// Streams that are open before what one costs is measured.
const WARM: usize = 100;
/// Connections over which check-ins come.
const CALLERS: usize = 64;
/// Agents that take turns on them.
const CALLING: usize = 6_400;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if let [word, address, ca] = words.as_slice()
        && word == "hold"
    {
        allow_descriptors()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(hold(address.parse()?, &std::fs::read(ca)?));
    }
    // `cargo test --benches` runs this too, without the word; it takes minutes and proves nothing there.
    if !std::env::args().any(|word| word == "--bench") {
        return Ok(());
    }
    let wants = |name: &str| words.is_empty() || words.iter().any(|word| name.starts_with(word.as_str()));
    allow_descriptors()?;
    tokio::runtime::Runtime::new()?.block_on(async {
        if wants("checkins") {
            check_ins().await?;
        }
        if wants("detection") {
            detection().await?;
        }
        if wants("streams") {
            streams().await?;
        }
        Ok(())
    })
}

fn allow_descriptors() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}

fn number(name: &str, usual: usize) -> usize {
    std::env::var(name).ok().and_then(|it| it.parse().ok()).unwrap_or(usual)
}

/// A node for agents, with these further lines in its `[agents]`.
fn node(lines: &'static str) -> anyhow::Result<Node> {
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    Node::launch(Setup { repository: lines, ..Setup::new(nowhere, 64) })
}

/// Many streams that say nothing but pongs: memory of one, and CPU of all.
async fn streams() -> anyhow::Result<()> {
    let (count, seconds) = (number("AGENTS_STREAMS", 10_000), number("AGENTS_SECONDS", 120));
    let node = node("[agents]\nstate_dir = \"state\"\n")?;
    let mut held = Held::begin(&node)?;
    held.open(WARM).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = node.memory()?;
    let began = Instant::now();
    let cpu = node.cpu()?;
    held.open(count).await?;
    let (took, opening) = (began.elapsed(), node.cpu()? - cpu);
    let (cpu, began) = (node.cpu()?, Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
    let idle = (node.cpu()? - cpu).as_secs_f64() / began.elapsed().as_secs_f64();
    let each = node.memory()?.saturating_sub(before) / count.saturating_sub(WARM).max(1) as u64;
    println!("{count} streams: {:.1} KiB resident each", each as f64 / 1_024.0);
    println!("  CPU over {seconds} s, each pinged once in 120 s: {:.2} % of a core", idle * 100.0);
    println!("  opened in {took:.1?}, {:.2} ms of CPU each", opening.as_secs_f64() * 1e3 / count as f64);
    let listed = ask(&node.admin(), "/metrics").await?;
    let told = |line: &&str| {
        let of_streams = line.starts_with("waypost_agents{") && line.contains("contact=\"stream\"");
        (of_streams || line.starts_with("waypost_agent_disconnects_total")) && !line.ends_with(" 0")
    };
    listed.lines().filter(told).for_each(|line| println!("  {line}"));
    Ok(())
}

/// The process that holds streams. It opens as many as it is told, says so, and ends with its input.
struct Held {
    child: tokio::process::Child,
    said: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl Held {
    fn begin(node: &Node) -> anyhow::Result<Self> {
        let mut child = tokio::process::Command::new(std::env::current_exe()?)
            .args(["hold", &node.address().to_string()])
            .arg(node.ca()?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let said = BufReader::new(child.stdout.take().context("its output")?).lines();
        Ok(Self { child, said })
    }

    /// Returns when `count` are open, all told.
    async fn open(&mut self, count: usize) -> anyhow::Result<()> {
        let input = self.child.stdin.as_mut().context("its input")?;
        input.write_all(format!("{count}\n").as_bytes()).await?;
        input.flush().await?;
        let said = self.said.next_line().await?.context("the holder has ended")?;
        ensure!(said == count.to_string(), "the holder says {said}");
        Ok(())
    }
}

/// Opens streams as its input says.
async fn hold(address: SocketAddr, ca: &[u8]) -> anyhow::Result<()> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(ca) {
        roots.add(authority?)?;
    }
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    let tls = TlsConnector::from(Arc::new(config));
    let (tell, mut told) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let lines = std::io::stdin().lines().map_while(Result::ok);
        lines.map_while(|line| tell.send(line).ok()).for_each(drop);
    });
    let mut open = 0;
    let mut streams = JoinSet::new();
    while let Some(line) = told.recv().await {
        let wanted: usize = line.trim().parse()?;
        let mut opening: JoinSet<anyhow::Result<TlsStream<TcpStream>>> = JoinSet::new();
        while open < wanted || !opening.is_empty() {
            if open < wanted && opening.len() < AT_ONCE {
                let (tls, number) = (tls.clone(), open);
                opening.spawn(async move { channel(&tls, address, number).await });
                open += 1;
            } else if let Some(stream) = opening.join_next().await {
                streams.spawn(answer_pings(stream??));
            }
        }
        println!("{open}");
    }
    Ok(())
}

/// One stream, from one of the addresses of this machine.
async fn channel(
    tls: &TlsConnector,
    address: SocketAddr,
    number: usize,
) -> anyhow::Result<TlsStream<TcpStream>> {
    let place = u8::try_from(number / PER_ADDRESS + 1)?;
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, place), 0)))?;
    let tcp = socket.connect(address).await?;
    let mut stream = tls.connect(ServerName::try_from("localhost")?, tcp).await?;
    let request = format!(
        "GET /agent/v1/channel HTTP/1.1\r\nhost: localhost\r\nwaypost-agent: pc-{number}\r\nconnection: upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(stream.read(&mut byte).await? == 1, "no answer");
        head.extend_from_slice(&byte);
    }
    ensure!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    Ok(stream)
}

/// Answers pings until the stream ends.
async fn answer_pings(mut stream: TlsStream<TcpStream>) {
    let mut frame = [0; 64];
    while let Ok(1..) = stream.read(&mut frame).await {
        // A ping has opcode 9; the pong is masked, with zeros.
        if frame.first() == Some(&0x89) && stream.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await.is_err() {
            return;
        }
    }
}

/// Check-ins over connections that are used again, as fast as they are acknowledged, each on disk by then.
async fn check_ins() -> anyhow::Result<()> {
    let node = node("[agents]\nstate_dir = \"state\"\n")?;
    let counts: Arc<AtomicU64> = Arc::default();
    let over = Instant::now() + Duration::from_secs(number("AGENTS_CHECKIN_SECONDS", 10) as u64);
    let (cpu, began) = (node.cpu()?, Instant::now());
    let mut callers: JoinSet<anyhow::Result<Vec<Duration>>> = JoinSet::new();
    for caller in 0..CALLERS {
        let (tls, address, counts) = (node.tls("http/1.1"), node.address(), Arc::clone(&counts));
        callers.spawn(async move {
            let mut stream = support::agent::connect(&tls, address).await?;
            let (mut times, mut buffer) = (Vec::new(), vec![0; 4_096]);
            for turn in 0_usize.. {
                if Instant::now() >= over {
                    break;
                }
                let (sequence, agent) = (turn * CALLERS / CALLING + 1, (turn * CALLERS + caller) % CALLING);
                let asked = Instant::now();
                stream.write_all(check_in(agent, sequence).as_bytes()).await?;
                let read = stream.read(&mut buffer).await?;
                let head = buffer.get(..read.min(15)).unwrap_or_default();
                ensure!(head.starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(head));
                times.push(asked.elapsed());
                counts.fetch_add(1, Ordering::Relaxed);
            }
            Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = callers.join_next().await {
        times.extend(done??);
    }
    times.sort_unstable();
    let (count, took) = (counts.load(Ordering::Relaxed) as f64, began.elapsed().as_secs_f64());
    let each = (node.cpu()? - cpu).as_secs_f64() / count;
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
    println!("check-ins, durable, over {CALLERS} connections: {:.0} a second", count / took);
    println!("  {:.0} µs of CPU each, which is {:.0} a second on one core", each * 1e6, 1.0 / each);
    println!("  acknowledged after p50 {:.1?}, p99 {:.1?}", at(50), at(99));
    Ok(())
}

fn check_in(agent: usize, sequence: usize) -> String {
    let body = format!(
        "{{\"sequence\":{sequence},\"boot\":\"b001\",\"contact\":\"checkin\",\"properties\":{{\"host\":\"pc-{agent}\",\
         \"os\":\"Linux 6.1\",\"tree\":\"/emea/berlin\",\"tags\":[\"kiosk\"],\"addresses\":[\"10.0.0.7\"],\
         \"agent_version\":\"1.0\"}},\"content\":{{\"Software/SiteStat.xml\":\"11230\"}},\
         \"policies\":{{\"av/base\":\"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"}}}}"
    );
    format!(
        "POST /agent/v1/checkin HTTP/1.1\r\nhost: localhost\r\nwaypost-agent: pc-{agent}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// How long it takes until an agent whose stream was reset, or that fell silent, is no longer called connected.
async fn detection() -> anyhow::Result<()> {
    let node = node("[agents]\nstate_dir = \"state\"\nping_after = \"5s\"\nping_timeout = \"3s\"\n")?;
    let tls = node.tls("http/1.1");
    let mut times = Vec::new();
    for number in 0..20 {
        let stream = channel(&tls, node.address(), number).await?;
        until(&node, number, "connected").await?;
        let (tcp, _) = stream.get_ref();
        tcp.set_zero_linger()?;
        let began = Instant::now();
        drop(stream);
        until(&node, number, "grey").await?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    println!(
        "a reset is noticed after {median:.1?}, at most {:.1?}",
        times.last().copied().unwrap_or_default()
    );
    // Nobody reads it any more, as of a machine that is frozen or cut off.
    let silent = channel(&tls, node.address(), 20).await?;
    let began = Instant::now();
    until(&node, 20, "grey").await?;
    println!("silence is noticed after {:.1?}, with a ping after 5 s and a timeout of 3 s", began.elapsed());
    drop(silent);
    Ok(())
}

async fn until(node: &Node, number: usize, state: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    let wanted = format!("\"state\":\"{state}\"");
    let mut row = String::new();
    while began.elapsed() < Duration::from_secs(20) {
        row = ask(&node.admin(), &format!("/v1/agents/pc-{number}")).await?.replace([' ', '\n'], "");
        if row.contains(&wanted) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    bail!("pc-{number} is not {state}: {row}")
}

/// What the admin API says, whatever its status.
async fn ask(socket: &Path, path: &str) -> anyhow::Result<String> {
    let mut stream = UnixStream::connect(socket).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
