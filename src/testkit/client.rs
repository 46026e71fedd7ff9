//! A raw HTTP/1.1 client that sends exactly what it is told and reports how the body ended.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::content;
use super::pki::Authority;

/// An answer longer silent than this ends as [`End::Silent`].
const PATIENCE: Duration = Duration::from_secs(20);

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// One connection.
pub struct Client {
    io: Box<dyn Io>,
    buffer: Vec<u8>,
    patience: Duration,
}

/// How an answer's body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By its length, its last chunk, or because it has none.
    Complete,
    /// By the connection's end, with nothing announced: nobody can tell whether that was all.
    Closed,
    /// The connection ended before the announced end.
    Short,
    /// The connection was reset.
    Reset,
    /// Nothing came for the client's patience.
    Silent,
    /// The chunks make no sense.
    Garbled,
}

/// An answer.
#[derive(Clone)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Bytes of the body that came.
    pub body: Bytes,
    /// How it ended.
    pub end: End,
}

impl fmt::Debug for Answer {
    /// Without the body, which may be megabytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, headers, body, end } = self;
        let body = format!("{} bytes", body.len());
        f.debug_struct("Answer")
            .field("status", status)
            .field("headers", headers)
            .field("body", &body)
            .field("end", end)
            .finish()
    }
}

impl Answer {
    /// The first value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("buffered", &self.buffer.len()).finish_non_exhaustive()
    }
}

