//! Files that are written before they have a name, so that nobody finds one half-written. If the daemon dies or the
//! file is closed before it is named, nothing is left. Until then the inode is an orphan (rule V3).

use std::sync::atomic::{AtomicBool, Ordering};

use crate::index::Draft;
use crate::records::{Entry, Inode, Orphan};
use crate::types::{Hash, InodeNo, Timestamp};

use super::file_version::{is_dirty, version_of};
use super::holds::{Holder, Holds};
use super::namespace::{changed, named as names, unnamed};
use super::publish::publish_into;
use super::remove::drop_name;
use super::{
    Attributes, Caller, Error, HandleId, OpenFlags, RenameMode, Result, Vfs, acl, attr,
    checked_name, directory, xattr,
};

/// A file that has got its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// What `stat` shows of it.
    pub attributes: Attributes,
    /// Whether it replaced something that had the name.
    pub has_replaced: bool,
}

/// What may have had the name before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameOf {
    /// As in rename(2); an exchange is an error.
    Of(RenameMode),
    /// Only this file, in this version ([`Vfs::version`]), with nothing unpublished written to it.
    Version(InodeNo, Hash),
}

impl From<RenameMode> for NameOf {
    fn from(mode: RenameMode) -> Self {
        Self::Of(mode)
    }
}

impl Vfs {
    /// Creates a regular file without a name, open for reading and writing (`O_TMPFILE`). `likely_name` only goes into
    /// footers of packs. If the file is released before [`Vfs::give_name`], it is removed.
    pub async fn create_unnamed(
        &self,
        caller: &Caller,
        mode: u32,
        likely_name: &[u8],
    ) -> Result<HandleId> {
        let holds = &self.inner.holds;
        let held = self.holding_as(Holder::Handle);
        let mode = libc::S_IFREG | mode & attr::MODE_BITS & !(caller.umask & 0o777);
        let ino = self
            .change(|draft| {
                let nowhere = Inode::default();
                let made = attr::new_inode(caller, &nowhere, mode, Timestamp::now());
                let ino = draft.new_ino()?;
                draft.put_inode(ino, &Inode { nlink: 0, ..made });
                draft.put_orphan(ino, &Orphan::UNNAMED);
                held.hold(ino)?;
                // Before anybody sees the orphan: whoever removes orphans that nobody holds must find it held.
                holds.unlinked(ino);
                Ok(ino)
            })
            .await?;
        held.keep();
        self.inner.bare.insert_new(ino);
        let file = self.inner.content.file(ino);
        file.note_name(likely_name);
        let flags = OpenFlags { read: true, write: true, ..OpenFlags::default() };
        Ok(self.inner.handles.insert(file, flags))
    }

    /// The inode of an open file.
    pub fn inode_of(&self, handle: HandleId) -> Result<InodeNo> {
        Ok(self.inner.handles.get(handle)?.file.ino())
    }

