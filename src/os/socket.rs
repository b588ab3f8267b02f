//! Socket calls that std lacks.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType};

use super::syscalls;

/// Connects to an abstract name within `limit`. std has no limit, and would wait for a listener that never accepts
/// (unix(7)). The limit also applies to writes.
pub fn connect_abstract(name: &str, limit: Duration) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
    let kind = (AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC);
    let socket = rustix::net::socket_with(kind.0, kind.1, kind.2, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket.into())
}

/// The user of the process at the other end, according to the kernel (`SO_PEERCRED`).
pub fn peer_user(stream: &UnixStream) -> io::Result<u32> {
    Ok(socket_peercred(stream)?.uid.as_raw())
}

/// Ends a pending accept(2).
pub fn end_accepting(listener: impl AsFd) {
    let _ = rustix::net::shutdown(listener, Shutdown::Both); // fails only for a socket that does not listen
}

/// The local and remote addresses of a TCP connection that other code in this process owns; `None` if the number
/// refers to something else, or to nothing.
pub fn addresses(descriptor: RawFd) -> Option<(SocketAddr, SocketAddr)> {
    syscalls::of_descriptor(descriptor, |fd| {
        let here = rustix::net::getsockname(fd).ok()?.try_into().ok()?;
        let there = rustix::net::getpeername(fd).ok()??.try_into().ok()?;
        Some((here, there))
    })?
}

/// How many bytes the other end has acknowledged of all that was ever written to a TCP connection.
pub fn acknowledged(descriptor: RawFd) -> io::Result<u64> {
    syscalls::acknowledged(descriptor)
}
