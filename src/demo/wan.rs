//! The WAN: a relay of TCP connections with a rate and a delay, shared by all of them, that counts what crosses it
//! and can be disturbed.
//!
//! Bytes are counted when they leave the line, so what a disturbance destroys on the way is not counted as arrived.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Bytes taken from a connection at once; others get their turn in between.
const CHUNK: usize = 16 << 10;
/// Chunks on their way in one direction of a connection: 4 MiB, the product of 1 Gbit/s and 32 ms.
const QUEUE: usize = 256;
/// A timer that fires late must not make the line slower: this much is caught up.
const CREDIT: Duration = Duration::from_millis(20);

/// A line between a handler and headquarters. Dropping it closes everything on it.
pub(super) struct Wan {
    address: SocketAddr,
    line: Arc<Line>,
    _relay: JoinSet<()>,
}

struct Line {
    far_end: SocketAddr,
    down: Lane,
    up: Lane,
    state: watch::Sender<State>,
    reset_at: AtomicU64,
}

/// Connections live as long as the generation they began in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    working: bool,
    generation: u64,
}

/// One direction.
struct Lane {
    rate: u64,
    delay: Duration,
    free: Mutex<Instant>,
    bytes: AtomicU64,
}

impl Wan {
    /// A line to `far_end` that carries `rate` bytes per second each way and delays them by `delay`.
    pub(super) async fn open(far_end: SocketAddr, rate: u64, delay: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let lane = || Lane { rate, delay, free: Mutex::new(Instant::now()), bytes: AtomicU64::new(0) };
        let line = Arc::new(Line {
            far_end,
            down: lane(),
            up: lane(),
            state: watch::Sender::new(State { working: true, generation: 0 }),
            reset_at: AtomicU64::new(u64::MAX),
        });
        let mut relay = JoinSet::new();
        relay.spawn(Arc::clone(&line).run(listener));
        Ok(Self { address, line, _relay: relay })
    }

    /// The near end.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that arrived at the near end so far, everything included: TLS, heads, bodies.
    pub(super) fn received(&self) -> u64 {
        self.line.down.bytes.load(Ordering::Relaxed)
    }

    /// Resets every connection, once, when `more` bytes have arrived from now on.
    pub(super) fn reset_after(&self, more: u64) {
        self.line.reset_at.store(self.received() + more, Ordering::Relaxed);
    }

    /// Resets every connection and refuses new ones, or lets them through again.
    pub(super) fn set_working(&self, working: bool) {
        self.line.next_generation(working);
    }
}

impl Line {
    fn next_generation(&self, working: bool) {
        self.state.send_modify(|state| *state = State { working, generation: state.generation + 1 });
    }

    async fn run(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            let near = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
            };
            match near {
                Ok((near, _)) => {
                    connections.spawn(Arc::clone(&self).carry(near));
                }
                // Out of descriptors: wait for a connection to end.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn carry(self: Arc<Self>, mut near: TcpStream) {
        let mut state = self.state.subscribe();
        let began = *state.borrow_and_update();
        if began.working
            && let Ok(mut far) = TcpStream::connect(self.far_end).await
        {
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let (near_read, near_write) = near.split();
            let (far_read, far_write) = far.split();
            tokio::select! {
                _ = state.wait_for(|state| *state != began) => {}
                _ = async {
                    tokio::join!(
                        self.pump(near_read, far_write, &self.up),
                        self.pump(far_read, near_write, &self.down),
                    )
                } => return,
            }
            let _ = far.set_zero_linger();
        }
        let _ = near.set_zero_linger();
    }

    async fn pump(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        lane: &Lane,
    ) -> io::Result<()> {
        let (sender, mut queue) = mpsc::channel::<(Instant, Bytes)>(QUEUE);
        let enter = async move {
            let mut chunk = vec![0; CHUNK];
            loop {
                let read = from.read(&mut chunk).await?;
                let bytes = Bytes::copy_from_slice(chunk.get(..read).unwrap_or_default());
                if bytes.is_empty() || sender.send((Instant::now() + lane.delay, bytes)).await.is_err() {
                    return io::Result::Ok(());
                }
            }
        };
        let leave = async move {
            while let Some((due, bytes)) = queue.recv().await {
                sleep_until(due).await;
                lane.carry(bytes.len() as u64).await;
                to.write_all(&bytes).await?;
                self.count(lane, bytes.len() as u64);
            }
            to.shutdown().await
        };
        tokio::try_join!(enter, leave).map(|_| ())
    }

    fn count(&self, lane: &Lane, bytes: u64) {
        lane.bytes.fetch_add(bytes, Ordering::Relaxed);
        let at = self.reset_at.load(Ordering::Relaxed);
        if self.down.bytes.load(Ordering::Relaxed) >= at
            && self.reset_at.compare_exchange(at, u64::MAX, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.next_generation(true);
        }
    }
}

impl Lane {
    /// Waits until the line has carried `bytes` more.
    async fn carry(&self, bytes: u64) {
        let cost = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / self.rate.max(1));
        let done = {
            let mut free = self.free.lock();
            let now = Instant::now();
            *free = (*free).max(now.checked_sub(CREDIT).unwrap_or(now)) + cost;
            *free
        };
        sleep_until(done).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A far end that sends `bytes` to everyone who connects.
    async fn source(bytes: usize) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move { stream.write_all(&vec![7; bytes]).await });
            }
        });
        address
    }

    async fn read_all(wan: &Wan) -> io::Result<usize> {
        let mut stream = TcpStream::connect(wan.address()).await?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await
    }

    #[tokio::test]
    async fn all_connections_share_the_rate_and_are_counted() {
        let wan = Wan::open(source(250_000).await, 1_000_000, Duration::ZERO).await.unwrap();
        let start = Instant::now();
        let (one, two) = tokio::join!(read_all(&wan), read_all(&wan));
        let took = start.elapsed();
        assert_eq!((one.unwrap(), two.unwrap(), wan.received()), (250_000, 250_000, 500_000));
        assert!(took > Duration::from_millis(470), "{took:?}");
        assert!(took < Duration::from_millis(1_500), "{took:?}");
    }

    #[tokio::test]
    async fn the_delay_is_a_round_trip_not_a_rate() {
        let wan = Wan::open(source(1_000_000).await, 1 << 40, Duration::from_millis(50)).await.unwrap();
        let start = Instant::now();
        assert_eq!(read_all(&wan).await.unwrap(), 1_000_000);
        let took = start.elapsed();
        assert!((50..1_000).contains(&took.as_millis()), "{took:?}");
    }

    #[tokio::test]
    async fn a_reset_comes_once_and_in_the_middle() {
        let wan = Wan::open(source(1_000_000).await, 10_000_000, Duration::ZERO).await.unwrap();
        wan.reset_after(300_000);
        let error = read_all(&wan).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!((300_000..400_000).contains(&wan.received()), "{}", wan.received());
        assert_eq!(read_all(&wan).await.unwrap(), 1_000_000);
    }

    #[tokio::test]
    async fn nothing_crosses_a_line_that_is_down() {
        let wan = Wan::open(source(100).await, 1_000_000, Duration::ZERO).await.unwrap();
        wan.set_working(false);
        assert!(read_all(&wan).await.is_err());
        assert_eq!(wan.received(), 0);
        wan.set_working(true);
        assert_eq!(read_all(&wan).await.unwrap(), 100);
    }
}
