//! One line per request, written by a thread of its own.
//!
//! A request renders its line and tries to hand it over; a full channel drops the line and counts it. So neither
//! a slow disk nor a full one is ever felt by an agent.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Serialize, Serializer};
use tokio::sync::broadcast;

use super::calendar::Calendar;
use crate::base::clock::Timestamp;

/// Lines that may wait for the disk: two seconds of a busy node, some 4 MiB.
const WAITING_LINES: usize = 16_384;

/// Bytes of a value that a client chose, beyond which it is cut: a log is not a place to put things.
const FIELD_BYTES: usize = 512;

/// Lines that may wait for somebody who follows along; who is slower misses some.
const FOLLOWED_LINES: usize = 1_024;

/// Bytes the writer gathers before it writes.
const BUFFER_BYTES: usize = 64 << 10;

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessFormat {
    /// A JSON object.
    #[default]
    Json,
    /// NCSA combined, for tools that know nothing else.
    Combined,
}

/// One request, at its end.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct AccessRecord<'a> {
    /// When its head had arrived.
    #[serde(serialize_with = "rfc3339")]
    pub time: Timestamp,
    /// Who asked.
    pub client: SocketAddr,
    /// The listener it came through.
    pub listener: &'a str,
    /// Its id, as sent to the client.
    pub request_id: &'a str,
    /// The method.
    #[serde(serialize_with = "shortened")]
    pub method: &'a str,
    /// The target as the client wrote it.
    #[serde(serialize_with = "shortened")]
    pub target: &'a str,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: &'a str,
    /// The status of the answer.
    pub status: u16,
    /// Bytes of the body that were handed to the network.
    pub bytes: u64,
    /// Whether the answer was complete; false if the client left or we broke it off.
    pub complete: bool,
    /// From the head to the first byte of the answer.
    #[serde(rename = "first_byte_ms", serialize_with = "milliseconds")]
    pub first_byte: Duration,
    /// From the head to the end of the answer.
    #[serde(rename = "duration_ms", serialize_with = "milliseconds")]
    pub duration: Duration,
    /// The repository, if it is one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<&'a str>,
    /// How the cache answered, as in the metrics.
    pub result: &'a str,
    /// The word of the verdict, as in `Cache-Status` and the metrics.
    pub verdict: &'a str,
    /// The `Range` that was asked for.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "maybe_shortened")]
    pub range: Option<&'a str>,
    /// The client's `User-Agent`.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "maybe_shortened")]
    pub agent: Option<&'a str>,
}

impl AccessRecord<'_> {
    fn render(&self, format: AccessFormat) -> Vec<u8> {
        let mut line = Vec::with_capacity(384);
        let result = match format {
            AccessFormat::Json => serde_json::to_writer(&mut line, self).map_err(io::Error::from),
            AccessFormat::Combined => self.render_combined(&mut line),
        };
        if result.is_err() {
            line.clear();
        }
        line.push(b'\n');
        line
    }

    fn render_combined(&self, line: &mut Vec<u8>) -> io::Result<()> {
        let agent = self.agent.map_or_else(|| "-".to_owned(), quoted);
        let (client, time) = (self.client.ip(), Calendar::of(self.time).ncsa());
        let (method, target, version) = (quoted(self.method), quoted(self.target), self.version);
        let (status, bytes) = (self.status, self.bytes);
        write!(
            line,
            "{client} - - [{time}] \"{method} {target} {version}\" {status} {bytes} \"-\" \"{agent}\""
        )
    }
}

/// A handle to the log; clones write to the same file.
#[derive(Clone, Debug)]
pub struct AccessLog(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    writer: Option<ToWriter>,
    followers: broadcast::Sender<Arc<str>>,
}

#[derive(Debug)]
struct ToWriter {
    /// An empty line only wakes the writer, so that it looks at the orders.
    lines: SyncSender<Vec<u8>>,
    format: AccessFormat,
    orders: Arc<Orders>,
    finished: Mutex<Receiver<()>>,
}

#[derive(Debug, Default)]
struct Orders {
    reopen: AtomicBool,
    close: AtomicBool,
    dropped: AtomicU64,
}

