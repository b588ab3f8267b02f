//! Full disks: told apart from broken ones, and room that is taken before it is written to.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Whether a disk has no room (or a quota none), rather than something being broken.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Takes room on the disk for `length` bytes of a file from byte `from` on, beyond its end too: what is written there
/// does not find the disk full, whoever fills it. The file's length stays. Whether there is such a thing here: some file
/// systems have none.
pub fn take_room(file: &File, from: u64, length: u64) -> io::Result<bool> {
    let (fd, keep_size) = (file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE);
    // SAFETY: the descriptor is open for as long as `file`; no memory is passed.
    match unsafe { libc::fallocate(fd, keep_size, from.cast_signed(), length.cast_signed()) } {
        0 => Ok(true),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
            error => Err(error),
        },
    }
}
