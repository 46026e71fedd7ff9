//! Sockets that listen, bound before anything else of the node starts so that a taken port is said at once;
//! and the run from the first accept to the last close.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::accept::accept;
use super::admission::Admission;
use super::builders::Builders;
use super::connection::{Entrance, House};
use super::pace::Order;
use super::rush::Rush;
use super::sweep::sweep;
use super::totals::{Cut, Totals};
use super::{Options, Phase, Service, Tls, ttl};

/// How long connections may take to notice that they were cut: they only have to be polled once.
const CUT_NOTICED: Duration = Duration::from_secs(5);

/// Idle time before the kernel asks whether a silent client still lives.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Bytes the kernel queues for a client beyond what is on the wire. Without this its buffer grows to megabytes per
/// slow reader, and says that there is room only after a third of them has left: a healthy download on a thin line
/// would look stalled.
const UNSENT_BYTES: u32 = 512 << 10;

/// One address to listen on.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Address and port; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// The certificate, or plain HTTP/1.1 (the configuration allows that on loopback only).
    pub tls: Option<Tls>,
    /// Its name in metrics and logs.
    pub name: &'static str,
}

/// An address that cannot be listened on. What the kernel said is its source.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    /// The address as configured.
    pub address: SocketAddr,
    /// What the kernel said.
    #[source]
    pub error: io::Error,
}

/// Sockets that are bound and not served yet: clients queue in the kernel.
#[derive(Debug)]
pub struct Bound {
    sockets: Vec<(StdListener, Listener)>,
    options: Options,
    totals: Arc<Totals>,
}

/// How serving ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Connections that were open when the drain began and finished by themselves.
    pub drained: usize,
    /// Connections cut because the drain took too long or a stop was ordered.
    pub cut: usize,
}

/// Binds every listener or none. IPv6 sockets take IPv6 only, so that `0.0.0.0` and `::` can stand side by side.
///
/// # Errors
/// The first address that is taken, not ours, or not allowed.
pub fn bind(listeners: Vec<Listener>, options: Options) -> Result<Bound, BindError> {
    bind_with(listeners, options, Vec::new())
}

/// As [`bind`], where some addresses were bound before by somebody else: a service manager, which keeps clients
/// waiting in the kernel while this program is exchanged.
///
/// # Errors
/// As [`bind`].
pub fn bind_with(
    listeners: Vec<Listener>,
    options: Options,
    mut inherited: Vec<(SocketAddr, StdListener)>,
) -> Result<Bound, BindError> {
    let mut sockets = Vec::with_capacity(listeners.len());
    for mut listener in listeners {
        let address = listener.address;
        let handed =
            inherited.iter().position(|(of, _)| *of == address).map(|place| inherited.swap_remove(place));
        let bound = match handed {
            Some((address, socket)) => socket
                .set_nonblocking(true)
                .and_then(|()| set_what_is_inherited(SockRef::from(&socket), &options))
                .map(|()| (socket, address)),
            None => listen(address, &options),
        };
        let (socket, address) = bound.map_err(|error| BindError { address, error })?;
        listener.address = address;
        sockets.push((socket, listener));
    }
    Ok(Bound { sockets, options, totals: Arc::default() })
}

/// What is set here every accepted socket inherits, without six system calls for each.
fn set_what_is_inherited(socket: SockRef<'_>, options: &Options) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    socket.set_tcp_user_timeout(Some(options.send_timeout))?;
    ttl::remember(&*socket);
    socket.set_keepalive(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 2))
}

fn listen(address: SocketAddr, options: &Options) -> io::Result<(StdListener, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // A restart must not wait for the sockets of the last run to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    set_what_is_inherited(SockRef::from(&socket), options)?;
    socket.bind(&address.into())?;
    socket.listen(options.backlog)?;
    let socket = StdListener::from(socket);
    let address = socket.local_addr()?;
    Ok((socket, address))
}

impl Bound {
    /// The bound addresses in the order of the listeners, with the ports the kernel chose.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|(_, listener)| listener.address).collect()
    }

    /// Counters of all its connections, for metrics; they outlive the run.
    pub fn totals(&self) -> Arc<Totals> {
        Arc::clone(&self.totals)
    }

    /// Serves until a drain or stop is ordered and every connection has ended. A dropped sender is an order to
    /// drain. Must run inside a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// A socket that the runtime's poller refuses; nothing was served then.
    pub async fn run<S: Service>(
        self,
        service: Arc<S>,
        mut shutdown: watch::Receiver<Phase>,
    ) -> io::Result<Summary> {
        let admission = Arc::new(Admission::new(&self.options, self.totals));
        let house = Arc::new(House {
            service,
            admission: Arc::clone(&admission),
            rush: Arc::default(),
            handshakes: Semaphore::new(self.options.handshakes),
            builders: Builders::new(&self.options),
            options: self.options.clone(),
        });
        let mut sweeper = JoinSet::new();
        sweeper.spawn(sweep(Arc::clone(&admission), self.options.clone()));
        let rush: Arc<Rush> = Arc::clone(&house.rush);
        sweeper.spawn(async move { rush.run().await });
        let mut acceptors = JoinSet::new();
        for (socket, listener) in self.sockets {
            let socket = tokio::net::TcpListener::from_std(socket)?;
            let entrance = Entrance { name: listener.name, tls: listener.tls };
            acceptors.spawn(accept(Arc::clone(&house), entrance, socket, shutdown.clone()));
        }
        let _ = shutdown.wait_for(|phase| *phase != Phase::Run).await;
        // Nobody is admitted any more once they have ended, so what is ordered now reaches everybody.
        while acceptors.join_next().await.is_some() {}
        Ok(drain(&admission, shutdown, self.options.drain).await)
    }
}

async fn drain(admission: &Admission, mut shutdown: watch::Receiver<Phase>, patience: Duration) -> Summary {
    let open = admission.order_all(Order::Finish);
    let stop = async {
        if shutdown.wait_for(|phase| *phase == Phase::Stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        () = admission.empty() => {}
        () = stop => {}
        () = tokio::time::sleep(patience) => {}
    }
    let cut = admission.order_all(Order::Cut);
    (0..cut).for_each(|_| admission.totals.note_cut(Cut::Stop));
    if timeout(CUT_NOTICED, admission.empty()).await.is_err() {
        tracing::warn!(connections = admission.open(), "connections do not end");
    }
    Summary { drained: open.saturating_sub(cut), cut }
}
