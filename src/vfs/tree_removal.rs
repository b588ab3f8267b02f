//! Removes trees, from the leaves up, one entry at a time.

use std::collections::VecDeque;

use super::{DirEntry, Error, Result, Vfs};
use crate::types::InodeNo;

/// How many entries of a directory are read at a time.
const PAGE: usize = 256;

/// A removal under way. It may be dropped after any step: what is left is a smaller tree.
pub struct TreeRemoval<'a> {
    vfs: &'a Vfs,
    levels: Vec<EmptiedLevel>,
}

/// A directory that is being emptied.
struct EmptiedLevel {
    ino: InodeNo,
    parent: InodeNo,
    /// The path from the root of the removal, for messages.
    path: Vec<u8>,
    name: Vec<u8>,
    cookie: u64,
    page: VecDeque<DirEntry>,
}

impl EmptiedLevel {
    fn new((parent, name): (InodeNo, Vec<u8>), path: Vec<u8>, ino: InodeNo) -> Self {
        Self { ino, parent, path, name, cookie: 0, page: VecDeque::new() }
    }
}

impl<'a> TreeRemoval<'a> {
    /// Begins the removal of the directory `ino`, which has this name.
    pub fn new(vfs: &'a Vfs, (parent, name): (InodeNo, &[u8]), ino: InodeNo) -> Self {
        Self { vfs, levels: vec![EmptiedLevel::new((parent, name.to_vec()), name.to_vec(), ino)] }
    }

    /// Removes the next entry. Returns its path, which begins with the name of the whole tree, and the result; `None`
    /// at the end.
    pub async fn next(&mut self) -> Result<Option<(Vec<u8>, Result<()>)>> {
        while let Some(level) = self.levels.last_mut() {
            let Some(entry) = level.page.pop_front() else {
                // What is here is done without waiting: other tasks get their turn here.
                tokio::task::yield_now().await;
                let page = match self.vfs.read_dir(level.ino, level.cookie, PAGE).await {
                    Err(Error::NotFound | Error::Stale) => Vec::new(),
                    page => page?,
                };
                if let Some(last) = page.last() {
                    let inodes: Vec<_> = page.iter().map(|entry| entry.ino).collect();
                    self.vfs.bring(&inodes).await;
                    level.cookie = last.cookie;
                    level.page = page.into();
                    continue;
                }
                let Some(level) = self.levels.pop() else { break };
                let done = self.vfs.rmdir(level.parent, &level.name).await;
                return Ok(Some((level.path, done)));
            };
            if matches!(&entry.name[..], b"." | b"..") {
                continue;
            }
            let path = [&level.path[..], b"/", &entry.name].concat();
            let parent = level.ino;
            if entry.kind == libc::S_IFDIR {
                self.levels.push(EmptiedLevel::new((parent, entry.name), path, entry.ino));
            } else {
                let done = self.vfs.unlink(parent, &entry.name).await;
                return Ok(Some((path, done)));
            }
        }
        Ok(None)
    }
}
