//! Who is connected: limits at the door, the list the sweeper walks, and the wait for the last to leave.
//!
//! One lock, taken at accept, at close and by the sweeper for a slice at a time; never on a request's way.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Options;
use super::pace::{Order, Pace, Ticks};
use super::totals::{Rejected, Totals};

/// Connections the sweeper looks at before it lets others have the lock: well under 100 µs.
pub(super) const SWEEP_SLICE: usize = 512;

/// An address as limits see it: an IPv6 customer holds a whole /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    V4([u8; 4]),
    V6([u16; 4]),
}

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

/// The sweeper's memory of one connection: where its current window of slow writing began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    pub(super) began: Option<u64>,
    pub(super) written: u64,
}

#[derive(Debug)]
struct Guest {
    pace: Arc<Pace>,
    window: Window,
}

#[derive(Debug, Default)]
struct Book {
    guests: Vec<Option<Guest>>,
    free: Vec<usize>,
    sources: HashMap<Source, usize>,
}

impl Book {
    const fn open(&self) -> usize {
        self.guests.len() - self.free.len()
    }
}

/// The list of connections.
#[derive(Debug)]
pub(super) struct Admission {
    book: Mutex<Book>,
    left: Notify,
    connections: usize,
    per_address: usize,
    pub(super) ticks: Arc<Ticks>,
    pub(super) totals: Arc<Totals>,
}

impl Admission {
    pub(super) fn new(options: &Options, totals: Arc<Totals>) -> Self {
        Self {
            book: Mutex::default(),
            left: Notify::new(),
            connections: options.connections,
            per_address: options.connections_per_address,
            ticks: Arc::default(),
            totals,
        }
    }

    /// A place for a connection from `address`, or why there is none. Counted either way.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Place, Rejected> {
        let source = Source::of(address);
        let mut book = self.book.lock();
        if book.open() >= self.connections {
            self.totals.note_rejected(Rejected::Connections);
            return Err(Rejected::Connections);
        }
        let from_there = book.sources.entry(source).or_default();
        if *from_there >= self.per_address {
            self.totals.note_rejected(Rejected::Address);
            return Err(Rejected::Address);
        }
        *from_there += 1;
        let pace = Arc::new(Pace::new(Arc::clone(&self.ticks)));
        let guest = Some(Guest { pace: Arc::clone(&pace), window: Window::default() });
        let slot = book.free.pop().unwrap_or(book.guests.len());
        match book.guests.get_mut(slot) {
            Some(place) => *place = guest,
            None => book.guests.push(guest),
        }
        drop(book);
        self.totals.note_open();
        Ok(Place { admission: Arc::clone(self), slot, source, pace })
    }

    /// Connections open now.
    pub(super) fn open(&self) -> usize {
        self.book.lock().open()
    }

    /// Gives everybody an order; returns how many there were.
    pub(super) fn order_all(&self, order: Order) -> usize {
        let book = self.book.lock();
        book.guests.iter().flatten().for_each(|guest| guest.pace.give(order));
        book.open()
    }

    /// Shows the connections of a slice to `look`; false when there is no such slice any more.
    pub(super) fn sweep(&self, slice: usize, mut look: impl FnMut(&Pace, &mut Window)) -> bool {
        let mut book = self.book.lock();
        let Some(guests) = book.guests.chunks_mut(SWEEP_SLICE).nth(slice) else { return false };
        guests.iter_mut().flatten().for_each(|guest| look(&guest.pace, &mut guest.window));
        true
    }

    /// Waits until nobody is left. There is one waiter: the drain.
    pub(super) async fn empty(&self) {
        while self.open() > 0 {
            self.left.notified().await;
        }
    }
}

/// A connection's right to be there. Dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Place {
    admission: Arc<Admission>,
    slot: usize,
    source: Source,
    pub(super) pace: Arc<Pace>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut book = self.admission.book.lock();
        if let Some(guest) = book.guests.get_mut(self.slot) {
            *guest = None;
            book.free.push(self.slot);
        }
        if let Some(count) = book.sources.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                book.sources.remove(&self.source);
            }
        }
        let empty = book.open() == 0;
        if empty {
            // A burst's memory is not kept for ever.
            *book = Book::default();
        }
        drop(book);
        self.admission.totals.note_closed();
        self.admission.totals.note_requests(self.pace.requests());
        if empty {
            self.admission.left.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(connections: usize, per_address: usize) -> Arc<Admission> {
        let options = Options { connections, connections_per_address: per_address, ..Options::default() };
        Arc::new(Admission::new(&options, Arc::default()))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_cannot_take_all_places() {
        let door = admission(10, 2);
        let first = door.admit(ip("192.0.2.1")).unwrap();
        let _second = door.admit(ip("::ffff:192.0.2.1")).unwrap();
        assert_eq!(door.admit(ip("192.0.2.1")).err(), Some(Rejected::Address));
        let _other = door.admit(ip("192.0.2.2")).unwrap();
        drop(first);
        assert!(door.admit(ip("192.0.2.1")).is_ok());
        assert_eq!(door.totals.rejected(Rejected::Address), 1);
    }

    #[test]
    fn a_64_counts_as_one_address() {
        let door = admission(10, 1);
        let _first = door.admit(ip("2001:db8:0:1::1")).unwrap();
        assert_eq!(door.admit(ip("2001:db8:0:1:ffff::2")).err(), Some(Rejected::Address));
        assert!(door.admit(ip("2001:db8:0:2::1")).is_ok());
    }

    #[test]
    fn the_total_is_a_limit_and_leaving_makes_room() {
        let door = admission(2, 9);
        let places = [door.admit(ip("192.0.2.1")).unwrap(), door.admit(ip("192.0.2.2")).unwrap()];
        assert_eq!(door.admit(ip("192.0.2.3")).err(), Some(Rejected::Connections));
        drop(places);
        assert_eq!((door.open(), door.totals.open()), (0, 0));
        assert!(door.admit(ip("192.0.2.3")).is_ok());
    }

    #[test]
    fn places_are_used_again() {
        let door = admission(600, 600);
        let mut places: Vec<_> = (0..600).map(|_| door.admit(ip("192.0.2.1")).unwrap()).collect();
        places.drain(100..500);
        places.extend((0..400).map(|_| door.admit(ip("192.0.2.1")).unwrap()));
        assert_eq!(door.book.lock().guests.len(), 600);
        let mut seen = 0;
        let mut slice = 0;
        while door.sweep(slice, |_, _| seen += 1) {
            slice += 1;
        }
        assert_eq!((seen, slice), (600, 2));
    }
}
