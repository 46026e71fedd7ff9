//! What an administrator may turn about connections, with defaults for a branch on two cores.

use std::time::Duration;

/// Bounds on connections. Every wait for a client ends at one of these.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connections at once over all listeners; more are closed at accept and counted.
    pub connections: usize,
    /// Connections at once from one IPv4 address or one IPv6 /64; loopback counts too.
    pub connections_per_address: usize,
    /// TLS handshakes computed at once. More wait their turn inside `handshake_timeout`; a client that has
    /// sent nothing yet does not hold a place.
    pub handshakes: usize,
    /// From accept to the end of the TLS handshake.
    pub handshake_timeout: Duration,
    /// From the first byte of a request head (or the end of the handshake, for the first one) to its last.
    pub head_timeout: Duration,
    /// A client that takes nothing for this long while bytes wait for it is cut. So is one that takes less
    /// than 1 KiB/s over it.
    pub send_timeout: Duration,
    /// Between two requests of a kept connection.
    pub idle_timeout: Duration,
    /// Requests answered on one connection; the last one closes it. Bounds what one connection can pin.
    pub requests_per_connection: u64,
    /// How long running answers may take to finish once [`Phase::Drain`](super::Phase::Drain) is ordered.
    pub drain: Duration,
    /// The kernel's queue of connections that are not accepted yet, per listener.
    pub backlog: i32,
    /// HTTP/2 streams at once on one connection.
    pub streams: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_per_address: 256,
            handshakes: 256,
            handshake_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(10),
            send_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            requests_per_connection: 10_000,
            drain: Duration::from_secs(30),
            backlog: 4096,
            streams: 100,
        }
    }
}