    /// Gives an unnamed file its name, in one transaction with all that was written to it, and with the extended
    /// attribute `note.0`; `note.1` makes its value from the version that the file then has. Fails with
    /// [`Error::Exists`] if at that moment something has the name that `of` does not allow. It can then be tried again
    /// with another name.
    pub async fn give_name(
        &self,
        handle: HandleId,
        parent: InodeNo,
        name: &[u8],
        of: impl Into<NameOf>,
        note: (&[u8], impl Fn(Hash) -> Vec<u8> + Send + Sync),
    ) -> Result<Named> {
        xattr::checked(note.0)?;
        let put_note = |draft: &mut Draft<'_>, ino: InodeNo, inode: &Inode| {
            let version = version_of(draft, ino, inode)?;
            draft.put_xattr(ino, note.0, &(note.1)(version));
            Ok(())
        };
        self.name_unnamed(handle, (parent, name), of.into(), put_note).await
    }

    /// As [`Vfs::give_name`], without a note.
    pub async fn give_name_alone(
        &self,
        handle: HandleId,
        parent: InodeNo,
        name: &[u8],
        mode: RenameMode,
    ) -> Result<Named> {
        self.name_unnamed(handle, (parent, name), mode.into(), |_, _, _| Ok(())).await
    }

    async fn name_unnamed(
        &self,
        handle: HandleId,
        (parent, name): (InodeNo, &[u8]),
        of: NameOf,
        put_more: impl Fn(&mut Draft<'_>, InodeNo, &Inode) -> Result<()> + Send + Sync,
    ) -> Result<Named> {
        checked_name(name)?;
        self.writable()?;
        let handle = self.inner.handles.get(handle)?;
        let (file, ino) = (&handle.file, handle.file.ino());
        let slot = self.invalidation_slot().await?;
        self.is_bare(parent).await?;
        // Finishes a truncation under way, if there is one: the orphan record, which is deleted here, may be that
        // truncation's too.
        let publication = self.turn_to(file, u64::MAX).await?;
        let naming = Naming { holds: &self.inner.holds, ino, is_open: AtomicBool::new(false) };
        let _setting = self.inner.bare.setting(ino);
        let (inode, replaced) = self
            .change_leaving(|draft, leaving| {
                let now = Timestamp::now();
                let mut inode = draft.inode(ino)?.ok_or(Error::Stale)?;
                if inode.nlink > 0 || of == NameOf::Of(RenameMode::Exchange) {
                    return Err(Error::Invalid);
                }
                let mut dir = directory(draft, parent)?;
                let there = draft.entry(parent, name)?;
                self.may_be_named(draft, there.as_ref().map(|there| there.ino), of)?;
                let replaced = match there {
                    Some(old) if old.kind == libc::S_IFDIR => return Err(Error::IsDirectory),
                    Some(old) => {
                        let fate = drop_name(draft, leaving, &self.inner.bare, old.ino, now)?;
                        Some((old.ino, fate))
                    }
                    None => None,
                };
                publish_into(draft, ino, &mut inode, &publication)?;
                inode.nlink = 1;
                inode.ctime = now;
                if dir.mode & libc::S_ISGID != 0 {
                    inode.gid = dir.gid;
                }
                if !self.inner.bare.contains(parent) {
                    acl::inherit(draft, parent, ino, &mut inode)?;
                }
                draft.put_inode(ino, &inode);
                draft.delete_orphan(ino);
                draft.put_entry(parent, &Entry { name: name.to_vec(), ino, kind: inode.kind() });
                put_more(draft, ino, &inode)?;
                changed(draft, parent, &mut dir, now);
                naming.begin();
                Ok((inode, replaced))
            })
            .await?;
        naming.done();
        let telling = slot.tell(|| match replaced {
            Some(replaced) => unnamed(parent, name, replaced),
            None => names(parent, name),
        });
        self.inner.windows.published(ino, &publication.pieces);
        file.note_name(name);
        file.published(publication);
        let has_replaced = replaced.is_some();
        if let Some((ino, fate)) = replaced {
            self.after_drop(ino, fate).await;
        }
        let unpublished = file.unpublished();
        let attributes = self.merged(ino, &inode, unpublished);
        telling.notified().await;
        Ok(Named { attributes, has_replaced })
    }

    /// Checks that what has the name, as the change finds it, is what `of` allows.
    fn may_be_named(&self, draft: &Draft<'_>, there: Option<InodeNo>, of: NameOf) -> Result<()> {
        let holds = match (of, there) {
            (NameOf::Of(mode), there) => mode == RenameMode::Replace || there.is_none(),
            (NameOf::Version(ino, version), Some(there)) if there == ino => {
                let inode = draft.inode(ino)?.ok_or(Error::Stale)?;
                let unpublished = self.inner.content.known(ino).and_then(|file| file.unpublished());
                inode.is_file()
                    && !is_dirty(unpublished)
                    && version_of(draft, ino, &inode)? == version
            }
            _ => false,
        };
        if holds { Ok(()) } else { Err(Error::Exists) }
    }
}

/// Guards a transaction that gives an inode its name. The holds must know before anybody can see the name, or they
/// would lose an unlink that comes at once. If the transaction fails, this takes it back: the last close removes the
/// inode.
struct Naming<'a> {
    holds: &'a Holds,
    ino: InodeNo,
    /// The holds were told, and the transaction is not known to be done.
    is_open: AtomicBool,
}

impl Naming<'_> {
    /// Call under the append lock, when only the append itself can still fail.
    fn begin(&self) {
        self.is_open.store(true, Ordering::Release);
        self.holds.named(self.ino);
    }

    fn done(self) {
        self.is_open.store(false, Ordering::Release);
    }
}

impl Drop for Naming<'_> {
    fn drop(&mut self) {
        if *self.is_open.get_mut() {
            self.holds.unlinked(self.ino);
        }
    }
}
