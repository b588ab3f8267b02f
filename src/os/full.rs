//! Full disks: told apart from broken ones, and room that is taken before it is written to.

use std::fs::File;
use std::io;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// Whether a disk has no room (or a quota none), rather than something being broken.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Takes room on the disk for `length` bytes of a file from byte `from` on, beyond its end too: what is written there
/// does not find the disk full, whoever fills it. The file's length stays. Whether there is such a thing here: some file
/// systems have none.
pub fn take_room(file: &File, from: u64, length: u64) -> io::Result<bool> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, from, length) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
