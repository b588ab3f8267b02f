//! The one place where written bytes become part of the map (rules V1 and V2). Three other functions change what a file
//! holds: `Vfs::resize` (truncation), and in allocate.rs `reshape` (holes, zeros) and `share` (reflinks).

use std::sync::Arc;

use crate::content::{File, OverlapCount, Publication, Question, extents};
use crate::index::{Draft, View};
use crate::records::Inode;
use crate::types::{EXTENT_MAX, Extent, InodeNo};

use super::{Error, Result, Vfs};

/// A file's unpublished writes, sealed, to be published with a transaction of its inode. While this exists, nothing
/// else publishes or truncates the file.
pub(super) struct PendingWrites {
    pub(super) file: Arc<File>,
    pub(super) publication: Publication,
}

impl PendingWrites {
    /// The transaction was appended.
    pub(super) fn landed(self) {
        self.file.published(self.publication);
    }
}

impl Vfs {
    /// The unpublished writes of `ino`, which a transaction on it must publish too (V2); `None` if there are none.
    pub(super) async fn pending(&self, ino: InodeNo) -> Result<Option<PendingWrites>> {
        let Some(file) = self.inner.content.known(ino) else { return Ok(None) };
        if file.unpublished().is_none() {
            return Ok(None);
        }
        let publication = self.turn(&file).await?;
        Ok(Some(PendingWrites { file, publication }))
    }

    /// Takes the file's publishing turn and seals all that is unpublished.
    pub(super) async fn turn(&self, file: &File) -> Result<Publication> {
        self.turn_to(file, 0).await
    }

    /// As `turn`, for a caller who extends the file to `end`. If a truncation was too large for one transaction, it is
    /// finished before anything reaches beyond its end again (V3).
    ///
    /// A large publication is appended here, in a transaction of its own, as if it had been published a moment earlier.
    /// So the caller's transaction has room for the caller's change, and for another file's publication (V2).
    pub(super) async fn turn_to(&self, file: &File, end: u64) -> Result<Publication> {
        let mut publication = self.sealed(file, end).await?;
        if publication.is_large() && self.append(file.ino(), &publication).await? {
            file.published_so_far(&mut publication);
        }
        Ok(publication)
    }

    async fn sealed(&self, file: &File, end: u64) -> Result<Publication> {
        let publication = file.seal().await?;
        let reaches = end.max(publication.end);
        if self.trim_from(file.ino()).is_some_and(|from| reaches > from) {
            self.finish_trim(file.ino()).await?;
        }
        Ok(publication)
    }

    /// Holds the file's publishing turn, as somebody does who waits for the store.
    #[cfg(test)]
    pub(crate) async fn keep_turn(&self, ino: InodeNo) -> (Arc<File>, Publication) {
        let file = self.inner.content.file(ino);
        let publication = file.seal().await.unwrap_or_else(|error| panic!("{error}"));
        (file, publication)
    }

    /// V1: publishes all that is unpublished of the file, through any of its handles, in one transaction.
    pub(super) async fn publish(&self, file: &Arc<File>) -> Result<()> {
        if file.unpublished().is_none() {
            return Ok(());
        }
        let publication = self.sealed(file, 0).await?;
        if publication.is_empty() {
            return Ok(());
        }
        if self.append(file.ino(), &publication).await? {
            file.published(publication);
        } else {
            // The inode is gone: nobody can read the bytes any more.
            drop(publication);
            file.discard();
        }
        Ok(())
    }

    /// Appends the one transaction of a publication; `false` if the inode is gone.
    async fn append(&self, ino: InodeNo, publication: &Publication) -> Result<bool> {
        let is_there = self
            .change(|draft| {
                let Some(mut inode) = draft.inode(ino)? else { return Ok(false) };
                publish_into(draft, ino, &mut inode, publication)?;
                draft.put_inode(ino, &inode);
                Ok(true)
            })
            .await?;
        if is_there {
            self.inner.windows.published(ino, &publication.pieces);
        }
        Ok(is_there)
    }

    /// How many published records a write would replace: content asks this before it takes one (V1).
    pub(super) async fn count(&self, ino: InodeNo, question: &Question) -> Result<OverlapCount> {
        let most = usize::try_from(question.most).unwrap_or(usize::MAX);
        self.read(|view| {
            let Some(inode) = view.inode(ino)? else { return Ok(OverlapCount::default()) };
            // What lies beyond the end is removed by a truncation before anything is published there.
            let range = question.range.start..question.range.end.min(inode.size);
            if range.is_empty() {
                return Ok(OverlapCount::default());
            }
            if inode.extent.is_some() {
                return Ok(OverlapCount { records: 1, next: None });
            }
            let mut list = view.extents(ino, &inode, range.start..range.start + 1)?;
            let more =
                view.extents_within(ino, range.start + 1..range.end, most.saturating_add(1))?;
            list.extend(more);
            let next = list.get(most).map(|(offset, _)| *offset);
            Ok(OverlapCount { records: list.len().min(most) as u64, next })
        })
        .await
    }
}

