//! Walking down the tree: to one directory by its names, or through everything below one. Memory does not grow with the
//! tree. Symlinks are not followed.

use std::collections::VecDeque;

use crate::types::InodeNo;

use super::{Attributes, DirEntry, Error, Result, Vfs};

/// The longest path below the root, in bytes, that a mount can name (`PATH_MAX` less the NUL).
pub const PATH_MAX: usize = 4095;

/// The longest path, in bytes, of a directory that a walk enters. Programs make trees that are deeper than [`PATH_MAX`] by way of
/// directories that they have open. A walk holds the path of each level: all of them take 64 MiB at most.
pub const WALK_MAX: usize = 16 << 10;

/// Entries read at a time (`PAGE`) in the top `LEVELS` levels of a walk. Below those it reads `PAGE_BELOW`, since each
/// level keeps what is left of its page.
const PAGE: usize = 256;
const PAGE_BELOW: usize = 16;
const LEVELS: usize = 32;

impl Vfs {
    /// The directory that these names lead to from the root.
    ///
    /// # Errors
    /// [`Error::NotDirectory`] if one of the names is not that of a directory.
    pub async fn directory_at(&self, names: &[Vec<u8>]) -> Result<InodeNo> {
        let mut at = InodeNo::ROOT;
        for name in names {
            let seen = self.lookup(at, name).await?;
            if !is_directory(seen.mode) {
                return Err(Error::NotDirectory);
            }
            at = seen.ino;
        }
        Ok(at)
    }
}

/// An entry that a walk comes to.
#[derive(Clone, Debug)]
pub struct TreeEntry {
    /// The directory that it is in.
    pub parent: InodeNo,
    /// Its path from the root, `a/b/c`.
    pub path: Vec<u8>,
    /// The length of its name, in bytes: the last part of the path.
    pub name_length: usize,
    /// Its file type, the `S_IFMT` bits.
    pub kind: u32,
    /// Its inode.
    pub ino: InodeNo,
    /// What `stat` shows of it, if the walk was asked for attributes.
    pub attributes: Option<Attributes>,
}

impl TreeEntry {
    /// Its name in its directory.
    pub fn name(&self) -> &[u8] {
        &self.path[self.path.len() - self.name_length..]
    }

    /// Whether it can be entered.
    pub fn is_directory(&self) -> bool {
        is_directory(self.kind)
    }
}

/// A walk through a tree. Each entry comes before what is below it. A directory is entered only if the caller says so.
pub struct TreeWalk<'v> {
    vfs: &'v Vfs,
    wants_attributes: bool,
    levels: Vec<Level>,
}

struct Level {
    directory: InodeNo,
    /// With a slash at its end; empty for the root.
    path: Vec<u8>,
    page: VecDeque<DirEntry>,
    cookie: u64,
}

impl<'v> TreeWalk<'v> {
    /// Begins a walk through a directory. `path` is that directory's path with a slash at its end (empty for the root).
    pub fn new(vfs: &'v Vfs, directory: InodeNo, path: Vec<u8>, wants_attributes: bool) -> Self {
        let mut walk = Self { vfs, wants_attributes, levels: Vec::new() };
        walk.push(directory, path);
        walk
    }

    /// Enters a directory: its entries come next. Does nothing if its path is longer than [`WALK_MAX`], which those who need
    /// everything have to tell.
    pub fn enter(&mut self, entry: &TreeEntry) {
        if entry.path.len() <= WALK_MAX {
            let mut path = entry.path.clone();
            path.push(b'/');
            self.push(entry.ino, path);
        }
    }

    fn push(&mut self, directory: InodeNo, path: Vec<u8>) {
        self.levels.push(Level { directory, path, page: VecDeque::new(), cookie: 0 });
    }

