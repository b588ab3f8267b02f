//! Full disks: telling them from broken ones, and reserving room before a write.

use std::fs::File;
use std::io;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// Whether a disk (or a quota) has no room, rather than something being broken.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Reserves disk room for `length` bytes of a file from byte `from` on, also beyond its end. A write there does not find
/// the disk full, whoever fills it. The file's length stays. Returns whether the file system supports this; some do not.
pub fn take_room(file: &File, from: u64, length: u64) -> io::Result<bool> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, from, length) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
