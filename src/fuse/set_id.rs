//! Who takes setuid and setgid away by a change.

use crate::os;
use crate::types::InodeNo;
use crate::vfs::{Result, Vfs};

/// Whether a change of this file by that thread does. Of a write the kernel says so (`FUSE_WRITE_KILL_SUIDGID`); of the rest fuser
/// 0.18 does not pass on what it says (`FATTR_KILL_SUIDGID`), or it says nothing. /proc is asked only where there is something to
/// take away.
pub(super) async fn takes_set_id(vfs: &Vfs, ino: InodeNo, pid: u32) -> Result<bool> {
    Ok(vfs.has_set_id(ino).await? && !os::keeps_set_id(pid))
}
