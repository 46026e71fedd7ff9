//! The machine's addresses, and being told when they change: rtnetlink(7), which needs no rights.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use tokio::net::UnixDatagram;

/// `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR`.
const ADDRESS_GROUPS: u32 = 0x10 | 0x100;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// Addresses of a link or of the machine itself say nothing about where it is: `RT_SCOPE_LINK` and beyond.
const SCOPE_LINK: u8 = 253;
/// What the kernel sends at once is not longer.
const MESSAGE_BYTES: usize = 32 << 10;
/// Answers to one question; a machine with more addresses is none that an agent runs on.
const ANSWERS: usize = 64;

/// Tells when the machine's addresses change.
#[derive(Debug)]
pub(super) struct Addresses {
    socket: UnixDatagram,
    known: BTreeSet<IpAddr>,
}

impl Addresses {
    /// From now on.
    ///
    /// # Errors
    /// The system does not tell; the agent looks around hourly then.
    pub(super) fn watch() -> io::Result<Self> {
        // To the runtime it is a socket for datagrams like any other: only `recv` is called on it.
        let socket = UnixDatagram::from_std(open(ADDRESS_GROUPS)?.into())?;
        Ok(Self { socket, known: local_addresses()? })
    }

    /// Waits for a change that is one: routers renew what is there all the time.
    ///
    /// # Errors
    /// The system tells no more.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        let mut message = vec![0; MESSAGE_BYTES];
        loop {
            match self.socket.recv(&mut message).await {
                Ok(_) => {}
                // More changed than fits into the socket: that is a change, too.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {}
                Err(error) => return Err(error),
            }
            let now = local_addresses()?;
            if now != self.known {
                self.known = now;
                return Ok(());
            }
        }
    }
}

/// The addresses by which others may know this machine.
///
/// # Errors
/// The system does not say.
pub(super) fn local_addresses() -> io::Result<BTreeSet<IpAddr>> {
    let socket = open(0)?;
    rustix::io::write(&socket, &question())?;
    let mut found = BTreeSet::new();
    let mut answer = vec![0; MESSAGE_BYTES];
    for _ in 0..ANSWERS {
        let length = match rustix::io::read(&socket, &mut answer[..]) {
            Ok(length) => length,
            // The kernel answers within the question: what is not there does not come.
            Err(rustix::io::Errno::AGAIN) => break,
            Err(error) => return Err(error.into()),
        };
        if read_addresses(answer.get(..length).unwrap_or_default(), &mut found) {
            break;
        }
    }
    Ok(found)
}

fn open(groups: u32) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Protocol 0 is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// `RTM_GETADDR` of all families: a header of 16 bytes and an `ifaddrmsg` of 8.
fn question() -> [u8; 24] {
    let mut message = [0; 24];
    let head = head(24, RTM_GETADDR, NLM_F_REQUEST_DUMP);
    message.iter_mut().zip(head).for_each(|(to, byte)| *to = byte);
    message
}

fn head(length: u32, kind: u16, flags: u16) -> [u8; 16] {
    let mut head = [0; 16];
    let bytes = length.to_ne_bytes().into_iter().chain(kind.to_ne_bytes()).chain(flags.to_ne_bytes());
    head.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
    head
}

/// Adds the addresses of these messages. Whether the last one is among them.
fn read_addresses(mut messages: &[u8], found: &mut BTreeSet<IpAddr>) -> bool {
    while let Some((head, _)) = messages.split_at_checked(16) {
        let length = word(head, 0).and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
        let kind = half(head, 4);
        if kind == Some(NLMSG_DONE) || length < 16 {
            return true;
        }
        let body = messages.get(16..length).unwrap_or_default();
        if kind == Some(RTM_NEWADDR) {
            found.extend(read_address(body));
        }
        messages = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

fn read_address(body: &[u8]) -> Option<IpAddr> {
    let (about, mut attributes) = body.split_at_checked(8)?;
    if *about.get(3)? >= SCOPE_LINK {
        return None;
    }
    let mut address = None;
    while let Some((head, _)) = attributes.split_at_checked(4) {
        let length = usize::from(half(head, 0)?);
        let value = attributes.get(4..length)?;
        match half(head, 2)? {
            // On a link between two, the other attribute is the other side.
            IFA_LOCAL => return address_of(value),
            IFA_ADDRESS => address = address_of(value),
            _ => {}
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    address
}

fn address_of(value: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(value).map(|it| Ipv4Addr::from(it).into());
    four.or_else(|_| <[u8; 16]>::try_from(value).map(|it| Ipv6Addr::from(it).into())).ok()
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One `RTM_NEWADDR` as the kernel writes it.
    fn message(scope: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![2, 24, 0, scope, 1, 0, 0, 0];
        for (kind, value) in attributes {
            let length = u16::try_from(4 + value.len()).unwrap();
            body.extend(
                length.to_ne_bytes().into_iter().chain(kind.to_ne_bytes()).chain(value.iter().copied()),
            );
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let length = u32::try_from(16 + body.len()).unwrap();
        [&head(length, RTM_NEWADDR, 2)[..], &body].concat()
    }

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        let messages = [
            message(0, &[(IFA_ADDRESS, &[192, 0, 2, 9]), (3, b"eth0\0"), (IFA_LOCAL, &[192, 0, 2, 1])]),
            message(254, &[(IFA_ADDRESS, &[127, 0, 0, 1])]),
            message(0, &[(IFA_ADDRESS, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])]),
        ];
        let mut found = BTreeSet::new();
        assert!(!read_addresses(&messages.concat(), &mut found));
        let expected: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(found, BTreeSet::from(expected));
        assert!(read_addresses(&head(20, NLMSG_DONE, 2), &mut found));
    }

    #[test]
    fn the_system_says_its_addresses() {
        let found = local_addresses().unwrap();
        assert!(found.iter().all(|address| !address.is_loopback()), "{found:?}");
    }

    proptest! {
        #[test]
        fn nothing_the_kernel_might_say_is_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read_addresses(&bytes, &mut BTreeSet::new());
            read_address(&bytes);
        }
    }
}
