//! Accepting: never ends by itself, and sheds rather than spins when the process is out of descriptors.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::connection::{self, Entrance, House};
use super::totals::Rejected;
use super::{Phase, Service};

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Accepts until something else than running is ordered; the socket closes then.
pub(super) async fn accept<S: Service>(
    house: Arc<House<S>>,
    entrance: Entrance,
    listener: TcpListener,
    mut phase: watch::Receiver<Phase>,
) {
    let mut reserve = reserve();
    let mut pause = FIRST_PAUSE;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase != Phase::Run) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, address)) => {
                pause = FIRST_PAUSE;
                let Ok(place) = house.admission.admit(address.ip()) else { continue };
                let address = std::net::SocketAddr::new(address.ip().to_canonical(), address.port());
                tokio::spawn(connection::serve(Arc::clone(&house), entrance.clone(), tcp, address, place));
            }
            Err(error) if exhausted(&error) => {
                tracing::warn!(%error, listener = entrance.name, "cannot accept");
                shed(&listener, &mut reserve).await;
                house.admission.totals.note_rejected(Rejected::Descriptors);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            // The client's trouble, handed to us by accept(2): the next one may be fine.
            Err(error) => {
                tracing::debug!(%error, "accept");
                tokio::task::yield_now().await;
            }
        }
    }
}

/// The descriptor that is given up to tell one client "no" when there is no other.
fn reserve() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Takes one client off the queue and closes it at once: it learns now and not after its timeout.
async fn shed(listener: &TcpListener, spare: &mut Option<File>) {
    drop(spare.take());
    let _ = tokio::time::timeout(FIRST_PAUSE, listener.accept()).await.map(drop);
    *spare = reserve();
}

fn exhausted(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}
