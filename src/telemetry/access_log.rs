//! One line per request, written by a thread of its own.
//!
//! A request appends its line to a buffer in memory; every [`GATHER`] the thread takes the buffer and writes it in one
//! piece. A full buffer drops the line and counts it. So neither a slow disk nor a full one is ever felt by an agent,
//! and at full rate nobody is woken for a line.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::broadcast;

use super::access_line::{AccessFormat, AccessRecord};

/// Bytes of lines that may wait for the disk: half a second of a busy node.
const WAITING_BYTES: usize = 8 << 20;

/// How long the first line waits for others.
const GATHER: Duration = Duration::from_millis(50);

/// Lines that may wait for somebody who follows along; who is slower misses some.
const FOLLOWED_LINES: usize = 1_024;

/// Bytes that a buffer keeps when it is empty again.
const KEPT_BYTES: usize = 256 << 10;

thread_local! {
    /// Where a thread makes its lines, outside of any lock.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
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
    format: AccessFormat,
    desk: Arc<Desk>,
    finished: Mutex<Receiver<()>>,
}

/// What requests and the writer share. The lock is held for the copy of a line.
#[derive(Debug, Default)]
struct Desk {
    waiting: Mutex<Waiting>,
    /// Tells the writer that there is a first line, or an order.
    called: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    count: u64,
    reopen: bool,
    close: bool,
}

impl AccessLog {
    /// Appends to the file at `path`, made if it is not there.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread can be started.
    pub fn open(path: &Path, format: AccessFormat) -> io::Result<Self> {
        let file = append_to(path)?;
        let (finish, finished) = sync_channel(0);
        let desk = Arc::<Desk>::default();
        let writer = Writer { path: path.to_owned(), file, desk: Arc::clone(&desk), failing: false };
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            writer.run();
            drop(finish);
        })?;
        Ok(Self::to(Some(ToWriter { format, desk, finished: Mutex::new(finished) })))
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

    /// Hands a line to the writer, or drops and counts it. Never waits for the disk.
    pub fn log(&self, record: &AccessRecord<'_>) {
        if self.0.followers.receiver_count() > 0 {
            let mut line = Vec::new();
            record.render(AccessFormat::Json, &mut line);
            let _ = self.0.followers.send(String::from_utf8_lossy(&line).into());
        }
        let Some(writer) = &self.0.writer else { return };
        let made = LINE.try_with(|line| {
            let mut line = line.borrow_mut();
            line.clear();
            record.render(writer.format, &mut line);
            writer.desk.take(&line);
        });
        if made.is_err() {
            // The thread is ending.
            writer.desk.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Continues in a new file of the same name after the lines so far (USR1, for logrotate). If it cannot be
    /// opened, the old one stays in use.
    pub fn reopen(&self) {
        if let Some(writer) = &self.0.writer {
            writer.desk.order(|waiting| waiting.reopen = true);
        }
    }

    /// Lines lost since the start, to a full buffer or to a write error.
    pub fn dropped(&self) -> u64 {
        self.0.writer.as_ref().map_or(0, |writer| writer.desk.dropped.load(Ordering::Relaxed))
    }

    /// Writes what waits and ends the writer; waits for it, but not for ever. Blocks the thread.
    pub fn close(&self, patience: Duration) {
        let Some(writer) = &self.0.writer else { return };
        writer.desk.order(|waiting| waiting.close = true);
        let _ = writer.finished.lock().recv_timeout(patience);
    }
}

impl Drop for ToWriter {
    /// Ends the writer, if nobody has.
    fn drop(&mut self) {
        self.desk.order(|waiting| waiting.close = true);
    }
}

impl Desk {
    fn take(&self, line: &[u8]) {
        let mut waiting = self.waiting.lock();
        if waiting.lines.len() + line.len() > WAITING_BYTES {
            drop(waiting);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.lines.extend_from_slice(line);
        waiting.count += 1;
        let is_first = waiting.count == 1;
        drop(waiting);
        // The others find the writer awake.
        if is_first {
            self.called.notify_one();
        }
    }

    fn order(&self, order: impl FnOnce(&mut Waiting)) {
        order(&mut self.waiting.lock());
        self.called.notify_one();
    }

    /// Waits for lines or orders, and a little for more lines; then takes everything, with `empty` in its place.
    fn wait(&self, empty: Vec<u8>) -> Waiting {
        let mut waiting = self.waiting.lock();
        let is_ordered = |waiting: &mut Waiting| waiting.reopen || waiting.close;
        self.called.wait_while(&mut waiting, |it| it.count == 0 && !is_ordered(it));
        self.called.wait_while_for(&mut waiting, |it| !is_ordered(it), GATHER);
        let close = waiting.close;
        let next = Waiting { lines: empty, count: 0, reopen: false, close };
        std::mem::replace(&mut waiting, next)
    }
}

struct Writer {
    path: PathBuf,
    file: File,
    desk: Arc<Desk>,
    failing: bool,
}

impl Writer {
    fn run(mut self) {
        let mut empty = Vec::new();
        loop {
            let taken = self.desk.wait(empty);
            let result = self.file.write_all(&taken.lines);
            self.note(result, taken.count);
            if taken.reopen {
                self.reopen();
            }
            if taken.close {
                return;
            }
            empty = taken.lines;
            empty.clear();
            empty.shrink_to(KEPT_BYTES);
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
        self.desk.dropped.fetch_add(lines, Ordering::Relaxed);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(%error, path = %self.path.display(), "cannot write the access log; lines are lost");
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::super::access_line::tests::record;
    use super::*;

    fn lines(path: &Path) -> Vec<String> {
        std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
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
