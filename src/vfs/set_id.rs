//! Setuid and setgid, which a change of a file's content takes away (chmod(2), inode(7)). Where the kernel leaves that
//! to us (`FUSE_HANDLE_KILLPRIV_V2` in linux/fuse.h), it need not ask for `security.capability` before each write.

use super::attr::{Attributes, SetAttributes, without_set_id};
use super::invalidate::Invalidation;
use super::{Result, Vfs};
use crate::types::InodeNo;

impl Vfs {
    /// Whether the file has setuid or setgid bits that a write takes away.
    pub async fn has_set_id(&self, ino: InodeNo) -> Result<bool> {
        let Attributes { mode, .. } = self.attributes(ino).await?;
        Ok(without_set_id(mode) != mode)
    }

    /// Takes them away, before a change by someone who may not keep them. As on other file systems, they stay gone if
    /// the change then fails. May be dropped and tried again.
    pub async fn lose_set_id(&self, ino: InodeNo) -> Result<()> {
        if self.has_set_id(ino).await? {
            let set = SetAttributes { loses_set_id: true, ..SetAttributes::default() };
            self.set_attributes(ino, &set).await?;
            // The reply to a write has no attributes, so the kernel must be told.
            self.tell_without_waiting(Invalidation::Attributes(ino));
        }
        Ok(())
    }
}
