//! An origin behind a thin line: HTTP/1.1, whole bodies and open ranges, one rate for all connections, counted.
//!
//! `/o/<bytes>/<name>` is a body of that many bytes; byte `i` of every body is byte `i % PERIOD` of one pattern.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until};
use xxhash_rust::xxh3::Xxh3;

/// No multiple of a block, so that no two blocks of a body are equal.
const PERIOD: usize = 1_048_583;
const CHUNK: usize = 16 << 10;
/// A timer that fires late must not make the line slower: this much is caught up.
const CREDIT: Duration = Duration::from_millis(20);

/// The origin. Its task ends with the runtime.
#[derive(Clone)]
pub struct Origin(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    pattern: Vec<u8>,
    rate: AtomicU64,
    delay: Duration,
    free: Mutex<Instant>,
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl Origin {
    /// Listens; every answer comes `delay` late.
    pub async fn start(delay: Duration) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut state = 1_u64;
        let mut pattern = Vec::with_capacity(PERIOD + 8);
        while pattern.len() < PERIOD {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            pattern.extend_from_slice(&(state >> 16).to_le_bytes().map(|byte| byte ^ (state >> 56) as u8));
        }
        pattern.truncate(PERIOD);
        let origin = Self(Arc::new(Inner {
            address: listener.local_addr()?,
            pattern,
            rate: AtomicU64::new(u64::MAX),
            delay,
            free: Mutex::new(Instant::now()),
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }));
        let accepting = origin.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let origin = accepting.clone();
                tokio::spawn(async move { origin.serve(stream).await });
            }
        });
        Ok(origin)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Bytes per second from now on; `u64::MAX` for no limit.
    pub fn set_rate(&self, rate: u64) {
        self.0.rate.store(rate, Ordering::Relaxed);
    }

    /// Requests and body bytes since the last call.
    pub fn take_counts(&self) -> (u64, u64) {
        (self.0.requests.swap(0, Ordering::Relaxed), self.0.bytes.swap(0, Ordering::Relaxed))
    }

    /// Body bytes sent since [`Origin::take_counts`].
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// What a body of `size` bytes hashes to (XXH3).
    pub fn expected(&self, size: u64) -> u64 {
        let mut hasher = Xxh3::new();
        let mut at = 0;
        while at < size {
            let piece = self.piece(at, size - at);
            hasher.update(piece);
            at += piece.len() as u64;
        }
        hasher.digest()
    }

    /// Some bytes from `offset` on.
    fn piece(&self, offset: u64, most: u64) -> &[u8] {
        let start = (offset % PERIOD as u64) as usize;
        let rest = self.0.pattern.get(start..).unwrap_or_default();
        rest.get(..usize::try_from(most).unwrap_or(usize::MAX).min(CHUNK)).unwrap_or(rest)
    }

    async fn serve(&self, mut stream: TcpStream) -> anyhow::Result<()> {
        stream.set_nodelay(true)?;
        let mut head = Vec::new();
        loop {
            head.clear();
            while !head.ends_with(b"\r\n\r\n") {
                anyhow::ensure!(stream.read_buf(&mut head).await? > 0, "closed");
            }
            self.0.requests.fetch_add(1, Ordering::Relaxed);
            self.answer(&mut stream, &String::from_utf8_lossy(&head)).await?;
        }
    }

    async fn answer(&self, stream: &mut TcpStream, head: &str) -> anyhow::Result<()> {
        let path = head.split(' ').nth(1).context("no target")?;
        let size: u64 = path.split('/').nth(2).context("no size")?.parse()?;
        let range = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": bytes=")?;
            name.eq_ignore_ascii_case("range").then_some(value)?.split_once('-')
        });
        let (start, end) = match range {
            Some((start, "")) => (start.parse()?, size),
            Some((start, last)) => (start.parse()?, last.parse::<u64>()? + 1),
            None => (0, size),
        };
        let status = match range {
            Some(_) => format!("206 Partial Content\r\ncontent-range: bytes {start}-{}/{size}", end - 1),
            None => "200 OK".to_owned(),
        };
        sleep(self.0.delay).await;
        let reply = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\ncontent-type: application/octet-stream\r\netag: \"{size}\"\r\n\
             last-modified: Mon, 02 Nov 2026 08:00:00 GMT\r\ncache-control: public, max-age=86400\r\n\r\n",
            end - start
        );
        stream.write_all(reply.as_bytes()).await?;
        let mut at = start;
        while at < end && !head.starts_with("HEAD") {
            let piece = self.piece(at, end - at);
            self.pace(piece.len() as u64).await;
            stream.write_all(piece).await?;
            self.0.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
            at += piece.len() as u64;
        }
        Ok(())
    }

    async fn pace(&self, bytes: u64) {
        let rate = self.0.rate.load(Ordering::Relaxed);
        if rate == u64::MAX {
            return;
        }
        let cost = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        let done = {
            let mut free = self.0.free.lock();
            let now = Instant::now();
            *free = (*free).max(now.checked_sub(CREDIT).unwrap_or(now)) + cost;
            *free
        };
        sleep_until(done).await;
    }
}