impl AccessLog {
    /// Appends to the file at `path`, made if it is not there.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread can be started.
    pub fn open(path: &Path, format: AccessFormat) -> io::Result<Self> {
        let file = append_to(path)?;
        let (lines, waiting) = sync_channel(WAITING_LINES);
        let (finish, finished) = sync_channel(0);
        let orders = Arc::new(Orders::default());
        let writer = Writer { path: path.to_owned(), file, orders: Arc::clone(&orders), failing: false };
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            writer.run(&waiting);
            drop(finish);
        })?;
        Ok(Self::to(Some(ToWriter { lines, format, orders, finished: Mutex::new(finished) })))
    }

    /// Writes nowhere; only those who follow along see the lines.
    pub fn nowhere() -> Self {
        Self::to(None)
    }

    fn to(writer: Option<ToWriter>) -> Self {
        let (followers, _) = broadcast::channel(FOLLOWED_LINES);
        Self(Arc::new(Handle { writer, followers }))
    }

    /// Whether anybody wants lines at the moment: a request that nobody will read about keeps no notes.
    pub fn is_wanted(&self) -> bool {
        self.0.writer.is_some() || self.0.followers.receiver_count() > 0
    }

    /// The lines from now on, as JSON.
    pub fn follow(&self) -> broadcast::Receiver<Arc<str>> {
        self.0.followers.subscribe()
    }

    /// Hands a line to the writer, or drops and counts it. Never waits.
    pub fn log(&self, record: &AccessRecord<'_>) {
        if self.0.followers.receiver_count() > 0 {
            let line = String::from_utf8_lossy(&record.render(AccessFormat::Json)).into_owned();
            let _ = self.0.followers.send(line.into());
        }
        let Some(writer) = &self.0.writer else { return };
        if writer.lines.try_send(record.render(writer.format)).is_err() {
            writer.orders.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Continues in a new file of the same name after the lines so far (USR1, for logrotate). If it cannot be
    /// opened, the old one stays in use.
    pub fn reopen(&self) {
        if let Some(writer) = &self.0.writer {
            writer.orders.reopen.store(true, Ordering::Release);
            writer.wake();
        }
    }

    /// Lines lost since the start, to a full channel or to a write error.
    pub fn dropped(&self) -> u64 {
        self.0.writer.as_ref().map_or(0, |writer| writer.orders.dropped.load(Ordering::Relaxed))
    }

    /// Writes what waits and ends the writer; waits for it, but not for ever. Blocks the thread.
    pub fn close(&self, patience: Duration) {
        let Some(writer) = &self.0.writer else { return };
        writer.orders.close.store(true, Ordering::Release);
        writer.wake();
        let _ = writer.finished.lock().recv_timeout(patience);
    }
}

impl ToWriter {
    fn wake(&self) {
        // Full is fine: the writer looks at the orders after every line.
        let _ = self.lines.try_send(Vec::new());
    }
}

struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    orders: Arc<Orders>,
    failing: bool,
}

impl Writer {
    fn run(mut self, waiting: &Receiver<Vec<u8>>) {
        while let Ok(first) = waiting.recv() {
            // One system call for all that came meanwhile.
            let mut lines = u64::from(!first.is_empty());
            let mut result = self.file.write_all(&first);
            for line in waiting.try_iter().take(WAITING_LINES) {
                lines += u64::from(!line.is_empty());
                result = result.and_then(|()| self.file.write_all(&line));
            }
            let result = result.and_then(|()| self.file.flush());
            self.note(result, lines);
            if self.orders.reopen.swap(false, Ordering::AcqRel) {
                self.reopen();
            }
            if self.orders.close.load(Ordering::Acquire) {
                return;
            }
        }
    }

    fn reopen(&mut self) {
        match append_to(&self.path) {
            Ok(file) => self.file = file,
            Err(error) => {
                tracing::error!(%error, path = %self.path.display(), "cannot reopen the access log; the old file stays");
            }
        }
    }

    /// Lines that cannot be written are lost, not kept: a full disk must not become full memory.
    fn note(&mut self, result: io::Result<()>, lines: u64) {
        let Err(error) = result else {
            self.failing = false;
            return;
        };
        self.orders.dropped.fetch_add(lines, Ordering::Relaxed);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(%error, path = %self.path.display(), "cannot write the access log; lines are lost");
        }
        // What is in the buffer would be written again in front of later lines, cut anywhere.
        if let Ok(file) = self.file.get_ref().try_clone() {
            let broken = std::mem::replace(&mut self.file, BufWriter::with_capacity(BUFFER_BYTES, file));
            let _ = broken.into_parts();
        }
    }
}

