//! Names: looking up, creating, linking, removing.

use std::pin::pin;

use futures_util::FutureExt;
use futures_util::future::{Either, select};

use crate::index::{Draft, View};
use crate::records::{Entry, Inode, Orphan};
use crate::types::{InodeNo, Timestamp};

use super::hold_guard::HoldGuard;
use super::invalidate::Invalidation;
use super::publish::publish_into;
use super::remove::{Fate, drop_directory, drop_name};
use super::{
    Attributes, Caller, Error, Known, Result, TARGET_MAX, Vfs, acl, attr, checked_name, directory,
};

/// The most names that one inode can have.
const LINKS_MAX: u32 = u32::MAX - 1;

/// The part of a new inode that differs by kind.
pub(super) enum Made<'a> {
    Plain,
    /// A directory that is removed together with its users ([`super::Workshop`]). The function gets its number before
    /// anybody can see it.
    Workshop(&'a (dyn Fn(InodeNo) + Send + Sync)),
    Device(u32),
    Symlink(&'a [u8]),
}

impl Vfs {
    /// What a name in a directory refers to. `.` gives the inode itself, of any kind, and `..` the directory that a
    /// directory is in: this is how the kernel finds, by its number, an inode that it has forgotten
    /// (`open_by_handle_at(2)`).
    pub async fn lookup(&self, parent: InodeNo, name: &[u8]) -> Result<Known> {
        if name.len() > super::NAME_MAX {
            return Err(Error::NameTooLong);
        }
        let mut looking = pin!(self.look_up(parent, name));
        if let Some(found) = looking.as_mut().now_or_never() {
            return found;
        }
        // The look-up waits for its own pages only, not for those fetched beside it: their requests go on by
        // themselves.
        let beside = pin!(self.missed(parent, name));
        match select(looking, beside).await {
            Either::Left((found, _)) => found,
            Either::Right(((), looking)) => looking.await,
        }
    }

    /// As `lookup`, when many are looked up and it is known which come next: without the guess of `missed`.
    pub(super) async fn look_up(&self, parent: InodeNo, name: &[u8]) -> Result<Known> {
        loop {
            let found = self
                .read(|view| {
                    let ino = match name {
                        b"." => parent,
                        b".." => directory(view, parent)?.parent,
                        _ => view.entry(parent, name)?.ok_or(Error::NotFound)?.ino,
                    };
                    let known = self.know(ino, || {
                        let seen = self.seen(view, ino)?.ok_or(Error::NotFound)?;
                        // By number alone, an inode without a name is not found: the kernel forgot it when it lost its
                        // last name.
                        if seen.nlink > 0 { Ok(seen) } else { Err(Error::NotFound) }
                    });
                    match known {
                        Err(Error::Stale) => Ok(Err(ino)),
                        known => Ok(Ok(known?)),
                    }
                })
                .await?;
            match found {
                Ok(known) => return Ok(known),
                // The inode is leaving. Once it is gone, it is known what the name refers to next.
                Err(ino) => self.inner.holds.left(ino).await,
            }
        }
    }

    /// `mkdir`.
    pub async fn mkdir(
        &self,
        caller: &Caller,
        parent: InodeNo,
        name: &[u8],
        mode: u32,
    ) -> Result<Known> {
        let mode = libc::S_IFDIR | mode & attr::MODE_BITS;
        self.make(caller, parent, name, mode, Made::Plain, None).await
    }

    /// `mknod`: a regular file, fifo, socket or device; the type is in `mode`.
    pub async fn mknod(
        &self,
        caller: &Caller,
        parent: InodeNo,
        name: &[u8],
        mode: u32,
        device: u32,
    ) -> Result<Known> {
        let made = match mode & libc::S_IFMT {
            libc::S_IFREG | libc::S_IFIFO | libc::S_IFSOCK => Made::Plain,
            libc::S_IFCHR | libc::S_IFBLK => Made::Device(device),
            _ => return Err(Error::Invalid),
        };
        let mode = mode & (libc::S_IFMT | attr::MODE_BITS);
        self.make(caller, parent, name, mode, made, None).await
    }

    /// `symlink`.
    pub async fn symlink(
        &self,
        caller: &Caller,
        parent: InodeNo,
        name: &[u8],
        target: &[u8],
    ) -> Result<Known> {
        if target.len() > TARGET_MAX {
            return Err(Error::NameTooLong);
        }
        if target.is_empty() || target.contains(&0) {
            return Err(Error::Invalid);
        }
        let mode = libc::S_IFLNK | 0o777;
        self.make(caller, parent, name, mode, Made::Symlink(target), None).await
    }

    /// Creates a regular file that is open from the moment it exists.
    pub(super) async fn make_file(
        &self,
        caller: &Caller,
        parent: InodeNo,
        name: &[u8],
        mode: u32,
        held: &HoldGuard<'_>,
    ) -> Result<Known> {
        let mode = libc::S_IFREG | mode & attr::MODE_BITS;
        self.make(caller, parent, name, mode, Made::Plain, Some(held)).await
    }

    pub(super) async fn make(
        &self,
        caller: &Caller,
        parent: InodeNo,
        name: &[u8],
        mode: u32,
        made: Made<'_>,
        held: Option<&HoldGuard<'_>>,
    ) -> Result<Known> {
        checked_name(name)?;
        self.writable()?;
        let slot = self.invalidation_slot().await?;
        // Looked up here, so that for most directories nobody looks for an ACL under the lock.
        self.is_bare(parent).await?;
        let known = self.holding();
        let (ino, inode, is_bare) = self
            .change(|draft| {
                let now = Timestamp::now();
                let mut dir = directory(draft, parent)?;
                if draft.entry(parent, name)?.is_some() {
                    return Err(Error::Exists);
                }
                let mut inode = attr::new_inode(caller, &dir, mode, now);
                match made {
                    Made::Plain | Made::Workshop(_) => {}
                    Made::Device(device) => inode.rdev = device,
                    Made::Symlink(target) => {
                        inode.size = target.len() as u64;
                        inode.target = Some(target.to_vec());
                    }
                }
                let ino = draft.new_ino()?;
                if let Made::Workshop(is_made_as) = made {
                    draft.put_orphan(ino, &Orphan::tree(parent, name));
                    is_made_as(ino);
                }
                let has_acl = !self.inner.bare.contains(parent)
                    && acl::inherit(draft, parent, ino, &mut inode)?;
                if !has_acl && made.has_umask() {
                    inode.mode &= !(caller.umask & 0o777);
                }
                if inode.is_dir() {
                    inode.parent = parent;
                    dir.nlink += 1;
                }
                draft.put_entry(parent, &Entry { name: name.to_vec(), ino, kind: inode.kind() });
                draft.put_inode(ino, &inode);
                changed(draft, parent, &mut dir, now);
                for held in held.into_iter().chain(&known) {
                    held.hold(ino)?;
                }
                Ok((ino, inode, !has_acl))
            })
            .await?;
        let telling = slot.tell(|| named(parent, name));
        if is_bare {
            self.inner.bare.insert_new(ino);
        }
        let known = self.known(Attributes::of(ino, &inode), known);
        telling.notified().await;
        Ok(known)
    }

    /// `link`: one more name for an inode that is not a directory.
    pub async fn link(&self, ino: InodeNo, parent: InodeNo, name: &[u8]) -> Result<Known> {
        checked_name(name)?;
        self.writable()?;
        let slot = self.invalidation_slot().await?;
        let known = self.holding();
        let pending = self.pending(ino).await?;
        let noted = self.inner.atimes.get(ino);
        let inode = self
            .change(|draft| {
                let now = Timestamp::now();
                let mut inode = draft.inode(ino)?.ok_or(Error::NotFound)?;
                let mut dir = directory(draft, parent)?;
                if inode.is_dir() {
                    return Err(Error::NotPermitted);
                }
                if inode.nlink == 0 {
                    return Err(Error::NotFound); // unlinked: it goes with the last close
                }
                if inode.nlink >= LINKS_MAX {
                    return Err(Error::TooManyLinks);
                }
                if draft.entry(parent, name)?.is_some() {
                    return Err(Error::Exists);
                }
                if let Some(pending) = &pending {
                    publish_into(draft, ino, &mut inode, &pending.publication)?;
                }
                inode.nlink += 1;
                inode.ctime = now;
                draft.put_inode(ino, &inode);
                draft.put_entry(parent, &Entry { name: name.to_vec(), ino, kind: inode.kind() });
                changed(draft, parent, &mut dir, now);
                if let Some(known) = &known {
                    known.hold(ino)?;
                }
                Ok(inode)
            })
            .await?;
        let telling = slot.tell(|| {
            let mut changes = named(parent, name);
            changes.push(Invalidation::Attributes(ino));
            changes
        });
        if let Some(pending) = pending {
            pending.landed();
        }
        let unpublished = self.inner.content.known(ino).and_then(|file| file.unpublished());
        let mut seen = self.merged(ino, &inode, unpublished);
        // The transaction may have taken the noted time along after `inode` was read.
        seen.atime = noted.map_or(seen.atime, |noted| seen.atime.max(noted));
        let known = self.known(seen, known);
        telling.notified().await;
        Ok(known)
    }

    /// `unlink`: removes the name of anything but a directory.
    pub async fn unlink(&self, parent: InodeNo, name: &[u8]) -> Result<()> {
        checked_name(name)?;
        let slot = self.invalidation_slot().await?;
        let (ino, fate) = self
            .change_leaving(|draft, leaving| {
                let now = Timestamp::now();
                let mut dir = directory(draft, parent)?;
                let entry = draft.entry(parent, name)?.ok_or(Error::NotFound)?;
                if entry.kind == libc::S_IFDIR {
                    return Err(Error::IsDirectory);
                }
                draft.frees_room();
                draft.delete_entry(parent, name);
                let fate = drop_name(draft, leaving, &self.inner.bare, entry.ino, now)?;
                changed(draft, parent, &mut dir, now);
                Ok((entry.ino, fate))
            })
            .await?;
        let telling = slot.tell(|| unnamed(parent, name, (ino, fate)));
        self.after_drop(ino, fate).await;
        telling.notified().await;
        Ok(())
    }

    /// `rmdir`: removes an empty directory.
    pub async fn rmdir(&self, parent: InodeNo, name: &[u8]) -> Result<()> {
        match name {
            b"." => return Err(Error::Invalid),
            b".." => return Err(Error::NotEmpty),
            _ => checked_name(name)?,
        }
        let slot = self.invalidation_slot().await?;
        let (ino, fate) = self
            .change_leaving(|draft, leaving| {
                let now = Timestamp::now();
                let mut dir = directory(draft, parent)?;
                let entry = draft.entry(parent, name)?.ok_or(Error::NotFound)?;
                if entry.kind != libc::S_IFDIR {
                    return Err(Error::NotDirectory);
                }
                draft.frees_room();
                let fate = drop_directory(draft, leaving, &self.inner.bare, entry.ino, now)?;
                draft.delete_entry(parent, name);
                dir.nlink = dir.nlink.saturating_sub(1);
                changed(draft, parent, &mut dir, now);
                Ok((entry.ino, fate))
            })
            .await?;
        let telling = slot.tell(|| unnamed(parent, name, (ino, fate)));
        self.after_drop(ino, fate).await;
        telling.notified().await;
        Ok(())
    }
}

/// What the kernel is told when a name refers to something new.
pub(super) fn named(parent: InodeNo, name: &[u8]) -> Vec<Invalidation> {
    vec![Invalidation::Name(parent, name.to_vec()), Invalidation::Attributes(parent)]
}

/// What the kernel is told when a name is gone, or no longer refers to `ino`.
pub(super) fn unnamed(
    parent: InodeNo,
    name: &[u8],
    (ino, fate): (InodeNo, Fate),
) -> Vec<Invalidation> {
    let first = match fate {
        Fate::Named => Invalidation::Name(parent, name.to_vec()),
        Fate::Gone | Fate::Orphan => Invalidation::Gone(parent, name.to_vec(), ino),
    };
    vec![first, Invalidation::Attributes(ino), Invalidation::Attributes(parent)]
}

impl Made<'_> {
    /// Whether the umask applies: a symlink's mode is always 0777.
    fn has_umask(&self) -> bool {
        !matches!(self, Self::Symlink(_))
    }
}

/// Sets the times of a directory whose entries changed, and puts its inode.
pub(super) fn changed(draft: &mut Draft<'_>, ino: InodeNo, dir: &mut Inode, now: Timestamp) {
    dir.mtime = now;
    dir.ctime = now;
    draft.put_inode(ino, dir);
}

/// Whether `ino` is `dir` or a directory above it. The root is above every directory.
pub(super) fn is_above(view: &View<'_>, ino: InodeNo, mut dir: InodeNo) -> Result<bool> {
    // Longer than any chain of directories can be: only damage could make a loop.
    for _ in 0..DEPTH_MAX {
        if dir == ino {
            return Ok(true);
        }
        if dir == InodeNo::ROOT {
            return Ok(false);
        }
        dir = directory(view, dir)?.parent;
    }
    Err(Error::Invalid)
}

/// The most directories above one another that a move accepts.
const DEPTH_MAX: usize = 1 << 20;
