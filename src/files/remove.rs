//! Removes trees, from the leaves up.

use std::collections::VecDeque;

use super::transfer::tell;
use super::{Error, Files, OnTree, PAGE, Place, Result, TreeStep, is_dots};
use crate::types::InodeNo;
use crate::vfs::{self, DirEntry};

/// A directory that is being emptied.
struct Emptied {
    ino: InodeNo,
    parent: InodeNo,
    /// From where the removal began, for messages.
    path: Vec<u8>,
    name: Vec<u8>,
    cookie: u64,
    page: VecDeque<DirEntry>,
}

impl Files {
    /// Removes what is at a place: a symlink, never what it leads to; a directory only with `recursive`, and then all that
    /// is in it. What cannot be removed is told, and the rest goes on. Returns how many things are gone.
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
        let (ino, name, path) = (there.ino, name.to_vec(), name.to_vec());
        let mut levels =
            vec![Emptied { ino, parent, path, name, cookie: 0, page: VecDeque::new() }];
        let mut removed = 0;
        while let Some(level) = levels.last_mut() {
            let Some(entry) = level.page.pop_front() else {
                // What is at hand is done without waiting: others get their turn here.
                tokio::task::yield_now().await;
                let page = match self.vfs.read_dir(level.ino, level.cookie, PAGE).await {
                    Err(vfs::Error::NotFound | vfs::Error::Stale) => Vec::new(),
                    page => page?,
                };
                if let Some(last) = page.last() {
                    level.cookie = last.cookie;
                    level.page = page.into();
                    continue;
                }
                let Some(level) = levels.pop() else { break };
                let done = self.vfs.rmdir(level.parent, &level.name).await;
                removed += told(&level.path, done, on)?;
                continue;
            };
            if is_dots(&entry.name) {
                continue;
            }
            let path = [&level.path[..], b"/", &entry.name].concat();
            let parent = level.ino;
            if entry.kind == libc::S_IFDIR {
                let (ino, name) = (entry.ino, entry.name);
                levels.push(Emptied { ino, parent, path, name, cookie: 0, page: VecDeque::new() });
            } else {
                let done = self.vfs.unlink(parent, &entry.name).await;
                removed += told(&path, done, on)?;
            }
        }
        Ok(removed)
    }
}

/// Tells what became of one; an error that is not its own ends the work.
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
