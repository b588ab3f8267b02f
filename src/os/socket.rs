//! Sockets, as far as std does not reach.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType};

use super::syscalls;

/// Connects to an abstract name within `limit`, unlike std's: one that listens and never accepts lets others wait
/// (unix(7)). The limit stands for what is written, too.
pub fn connect_abstract(name: &str, limit: Duration) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
    let kind = (AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC);
    let socket = rustix::net::socket_with(kind.0, kind.1, kind.2, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket.into())
}

/// The user whose process is at the other end, as the kernel says (`SO_PEERCRED`).
pub fn peer_user(stream: &UnixStream) -> io::Result<u32> {
    Ok(socket_peercred(stream)?.uid.as_raw())
}

/// Ends accept(2) for whoever waits in it.
pub fn end_accepting(listener: impl AsFd) {
    let _ = rustix::net::shutdown(listener, Shutdown::Both); // fails only for what does not listen
}

/// The two addresses, here and there, of a TCP connection that somebody else in this process owns; `None` when the
/// number means something else, or nothing.
pub fn addresses(descriptor: RawFd) -> Option<(SocketAddr, SocketAddr)> {
    syscalls::of_descriptor(descriptor, |fd| {
        let here = rustix::net::getsockname(fd).ok()?.try_into().ok()?;
        let there = rustix::net::getpeername(fd).ok()??.try_into().ok()?;
        Some((here, there))
    })?
}

/// Bytes of all that was ever written to a TCP connection that the other end has acknowledged.
pub fn acknowledged(descriptor: RawFd) -> io::Result<u64> {
    syscalls::acknowledged(descriptor)
}
