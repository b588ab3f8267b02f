//! Holes and shared extents: `fallocate`, `copy_file_range`.

use std::ops::Range;
use std::sync::Arc;

use crate::content::{File, extents};
use crate::index::{Draft, View};
use crate::records::Inode;
use crate::types::{Extent, GIB, InodeNo, Timestamp};

use super::publish::{edit, lay, publish_into};
use super::remove::STEP;
use super::{Error, HandleId, Result, SIZE_MAX, Vfs};

/// The most bytes that one `copy_file_range` copies (FUSE's reply has 32 bits); callers go on where it ends.
const COPY_MAX: u64 = GIB;

impl Vfs {
    /// `fallocate`. `mode` as in fallocate(2): allocate, `KEEP_SIZE`, `PUNCH_HOLE`, `ZERO_RANGE`. Allocating reserves
    /// nothing: a bucket has no end, and each write reserves its room in staging.
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

    /// Makes a hole of `range` if asked to, step by step, and makes the file at least `size` bytes long.
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
            let publication = self.turn_to(file, size).await?;
            let next = self
                .change(|draft| {
                    let now = Timestamp::now();
                    let mut inode = draft.inode(ino)?.ok_or(Error::Stale)?;
                    publish_into(draft, ino, &mut inode, &publication)?;
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
            file.records_changed(1);
            file.published(publication);
            match next {
                Some(next) => left.start = next,
                None => return Ok(()),
            }
        }
    }

    /// `copy_file_range`: the target refers to the same extents, and no data moves. Returns the bytes copied, which may
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
        for file in [first, second].into_iter().take(if is_same { 1 } else { 2 }) {
            let end = if file.ino() == to.ino() { put_at + length } else { 0 };
            turns.push((file, self.turn_to(file, end).await?));
        }
        let copied = self
            .change(|draft| {
                for (file, publication) in &turns {
                    let mut inode = draft.inode(file.ino())?.ok_or(Error::Stale)?;
                    publish_into(draft, file.ino(), &mut inode, publication)?;
                    draft.put_inode(file.ino(), &inode);
                }
                share(draft, (from.ino(), start), (to.ino(), put_at), length)
            })
            .await?;
        to.records_changed(2 * STEP as u64);
        for (file, publication) in turns {
            file.published(publication);
        }
        Ok(copied)
    }
}

/// Copies references to extents (rule V4: from the current map); holes stay holes.
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
    // The target's records that are replaced count against the same limit.
    let mut target = draft.inode(to)?.ok_or(Error::Stale)?;
    let end = step_end(draft, to, &target, put_at..put_at + (end - start))? - put_at + start;
    let list = extents::clip(&draft.extents(from, &source, start..end)?, start..end);
    let pieces: Vec<_> =
        list.into_iter().map(|(offset, extent)| (offset - start + put_at, extent)).collect();
    let range = put_at..put_at + (end - start);
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

/// Where a step over `range` has to end so that it changes at most `STEP` records.
fn step_end(view: &View<'_>, ino: InodeNo, inode: &Inode, range: Range<u64>) -> Result<u64> {
    if inode.extent.is_some() || inode.size == 0 {
        return Ok(range.end);
    }
    let list = view.extents_within(ino, range.clone(), STEP + 1)?;
    Ok(list.get(STEP).map_or(range.end, |(offset, _)| *offset))
}

/// The part of `list` that overlaps `range`.
fn hit(list: &[(u64, Extent)], range: &Range<u64>) -> Vec<(u64, Extent)> {
    let overlaps = |(offset, extent): &&(u64, Extent)| {
        *offset < range.end && offset + extent.length > range.start
    };
    list.iter().filter(overlaps).cloned().collect()
}
