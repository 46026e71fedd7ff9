//! Names to addresses: bounded in time, with the last good answer in reserve, and no names for forbidden places.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

/// A failing resolver is covered by its last good answer for this long: a branch's DNS often is behind the same WAN.
const LAST_GOOD_FOR: Duration = Duration::from_secs(3600);
/// Addresses of one name that are tried.
const ADDRESSES: usize = 6;
/// Names remembered: an upstream's own and its redirect hosts.
const NAMES: usize = 16;

/// Resolves the names of one upstream.
#[derive(Debug, Default)]
pub(super) struct Resolver(Mutex<HashMap<String, (Vec<SocketAddr>, Instant)>>);

impl Resolver {
    /// The addresses of `host`, at most six. `foreign`: the name came from a redirect, so it must not lead to
    /// this machine (rebinding).
    pub(super) async fn resolve(
        &self,
        host: &str,
        port: u16,
        foreign: bool,
        within: Duration,
    ) -> Result<Vec<SocketAddr>, String> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let looked_up = match timeout(within, tokio::net::lookup_host((host, port))).await {
            Ok(Ok(addresses)) => Ok(addresses.take(ADDRESSES).collect::<Vec<_>>()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {within:?}")),
        };
        let key = format!("{host}:{port}");
        let addresses = match looked_up {
            Ok(addresses) if !addresses.is_empty() => {
                let mut good = self.0.lock();
                if good.len() < NAMES || good.contains_key(&key) {
                    good.insert(key, (addresses.clone(), Instant::now()));
                }
                addresses
            }
            other => {
                self.last_good(&key).ok_or_else(|| other.err().unwrap_or_else(|| "no address".to_owned()))?
            }
        };
        let local = host == "localhost" || host.ends_with(".localhost");
        let allowed: Vec<_> =
            addresses.into_iter().filter(|at| may_be_named(at.ip(), local || !foreign)).collect();
        if allowed.is_empty() {
            Err("it leads only to addresses no name may lead to".to_owned())
        } else {
            Ok(allowed)
        }
    }

    fn last_good(&self, key: &str) -> Option<Vec<SocketAddr>> {
        let good = self.0.lock();
        let (addresses, at) = good.get(key)?;
        (at.elapsed() <= LAST_GOOD_FOR).then(|| addresses.clone())
    }
}

/// Whether a name may lead to `address`. Link-local is where clouds keep their metadata services; an operator who
/// means one of these writes the address itself.
fn may_be_named(address: IpAddr, loopback: bool) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            (loopback || !v4.is_loopback())
                && !(v4.is_link_local() || v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast())
        }
        IpAddr::V6(v6) => {
            (loopback || v6 != Ipv6Addr::LOCALHOST)
                && !(v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_multicast())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_must_not_lead_to_metadata_services_nor_a_foreign_one_to_us() {
        for (address, own, foreign) in [
            ("10.0.0.1", true, true),
            ("203.0.113.9", true, true),
            ("2001:db8::1", true, true),
            ("127.0.0.1", true, false),
            ("::1", true, false),
            ("::ffff:127.0.0.1", true, false),
            ("169.254.169.254", false, false),
            ("::ffff:169.254.169.254", false, false),
            ("fe80::1", false, false),
            ("0.0.0.0", false, false),
            ("::", false, false),
            ("224.0.0.1", false, false),
        ] {
            let at: IpAddr = address.parse().unwrap();
            assert_eq!((may_be_named(at, true), may_be_named(at, false)), (own, foreign), "{address}");
        }
    }

    #[tokio::test]
    async fn a_failing_resolver_is_covered_by_its_last_good_answer_for_an_hour() {
        let resolver = Resolver::default();
        let within = Duration::from_secs(2);
        // RFC 6761: `.invalid` never resolves.
        assert!(resolver.resolve("up.invalid", 80, false, within).await.is_err());
        let good = vec![SocketAddr::from(([10, 0, 0, 1], 80))];
        resolver.0.lock().insert("up.invalid:80".to_owned(), (good.clone(), Instant::now()));
        assert_eq!(resolver.resolve("up.invalid", 80, false, within).await, Ok(good));
    }

    #[tokio::test]
    async fn localhost_is_a_name_for_this_machine() {
        let found = Resolver::default().resolve("localhost", 80, true, Duration::from_secs(5)).await;
        assert!(found.unwrap().iter().all(|at| at.ip().is_loopback()));
    }
}
