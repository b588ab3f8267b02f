//! How files look to programs when the mount says so, whatever the vault says of them.

use fuser::FileAttr;

/// Owner, group and permission bits that every file of a mount shows, as `mount.fuse(8)` has them. What is stored stays
/// as it is, and so does what is stored of new files: the caller's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShownAs {
    /// `uid=`
    pub uid: Option<u32>,
    /// `gid=`
    pub gid: Option<u32>,
    /// `umask=`: the permission bits are those that are not in it.
    pub umask: Option<u32>,
}

impl ShownAs {
    pub(super) fn of(self, attr: FileAttr) -> FileAttr {
        FileAttr {
            uid: self.uid.unwrap_or(attr.uid),
            gid: self.gid.unwrap_or(attr.gid),
            perm: self.umask.map_or(attr.perm, |umask| {
                (attr.perm & !0o777) | (0o777 & !(umask & 0o777) as u16)
            }),
            ..attr
        }
    }
}
