//! A Unix socket in the file system. A dead process's socket is replaced, a live one's is not. The name is removed with
//! its owner.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// How long to wait for others that make or remove a socket in the same directory.
const TURN: Duration = Duration::from_secs(2);
/// How many connections may wait to be accepted; the same as for std's listeners.
const BACKLOG: i32 = 128;

/// The name of a socket that this process listens on. Dropping it removes the name, if that is still this socket's.
#[derive(Debug)]
pub struct SocketFile {
    place: SocketPlace,
    /// Device and inode.
    own: (u64, u64),
}

/// A name in a directory. The directory is held open, because a path through it is short, as the kernel requires (108
/// bytes).
#[derive(Debug)]
struct SocketPlace {
    dir: File,
    name: OsString,
}

/// Listens at a path where nobody listens yet. `mode` are the permissions of the socket, which decide who may connect.
/// Blocks for up to 2 s.
///
/// # Errors
/// `AddrInUse`: somebody listens there. `AlreadyExists`: what is there is not a socket.
pub fn listen_at(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    let place = SocketPlace::of(path)?;
    let _turn = place.turn()?;
    match fs::symlink_metadata(place.short()) {
        Ok(there) if !there.file_type().is_socket() => {
            return Err(ErrorKind::AlreadyExists.into());
        }
        Ok(_) if place.is_live()? => return Err(ErrorKind::AddrInUse.into()),
        Ok(_) => fs::remove_file(place.short())?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = socket()?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(place.short())?)?;
    let made = fs::symlink_metadata(place.short())?;
    let file = SocketFile { own: (made.dev(), made.ino()), place };
    // Nobody can connect before it listens, and by then it has its permissions.
    fs::set_permissions(file.place.short(), Permissions::from_mode(mode))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok((socket.into(), file))
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

impl SocketPlace {
    fn of(path: &Path) -> io::Result<Self> {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(ErrorKind::IsADirectory.into());
        };
        Ok(Self { dir: File::open(dir)?, name: name.to_owned() })
    }

    fn short(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.dir.as_raw_fd().to_string()).join(&self.name)
    }

    /// Locks the directory, so that only one process at a time checks whether a socket is live and replaces it. (Anybody
    /// who may list the directory can hold that lock. But in a directory that all may write to, they can prevent nearly
    /// everything anyway; so this only limits the wait.)
    fn turn(&self) -> io::Result<File> {
        let own = File::open(format!("/proc/self/fd/{}", self.dir.as_raw_fd()))?;
        let end = Instant::now() + TURN;
        while let Err(error) = own.try_lock() {
            if Instant::now() > end {
                return Err(error.into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(own)
    }

    /// Whether a process listens there.
    fn is_live(&self) -> io::Result<bool> {
        match rustix::net::connect(&socket()?, &SocketAddrUnix::new(self.short())?) {
            Ok(()) | Err(Errno::AGAIN) => Ok(true), // its queue may be full
            Err(Errno::CONNREFUSED) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let Ok(_turn) = self.place.turn() else { return };
        let there = fs::symlink_metadata(self.place.short());
        if there.is_ok_and(|there| (there.dev(), there.ino()) == self.own) {
            // If this fails, the next owner replaces the file.
            let _ = fs::remove_file(self.place.short());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_dead_socket_is_replaced_a_live_one_and_a_file_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        fs::create_dir(&deep).unwrap();
        let path = deep.join("socket");
        let (listener, file) = listen_at(&path, 0o620).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o620);
        assert_eq!(listen_at(&path, 0o600).unwrap_err().kind(), ErrorKind::AddrInUse);
        // What a killed process leaves.
        std::mem::forget(file);
        drop(listener);
        let (listener, file) = listen_at(&path, 0o600).unwrap();
        assert!(fs::metadata(&path).unwrap().mode() & 0o777 == 0o600);
        // The name is somebody else's by now: it stays.
        fs::remove_file(&path).unwrap();
        let other = UnixListener::bind(deep.join("s")).map(drop);
        assert!(other.is_err(), "too long for the kernel without us");
        fs::write(&path, "not ours").unwrap();
        drop((listener, file));
        assert_eq!(listen_at(&path, 0o600).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"not ours");
        fs::remove_file(&path).unwrap();
        let (listener, file) = listen_at(&path, 0o600).unwrap();
        drop((listener, file));
        assert!(!path.exists());
        assert!(UnixStream::connect(dir.path().join("none")).is_err());
    }

    #[test]
    fn of_many_at_once_one_listens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        drop(UnixListener::bind(&path).unwrap()); // a dead one
        let each = |_| {
            let path = path.clone();
            std::thread::spawn(move || listen_at(&path, 0o600))
        };
        let all: Vec<_> = (0..8).map(each).collect();
        let all: Vec<_> = all.into_iter().map(|one| one.join().unwrap()).collect();
        assert_eq!(all.iter().filter(|one| one.is_ok()).count(), 1, "{all:?}");
    }
}
