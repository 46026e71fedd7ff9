//! Where the name of the handler in use leads. A line that is open says nothing of a name that was given to another
//! machine, so the name is looked up now and then.

use std::collections::BTreeMap;
use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Whoever takes longer to answer is asked again the next time.
const LOOKUP: Duration = Duration::from_secs(10);

/// Addresses of one name that are remembered: names of many machines show a few of them at a time.
const KNOWN: usize = 64;

/// What a lookup found.
pub(super) type Found = (String, Vec<IpAddr>);

/// The addresses of one name.
#[derive(Debug, Default)]
pub(super) struct Whereabouts {
    of: String,
    /// Each with the time when it was seen last.
    known: BTreeMap<IpAddr, Duration>,
    lookup: Option<JoinHandle<Found>>,
    next: Duration,
}

impl Whereabouts {
    /// Looks up the host of `address` (`host:port`) if it is time for that, and then again after `every`. When that is.
    pub(super) fn look(&mut self, address: &str, now: Duration, every: Duration) -> Duration {
        if self.lookup.is_some() || address.parse::<SocketAddr>().is_ok() {
            return Duration::MAX;
        }
        if now < self.next {
            return self.next;
        }
        self.next = now + every;
        let address = address.to_owned();
        self.lookup = Some(tokio::spawn(async move {
            let found = match timeout(LOOKUP, lookup_host(&address)).await {
                Ok(Ok(found)) => found.map(|it| it.ip()).collect(),
                // Without an answer nothing is known to have changed.
                Ok(Err(_)) | Err(_) => Vec::new(),
            };
            (address, found)
        }));
        self.next
    }

    /// The next lookup that comes to its end.
    pub(super) async fn found(&mut self) -> Found {
        let Some(lookup) = &mut self.lookup else { return pending().await };
        let found = lookup.await;
        self.lookup = None;
        found.unwrap_or_default()
    }

    /// Whether the name leads elsewhere: to none of the addresses that it led to within `memory`. Names that show one
    /// of many machines after the other lead nowhere else by that.
    pub(super) fn has_moved(&mut self, (of, found): Found, now: Duration, memory: Duration) -> bool {
        if found.is_empty() {
            return false;
        }
        let other = self.of != of;
        if other {
            self.known.clear();
            self.of = of;
        }
        self.known.retain(|_, seen| now.saturating_sub(*seen) < memory);
        let moved = !self.known.is_empty() && !found.iter().any(|address| self.known.contains_key(address));
        for address in found {
            if self.known.len() < KNOWN || self.known.contains_key(&address) {
                self.known.insert(address, now);
            }
        }
        moved
    }
}

impl Drop for Whereabouts {
    fn drop(&mut self) {
        if let Some(lookup) = &self.lookup {
            lookup.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3_600);

    fn found(of: &str, last: &[u8]) -> Found {
        (of.to_owned(), last.iter().map(|last| IpAddr::from([192, 0, 2, *last])).collect())
    }

    #[test]
    fn a_name_that_was_given_to_another_machine_has_moved() {
        let mut it = Whereabouts::default();
        let mut moved = |found, minutes: u32| it.has_moved(found, MINUTE * minutes, HOUR);
        assert!(!moved(found("a:1", &[1]), 0), "nothing was known");
        assert!(!moved(found("a:1", &[]), 1), "no answer is no news");
        assert!(!moved(found("a:1", &[2, 1]), 2), "it has one more");
        assert!(!moved(found("a:1", &[2]), 3), "and one less");
        assert!(moved(found("a:1", &[3]), 4));
        assert!(!moved(found("b:1", &[4]), 5), "another name");
    }

    #[test]
    fn a_name_of_many_machines_that_shows_one_at_a_time_does_not_move_with_each() {
        let mut it = Whereabouts::default();
        let moves = (0..60_u32).filter(|minute| {
            let shown = found("a:1", &[u8::try_from(minute % 3).unwrap()]);
            it.has_moved(shown, MINUTE * *minute, HOUR)
        });
        assert_eq!(moves.count(), 2, "each is new once");
        assert!(it.has_moved(found("a:1", &[9]), MINUTE * 61, HOUR));
    }

    #[tokio::test]
    async fn a_name_is_looked_up_when_it_is_time_and_an_address_never() {
        let mut it = Whereabouts::default();
        assert_eq!(it.look("127.0.0.1:443", MINUTE, MINUTE), Duration::MAX);
        assert!(it.lookup.is_none());
        assert_eq!(it.look("localhost:443", MINUTE, MINUTE), 2 * MINUTE);
        let (of, found) = it.found().await;
        assert!(of == "localhost:443" && found.iter().all(IpAddr::is_loopback), "{found:?}");
        assert_eq!(it.look("localhost:443", MINUTE + LOOKUP, MINUTE), 2 * MINUTE);
        assert!(it.lookup.is_none(), "not before the next minute");
    }
}
