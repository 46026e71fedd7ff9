//! The service manager: telling it how we are, and taking sockets from it (sd_notify(3), sd_listen_fds(3)).

use std::env;
use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::time::Duration;

use listenfd::ListenFd;
use rustix::time::{ClockId, clock_gettime};

/// Tells the service manager something, where there is one that listens. Losing it is no reason to fail.
pub(super) fn notify(state: &str) {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return };
    let path = path.to_string_lossy().into_owned();
    let address = match path.strip_prefix('@') {
        Some(name) => UnixAddr::from_abstract_name(name),
        None => UnixAddr::from_pathname(&path),
    };
    let sent = address.and_then(|address| {
        UnixDatagram::unbound().and_then(|it| it.send_to_addr(state.as_bytes(), &address))
    });
    if let Err(error) = sent {
        tracing::debug!(%error, "the service manager does not listen");
    }
}

/// What it is told before a reload: it wants to know when that began.
pub(super) fn reloading() {
    let now = clock_gettime(ClockId::Monotonic);
    let micros = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1_000);
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
}

/// How often it wants to hear that we live; `None` where it does not.
pub(super) fn watchdog() -> Option<Duration> {
    let micros: u64 = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    let ours = env::var("WATCHDOG_PID").map_or(true, |pid| pid.parse() == Ok(std::process::id()));
    // Half of the time it waits, as its manual says.
    (ours && micros > 0).then(|| Duration::from_micros(micros / 2))
}

/// Sockets that the service manager has bound for us, with where they listen.
pub(super) fn inherited() -> Vec<(SocketAddr, TcpListener)> {
    let mut handed = ListenFd::from_env();
    let sockets = (0..handed.len()).filter_map(|place| handed.take_tcp_listener(place).ok().flatten());
    sockets.filter_map(|socket| Some((socket.local_addr().ok()?, socket))).collect()
}
