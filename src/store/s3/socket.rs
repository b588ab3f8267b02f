//! A connection as the kernel sees it: how much of what was written the other end has acknowledged.
//!
//! The SDK gives a connection's two addresses, not its descriptor, so this looks for it among the process's
//! own.

use std::net::SocketAddr;
use std::os::fd::RawFd;

use crate::os;

/// A TCP connection of this process.
#[derive(Debug)]
pub(super) struct Socket {
    descriptor: RawFd,
    here: SocketAddr,
    there: SocketAddr,
    /// What was acknowledged before the first look, for earlier requests on the same connection.
    before: u64,
    seen: u64,
}

impl Socket {
    /// The connection between these addresses; `None` when no descriptor of this process has them.
    pub(super) fn find(here: SocketAddr, there: SocketAddr) -> Option<Self> {
        let descriptors = std::fs::read_dir("/proc/self/fd").ok()?;
        let numbers =
            descriptors.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let descriptor = { numbers }.find(|number| is(*number, here, there))?;
        let before = acknowledged(descriptor)?;
        Some(Self { descriptor, here, there, before, seen: 0 })
    }

    /// Bytes that the other end has acknowledged since this was found. Once the connection is closed, the
    /// count stays.
    pub(super) fn acknowledged(&mut self) -> u64 {
        // The descriptor may be another's by now.
        if is(self.descriptor, self.here, self.there)
            && let Some(all) = acknowledged(self.descriptor)
        {
            self.seen = all.saturating_sub(self.before);
        }
        self.seen
    }
}

fn is(descriptor: RawFd, here: SocketAddr, there: SocketAddr) -> bool {
    os::addresses(descriptor) == Some((here, there))
}

/// Bytes acknowledged since the connection was made.
fn acknowledged(descriptor: RawFd) -> Option<u64> {
    let told = os::acknowledged(descriptor);
    told.inspect_err(|error| tracing::debug!(%error, "a connection tells nothing of itself")).ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_the_other_end_took_is_told_and_a_closed_connection_tells_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut theirs, _) = listener.accept().unwrap();
        ours.write_all(&[1; 1000]).unwrap();
        theirs.read_exact(&mut [0; 1000]).unwrap();
        let (here, there) = (ours.local_addr().unwrap(), ours.peer_addr().unwrap());
        let mut found = Socket::find(here, there).unwrap();
        assert_eq!(found.acknowledged(), 0, "what was before is not counted");
        ours.write_all(&[1; 5000]).unwrap();
        theirs.read_exact(&mut [0; 5000]).unwrap();
        // The kernel may process the acknowledgement a little later.
        let begun = std::time::Instant::now();
        while found.acknowledged() < 5000 {
            assert!(begun.elapsed().as_secs() < 20, "it is not told");
        }
        assert_eq!(found.acknowledged(), 5000);
        drop(ours);
        assert_eq!(found.acknowledged(), 5000);
        assert!(Socket::find(here, there).is_none());
    }
}
