//! The one place where written bytes become part of the map (rules V1 and V2). Three others change what a file holds:
//! `Vfs::resize` (truncation), and in allocate.rs `reshape` (holes, zeros) and `share` (reflinks).

use std::sync::Arc;

use crate::content::{File, OverlapCount, Publication, Question, extents};
use crate::index::{Draft, View};
use crate::records::Inode;
use crate::types::{EXTENT_MAX, Extent, InodeNo};

use super::{Error, Result, Vfs};

/// A file's unpublished writes, sealed, for a transaction of its inode. While it lives, nothing else publishes or
/// truncates the file.
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
    /// What of `ino` a transaction must publish along with what it does (V2); `None` if nothing is unpublished.
    pub(super) async fn pending(&self, ino: InodeNo) -> Result<Option<PendingWrites>> {
        let Some(file) = self.inner.content.known(ino) else { return Ok(None) };
        if file.unpublished().is_none() {
            return Ok(None);
        }
        let publication = self.turn(&file).await?;
        Ok(Some(PendingWrites { file, publication }))
    }

    /// The file's publishing turn with all that is unpublished.
    pub(super) async fn turn(&self, file: &File) -> Result<Publication> {
        self.turn_to(file, 0).await
    }

    /// As `turn`, of a caller who makes the file reach to `end`: a truncation that was too large for one transaction is
    /// finished before anything goes beyond its end again (V3).
    ///
    /// What is large is published here, in a transaction of its own: the caller's has room for what the caller does, and
    /// for another file's (V2). It is what a publication a moment earlier would have been.
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
        let publication = self.sealed(file, 0).await?;
        if publication.is_empty() {
            return Ok(());
        }
        if self.append(file.ino(), &publication).await? {
            file.published(publication);
        } else {
            // Removed: nobody can read it any more.
            drop(publication);
            file.discard();
        }
        Ok(())
    }

    /// The one transaction of a publication; `false` if the inode is gone.
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

    /// How many published records a write would take the place of: what content asks before it takes one (V1).
    pub(super) async fn count(&self, ino: InodeNo, question: &Question) -> Result<OverlapCount> {
        let most = usize::try_from(question.most).unwrap_or(usize::MAX);
        self.read(|view| {
            let Some(inode) = view.inode(ino)? else { return Ok(OverlapCount::default()) };
            // Beyond the end lies what a truncation takes away before anything is published there.
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

/// Makes the publication part of the inode and its extents. The caller puts the inode, and before it looks for
/// extents again: a view takes from the inode that was put whether it has records of them.
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

/// Pieces further apart than this are laid one by one, so that what lies between them is not read: no extent is long
/// enough to touch both.
const APART: u64 = 2 * EXTENT_MAX;
/// Records that one look reads, unless a piece takes the place of more. So what lies between pieces takes little
/// memory, however much it is.
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

/// What one look tells: the records that the next pieces overlap or touch, and how many pieces these are, at least one.
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
    // One byte more on either side: neighbours that go on in the same message become one record.
    let start = first.0.saturating_sub(1);
    let mut old = view.extents(ino, inode, start..start + 1)?;
    let next = old.last().map_or(start, |(offset, _)| offset + 1).max(start);
    let seen = view.extents_within(ino, next..end(last).saturating_add(1), LOOK)?;
    if seen.len() < LOOK {
        old.extend(seen);
        return Ok((pieces.len(), old));
    }
    // All that begin before the last of them are known.
    let known = seen.last().map_or(0, |(offset, _)| *offset);
    old.extend(seen);
    let count = pieces.iter().take_while(|piece| end(piece) < known).count();
    if count > 0 {
        old.retain(|(offset, _)| *offset <= end(&pieces[count - 1]));
        return Ok((count, old));
    }
    Ok((1, view.extents(ino, inode, start..end(first).saturating_add(1))?))
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
