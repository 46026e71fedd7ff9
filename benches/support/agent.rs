//! An agent that costs little: HTTP/1.1 by hand on one TLS connection, so that the cores are left to the handler.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Bytes read at once.
const BUFFER: usize = 64 << 10;
const SILENCE: Duration = Duration::from_secs(60);

/// A TLS connection to `address`.
pub async fn connect(tls: &TlsConnector, address: SocketAddr) -> anyhow::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(tls.connect(ServerName::try_from("localhost")?, stream).await?)
}

/// A connection that is used again.
pub struct Agent {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

/// When things came, from the moment of asking.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The first byte of the body.
    pub first: Duration,
    /// The last.
    pub last: Duration,
}

impl Agent {
    /// Connects.
    pub async fn connect(tls: &TlsConnector, address: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self { stream: connect(tls, address).await?, buffer: vec![0; BUFFER] })
    }

    /// Fetches `path`, which has to be a 200 with a length, and gives its body to `sink`.
    pub async fn fetch(&mut self, path: &str, mut sink: impl FnMut(&[u8])) -> anyhow::Result<Times> {
        let asked = Instant::now();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        self.stream.flush().await?;
        let (start, end, length) = read_head(&mut self.stream, &mut self.buffer).await?;
        let early = self.buffer.get(start..end).unwrap_or_default();
        let mut first = (!early.is_empty()).then(|| asked.elapsed());
        let mut filled = early.len() as u64;
        sink(early);
        while filled < length {
            let read = tokio::time::timeout(SILENCE, self.stream.read(&mut self.buffer)).await??;
            ensure!(read > 0, "the body ended after {filled} of {length} bytes");
            first.get_or_insert_with(|| asked.elapsed());
            sink(self.buffer.get(..read).unwrap_or_default());
            filled += read as u64;
        }
        ensure!(filled == length, "{filled} bytes for a length of {length}");
        let last = asked.elapsed();
        Ok(Times { first: first.unwrap_or(last), last })
    }
}

/// Reads a head; gives where the body begins and ends in the buffer, and its whole length.
async fn read_head(
    stream: &mut TlsStream<TcpStream>,
    buffer: &mut [u8],
) -> anyhow::Result<(usize, usize, u64)> {
    let mut filled = 0;
    loop {
        let space = buffer.get_mut(filled..).unwrap_or_default();
        let read = tokio::time::timeout(SILENCE, stream.read(space)).await??;
        ensure!(read > 0, "no answer");
        filled += read;
        let bytes = buffer.get(..filled).unwrap_or_default();
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = std::str::from_utf8(bytes.get(..end).unwrap_or_default())?;
            ensure!(head.starts_with("HTTP/1.1 200"), "{}", head.lines().next().unwrap_or_default());
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse())
            });
            return Ok((end + 4, filled, length.context("no length")??));
        }
    }
}
