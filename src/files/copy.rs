//! Copies files and whole trees inside the vault. A copy refers to the same extents: no content moves.

use std::collections::HashMap;

use super::remove::is_of_one;
use super::transfer::tell;
use super::{Error, Files, Found, HandleGuard, OnTree, Place, Result, TreeStep};
use crate::types::InodeNo;
use crate::vfs::{
    self, Attributes, Caller, OpenFlags, RenameMode, SetAttributes, SetTime, Setter, TreeWalk, Vfs,
    WALK_MAX,
};

/// How many files with several names are remembered while a directory is copied.
const LINKS_MAX: usize = 1 << 20;
/// The most bytes that one transaction shares.
const STEP: u64 = 1 << 30;

/// The owner of `was`: a copy belongs to the same.
pub fn owned_by(was: &Attributes) -> Caller {
    Caller { uid: was.uid, gid: was.gid, pid: 0, umask: 0 }
}

/// Gives a new inode the attributes of another, which may be in this vault or in a past state of it.
pub async fn dress(from: &Vfs, to: &Vfs, was: &Attributes, made: InodeNo) -> vfs::Result<()> {
    let by = Setter::Superuser;
    for name in from.xattrs(was.ino).await? {
        match from.xattr(was.ino, &name).await {
            Ok(value) => to.set_xattr(made, &name, &value, 0, &by).await?,
            Err(vfs::Error::NoAttribute) => {}
            Err(error) => return Err(error),
        }
    }
    let is_link = was.kind() == libc::S_IFLNK;
    let set = SetAttributes {
        mode: (!is_link).then_some(was.mode),
        uid: Some(was.uid),
        gid: Some(was.gid),
        atime: Some(SetTime::To(was.atime)),
        mtime: Some(SetTime::To(was.mtime)),
        ..SetAttributes::default()
    };
    to.set_attributes(made, &set).await?;
    Ok(())
}

/// A directory that is being filled.
struct CopiedLevel {
    /// The path, with a slash at its end.
    path: Vec<u8>,
    source: Attributes,
    made: InodeNo,
    /// Whether the copy made this directory. One that existed keeps its attributes.
    is_new: bool,
}

/// A copy in progress.
struct TreeCopy<'a, 'b> {
    vfs: &'a Vfs,
    links: HashMap<InodeNo, InodeNo>,
    copied: u64,
    on: OnTree<'b>,
}

impl Files {
    /// Copies an inode to a place, with times, permissions, owners and extended attributes; hard links within a tree stay
    /// hard links. An existing file is replaced, and an existing directory is merged with the source. What cannot be copied
    /// is reported, and the rest goes on. Returns how many inodes were copied.
    pub async fn copy(
        &self,
        from: &Found,
        to: &Place,
        recursive: bool,
        on: OnTree<'_>,
    ) -> Result<u64> {
        let source = &from.attributes;
        if to.there.is_some_and(|there| there.ino == source.ino) {
            return Err(Error::SameFile);
        }
        let (parent, name) = to.names()?;
        let mut copy = TreeCopy { vfs: &self.vfs, links: HashMap::new(), copied: 0, on };
        if !from.is_directory() {
            copy.node(source, parent, name).await?;
            tell(copy.on, TreeStep::Done)?;
            return Ok(1);
        }
        if !recursive {
            return Err(Error::Omitted);
        }
        if self.is_within(parent, source.ino).await? {
            return Err(Error::IntoItself);
        }
        copy.tree(source, parent, name).await?;
        Ok(copy.copied)
    }
}

impl TreeCopy<'_, '_> {
    async fn tree(&mut self, source: &Attributes, parent: InodeNo, name: &[u8]) -> Result<()> {
        let first = self.directory(source, parent, name, Vec::new()).await?;
        let mut levels = vec![first];
        let mut walk = TreeWalk::new(self.vfs, source.ino, Vec::new(), true);
        while let Some(entry) = walk.next().await? {
            let inside = &entry.path[..entry.path.len() - entry.name_length];
            while levels.last().is_some_and(|level| level.path != inside) {
                self.leave(&mut levels).await?;
            }
            let (Some(level), Some(was)) = (levels.last(), entry.attributes) else { continue };
            let into = level.made;
            let done = if entry.is_directory() {
                let path = [&entry.path[..], b"/"].concat();
                match self.directory(&was, into, entry.name(), path).await {
                    Ok(_) if entry.path.len() > WALK_MAX => {
                        Err(Error::Vfs(vfs::Error::NameTooLong))
                    }
                    Ok(level) => {
                        levels.push(level);
                        walk.enter(&entry);
                        continue;
                    }
                    Err(error) => Err(error),
                }
            } else {
                self.node(&was, into, entry.name()).await
            };
            match done {
                Ok(()) => {
                    self.copied += 1;
                    tell(self.on, TreeStep::Done)?;
                }
                Err(Error::Vfs(error)) if is_of_one(&error) => {
                    tell(self.on, TreeStep::Failed(&entry.path, &Error::Vfs(error)))?;
                }
                Err(error) => return Err(error),
            }
        }
        while !levels.is_empty() {
            self.leave(&mut levels).await?;
        }
        Ok(())
    }

