//! Holes and shared extents: `fallocate`, `lseek` for data and holes, `copy_file_range`.

use std::ops::Range;
use std::sync::Arc;

use crate::content::{File, extents};
use crate::index::{Draft, View};
use crate::log::Inode;
use crate::types::{Extent, GIB, InodeNo, Timestamp};

use super::publish::{apply, edit, lay};
use super::remove::{STEP, overlapping_from};
use super::{Error, HandleId, Result, SIZE_MAX, Vfs};

/// Bytes that one `copy_file_range` copies at most (FUSE's reply holds 32 bits); callers go on where it ends.
const COPY_MAX: u64 = GIB;

/// What to look for from an offset on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// `SEEK_DATA`
    Data,
    /// `SEEK_HOLE`
    Hole,
}

impl Vfs {
    /// `fallocate`. `mode` as in fallocate(2): allocate, `KEEP_SIZE`, `PUNCH_HOLE`, `ZERO_RANGE`. Nothing is set
    /// aside for a range that is allocated: a bucket has no end, and staging is reserved by each write.
    pub async fn allocate(&self, handle: HandleId, mode: i32, range: Range<u64>) -> Result<()> {
        self.writable()?;
        let handle = self.inner.handles.get(handle)?;
        if !handle.flags.write {
            return Err(Error::BadHandle);
        }
        if range.is_empty() {
            return Err(Error::Invalid);
        }
        if range.end > SIZE_MAX {
            return Err(Error::TooBig);
        }
        let keeps_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        let empties = match mode & !libc::FALLOC_FL_KEEP_SIZE {
            0 => false,
            libc::FALLOC_FL_PUNCH_HOLE if keeps_size => true,
            libc::FALLOC_FL_ZERO_RANGE => true,
            _ => return Err(Error::NotSupported),
        };
        let size = if keeps_size { 0 } else { range.end };
        self.reshape(&handle.file, range, empties, size).await
    }

    /// Empties `range` if asked to, step by step, and makes the file at least `size` long.
    async fn reshape(
        &self,
        file: &Arc<File>,
        range: Range<u64>,
        empties: bool,
        size: u64,
    ) -> Result<()> {
        let ino = file.ino();
        let mut left = range;
        loop {
            let publication = self.turn(file).await?;
            let next = self
                .change(|draft| {
                    let now = Timestamp::now();
                    let mut inode = draft.inode(ino)?.ok_or(Error::Stale)?;
                    apply(draft, ino, &mut inode, &publication)?;
                    draft.put_inode(ino, &inode);
                    let end = left.end.min(inode.size);
                    let mut next = end;
                    if empties && left.start < end {
                        next = step_end(draft, ino, &inode, left.start..end)?;
                        let step = left.start..next;
                        let punch =
                            |old: &[(u64, Extent)]| extents::punch(&hit(old, &step), step.clone());
                        edit(draft, ino, &mut inode, step.clone(), punch)?;
                    }
                    inode.size = inode.size.max(size);
                    inode.mtime = now;
                    inode.ctime = now;
                    draft.put_inode(ino, &inode);
                    Ok((next < end).then_some(next))
                })
                .await?;
            file.published(publication);
            match next {
                Some(next) => left.start = next,
                None => return Ok(()),
            }
        }
    }

    /// `lseek` with `SEEK_DATA` or `SEEK_HOLE`.
    pub async fn seek(&self, handle: HandleId, offset: u64, what: Seek) -> Result<u64> {
        let handle = self.inner.handles.get(handle)?;
        let file = &handle.file;
        let ino = file.ino();
        let unpublished = file.unpublished();
        let written: Vec<Range<u64>> = match &unpublished {
            Some(unpublished) if unpublished.end > offset => file.ranges(offset..unpublished.end),
            _ => Vec::new(),
        };
        self.read(|view| {
            let inode = view.inode(ino)?.ok_or(Error::Stale)?;
            let size =
                unpublished.map_or(inode.size, |unpublished| unpublished.end.max(inode.size));
            if offset >= size {
                return Err(Error::NoMoreData);
            }
            let mut map = Map { view, ino, published: inode.size, written: &written };
            match what {
                Seek::Data => map
                    .next_data(offset)?
                    .map(|data| data.start.max(offset))
                    .ok_or(Error::NoMoreData),
                Seek::Hole => {
                    let mut at = offset;
                    while let Some(data) = map.next_data(at)?
                        && data.start <= at
                    {
                        at = data.end;
                    }
                    Ok(at.min(size))
                }
            }
        })
        .await
    }

