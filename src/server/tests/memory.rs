//! What a connection costs while it does nothing, measured from outside on a process of its own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;

use super::harness::{Site, get, patient, read_answer, send, trusting};
use crate::base::limits::IDLE_CONNECTION_BYTES;
use crate::server::Options;

const CONNECTIONS: u64 = 1_000;
const NAME: &str = "server::tests::memory::a_server_in_a_process_of_its_own";

#[test]
#[ignore = "run by the measurement below"]
fn a_server_in_a_process_of_its_own() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let site =
        runtime.block_on(async { Site::open(Options { connections_per_address: usize::MAX, ..patient() }) });
    let der: String = site.cert.der().iter().map(|byte| format!("{byte:02x}")).collect();
    // Not by println!, which the test harness would keep for itself.
    writeln!(std::io::stderr(), "ready {} {der}", site.secure).unwrap();
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
}

fn resident(pid: u32) -> u64 {
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}

/// Takes some seconds of two cores; prints the figure with `--nocapture`.
#[test]
#[ignore = "a measurement; run with --ignored"]
fn a_thousand_idle_tls_connections_cost_little() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let ready = lines.find_map(|line| line.unwrap().strip_prefix("ready ").map(str::to_owned)).unwrap();
    let (address, der) = ready.split_once(' ').unwrap();
    let der: Vec<u8> =
        (0..der.len()).step_by(2).map(|at| u8::from_str_radix(&der[at..at + 2], 16).unwrap()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let connector = trusting(&CertificateDer::from(der), &[b"http/1.1"]);
    let open = |count: u64| {
        runtime.block_on(async {
            let mut streams = Vec::new();
            for _ in 0..count {
                let tcp = TcpStream::connect(address).await.unwrap();
                let name = ServerName::try_from("localhost").unwrap();
                let mut stream = connector.connect(name, tcp).await.unwrap();
                send(&mut stream, &get("/zeros/4096")).await;
                read_answer(&mut stream).await;
                streams.push(stream);
            }
            streams
        })
    };
    // What the process needs once is not a connection's cost.
    let warm = open(50);
    let before = resident(child.id());
    let idle = open(CONNECTIONS);
    let each = (resident(child.id()) - before) / CONNECTIONS;
    println!("an idle TLS connection costs {each} bytes");
    drop((warm, idle));
    writeln!(child.stdin.take().unwrap()).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(each <= IDLE_CONNECTION_BYTES, "{each}");
}