    async fn directory(
        &mut self,
        source: &Attributes,
        parent: InodeNo,
        name: &[u8],
        path: Vec<u8>,
    ) -> Result<CopiedLevel> {
        let made = self.vfs.mkdir(&owned_by(source), parent, name, source.mode | 0o700).await;
        let (made, is_new) = match made {
            Ok(made) => (made.ino, true),
            Err(vfs::Error::Exists) => {
                let there = self.vfs.lookup(parent, name).await?;
                if there.kind() != libc::S_IFDIR {
                    return Err(vfs::Error::NotDirectory.into());
                }
                (there.ino, false)
            }
            Err(error) => return Err(error.into()),
        };
        Ok(CopiedLevel { path, source: *source, made, is_new })
    }

    /// Leaves a directory. Its times are set only now that it is full.
    async fn leave(&mut self, levels: &mut Vec<CopiedLevel>) -> Result<()> {
        let Some(level) = levels.pop() else { return Ok(()) };
        if level.is_new {
            dress(self.vfs, self.vfs, &level.source, level.made).await?;
            self.copied += 1;
        }
        Ok(())
    }

    /// Copies anything but a directory.
    async fn node(&mut self, source: &Attributes, parent: InodeNo, name: &[u8]) -> Result<()> {
        if let Some(first) = self.links.get(&source.ino) {
            match self.vfs.link(*first, parent, name).await {
                Ok(_) => return Ok(()),
                // The name is taken, or the first copy is gone: makes a copy instead.
                Err(vfs::Error::Exists | vfs::Error::NotFound | vfs::Error::Stale) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let made = match source.kind() {
            libc::S_IFREG => self.file(source, parent, name).await?,
            _ => other(self.vfs, source, parent, name).await?,
        };
        if source.nlink > 1 && self.links.len() < LINKS_MAX {
            self.links.insert(source.ino, made);
        }
        Ok(())
    }

    /// Copies a regular file, which gets its name when it is whole.
    async fn file(&mut self, source: &Attributes, parent: InodeNo, name: &[u8]) -> Result<InodeNo> {
        let flags = OpenFlags { read: true, ..OpenFlags::default() };
        let from = HandleGuard::new(self.vfs, self.vfs.open(source.ino, flags).await?);
        let to = self.vfs.create_unnamed(&owned_by(source), source.mode, name).await?;
        let to = HandleGuard::new(self.vfs, to);
        let mut at = 0;
        loop {
            let places = ((from.handle(), at), (to.handle(), at));
            let copied = self.vfs.copy_range(places.0, places.1, STEP).await?;
            if copied == 0 {
                break;
            }
            at += copied;
            tell(self.on, TreeStep::Bytes(copied))?;
        }
        let made = self.vfs.inode_of(to.handle())?;
        dress(self.vfs, self.vfs, source, made).await?;
        self.vfs.give_name_alone(to.handle(), parent, name, RenameMode::Replace).await?;
        Ok(made)
    }
}

/// Copies what is neither file nor directory. A rename replaces what has the name already.
async fn other(vfs: &Vfs, source: &Attributes, parent: InodeNo, name: &[u8]) -> Result<InodeNo> {
    let is_taken = match vfs.lookup(parent, name).await {
        Ok(there) if there.kind() == libc::S_IFDIR => return Err(vfs::Error::IsDirectory.into()),
        Ok(_) => true,
        Err(vfs::Error::NotFound) => false,
        Err(error) => return Err(error.into()),
    };
    Ok(make_other((vfs, source), vfs, (parent, name), is_taken).await?)
}

/// What `source` is, made anew at a place, in this vault or out of a state of its past: neither file nor directory. `replaces`: what
/// has the name is replaced by a rename.
pub async fn make_other(
    (from, source): (&Vfs, &Attributes),
    to: &Vfs,
    place: (InodeNo, &[u8]),
    replaces: bool,
) -> vfs::Result<InodeNo> {
    let making = to.replacing(&owned_by(source), place, replaces).await?;
    let (into, first) = making.names()?;
    let made = if source.kind() == libc::S_IFLNK {
        let target = from.read_link(source.ino).await?;
        to.symlink(&owned_by(source), into, first, &target).await?
    } else {
        to.mknod(&owned_by(source), into, first, source.mode, source.rdev).await?
    };
    dress(from, to, source, made.ino).await?;
    making.done().await?;
    Ok(made.ino)
}
