//! Brings back past files: by references if that saves moving bytes and V4 allows it, otherwise by copying.

use std::collections::HashMap;

use super::copy::{Copying, OnRestore, Restored, copy_file, refused};
use super::opened::Past;
use super::share::Sharing;
use crate::files::{dress, make_other, owned_by};
use crate::types::{InodeNo, StateAt};
use crate::vault::Result;
use crate::vault::open_vault::Vault;
use crate::vfs::{self, Attributes, TreeWalk, Vfs, WALK_MAX};

/// Files with several names that are remembered while a directory is brought back.
pub(super) const LINKS_MAX: usize = 1 << 20;

/// What to bring back.
#[derive(Clone, Debug)]
pub struct Restoring {
    /// The names that lead to it from the root.
    pub path: Vec<Vec<u8>>,
    /// The state to take it from; `None`: the newest that differs from now.
    pub at: Option<StateAt>,
    /// Where to put it; `None`: where it was.
    pub to: Option<Vec<Vec<u8>>>,
}

impl Vault {
    /// Brings a file or directory back as it was. A file in its place is replaced, in one transaction; nothing else
    /// is.
    ///
    /// # Errors
    /// `Error::NotRestored`, `Error::NoState`; what store and disk say. Each file is there whole, or not at all.
    pub async fn restore(&self, what: &Restoring, tell: OnRestore<'_>) -> Result<Restored> {
        let at = match &what.at {
            Some(at) => at.clone(),
            None => self.newest_other(&what.path, tell).await?,
        };
        let past = self.past(&at).await?;
        let Some((name, parents)) = what.path.split_last() else {
            return Err(refused(
                "the root itself cannot be brought back; name what is in it, or mount it with --at",
            ));
        };
        let Some(source) = look(&past.vfs, &what.path).await? else {
            return Err(refused(not_there(&past)));
        };
        let (to_name, to_parents) = match &what.to {
            None => (name, parents),
            Some(to) => to.split_last().ok_or_else(|| refused("the root cannot be replaced"))?,
        };
        let live = self.vfs();
        let target = look(&live, &[to_parents, std::slice::from_ref(to_name)].concat()).await?;
        may_take_place(&source, target.as_ref())?;
        let model = what.to.is_none().then_some(&past.vfs);
        let parent = make_parents(&live, model, to_parents).await?;
        let done = Restored { as_of: Some(past.as_of.clone()), ..Restored::default() };
        let (options, commit) = (self.options(), past.as_of.commit);
        let keys = options.unlocked.keys.clone();
        let sharing = Sharing::of(options.bucket.clone(), keys, commit);
        let mut copying = Copying { past: &past.vfs, live: &live, sharing, done, tell };
        if is_dir(&source) {
            copy_tree(&mut copying, &source, parent, to_name).await?;
        } else {
            copying.done.files = 1;
            copy_node(&mut copying, &source, parent, to_name, target.is_some()).await?;
        }
        Ok(copying.done)
    }
}

fn not_there(past: &Past) -> String {
    format!(
        "it was not there as of commit {}; `s3vault history` shows when it was",
        past.as_of.commit.0
    )
}