impl Client {
    /// Over plain TCP.
    ///
    /// # Errors
    /// The connection's.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        Ok(Self { io: Box::new(tcp), buffer: Vec::new(), patience: PATIENCE })
    }

    /// Over the Unix socket at `path`.
    ///
    /// # Errors
    /// The connection's.
    pub async fn connect_unix(path: &Path) -> io::Result<Self> {
        let unix = UnixStream::connect(path).await?;
        Ok(Self { io: Box::new(unix), buffer: Vec::new(), patience: PATIENCE })
    }

    /// Over TLS with SNI `name`, trusting `authority`.
    ///
    /// # Errors
    /// The connection's and the handshake's.
    pub async fn connect_tls(address: SocketAddr, name: &str, authority: &Authority) -> io::Result<Self> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let tls = authority.connector(&["http/1.1"]).connect(name, tcp).await?;
        Ok(Self { io: Box::new(tls), buffer: Vec::new(), patience: PATIENCE })
    }

    /// Over a connection that somebody else made.
    pub fn over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        Self { io: Box::new(io), buffer: Vec::new(), patience: PATIENCE }
    }

    /// Waits at most this long for the next byte.
    #[must_use]
    pub fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection's.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await?;
        self.io.flush().await
    }

    /// A GET with `Host: localhost` and further header lines, and its answer.
    ///
    /// # Errors
    /// The connection's, or no head that can be read.
    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> io::Result<Answer> {
        self.request("GET", path, headers).await
    }

    /// As [`Client::get`], with another method.
    ///
    /// # Errors
    /// The connection's, or no head that can be read.
    pub async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> io::Result<Answer> {
        self.send_request(method, path, headers).await?;
        self.read_answer(method).await
    }

    /// A GET, and the head of its answer; the body is left for [`Client::some`].
    ///
    /// # Errors
    /// The connection's, or no head that can be read.
    pub async fn begin(&mut self, path: &str, headers: &[(&str, &str)]) -> io::Result<Answer> {
        self.send_request("GET", path, headers).await?;
        self.read_head().await
    }

    /// What came since, at least one byte and at most `max`: raw, so chunk lines would be among it.
    ///
    /// # Errors
    /// How the connection ended, where nothing more came.
    pub async fn some(&mut self, max: usize) -> Result<Bytes, End> {
        if self.buffer.is_empty() {
            self.more().await?;
        }
        let taken = self.buffer.len().min(max);
        Ok(self.buffer.drain(..taken).collect::<Vec<_>>().into())
    }

    /// Reads the next `len` bytes of a body with a length, comparing them with the body `seed` from `at` on.
    ///
    /// # Errors
    /// How it ended before.
    pub async fn check(&mut self, seed: u64, at: u64, len: u64) -> Result<(), End> {
        let end = at.saturating_add(len);
        let mut at = at;
        while at < end {
            let bytes = self.some(usize::try_from(end - at).unwrap_or(usize::MAX)).await?;
            assert!(bytes == content::piece(seed, at, bytes.len()), "wrong bytes at {at}");
            at += bytes.len() as u64;
        }
        Ok(())
    }

    async fn send_request(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> io::Result<()> {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str("host: localhost\r\n");
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.send(head.as_bytes()).await
    }

    /// The answer to a request of `method` that was sent.
    ///
    /// # Errors
    /// The connection ended or went silent before a whole head, or it is not HTTP.
    pub async fn read_answer(&mut self, method: &str) -> io::Result<Answer> {
        let mut answer = self.read_head().await?;
        let bodyless = method == "HEAD" || answer.status < 200 || matches!(answer.status, 204 | 304);
        let chunked = answer.header("transfer-encoding").is_some();
        let length = answer.header("content-length").and_then(|length| length.parse::<usize>().ok());
        let (body, end) = match length {
            _ if bodyless => (Vec::new(), End::Complete),
            _ if chunked => self.read_chunks().await,
            Some(length) => self.read_length(length).await,
            None => self.read_to_end().await,
        };
        answer.body = body.into();
        answer.end = end;
        Ok(answer)
    }

    /// Whether the other side closes, in order or by reset, without sending anything more.
    pub async fn closes(&mut self) -> bool {
        self.buffer.is_empty() && matches!(self.more().await, Err(End::Short | End::Reset))
    }

    async fn read_head(&mut self) -> io::Result<Answer> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            self.more().await.map_err(|end| io::Error::other(format!("no answer head: {end:?}")))?;
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.lines();
        let status =
            lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let status = status.ok_or_else(|| io::Error::other("no status line"))?;
        Ok(Answer { status, headers, body: Bytes::new(), end: End::Complete })
    }

    /// More bytes into the buffer, or why there are none.
    async fn more(&mut self) -> Result<(), End> {
        match timeout(self.patience, self.io.read_buf(&mut self.buffer)).await {
            Err(_) => Err(End::Silent),
            Ok(Ok(0)) => Err(End::Short),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Err(End::Short),
            Ok(Err(_)) => Err(End::Reset),
        }
    }

    async fn read_length(&mut self, length: usize) -> (Vec<u8>, End) {
        while self.buffer.len() < length {
            if let Err(end) = self.more().await {
                return (std::mem::take(&mut self.buffer), end);
            }
        }
        (self.buffer.drain(..length).collect(), End::Complete)
    }

    async fn read_to_end(&mut self) -> (Vec<u8>, End) {
        loop {
            if let Err(end) = self.more().await {
                let end = if end == End::Short { End::Closed } else { end };
                return (std::mem::take(&mut self.buffer), end);
            }
        }
    }

    async fn read_chunks(&mut self) -> (Vec<u8>, End) {
        let mut body = Vec::new();
        loop {
            let line = match self.read_line().await {
                Ok(line) => line,
                Err(end) => return (body, end),
            };
            let Ok(size) = usize::from_str_radix(line.trim(), 16) else { return (body, End::Garbled) };
            if size == 0 {
                return (body, self.read_trailers().await);
            }
            let (bytes, end) = self.read_length(size).await;
            body.extend(bytes);
            if end != End::Complete {
                return (body, end);
            }
            match self.read_line().await {
                Ok(line) if line.is_empty() => {}
                Ok(_) => return (body, End::Garbled),
                Err(end) => return (body, end),
            }
        }
    }

    async fn read_trailers(&mut self) -> End {
        loop {
            match self.read_line().await {
                Ok(line) if line.is_empty() => return End::Complete,
                Ok(_) => {}
                Err(end) => return end,
            }
        }
    }

    async fn read_line(&mut self) -> Result<String, End> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|bytes| bytes == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            self.more().await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::content;
    use crate::testkit::origin::Origin;
    use crate::testkit::script::{Framing, How, Script};

    async fn get(origin: &Origin, path: &str, headers: &[(&str, &str)]) -> Answer {
        let address = origin.authority().parse().unwrap();
        Client::connect(address).await.unwrap().get(path, headers).await.unwrap()
    }

    #[tokio::test]
    async fn the_client_tells_how_each_scripted_body_ends() {
        let origin = Origin::start().await;
        let file = Script::file(3, 50_000);
        origin.set("/length", file.clone());
        origin.set("/chunks", Script { framing: Framing::Chunked, ..file.clone() });
        origin.set("/close", Script { framing: Framing::Close, ..file.clone() });
        origin.set("/wrong", Script { framing: Framing::WrongLength(60_000), ..file.clone() });
        origin.set("/fin", file.clone().breaking(20_000, How::Finish, usize::MAX));
        origin.set("/reset", file.breaking(20_000, How::Reset, 1));
        for (path, end) in [
            ("/length", End::Complete),
            ("/chunks", End::Complete),
            ("/close", End::Closed),
            ("/wrong", End::Short),
            ("/fin", End::Short),
            ("/reset", End::Reset),
            ("/reset", End::Complete),
        ] {
            let answer = get(&origin, path, &[]).await;
            assert_eq!((answer.status, answer.end), (200, end), "{path}");
            assert_eq!(answer.body, content::whole(3, answer.body.len()), "{path}");
        }
        assert_eq!(origin.counts("/reset").requests, 2);
        assert_eq!(origin.counts("/length").body_bytes, 50_000);
    }

    #[tokio::test]
    async fn the_origin_answers_ranges_and_conditions() {
        let origin = Origin::start().await;
        origin.set("/f", Script::file(3, 1_000));
        let part = get(&origin, "/f", &[("range", "bytes=10-19"), ("if-range", "\"v1\"")]).await;
        assert_eq!((part.status, part.header("content-range")), (206, Some("bytes 10-19/1000")));
        assert_eq!(part.body, content::piece(3, 10, 10));
        assert_eq!(get(&origin, "/f", &[("range", "bytes=10-"), ("if-range", "\"v2\"")]).await.status, 200);
        assert_eq!(get(&origin, "/f", &[("range", "bytes=1000-")]).await.status, 416);
        assert_eq!(get(&origin, "/f", &[("if-none-match", "\"v1\"")]).await.status, 304);
        assert_eq!(get(&origin, "/absent", &[]).await.status, 404);
        assert_eq!(origin.counts("/f").ranges, ["bytes=10-19", "bytes=10-", "bytes=1000-"]);
    }

    #[tokio::test]
    async fn the_origin_sends_given_bytes_and_one_of_them_wrong_as_often_as_told() {
        let origin = Origin::start().await;
        origin.set("/f", Script::bytes("0123456789").breaking(4, How::Flip, 1));
        assert_eq!(get(&origin, "/f", &[("range", "bytes=5-6")]).await.body, "56");
        let wrong = get(&origin, "/f", &[]).await;
        assert_eq!((&wrong.body[..], wrong.end), (&b"0123\xcb56789"[..], End::Complete));
        assert_eq!(get(&origin, "/f", &[]).await.body, "0123456789");
        assert_eq!(origin.body_bytes(), 22);
    }
}
