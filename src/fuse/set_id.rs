//! Who takes setuid and setgid away by a change.

use crate::os;
use crate::types::InodeNo;
use crate::vfs::{Result, Vfs};

/// Whether a change of this file by that thread does. Of a write the kernel says so (`FUSE_WRITE_KILL_SUIDGID`); of the rest fuser
/// 0.18 does not pass on what it says (`FATTR_KILL_SUIDGID`), or it says nothing. /proc is asked only where there is something to
/// take away.
///
/// For a write, `fallocate` and `copy_file_range` by one who may not keep them it sends a `setattr` of no attribute first (as seen
/// with Linux 6.18), and one for `chown(-1, -1)`, whoever calls that: so root's takes nothing away, unlike on a local disk.
pub(super) async fn takes_set_id(vfs: &Vfs, ino: InodeNo, pid: u32) -> Result<bool> {
    Ok(vfs.has_set_id(ino).await? && !os::keeps_set_id(pid))
}
