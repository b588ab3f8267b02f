//! `lseek` for data and holes, by blocks as on ext4: a block is data if any byte of it is.

use std::ops::Range;

use crate::index::View;
use crate::records::Inode;
use crate::types::{Extent, InodeNo};

use super::remove::overlapping_from;
use super::{BLOCK, Error, HandleId, Result, Vfs};

/// How many records of extents one look at the map reads.
#[cfg(not(test))]
const LOOK: usize = 1024;
#[cfg(test)]
const LOOK: usize = 3;

/// What to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// `SEEK_DATA`
    Data,
    /// `SEEK_HOLE`
    Hole,
}

/// The result of one look.
enum Sought {
    Found(u64),
    /// Data without a hole up to here; look again from there.
    Further(u64),
}

impl Vfs {
    /// `lseek` with `SEEK_DATA` or `SEEK_HOLE`. POSIX would allow results exact to the byte, but programs take the
    /// first hole that they find for the block size.
    pub async fn seek(&self, handle: HandleId, offset: u64, what: Seek) -> Result<u64> {
        let handle = self.inner.handles.get(handle)?;
        let file = &handle.file;
        let mut at = block_of(offset);
        // Read before the map: what is published in between is then in both, rather than in neither.
        let unpublished = file.unpublished();
        let written: Vec<Range<u64>> = match &unpublished {
            Some(unpublished) if unpublished.end > at => file.ranges(at..unpublished.end),
            _ => Vec::new(),
        };
        let end = unpublished.map_or(0, |unpublished| unpublished.end);
        loop {
            let sought = self
                .read(|view| {
                    let inode = view.inode(file.ino())?.ok_or(Error::Stale)?;
                    let size = inode.size.max(end);
                    if offset >= size {
                        return Err(Error::NoMoreData);
                    }
                    let (data, known) = data_from(view, file.ino(), &inode, at, &written)?;
                    Ok(match what {
                        Seek::Data => {
                            let first = data.first().ok_or(Error::NoMoreData)?;
                            Sought::Found(block_of(first.start).max(offset))
                        }
                        Seek::Hole => match hole_after(&data, at) {
                            Err(next) if next >= known && next < size => Sought::Further(next),
                            Ok(hole) | Err(hole) => Sought::Found(hole.min(size).max(offset)),
                        },
                    })
                })
                .await?;
            match sought {
                Sought::Found(found) => return Ok(found),
                Sought::Further(next) => at = next,
            }
        }
    }
}

/// The beginning of the block that holds this byte.
fn block_of(offset: u64) -> u64 {
    offset - offset % BLOCK
}

/// The next ranges of data that end after `at`, sorted by their beginnings: published data, and what is `written`.
/// Returns all that begin before the returned offset; the first is always among them.
fn data_from(
    view: &View<'_>,
    ino: InodeNo,
    inode: &Inode,
    at: u64,
    written: &[Range<u64>],
) -> Result<(Vec<Range<u64>>, u64)> {
    let mut known = u64::MAX;
    let mut data = Vec::new();
    if at < inode.size {
        let list = overlapping_from(view, ino, inode, at, LOOK)?;
        if list.len() >= LOOK {
            known = list.last().map_or(known, |(offset, extent)| offset + extent.length);
        }
        // Published extents beyond the published size do not count.
        let clip =
            |(offset, extent): &(u64, Extent)| *offset..(offset + extent.length).min(inode.size);
        data.extend(list.iter().map(clip).filter(|part| !part.is_empty()));
    }
    let is_next = |part: &&Range<u64>| part.end > at && part.start < known;
    data.extend(written.iter().filter(is_next).cloned());
    data.sort_unstable_by_key(|part| part.start);
    Ok((data, known))
}

/// The first block without data at or after `at`, which is the beginning of a block. `Err`: where the data that goes on
/// to the last range of the list ends.
fn hole_after(data: &[Range<u64>], mut at: u64) -> std::result::Result<u64, u64> {
    for part in data {
        if block_of(part.start) > at {
            return Ok(at);
        }
        at = at.max(part.end.next_multiple_of(BLOCK));
    }
    Err(at)
}
