//! Removes trees, from the leaves up.

use super::transfer::tell;
use super::{Error, Files, OnTree, Place, Result, TreeStep};
use crate::vfs::{self, TreeRemoval};

impl Files {
    /// Removes what is at a place. A symlink is removed itself, never its target. A directory is removed only with
    /// `recursive`, together with everything in it. What cannot be removed is reported, and the rest goes on. Returns how
    /// many inodes were removed.
    pub async fn remove(&self, place: &Place, recursive: bool, on: OnTree<'_>) -> Result<u64> {
        let (parent, name) = place.names()?;
        let there = place.there.ok_or(vfs::Error::NotFound)?;
        if there.kind() != libc::S_IFDIR {
            self.vfs.unlink(parent, name).await?;
            tell(on, TreeStep::Done)?;
            return Ok(1);
        }
        if !recursive {
            return Err(Error::Omitted);
        }
        let mut removal = TreeRemoval::new(&self.vfs, (parent, name), there.ino);
        let mut removed = 0;
        while let Some((path, done)) = removal.next().await? {
            removed += told(&path, done, on)?;
        }
        Ok(removed)
    }
}

/// Reports the outcome for one entry. An error that is not about that entry alone ends the work.
fn told(path: &[u8], done: vfs::Result<()>, on: OnTree<'_>) -> Result<u64> {
    match done {
        Ok(()) => tell(on, TreeStep::Done).map(|()| 1),
        // Somebody else was faster.
        Err(vfs::Error::NotFound) => Ok(0),
        Err(error) if is_of_one(&error) => {
            tell(on, TreeStep::Failed(path, &Error::Vfs(error))).map(|()| 0)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether an error is about one name, and says nothing about others.
pub(super) fn is_of_one(error: &vfs::Error) -> bool {
    matches!(
        error,
        vfs::Error::NotFound
            | vfs::Error::Exists
            | vfs::Error::NotDirectory
            | vfs::Error::IsDirectory
            | vfs::Error::NotEmpty
            | vfs::Error::Invalid
            | vfs::Error::NameTooLong
            | vfs::Error::TooManyLinks
            | vfs::Error::TooBig
            | vfs::Error::Stale
    )
}
