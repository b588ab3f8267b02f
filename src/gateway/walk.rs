//! Going through a part of the tree in memory that does not grow with it.

use std::collections::VecDeque;

use super::Gateway;
use super::key::KEY_MAX;
use super::metadata::Kind;
use crate::types::InodeNo;
use crate::vfs::{Attributes, Error, Result};

/// Entries that are read at a time near the top of a walk, and so many levels deep; below that fewer, since each
/// level keeps what is left of its page.
const PAGE: usize = 256;
const PAGE_BELOW: usize = 16;
const LEVELS: usize = 32;

/// One thing in the tree.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// The directory that it is in, and its name there.
    pub(super) parent: InodeNo,
    /// Its path from the root, `a/b/c`.
    pub(super) path: Vec<u8>,
    /// How much of the path its name is, in bytes.
    pub(super) name_length: usize,
    pub(super) kind: Kind,
    pub(super) ino: InodeNo,
    /// If the walk was asked for them.
    pub(super) attributes: Option<Attributes>,
}

impl Found {
    pub(super) fn name(&self) -> &[u8] {
        &self.path[self.path.len() - self.name_length..]
    }
}

/// A walk: each entry before what is below it. Directories are entered if the caller says so.
pub(super) struct Walk<'g> {
    gateway: &'g Gateway,
    wants_attributes: bool,
    levels: Vec<Level>,
}

struct Level {
    directory: InodeNo,
    /// With a slash at its end; of the root nothing.
    path: Vec<u8>,
    page: VecDeque<crate::vfs::DirEntry>,
    cookie: u64,
}

impl<'g> Walk<'g> {
    /// Of what is in a directory, whose path ends in a slash (the root's is empty).
    pub(super) fn new(
        gateway: &'g Gateway,
        directory: InodeNo,
        path: Vec<u8>,
        wants_attributes: bool,
    ) -> Self {
        let mut walk = Self { gateway, wants_attributes, levels: Vec::new() };
        walk.push(directory, path);
        walk
    }

    /// What comes next is what is in this directory. One that is too deep for a key is left out.
    pub(super) fn enter(&mut self, found: &Found) {
        if found.path.len() + 2 <= KEY_MAX {
            let mut path = found.path.clone();
            path.push(b'/');
            self.push(found.ino, path);
        }
    }

    fn push(&mut self, directory: InodeNo, path: Vec<u8>) {
        self.levels.push(Level { directory, path, page: VecDeque::new(), cookie: 0 });
    }

    pub(super) async fn next(&mut self) -> Result<Option<Found>> {
        loop {
            let page = if self.levels.len() <= LEVELS { PAGE } else { PAGE_BELOW };
            let Some(level) = self.levels.last_mut() else { return Ok(None) };
            let Some(entry) = level.page.pop_front() else {
                // What is at hand is read without waiting: others, and deadlines, get their turn here.
                tokio::task::yield_now().await;
                let (vfs, directory) = (&self.gateway.vfs, level.directory);
                let read = match self.wants_attributes {
                    true => vfs.read_dir_plus(directory, level.cookie, page).await,
                    false => vfs.read_dir(directory, level.cookie, page).await,
                };
                let list = match read {
                    // Removed, or replaced by something else, since it was seen.
                    Err(Error::NotFound | Error::Stale | Error::NotDirectory) => Vec::new(),
                    list => list?,
                };
                match list.last() {
                    None => _ = self.levels.pop(),
                    Some(last) => {
                        level.cookie = last.cookie;
                        level.page = list.into();
                    }
                }
                continue;
            };
            if entry.name == b"." || entry.name == b".." {
                continue;
            }
            let mut path = level.path.clone();
            path.extend_from_slice(&entry.name);
            if path.len() > KEY_MAX {
                continue;
            }
            return Ok(Some(Found {
                parent: level.directory,
                path,
                name_length: entry.name.len(),
                kind: Kind::of(entry.kind),
                ino: entry.ino,
                attributes: entry.attributes.as_deref().copied(),
            }));
        }
    }
}
