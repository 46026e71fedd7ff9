//! `GET /agent/v1/probe`: what the handler sees of a connection. Asked without identity, so every address has a rate.

use std::collections::HashMap;
use std::net::IpAddr;

use parking_lot::Mutex;

use crate::base::clock::Timestamp;

/// Probes of one address in a second: an agent behind a NAT shares it with its floor.
const EACH: u32 = 50;
/// Probes of all addresses in a second; each is an answer of 200 bytes.
const ALL: u32 = 5_000;

/// The probes of this second.
#[derive(Debug, Default)]
pub(super) struct Probes(Mutex<Second>);

#[derive(Debug, Default)]
struct Second {
    number: u64,
    all: u32,
    /// At most as many as `ALL`.
    each: HashMap<IpAddr, u32>,
}

impl Probes {
    /// Whether one more is answered.
    pub(super) fn admit(&self, from: IpAddr, now: Timestamp) -> bool {
        let mut second = self.0.lock();
        let number = now.0 / 1_000;
        if second.number != number {
            *second = Second { number, ..Second::default() };
        }
        if second.all >= ALL {
            return false;
        }
        second.all += 1;
        let each = second.each.entry(from).or_default();
        *each += 1;
        *each <= EACH
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_address_that_asks_too_often_waits_for_the_next_second_and_nobody_else_does() {
        let (probes, now) = (Probes::default(), Timestamp(5_000));
        let [one, other] = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse().unwrap());
        let admitted = (0..EACH + 10).filter(|_| probes.admit(one, now)).count();
        assert_eq!(admitted, EACH as usize);
        assert!(probes.admit(other, now));
        assert!(probes.admit(one, now.after(Duration::from_secs(1))));
    }
}