/// Makes the publication part of the inode and its extents. The caller puts the inode, before it looks for extents
/// again: a view learns from the inode as it was put whether there are records of extents.
pub(super) fn publish_into(
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

/// Pieces at least this far apart are laid separately, so that what lies between them is not read. No extent is long
/// enough to touch both.
const APART: u64 = 2 * EXTENT_MAX;
/// How many records one look reads, unless a single piece replaces more. This bounds the memory for the records between
/// pieces.
const LOOK: usize = 64;

/// Lays pieces (sorted, disjoint) over the inode's extents.
pub(super) fn lay(
    draft: &mut Draft<'_>,
    ino: InodeNo,
    inode: &mut Inode,
    pieces: &[(u64, Extent)],
) -> Result<()> {
    if let (Some((first, _)), Some((offset, last))) = (pieces.first(), pieces.last())
        && (inode.extent.is_some() || inode.size == 0)
    {
        let range = *first..offset + last.length;
        return edit(draft, ino, inode, range, |old| extents::publish(old, pieces));
    }
    let is_near = |a: &(u64, Extent), b: &(u64, Extent)| b.0 - a.0 < APART;
    for mut group in pieces.chunk_by(is_near) {
        while !group.is_empty() {
            let (count, old) = near(draft, ino, inode, group)?;
            let (now, later) = group.split_at(count);
            let edits = extents::publish(&old, now);
            inode.allocated = allocated(inode.allocated, &old, &edits)?;
            put(draft, ino, &edits);
            group = later;
        }
    }
    Ok(())
}

/// What one look finds: how many of the next pieces it covers (at least one), and the records that these overlap or
/// touch.
fn near(
    view: &View<'_>,
    ino: InodeNo,
    inode: &Inode,
    pieces: &[(u64, Extent)],
) -> Result<(usize, Vec<(u64, Extent)>)> {
    let end = |piece: &(u64, Extent)| piece.0 + piece.1.length;
    let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else {
        return Ok((0, Vec::new()));
    };
    // One byte more on either side: neighbours that continue each other in the same sealed message become one record.
    let start = first.0.saturating_sub(1);
    let mut old = view.extents(ino, inode, start..start + 1)?;
    let next = old.last().map_or(start, |(offset, _)| offset + 1).max(start);
    let seen = view.extents_within(ino, next..end(last).saturating_add(1), LOOK)?;
    if seen.len() < LOOK {
        old.extend(seen);
        return Ok((pieces.len(), old));
    }
    // All records that begin before the last of these are known.
    let known = seen.last().map_or(0, |(offset, _)| *offset);
    old.extend(seen);
    let count = pieces.iter().take_while(|piece| end(piece) < known).count();
    if count > 0 {
        old.retain(|(offset, _)| *offset <= end(&pieces[count - 1]));
        return Ok((count, old));
    }
    Ok((1, view.extents(ino, inode, start..end(first).saturating_add(1))?))
}

/// Changes the records of extents in `range` by `edits_of`, which gets all that overlap or touch it. Keeps right
/// `inode.extent` (a single extent at offset 0 lies in the inode) and `inode.allocated`.
pub(super) fn edit(
    draft: &mut Draft<'_>,
    ino: InodeNo,
    inode: &mut Inode,
    range: std::ops::Range<u64>,
    edits_of: impl FnOnce(&[(u64, Extent)]) -> Vec<extents::Edit>,
) -> Result<()> {
    // An empty file has no records of extents, nor has one whose extent is in its inode.
    let no_records = inode.extent.is_some() || inode.size == 0;
    let old = match inode.extent.take() {
        Some(extent) => vec![(0, extent)],
        None if no_records => Vec::new(),
        // One byte more on either side: neighbours that continue each other in the same sealed message become one
        // record.
        None => {
            let near = range.start.saturating_sub(1)..range.end.saturating_add(1);
            draft.extents(ino, inode, near)?
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

/// The number of bytes in extents after the edits.
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
        // If the inode's number was too small, only `du` is wrong.
        sum.saturating_sub(length_at(offset)).checked_add(new).ok_or(Error::TooBig)
    })
}
