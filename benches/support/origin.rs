//! An origin behind a thin line: HTTP/1.1, whole bodies and open ranges, one rate for all connections, counted.
//!
//! `/o/<bytes>/<name>` is a body of that many bytes: one pattern over and over, from a place that depends on the path, so
//! that no two bodies and no two blocks of one are equal.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// No multiple of a block.
const PERIOD: usize = 1_048_583;
const CHUNK: usize = 16 << 10;
/// A timer that fires late must not make the line slower: this much is caught up.
const CREDIT: Duration = Duration::from_millis(20);

static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 1_u64;
    let mut pattern = Vec::with_capacity(PERIOD + 8);
    while pattern.len() < PERIOD {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        pattern.extend_from_slice(&(state >> 16).to_le_bytes().map(|byte| byte ^ (state >> 56) as u8));
    }
    pattern.truncate(PERIOD);
    pattern
});

/// How long the body at `path` is.
fn size_of(path: &str) -> Option<u64> {
    path.split('/').nth(2)?.parse().ok()
}

/// Some bytes of the body at `path`, from `offset` on.
fn piece(path: &str, offset: u64, most: u64) -> &'static [u8] {
    let start = (xxh3_64(path.as_bytes()).wrapping_add(offset) % PERIOD as u64) as usize;
    let rest = PATTERN.get(start..).unwrap_or_default();
    rest.get(..usize::try_from(most).unwrap_or(usize::MAX).min(CHUNK)).unwrap_or(rest)
}

fn pieces(path: &str) -> impl Iterator<Item = &'static [u8]> {
    let (mut at, size) = (0, size_of(path).unwrap_or_default());
    std::iter::from_fn(move || {
        let piece = piece(path, at, size - at);
        at += piece.len() as u64;
        (!piece.is_empty()).then_some(piece)
    })
}

/// What the body at `path` hashes to (XXH3).
pub fn expected(path: &str) -> u64 {
    let mut hasher = Xxh3::new();
    pieces(path).for_each(|piece| hasher.update(piece));
    hasher.digest()
}

/// The body at `path`; `None` where a path names none.
pub fn body_of(path: &str) -> Option<Bytes> {
    size_of(path)?;
    Some(pieces(path).collect::<Vec<_>>().concat().into())
}

/// The origin. Its task ends with the runtime.
#[derive(Clone)]
pub struct Origin(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    rate: AtomicU64,
    delay: Duration,
    free: Mutex<Instant>,
    requests: AtomicU64,
    bytes: AtomicU64,
    /// After how many bytes of a body the connection is reset, once; 0 for never.
    breaking: AtomicU64,
}

impl Origin {
    /// Listens; every answer comes `delay` late.
    pub async fn start(delay: Duration) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let origin = Self(Arc::new(Inner {
            address: listener.local_addr()?,
            rate: AtomicU64::new(u64::MAX),
            delay,
            free: Mutex::new(Instant::now()),
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            breaking: AtomicU64::new(0),
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

    /// Resets the connection of the next body that gets this far, once.
    pub fn break_at(&self, bytes: u64) {
        self.0.breaking.store(bytes, Ordering::Relaxed);
    }

    /// Requests and body bytes since the last call.
    pub fn take_counts(&self) -> (u64, u64) {
        (self.0.requests.swap(0, Ordering::Relaxed), self.0.bytes.swap(0, Ordering::Relaxed))
    }

    /// Body bytes sent since [`Origin::take_counts`].
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
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
        let size = size_of(path).context("no size")?;
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
            let piece = piece(path, at, end - at);
            self.pace(piece.len() as u64).await;
            stream.write_all(piece).await?;
            self.0.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
            at += piece.len() as u64;
            let breaking = self.0.breaking.load(Ordering::Relaxed);
            if breaking > 0 && at - start >= breaking {
                self.0.breaking.store(0, Ordering::Relaxed);
                stream.set_zero_linger()?;
                anyhow::bail!("broken as ordered");
            }
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