    /// The next entry; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<TreeEntry>> {
        loop {
            let page = if self.levels.len() <= LEVELS { PAGE } else { PAGE_BELOW };
            let Some(level) = self.levels.last_mut() else { return Ok(None) };
            let Some(entry) = level.page.pop_front() else {
                // What is here is read without waiting: other tasks, and deadlines, get their turn here.
                tokio::task::yield_now().await;
                let read = match self.wants_attributes {
                    true => self.vfs.read_dir_plus(level.directory, level.cookie, page).await,
                    false => self.vfs.read_dir(level.directory, level.cookie, page).await,
                };
                let list = match read {
                    // The directory was removed or replaced since the walk saw it.
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
            return Ok(Some(TreeEntry {
                parent: level.directory,
                path,
                name_length: entry.name.len(),
                kind: entry.kind,
                ino: entry.ino,
                attributes: entry.attributes.as_deref().copied(),
            }));
        }
    }
}

fn is_directory(mode: u32) -> bool {
    mode & libc::S_IFMT == libc::S_IFDIR
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ALICE, World};
    use super::*;

    async fn world() -> (World, InodeNo) {
        let world = World::new().await;
        let outer = world.vfs().mkdir(&ALICE, InodeNo::ROOT, b"a", 0o755).await.unwrap().ino;
        let inner = world.vfs().mkdir(&ALICE, outer, b"b", 0o755).await.unwrap().ino;
        world.file("f", b"12345").await;
        for number in 0..300 {
            let name = format!("{number}");
            world.vfs().mkdir(&ALICE, inner, name.as_bytes(), 0o755).await.unwrap();
        }
        (world, inner)
    }

    #[tokio::test]
    async fn a_directory_is_found_by_its_names() {
        let (world, inner) = world().await;
        let find = async |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| name.as_bytes().to_vec()).collect();
            world.vfs().directory_at(&names).await
        };
        assert_eq!(find(&[]).await.unwrap(), InodeNo::ROOT);
        assert_eq!(find(&["a", "b"]).await.unwrap(), inner);
        assert!(matches!(find(&["a", "f"]).await, Err(Error::NotFound)));
        assert!(matches!(find(&["f"]).await, Err(Error::NotDirectory)));
    }

    #[tokio::test]
    async fn what_has_too_long_a_path_for_a_mount_is_come_by_too() {
        let world = World::new().await;
        let (mut at, mut long) = (InodeNo::ROOT, vec![b'x'; 250]);
        for _ in 0..40 {
            at = world.vfs().mkdir(&ALICE, at, &long, 0o755).await.unwrap().ino;
        }
        long.truncate(200);
        world.vfs().mkdir(&ALICE, at, &long, 0o755).await.unwrap();
        let mut walk = TreeWalk::new(world.vfs(), InodeNo::ROOT, Vec::new(), false);
        let mut last = Vec::new();
        while let Some(entry) = walk.next().await.unwrap() {
            walk.enter(&entry);
            last = entry.path;
        }
        assert_eq!(last.len(), 40 * 251 + 200);
        assert!(last.len() > 2 * PATH_MAX);
    }

    #[tokio::test]
    async fn a_walk_comes_by_everything_once_and_enters_what_it_is_told_to() {
        let (world, _) = world().await;
        for enters in [false, true] {
            let mut walk = TreeWalk::new(world.vfs(), InodeNo::ROOT, Vec::new(), true);
            let mut paths = Vec::new();
            while let Some(entry) = walk.next().await.unwrap() {
                if entry.is_directory() && enters {
                    walk.enter(&entry);
                }
                if entry.name() == b"f" {
                    assert_eq!(entry.attributes.unwrap().size, 5);
                }
                paths.push(String::from_utf8(entry.path).unwrap());
            }
            assert_eq!(paths.len(), if enters { 303 } else { 2 });
            let at = |path: &str| paths.iter().position(|other| other == path);
            assert_eq!(at("a/b/299").is_some(), enters);
            assert!(at("a/b/299").is_none_or(|below| at("a/b").unwrap() < below));
        }
    }
}
