//! Open files: from `open` or `create` to the last `release`, with flush and fsync.

use std::sync::Arc;

use crate::content::File;
use crate::types::InodeNo;

use super::handles::OpenFile;
use super::holds::Holder;
use super::{
    Caller, Error, FsyncTo, HandleId, Known, OpenFlags, Result, SetAttributes, Vfs, request,
};

/// How often `O_CREAT` starts over when the name changes meanwhile. A name without an inode is damage, and never ends.
const CREATE_TRIES: usize = 100;

impl Vfs {
    /// `open` of a regular file.
    pub async fn open(&self, ino: InodeNo, flags: OpenFlags) -> Result<HandleId> {
        let (handle, ()) = self.open_and(ino, flags, async { Ok(()) }).await?;
        Ok(handle)
    }

    /// Opens the file after `look`. The handle is made last, so that none is left of which the caller never hears.
    pub(super) async fn open_and<T>(
        &self,
        ino: InodeNo,
        flags: OpenFlags,
        look: impl Future<Output = Result<T>>,
    ) -> Result<(HandleId, T)> {
        if flags.write || flags.truncate {
            self.writable()?;
        }
        let held = self.holding_as(Holder::Handle);
        while held.hold(ino).is_err() {
            // It is just being removed. What comes in its place can be seen once it is gone.
            self.inner.holds.left(ino).await;
        }
        let look = async {
            let file = self.opened(ino, flags).await?;
            let seen = look.await?;
            request::may_go_on()?;
            Ok((file, seen))
        };
        let looked = look.await;
        held.keep();
        match looked {
            Ok((file, seen)) => {
                let handle = self.inner.handles.insert(file, flags);
                request::took_effect();
                Ok((handle, seen))
            }
            Err(error) => {
                self.unhold(ino).await;
                if matches!(error, Error::Stale) && self.writable().is_ok() {
                    // Whoever was to remove it may have left that to us, as we held it.
                    self.finish_orphan(ino).await;
                }
                Err(error)
            }
        }
    }

    /// Called with the inode held: checks that it exists and is a file.
    async fn opened(&self, ino: InodeNo, flags: OpenFlags) -> Result<Arc<File>> {
        let inode = self.read(|view| view.inode(ino)?.ok_or(Error::Stale)).await?;
        if !inode.is_file() {
            return Err(if inode.is_dir() { Error::IsDirectory } else { Error::Invalid });
        }
        if inode.nlink == 0 && !self.inner.holds.is_unlinked(ino) {
            return Err(Error::Stale);
        }
        let file = self.inner.content.file(ino);
        if flags.truncate {
            self.set_attributes(ino, &SetAttributes { size: Some(0), ..SetAttributes::default() })
                .await?;
        }
        Ok(file)
    }

    /// `open` with `O_CREAT`: creates the file, or opens the one that exists.
    pub async fn create(
        &self,
        caller: &Caller,
        parent: InodeNo,
        name: &[u8],
        mode: u32,
        flags: OpenFlags,
    ) -> Result<(Known, HandleId)> {
        for _ in 0..CREATE_TRIES {
            if let Some(opened) = self.create_or_open(caller, parent, name, mode, flags).await? {
                return Ok(opened);
            }
        }
        Err(Error::NotFound)
    }

    /// One try; `None` if the name was changed between the look and the opening.
    async fn create_or_open(
        &self,
        caller: &Caller,
        parent: InodeNo,
        name: &[u8],
        mode: u32,
        flags: OpenFlags,
    ) -> Result<Option<(Known, HandleId)>> {
        let held = self.holding_as(Holder::Handle);
        match self.make_file(caller, parent, name, mode & !libc::S_IFMT, &held).await {
            Ok(known) => {
                held.keep();
                let file = self.inner.content.file(known.ino);
                file.note_name(name);
                return Ok(Some((known, self.inner.handles.insert(file, flags))));
            }
            Err(Error::Exists) if !flags.exclusive => drop(held),
            Err(error) => return Err(error),
        }
        let known = match self.lookup(parent, name).await {
            Err(Error::NotFound) => return Ok(None),
            known => known?,
        };
        let look = self.attributes(known.ino);
        match self.open_and(known.ino, flags, look).await {
            Ok((handle, now)) => Ok(Some((known.now(now), handle))),
            Err(Error::Stale) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every `close`: publishes what was written (V1). After an error everything stays unpublished, and the next flush,
    /// fsync or periodic publication tries again.
    pub async fn flush(&self, handle: HandleId) -> Result<()> {
        let handle = self.inner.handles.get(handle)?;
        self.publish_named(&handle).await
    }

    /// Publishes, unless the file is unlinked: nobody can open that after a crash, so its close needs no transaction.
    async fn publish_named(&self, handle: &OpenFile) -> Result<()> {
        if handle.file.unpublished().is_none() || self.inner.holds.is_unlinked(handle.file.ino()) {
            return Ok(());
        }
        self.publish(&handle.file).await
    }

    /// `fsync` and `fdatasync`: as `flush`; when it returns, the file survives power loss, or is in the bucket.
    pub async fn fsync(&self, handle: HandleId) -> Result<()> {
        let handle = self.inner.handles.get(handle)?;
        self.publish(&handle.file).await?;
        self.fsync_all().await
    }

    /// `fsync` of a directory: covers every change of names before it.
    pub async fn fsync_directory(&self) -> Result<()> {
        self.fsync_all().await
    }

    async fn fsync_all(&self) -> Result<()> {
        let upto = self.journaled();
        let durability = &self.inner.durability;
        let done = match self.inner.options.fsync {
            FsyncTo::Local => durability.fsync(upto).await,
            FsyncTo::Bucket => {
                // Sealed extents may be waiting in the open pack for others: they wait no longer.
                self.inner.content.close_packs()?;
                durability.bucket(upto).await
            }
        };
        done.map_err(Error::Durability)
    }

    /// The last reference to an open file is gone. Publishes what came after the last flush (stores through `mmap`),
    /// and removes the file if it is unlinked.
    pub async fn release(&self, handle: HandleId) -> Result<()> {
        let handle = self.inner.handles.remove(handle)?;
        let ino = handle.file.ino();
        let held = self.holding_as(Holder::Handle).taking_over(ino);
        request::took_effect();
        let published = self.publish_named(&handle).await;
        held.keep();
        self.unhold(ino).await;
        published
    }

    async fn unhold(&self, ino: InodeNo) {
        if self.inner.holds.let_go(ino, Holder::Handle, 1) {
            self.finish_orphan(ino).await;
        }
    }
}