/// What is at a path; `None` if there is nothing.
pub(super) async fn look(vfs: &Vfs, names: &[Vec<u8>]) -> Result<Option<Attributes>> {
    let mut seen = vfs.attributes(InodeNo::ROOT).await?;
    for name in names {
        seen = match vfs.lookup(seen.ino, name).await {
            Ok(found) => *found,
            Err(vfs::Error::NotFound | vfs::Error::NotDirectory | vfs::Error::Stale) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
    }
    Ok(Some(seen))
}

pub(super) fn is_dir(seen: &Attributes) -> bool {
    seen.kind() == libc::S_IFDIR
}

fn may_take_place(source: &Attributes, target: Option<&Attributes>) -> Result<()> {
    match target {
        None => Ok(()),
        Some(_) if is_dir(source) => Err(refused(
            "a directory is brought back only to where nothing is; name a new place with --to",
        )),
        Some(target) if is_dir(target) => {
            Err(refused("there is a directory in its place; name another place with --to"))
        }
        Some(_) => Ok(()),
    }
}

/// The directory that these names lead to. Missing ones are made, as they were in `model` if that has them.
pub(super) async fn make_parents(
    live: &Vfs,
    model: Option<&Vfs>,
    names: &[Vec<u8>],
) -> Result<InodeNo> {
    let mut parent = live.attributes(InodeNo::ROOT).await?;
    for (depth, name) in names.iter().enumerate() {
        parent = match live.lookup(parent.ino, name).await {
            Ok(found) => *found,
            Err(vfs::Error::NotFound) => {
                let was = match model {
                    Some(past) => look(past, &names[..=depth]).await?,
                    None => None,
                };
                let like = was.unwrap_or(parent);
                let made = live.mkdir(&owned_by(&like), parent.ino, name, like.mode).await?;
                *made
            }
            Err(error) => return Err(error.into()),
        };
    }
    Ok(parent.ino)
}

/// Copies anything but a directory.
pub(super) async fn copy_node(
    copying: &mut Copying<'_>,
    source: &Attributes,
    parent: InodeNo,
    name: &[u8],
    replaces: bool,
) -> Result<InodeNo> {
    match source.kind() {
        libc::S_IFREG => copy_file(copying, source, parent, name).await,
        _ => {
            let from = (copying.past, source);
            Ok(make_other(from, copying.live, (parent, name), replaces).await?)
        }
    }
}

/// A directory that is being filled.
struct RestoredLevel {
    /// Relative path that ends with a slash; empty at the top.
    path: Vec<u8>,
    source: Attributes,
    made: InodeNo,
}

/// Copies a directory with all that is in it, one entry after the other. A directory's times are set when it is full.
async fn copy_tree(
    copying: &mut Copying<'_>,
    source: &Attributes,
    parent: InodeNo,
    name: &[u8],
) -> Result<()> {
    let made = copying.live.mkdir(&owned_by(source), parent, name, source.mode).await?.ino;
    copying.done.files += 1;
    let mut levels = vec![RestoredLevel { path: Vec::new(), source: *source, made }];
    let mut links: HashMap<InodeNo, InodeNo> = HashMap::new();
    let past = copying.past;
    let mut walk = TreeWalk::new(past, source.ino, Vec::new(), true);
    while let Some(entry) = walk.next().await? {
        let inside = &entry.path[..entry.path.len() - entry.name_length];
        while levels.last().is_some_and(|level| level.path != inside) {
            leave(copying, &mut levels).await?;
        }
        let (Some(level), Some(was)) = (levels.last(), entry.attributes) else {
            return Err(refused("the attributes of a path in it cannot be read"));
        };
        let into = level.made;
        copying.done.files += 1;
        if entry.is_directory() {
            let made = copying.live.mkdir(&owned_by(&was), into, entry.name(), was.mode).await?.ino;
            if entry.path.len() > WALK_MAX {
                return Err(refused("a path in it is too long"));
            }
            let path = [&entry.path[..], b"/"].concat();
            levels.push(RestoredLevel { path, source: was, made });
            walk.enter(&entry);
        } else if let Some(first) = links.get(&was.ino) {
            drop(copying.live.link(*first, into, entry.name()).await?);
        } else {
            let made = copy_node(copying, &was, into, entry.name(), false).await?;
            if was.nlink > 1 && links.len() < LINKS_MAX {
                links.insert(was.ino, made);
            }
        }
        copying.tell()?;
    }
    while !levels.is_empty() {
        leave(copying, &mut levels).await?;
    }
    Ok(())
}

async fn leave(copying: &mut Copying<'_>, levels: &mut Vec<RestoredLevel>) -> Result<()> {
    let Some(level) = levels.pop() else { return Ok(()) };
    Ok(dress(copying.past, copying.live, &level.source, level.made).await?)
}
