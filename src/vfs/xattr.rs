//! Extended attributes (xattr(7)).

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;

use crate::types::{InodeNo, Timestamp};

use super::whereabouts::is_reserved;
use super::{Error, Result, Setter, Vfs, acl};

/// The longest value, in bytes (`XATTR_SIZE_MAX`).
pub(super) const VALUE_MAX: usize = 64 * 1024;
/// The longest list of names of one inode, each with its NUL, in bytes (`XATTR_LIST_MAX`).
const LIST_MAX: usize = 64 * 1024;
/// The longest name, in bytes (`XATTR_NAME_MAX`).
const NAME_MAX: usize = 255;
/// For how many inodes it is remembered that they have no attributes: some 2 MiB.
const BARE_MAX: usize = 64 * 1024;

impl Vfs {
    /// `getxattr`. Kernels without `FUSE_HANDLE_KILLPRIV_V2` ask for `security.capability` before every write: for most
    /// files, memory has the reply.
    pub async fn xattr(&self, ino: InodeNo, name: &[u8]) -> Result<Vec<u8>> {
        checked(name)?;
        if let Some(value) = self.told_xattr(ino, name).await? {
            return Ok(value);
        }
        if self.is_bare(ino).await? {
            return Err(Error::NoAttribute);
        }
        self.read(|view| view.xattr(ino, name)?.ok_or(Error::NoAttribute)).await
    }

    /// `listxattr`: the names.
    pub async fn xattrs(&self, ino: InodeNo) -> Result<Vec<Vec<u8>>> {
        if self.is_bare(ino).await? {
            return Ok(Vec::new());
        }
        self.read(|view| Ok(view.xattrs(ino)?)).await
    }

    /// `setxattr`. `flags` is 0, `XATTR_CREATE` or `XATTR_REPLACE`. `by` matters to ACLs only.
    pub async fn set_xattr(
        &self,
        ino: InodeNo,
        name: &[u8],
        value: &[u8],
        flags: i32,
        by: &Setter,
    ) -> Result<()> {
        checked(name)?;
        self.writable()?;
        if is_reserved(name) {
            return Err(Error::NotPermitted);
        }
        if value.len() > VALUE_MAX {
            return Err(Error::AttributeTooBig);
        }
        if name == acl::ACCESS
            && self.inner.bare.contains(ino)
            && let Some(permissions) = acl::as_mode(value)?
        {
            return self.set_permissions(ino, permissions, by).await;
        }
        let _setting = self.inner.bare.setting(ino);
        let slot = self.invalidation_slot().await?;
        let change = self.change(|draft| {
            let mut inode = draft.inode(ino)?.ok_or(Error::Stale)?;
            let there = draft.xattr(ino, name)?;
            let is_there = there.is_some();
            match is_there {
                true if flags & libc::XATTR_CREATE != 0 => return Err(Error::Exists),
                false if flags & libc::XATTR_REPLACE != 0 => return Err(Error::NoAttribute),
                _ => {}
            }
            if there.is_some_and(|there| there == value) && !acl::is_acl(name) {
                return Ok(0); // nothing changes: as on a local disk, not even the ctime
            }
            let before = inode.clone();
            if acl::set(draft, ino, &mut inode, (name, value), by)? {
                if inode == before && !is_there {
                    return Ok(0); // `cp -a` sets an ACL that says no more than the mode
                }
            } else {
                let names = draft.xattrs(ino)?;
                let length: usize = names.iter().map(|name| name.len() + 1).sum();
                if !is_there && length + name.len() + 1 > LIST_MAX {
                    return Err(Error::NoSpace);
                }
                draft.put_xattr(ino, name, value);
            }
            inode.ctime = Timestamp::now();
            draft.put_inode(ino, &inode);
            Ok(inode.nlink)
        });
        let names = change.await?;
        slot.tell_of(ino, names).notified().await;
        Ok(())
    }

    /// Sets an ACL that says no more than a mode, on an inode without attributes, as `cp -a` and `install` do instead
    /// of `chmod`. No ACL is stored, and none is looked for.
    async fn set_permissions(&self, ino: InodeNo, permissions: u32, by: &Setter) -> Result<()> {
        let slot = self.invalidation_slot().await?;
        let change = self.change(|draft| {
            let mut inode = draft.inode(ino)?.ok_or(Error::Stale)?;
            let mode = by.allowed(inode.mode & !0o777 | permissions, inode.gid);
            if inode.mode != mode {
                inode.mode = mode;
                inode.ctime = Timestamp::now();
                draft.put_inode(ino, &inode);
            }
            Ok(inode.nlink)
        });
        let names = change.await?;
        slot.tell_of(ino, names).notified().await;
        Ok(())
    }

