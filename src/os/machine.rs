//! Facts about the machine.

use std::fs;
use std::io;
use std::path::Path;

/// The id of the running boot, by which an unclean reboot is detected (J3). Empty if the kernel does not
/// tell it.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// The space of a file system in bytes, as unprivileged users see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// The used space, and what may still be written.
    pub total: u64,
    /// What may still be written.
    pub free: u64,
}

/// The space of the file system that holds a path (statvfs(3)).
pub fn space(path: &Path) -> io::Result<Space> {
    let stat = rustix::fs::statvfs(path)?;
    // Space reserved for root counts as neither.
    let total = stat.f_blocks.saturating_sub(stat.f_bfree.saturating_sub(stat.f_bavail));
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(Space { total: bytes(total), free: bytes(stat.f_bavail) })
}

/// Bytes that users may still write to the file system that holds a path.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    space(path).map(|space| space.free)
}

/// How much of a file system of `total` bytes is left to others: 1 GiB, or a tenth if that is less.
#[must_use]
pub fn keep_free(total: u64) -> u64 {
    (1 << 30).min(total / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_room_and_a_boot() {
        assert!(free_bytes(Path::new("/")).is_ok_and(|free| free > 0));
        assert!(space(Path::new("/")).is_ok_and(|space| space.total >= space.free));
        assert_eq!((keep_free(300 << 20), keep_free(1 << 40)), (30 << 20, 1 << 30));
        assert_eq!(
            free_bytes(Path::new("/nowhere/at/all")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        assert_eq!(boot_id().len(), 36);
    }
}
