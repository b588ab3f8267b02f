//! Incoming files: written without a name, and named when they are whole.

use super::{Error, Files, HandleGuard, Place, Result};
use crate::types::{InodeNo, Timestamp};
use crate::vfs::{self, Attributes, Caller, RenameMode, SetAttributes, SetTime, Setter, WriteAt};

/// Attributes to set besides the content. Those that are `None`, or not listed, stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dress {
    /// Permission bits.
    pub mode: Option<u32>,
    /// User and group.
    pub owner: Option<(u32, u32)>,
    /// Last change of the content.
    pub mtime: Option<Timestamp>,
    /// Extended attributes.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A file without a name. If it is dropped before it gets one, nothing of it is left.
pub struct NewFile {
    open: HandleGuard,
    size: u64,
}

impl Files {
    /// A new file. `likely_name` helps whoever must salvage a damaged vault.
    pub async fn create(&self, likely_name: &[u8]) -> Result<NewFile> {
        let handle = self.vfs.create_unnamed(&self.owner, 0o666, likely_name).await?;
        Ok(NewFile { open: HandleGuard::new(&self.vfs, handle), size: 0 })
    }

    /// Makes a symlink, a fifo, a socket or a device. It replaces an existing inode, unless that is a directory.
    pub async fn make_other(
        &self,
        place: &Place,
        mode: u32,
        target: &[u8],
        rdev: u32,
        dress: &Dress,
    ) -> Result<()> {
        let (parent, name) = place.names()?;
        if place.is_directory() {
            return Err(vfs::Error::IsDirectory.into());
        }
        let owner = Caller { umask: 0, ..self.owner };
        let making = self.vfs.replacing(&owner, (parent, name), place.there.is_some()).await?;
        let (into, first) = making.names()?;
        let made = match mode & libc::S_IFMT {
            libc::S_IFLNK => self.vfs.symlink(&owner, into, first, target).await?,
            _ => self.vfs.mknod(&owner, into, first, mode, rdev).await?,
        };
        let dress = match mode & libc::S_IFMT {
            libc::S_IFLNK => Dress { mode: None, ..dress.clone() },
            _ => dress.clone(),
        };
        self.dress(made.ino, &dress).await?;
        Ok(making.done().await?)
    }

    /// Sets these attributes of an existing inode.
    pub async fn dress(&self, ino: InodeNo, dress: &Dress) -> Result<Attributes> {
        for (name, value) in &dress.attributes {
            self.vfs.set_xattr(ino, name, value, 0, &Setter::Superuser).await?;
        }
        let set = SetAttributes {
            mode: dress.mode,
            uid: dress.owner.map(|(uid, _)| uid),
            gid: dress.owner.map(|(_, gid)| gid),
            mtime: dress.mtime.map(SetTime::To),
            ..SetAttributes::default()
        };
        if set == SetAttributes::default() {
            return Ok(self.vfs.attributes(ino).await?);
        }
        Ok(self.vfs.set_attributes(ino, &set).await?)
    }
}

impl NewFile {
    /// Writes; ranges that are never written are holes.
    pub async fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.open.vfs().write(self.open.handle(), WriteAt::Offset(offset), data).await?;
        self.size = self.size.max(offset + data.len() as u64);
        Ok(())
    }

    /// Gives the file its length, its attributes and its name. From then on it is in the tree, whole. It replaces what
    /// had the name, unless that is a directory.
    pub async fn keep(
        self,
        files: &Files,
        place: &Place,
        size: u64,
        dress: &Dress,
    ) -> Result<Attributes> {
        let (parent, name) = place.names()?;
        let vfs = self.open.vfs();
        let ino = vfs.inode_of(self.open.handle())?;
        match size {
            size if size > self.size => {
                let set = SetAttributes { size: Some(size), ..SetAttributes::default() };
                vfs.set_attributes(ino, &set).await?;
            }
            size if size < self.size => return Err(Error::Changed),
            _ => {}
        }
        if *dress != Dress::default() {
            files.dress(ino, dress).await?;
        }
        let handle = self.open.handle();
        let named = vfs.give_name_alone(handle, parent, name, RenameMode::Replace).await?;
        Ok(named.attributes)
    }
}
