//! Which changes take setuid and setgid away from a file.

use crate::os;
use crate::types::InodeNo;
use crate::vfs::{Result, Vfs};

/// Whether a change of this file by that thread does. For writes the kernel says so (`FUSE_WRITE_KILL_SUIDGID`). For
/// other changes fuser 0.18 does not pass on what the kernel says (`FATTR_KILL_SUIDGID`), or the kernel says nothing.
/// So /proc is asked, and only if there is something to take away.
///
/// Before a write, `fallocate` or `copy_file_range` by someone who may not keep the bits, the kernel sends a `setattr`
/// without attributes (seen with Linux 6.18). It sends the same for `chown(-1, -1)`, whoever calls that; so, unlike on
/// a local disk, root's takes nothing away.
pub(super) async fn takes_set_id(vfs: &Vfs, ino: InodeNo, pid: u32) -> Result<bool> {
    Ok(vfs.has_set_id(ino).await? && !os::keeps_set_id(pid))
}
