//! The TTL with which a client's packets arrive: how many routers are between it and us, without asking it.
//!
//! The kernel remembers it from the client's part of the handshake, and tells it where it was asked to before. There is
//! no safe call for this one option, so this is the one file with code that is not.

#![expect(unsafe_code, reason = "getsockopt(IP_PKTOPTIONS) has no safe wrapper")]

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

/// Ancillary data of one message: its head is 16 bytes, the number 4, and the kernel may add others.
const ROOM: usize = 256;

/// Asks the kernel to remember TTLs of connections that come in by this listener. A socket of another kind does not.
pub(super) fn remember(listener: &impl AsFd) {
    let on: libc::c_int = 1;
    for (level, option) in
        [(libc::IPPROTO_IP, libc::IP_RECVTTL), (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT)]
    {
        // SAFETY: the descriptor is open while it is borrowed, and the value is an int that lives through the call.
        let _ = unsafe {
            libc::setsockopt(
                listener.as_fd().as_raw_fd(),
                level,
                option,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
    }
}

/// The TTL, or hop limit, of the client's handshake.
pub(super) fn of(socket: &impl AsFd) -> Option<u8> {
    let socket = socket.as_fd();
    // IPv6 first: a socket of IPv4 refuses its option, one of IPv6 answers that of IPv4 with something else.
    ask(socket, libc::IPPROTO_IPV6, libc::IPV6_2292PKTOPTIONS, libc::IPV6_HOPLIMIT)
        .or_else(|| ask(socket, libc::IPPROTO_IP, libc::IP_PKTOPTIONS, libc::IP_TTL))
}

fn ask(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, wanted: libc::c_int) -> Option<u8> {
    let mut room = [0_u8; ROOM];
    let mut length = ROOM as libc::socklen_t;
    // SAFETY: the descriptor is open while it is borrowed; the kernel writes at most `length` bytes into `room`, which
    // lives through the call, and says how many.
    let done = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, room.as_mut_ptr().cast(), &raw mut length)
    };
    if done != 0 {
        return None;
    }
    find(room.get(..usize::try_from(length).ok()?)?, level, wanted)
}

/// The number in the ancillary data of this kind: length, level, kind, data, each message aligned to a word.
fn find(mut data: &[u8], level: libc::c_int, wanted: libc::c_int) -> Option<u8> {
    const WORD: usize = size_of::<usize>();
    const HEAD: usize = WORD + 8;
    loop {
        let length = usize::from_ne_bytes(data.get(..WORD)?.try_into().ok()?);
        let int = |at: usize| Some(i32::from_ne_bytes(data.get(at..at + 4)?.try_into().ok()?));
        if int(WORD)? == level && int(WORD + 4)? == wanted {
            return u8::try_from(int(HEAD)?).ok();
        }
        data = data.get(length.max(HEAD).next_multiple_of(WORD)..)?;
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn accepted(address: &str) -> Option<TcpStream> {
        let listener = TcpListener::bind(address).ok()?;
        remember(&listener);
        let client = TcpStream::connect(listener.local_addr().ok()?).ok()?;
        let (socket, _) = listener.accept().ok()?;
        drop(client);
        Some(socket)
    }

    #[test]
    fn a_client_on_this_machine_arrives_with_the_ttl_it_was_sent_with() {
        let ours = std::fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl").unwrap_or_default();
        let ours: u8 = ours.trim().parse().unwrap_or(64);
        assert_eq!(of(&accepted("127.0.0.1:0").unwrap()), Some(ours));
        // A machine without IPv6 has nothing to say about it.
        if let Some(socket) = accepted("[::1]:0") {
            assert_eq!(of(&socket), Some(64));
        }
    }

    #[test]
    fn a_socket_that_was_not_asked_to_says_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(of(&listener.accept().unwrap().0), None);
        assert_eq!(find(&[1, 2, 3], 0, 0), None);
        assert_eq!(find(&[0; 64], 1, 1), None);
    }
}
