//! Access to files by path, for callers other than the kernel: the command line without a mount, and `WebDAV`. Paths start
//! at the root of the vault, and symlinks are followed inside it. Whole trees can be copied and removed. A new file, such as
//! an upload, gets its name only when it is whole, so nobody sees half a file.

mod copy;
mod error;
mod guard;
mod incoming;
mod outgoing;
mod path;
mod remove;
#[cfg(test)]
mod tests;
mod transfer;

pub use copy::{dress, make_other, owned_by};
pub use error::{Error, Result};
pub use guard::HandleGuard;
pub use incoming::{Dress, NewFile};
pub use outgoing::{OutgoingFile, OutgoingPiece};
pub use path::{FoundPath as Found, PathPlace as Place};
pub use transfer::{OnTree, TreeStep};

pub use crate::vfs::{Attributes, Error as VfsError, ErrorKind, TreeEntry, TreeWalk};

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::types::InodeNo;
use crate::vfs::{Caller, DirEntry, RenameMode, Vfs};

/// Everybody who can see the mount can read new directories (0777 less the umask).
const DIRECTORY_MODE: u32 = 0o777;
/// How many entries of a directory are read at a time.
const PAGE: usize = 256;

/// The files of a vault, as one user sees and changes them. Cheap to clone.
#[derive(Clone)]
pub struct Files {
    vfs: Vfs,
    owner: Caller,
}

impl Files {
    /// New files belong to `owner` unless said otherwise.
    pub fn new(vfs: Vfs, owner: Caller) -> Self {
        Self { vfs, owner }
    }

    /// The file system below.
    pub fn vfs(&self) -> &Vfs {
        &self.vfs
    }

    /// The owner of new files.
    pub fn owner(&self) -> &Caller {
        &self.owner
    }

    /// The target of a symlink.
    pub async fn read_link(&self, ino: InodeNo) -> Result<Vec<u8>> {
        Ok(self.vfs.read_link(ino).await?)
    }

    /// The extended attributes, names with values.
    pub async fn attributes_beyond(&self, ino: InodeNo) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut all = Vec::new();
        for name in self.vfs.xattrs(ino).await? {
            match self.vfs.xattr(ino, &name).await {
                Ok(value) => all.push((name, value)),
                // Removed in the meantime.
                Err(VfsError::NoAttribute) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(all)
    }

    /// The entries of a directory with their attributes, in parts, without `.` and `..`. `from` is 0, or the number that
    /// came with the part before. `None` at the end.
    pub async fn list(
        &self,
        directory: InodeNo,
        from: u64,
    ) -> Result<Option<(Vec<DirEntry>, u64)>> {
        let mut page = match self.vfs.read_dir_plus(directory, from, PAGE).await {
            // See `EMPTY_ROOT`.
            Err(VfsError::Stale | VfsError::NotFound) if directory == InodeNo::ROOT => Vec::new(),
            page => page?,
        };
        let Some(next) = page.last().map(|last| last.cookie) else { return Ok(None) };
        page.retain(|entry| !is_dots(&entry.name));
        Ok(Some((page, next)))
    }

    /// Makes a directory. With `parents`, it also makes the missing ones above, and an existing directory is no error.
    pub async fn make_directory(&self, path: &[u8], parents: bool) -> Result<InodeNo> {
        if parents {
            return self.make_directories(path).await;
        }
        let place = self.place(path).await?;
        let (parent, name) = place.names()?;
        Ok(self.vfs.mkdir(&self.owner, parent, name, DIRECTORY_MODE).await?.ino)
    }

    /// The directory at this path; missing parts of the path are made.
    pub async fn make_directories(&self, path: &[u8]) -> Result<InodeNo> {
        let mut made: Vec<u8> = Vec::new();
        let mut at = InodeNo::ROOT;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            made.push(b'/');
            made.extend_from_slice(name);
            at = match self.directory(&made).await {
                Err(Error::Vfs(VfsError::NotFound)) => {
                    let place = self.place(&made).await?;
                    let (parent, name) = place.names()?;
                    match self.vfs.mkdir(&self.owner, parent, name, DIRECTORY_MODE).await {
                        // Somebody else was faster.
                        Err(VfsError::Exists) => self.directory(&made).await?,
                        made => made?.ino,
                    }
                }
                found => found?,
            };
        }
        Ok(at)
    }

    /// Renames as rename(2) does. A directory cannot be moved into itself.
    pub async fn rename(&self, from: &Place, to: &Place) -> Result<()> {
        let (from, to) = (from.names()?, to.names()?);
        match self.vfs.rename(from, to, RenameMode::Replace).await {
            Err(VfsError::Invalid) => Err(Error::IntoItself),
            done => Ok(done?),
        }
    }

    /// Gives a file another name, in place of what has it, unless that is a directory.
    pub async fn link(&self, file: &Found, to: &Place) -> Result<()> {
        let (ino, (parent, name)) = (file.attributes.ino, to.names()?);
        if file.attributes.kind() == libc::S_IFDIR || to.is_directory() {
            return Err(VfsError::IsDirectory.into());
        }
        match self.vfs.link(ino, parent, name).await {
            Err(VfsError::Exists) => {}
            done => return Ok(done.map(drop)?),
        }
        // What has the name keeps it until the file has it. A crash in between leaves the third name.
        let aside = self.link_aside(ino, parent).await?;
        let moved = self.vfs.rename((parent, &aside), (parent, name), RenameMode::Replace).await;
        // It is still there after a failure, and where the name was the file's already.
        drop(self.vfs.unlink(parent, &aside).await);
        Ok(moved?)
    }

    /// Gives a file a name in a directory that nothing else has; returns it.
    async fn link_aside(&self, ino: InodeNo, parent: InodeNo) -> Result<Vec<u8>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Relaxed);
            let aside = format!(".s3vault-link-{}-{number}", ino.0).into_bytes();
            match self.vfs.link(ino, parent, &aside).await {
                Err(VfsError::Exists) => {}
                done => return Ok(done.map(|_| aside)?),
            }
        }
    }
}

/// Whether an entry's name is `.` or `..`.
fn is_dots(name: &[u8]) -> bool {
    name == b"." || name == b".."
}
