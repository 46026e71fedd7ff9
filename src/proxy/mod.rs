//! The data plane: what happens to one request, from its head to the last byte of the answer.
//!
//! `serve` is the life of a request on one screen; the other files are its steps. A request pins the routes it
//! started with ([`Plane::publish`] swaps them) and holds no lock while it waits for anybody.

mod answer;
mod catalogue;
pub mod directory;
mod meter;
mod passers;
mod refuse;
mod represent;
mod routes;
mod serve;
mod wait;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;

use crate::base::clock::Clock;
use crate::fill::Fills;
use crate::protocol::headers::via_value;
use crate::server::{Peer, Service};
use crate::store::Store;
use crate::telemetry::{AccessLog, Metrics, RouteMetrics, Tracer};

pub use answer::Answer;
pub use passers::{Passer, Passers};
pub use routes::{Kind, QueryMode, Repository, Routes};

/// What the data plane is told about the node.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node's name in `Via` and `Cache-Status`.
    pub node: String,
    /// The host names it answers to; empty: any.
    pub names: Vec<String>,
    /// Requests that may wait for upstream at the same time. Default 10,000; more get 503.
    pub waiting: usize,
}

/// Everything a request needs.
pub struct Plane {
    options: Options,
    via: HeaderValue,
    routes: ArcSwap<Routes>,
    store: Store,
    fills: Fills,
    clock: Clock,
    metrics: Arc<Metrics>,
    elsewhere: RouteMetrics,
    access: Option<AccessLog>,
    tracer: Option<Arc<dyn Tracer>>,
    passers: Passers,
    waiting: AtomicUsize,
    ids: Ids,
}

/// The parts a data plane is made of.
pub struct Parts {
    /// Blocks and records.
    pub store: Store,
    /// Fills.
    pub fills: Fills,
    /// Time.
    pub clock: Clock,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Where each request leaves its line.
    pub access: Option<AccessLog>,
    /// Who is told about traces.
    pub tracer: Option<Arc<dyn Tracer>>,
    /// Who is told about whoever comes.
    pub passers: Passers,
}

impl Plane {
    /// A data plane that serves `routes`.
    pub fn new(options: Options, routes: Routes, parts: Parts) -> Self {
        let Parts { store, fills, clock, metrics, access, tracer, passers } = parts;
        let via = via_value(&options.node);
        let elsewhere = metrics.route("any", "none");
        let ids = Ids::new();
        let routes = ArcSwap::from_pointee(routes);
        let waiting = AtomicUsize::new(0);
        Self {
            options,
            via,
            routes,
            store,
            fills,
            clock,
            metrics,
            elsewhere,
            access,
            tracer,
            passers,
            waiting,
            ids,
        }
    }

    /// Serves other routes from the next request on; running ones keep theirs.
    pub fn publish(&self, routes: Routes) {
        self.routes.store(Arc::new(routes));
    }

    /// Who comes for updates, for whoever wants to know.
    pub const fn passers(&self) -> &Passers {
        &self.passers
    }

    /// The routes of the next request.
    pub fn routes(&self) -> Arc<Routes> {
        self.routes.load_full()
    }
}

impl Service for Plane {
    type Body = Answer;

    fn call(
        self: &Arc<Self>,
        request: Request<Incoming>,
        peer: &Arc<Peer>,
    ) -> impl Future<Output = Response<Answer>> + Send {
        serve::serve(self, request, peer)
    }
}

/// Request ids: a random half per process, then a count.
struct Ids {
    prefix: u32,
    next: AtomicU64,
}

impl Ids {
    fn new() -> Self {
        let mut prefix = [0_u8; 4];
        // Without randomness two processes may count the same; an id is for finding a line, nothing depends on it.
        let _ = getrandom::fill(&mut prefix);
        Self { prefix: u32::from_be_bytes(prefix), next: AtomicU64::new(0) }
    }

    fn next(&self) -> u64 {
        u64::from(self.prefix) << 32 | (self.next.fetch_add(1, Ordering::Relaxed) & 0xffff_ffff)
    }

    /// An id as it stands in header and log: sixteen hexadecimal digits.
    fn value(id: u64) -> HeaderValue {
        // Arithmetic and not a table: the compiler does all digits at once.
        let digit = |nibble: u8| nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
        let mut text = [0_u8; 16];
        for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(id.to_be_bytes()) {
            *pair = [digit(byte >> 4), digit(byte & 0xf)];
        }
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("0"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_differ_and_have_sixteen_digits() {
        let ids = Ids::new();
        let (one, two) = (Ids::value(ids.next()), Ids::value(ids.next()));
        assert_ne!(one, two);
        assert_eq!(one.len(), 16);
        assert_eq!(Ids::value(0x0123_4567_89ab_cdef), "0123456789abcdef");
    }
}
