//! Listening, TLS, limits and draining for HTTP/1.1 and HTTP/2: knows nothing of the product.
//!
//! One task accepts per listener, one task drives each connection, and one sweeper for all of them enforces
//! every deadline from the few atomics a connection keeps about itself (`pace`): no timer per connection.
//! hyper parses; what it does not do (stalled readers, slow heads, limits) is here.

mod accept;
mod admission;
mod body;
mod builders;
mod connection;
mod expiry;
mod heads;
mod lane;
mod listen;
mod names;
mod options;
mod pace;
mod rush;
mod sweep;
#[cfg(test)]
mod tests;
mod tls;
mod totals;
mod ttl;
mod upgrade;
mod watched;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

pub use listen::{BindError, Bound, Listener, Summary, bind, bind_with};
pub use names::PeerName;
pub use options::Options;
pub use tls::{Tls, TlsError};
pub use totals::{Cut, Rejected, Totals};
pub use upgrade::{Leave, OnUpgrade, Upgraded};

/// Any error of a body. What it says is logged; the client only sees the transfer break.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address as the kernel says it; IPv4 is never written as mapped IPv6.
    pub address: SocketAddr,
    /// Whether TLS protects the connection.
    pub secure: bool,
    /// The server name it asked for in TLS, lower case.
    pub sni: Option<String>,
    /// The names in the certificate it has shown and proven; none where it showed none, or was not asked.
    pub names: Vec<PeerName>,
    /// The TTL, or hop limit, with which its part of the handshake arrived, where the kernel says it.
    pub ttl: Option<u8>,
    /// A number that no other connection of this process has.
    pub connection: u64,
    /// The name of the listener it came through.
    pub listener: &'static str,
}

/// What answers requests. It cannot fail: an error is an answer, too.
pub trait Service: Send + Sync + 'static {
    /// The body of an answer. An error in it breaks the transfer visibly (RFC 9112 §8).
    type Body: http_body::Body<Data = Bytes, Error = BoxError> + Send + Unpin + 'static;

    /// Answers one request. Dropped when the client leaves. `Connection: close` in the answer is honoured on
    /// HTTP/1.1, and so is a 101 with an [`OnUpgrade`] among its extensions. A frame of the body may have any length: it is cut to what a connection can hold.
    fn call(
        self: &Arc<Self>,
        request: http::Request<hyper::body::Incoming>,
        peer: &Arc<Peer>,
    ) -> impl Future<Output = http::Response<Self::Body>> + Send;
}

/// What [`Bound::run`] should be doing. Only ever goes forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Accept and answer.
    #[default]
    Run,
    /// Accept nothing more, let running answers finish within [`Options::drain`].
    Drain,
    /// Cut everything now.
    Stop,
}
