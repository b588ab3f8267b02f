//! Resolves paths. Symlinks are followed, but never out of the vault.

use std::collections::VecDeque;

use super::{Error, Files, Result};
use crate::types::{InodeNo, Timestamp};
use crate::vfs::{self, Attributes, PATH_MAX};

/// The most symlinks on one path; the kernel's own limit.
const LINKS_MAX: usize = 40;

const BEGINNING: Timestamp = Timestamp { seconds: 0, nanos: 0 };
/// The root of a vault that has no root yet.
const EMPTY_ROOT: Attributes = Attributes {
    ino: InodeNo::ROOT,
    mode: libc::S_IFDIR | 0o755,
    nlink: 2,
    uid: 0,
    gid: 0,
    rdev: 0,
    size: 4096,
    blocks: 0,
    atime: BEGINNING,
    mtime: BEGINNING,
    ctime: BEGINNING,
    created: BEGINNING,
};

/// What a path names.
#[derive(Clone, Debug)]
pub struct FoundPath {
    /// The attributes that `stat` shows.
    pub attributes: Attributes,
    /// Its name in its directory; empty for the root.
    pub name: Vec<u8>,
}

impl FoundPath {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.attributes.kind() == libc::S_IFDIR
    }
}

/// A place where something is, or is to be: a name in an existing directory.
#[derive(Clone, Debug)]
pub struct PathPlace {
    parent: InodeNo,
    name: Vec<u8>,
    /// What is there now, if anything.
    pub there: Option<Attributes>,
}

impl PathPlace {
    /// The place of a name in a directory.
    pub fn of(parent: InodeNo, name: &[u8], there: Option<Attributes>) -> Self {
        Self { parent, name: name.to_vec(), there }
    }

    /// The directory and the name.
    ///
    /// # Errors
    /// [`Error::Root`]: it is the root, which has neither.
    pub fn names(&self) -> Result<(InodeNo, &[u8])> {
        if self.name.is_empty() { Err(Error::Root) } else { Ok((self.parent, &self.name)) }
    }

    /// Whether a directory is there.
    pub fn is_directory(&self) -> bool {
        self.there.is_some_and(|there| there.kind() == libc::S_IFDIR)
    }
}

/// How far a path was followed.
struct Walked {
    /// The directories passed, root first; the last one holds `name`.
    above: Vec<InodeNo>,
    /// If empty, the path names the last of `above` itself.
    name: Vec<u8>,
    there: Option<Attributes>,
}

impl Files {
    /// What a path names. With `follows`, a symlink at its end is followed.
    pub async fn find(&self, path: &[u8], follows: bool) -> Result<FoundPath> {
        let walked = self.walk(path, follows).await?;
        let attributes = walked.there.ok_or(vfs::Error::NotFound)?;
        Ok(FoundPath { attributes, name: walked.name })
    }

    /// The directory that a path names.
    pub async fn directory(&self, path: &[u8]) -> Result<InodeNo> {
        let found = self.find(path, true).await?;
        if found.is_directory() {
            Ok(found.attributes.ino)
        } else {
            Err(vfs::Error::NotDirectory.into())
        }
    }

    /// The place that a path names, whether or not something is there. A symlink at its end is not followed, unless the
    /// path ends in a slash.
    pub async fn place(&self, path: &[u8]) -> Result<PathPlace> {
        let walked = self.walk(path, false).await?;
        let parent = walked.above.last().copied().unwrap_or(InodeNo::ROOT);
        Ok(PathPlace { parent, name: walked.name, there: walked.there })
    }

    async fn walk(&self, path: &[u8], follows: bool) -> Result<Walked> {
        if path.len() > PATH_MAX {
            return Err(vfs::Error::NameTooLong.into());
        }
        let must_be_directory = path.ends_with(b"/");
        let mut left: VecDeque<Vec<u8>> = parts(path).collect();
        let mut above = vec![InodeNo::ROOT];
        let mut links = 0;
        while let Some(name) = left.pop_front() {
            let at = above.last().copied().unwrap_or(InodeNo::ROOT);
            if name == b".." {
                if above.len() > 1 {
                    above.pop();
                }
                continue;
            }
            let is_last = left.is_empty();
            let seen = match self.vfs.lookup(at, &name).await {
                Ok(seen) => *seen,
                Err(vfs::Error::NotFound) if is_last => {
                    return Ok(Walked { above, name, there: None });
                }
                Err(error) => return Err(error.into()),
            };
            match seen.kind() {
                libc::S_IFLNK if !is_last || follows || must_be_directory => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Error::Loop);
                    }
                    let target = self.vfs.read_link(seen.ino).await?;
                    if target.starts_with(b"/") {
                        return Err(Error::Outside);
                    }
                    if leaves(above.len() - 1, &target) {
                        return Err(Error::Outside);
                    }
                    for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                        left.push_front(part);
                    }
                }
                libc::S_IFDIR if is_last => {
                    return Ok(Walked { above, name, there: Some(seen) });
                }
                libc::S_IFDIR => above.push(seen.ino),
                _ if is_last && !must_be_directory => {
                    return Ok(Walked { above, name, there: Some(seen) });
                }
                _ => return Err(vfs::Error::NotDirectory.into()),
            }
        }
        // The path ended with `..`, or is the root.
        self.itself(above).await
    }

    /// The last of these directories, with its name if it has one.
    async fn itself(&self, mut above: Vec<InodeNo>) -> Result<Walked> {
        let ino = above.last().copied().unwrap_or(InodeNo::ROOT);
        let there = match self.vfs.attributes(ino).await {
            // A vault to which nobody has written yet has no root until its first writer comes.
            Err(vfs::Error::Stale) if ino == InodeNo::ROOT => EMPTY_ROOT,
            there => there?,
        };
        let there = Some(there);
        if above.len() > 1 {
            above.pop();
            let parent = above.last().copied().unwrap_or(InodeNo::ROOT);
            if let Some(name) = self.name_of(parent, ino).await? {
                return Ok(Walked { above, name, there });
            }
            return Err(vfs::Error::NotFound.into());
        }
        Ok(Walked { above, name: Vec::new(), there })
    }

    /// The name of a directory in its parent.
    async fn name_of(&self, parent: InodeNo, ino: InodeNo) -> Result<Option<Vec<u8>>> {
        let mut from = 0;
        while let Some((page, next)) = self.list(parent, from).await? {
            if let Some(entry) = page.into_iter().find(|entry| entry.ino == ino) {
                return Ok(Some(entry.name));
            }
            from = next;
        }
        Ok(None)
    }

    /// Whether a directory is `above`, or lies below it.
    pub(super) async fn is_within(&self, directory: InodeNo, above: InodeNo) -> Result<bool> {
        let mut at = directory;
        loop {
            if at == above {
                return Ok(true);
            }
            if at == InodeNo::ROOT {
                return Ok(false);
            }
            at = self.vfs.lookup(at, b"..").await?.ino;
        }
    }
}

/// The names of a path, without empty ones and `.`.
fn parts(path: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let names = path.split(|byte| *byte == b'/');
    names.filter(|name| !name.is_empty() && *name != b".").map(<[u8]>::to_vec)
}

/// Whether a symlink's target goes above the root, if the link lies `depth` directories below it.
fn leaves(depth: usize, target: &[u8]) -> bool {
    let mut depth = Some(depth);
    for part in parts(target) {
        depth = match (depth, &part[..]) {
            (Some(depth), b"..") => depth.checked_sub(1),
            (Some(depth), _) => Some(depth + 1),
            (None, _) => return true,
        };
    }
    depth.is_none()
}
