//! The background rewrite of what has come to consist of too many records.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::footer::STREAM_MIN;
use super::staged_extent::StagedExtent;
use super::stream::OpenExtent;
use super::{Error, File, Result};
use crate::types::{EXTENT_MAX, Extent, MIB};

/// Bytes that are read, and sealed, at a time: the memory that a rewrite takes, twice.
const STEP: u64 = MIB;

/// A range of a file's published bytes, sealed anew into staging; nothing refers to it yet.
#[must_use]
pub struct Copied {
    /// What can take the place of the records of the range: sorted, disjoint.
    pub pieces: Vec<(u64, Extent)>,
    /// The packs stay in staging until the transaction says that it refers to them (C4).
    _holds: Vec<Arc<StagedExtent>>,
}

impl File {
    /// Seals the bytes of a range anew, as few extents. `read` gives the *published* bytes of a part of it, whatever is
    /// written meanwhile; it may take as long as the network does, so this holds no turn. Whoever puts the pieces has
    /// the file's turn, and sees that the records of the range are still those that were read: equal records are
    /// equal bytes.
    ///
    /// # Errors
    /// `Full` at once if there is no room: nobody waits for it. What `read` says.
    pub async fn copy_anew<R>(
        &self,
        range: Range<u64>,
        read: impl Fn(Range<u64>) -> R,
    ) -> Result<Copied>
    where
        R: Future<Output = Result<Bytes>>,
    {
        let room = self.writer.staging.try_reserve(range.end - range.start)?;
        let _room = room.ok_or(Error::Staging(crate::upload::Error::Full))?;
        let (mut pieces, mut holds) = (Vec::new(), Vec::new());
        let mut start = range.start;
        while start < range.end {
            // As a stream's: an extent ends with its window.
            let end = range.end.min((start / EXTENT_MAX + 1) * EXTENT_MAX);
            let extent = self.seal_anew(start..end, &read).await?;
            pieces.push((start, extent.part(0, end - start)));
            holds.push(extent);
            start = end;
        }
        Ok(Copied { pieces, _holds: holds })
    }

    /// Into one extent: in the shared pack if it is small, else in a pack of its own.
    async fn seal_anew<R>(
        &self,
        range: Range<u64>,
        read: impl Fn(Range<u64>) -> R,
    ) -> Result<Arc<StagedExtent>>
    where
        R: Future<Output = Result<Bytes>>,
    {
        let (to, who) = (&*self.writer, self.origin());
        if range.end - range.start <= STREAM_MIN {
            let data = read(range.clone()).await?;
            return to.seal(&who, (range.start, 0), &[&data], data.len() as u64);
        }
        let mut extent = OpenExtent::begin(&to.keys, &to.staging, range.start)?;
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + STEP);
            extent.push(&read(at..end).await?)?;
            at = end;
        }
        extent.finish(&to.keys, &who, 0)
    }
}
