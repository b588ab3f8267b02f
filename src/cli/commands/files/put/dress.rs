//! The attributes that accompany content: mode, owner, times, extended attributes.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use crate::cli::files::wire::Finish;
use crate::os;

/// The attributes that an entry gets in the vault. Owners are kept only for root, as `cp -a` does.
pub(super) fn finish_of(seen: &Metadata) -> Finish {
    let is_root = os::effective_ids().0 == 0;
    Finish {
        size: 0,
        mode: Some(seen.mode()),
        owner: is_root.then(|| (seen.uid(), seen.gid())),
        mtime: Some((seen.mtime(), u32::try_from(seen.mtime_nsec()).unwrap_or(0))),
    }
}

/// Whether an extended attribute is copied: not those of this machine's security system.
pub(super) fn is_kept(name: &[u8]) -> bool {
    let is_root = os::effective_ids().0 == 0;
    name.starts_with(b"user.")
        || name.starts_with(b"system.posix_acl_")
        || is_root && (name.starts_with(b"trusted.") || name == b"security.capability")
}