    /// `copy_file_range`: the target refers to the same extents; no data moves. Returns the bytes copied, which may
    /// be fewer than asked for.
    pub async fn copy_range(
        &self,
        source: (HandleId, u64),
        target: (HandleId, u64),
        length: u64,
    ) -> Result<u64> {
        self.writable()?;
        let (from, to) = (self.inner.handles.get(source.0)?, self.inner.handles.get(target.0)?);
        if !from.flags.read || !to.flags.write {
            return Err(Error::BadHandle);
        }
        let (from, to) = (&from.file, &to.file);
        let length = length.min(COPY_MAX);
        let (start, put_at) = (source.1, target.1);
        if put_at.checked_add(length).is_none_or(|end| end > SIZE_MAX) {
            return Err(Error::TooBig);
        }
        let is_same = from.ino() == to.ino();
        if is_same && start < put_at.saturating_add(length) && put_at < start.saturating_add(length)
        {
            return Err(Error::Invalid);
        }
        let mut turns = Vec::new();
        let (first, second) = if from.ino() < to.ino() { (from, to) } else { (to, from) };
        turns.push((first, self.turn(first).await?));
        if !is_same {
            turns.push((second, self.turn(second).await?));
        }
        let copied = self
            .change(|draft| {
                for (file, publication) in &turns {
                    let mut inode = draft.inode(file.ino())?.ok_or(Error::Stale)?;
                    apply(draft, file.ino(), &mut inode, publication)?;
                    draft.put_inode(file.ino(), &inode);
                }
                share(draft, (from.ino(), start), (to.ino(), put_at), length)
            })
            .await?;
        for (file, publication) in turns {
            file.published(publication);
        }
        Ok(copied)
    }
}

/// Copies references (rule V4: from the current map), holes as holes.
fn share(
    draft: &mut Draft<'_>,
    (from, start): (InodeNo, u64),
    (to, put_at): (InodeNo, u64),
    length: u64,
) -> Result<u64> {
    let source = draft.inode(from)?.ok_or(Error::Stale)?;
    let end = start.saturating_add(length).min(source.size);
    if start >= end {
        return Ok(0);
    }
    let end = step_end(draft, from, &source, start..end)?;
    let list = extents::clip(&draft.extents(from, start..end)?, start..end);
    let pieces: Vec<_> =
        list.into_iter().map(|(offset, extent)| (offset - start + put_at, extent)).collect();
    let range = put_at..put_at + (end - start);
    // The target's extents that go count against the same transaction: a step of its own bounds them.
    let mut target = draft.inode(to)?.ok_or(Error::Stale)?;
    edit(draft, to, &mut target, range.clone(), |old| {
        extents::punch(&hit(old, &range), range.clone())
    })?;
    lay(draft, to, &mut target, &pieces)?;
    let now = Timestamp::now();
    target.size = target.size.max(range.end);
    target.mtime = now;
    target.ctime = now;
    draft.put_inode(to, &target);
    Ok(end - start)
}

/// Where a step over `range` ends, so that it changes no more than `STEP` records.
fn step_end(view: &View<'_>, ino: InodeNo, inode: &Inode, range: Range<u64>) -> Result<u64> {
    if inode.extent.is_some() || inode.size == 0 {
        return Ok(range.end);
    }
    let list = view.extents_from(ino, range.start, STEP + 1)?;
    Ok(list.get(STEP).map_or(range.end, |(offset, _)| range.end.min(*offset)))
}

/// Those of `list` that overlap `range`.
fn hit(list: &[(u64, Extent)], range: &Range<u64>) -> Vec<(u64, Extent)> {
    let overlaps = |(offset, extent): &&(u64, Extent)| {
        *offset < range.end && offset + extent.length > range.start
    };
    list.iter().filter(overlaps).cloned().collect()
}

/// Where a file has data.
struct Map<'a, 'v> {
    view: &'a View<'v>,
    ino: InodeNo,
    /// The published size: beyond it, published extents do not count.
    published: u64,
    /// What is unpublished, in order.
    written: &'a [Range<u64>],
}

impl Map<'_, '_> {
    /// The first range of data that ends after `at`.
    fn next_data(&mut self, at: u64) -> Result<Option<Range<u64>>> {
        let written = self.written.iter().find(|range| range.end > at).cloned();
        let published = if at < self.published {
            overlapping_from(self.view, self.ino, at, 1)?
                .first()
                .map(|(offset, extent)| *offset..(offset + extent.length).min(self.published))
                .filter(|range| range.start < self.published)
        } else {
            None
        };
        Ok(match (written, published) {
            (Some(a), Some(b)) => Some(if a.start <= b.start { a } else { b }),
            (a, b) => a.or(b),
        })
    }
}