fn append_to(path: &Path) -> io::Result<BufWriter<File>> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    Ok(BufWriter::with_capacity(BUFFER_BYTES, file))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn rfc3339<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&Calendar::of(*time))
}

fn milliseconds<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64((time.as_secs_f64() * 1e6).round() / 1e3)
}

fn shortened<S: Serializer>(text: &str, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(shorten(text))
}

fn maybe_shortened<S: Serializer>(text: &Option<&str>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_some(shorten(text.unwrap_or_default()))
}

fn shorten(text: &str) -> &str {
    text.get(..text.floor_char_boundary(FIELD_BYTES)).unwrap_or(text)
}

/// A client's text inside quotes of a line: quotes, backslashes and everything that is not plain ASCII escaped, so
/// that it can end neither the value nor the line, nor command a terminal (CVE-2025-58160).
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in shorten(text).bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(target: &'static str) -> AccessRecord<'static> {
        AccessRecord {
            time: Timestamp(971_186_136_001),
            client: "192.0.2.7:4711".parse().unwrap(),
            listener: "agents",
            request_id: "01-ab",
            method: "GET",
            target,
            version: "HTTP/1.1",
            status: 206,
            bytes: 4_096,
            complete: true,
            first_byte: Duration::from_micros(1_500),
            duration: Duration::from_millis(20),
            repository: Some("software"),
            result: "hit",
            verdict: "hit",
            range: Some("bytes=0-4095"),
            agent: Some("agent/1 \"x\"\u{1b}[31m"),
        }
    }

    fn lines(path: &Path) -> Vec<String> {
        std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_line_of_json_has_all_that_is_known() {
        let line = record("/Software/a.zip").render(AccessFormat::Json);
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["time"], "2000-10-10T13:55:36.001Z");
        assert_eq!(value["client"], "192.0.2.7:4711");
        assert_eq!(value["first_byte_ms"], 1.5);
        assert_eq!(value["verdict"], "hit");
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
    }

    #[test]
    fn a_line_for_ncsa_tools_cannot_be_forged_by_a_client() {
        let line = record("/a\" 200 1\n10.0.0.1 - -").render(AccessFormat::Combined);
        let want = "192.0.2.7 - - [10/Oct/2000:13:55:36 +0000] \"GET /a\\\" 200 1\\x0a10.0.0.1 - - HTTP/1.1\" 206 4096 \
                    \"-\" \"agent/1 \\\"x\\\"\\x1b[31m\"\n";
        assert_eq!(String::from_utf8(line).unwrap(), want);
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let long: &'static str = Box::leak("é".repeat(400).into_boxed_str());
        let value: serde_json::Value =
            serde_json::from_slice(&record(long).render(AccessFormat::Json)).unwrap();
        assert_eq!(value["target"].as_str().unwrap().len(), FIELD_BYTES);
    }

    #[test]
    fn closing_writes_what_waits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = AccessLog::open(&path, AccessFormat::Json).unwrap();
        (0..500).for_each(|_| log.log(&record("/x")));
        log.close(Duration::from_secs(10));
        assert_eq!((lines(&path).len(), log.dropped()), (500, 0));
    }

    #[test]
    fn reopening_continues_under_the_old_name() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let log = AccessLog::open(&path, AccessFormat::Json).unwrap();
        log.log(&record("/before"));
        std::fs::rename(&path, &old).unwrap();
        log.reopen();
        while !path.exists() {
            std::thread::yield_now();
        }
        log.log(&record("/after"));
        log.close(Duration::from_secs(10));
        assert_eq!((lines(&old).len(), lines(&path).len()), (1, 1));
    }

    #[tokio::test]
    async fn whoever_follows_sees_the_lines_and_a_log_without_either_wants_none() {
        let log = AccessLog::nowhere();
        assert!(!log.is_wanted());
        let mut lines = log.follow();
        assert!(log.is_wanted());
        log.log(&record("/followed"));
        assert!(lines.recv().await.unwrap().contains("/followed"));
        drop(lines);
        assert!(!log.is_wanted());
    }

    #[test]
    fn a_full_disk_costs_lines_and_nothing_else() {
        let log = AccessLog::open(Path::new("/dev/full"), AccessFormat::Json).unwrap();
        (0..10).for_each(|_| log.log(&record("/x")));
        log.close(Duration::from_secs(10));
        assert_eq!(log.dropped(), 10);
    }
}
