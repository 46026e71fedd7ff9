//! The real program with many agents in front of it, and what agents do.

use std::net::SocketAddr;

use bytes::Bytes;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinSet;
use waypost::testkit::client::Client;
use waypost::testkit::process::{Process, eventually};
use waypost::testkit::stage::Stage;

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;

/// The program in front of an origin, with these lines in `[limits]`, and with patience for gates that open late.
pub(crate) async fn stage(limits: &str) -> Stage {
    let mut stage = Stage::new(env!("CARGO_BIN_EXE_waypost")).await;
    stage.setup.server = format!(
        "listen = \"127.0.0.1:0\"\ntls = {{ cert = \"node.pem\", key = {{ file = \"node.key\" }} }}\n\n\
         [limits]\nconnections_per_address = 5000\n{limits}\n"
    );
    stage.setup.repository = "first_byte_timeout = \"5m\"\nstall_timeout = \"5m\"\n".to_owned();
    stage.site.configure(&stage.setup);
    stage
}

/// Crowds take turns: several at once would only make each other late.
pub(crate) async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// An agent that fetches `path` and compares every byte with `whole`.
pub(crate) async fn fetch(node: SocketAddr, path: String, mut whole: Bytes) {
    let mut client = Client::connect(node).await.expect("the node accepts");
    let head = client.begin(&path, &[]).await.expect("a head");
    assert_eq!(head.status, 200, "{path}: {head:?}");
    assert_eq!(head.header("content-length"), Some(whole.len().to_string().as_str()));
    while !whole.is_empty() {
        let bytes = client.some(whole.len()).await.expect("the body goes on");
        assert!(bytes == whole.split_to(bytes.len()), "wrong bytes, {} before the end", whole.len());
    }
}

/// Waits for all of them, each of which must have ended well.
pub(crate) async fn all(mut tasks: JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        ended.expect("an agent found nothing wrong");
    }
}

/// Waits until so many agents sit at fills.
pub(crate) async fn readers(node: &Process, count: f64) {
    eventually(&format!("{count} readers"), async || node.metric("waypost_fill_followers").await == count)
        .await;
}

/// A connection that takes hardly anything by itself: its buffer is small.
pub(crate) async fn narrow(node: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(16 << 10).expect("a buffer");
    socket.connect(&node.into()).expect("the node accepts");
    socket.set_nonblocking(true).expect("it does not wait");
    TcpStream::from_std(socket.into()).expect("a stream")
}

/// Leaves with a reset instead of a goodbye.
pub(crate) fn reset(tcp: TcpStream) {
    SockRef::from(&tcp).set_linger(Some(std::time::Duration::ZERO)).expect("an option");
    drop(tcp);
}

/// As many files may be open as the system lets us have: thousands of agents are thousands of sockets.
pub(crate) fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the hard limit");
}
