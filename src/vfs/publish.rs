//! The one place where written bytes become part of the map (rules V1 and V2).

use std::sync::Arc;

use crate::content::{File, Publication, extents};
use crate::index::Draft;
use crate::log::Inode;
use crate::types::{EXTENT_MAX, Extent, InodeNo};

use super::{Error, Result, Vfs};

/// A file's unpublished writes, sealed, for a transaction of its inode. While it lives, nothing else publishes or
/// truncates the file.
pub(super) struct Pending {
    pub(super) file: Arc<File>,
    pub(super) publication: Publication,
}

impl Pending {
    /// The transaction was appended.
    pub(super) fn landed(self) {
        self.file.published(self.publication);
    }
}

impl Vfs {
    /// What of `ino` a transaction must publish along with what it does (V2); `None` if nothing is unpublished.
    pub(super) async fn pending(&self, ino: InodeNo) -> Result<Option<Pending>> {
        let Some(file) = self.inner.content.known(ino) else { return Ok(None) };
        if file.unpublished().is_none() {
            return Ok(None);
        }
        let publication = self.turn(&file).await?;
        Ok(Some(Pending { file, publication }))
    }

    /// The file's publishing turn with all that is unpublished, after the end of a truncation that was too large
    /// for one transaction: what is published may raise the size again (V3).
    pub(super) async fn turn(&self, file: &File) -> Result<Publication> {
        let publication = file.seal().await?;
        self.finish_trim(file.ino()).await?;
        Ok(publication)
    }

    /// Keeps the file's publishing turn, as somebody does who waits for the store.
    #[cfg(test)]
    pub(crate) async fn keep_turn(&self, ino: InodeNo) -> (Arc<File>, Publication) {
        let file = self.inner.content.file(ino);
        let publication = file.seal().await.unwrap_or_else(|error| panic!("{error}"));
        (file, publication)
    }

    /// V1: one transaction publishes all that is unpublished of the file, of all of its handles.
    pub(super) async fn publish(&self, file: &Arc<File>) -> Result<()> {
        if file.unpublished().is_none() {
            return Ok(());
        }
        let publication = self.turn(file).await?;
        if publication.is_empty() {
            return Ok(());
        }
        let ino = file.ino();
        let is_there = self
            .change(|draft| {
                let Some(mut inode) = draft.inode(ino)? else { return Ok(false) };
                apply(draft, ino, &mut inode, &publication)?;
                draft.put_inode(ino, &inode);
                Ok(true)
            })
            .await?;
        if is_there {
            self.inner.windows.published(ino, &publication.pieces);
            file.published(publication);
        } else {
            // Removed: nobody can read it any more.
            drop(publication);
            file.discard();
        }
        Ok(())
    }
}

/// Makes the publication part of the inode and its extents. The caller puts the inode, and before it looks for
/// extents again: a view takes from the inode that was put whether it has records of them.
pub(super) fn apply(
    draft: &mut Draft<'_>,
    ino: InodeNo,
    inode: &mut Inode,
    publication: &Publication,
) -> Result<()> {
    lay(draft, ino, inode, &publication.pieces)?;
    inode.size = inode.size.max(publication.end);
    if let Some(mtime) = publication.mtime {
        inode.mtime = mtime;
        inode.ctime = inode.ctime.max(mtime);
    }
    Ok(())
}

/// Pieces further apart than this are laid one by one, so that what lies between them is not read: no extent is long
/// enough to touch both.
const APART: u64 = 2 * EXTENT_MAX;

/// Lays pieces (sorted, disjoint) over the inode's extents.
pub(super) fn lay(
    draft: &mut Draft<'_>,
    ino: InodeNo,
    inode: &mut Inode,
    pieces: &[(u64, Extent)],
) -> Result<()> {
    let is_small = inode.extent.is_some() || inode.size == 0;
    let is_near = |a: &(u64, Extent), b: &(u64, Extent)| is_small || b.0 - a.0 < APART;
    for group in pieces.chunk_by(is_near) {
        let (Some((first, _)), Some((offset, last))) = (group.first(), group.last()) else {
            continue;
        };
        let range = *first..offset + last.length;
        edit(draft, ino, inode, range, |old| extents::publish(old, group))?;
    }
    Ok(())
}

/// Changes the records of extents in `range` by `edits_of`, which gets all that overlap or touch it, and keeps
/// `extent` (a lone one at 0 lies in the inode) and `allocated` right.
pub(super) fn edit(
    draft: &mut Draft<'_>,
    ino: InodeNo,
    inode: &mut Inode,
    range: std::ops::Range<u64>,
    edits_of: impl FnOnce(&[(u64, Extent)]) -> Vec<extents::Edit>,
) -> Result<()> {
    // An empty file has no records; one with an extent of its own neither.
    let no_records = inode.extent.is_some() || inode.size == 0;
    let old = match inode.extent.take() {
        Some(extent) => vec![(0, extent)],
        None if no_records => Vec::new(),
        // One byte more on either side: neighbours that go on in the same message become one record.
        None => {
            let near = range.start.saturating_sub(1)..range.end.saturating_add(1);
            draft.extents_of(ino, inode, near)?
        }
    };
    let edits = edits_of(&old);
    inode.allocated = allocated(inode.allocated, &old, &edits)?;
    if !no_records {
        put(draft, ino, &edits);
        return Ok(());
    }
    let mut all = extents::apply(&old, &edits);
    if all.len() == 1 && all[0].0 == 0 {
        inode.extent = all.pop().map(|(_, extent)| extent);
    } else {
        for (offset, extent) in &all {
            draft.put_extent(ino, *offset, extent);
        }
    }
    Ok(())
}

fn put(draft: &mut Draft<'_>, ino: InodeNo, edits: &[extents::Edit]) {
    for edit in edits {
        match edit {
            extents::Edit::Put(offset, extent) => draft.put_extent(ino, *offset, extent),
            extents::Edit::Delete(offset) => draft.delete_extent(ino, *offset),
        }
    }
}

/// The bytes that extents hold after the edits.
fn allocated(before: u64, old: &[(u64, Extent)], edits: &[extents::Edit]) -> Result<u64> {
    let length_at = |offset: u64| match old.binary_search_by_key(&offset, |(offset, _)| *offset) {
        Ok(found) => old[found].1.length,
        Err(_) => 0,
    };
    edits.iter().try_fold(before, |sum, edit| {
        let (offset, new) = match edit {
            extents::Edit::Put(offset, extent) => (*offset, extent.length),
            extents::Edit::Delete(offset) => (*offset, 0),
        };
        // A record that says less than its extents hold is only wrong in `du`.
        sum.saturating_sub(length_at(offset)).checked_add(new).ok_or(Error::TooBig)
    })
}