    /// `removexattr`.
    pub async fn remove_xattr(&self, ino: InodeNo, name: &[u8]) -> Result<()> {
        checked(name)?;
        if is_reserved(name) {
            return Err(Error::NotPermitted);
        }
        self.change(|draft| {
            let mut inode = draft.inode(ino)?.ok_or(Error::Stale)?;
            if draft.xattr(ino, name)?.is_none() {
                // As on a local file system, removing an ACL that is not there succeeds.
                return if acl::is_acl(name) { Ok(()) } else { Err(Error::NoAttribute) };
            }
            draft.delete_xattr(ino, name);
            inode.ctime = Timestamp::now();
            draft.put_inode(ino, &inode);
            Ok(())
        })
        .await
    }

    /// Whether `ino` has no attributes at all. Answers from memory if it can; otherwise looks, and remembers the
    /// result.
    pub(super) async fn is_bare(&self, ino: InodeNo) -> Result<bool> {
        let bare = &self.inner.bare;
        if bare.contains(ino) {
            return Ok(true);
        }
        let epoch = bare.epoch();
        let has_none = self.read(|view| Ok(!view.has_xattrs(ino)?)).await?;
        // Not for a reader: the writer that it follows may set one at any time (W5).
        if has_none && !self.inner.options.read_only {
            bare.note(ino, epoch);
        }
        Ok(has_none)
    }
}

/// Checks that a name is in one of the namespaces that are stored. (The kernel checks who may use them.)
pub(super) fn checked(name: &[u8]) -> Result<()> {
    if name.len() > NAME_MAX {
        return Err(Error::AttributeNameTooLong);
    }
    for space in [&b"user."[..], b"trusted.", b"security."] {
        match name.strip_prefix(space) {
            Some([]) => return Err(Error::Invalid),
            Some(_) => return Ok(()),
            None => {}
        }
    }
    if acl::is_acl(name) { Ok(()) } else { Err(Error::NotSupported) }
}

/// Remembers inodes that have no attributes.
#[derive(Debug, Default)]
pub(super) struct Bare {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: HashSet<InodeNo>,
    /// The inodes that are just getting an attribute, and by how many calls: nothing is noted about them meanwhile.
    setting: HashMap<InodeNo, usize>,
    /// Incremented when an attribute was set: whoever looked before must not note what it saw.
    epoch: u64,
}

impl Bare {
    pub(super) fn contains(&self, ino: InodeNo) -> bool {
        self.state.lock().known.contains(&ino)
    }

    /// Notes a new inode, which nobody else can know yet.
    pub(super) fn insert_new(&self, ino: InodeNo) {
        let epoch = self.epoch();
        self.note(ino, epoch);
    }

    fn epoch(&self) -> u64 {
        self.state.lock().epoch
    }

    fn note(&self, ino: InodeNo, epoch: u64) {
        let mut state = self.state.lock();
        if state.epoch != epoch || state.setting.contains_key(&ino) {
            return;
        }
        if state.known.len() >= BARE_MAX {
            state.known.clear();
        }
        state.known.insert(ino);
    }

    pub(super) fn setting(&self, ino: InodeNo) -> Setting<'_> {
        let mut state = self.state.lock();
        state.known.remove(&ino);
        *state.setting.entry(ino).or_default() += 1;
        Setting { bare: self, ino }
    }
}

/// Held while an attribute is set.
pub(super) struct Setting<'a> {
    bare: &'a Bare,
    ino: InodeNo,
}

impl Drop for Setting<'_> {
    fn drop(&mut self) {
        let mut state = self.bare.state.lock();
        state.epoch += 1;
        if let Some(count) = state.setting.get_mut(&self.ino) {
            *count -= 1;
            if *count == 0 {
                state.setting.remove(&self.ino);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_before_an_attribute_was_set_is_not_noted() {
        let (bare, ino) = (Bare::default(), InodeNo(3));
        let before = bare.epoch();
        let setting = bare.setting(ino);
        let during = bare.epoch();
        bare.note(ino, during);
        assert!(!bare.contains(ino));
        drop(setting);
        bare.note(ino, before);
        assert!(!bare.contains(ino));
        bare.note(ino, bare.epoch());
        assert!(bare.contains(ino));
    }

    #[test]
    fn only_the_known_namespaces_are_kept() {
        for good in ["user.a", "trusted.x", "security.capability", "system.posix_acl_access"] {
            assert!(checked(good.as_bytes()).is_ok(), "{good}");
        }
        for bad in ["user", "system.other", "osx.a", ""] {
            assert!(matches!(checked(bad.as_bytes()), Err(Error::NotSupported)), "{bad}");
        }
        for nameless in ["user.", "trusted.", "security."] {
            assert!(matches!(checked(nameless.as_bytes()), Err(Error::Invalid)), "{nameless}");
        }
    }
}
