//! Mount options that change how files look to programs, whatever the vault stores.

use fuser::FileAttr;

/// Owner, group and permission bits that every file of a mount shows, as with `mount.fuse(8)`. What is stored does not
/// change; new files are stored with the caller's ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShownAs {
    /// `uid=`
    pub uid: Option<u32>,
    /// `gid=`
    pub gid: Option<u32>,
    /// `umask=`: files show the permission bits that are not in it.
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
