//! Traces for a collector, by OTLP over HTTP (opentelemetry.io/docs/specs/otlp, JSON encoding).
//!
//! Requests leave their span in a bounded queue and go on; a task of its own delivers in batches. Where the collector is
//! slow or dead, spans are lost and counted, and nothing else happens.

mod collector;
mod encode;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::AccessRecord;
use super::trace::{FillRecord, Flushed, Span, Tracer};
use collector::Collector;
use encode::{Batch, SpanLine};

pub use collector::OtlpError;

/// Spans that wait for delivery: some seconds of a busy node, a few MiB.
const WAITING: usize = 8_192;

/// Spans of one delivery.
const BATCH: usize = 512;

/// How long the first span of a batch waits for others.
const GATHER: Duration = Duration::from_secs(1);

/// A collector that does not answer by then is given up for this batch.
const DELIVERY: Duration = Duration::from_secs(10);

/// After a failed delivery, and at most after several.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How traces are told.
#[derive(Clone, Debug)]
pub struct OtlpOptions {
    /// `http://` or `https://host:port/`, to which `v1/traces` is added.
    pub endpoint: String,
    /// PEM of the authorities that are believed; `None`: those of this machine.
    pub ca: Option<Vec<u8>>,
    /// One of so many requests begins a trace, where it is not part of one; 1 is every request.
    pub one_in: u64,
    /// The node's name in its spans.
    pub node: String,
}

/// Tells a collector about spans.
#[derive(Debug)]
pub struct Otlp {
    spans: Sender<SpanLine>,
    flushes: mpsc::Sender<oneshot::Sender<()>>,
    counts: Arc<Counts>,
    one_in: u64,
    begun: AtomicU64,
    task: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Counts {
    lost: AtomicU64,
}

impl Otlp {
    /// Delivers from now on. Inside a tokio runtime. The collector need not be there.
    ///
    /// # Errors
    /// The endpoint is no URL, or the authorities cannot be read.
    pub fn start(options: &OtlpOptions) -> Result<Self, OtlpError> {
        let collector = Collector::new(&options.endpoint, options.ca.as_deref())?;
        let (spans, waiting) = channel(WAITING);
        let (flushes, asked) = mpsc::channel(1);
        let counts = Arc::<Counts>::default();
        let delivery = Delivery {
            collector,
            batch: Batch::new(&options.node),
            counts: Arc::clone(&counts),
            failures: 0,
        };
        let task = Mutex::new(Some(tokio::spawn(delivery.run(waiting, asked))));
        Ok(Self { spans, flushes, counts, one_in: options.one_in.max(1), begun: AtomicU64::new(0), task })
    }

    fn tell(&self, line: impl FnOnce() -> SpanLine) {
        // Looked at first: what is lost anyway is not worth rendering.
        match self.spans.try_reserve() {
            Ok(place) => place.send(line()),
            Err(_) => drop(self.counts.lost.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

impl Drop for Otlp {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

impl Tracer for Otlp {
    /// A request that is part of somebody's trace is told about as that one is; of the others one in so many.
    fn begin(&self, traceparent: Option<&str>) -> Option<Span> {
        match traceparent.and_then(Span::of) {
            Some((span, told)) => told.then_some(span),
            None => {
                let turn = self.begun.fetch_add(1, Ordering::Relaxed);
                turn.is_multiple_of(self.one_in).then(Span::first)
            }
        }
    }

    fn request(&self, span: &Span, record: &AccessRecord<'_>) {
        self.tell(|| SpanLine::of_request(span, record));
    }

    fn fill(&self, span: &Span, record: &FillRecord<'_>) {
        self.tell(|| SpanLine::of_fill(span, record));
    }

    fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }

    fn flush(&self, patience: Duration) -> Flushed<'_> {
        Box::pin(async move {
            let (done, wait) = oneshot::channel();
            let flushed = async {
                if self.flushes.send(done).await.is_ok() {
                    // An error means that the task is gone, and with it what waited.
                    let _ = wait.await;
                }
            };
            let _ = timeout(patience, flushed).await;
        })
    }
}

/// The task that delivers.
struct Delivery {
    collector: Collector,
    batch: Batch,
    counts: Arc<Counts>,
    failures: u32,
}

impl Delivery {
    async fn run(mut self, mut waiting: Receiver<SpanLine>, mut asked: mpsc::Receiver<oneshot::Sender<()>>) {
        let mut lines = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                got = waiting.recv_many(&mut lines, BATCH) => {
                    if got == 0 {
                        return;
                    }
                    tokio::select! {
                        () = gather(&mut waiting, &mut lines) => {}
                        Some(done) = asked.recv() => {
                            self.empty(&mut waiting, &mut lines).await;
                            let _ = done.send(());
                            continue;
                        }
                    }
                    self.deliver(&mut lines).await;
                    // Where nobody takes them, they need not be offered all the time; the queue bounds what waits.
                    tokio::select! {
                        () = sleep(self.pause()) => {}
                        Some(done) = asked.recv() => {
                            self.empty(&mut waiting, &mut lines).await;
                            let _ = done.send(());
                        }
                    }
                }
                Some(done) = asked.recv() => {
                    self.empty(&mut waiting, &mut lines).await;
                    let _ = done.send(());
                }
            }
        }
    }

    /// Delivers what waits at this moment.
    async fn empty(&mut self, waiting: &mut Receiver<SpanLine>, lines: &mut Vec<SpanLine>) {
        loop {
            while lines.len() < BATCH
                && let Ok(line) = waiting.try_recv()
            {
                lines.push(line);
            }
            if lines.is_empty() {
                return;
            }
            self.deliver(lines).await;
        }
    }

    async fn deliver(&mut self, lines: &mut Vec<SpanLine>) {
        let many = lines.len() as u64;
        let body = self.batch.render(lines);
        lines.clear();
        let result = match timeout(DELIVERY, self.collector.post(body)).await {
            Ok(result) => result,
            Err(_) => {
                self.collector.hang_up();
                Err("no answer in time".to_owned())
            }
        };
        match result {
            Ok(()) => {
                if self.failures > 0 {
                    tracing::info!(collector = self.collector.name(), "traces are delivered again");
                }
                self.failures = 0;
            }
            Err(why) => {
                self.counts.lost.fetch_add(many, Ordering::Relaxed);
                if self.failures == 0 {
                    tracing::warn!(
                        collector = self.collector.name(),
                        why,
                        "traces cannot be delivered; spans are lost"
                    );
                }
                self.failures = self.failures.saturating_add(1);
            }
        }
    }

    fn pause(&self) -> Duration {
        match self.failures {
            0 => Duration::ZERO,
            failures => PAUSE.0.saturating_mul(1 << failures.min(5)).min(PAUSE.1),
        }
    }
}

/// Fills a batch up, but not for long.
async fn gather(waiting: &mut Receiver<SpanLine>, lines: &mut Vec<SpanLine>) {
    let more = async {
        while lines.len() < BATCH {
            let room = BATCH - lines.len();
            if waiting.recv_many(lines, room).await == 0 {
                return;
            }
        }
    };
    let _ = timeout(GATHER, more).await;
}
